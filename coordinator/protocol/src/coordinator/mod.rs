//! The coordinator of a job that runs: who is there, one round after another, and what a coordinator that was started
//! anew says to agents that are in the middle of one.
//!
//! ```text
//! wish → (every node of the job connected and free) → Draft → the shell makes the folder → a Director
//! Hello of an agent that is in a round of which this coordinator knows nothing:
//!     it has written its part, and the generation has its final name → Committed
//!     anything else                                                  → Abort
//! ```
//!
//! Both rules are safe. Only a coordinator commits, only one lives at a time (the shell holds a lock on the job's folder), and
//! a generation gets its final name after every node has written. A round that failed leaves its generation's number to the
//! next, and no node can be in the older one then: no round begins while a node of the job is absent, lost, or has not
//! answered that it is out. (The shell writes a node into the job's folder before it is let in, and names all of them to the
//! next coordinator with [`Coordinator::expect`].) Numbers of rounds only grow: a coordinator takes one that is greater than
//! any that the nodes have heard of.
//!
//! Order of calls: any inputs, then [`Coordinator::poll_output`] until `None`, then [`Coordinator::poll_timeout`].

mod outputs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use outputs::{CoordinatorOutput, WISHES_MAX, Wish, WishId, WishOutcome};

use crate::members::{Job, Member, Members, SessionId};
use crate::node::{Greeting, Hello, NodeId, Order, Park, Report, Round, Stage, TurnedAway, Welcome};
use crate::phase::Deadlines;
use crate::round::{Announcement, Director, DirectorOutput, Durable, NotDurable, Seat};

/// See the module's head.
#[derive(Debug)]
pub struct Coordinator {
    members: Members,
    pid: u32,
    /// Generations that have their final names.
    committed: BTreeSet<u64>,
    newest_round: Round,
    /// Nodes that are still in an older round, and were told what becomes of it.
    unresolved: BTreeSet<NodeId>,
    wishes: VecDeque<Waiting>,
    /// Its folder is being made, or it is being taken.
    current: Option<Current>,
    next_wish: u64,
    /// The job was told to end, or a checkpoint with `kill` is committed: whoever goes now does as it was told.
    over: bool,
    outputs: VecDeque<CoordinatorOutput>,
}

#[derive(Debug)]
struct Waiting {
    id: WishId,
    wish: Wish,
    since: Duration,
}

#[derive(Debug)]
struct Current {
    id: WishId,
    wish: Wish,
    round: Round,
    generation: u64,
    director: Option<Director>,
}

impl Coordinator {
    /// Of a job. `committed`: the generations that the shell finds under their final names; a coordinator that is started
    /// anew must look before it lets anybody in. `pid`: its own.
    #[must_use]
    pub fn new(job: Job, agent_timeout: Duration, pid: u32, committed: BTreeSet<u64>) -> Self {
        Self {
            members: Members::new(job, agent_timeout),
            pid,
            committed,
            newest_round: Round::default(),
            unresolved: BTreeSet::new(),
            wishes: VecDeque::new(),
            current: None,
            next_wish: 0,
            over: false,
            outputs: VecDeque::new(),
        }
    }

    /// A node that a coordinator started anew knows of from the job's folder. No round begins before it is back or lost.
    pub fn expect(&mut self, now: Duration, node: NodeId, host: &str) {
        self.members.expect(now, node, host);
    }

    #[allow(missing_docs)]
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// The round that is being taken.
    #[must_use]
    pub fn director(&self) -> Option<&Director> {
        self.current.as_ref().and_then(|it| it.director.as_ref())
    }

    /// How many wishes wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.wishes.len() + usize::from(self.current.is_some())
    }

    /// Asks for a checkpoint. The outcome comes as [`CoordinatorOutput::Outcome`].
    pub fn wish(&mut self, now: Duration, wish: Wish) -> WishId {
        let id = WishId(self.next_wish);
        self.next_wish += 1;
        if self.wishes.len() >= WISHES_MAX {
            let reason = format!("{WISHES_MAX} checkpoints are waiting already");
            self.outcome(id, WishOutcome::Failed { reason });
        } else {
            self.wishes.push_back(Waiting { id, wish, since: now });
            self.advance(now);
        }
        id
    }

    /// Calls a wish's checkpoint off, unless it has been decided.
    pub fn cancel(&mut self, now: Duration, id: WishId, reason: &str) {
        if let Some(at) = self.wishes.iter().position(|it| it.id == id) {
            self.wishes.remove(at);
            return self.outcome(id, WishOutcome::Failed { reason: reason.to_owned() });
        }
        if let Some(director) = self.current.as_mut().filter(|it| it.id == id).and_then(|it| it.director.as_mut()) {
            director.cancel(now, reason);
        }
        self.advance(now);
    }

    /// Ends the job on every node.
    pub fn end(&mut self, reason: &str) {
        self.over = true;
        let nodes: Vec<NodeId> = self.members.all().keys().copied().collect();
        for node in nodes {
            self.send(node, Order::End { reason: reason.to_owned() });
        }
    }

    /// Handles the first frame of a session.
    pub fn handle_hello(&mut self, now: Duration, session: SessionId, hello: &Hello) {
        let joined = match self.members.handle_hello(now, session, hello) {
            Ok(joined) => joined,
            Err(why) => return self.turn_away(session, *why),
        };
        if let Some(superseded) = joined.superseded {
            self.outputs.push_back(CoordinatorOutput::Close(superseded));
        }
        let agent_timeout_ms = self.members.agent_timeout().as_millis() as u64;
        let welcome = Welcome { coordinator: self.pid, agent_timeout_ms };
        self.outputs.push_back(CoordinatorOutput::Greet(session, Greeting::Welcome(welcome)));
        let standing = &hello.standing;
        self.newest_round = self.newest_round.max(standing.round);
        self.unresolved.remove(&hello.node);
        let in_current = self.current.as_ref().is_some_and(|it| it.round == standing.round);
        if !in_current && !standing.stage.is_over() {
            self.unresolved.insert(hello.node);
            let order = self.verdict(standing.round, standing.generation, standing.stage);
            self.over |= standing.kill && matches!(order, Order::Committed { .. });
            self.send(hello.node, order);
        }
        if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
            director.handle_joined(now, hello.node, &hello.host, hello.agent, standing);
        }
        self.advance(now);
    }

    /// Turns somebody away whose [`Hello`] could not even be read.
    pub fn turn_away(&mut self, session: SessionId, why: TurnedAway) {
        self.outputs.push_back(CoordinatorOutput::Greet(session, Greeting::TurnedAway(why)));
        self.outputs.push_back(CoordinatorOutput::Close(session));
    }

    /// Handles a report. Returns one that is no matter of a checkpoint's (launched programs, restarts), and whose it is.
    pub fn handle_report(&mut self, now: Duration, session: SessionId, report: Report) -> Option<(NodeId, Report)> {
        let node = self.members.node_of(session)?;
        match report {
            Report::Relay { to, message } => self.send(to, Order::Relayed { from: node, message }),
            Report::Launched { .. }
            | Report::LaunchFailed { .. }
            | Report::Ended { .. }
            | Report::RankLost { .. }
            | Report::Bound { .. }
            | Report::Ready
            | Report::Running
            | Report::RestartProgress { .. }
            | Report::RestartFailed { .. } => return Some((node, report)),
            report => self.hear(now, node, report),
        }
        self.advance(now);
        None
    }

    /// Handles that a session is over.
    pub fn handle_broken(&mut self, now: Duration, session: SessionId) {
        let Some(node) = self.members.handle_broken(now, session) else { return };
        if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
            director.handle_parted(now, node);
        }
        self.advance(now);
    }

    /// Handles that the folder of [`CoordinatorOutput::Draft`] is there, under this path, or that it could not be made.
    pub fn handle_drafted(&mut self, now: Duration, round: Round, made: Result<String, String>) {
        let Some(current) = self.current.as_mut().filter(|it| it.round == round && it.director.is_none()) else {
            return;
        };
        match made {
            Ok(dir) => {
                let Wish { mode, kill, timeout_s, outside } = current.wish;
                let (generation, deadlines) = (current.generation, Deadlines::within(timeout_s));
                let park = Park { round, generation, dir, mode, kill, outside, deadlines };
                let seat = |member: &Member| Seat::new(&member.host, member.agent);
                let living = self.members.all().iter().filter(|(_, member)| !member.lost);
                let seats: BTreeMap<NodeId, Seat> = living.map(|(node, it)| (*node, seat(it))).collect();
                let mut director = Director::begin(now, park, seats);
                self.members.absent().for_each(|(node, _)| director.handle_parted(now, node));
                current.director = Some(director);
            }
            Err(reason) => {
                let id = current.id;
                self.current = None;
                self.outcome(id, WishOutcome::Failed { reason });
            }
        }
        self.advance(now);
    }

    /// Handles that the commit is made.
    pub fn handle_durable(&mut self, now: Duration, durable: Durable) {
        self.committed.insert(durable.commit().generation());
        self.over |= self.current.as_ref().is_some_and(|it| it.wish.kill);
        if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
            director.handle_durable(durable);
        }
        self.advance(now);
    }

    /// Handles that the commit is not made and never will be.
    pub fn handle_not_durable(&mut self, now: Duration, refused: NotDurable) {
        if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
            director.handle_not_durable(refused);
        }
        self.advance(now);
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.members.handle_timeout(now);
        if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
            director.handle_timeout(now);
        }
        self.advance(now);
    }

    /// The next thing to do or to say.
    pub fn poll_output(&mut self) -> Option<CoordinatorOutput> {
        self.outputs.pop_front()
    }

    /// When [`Coordinator::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let patience = self.wishes.front().filter(|_| self.current.is_none()).map(|it| it.since + self.patience());
        let director = self.director().and_then(Director::poll_timeout);
        [self.members.poll_timeout(), director, patience].into_iter().flatten().min()
    }

    fn hear(&mut self, now: Duration, node: NodeId, report: Report) {
        if let Report::Aborted { round } | Report::Settled { round } = &report
            && self.current.as_ref().is_none_or(|it| it.round != *round)
        {
            self.unresolved.remove(&node);
        }
        if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
            director.handle_report(now, node, report);
        }
    }

    /// What becomes of a round of which this coordinator has no director.
    fn verdict(&self, round: Round, generation: u64, stage: Stage) -> Order {
        if stage == Stage::Written && self.committed.contains(&generation) {
            Order::Committed { round, generation }
        } else {
            Order::Abort { round, reason: "the coordinator that began it is gone".into() }
        }
    }

    /// Whatever can go on goes on.
    fn advance(&mut self, now: Duration) {
        while let Some(node) = self.members.poll_lost() {
            self.unresolved.remove(&node);
            if let Some(director) = self.current.as_mut().and_then(|it| it.director.as_mut()) {
                director.handle_lost(now, node);
            }
            if !self.over {
                self.outputs.push_back(CoordinatorOutput::Lost(node));
            }
        }
        self.take_directors_outputs();
        if self.director().is_some_and(Director::is_over) {
            self.current = None;
        }
        self.begin_next(now);
    }

    fn take_directors_outputs(&mut self) {
        let Some(current) = &mut self.current else { return };
        let id = current.id;
        let Some(director) = &mut current.director else { return };
        let outputs: Vec<DirectorOutput> = std::iter::from_fn(|| director.poll_output()).collect();
        for output in outputs {
            match output {
                DirectorOutput::Send(node, order) => self.send(node, order),
                DirectorOutput::Commit(commit) => self.outputs.push_back(CoordinatorOutput::Commit(commit)),
                DirectorOutput::Discard(round) => self.outputs.push_back(CoordinatorOutput::Discard(round)),
                DirectorOutput::Announce(Announcement::Committed(durable)) => {
                    self.outcome(id, WishOutcome::Committed(durable));
                }
                DirectorOutput::Announce(Announcement::Failed { reason, .. }) => {
                    self.outcome(id, WishOutcome::Failed { reason });
                }
            }
        }
    }

    fn begin_next(&mut self, now: Duration) {
        if self.current.is_some() {
            return;
        }
        let Some(waiting) = self.wishes.front() else { return };
        if let Some(reason) = self.in_the_way() {
            if now >= waiting.since + self.patience()
                && let Some(waiting) = self.wishes.pop_front()
            {
                self.outcome(waiting.id, WishOutcome::Failed { reason });
            }
            return;
        }
        let Some(Waiting { id, wish, .. }) = self.wishes.pop_front() else { return };
        self.newest_round = Round(self.newest_round.0 + 1);
        let (round, generation) = (self.newest_round, self.committed.last().copied().unwrap_or_default() + 1);
        self.current = Some(Current { id, wish, round, generation, director: None });
        self.outputs.push_back(CoordinatorOutput::Draft { wish: id, round, generation });
    }

    /// Why no round can begin now.
    fn in_the_way(&self) -> Option<String> {
        if self.over {
            return Some("the job is over".to_owned());
        }
        if let Some((node, member)) = self.members.all().iter().find(|(_, member)| member.lost) {
            return Some(format!("{} ({node}) is lost", member.host));
        }
        if let Some((node, member)) = self.members.absent().next() {
            return Some(format!("{} ({node}) is not connected", member.host));
        }
        if let Some(node) = self.unresolved.first() {
            let host = self.members.all().get(node).map(|it| it.host.clone()).unwrap_or_default();
            return Some(format!("{host} ({node}) is still busy with an earlier round"));
        }
        self.members.all().is_empty().then(|| "no node has joined".to_owned())
    }

    /// How long a wish waits for nodes that are not there.
    const fn patience(&self) -> Duration {
        self.members.agent_timeout()
    }

    fn outcome(&mut self, id: WishId, outcome: WishOutcome) {
        self.outputs.push_back(CoordinatorOutput::Outcome(id, outcome));
    }

    /// To a node that is connected. To one that is not it is said again, if it matters, when it is.
    fn send(&mut self, node: NodeId, order: Order) {
        if let Some(session) = self.members.all().get(&node).and_then(|it| it.session) {
            self.outputs.push_back(CoordinatorOutput::Send(session, order));
        }
    }
}
