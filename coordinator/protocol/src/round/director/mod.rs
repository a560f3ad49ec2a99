//! The coordinator's end of a round.
//!
//! ```text
//! PARK ─all parked→ FLUSH ═all flushed═→ CAPTURE ═all captured═→ WRITE ─all written→ COMMIT ─Durable→ SETTLE → OVER
//!   └───────────────┴───────────────────┴──────────────────────┴─ failure ─→ ABORT ←─ NotDurable ─┘       ↑
//!                                                                              └─ all let go ─→ Discard ──┘
//! ```
//!
//! From COMMIT on nothing but the disk decides. Order of calls: any inputs, then [`Director::poll_output`] until `None`, then
//! [`Director::poll_timeout`].

mod hearing;
mod outputs;
mod seat;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use outputs::{Announcement, Commit, Cost, DirectorOutput, Durable, NotDurable};
pub use seat::Seat;
use seat::Seats;

use super::matching::Matching;
use super::{ALONE, SLACK, STILL};
use crate::node::{Edge, Flow, NodeId, Order, Park, Round, Stage, Standing, shorten};

/// See the module's head.
#[derive(Debug)]
pub struct Director {
    park: Park,
    begun: Duration,
    step: Step,
    /// Of the step, where it has one.
    until: Option<Duration>,
    seats: Seats,
    matching: Matching,
    /// Streams that do not run empty, and their senders' nodes.
    stuck: BTreeMap<Flow, NodeId>,
    /// Those of them whose holders were named.
    named: BTreeSet<Flow>,
    outside: BTreeMap<NodeId, Vec<Edge>>,
    /// How many were passed.
    barriers: u32,
    cost: Cost,
    outputs: VecDeque<DirectorOutput>,
}

/// Where a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Until every thread is parked.
    Park,
    /// Until nothing is on the wire: barrier 1.
    Flush,
    /// Until all is captured: barrier 2.
    Capture,
    /// Until all is written.
    Write,
    /// The shell makes it durable.
    Commit,
    /// Until everybody has heard that it is committed.
    Settle,
    /// Until everybody is let go.
    Abort,
    #[allow(missing_docs)]
    Over,
}

impl Director {
    /// Begins a round with these nodes: all of the job's, all connected.
    #[must_use]
    pub fn begin(now: Duration, park: Park, seats: BTreeMap<NodeId, Seat>) -> Self {
        let until = now + Duration::from_millis(park.deadlines.quiesce_ms) + SLACK;
        let mut director = Self {
            park,
            begun: now,
            step: Step::Park,
            until: Some(until),
            seats: Seats::new(now, seats),
            matching: Matching::default(),
            stuck: BTreeMap::new(),
            named: BTreeSet::new(),
            outside: BTreeMap::new(),
            barriers: 0,
            cost: Cost::default(),
            outputs: VecDeque::new(),
        };
        director.send_all(&Order::Park(director.park.clone()));
        director
    }

    #[allow(missing_docs)]
    #[must_use]
    pub const fn round(&self) -> Round {
        self.park.round
    }

    /// What the round would commit, or has.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.park.generation
    }

    #[allow(missing_docs)]
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Nothing of it is left to be done; it may be dropped once its outputs are taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    /// How many global barriers it has passed.
    #[must_use]
    pub const fn barriers(&self) -> u32 {
        self.barriers
    }

    /// Bytes done and bytes in all, as far as nodes have told.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        self.seats.iter().fold((0, 0), |sum, (_, seat)| (sum.0 + seat.progress.0, sum.1 + seat.progress.1))
    }

    /// Calls the round off, unless it has been decided.
    pub fn cancel(&mut self, now: Duration, reason: &str) {
        self.check_deadlines(now);
        self.fail(reason.to_owned());
    }

    /// Handles that a node's agent is (again) connected, perhaps another one. What it may have missed is said again.
    pub fn handle_joined(&mut self, now: Duration, node: NodeId, host: &str, agent: u32, standing: &Standing) {
        self.check_deadlines(now);
        let round = self.park.round;
        let Some(seat) = self.seats.join(now, node, host, agent) else { return };
        match self.step {
            Step::Abort => self.send(node, Order::Abort { round, reason: "called off".into() }),
            Step::Settle => self.send(node, Order::Committed { round, generation: self.park.generation }),
            Step::Commit | Step::Over => {}
            _ if seat.receipt.is_some() => self.say_again(node),
            _ if standing.round < round && seat.stage == Stage::Parking => {
                self.send(node, Order::Park(self.park.clone()));
            }
            _ if standing.round == round && !matches!(standing.stage, Stage::Out | Stage::Freeing) => {
                self.say_again(node);
            }
            _ => {
                let name = seat.name(node);
                self.fail(format!("{name} is out of the round: an agent died, or was alone for too long"));
            }
        }
    }

    /// Handles that a node is not connected for now.
    pub fn handle_parted(&mut self, now: Duration, node: NodeId) {
        self.check_deadlines(now);
        self.seats.part(now, node);
    }

    /// Handles that a node is given up.
    pub fn handle_lost(&mut self, now: Duration, node: NodeId) {
        self.check_deadlines(now);
        self.seats.lose(node);
        let Some(seat) = self.seats.get(node) else { return };
        let (name, written) = (seat.name(node), seat.receipt.is_some());
        if !written {
            self.fail(format!("{name} was given up: nothing was heard of it for too long"));
        }
        self.try_over();
    }

    /// Handles that the commit is made.
    ///
    /// # Panics
    /// If it is of another round: that is a mistake of the shell's.
    pub fn handle_durable(&mut self, durable: Durable) {
        assert!(self.step == Step::Commit && durable.commit.round == self.park.round, "a commit of another round");
        self.step = Step::Settle;
        self.outputs.push_back(DirectorOutput::Announce(Announcement::Committed(durable)));
        self.send_all(&Order::Committed { round: self.park.round, generation: self.park.generation });
        self.try_over();
    }

    /// Handles that the commit is not made and never will be.
    ///
    /// # Panics
    /// If it is of another round.
    pub fn handle_not_durable(&mut self, refused: NotDurable) {
        assert!(self.step == Step::Commit && refused.round == self.park.round, "a commit of another round");
        self.call_off(refused.reason);
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.check_deadlines(now);
    }

    /// The next thing to do or to say.
    pub fn poll_output(&mut self) -> Option<DirectorOutput> {
        self.outputs.pop_front()
    }

    /// When [`Director::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.until.into_iter().chain(self.alone_until()).min()
    }

    /// When a node that is not connected has let its threads go: there is nothing to wait for any more, and others stand
    /// still.
    fn alone_until(&self) -> Option<Duration> {
        let stands_still = self.step < Step::Write || (self.step == Step::Write && self.park.stays_parked());
        let (since, _) = self.seats.first_parted().filter(|_| stands_still)?;
        Some(since + ALONE)
    }

    /// Before anything else is looked at: what comes after a deadline has not come.
    fn check_deadlines(&mut self, now: Duration) {
        if self.alone_until().is_some_and(|until| now >= until) {
            let parted = self.seats.first_parted().and_then(|(_, node)| Some((node, self.seats.get(node)?)));
            let complaint = parted.map(|(node, seat)| seat.complaint(node));
            return self.fail(complaint.unwrap_or_default());
        }
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        let behind = |seat: &Seat| match self.step {
            Step::Park => seat.stage < Stage::Flushing,
            Step::Flush => seat.stage < Stage::Flushed,
            Step::Capture => seat.stage < Stage::Captured,
            _ => seat.receipt.is_none() && now >= seat.heard + STILL,
        };
        let complaint = self.seats.iter().find(|(_, seat)| behind(seat)).map(|(node, first)| {
            let since = if self.step == Step::Write { first.heard } else { self.begun };
            let others = self.seats.iter().filter(|(_, seat)| behind(seat)).count() - 1;
            let others = if others > 0 { format!("; so are {others} others") } else { String::new() };
            format!("{} after {} s{others}", first.complaint(node), (now - since).as_secs())
        });
        match complaint {
            Some(complaint) => self.fail(complaint),
            None => self.look_again_later(),
        }
    }

    /// All that still write get on: until when could that be true of the one that was heard of first?
    fn look_again_later(&mut self) {
        let heard = self.seats.iter().filter(|(_, seat)| seat.receipt.is_none()).map(|(_, seat)| seat.heard).min();
        self.until = heard.map(|heard| heard + STILL);
    }

    /// Calls the round off, unless it has been decided.
    fn fail(&mut self, reason: String) {
        if self.step < Step::Commit {
            self.call_off(reason);
        }
    }

    fn call_off(&mut self, reason: String) {
        let reason = shorten(reason);
        let (round, generation) = (self.park.round, self.park.generation);
        (self.step, self.until) = (Step::Abort, None);
        self.send_all(&Order::Abort { round, reason: reason.clone() });
        self.outputs.push_back(DirectorOutput::Announce(Announcement::Failed { round, generation, reason }));
        self.try_over();
    }

    fn try_over(&mut self) {
        match self.step {
            Step::Settle if self.seats.all_in(Stage::Done) => self.step = Step::Over,
            Step::Abort if self.seats.all_in(Stage::Out) => {
                self.step = Step::Over;
                self.outputs.push_back(DirectorOutput::Discard(self.park.round));
            }
            _ => {}
        }
    }

    fn send(&mut self, node: NodeId, order: Order) {
        self.outputs.push_back(DirectorOutput::Send(node, order));
    }

    fn send_all(&mut self, order: &Order) {
        let nodes: Vec<NodeId> = self.seats.iter().filter(|(_, seat)| !seat.lost).map(|(node, _)| node).collect();
        nodes.into_iter().for_each(|node| self.send(node, order.clone()));
    }
}
