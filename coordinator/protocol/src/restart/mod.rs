//! A restart over many nodes, both ends.
//!
//! ```text
//! Director (coordinator)            Deputy (each agent)
//!   Prepare ──────────────────────→ reads its part through, binds what listened, and a meeting point
//!   all ←────────────────────────── Bound{meeting, addresses}
//!   Begin{table} ─────────────────→ pairs connections, builds processes, fills memory
//!   all ←────────────────────────── Ready
//!   Go ───────────────────────────→ lets everybody go
//!   all ←────────────────────────── Running
//!
//! before Go, from anywhere: End. Nothing is lost: the generation is as it was.
//! ```
//!
//! Once one node was told to go, all of them go, whatever becomes of the coordinator: a new one that finds a node running
//! knows that all were ready.

mod deputy;
mod director;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use deputy::{Deed, Deputy, DeputyOutput, Done};
pub use director::{Announcement, Director, DirectorOutput, Seat, Step};

/// No node may be silent for this long while it works at a restart.
pub const STILL: Duration = Duration::from_secs(120);
/// Letting go takes no longer than this, or the node is in trouble.
pub const GO: Duration = Duration::from_secs(60);
