//! Opaque messages between the coordinator of a job and its agents, over QUIC. What they mean is not known here.
//!
//! ```text
//! coordinator: Keys ── Server::start(socket) ⇄ events, answer, send, close
//!               │ join_file(addresses), handed over by whoever starts the agent
//! agent:       JoinFile ── Client::start(join, hello) ⇄ events, send
//! ```
//!
//! A *session* is what both sides know of each other: numbered items that were sent and not acknowledged, and how many
//! were received. Connections come and go below it. When one breaks, the client connects again, both say what they have,
//! the rest is sent again; every message is delivered once and in order as long as the session lives. It is lost when
//! there was no connection for a time-out, or when the server is another process.
//!
//! ```text
//! client   connecting → open → carrying ─ breaks → connecting …       time-out → Lost, a fresh session is tried
//!                                 └ End, TurnedAway → over
//! server   Joined → answer → Message … ─ breaks → Broken → Back → …    time-out → Lost
//!                                 └ End → Left
//! ```
//!
//! Everything here is called from plain threads and returns at once; the network has a thread of its own.
#![forbid(unsafe_code)]

mod client;
mod error;
mod events;
mod frame;
mod keys;
pub mod limits;
mod link;
mod runtime;
mod secret;
mod server;
mod session;
mod tls;

pub use client::{Client, ClientEvent, ClientOptions};
pub use error::{KeysError, SendError, TransportError};
pub use events::{Receiver, RecvError, RecvTimeoutError, TryRecvError};
pub use keys::{JoinFile, Keys};
pub use server::{Peer, Server, ServerEvent, ServerOptions, bind};
