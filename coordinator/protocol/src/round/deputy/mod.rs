//! The agent's end of a round.
//!
//! ```text
//! OUT ─Park→ PARKING → FLUSHING → FLUSHED ─Capture→ CAPTURING → CAPTURED ─Resume→ RESUMING → WRITING → WRITTEN ─Committed→ DONE
//!                                                                  └─────Write (stop, kill)──────↑        └(stop)→ resumes ↑
//! any of them up to WRITTEN ─Abort, failure, alone for too long→ FREEING (streams settled, then all let go) → OUT
//! ```
//!
//! Order of calls: any inputs, then [`Deputy::poll_output`] until `None`, then [`Deputy::poll_timeout`].

mod alone;
mod deeds;
mod read_out;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use deeds::{Deed, DeputyOutput, Done};

use super::streams::Streams;
use super::{Outgoing, Remains, StreamLimits};
use crate::node::{
    Between, EDGES_PER_REPORT, Edge, Flow, NodeId, Order, Park, Report, Round, Stage, Standing, StuckFlow, Welcome,
    shorten,
};

/// See the module's head.
#[derive(Debug)]
pub struct Deputy {
    standing: Standing,
    park: Option<Park>,
    edges: Vec<Edge>,
    stuck: BTreeMap<Flow, StuckFlow>,
    streams: Streams,
    /// Every send queue has run empty.
    quiet: bool,
    /// [`Deed::Free`] was asked for.
    freeing_asked: bool,
    /// Nobody is parked any more.
    released: bool,
    /// It is [`Stage::Done`], and [`Report::Settled`] was said.
    settled: bool,
    reason: String,
    link: alone::Link,
    outputs: VecDeque<DeputyOutput>,
}

impl Deputy {
    /// Of a node's first agent. Not connected.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self::revive(now, Remains::default())
    }

    /// Of an agent that follows one that died. Its guardian has let everybody go, unless the [`Remains`] hold.
    #[must_use]
    pub fn revive(now: Duration, remains: Remains) -> Self {
        let holds = remains.holds();
        let Remains { mut standing, outgoing, incoming } = remains;
        if holds {
            standing.stage = Stage::Freeing;
        } else if !matches!(standing.stage, Stage::Written | Stage::Done) || standing.receipt.is_none() {
            standing.stage = Stage::Out;
        }
        let mut deputy = Self {
            standing,
            park: None,
            edges: Vec::new(),
            stuck: BTreeMap::new(),
            streams: if holds { Streams { outgoing, incoming, ..Streams::default() } } else { Streams::default() },
            quiet: false,
            freeing_asked: false,
            released: true,
            settled: true,
            reason: "its agent died".into(),
            link: alone::Link::down(now),
            outputs: VecDeque::new(),
        };
        if deputy.standing.stage == Stage::Done && deputy.standing.kill {
            deputy.end_as_asked();
        }
        if holds {
            deputy.take_up_streams(now);
            deputy.note_unsettled(now);
        }
        deputy
    }

    /// With other limits than the usual ones: simulations have short streams.
    #[must_use]
    pub const fn with_limits(mut self, limits: StreamLimits) -> Self {
        self.streams.limits = limits;
        self
    }

    /// What [`crate::node::Hello::standing`] is to say.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The round in hand, if one is.
    #[must_use]
    pub const fn round(&self) -> Option<Round> {
        if self.standing.stage.is_over() { None } else { Some(self.standing.round) }
    }

    /// No bytes are owed to this node or by it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.streams.is_settled()
    }

    /// Streams whose senders are here; what the shell may want to look up for its ledger.
    #[must_use]
    pub const fn outgoing(&self) -> &BTreeMap<Flow, Outgoing> {
        &self.streams.outgoing
    }

    /// Handles an order. Those that are no part of a round are not for it: [`Order::Launch`], those of a restart.
    pub fn handle_order(&mut self, now: Duration, order: Order) {
        self.obey(now, order);
        self.note_unsettled(now);
    }

    /// Handles another agent's words.
    pub fn handle_between(&mut self, now: Duration, from: NodeId, message: Between) {
        self.hear(now, from, message);
        self.note_unsettled(now);
    }

    /// Handles what the shell did or saw for `round`.
    pub fn handle_done(&mut self, now: Duration, round: Round, done: Done) {
        if round == self.standing.round {
            self.note(now, done);
            self.note_unsettled(now);
        }
    }

    /// Handles that the coordinator has let it in. What that may have missed is said again.
    pub fn handle_connected(&mut self, now: Duration, welcome: &Welcome) {
        self.link.up(now, welcome);
        let round = self.standing.round;
        if round == Round::default() {
            return;
        }
        let reason = self.reason.clone();
        match self.standing.stage {
            Stage::Out => self.send(Report::Aborted { round }),
            Stage::Done if self.settled => self.send(Report::Settled { round }),
            Stage::Freeing => self.send(Report::Failed { round, reason }),
            Stage::Parking | Stage::Done => {}
            Stage::Flushing => {
                self.report_parked();
                self.report_stuck();
            }
            Stage::Flushed | Stage::Capturing => {
                self.report_parked();
                self.send(Report::Flushed { round });
            }
            Stage::Captured | Stage::Resuming | Stage::Writing => self.send(Report::Captured { round }),
            Stage::Written => {
                let receipt = self.standing.receipt.clone().unwrap_or_default();
                self.send(Report::Written { round, receipt });
            }
        }
    }

    /// Handles that the session has broken.
    pub fn handle_disconnected(&mut self, now: Duration) {
        self.link.broken(now);
    }

    /// The next thing to do or to say.
    pub fn poll_output(&mut self) -> Option<DeputyOutput> {
        self.outputs.pop_front()
    }

    fn obey(&mut self, now: Duration, order: Order) {
        match order {
            Order::Park(park) => self.park(park),
            Order::Relayed { from, message } => self.hear(now, from, message),
            Order::Abort { round, reason } => self.abort(now, round, &reason),
            Order::Committed { round, .. } => self.committed(round),
            Order::End { reason } => self.deed(Deed::End(reason)),
            Order::Holders { round, flows } if self.is_in(round, Stage::Flushing) => self.holders(flows),
            Order::Outside { round, edges }
                if self.is_in(round, Stage::Flushing) || self.is_in(round, Stage::Flushed) =>
            {
                self.deed(Deed::Leave(round, edges));
            }
            Order::Capture { round, peers } if self.is_in(round, Stage::Flushed) => self.capture(peers),
            Order::Resume { round } if self.is_in(round, Stage::Captured) && !self.stays_parked() => {
                self.enter(Stage::Resuming);
                self.deed(Deed::Resume(round));
            }
            Order::Write { round } if self.is_in(round, Stage::Captured) && self.stays_parked() => {
                self.enter(Stage::Writing);
                self.deed(Deed::Write(round));
            }
            // Said twice, or of another round: it has been done, or will never be.
            _ => {}
        }
    }

    fn note(&mut self, now: Duration, done: Done) {
        let round = self.standing.round;
        match (self.standing.stage, done) {
            (Stage::Parking, Done::Parked(edges)) => {
                self.edges = edges;
                self.enter(Stage::Flushing);
                self.report_parked();
                self.deed(Deed::Flush(round));
            }
            (Stage::Flushing, Done::Stuck(flow)) => self.stuck_flow(flow),
            (Stage::Flushing, Done::Quiet) => {
                self.quiet = true;
                self.try_flushed();
            }
            (Stage::Capturing, Done::Captured) => {
                self.enter(Stage::Captured);
                self.send(Report::Captured { round });
            }
            (Stage::Resuming, Done::Resumed(stall_us)) => {
                self.released = true;
                self.send(Report::Resumed { round, stall_us });
                self.enter(Stage::Writing);
                self.deed(Deed::Write(round));
            }
            (Stage::Writing, Done::Progress(phase, done, total)) => {
                self.send(Report::Progress { round, phase, done, total });
            }
            (Stage::Writing, Done::Written(receipt)) => {
                self.standing.receipt = Some(receipt.clone());
                self.enter(Stage::Written);
                self.send(Report::Written { round, receipt });
            }
            (Stage::Done, Done::Resumed(_)) => self.settled(),
            (Stage::Freeing, Done::Freed) => {
                self.enter(Stage::Out);
                self.send(Report::Aborted { round });
            }
            (_, Done::Failed(reason)) => self.fail(now, reason),
            (_, done) => self.handle_stream_done(now, done),
        }
    }

    fn park(&mut self, park: Park) {
        let round = park.round;
        if round <= self.standing.round {
            match self.standing.stage {
                _ if round < self.standing.round => {}
                Stage::Out => self.send(Report::Aborted { round }),
                _ => {}
            }
            return;
        }
        if !self.standing.stage.is_over() {
            let reason = format!("{} is still {}", self.standing.round, self.standing.stage.deed());
            return self.send(Report::Failed { round, reason });
        }
        let (generation, kill) = (park.generation, park.kill);
        self.standing = Standing { round, generation, stage: Stage::Parking, kill, receipt: None };
        self.edges.clear();
        self.stuck.clear();
        self.streams = Streams { limits: self.streams.limits, ..Streams::default() };
        (self.quiet, self.freeing_asked, self.released, self.settled) = (false, false, false, false);
        self.reason.clear();
        self.park = Some(park.clone());
        self.deed(Deed::Park(park));
    }

    fn capture(&mut self, peers: Vec<NodeId>) {
        // Barrier 1: whoever sends here has all that was read out for it, or it would not have said that it is flushed.
        for flow in self.streams.deliver_all() {
            self.deed(Deed::Delivered(self.standing.round, flow));
        }
        self.enter(Stage::Capturing);
        self.deed(Deed::Capture(self.standing.round, peers));
    }

    fn committed(&mut self, round: Round) {
        if round != self.standing.round || !matches!(self.standing.stage, Stage::Written | Stage::Out | Stage::Done) {
            return;
        }
        if self.standing.stage == Stage::Done {
            if self.settled {
                self.send(Report::Settled { round });
            }
            return;
        }
        self.enter(Stage::Done);
        if self.standing.kill {
            self.end_as_asked();
        } else if self.released {
            self.settled();
        } else {
            self.released = true;
            self.deed(Deed::Resume(round));
        }
    }

    fn end_as_asked(&mut self) {
        self.settled();
        self.deed(Deed::End(format!("generation {} is committed", self.standing.generation)));
    }

    fn settled(&mut self) {
        self.settled = true;
        self.send(Report::Settled { round: self.standing.round });
    }

    fn abort(&mut self, now: Duration, round: Round, reason: &str) {
        if round != self.standing.round {
            // Never heard of it, or long out of it. A `Park` that is still on its way must not begin it.
            if round > self.standing.round && self.standing.stage.is_over() {
                self.standing = Standing { round, ..Standing::default() };
            }
            return self.send(Report::Aborted { round });
        }
        match self.standing.stage {
            Stage::Out => self.send(Report::Aborted { round }),
            Stage::Done | Stage::Freeing => {}
            _ => {
                self.reason = reason.to_owned();
                self.free(now);
            }
        }
    }

    /// This node cannot go on.
    fn fail(&mut self, now: Duration, reason: String) {
        if matches!(self.standing.stage, Stage::Out | Stage::Done | Stage::Freeing | Stage::Written) {
            return;
        }
        self.reason = shorten(reason);
        self.send(Report::Failed { round: self.standing.round, reason: self.reason.clone() });
        self.free(now);
    }

    /// Streams are settled first, then everybody is let go.
    fn free(&mut self, now: Duration) {
        self.enter(Stage::Freeing);
        self.freeing_asked = false;
        self.recall(now);
        self.try_free();
    }

    fn try_free(&mut self) {
        if self.standing.stage == Stage::Freeing && !self.freeing_asked && self.streams.is_settled() {
            self.freeing_asked = true;
            self.deed(Deed::Free(self.standing.round));
        }
    }

    fn try_flushed(&mut self) {
        let flushed = self.quiet && self.streams.outgoing.values().all(Outgoing::is_settled);
        if self.standing.stage == Stage::Flushing && flushed {
            self.enter(Stage::Flushed);
            self.send(Report::Flushed { round: self.standing.round });
        }
    }

    fn report_parked(&mut self) {
        let round = self.standing.round;
        let chunks: Vec<Vec<Edge>> = self.edges.chunks(EDGES_PER_REPORT).map(<[Edge]>::to_vec).collect();
        chunks.into_iter().for_each(|edges| self.send(Report::Edges { round, edges }));
        self.send(Report::Parked { round, edges: self.edges.len() as u64 });
    }

    fn report_stuck(&mut self) {
        let flows: Vec<StuckFlow> = self.stuck.values().copied().collect();
        for flows in flows.chunks(EDGES_PER_REPORT) {
            self.send(Report::Stuck { round: self.standing.round, flows: flows.to_vec() });
        }
    }

    fn stays_parked(&self) -> bool {
        self.park.as_ref().is_some_and(Park::stays_parked)
    }

    fn is_in(&self, round: Round, stage: Stage) -> bool {
        self.standing.round == round && self.standing.stage == stage
    }

    fn enter(&mut self, stage: Stage) {
        self.standing.stage = stage;
    }

    fn deed(&mut self, deed: Deed) {
        self.outputs.push_back(DeputyOutput::Do(deed));
    }

    fn send(&mut self, report: Report) {
        self.outputs.push_back(DeputyOutput::Send(report));
    }

    fn tell(&mut self, node: NodeId, message: Between) {
        self.outputs.push_back(DeputyOutput::Tell(node, message));
    }
}
