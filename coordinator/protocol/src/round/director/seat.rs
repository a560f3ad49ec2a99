//! What a director knows of one node.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Since when it is not connected.
    pub(super) parted: Option<Duration>,
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
        Self { host: host.to_owned(), agent, ..Self::default() }
    }

    /// "n2 (node 2, agent 4711)".
    pub(super) fn name(&self, node: NodeId) -> String {
        format!("{} ({node}, agent {})", self.host, self.agent)
    }

    /// "n2 (node 2, agent 4711) is still parking threads".
    pub(super) fn complaint(&self, node: NodeId) -> String {
        let lost = if self.parted.is_none() { "" } else { " and is not connected" };
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
    /// Those that are not connected, and since when.
    parted: BTreeSet<(Duration, NodeId)>,
}

impl Seats {
    /// All of them parking.
    pub(super) fn new(now: Duration, mut seats: BTreeMap<NodeId, Seat>) -> Self {
        seats.values_mut().for_each(|seat| (seat.stage, seat.heard) = (Stage::Parking, now));
        let living = seats.len();
        let (counts, parted) = (BTreeMap::from([(Stage::Parking, living)]), BTreeSet::new());
        Self { seats, counts, living, receipts: 0, parted }
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

    pub(super) fn part(&mut self, now: Duration, node: NodeId) {
        let Some(seat) = self.seats.get_mut(&node).filter(|seat| seat.parted.is_none()) else { return };
        seat.parted = Some(now);
        self.parted.insert((now, node));
    }

    pub(super) fn join(&mut self, now: Duration, node: NodeId, host: &str, agent: u32) -> Option<&Seat> {
        let seat = self.seats.get_mut(&node)?;
        host.clone_into(&mut seat.host);
        (seat.agent, seat.heard) = (agent, now);
        if let Some(since) = seat.parted.take() {
            self.parted.remove(&(since, node));
        }
        Some(seat)
    }

    /// Of those that have not written yet: who has not been connected for the longest time, and since when.
    pub(super) fn first_parted(&self) -> Option<(Duration, NodeId)> {
        let unwritten = |it: &&(Duration, NodeId)| self.get(it.1).is_some_and(|seat| seat.receipt.is_none());
        self.parted.iter().find(unwritten).copied()
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
