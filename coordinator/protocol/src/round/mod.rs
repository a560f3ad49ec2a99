//! One checkpoint over many nodes, both ends.
//!
//! ```text
//! Director (coordinator)            Deputy (each agent)
//!   Park ─────────────────────────→ parks its threads            ─→ Edges…, Parked
//!                                   runs its send queues empty   ─→ Stuck ─→ Holders ─→ (between agents)
//! ═ barrier 1 ═ all ←────────────── Flushed     all threads are parked, nothing is on the wire
//!   Capture ──────────────────────→ captures, makes twins
//! ═ barrier 2 ═ all ←────────────── Captured    all that must be remembered is
//!   Resume | Write ───────────────→ puts bytes back, lets go; writes         (--stop, --kill: only writes)
//!   all ←────────────────────────── Written{receipt}
//!   Commit → the shell → Durable
//!   Committed ────────────────────→ (--stop: lets go; --kill: ends the job)  ─→ Settled
//!
//! before the commit, from anywhere: Abort ─→ bytes settled and back, everybody let go ─→ Aborted
//! ```
//!
//! Who may let go without being told, when the coordinator is not heard any more:
//!
//! | stage | may it? | why |
//! |---|---|---|
//! | parking … captured, writing (stop) | after [`ALONE`] | it gives its part up: others may capture what its threads send now, but nothing is committed without its `Written` |
//! | resuming, writing (twins) | everybody runs | |
//! | written | threads after [`ALONE`]; its part stays until there is a verdict | the commit may have been made |

mod deputy;
mod director;
mod matching;
mod streams;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use deputy::{Deed, Deputy, DeputyOutput, Done};
pub use director::{Announcement, Commit, Cost, Director, DirectorOutput, Durable, NotDurable, Seat, Step};
pub use streams::{Incoming, Outgoing, RESEND, Remains, StreamLimits, WINDOW_BYTES};

/// A parked node without a coordinator lets its threads go after this long. A coordinator that was killed is back sooner.
pub const ALONE: Duration = Duration::from_secs(5);
/// What the director waits longer than an agent: that can say more about what is in the way.
pub const SLACK: Duration = Duration::from_secs(5);
/// No node may write for this long without getting on.
pub const STILL: Duration = Duration::from_secs(120);
