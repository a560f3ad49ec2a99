//! What a [`super::Director`] wants done. What must be durable before it is said has a type of its own: an
//! [`Announcement::Committed`] is made from a [`Durable`], that from a [`Commit`], and that by a director alone.

use std::collections::BTreeMap;

use crate::node::{NodeId, Order, Receipt, Round};

/// What comes out of a director, in this order.
#[derive(Debug, PartialEq)]
pub enum DirectorOutput {
    /// To a node. One that is not connected now gets it said again when it is.
    Send(NodeId, Order),
    /// Make the generation durable: write its manifest, sync, read back, rename, sync. Then [`Commit::made_durable`], or
    /// [`Commit::refused`] if the final name is not there and never will be.
    Commit(Commit),
    /// For whoever asked, and for the log.
    Announce(Announcement),
    /// Nobody has anything to do with the round's folder any more: remove it.
    Discard(Round),
}

/// All that goes into a manifest.
#[derive(Debug, PartialEq)]
pub struct Commit {
    pub(super) round: Round,
    pub(super) generation: u64,
    pub(super) receipts: BTreeMap<NodeId, Receipt>,
    pub(super) cost: Cost,
}

impl Commit {
    #[allow(missing_docs)]
    #[must_use]
    pub const fn round(&self) -> Round {
        self.round
    }

    #[allow(missing_docs)]
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Of every node of the job.
    #[must_use]
    pub const fn receipts(&self) -> &BTreeMap<NodeId, Receipt> {
        &self.receipts
    }

    /// As far as it is known before the commit.
    #[must_use]
    pub const fn cost(&self) -> &Cost {
        &self.cost
    }

    /// The generation has its final name, and that name would survive a power cut.
    #[must_use]
    pub fn made_durable(self) -> Durable {
        Durable { commit: self }
    }

    /// The generation has no final name and will not get it. A shell that cannot know this (a rename that was done, a sync
    /// that failed) takes the name back first, and ends itself if it cannot: the next coordinator looks at the folder.
    #[must_use]
    pub fn refused(self, reason: String) -> NotDurable {
        NotDurable { round: self.round, reason }
    }
}

/// A generation that is on the disk.
#[derive(Debug, PartialEq)]
pub struct Durable {
    pub(super) commit: Commit,
}

/// A generation that is not and will not be.
#[derive(Debug, PartialEq, Eq)]
pub struct NotDurable {
    pub(super) round: Round,
    pub(super) reason: String,
}

/// How a round ended. Exactly one per round.
#[derive(Debug, PartialEq)]
pub enum Announcement {
    /// It counts.
    Committed(Durable),
    /// It does not; the job runs on.
    Failed {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        generation: u64,
        /// Names host, pid, deed.
        reason: String,
    },
}

impl Durable {
    #[allow(missing_docs)]
    #[must_use]
    pub const fn commit(&self) -> &Commit {
        &self.commit
    }
}

/// What a round cost, µs since its `Park` was sent where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// First and last node that was parked.
    pub parked_us: (u64, u64),
    /// First and last that reached barrier 1. The last is when it was passed: what the barrier costs is the difference.
    pub flushed_us: (u64, u64),
    /// First and last that reached barrier 2.
    pub captured_us: (u64, u64),
    /// First and last that had written.
    pub written_us: (u64, u64),
    /// The longest that a node's threads stood still; with `--stop` and `--kill` until the commit was asked for.
    pub stall_us: u64,
    /// When the commit was asked for.
    pub commit_us: u64,
}
