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
//! | parking … capturing | after [`ALONE`] | nobody passes barrier 2 without its `Captured` |
//! | captured | after [`lease`] | before, others may be waiting at barrier 2, and what its threads sent would be captured twice; after, the barrier has been passed or never will be: the director's own deadline is shorter |
//! | resuming, writing (twins) | everybody runs | |
//! | writing (stop) | after [`ALONE`]; its part is then given up | no commit without its `Written` |
//! | written | threads after [`ALONE`]; its part stays until there is a verdict | the commit may have been made |

mod deputy;
mod director;
mod matching;
mod streams;

use std::time::Duration;

pub use deputy::{Deed, Deputy, DeputyOutput, Done};
pub use director::{Announcement, Commit, Cost, Director, DirectorOutput, Durable, NotDurable, Seat, Step};
pub use streams::{Incoming, Outgoing, RESEND, Remains, StreamLimits, WINDOW_BYTES};

use crate::phase::Deadlines;

/// A parked node without a coordinator lets its threads go after this long. A coordinator that was killed is back sooner.
pub const ALONE: Duration = Duration::from_secs(5);
/// What the director waits longer than an agent: that can say more about what is in the way.
pub const SLACK: Duration = Duration::from_secs(5);
/// No node may write for this long without getting on.
pub const STILL: Duration = Duration::from_secs(120);

/// The director passes barrier 2 within this time of barrier 1, or never.
#[must_use]
pub fn capture_within(deadlines: &Deadlines) -> Duration {
    Duration::from_millis(deadlines.command_ms) + SLACK
}

/// After this long from hearing that barrier 1 was passed, a node knows that barrier 2 was passed or never will be. Longer
/// than [`capture_within`] by more than two clocks can run apart.
#[must_use]
pub fn lease(deadlines: &Deadlines) -> Duration {
    capture_within(deadlines) + capture_within(deadlines) / 16 + Duration::from_secs(1)
}
