//! A deterministic simulation: the machines of `coordinator-protocol`, both ends, against a clock, a network, disks, nodes
//! and a job that exist only here. A seed decides everything; the same seed and commit give the same run, event by event.
//!
//! What is real: `Coordinator`, `Director`, `Members`, `Deputy`, all of them as they are shipped. What is a model: the shells
//! around them (what agent, guardian and coordinator do with a kernel), and the job: processes that send each other bytes of
//! which the receiver knows what they must be.
//!
//! # Atlas of faults
//!
//! | where | fault | why it must be survived |
//! |---|---|---|
//! | session | messages take long (loss, and the transport's repeats, are delay) | every network |
//! | session | it breaks; of what was under way in each direction a prefix has arrived | a restart of either end, a cut; nobody is told where the prefix ends |
//! | session | the two ends learn of the break at different times, or after the next one has begun | idle timers run apart |
//! | between agents | words are lost, doubled, late, overtaken | they go directly or by way of the coordinator, over two sessions |
//! | network | a node is cut off from the coordinator's, for less and for more than the agent time-out | switches |
//! | network | the job's own connections stand still meanwhile | they use the same wires |
//! | stream | its receiver's buffer is full when it is parked | a receiver that computes while others send |
//! | disk | full, unwritable (folder, part or manifest cannot be written) | everyday |
//! | disk | a sync fails | once; a second sync would lie, so there is none |
//! | disk | slow | everybody writes at once |
//! | disk | what was not synced is torn or gone after a power cut | checked after every run |
//! | node | a thread does not park | vfork, uninterruptible sleep |
//! | node | the agent dies, anywhere between two of its outputs | a bug, the OOM killer, kill -9; the guardian lets everybody go and starts another |
//! | node | frozen for a while: agent, guardian and job | a hypervisor, SIGSTOP, memory pressure |
//! | node | gone for good | power |
//! | clock | every machine's monotonic clock has its own zero and runs up to 2 % fast or slow | a lease compares two of them |
//! | coordinator | dies, also between any two steps of the commit, and is started anew with no memory | kill -9 |
//! | coordinator | frozen for a while | as a node; its deadlines pass while it sleeps |
//! | user | asks for several checkpoints, with twins, with `--stop`, with `--kill`; calls one off | |
//!
//! Not injected, because nothing of ours could survive them: a disk that says it has synced and has not; a wall clock that
//! jumps (no machine takes one); a network that changes bytes (QUIC's business).
//!
//! # What must hold
//!
//! The properties are functions of `checks`, each under its name.

mod agent;
mod checks;
mod clock;
mod disk;
mod event;
mod fault;
mod head;
mod job;
mod many;
mod network;
mod node;
mod plan;
mod read_out;
mod restart;
mod scenario;
mod watch;
mod words;
mod world;

pub use fault::{Fault, When};
pub use many::{Tally, What, many, one};
pub use plan::Plan;
pub use restart::run as restart;
pub use scenario::play;

/// What became of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The first property that did not hold, and how.
    pub broken: Option<String>,
    /// What happened, line by line, if it was asked for.
    pub log: Vec<String>,
    /// Checkpoints that were committed.
    pub committed: u64,
    /// Checkpoints that failed.
    pub failed: u64,
    /// Streams that were read out.
    pub read_out: u64,
    /// Events.
    pub events: u64,
    /// Virtual time, µs.
    pub elapsed_us: u64,
}

/// Runs a plan to its end.
#[must_use]
pub fn run(plan: Plan, log: bool) -> Outcome {
    world::World::new(plan, log).run()
}
