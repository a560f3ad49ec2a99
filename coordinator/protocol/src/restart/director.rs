//! The coordinator's end of a restart.
//!
//! ```text
//! (new coordinator) LEARN ──┬─ one runs, or all are ready ──┐
//!                           └─ else: ENDED                  ↓
//! PREPARE ─all bound→ BUILD ─all ready→ GO ─all running→ RUNNING
//!    └────────────────┴──── failure ────┴──→ ENDED
//! ```
//!
//! Order of calls: any inputs, then [`Director::poll_output`] until `None`, then [`Director::poll_timeout`].

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{GO, STILL};
use crate::node::{NodeId, Order, Place, Prepare, Report, RestartStage as Stage, shorten};

/// What comes out of a director, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectorOutput {
    /// To a node. One that is not connected now gets it said again when it is.
    Send(NodeId, Order),
    #[allow(missing_docs)]
    Announce(Announcement),
}

/// How a restart ended. Exactly one per restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// Every node runs.
    Running,
    /// No node does, and none will.
    Failed {
        /// Names host, pid, deed.
        reason: String,
    },
}

/// A node of a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    #[allow(missing_docs)]
    pub host: String,
    /// The agent's pid on it.
    pub agent: u32,
    #[allow(missing_docs)]
    pub prepare: Prepare,
    stage: Stage,
    heard: Duration,
    present: bool,
    bound: Option<(SocketAddr, Vec<(SocketAddr, SocketAddr)>)>,
}

impl Seat {
    /// A node that is connected.
    #[must_use]
    pub fn new(host: &str, agent: u32, prepare: Prepare) -> Self {
        let (host, stage, heard) = (host.to_owned(), Stage::Waiting, Duration::ZERO);
        Self { host, agent, prepare, stage, heard, present: true, bound: None }
    }

    fn name(&self, node: NodeId) -> String {
        format!("{} ({node}, agent {})", self.host, self.agent)
    }
}

/// Where a restart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A new coordinator hears what the nodes know.
    Learn,
    /// Until all have bound.
    Prepare,
    /// Until all are ready.
    Build,
    /// Until all run.
    Go,
    /// Over, well.
    Running,
    /// Over.
    Ended,
}

/// See the module's head.
#[derive(Debug)]
pub struct Director {
    step: Step,
    until: Option<Duration>,
    seats: BTreeMap<NodeId, Seat>,
    outputs: VecDeque<DirectorOutput>,
}

impl Director {
    /// Begins a restart on these nodes, all of them connected.
    #[must_use]
    pub fn begin(now: Duration, seats: BTreeMap<NodeId, Seat>) -> Self {
        let mut director = Self { step: Step::Prepare, until: Some(now + STILL), seats, outputs: VecDeque::new() };
        for (node, seat) in &mut director.seats {
            (seat.stage, seat.heard) = (Stage::Preparing, now);
            director.outputs.push_back(DirectorOutput::Send(*node, Order::Prepare(seat.prepare.clone())));
        }
        director
    }

    /// Of a coordinator that was started anew during a restart on these nodes: they have `agent_timeout` to come back.
    #[must_use]
    pub fn recover(now: Duration, agent_timeout: Duration, mut seats: BTreeMap<NodeId, Seat>) -> Self {
        seats.values_mut().for_each(|seat| (seat.stage, seat.present) = (Stage::Waiting, false));
        Self { step: Step::Learn, until: Some(now + agent_timeout), seats, outputs: VecDeque::new() }
    }

    #[allow(missing_docs)]
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Nothing of it is left to be done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.step >= Step::Running
    }

    /// Ends it, unless it has been decided.
    pub fn cancel(&mut self, reason: &str) {
        self.fail(reason.to_owned());
    }

    /// Handles that a node's agent is (again) connected. What it may have missed is said again.
    pub fn handle_joined(&mut self, now: Duration, node: NodeId, host: &str, agent: u32, stage: Option<Stage>) {
        self.check_deadlines(now);
        let Some(seat) = self.seats.get_mut(&node) else { return };
        host.clone_into(&mut seat.host);
        (seat.agent, seat.present, seat.heard) = (agent, true, now);
        // An agent that has no restart in hand any more runs the job.
        let theirs = stage.unwrap_or(Stage::Running);
        let name = seat.name(node);
        match (self.step, theirs) {
            (Step::Ended, _) => self.send(node, Order::End { reason: "the restart has failed".into() }),
            (Step::Learn, _) => {
                seat.stage = theirs;
                self.try_learn();
            }
            (Step::Prepare, Stage::Waiting) => {
                let prepare = Order::Prepare(seat.prepare.clone());
                self.send(node, prepare);
            }
            (Step::Build, Stage::Bound) => {
                let table = self.table();
                self.send(node, Order::Begin { table });
            }
            (Step::Go | Step::Running, Stage::Ready) => self.send(node, Order::Go),
            (Step::Go, Stage::Running) => self.enter(now, node, Stage::Running),
            // The agent died, and what it had built with it.
            (Step::Build | Step::Go, Stage::Waiting) => self.lose(format!("{name} has lost its agent")),
            _ => {}
        }
    }

    /// Handles what a node reports of the restart. Anything else is not for it.
    pub fn handle_report(&mut self, now: Duration, node: NodeId, report: Report) {
        self.check_deadlines(now);
        let Some(seat) = self.seats.get_mut(&node) else { return };
        seat.heard = now;
        match report {
            Report::Bound { meeting, addresses } if matches!(self.step, Step::Prepare | Step::Learn) => {
                seat.bound = Some((meeting, addresses));
                if self.step == Step::Prepare {
                    self.enter(now, node, Stage::Bound);
                }
            }
            Report::Ready if self.step == Step::Build => self.enter(now, node, Stage::Ready),
            Report::Running if self.step == Step::Go => self.enter(now, node, Stage::Running),
            Report::RestartFailed { reason } => {
                let name = seat.name(node);
                self.lose(format!("{name}: {reason}"));
            }
            _ => {}
        }
    }

    /// Handles that a node is not connected for now.
    pub fn handle_parted(&mut self, node: NodeId) {
        self.seats.entry(node).and_modify(|seat| seat.present = false);
    }

    /// Handles that a node is given up.
    pub fn handle_lost(&mut self, node: NodeId) {
        let Some(seat) = self.seats.get(&node) else { return };
        self.lose(format!("{} was given up: nothing was heard of it for too long", seat.name(node)));
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
    pub const fn poll_timeout(&self) -> Option<Duration> {
        self.until
    }

    fn enter(&mut self, now: Duration, node: NodeId, stage: Stage) {
        self.seats.entry(node).and_modify(|seat| seat.stage = seat.stage.max(stage));
        let goal = self.goal();
        if self.seats.values().any(|seat| seat.stage < goal) {
            return;
        }
        match self.step {
            Step::Prepare => {
                (self.step, self.until) = (Step::Build, Some(now + STILL));
                let table = self.table();
                self.work(now, Stage::Building);
                self.send_all(&Order::Begin { table });
            }
            Step::Build => self.go(now),
            Step::Go => {
                (self.step, self.until) = (Step::Running, None);
                self.outputs.push_back(DirectorOutput::Announce(Announcement::Running));
            }
            Step::Learn | Step::Running | Step::Ended => {}
        }
    }

    fn go(&mut self, now: Duration) {
        (self.step, self.until) = (Step::Go, Some(now + GO));
        self.send_all(&Order::Go);
    }

    fn work(&mut self, now: Duration, stage: Stage) {
        self.seats.values_mut().for_each(|seat| (seat.stage, seat.heard) = (stage, now));
    }

    /// What all must have reached for the next step.
    const fn goal(&self) -> Stage {
        match self.step {
            Step::Learn | Step::Prepare => Stage::Bound,
            Step::Build => Stage::Ready,
            Step::Go | Step::Running | Step::Ended => Stage::Running,
        }
    }

    fn table(&self) -> Vec<Place> {
        let places = self.seats.iter().filter_map(|(node, seat)| {
            let (meeting, addresses) = seat.bound.clone()?;
            Some(Place { node: *node, host: seat.host.clone(), meeting, addresses })
        });
        places.collect()
    }

    /// Once all are back, or one tells enough.
    fn try_learn(&mut self) {
        let (mut ready, mut running) = (0, 0);
        for seat in self.seats.values().filter(|seat| seat.present) {
            ready += usize::from(seat.stage >= Stage::Ready && seat.stage != Stage::Ended);
            running += usize::from(matches!(seat.stage, Stage::Going | Stage::Running));
        }
        let heard = self.seats.values().filter(|seat| seat.present).count();
        if running > 0 || ready == self.seats.len() {
            let now = self.seats.values().map(|seat| seat.heard).max().unwrap_or_default();
            self.go(now);
            if let Some(node) = self.seats.iter().find(|(_, seat)| seat.stage == Stage::Running).map(|(node, _)| *node)
            {
                self.enter(now, node, Stage::Running);
            }
        } else if heard > ready {
            self.fail("the coordinator was started anew before every node was ready".into());
        }
    }

    /// What comes after a deadline has not come.
    fn check_deadlines(&mut self, now: Duration) {
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        let goal = self.goal();
        let still = |seat: &Seat| match self.step {
            Step::Prepare | Step::Build => now >= seat.heard + STILL,
            _ => true,
        };
        let laggard = self.seats.iter().find(|(_, seat)| seat.stage < goal && still(seat));
        match laggard.map(|(node, seat)| format!("{} is still {}", seat.name(*node), seat.stage.deed())) {
            Some(complaint) => self.lose(complaint),
            None => {
                let heard = self.seats.values().filter(|seat| seat.stage < goal).map(|seat| seat.heard).min();
                self.until = heard.map(|heard| heard + STILL);
            }
        }
    }

    /// A node is out. Before all run, nobody shall; afterwards it is a matter of the running job.
    fn lose(&mut self, reason: String) {
        if self.step < Step::Running {
            self.fail(reason);
        }
    }

    fn fail(&mut self, reason: String) {
        if self.is_over() {
            return;
        }
        let reason = shorten(reason);
        (self.step, self.until) = (Step::Ended, None);
        self.send_all(&Order::End { reason: reason.clone() });
        self.outputs.push_back(DirectorOutput::Announce(Announcement::Failed { reason }));
    }

    fn send(&mut self, node: NodeId, order: Order) {
        self.outputs.push_back(DirectorOutput::Send(node, order));
    }

    fn send_all(&mut self, order: &Order) {
        let sends = self.seats.keys().map(|node| DirectorOutput::Send(*node, order.clone()));
        self.outputs.extend(sends);
    }
}
