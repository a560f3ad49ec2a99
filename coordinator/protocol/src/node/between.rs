//! What two agents say to each other about a stream that had to be read out.
//!
//! ```text
//! sender's node                                             receiver's node
//!   Report::Stuck ──→ coordinator ──Order::Holders──→ sender's node
//!   notes in its ledger: this flow is owed by that node
//!        ─────────────────────────────── ReadOut ──────────→ notes it in its ledger, takes bytes out chunk by chunk
//!   keeps it in its ledger ←──────────── Bytes{offset} ─────
//!        ─────────────────────────────── Kept{upto} ───────→
//!   its send queue is empty
//!        ─────────────────────────────── Emptied ──────────→ takes the rest
//!        ←────────────────────────────── Total{bytes} ──────
//!   notes in its ledger: that is all
//!        ─────────────────────────────── Settled ──────────→ owes nothing any more
//! ```
//!
//! From *settled* on the sender's node can put everything back by itself, with no agent, no coordinator and no peer: it is
//! in a memfd that its guardian holds. Until then both nodes hold their threads: what the sender's sent would come before
//! what was read out. At every moment each byte is in the stream, in the receiver's ledger or in the sender's; ledgers
//! outlive agents. A round that is called off in between is settled first: `Recall` asks for the rest, and if nothing has
//! been read out, the answer is `Untouched` and nothing will be.

use serde::{Deserialize, Serialize};

use crate::node::{Flow, Round};

/// A message from agent to agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Between {
    /// Sender's node → receiver's node: my kernel cannot get rid of this stream's bytes, read it out.
    ReadOut {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
    },
    /// Receiver's node → sender's node: read out of the stream, at most [`crate::node::CHUNK_BYTES_MAX`].
    Bytes {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
        /// Of the first byte, counted from the first that was read out.
        offset: u64,
        #[allow(missing_docs)]
        bytes: Vec<u8>,
    },
    /// Sender's node → receiver's node: bytes up to here are in the ledger; go on from here.
    Kept {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
        #[allow(missing_docs)]
        upto: u64,
    },
    /// Sender's node → receiver's node: the kernel has sent all, and all was acknowledged. Read the rest.
    Emptied {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
    },
    /// Receiver's node → sender's node: nothing is left in the stream; this many bytes were read out.
    Total {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
        #[allow(missing_docs)]
        bytes: u64,
    },
    /// Sender's node → receiver's node: the ledger has all of it, and that it is all. Nothing is owed any more.
    Settled {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
    },
    /// Sender's node → receiver's node: the round is called off. Read to the end what you have begun; begin nothing.
    Recall {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
    },
    /// Receiver's node → sender's node: nothing of it has been read out, and nothing will be in this round.
    Untouched {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flow: Flow,
    },
}

impl Between {
    /// Round and flow that it is about.
    #[must_use]
    pub const fn about(&self) -> (Round, Flow) {
        match self {
            Self::ReadOut { round, flow }
            | Self::Bytes { round, flow, .. }
            | Self::Kept { round, flow, .. }
            | Self::Emptied { round, flow }
            | Self::Total { round, flow, .. }
            | Self::Settled { round, flow }
            | Self::Recall { round, flow }
            | Self::Untouched { round, flow } => (*round, *flow),
        }
    }
}
