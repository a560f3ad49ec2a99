//! Both ends meet: one director, some deputies, shells that do everything at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::messages::Mode;
use crate::node::{Edge, EdgeState, NodeId, Order, Outside, Park, Receipt, Report, Round, Stage, Welcome};
use crate::phase::Deadlines;

/// Which deeds.
type Kind = fn(&Deed) -> bool;

const NOW: Duration = Duration::from_secs(1000);

/// A round, and everything that was done and said.
struct Pair {
    now: Duration,
    director: Director,
    deputies: Vec<Deputy>,
    edges: Vec<Vec<Edge>>,
    /// Deeds of this kind are begun and not done, on this node.
    stuck: Option<(usize, Kind)>,
    log: Vec<String>,
    announced: Vec<Announcement>,
    durable: Result<(), String>,
}

fn park(mode: Mode, kill: bool, outside: Outside) -> Park {
    let (round, generation, dir, deadlines) = (Round(1), 7, "/ckpt/.gen".into(), Deadlines::USUAL);
    Park { round, generation, dir, mode, kill, outside, deadlines }
}

impl Pair {
    fn new(nodes: usize, park: Park) -> Self {
        let seats = (0..nodes).map(|it| (NodeId(it as u32), Seat::new(&format!("n{it}"), 10 + it as u32)));
        let welcome = Welcome { coordinator: 1, agent_timeout_ms: 30_000 };
        let deputy = |_| {
            let mut deputy = Deputy::new(NOW);
            deputy.handle_connected(NOW, &welcome);
            deputy
        };
        Self {
            now: NOW,
            director: Director::begin(NOW, park, seats.collect()),
            deputies: (0..nodes).map(deputy).collect(),
            edges: vec![Vec::new(); nodes],
            stuck: None,
            log: Vec::new(),
            announced: Vec::new(),
            durable: Ok(()),
        }
    }

    /// Until nobody has anything to do or to say.
    fn drive(&mut self) -> &mut Self {
        loop {
            let mut idle = true;
            while let Some(output) = self.director.poll_output() {
                idle = false;
                self.obey(output);
            }
            for node in 0..self.deputies.len() {
                while let Some(output) = self.deputies[node].poll_output() {
                    idle = false;
                    match output {
                        DeputyOutput::Send(report) => {
                            self.director.handle_report(self.now, NodeId(node as u32), report)
                        }
                        DeputyOutput::Do(deed) => self.perform(node, deed),
                        DeputyOutput::Tell(to, message) => {
                            self.deputies[to.0 as usize].handle_between(self.now, NodeId(node as u32), message);
                        }
                    }
                }
            }
            if idle {
                return self;
            }
        }
    }

    fn obey(&mut self, output: DirectorOutput) {
        match output {
            DirectorOutput::Send(node, order) => self.deputies[node.0 as usize].handle_order(self.now, order),
            DirectorOutput::Announce(it) => self.announced.push(it),
            DirectorOutput::Discard(_) => self.log.push("discard".into()),
            DirectorOutput::Commit(commit) => match self.durable.clone() {
                Ok(()) => self.director.handle_durable(commit.made_durable()),
                Err(reason) => self.director.handle_not_durable(commit.refused(reason)),
            },
        }
    }

    fn perform(&mut self, node: usize, deed: Deed) {
        if self.stuck.is_some_and(|(at, kind)| at == node && kind(&deed)) {
            return;
        }
        let round = Round(1);
        let (word, done) = match deed {
            Deed::Park(_) => ("park", Done::Parked(self.edges[node].clone())),
            Deed::Flush(_) => ("flush", Done::Quiet),
            Deed::Capture(..) => ("capture", Done::Captured),
            Deed::Resume(_) => ("resume", Done::Resumed(5)),
            Deed::Write(_) => ("write", Done::Written(Receipt { processes: 1, ..Receipt::default() })),
            Deed::Free(_) => ("free", Done::Freed),
            Deed::End(_) => return self.log.push(format!("{node} end")),
            Deed::Leave(_, edges) => return self.log.push(format!("{node} leave {}", edges.len())),
            other => panic!("{other:?}"),
        };
        self.log.push(format!("{node} {word}"));
        self.deputies[node].handle_done(self.now, round, done);
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self.director.handle_timeout(self.now);
        self.deputies.iter_mut().for_each(|it| it.handle_timeout(self.now));
        self.drive()
    }

    fn reason(&self) -> &str {
        match &self.announced[..] {
            [Announcement::Failed { reason, .. }] => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Where in the log a line is; first and last of those that end in it.
    fn span(&self, word: &str) -> (usize, usize) {
        let mut at = self.log.iter().enumerate().filter(|(_, line)| line.ends_with(word)).map(|(at, _)| at);
        let first = at.next().unwrap_or_else(|| panic!("no {word}: {:?}", self.log));
        (first, at.next_back().unwrap_or(first))
    }
}

fn edge(local: &str, remote: &str, state: EdgeState) -> Edge {
    Edge { local: local.parse().unwrap(), remote: remote.parse().unwrap(), state, pid: 33 }
}

#[test]
fn two_barriers_then_everybody_writes() {
    let mut pair = Pair::new(3, park(Mode::Twin, false, Outside::Refuse));
    pair.drive();
    assert!(pair.span("flush").1 < pair.span("capture").0);
    assert!(pair.span("capture").1 < pair.span("resume").0);
    assert_eq!((pair.director.barriers(), pair.director.step()), (2, Step::Over));
    let [Announcement::Committed(durable)] = &pair.announced[..] else { panic!("{:?}", pair.announced) };
    assert_eq!((durable.commit().generation(), durable.commit().receipts().len()), (7, 3));
    assert_eq!(durable.commit().cost().stall_us, 5);
    assert!(pair.deputies.iter().all(|it| it.standing().stage == Stage::Done));
}

#[test]
fn with_stop_nobody_resumes_before_the_commit() {
    let mut pair = Pair::new(2, park(Mode::Stop, false, Outside::Refuse));
    pair.drive();
    assert!(pair.span("write").1 < pair.span("resume").0);
    assert!(pair.director.is_over());
}

#[test]
fn with_kill_everybody_ends_and_nobody_resumes() {
    let mut pair = Pair::new(2, park(Mode::Twin, true, Outside::Refuse));
    pair.drive();
    assert_eq!(pair.span("end").1 - pair.span("end").0, 1);
    assert!(!pair.log.iter().any(|line| line.ends_with("resume")));
}

#[test]
fn a_laggard_is_named() {
    let kinds: [(Kind, &str, u64); 4] = [
        (|it| matches!(it, Deed::Park(_)), "n1 (node 1, agent 11) is still parking threads after 15 s", 15),
        (
            |it| matches!(it, Deed::Flush(_)),
            "n1 (node 1, agent 11) is still waiting for its connections to run empty after 25 s",
            25,
        ),
        (
            |it| matches!(it, Deed::Capture(..)),
            "n1 (node 1, agent 11) is still capturing processes and descriptors after 65 s",
            65,
        ),
        (|it| matches!(it, Deed::Write(_)), "n1 (node 1, agent 11) is still writing after 120 s", 120),
    ];
    for (kind, text, seconds) in kinds {
        let mut pair = Pair::new(3, park(Mode::Twin, false, Outside::Refuse));
        pair.stuck = Some((1, kind));
        pair.drive().pass(seconds - 1);
        assert!(pair.announced.is_empty());
        pair.pass(1);
        assert_eq!(pair.reason(), text);
        assert_eq!(pair.span("free").1 - pair.span("free").0, 2, "everybody is let go");
        assert_eq!(pair.log.last().map(String::as_str), Some("discard"));
        assert!(pair.director.is_over());
    }
}

#[test]
fn who_writes_and_gets_on_has_time() {
    let mut pair = Pair::new(1, park(Mode::Twin, false, Outside::Refuse));
    pair.stuck = Some((0, |it| matches!(it, Deed::Write(_))));
    pair.drive();
    for done in 0..10 {
        pair.deputies[0].handle_done(pair.now, Round(1), Done::Progress(crate::phase::Phase::Write, done, 10));
        pair.drive().pass(100);
    }
    assert_eq!((pair.announced.len(), pair.director.progress()), (0, (9, 10)));
    pair.deputies[0].handle_done(pair.now, Round(1), Done::Written(Receipt::default()));
    assert!(pair.drive().director.is_over());
}

#[test]
fn a_peer_outside_is_named_or_left() {
    let inside = edge("10.0.0.1:1", "10.0.0.2:2", EdgeState::Open);
    let other = edge("10.0.0.2:2", "10.0.0.1:1", EdgeState::Open);
    let outside = edge("10.0.0.1:3", "8.8.8.8:443", EdgeState::Open);
    for policy in [Outside::Refuse, Outside::Drop, Outside::Leave] {
        let mut pair = Pair::new(2, park(Mode::Twin, false, policy));
        pair.edges = vec![vec![inside, outside], vec![other]];
        pair.drive();
        if policy == Outside::Refuse {
            let text = "connection 10.0.0.1:3 → 8.8.8.8:443 of pid 33: the other end is not in the job";
            assert_eq!(pair.reason(), format!("n0 (node 0, agent 10): {text}"));
        } else {
            assert!(pair.log.contains(&"0 leave 1".to_owned()), "{:?}", pair.log);
            assert!(matches!(pair.announced[..], [Announcement::Committed(_)]));
        }
    }
}

#[test]
fn last_bytes_of_a_closed_end_cannot_be_read_out() {
    let mut pair = Pair::new(2, park(Mode::Twin, false, Outside::Drop));
    let reader = edge("10.0.0.1:1", "10.0.0.2:2", EdgeState::Open);
    pair.edges = vec![vec![reader], vec![edge("10.0.0.2:2", "10.0.0.1:1", EdgeState::Orphan)]];
    pair.drive();
    assert!(pair.reason().contains("10.0.0.1:1 → 10.0.0.2:2") && pair.reason().ends_with("try again"));
}

#[test]
fn a_commit_that_is_refused_is_a_failure() {
    let mut pair = Pair::new(2, park(Mode::Stop, false, Outside::Refuse));
    pair.durable = Err("no space left".into());
    pair.drive();
    assert_eq!(pair.reason(), "no space left");
    assert!(pair.deputies.iter().all(|it| it.standing().stage == Stage::Out));
}

#[test]
fn nothing_but_the_disk_decides_once_it_is_asked() {
    let mut pair = Pair::new(1, park(Mode::Twin, false, Outside::Refuse));
    pair.drive();
    let mut director = Director::begin(
        NOW,
        park(Mode::Twin, false, Outside::Refuse),
        BTreeMap::from([(NodeId(0), Seat::new("n0", 10))]),
    );
    let round = Round(1);
    let reports = [
        Report::Parked { round, edges: 0 },
        Report::Flushed { round },
        Report::Captured { round },
        Report::Written { round, receipt: Receipt::default() },
    ];
    reports.into_iter().for_each(|report| director.handle_report(NOW, NodeId(0), report));
    assert_eq!(director.step(), Step::Commit);
    director.cancel(NOW, "Ctrl-C");
    director.handle_lost(NOW, NodeId(0));
    director.handle_timeout(NOW + STILL * 100);
    director.handle_report(NOW, NodeId(0), Report::Failed { round, reason: "late".into() });
    assert_eq!(director.step(), Step::Commit);
}

#[test]
fn what_is_said_twice_or_of_another_round_changes_nothing() {
    let mut pair = Pair::new(2, park(Mode::Twin, false, Outside::Refuse));
    pair.stuck = Some((0, |it| matches!(it, Deed::Flush(_))));
    pair.drive();
    let before = pair.log.len();
    for round in [Round(1), Round(9)] {
        for report in [Report::Flushed { round }, Report::Written { round, receipt: Receipt::default() }] {
            pair.director.handle_report(pair.now, NodeId(1), report);
        }
        let orders = [Order::Resume { round }, Order::Write { round }, Order::Committed { round, generation: 7 }];
        orders.into_iter().for_each(|order| pair.deputies[1].handle_order(pair.now, order));
    }
    pair.deputies[1].handle_order(pair.now, Order::Park(park(Mode::Twin, false, Outside::Refuse)));
    pair.drive();
    assert_eq!((pair.log.len(), pair.director.step()), (before, Step::Flush));
}

#[test]
fn who_captures_unasked_fails_the_round() {
    let mut pair = Pair::new(2, park(Mode::Twin, false, Outside::Refuse));
    pair.stuck = Some((0, |it| matches!(it, Deed::Flush(_))));
    pair.drive();
    pair.director.handle_report(pair.now, NodeId(1), Report::Captured { round: Round(1) });
    pair.drive();
    assert_eq!(pair.reason(), "n1 (node 1, agent 11) says that it has captured before it was told to");
}

#[test]
fn a_busy_deputy_takes_no_other_round() {
    let mut deputy = Deputy::new(NOW);
    deputy.handle_order(NOW, Order::Park(park(Mode::Twin, false, Outside::Refuse)));
    let next = Park { round: Round(2), ..park(Mode::Twin, false, Outside::Refuse) };
    deputy.handle_order(NOW, Order::Park(next));
    assert!(matches!(deputy.poll_output(), Some(DeputyOutput::Do(Deed::Park(_)))));
    let Some(DeputyOutput::Send(Report::Failed { round, reason })) = deputy.poll_output() else { panic!() };
    assert_eq!((round, reason.as_str()), (Round(2), "round 1 is still parking threads"));
    // An `Abort` that overtakes its `Park` in a new session.
    let mut deputy = Deputy::new(NOW);
    deputy.handle_order(NOW, Order::Abort { round: Round(1), reason: String::new() });
    deputy.handle_order(NOW, Order::Park(park(Mode::Twin, false, Outside::Refuse)));
    for _ in 0..2 {
        assert_eq!(deputy.poll_output(), Some(DeputyOutput::Send(Report::Aborted { round: Round(1) })));
    }
    assert_eq!(deputy.poll_output(), None);
}

#[test]
fn alone_it_lets_go_and_keeps_what_may_be_committed() {
    for (kind, stage, lets_go) in
        [((|it| matches!(it, Deed::Capture(..))) as Kind, Stage::Freeing, true), (|_| false, Stage::Written, true)]
    {
        let mut pair = Pair::new(2, park(Mode::Stop, false, Outside::Refuse));
        pair.stuck = Some((0, kind));
        // The other one never writes: there is no verdict.
        if stage == Stage::Written {
            pair.stuck = Some((1, |it| matches!(it, Deed::Write(_))));
        }
        pair.drive();
        let deputy = &mut pair.deputies[0];
        deputy.handle_disconnected(pair.now);
        assert_eq!(deputy.poll_timeout(), Some(pair.now + ALONE));
        deputy.handle_timeout(pair.now + ALONE);
        assert_eq!(deputy.standing().stage, stage);
        let outputs: Vec<DeputyOutput> = std::iter::from_fn(|| deputy.poll_output()).collect();
        let freed = |it: &DeputyOutput| matches!(it, DeputyOutput::Do(Deed::Free(_) | Deed::Resume(_)));
        assert_eq!(outputs.iter().any(freed), lets_go, "{outputs:?}");
    }
}

#[test]
fn a_node_that_is_away_for_too_long_while_others_stand_still_fails_the_round() {
    let mut pair = Pair::new(2, park(Mode::Twin, false, Outside::Refuse));
    pair.stuck = Some((1, |it| matches!(it, Deed::Capture(..))));
    pair.drive();
    pair.director.handle_parted(pair.now, NodeId(1));
    pair.pass(ALONE.as_secs());
    let text = "n1 (node 1, agent 11) is still capturing processes and descriptors and is not connected";
    assert_eq!(pair.reason(), text);
}
