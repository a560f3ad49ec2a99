//! The streams of one node that are read out in a round: pure bookkeeping for [`crate::round::Deputy`]. The protocol is in
//! [`crate::node::Between`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::node::{CHUNK_BYTES_MAX, Flow, NodeId, Stage, Standing};

/// What was not answered for this long is said again: a relayed word can get lost with either session.
pub const RESEND: Duration = Duration::from_millis(500);
/// Bytes of a stream that are on their way between two agents, at most.
pub const WINDOW_BYTES: u64 = 4 << 20;

/// A stream whose sender is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Who reads it out. `None`: not known yet, nobody has been asked.
    pub holder: Option<NodeId>,
    /// The ledger says that it is owed, so that the holder may be asked.
    pub owed: bool,
    /// The kernel has got rid of its bytes.
    pub emptied: bool,
    /// Bytes that were given to the shell to keep.
    pub accepted: u64,
    /// Bytes in this node's ledger.
    pub kept: u64,
    /// How many there are, once it is known.
    pub total: Option<u64>,
    /// The ledger says that this is all: it can be put back without anybody's help.
    pub settled: bool,
}

impl Outgoing {
    /// A stream that does not run empty.
    #[must_use]
    pub const fn stuck() -> Self {
        Self { holder: None, owed: false, emptied: false, accepted: 0, kept: 0, total: None, settled: false }
    }

    /// Nothing is owed to this node, as far as its ledger knows.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled || self.holder.is_none()
    }
}

/// A stream whose receiver is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Where its sender is, and where its bytes go.
    pub sender: NodeId,
    /// Bytes in this node's ledger.
    pub read: u64,
    /// Bytes that were asked of the shell to be sent.
    pub sent: u64,
    /// Bytes that the sender's node has in its ledger.
    pub kept: u64,
    /// The sender's kernel has got rid of all; what is left here is the rest.
    pub rest: bool,
    /// How many there are, once the rest is read.
    pub total: Option<u64>,
    /// The sender's node has them all, and knows that they are all.
    pub delivered: bool,
}

impl Incoming {
    /// A stream that is to be read out.
    #[must_use]
    pub const fn begun(sender: NodeId) -> Self {
        Self { sender, read: 0, sent: 0, kept: 0, rest: false, total: None, delivered: false }
    }

    /// Every byte that was read out is in the sender's ledger.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.delivered
    }
}

/// How bytes of streams are cut up on their way between two agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// In one message.
    pub chunk_bytes: u64,
    /// Of one stream on their way.
    pub window_bytes: u64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { chunk_bytes: CHUNK_BYTES_MAX as u64, window_bytes: WINDOW_BYTES }
    }
}

/// What a guardian's memory tells about a round after its agent's death.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remains {
    /// As the dead agent had it.
    pub standing: Standing,
    /// What the ledger says is owed to this node.
    pub outgoing: BTreeMap<Flow, Outgoing>,
    /// What the ledger says was begun to be read out here.
    pub incoming: BTreeMap<Flow, Incoming>,
}

impl Remains {
    /// The guardian must not let anybody go yet: only the next agent can bring the bytes of these streams together.
    #[must_use]
    pub fn holds(&self) -> bool {
        // Barrier 1 was passed: every sender's node has all that is owed to it.
        let passed = matches!(
            self.standing.stage,
            Stage::Capturing | Stage::Captured | Stage::Resuming | Stage::Writing | Stage::Written | Stage::Done
        );
        !passed && self.owes()
    }

    fn owes(&self) -> bool {
        self.outgoing.values().any(|it| !it.is_settled()) || self.incoming.values().any(|it| !it.is_settled())
    }
}

/// Streams of the round in hand, and when something is said again.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    pub(super) outgoing: BTreeMap<Flow, Outgoing>,
    pub(super) incoming: BTreeMap<Flow, Incoming>,
    pub(super) resend_at: Option<Duration>,
    pub(super) limits: StreamLimits,
}

impl Streams {
    pub(super) fn is_settled(&self) -> bool {
        self.outgoing.values().all(Outgoing::is_settled) && self.incoming.values().all(Incoming::is_settled)
    }

    /// Barrier 1 was passed: whoever sends here has all that was read out for it, or would not have said that it is flushed.
    pub(super) fn deliver_all(&mut self) -> Vec<Flow> {
        let open = self.incoming.iter_mut().filter(|(_, it)| !it.delivered);
        open.map(|(flow, it)| {
            it.delivered = true;
            *flow
        })
        .collect()
    }

    /// The next bytes of an incoming stream that may go on their way; they count as sent from now on.
    pub(super) fn next_to_send(&mut self, flow: Flow) -> Option<Range<u64>> {
        let incoming = self.incoming.get_mut(&flow)?;
        let (from, most) = (incoming.sent, incoming.kept + self.limits.window_bytes);
        incoming.sent = incoming.read.min(most).min(from + self.limits.chunk_bytes).max(from);
        (incoming.sent > from).then_some(from..incoming.sent)
    }
}
