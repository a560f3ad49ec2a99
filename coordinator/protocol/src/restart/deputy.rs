//! The agent's end of a restart. Order of calls: any inputs, then [`Deputy::poll_output`] until `None`, then
//! [`Deputy::poll_timeout`].

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::time::Duration;

use crate::node::{Order, Place, Prepare, Report, RestartStage as Stage, Welcome, shorten};

/// What comes out of a deputy, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum DeputyOutput {
    #[allow(missing_docs)]
    Do(Deed),
    /// To the coordinator.
    Send(Report),
}

/// Something to be done on the node. Answered with the [`Done`] that is named, or with [`Done::Failed`].
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Read and check the node's part, bind. → [`Done::Progress`] every second, [`Done::Bound`]
    Prepare(Prepare),
    /// Connect, build, fill. → [`Done::Progress`] every second, [`Done::Built`]
    Build(Vec<Place>),
    /// Let everybody go. → [`Done::Running`]
    Go,
    /// End what there is of the job on this node.
    End(String),
}

/// What the shell has done.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// The meeting point and the addresses of [`Report::Bound`].
    Bound(SocketAddr, Vec<(SocketAddr, SocketAddr)>),
    #[allow(missing_docs)]
    Built,
    #[allow(missing_docs)]
    Running,
    /// Bytes done, bytes in all.
    Progress(u64, u64),
    /// For a person; names what is in the way.
    Failed(String),
}

/// See the module's head.
#[derive(Debug)]
pub struct Deputy {
    stage: Stage,
    bound: Option<Report>,
    reason: String,
    down_since: Option<Duration>,
    agent_timeout: Duration,
    outputs: VecDeque<DeputyOutput>,
}

impl Deputy {
    /// Not connected yet, for which it has `agent_timeout`.
    #[must_use]
    pub fn new(now: Duration, agent_timeout: Duration) -> Self {
        let (stage, reason, outputs) = (Stage::Waiting, String::new(), VecDeque::new());
        Self { stage, bound: None, reason, down_since: Some(now), agent_timeout, outputs }
    }

    /// What [`crate::node::Hello::restart`] is to say. Once it is [`Stage::Running`] this machine has done its work.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Handles an order; those that are no part of a restart are not for it.
    pub fn handle_order(&mut self, order: Order) {
        match (self.stage, order) {
            (Stage::Waiting, Order::Prepare(prepare)) => {
                self.stage = Stage::Preparing;
                self.deed(Deed::Prepare(prepare));
            }
            (Stage::Bound, Order::Begin { table }) => {
                self.stage = Stage::Building;
                self.deed(Deed::Build(table));
            }
            (Stage::Ready, Order::Go) => {
                self.stage = Stage::Going;
                self.deed(Deed::Go);
            }
            (Stage::Ended, _) => {}
            (_, Order::End { reason }) => self.end(reason),
            // Said twice: it has been done.
            _ => {}
        }
    }

    /// Handles what the shell did.
    pub fn handle_done(&mut self, done: Done) {
        match (self.stage, done) {
            (Stage::Preparing, Done::Bound(meeting, addresses)) => {
                self.stage = Stage::Bound;
                let bound = Report::Bound { meeting, addresses };
                self.bound = Some(bound.clone());
                self.send(bound);
            }
            (Stage::Building, Done::Built) => {
                self.stage = Stage::Ready;
                self.send(Report::Ready);
            }
            (Stage::Going, Done::Running) => {
                self.stage = Stage::Running;
                self.send(Report::Running);
            }
            (Stage::Preparing | Stage::Building, Done::Progress(done, total)) => {
                self.send(Report::RestartProgress { done, total });
            }
            (Stage::Ended, _) => {}
            (_, Done::Failed(reason)) => {
                self.reason = shorten(reason);
                self.send(Report::RestartFailed { reason: self.reason.clone() });
                self.end(self.reason.clone());
            }
            _ => {}
        }
    }

    /// Handles that the coordinator has let it in. What that may have missed is said again.
    pub fn handle_connected(&mut self, welcome: &Welcome) {
        self.down_since = None;
        self.agent_timeout = Duration::from_millis(welcome.agent_timeout_ms);
        match self.stage {
            Stage::Waiting | Stage::Preparing => {}
            Stage::Bound | Stage::Building => self.bound.clone().into_iter().for_each(|bound| self.send(bound)),
            Stage::Ready | Stage::Going => {
                self.bound.clone().into_iter().for_each(|bound| self.send(bound));
                self.send(Report::Ready);
            }
            Stage::Running => self.send(Report::Running),
            Stage::Ended => self.send(Report::RestartFailed { reason: self.reason.clone() }),
        }
    }

    /// Handles that the session has broken.
    pub fn handle_disconnected(&mut self, now: Duration) {
        self.down_since.get_or_insert(now);
    }

    /// Handles that time has passed. A node that was not let go and hears nobody any more ends: the generation is there.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_some_and(|at| now >= at) {
            self.end("it lost the coordinator before the restart was complete".into());
        }
    }

    /// The next thing to do or to say.
    pub fn poll_output(&mut self) -> Option<DeputyOutput> {
        self.outputs.pop_front()
    }

    /// When [`Deputy::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let waits = !matches!(self.stage, Stage::Going | Stage::Running | Stage::Ended);
        self.down_since.filter(|_| waits).map(|since| since + self.agent_timeout)
    }

    fn end(&mut self, reason: String) {
        self.stage = Stage::Ended;
        self.reason.clone_from(&reason);
        self.deed(Deed::End(reason));
    }

    fn deed(&mut self, deed: Deed) {
        self.outputs.push_back(DeputyOutput::Do(deed));
    }

    fn send(&mut self, report: Report) {
        self.outputs.push_back(DeputyOutput::Send(report));
    }
}
