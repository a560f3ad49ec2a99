//! What the coordinator and the agents of a job's nodes say to each other.
//!
//! ```text
//! agent → coordinator   Hello                 once per session, the first frame
//! coordinator → agent   Greeting              the answer: Welcome, or TurnedAway with the reason
//! coordinator → agent   Order …               from then on
//! agent → coordinator   Report …
//! agent → agent         Between …             about one stream's bytes; directly, or carried by the coordinator
//!                                             (Report::Relay → Order::Relayed)
//! ```
//!
//! The transport delivers frames in order and exactly once for as long as a session lives. Sessions break; what was
//! under way then has arrived or has not. So every message may be said again and is understood as said once: orders and
//! reports name their round, chunks their offset. After each greeting both ends say again what the other may have missed.

mod between;
mod edge;
mod frame;
mod hello;
mod order;
mod report;

pub use between::Between;
pub(crate) use edge::is_of_one_host;
pub use edge::{Edge, EdgeState, Flow, canonical};
pub use frame::{
    CHUNK_BYTES_MAX, EDGES_PER_REPORT, FRAME_BYTES_MAX, FrameError, PROTOCOL, REASON_BYTES_MAX, decode, encode, shorten,
};
pub use hello::{Greeting, Hello, NodeId, RestartStage, Round, Stage, Standing, TurnedAway, Welcome};
pub use order::{Order, Outside, Park, Place, Prepare};
pub use report::{DataFile, ModelFile, Receipt, Report, StuckFlow};
