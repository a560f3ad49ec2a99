//! What a director knows of one node.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::{NodeId, Receipt, Stage};

/// A node of a round.
#[derive(Clone, Debug, Default)]
pub struct Seat {
    #[allow(missing_docs)]
    pub host: String,
    /// The agent's pid on it.
    pub agent: u32,
    /// As far as it is known.
    pub(super) stage: Stage,
    /// It is connected.
    pub(super) present: bool,
    /// It was given up.
    pub(super) lost: bool,
    /// When it was heard of last.
    pub(super) heard: Duration,
    pub(super) receipt: Option<Receipt>,
    pub(super) stall_us: u64,
    /// Bytes done, bytes in all.
    pub(super) progress: (u64, u64),
}

impl Seat {
    /// A node that is connected.
    #[must_use]
    pub fn new(host: &str, agent: u32) -> Self {
        Self { host: host.to_owned(), agent, present: true, ..Self::default() }
    }

    /// "n2 (node 2, agent 4711)".
    pub(super) fn name(&self, node: NodeId) -> String {
        format!("{} ({node}, agent {})", self.host, self.agent)
    }

    /// "n2 (node 2, agent 4711) is still parking threads".
    pub(super) fn complaint(&self, node: NodeId) -> String {
        let lost = if self.present { "" } else { " and is not connected" };
        format!("{} is still {}{lost}", self.name(node), self.stage.deed())
    }
}

/// All seats, and how many are how far: a report of one node must not cost a look at every other.
#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: BTreeMap<NodeId, Seat>,
    /// Of those that are not lost, by stage.
    counts: BTreeMap<Stage, usize>,
    living: usize,
    receipts: usize,
}

impl Seats {
    /// All of them parking.
    pub(super) fn new(now: Duration, mut seats: BTreeMap<NodeId, Seat>) -> Self {
        seats.values_mut().for_each(|seat| (seat.stage, seat.heard) = (Stage::Parking, now));
        let living = seats.len();
        Self { counts: BTreeMap::from([(Stage::Parking, living)]), seats, living, receipts: 0 }
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Seat> {
        self.seats.get(&node)
    }

    /// For all but its stage, its receipt and its loss.
    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Seat> {
        self.seats.get_mut(&node)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Seat)> {
        self.seats.iter().map(|(node, seat)| (*node, seat))
    }

    pub(super) fn enter(&mut self, node: NodeId, stage: Stage) {
        let Some(seat) = self.seats.get_mut(&node) else { return };
        if !seat.lost {
            self.counts.entry(seat.stage).and_modify(|count| *count -= 1);
            *self.counts.entry(stage).or_default() += 1;
        }
        seat.stage = stage;
    }

    pub(super) fn enter_all(&mut self, now: Duration, stage: Stage) {
        self.seats.values_mut().for_each(|seat| (seat.stage, seat.heard) = (stage, now));
        self.counts = BTreeMap::from([(stage, self.living)]);
    }

    pub(super) fn take_receipt(&mut self, node: NodeId, receipt: Receipt) {
        self.enter(node, Stage::Written);
        let Some(seat) = self.seats.get_mut(&node) else { return };
        if seat.receipt.replace(receipt).is_none() {
            self.receipts += 1;
        }
    }

    pub(super) fn lose(&mut self, node: NodeId) {
        let Some(seat) = self.seats.get_mut(&node).filter(|seat| !seat.lost) else { return };
        seat.lost = true;
        self.living -= 1;
        self.counts.entry(seat.stage).and_modify(|count| *count -= 1);
    }

    pub(super) fn all_at_least(&self, stage: Stage) -> bool {
        self.counts.range(..stage).all(|(_, count)| *count == 0)
    }

    /// All that are not lost.
    pub(super) fn all_in(&self, stage: Stage) -> bool {
        self.counts.get(&stage).copied().unwrap_or_default() == self.living
    }

    pub(super) fn all_written(&self) -> bool {
        self.receipts == self.seats.len()
    }
}
