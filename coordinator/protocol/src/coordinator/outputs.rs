//! What goes into a [`super::Coordinator`] and what comes out of it.

use crate::members::SessionId;
use crate::messages::Mode;
use crate::node::{Greeting, NodeId, Order, Outside, Round};
use crate::round::{Commit, Durable};

/// Checkpoints that wait for another to be over, at most: who asks more often asks too often.
pub const WISHES_MAX: usize = 16;

/// A checkpoint that somebody asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    #[allow(missing_docs)]
    pub mode: Mode,
    /// End the job once it is committed.
    pub kill: bool,
    /// No phase may take longer than this, s.
    pub timeout_s: Option<u64>,
    /// What becomes of connections out of the job.
    pub outside: Outside,
}

/// Whose outcome it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WishId(pub u64);

/// What became of a wish. Exactly one for each.
#[derive(Debug, PartialEq)]
pub enum WishOutcome {
    /// It counts; [`Durable`] says which generation, of what, at what cost.
    Committed(Durable),
    /// It does not; the job runs on.
    Failed {
        /// For a person.
        reason: String,
    },
}

/// What comes out of a coordinator, in this order.
#[derive(Debug, PartialEq)]
pub enum CoordinatorOutput {
    /// The answer to a session's first frame.
    Greet(SessionId, Greeting),
    /// Close a session, after what was sent in it.
    Close(SessionId),
    #[allow(missing_docs)]
    Send(SessionId, Order),
    /// Make the round's folder, one whose name has the round in it. No node is in any round now: what is left of earlier
    /// ones may be cleared away. → [`super::Coordinator::handle_drafted`]
    Draft {
        #[allow(missing_docs)]
        wish: WishId,
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        generation: u64,
    },
    /// Make the generation durable. → [`super::Coordinator::handle_durable`], [`super::Coordinator::handle_not_durable`]
    Commit(Commit),
    /// Remove the round's folder.
    Discard(Round),
    #[allow(missing_docs)]
    Outcome(WishId, WishOutcome),
    /// A node was given up: the job has lost a part of itself. End it, or restart it without that node.
    Lost(NodeId),
}
