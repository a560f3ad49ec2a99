//! Who is in the job, who is connected, who is lost.
//!
//! ```text
//! (unknown) ─Hello→ PRESENT ─session breaks→ ABSENT ─agent_timeout→ LOST
//!                      ↑ └──── Hello of a younger agent, or of the same one: the older session is closed
//!                      └───────── Hello ─────────┘
//! ```
//!
//! The guardian is the node: agents come and go under it. A node that is lost stays lost, because the job has been ended or
//! restarted without it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::node::{Hello, NodeId, TurnedAway};

/// Nodes of a job, at most.
pub const NODES_MAX: u32 = 16_384;

/// Which job this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// How often it has been restarted.
    pub life: u32,
}

/// A session as the shell numbers it; a number is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    #[allow(missing_docs)]
    pub host: String,
    /// The guardian's pid.
    pub guardian: u32,
    /// The agent's pid.
    pub agent: u32,
    /// Which agent of the guardian's it is.
    pub incarnation: u32,
    /// `None`: not connected.
    pub session: Option<SessionId>,
    /// Since when it is, or is not.
    pub since: Duration,
    /// It was without a session for too long.
    pub lost: bool,
}

/// Somebody was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// A session of the same node that is to be closed: it is broken, and only this side does not know it yet.
    pub superseded: Option<SessionId>,
    /// The node was not known before.
    pub first: bool,
    /// It is another agent than the last one.
    pub new_agent: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Members {
    job: Job,
    agent_timeout: Duration,
    nodes: BTreeMap<NodeId, Member>,
    sessions: BTreeMap<SessionId, NodeId>,
    /// Neither connected nor given up, and since when.
    absent: BTreeSet<(Duration, NodeId)>,
    /// Lost, and not polled yet.
    lost: VecDeque<NodeId>,
}

impl Members {
    /// Of a job that nobody has joined yet.
    #[must_use]
    pub fn new(job: Job, agent_timeout: Duration) -> Self {
        let (nodes, sessions, absent) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { job, agent_timeout, nodes, sessions, absent, lost: VecDeque::new() }
    }

    /// A node that a coordinator knows of from before it was started anew: it has `agent_timeout` to be heard of.
    pub fn expect(&mut self, now: Duration, node: NodeId, host: &str) {
        let host = host.to_owned();
        let unknown = Member { host, guardian: 0, agent: 0, incarnation: 0, session: None, since: now, lost: false };
        if let Entry::Vacant(entry) = self.nodes.entry(node) {
            entry.insert(unknown);
            self.absent.insert((now, node));
        }
    }

    #[allow(missing_docs)]
    #[must_use]
    pub const fn job(&self) -> &Job {
        &self.job
    }

    /// How long a node may be without contact.
    #[must_use]
    pub const fn agent_timeout(&self) -> Duration {
        self.agent_timeout
    }

    /// All that were ever heard of, in their order.
    #[must_use]
    pub const fn all(&self) -> &BTreeMap<NodeId, Member> {
        &self.nodes
    }

    /// The node that speaks in this session. The older session of two that one node has had belongs to nobody.
    #[must_use]
    pub fn node_of(&self, session: SessionId) -> Option<NodeId> {
        self.sessions.get(&session).copied()
    }

    /// Those that are neither connected nor given up.
    pub fn absent(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.absent.iter().filter_map(|(_, node)| Some((*node, self.nodes.get(node)?)))
    }

    /// Handles the first frame of a session.
    ///
    /// # Errors
    /// Why it is not let in; the session is to be closed after it was told so.
    pub fn handle_hello(
        &mut self,
        now: Duration,
        session: SessionId,
        hello: &Hello,
    ) -> Result<Joined, Box<TurnedAway>> {
        self.judge(now, hello)?;
        let (host, guardian, agent, incarnation) = (hello.host.clone(), hello.guardian, hello.agent, hello.incarnation);
        let member = Member { host, guardian, agent, incarnation, session: Some(session), since: now, lost: false };
        let before = self.nodes.insert(hello.node, member);
        if let Some(before) = &before {
            self.absent.remove(&(before.since, hello.node));
        }
        let known = before.as_ref().filter(|it| it.guardian != 0);
        if let Some(old) = known.and_then(|it| it.session) {
            self.sessions.remove(&old);
        }
        self.sessions.insert(session, hello.node);
        Ok(Joined {
            superseded: known.and_then(|it| it.session),
            first: before.is_none(),
            new_agent: known.is_some_and(|it| it.agent != agent || it.incarnation != incarnation),
        })
    }

    /// Handles that a session is over. Returns whose it was.
    pub fn handle_broken(&mut self, now: Duration, session: SessionId) -> Option<NodeId> {
        let node = self.sessions.remove(&session)?;
        self.absent.insert((now, node));
        self.nodes.entry(node).and_modify(|it| (it.session, it.since) = (None, now));
        Some(node)
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some((since, node)) = self.absent.first().copied().filter(|it| now >= it.0 + self.agent_timeout) {
            self.absent.remove(&(since, node));
            self.nodes.entry(node).and_modify(|member| member.lost = true);
            self.lost.push_back(node);
        }
    }

    /// The next node that was given up.
    pub fn poll_lost(&mut self) -> Option<NodeId> {
        self.lost.pop_front()
    }

    /// When [`Members::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.absent.first().map(|(since, _)| *since + self.agent_timeout)
    }

    fn judge(&self, now: Duration, hello: &Hello) -> Result<(), Box<TurnedAway>> {
        let (host, node, job) = (hello.host.clone(), hello.node, &self.job);
        let refuse = |why| Err(Box::new(why));
        if hello.job != job.id {
            return refuse(TurnedAway::Job { host, theirs: hello.job.clone(), ours: job.id.clone() });
        }
        if hello.life != job.life {
            let (theirs, ours) = (hello.life, job.life);
            return refuse(TurnedAway::Life { host, job: job.id.clone(), theirs, ours });
        }
        if node.0 >= NODES_MAX {
            return refuse(TurnedAway::TooMany { host, node, most: NODES_MAX });
        }
        let Some(member) = self.nodes.get(&node).filter(|it| it.guardian != 0 || it.lost) else { return Ok(()) };
        if member.lost {
            let silent_ms = (now - member.since).as_millis() as u64;
            return refuse(TurnedAway::GivenUp { host, node, silent_ms });
        }
        if (member.guardian, &member.host) != (hello.guardian, &hello.host) {
            let (holder, guardian) = (member.host.clone(), member.guardian);
            return refuse(TurnedAway::Taken { host, node, holder, guardian });
        }
        if hello.incarnation < member.incarnation {
            return refuse(TurnedAway::Replaced { host, node, agent: hello.agent });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn members() -> Members {
        Members::new(Job { id: "j".into(), life: 0 }, TIMEOUT)
    }

    fn hello(node: u32, incarnation: u32) -> Hello {
        let (job, host) = ("j".into(), format!("n{node}"));
        Hello { job, host, node: NodeId(node), guardian: 10, agent: 20 + incarnation, incarnation, ..Hello::default() }
    }

    #[test]
    fn it_comes_goes_and_comes_back() {
        let mut members = members();
        let joined = members.handle_hello(at(0), SessionId(1), &hello(3, 0)).unwrap();
        assert_eq!(joined, Joined { superseded: None, first: true, new_agent: false });
        assert_eq!(members.handle_broken(at(1), SessionId(1)), Some(NodeId(3)));
        assert_eq!(members.handle_broken(at(1), SessionId(1)), None);
        assert_eq!(members.poll_timeout(), Some(at(31)));
        let joined = members.handle_hello(at(2), SessionId(2), &hello(3, 1)).unwrap();
        assert_eq!(joined, Joined { superseded: None, first: false, new_agent: true });
        members.handle_timeout(at(100));
        assert_eq!((members.poll_lost(), members.poll_timeout()), (None, None));
    }

    #[test]
    fn a_younger_agent_supersedes_and_an_older_one_does_not() {
        let mut members = members();
        members.handle_hello(at(0), SessionId(1), &hello(0, 1)).unwrap();
        let joined = members.handle_hello(at(1), SessionId(2), &hello(0, 2)).unwrap();
        assert_eq!((joined.superseded, members.node_of(SessionId(1))), (Some(SessionId(1)), None));
        let refused = members.handle_hello(at(2), SessionId(3), &hello(0, 1)).unwrap_err();
        assert_eq!(refused.to_string(), "node 0 has a younger agent than 21 of n0");
        assert_eq!(members.node_of(SessionId(2)), Some(NodeId(0)));
    }

    #[test]
    fn who_is_silent_for_too_long_is_lost_for_good() {
        let mut members = members();
        members.expect(at(0), NodeId(7), "n7");
        members.handle_hello(at(0), SessionId(1), &hello(0, 0)).unwrap();
        members.handle_broken(at(10), SessionId(1));
        members.handle_timeout(at(29));
        assert_eq!(members.poll_lost(), None);
        members.handle_timeout(at(40));
        assert_eq!((members.poll_lost(), members.poll_lost()), (Some(NodeId(7)), Some(NodeId(0))));
        let refused = members.handle_hello(at(41), SessionId(2), &hello(0, 1)).unwrap_err();
        assert_eq!(refused.to_string(), "node 0 (n0) was given up after 31000 ms without contact");
        assert!(members.handle_hello(at(41), SessionId(3), &hello(7, 0)).is_err());
    }

    #[test]
    fn strangers_are_named() {
        let mut members = members();
        members.handle_hello(at(0), SessionId(1), &hello(0, 0)).unwrap();
        let mut refusal = |change: &dyn Fn(&mut Hello)| {
            let mut hello = hello(0, 0);
            change(&mut hello);
            members.handle_hello(at(1), SessionId(9), &hello).unwrap_err().to_string()
        };
        assert_eq!(refusal(&|it| it.job = "k".into()), "n0 is of job k, this is job j");
        assert_eq!(refusal(&|it| it.life = 2), "n0 is of life 2 of job j, this is life 0");
        assert_eq!(refusal(&|it| it.node = NodeId(NODES_MAX)), "node 16384 (n0): a job has at most 16384 nodes");
        assert_eq!(refusal(&|it| it.host = "m".into()), "node 0 is n0 (guardian 10) and alive; m cannot be it");
        assert_eq!(refusal(&|it| it.guardian = 11), "node 0 is n0 (guardian 10) and alive; n0 cannot be it");
    }
}
