//! What a [`super::Deputy`] asks of its shell, and what it hears back.

use crate::node::Between;
use std::ops::Range;

use crate::node::{Edge, Flow, NodeId, Park, Receipt, Report, Round, StuckFlow};
use crate::phase::Phase;

/// What comes out of a deputy, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum DeputyOutput {
    #[allow(missing_docs)]
    Do(Deed),
    /// To the coordinator.
    Send(Report),
    /// To another agent, directly or by [`Report::Relay`].
    Tell(NodeId, Between),
}

/// Something to be done on the node. The shell answers each with the [`Done`] that is named, or with [`Done::Failed`] when
/// the deed's deadline has passed or anything else went wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Park every thread and list the edges. → [`Done::Parked`]
    Park(Park),
    /// Watch the send queues of all edges until they are empty. → [`Done::Stuck`] for a stream that does not get on,
    /// [`Done::Emptied`] for one of those when it has, [`Done::Quiet`] when nothing is left.
    Flush(Round),
    /// Do not wait for these edges, they lead out of the job.
    Leave(Round, Vec<Edge>),
    /// Write into the ledger that this stream's bytes are owed by that node. → [`Done::Owed`]
    Owe(Round, Flow, NodeId),
    /// Watch these send queues after all else is called off. → [`Done::Emptied`] for each
    Watch(Round, Vec<Flow>),
    /// Write into the ledger that this stream, whose sender is on that node, is read out here, then take its bytes out into
    /// the ledger as they come. → [`Done::Read`], again and again
    ReadOut(Round, Flow, NodeId),
    /// All of this stream's bytes are in the receiver's buffer: take what is left, and write into the ledger that it was
    /// all. → [`Done::ReadAll`]
    ReadRest(Round, Flow),
    /// Bytes of an incoming stream from the ledger, from this offset to this one. → [`Done::Fetched`]
    Fetch(Round, Flow, Range<u64>),
    /// Append these bytes, which begin at the offset, to the ledger of an outgoing stream. → [`Done::Kept`]
    Keep(Round, Flow, u64, Vec<u8>),
    /// Write into the ledger that an outgoing stream has all its bytes, this many. → [`Done::Settled`]
    Settle(Round, Flow, u64),
    /// The sender's node has all bytes of this incoming stream: forget that it is owed to anybody.
    Delivered(Round, Flow),
    /// Capture; streams that were read out from the ledger and nowhere else. The nodes are those of [`crate::node::Order::Capture`].
    /// → [`Done::Captured`]
    Capture(Round, Vec<NodeId>),
    /// Put bytes back, let everybody go. → [`Done::Resumed`]
    Resume(Round),
    /// Write, sync, read back. → [`Done::Progress`] every second, [`Done::Written`]
    Write(Round),
    /// Stop whatever is being done for this round, put bytes back, let everybody go, forget the draft. → [`Done::Freed`]
    Free(Round),
    /// End the job on this node.
    End(String),
}

/// What the shell has done or seen. Of an older round than the one in hand it is ignored.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    #[allow(missing_docs)]
    Parked(Vec<Edge>),
    #[allow(missing_docs)]
    Stuck(StuckFlow),
    #[allow(missing_docs)]
    Emptied(Flow),
    #[allow(missing_docs)]
    Quiet,
    #[allow(missing_docs)]
    Owed(Flow),
    /// The ledger has this many bytes of an incoming stream.
    Read(Flow, u64),
    /// The same, and nothing is left in it.
    ReadAll(Flow, u64),
    /// Offset, bytes.
    Fetched(Flow, u64, Vec<u8>),
    /// The ledger has this many bytes of an outgoing stream.
    Kept(Flow, u64),
    #[allow(missing_docs)]
    Settled(Flow),
    #[allow(missing_docs)]
    Captured,
    /// µs from the first parked thread to the last that was let go.
    Resumed(u64),
    /// Phase, bytes done, bytes in all.
    Progress(Phase, u64, u64),
    #[allow(missing_docs)]
    Written(Receipt),
    #[allow(missing_docs)]
    Freed,
    /// For a person; names what is in the way.
    Failed(String),
}
