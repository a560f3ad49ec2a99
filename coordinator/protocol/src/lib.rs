//! What `ckpt`, the coordinator and the agents say to each other, and what both ends of a checkpoint and of a restart do
//! about it, as state machines. Pure: no IO, no clock, no thread.
//!
//! | module | what |
//! |---|---|
//! | (root) | `ckpt` ⇄ an agent's or coordinator's socket; phases and their deadlines |
//! | [`node`] | coordinator ⇄ agent, agent ⇄ agent: the messages |
//! | [`round`] | a checkpoint: director (coordinator) and deputy (agent) |
#![forbid(unsafe_code)]

mod messages;
pub mod node;
mod phase;
pub mod round;

pub use messages::{
    Answer, Committed, FRAME_BYTES_MAX, FrameError, Mode, PROTOCOL, Request, Status, decode, encode, read_limit,
};
pub use phase::{Deadlines, Phase};
