//! What `ckpt` and an agent say to each other, and the phases of a checkpoint with their deadlines. Pure: no IO, no clock.
#![forbid(unsafe_code)]

mod messages;
mod phase;

pub use messages::{
    Answer, Committed, FRAME_BYTES_MAX, FrameError, Mode, PROTOCOL, Request, Status, decode, encode, read_limit,
};
pub use phase::{Deadlines, Phase};
