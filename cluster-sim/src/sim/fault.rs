//! Faults, and when they strike.

use coordinator_protocol::node::Stage;

/// What goes wrong. Nodes are numbers; node 0 is the coordinator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a node's agent.
    KillAgent(u32),
    /// The same, after it has acted on so many more of its deputy's outputs.
    KillAgentAfter(u32, u32),
    /// `kill -9` of the coordinator; another is started after so many µs.
    KillCoordinator(u64),
    /// A node is cut off from all others, µs.
    Cut(u32, u64),
    /// A node stands still, µs. Node 0: without the coordinator.
    Freeze(u32, u64),
    /// The coordinator stands still, µs.
    FreezeCoordinator(u64),
    /// A node is gone for good.
    PowerOff(u32),
    /// Its session breaks, and nothing else.
    BreakSession(u32),
    /// Nothing can be written, µs.
    DiskFull(u64),
    /// The next sync fails, whoever asks for it.
    SyncFails,
    /// Everything takes ten times as long on the disk, µs.
    DiskSlow(u64),
    /// A thread of this node does not park in the next round.
    Unparkable(u32),
    /// Ctrl-C of the one who asked for the checkpoint.
    Cancel,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this time, µs.
    At(u64),
    /// When this node reaches this stage of a round for the n-th time (from 0), and so many µs later.
    Reaches(u32, Stage, u32, u64),
    /// When the coordinator begins this step of a commit: 0 manifest, 1 sync, 2 rename, 3 sync of the name, 4 it is done.
    Commits(u8),
}

impl Fault {
    /// How long it lasts, µs.
    pub(super) const fn lasts_us(&self) -> u64 {
        match self {
            Self::Cut(_, us) | Self::Freeze(_, us) | Self::FreezeCoordinator(us) | Self::KillCoordinator(us) => *us,
            Self::DiskFull(us) | Self::DiskSlow(us) => *us,
            _ => 0,
        }
    }

    /// A job may be over because of it.
    pub(super) const fn may_end_the_job(&self, agent_timeout_us: u64) -> bool {
        match self {
            Self::PowerOff(_) => true,
            // Sessions break and clocks drift: what comes near the time-out may be more than it.
            Self::Cut(_, us) | Self::Freeze(_, us) => *us * 2 > agent_timeout_us,
            Self::KillCoordinator(us) | Self::FreezeCoordinator(us) => *us * 2 > agent_timeout_us,
            _ => false,
        }
    }
}
