//! What nodes report, and what follows once all have.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Commit, Director, DirectorOutput, Step};
use crate::node::{Edge, NodeId, Order, Outside, Report, Round, Stage};
use crate::round::{SLACK, STILL};

impl Director {
    /// Handles what a node reports of this round. Anything else is not for it.
    pub fn handle_report(&mut self, now: Duration, node: NodeId, report: Report) {
        if round_of(&report) != Some(self.park.round) {
            return;
        }
        self.check_deadlines(now);
        let Some(seat) = self.seats.get_mut(node) else { return };
        seat.heard = now;
        match report {
            Report::Edges { edges, .. } if self.step == Step::Park => self.matching.add(node, &seat.host, edges),
            Report::Parked { edges, .. } => self.parked(now, node, edges),
            Report::Stuck { flows, .. } => {
                self.stuck.extend(flows.iter().map(|it| (it.flow, node)));
                self.name_holders(None);
            }
            Report::Flushed { .. } if seat.stage == Stage::Flushing => {
                self.seats.enter(node, Stage::Flushed);
                note(&mut self.cost.flushed_us, now - self.begun);
                self.try_capture(now);
            }
            Report::Captured { .. } if self.step < Step::Capture => {
                let name = seat.name(node);
                self.fail(format!("{name} says that it has captured before it was told to"));
            }
            Report::Captured { .. } if seat.stage == Stage::Capturing => self.captured(now, node),
            Report::Resumed { stall_us, .. } if seat.stage == Stage::Resuming => {
                seat.stall_us = stall_us;
                self.seats.enter(node, Stage::Writing);
            }
            Report::Progress { done, total, .. } => seat.progress = (done, total),
            Report::Written { receipt, .. } if self.step == Step::Write && seat.receipt.is_none() => {
                self.seats.take_receipt(node, receipt);
                note(&mut self.cost.written_us, now - self.begun);
                self.try_commit(now);
            }
            Report::Settled { .. } if self.step == Step::Settle => {
                self.seats.enter(node, Stage::Done);
                self.try_over();
            }
            Report::Failed { reason, .. } if seat.receipt.is_none() => {
                let name = seat.name(node);
                self.fail(format!("{name}: {reason}"));
            }
            Report::Aborted { .. } => self.aborted(node),
            _ => {}
        }
    }

    /// What a node may have missed of what is past.
    pub(super) fn say_again(&mut self, node: NodeId) {
        let round = self.park.round;
        match self.step {
            Step::Flush => {
                if let Some(edges) = self.outside.get(&node).cloned() {
                    self.send(node, Order::Outside { round, edges });
                }
                self.name_holders(Some(node));
            }
            Step::Park => self.name_holders(Some(node)),
            Step::Capture => self.send_capture(node),
            Step::Write => self.send(node, self.after_barrier()),
            _ => {}
        }
    }

    fn parked(&mut self, now: Duration, node: NodeId, edges: u64) {
        // Some of its edges got lost with a session: it says all of them again after the next greeting.
        if self.step != Step::Park || self.matching.count(node) < edges {
            return;
        }
        if self.seats.get(node).is_none_or(|seat| seat.stage != Stage::Parking) {
            return;
        }
        self.seats.enter(node, Stage::Flushing);
        note(&mut self.cost.parked_us, now - self.begun);
        if self.seats.all_at_least(Stage::Flushing) {
            self.step = Step::Flush;
            self.until = Some(now + Duration::from_millis(self.park.deadlines.drain_ms) + SLACK);
            self.judge_edges();
        }
        self.name_holders(None);
        self.try_capture(now);
    }

    /// Every edge is known: whose other end is nobody's?
    fn judge_edges(&mut self) {
        let found = self.matching.unmatched();
        if let Some((node, edge)) = found.orphaned.first() {
            let text =
                "the other end wrote and closed, and its last bytes are nobody's who could read them out; try again";
            return self.fail(format!("{}: {text}", self.describe(*node, edge)));
        }
        if let (Outside::Refuse, Some((node, edges))) = (self.park.outside, found.outside.iter().next()) {
            let others: usize = found.outside.values().map(Vec::len).sum::<usize>() - 1;
            let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
            let text = "the other end is not in the job";
            return self.fail(format!("{}: {text}{more}", self.describe(*node, &edges[0])));
        }
        let round = self.park.round;
        for (node, edges) in &found.outside {
            self.send(*node, Order::Outside { round, edges: edges.clone() });
        }
        self.outside = found.outside;
    }

    fn describe(&self, node: NodeId, edge: &Edge) -> String {
        let name = self.seats.get(node).map(|seat| seat.name(node)).unwrap_or_default();
        format!("{name}: connection {} → {} of pid {}", edge.local, edge.remote, edge.pid)
    }

    /// Tells senders' nodes who can read their stuck streams out: a holder that is parked. To one node, or to all.
    fn name_holders(&mut self, to: Option<NodeId>) {
        if !matches!(self.step, Step::Park | Step::Flush) {
            return;
        }
        let round = self.park.round;
        let mut ready = BTreeMap::<NodeId, Vec<_>>::new();
        for (flow, sender) in &self.stuck {
            let Some(holder) = self.matching.holder(*sender, *flow) else { continue };
            let parked = self.seats.get(holder).is_some_and(|seat| seat.stage >= Stage::Flushing);
            let wanted = to.is_none_or(|node| node == *sender);
            if parked && wanted && (to.is_some() || !self.named.contains(flow)) {
                ready.entry(*sender).or_default().push((*flow, holder));
            }
        }
        for (sender, flows) in ready {
            self.named.extend(flows.iter().map(|(flow, _)| *flow));
            self.send(sender, Order::Holders { round, flows });
        }
    }

    fn try_capture(&mut self, now: Duration) {
        if self.step == Step::Flush && self.seats.all_at_least(Stage::Flushed) {
            self.step = Step::Capture;
            self.until = Some(now + Duration::from_millis(self.park.deadlines.command_ms) + SLACK);
            self.barriers += 1;
            self.seats.enter_all(now, Stage::Capturing);
            let nodes: Vec<NodeId> = self.seats.iter().filter(|(_, seat)| !seat.lost).map(|(node, _)| node).collect();
            nodes.into_iter().for_each(|node| self.send_capture(node));
        }
    }

    fn send_capture(&mut self, node: NodeId) {
        let peers = self.matching.peers(node);
        self.send(node, Order::Capture { round: self.park.round, peers });
    }

    fn captured(&mut self, now: Duration, node: NodeId) {
        self.seats.enter(node, Stage::Captured);
        note(&mut self.cost.captured_us, now - self.begun);
        if self.seats.all_at_least(Stage::Captured) {
            (self.step, self.until) = (Step::Write, Some(now + STILL));
            self.barriers += 1;
            let order = self.after_barrier();
            self.send_all(&order);
            let written = if self.park.stays_parked() { Stage::Writing } else { Stage::Resuming };
            self.seats.enter_all(now, written);
        }
    }

    fn after_barrier(&self) -> Order {
        let round = self.park.round;
        if self.park.stays_parked() { Order::Write { round } } else { Order::Resume { round } }
    }

    fn try_commit(&mut self, now: Duration) {
        if !self.seats.all_written() {
            return;
        }
        (self.step, self.until) = (Step::Commit, None);
        let since = (now - self.begun).as_micros() as u64;
        let longest = self.seats.iter().map(|(_, seat)| seat.stall_us).max().unwrap_or_default();
        self.cost.stall_us = if self.park.stays_parked() { since } else { longest };
        self.cost.commit_us = since;
        let receipts = self.seats.iter().map(|(node, seat)| (node, seat.receipt.clone().unwrap_or_default())).collect();
        let (round, generation, cost) = (self.park.round, self.park.generation, self.cost);
        self.outputs.push_back(DirectorOutput::Commit(Commit { round, generation, receipts, cost }));
    }

    fn aborted(&mut self, node: NodeId) {
        let Some(seat) = self.seats.get_mut(node) else { return };
        if self.step == Step::Settle && seat.stage != Stage::Done {
            // Its agent died, and what it had to do then it has done. That it is committed it has not heard.
            let (round, generation) = (self.park.round, self.park.generation);
            self.send(node, Order::Committed { round, generation });
        } else if self.step == Step::Abort {
            self.seats.enter(node, Stage::Out);
            self.try_over();
        } else if self.step < Step::Commit && seat.receipt.is_none() {
            // It is out already: that there is nothing to wait for is known once the round is called off.
            let name = seat.name(node);
            self.fail(format!("{name} has let everybody go"));
            self.aborted(node);
        }
    }
}

/// Which round a report is about, if it is about one.
const fn round_of(report: &Report) -> Option<Round> {
    match report {
        Report::Edges { round, .. }
        | Report::Parked { round, .. }
        | Report::Stuck { round, .. }
        | Report::Flushed { round }
        | Report::Captured { round }
        | Report::Resumed { round, .. }
        | Report::Progress { round, .. }
        | Report::Written { round, .. }
        | Report::Settled { round }
        | Report::Failed { round, .. }
        | Report::Aborted { round } => Some(*round),
        _ => None,
    }
}

/// First and last of a kind.
fn note(cost: &mut (u64, u64), since: Duration) {
    let us = since.as_micros() as u64;
    *cost = (if cost.0 == 0 { us } else { cost.0.min(us) }, cost.1.max(us));
}
