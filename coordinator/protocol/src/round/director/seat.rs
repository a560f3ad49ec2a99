//! What a director knows of one node.

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
