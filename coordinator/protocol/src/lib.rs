//! What `ckpt`, the coordinator and the agents say to each other, and what both ends of a checkpoint and of a restart do
//! about it, as state machines. Pure: no IO, no clock, no thread.
//!
//! | module | what |
//! |---|---|
//! | (root) | `ckpt` ⇄ an agent's or coordinator's socket; phases and their deadlines |
//! | [`node`] | coordinator ⇄ agent, agent ⇄ agent: the messages |
//! | [`coordinator`] | the coordinator of a job that runs: members, one round after another, recovery |
//! | [`members`] | who is in the job, connected, lost |
//! | [`restart`] | a restart: director and deputy |
//! | [`round`] | a checkpoint: director (coordinator) and deputy (agent) |
#![forbid(unsafe_code)]

pub mod coordinator;
pub mod members;
mod messages;
pub mod node;
mod phase;
pub mod restart;
pub mod round;

pub use messages::{
    Answer, Committed, FRAME_BYTES_MAX, FrameError, Mode, PROTOCOL, Request, Status, decode, encode, read_limit,
};
pub use phase::{Deadlines, Phase};
