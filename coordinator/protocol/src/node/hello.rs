//! The greeting: who calls, and in which state of a round or a restart it is.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::node::Receipt;

/// A virtual node: a node of the job as it was started. It keeps its number wherever a restart puts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// Number of one attempt at a checkpoint. It only grows within a life of the job, also when the coordinator is a new one:
/// that learns from the agents what the last was. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Round(pub u64);

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}", self.0)
    }
}

/// The first frame of an agent in each session. Its version is the frame's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Job id.
    pub job: String,
    /// How often the job has been restarted.
    pub life: u32,
    /// Which virtual node it is.
    pub node: NodeId,
    /// As `uname -n` says outside of the job.
    pub host: String,
    /// Pid of the guardian on its host: agents come and go, the guardian is the node.
    pub guardian: u32,
    /// Pid of the agent on its host.
    pub agent: u32,
    /// How many agents the guardian has had before this one: of two that are both alive for the coordinator, the later is.
    pub incarnation: u32,
    /// The round that it knows of last.
    pub standing: Standing,
    /// How far its restart is, while there is one.
    pub restart: Option<RestartStage>,
}

/// How far a node is with the newest round that it has heard of. The default: it has never heard of any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    #[allow(missing_docs)]
    pub round: Round,
    /// What the round would commit.
    pub generation: u64,
    #[allow(missing_docs)]
    pub stage: Stage,
    /// The round ends the job once it is committed.
    pub kill: bool,
    /// Of a node that has written its part.
    pub receipt: Option<Receipt>,
}

/// How far a node is in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It has no part in a round, or no longer: it was called off, and everybody is let go.
    #[default]
    Out,
    /// Threads are being parked.
    Parking,
    /// Send queues are running empty.
    Flushing,
    /// Nothing of its is on the wire. Waits for barrier 1.
    Flushed,
    /// Being captured.
    Capturing,
    /// Captured. Waits for barrier 2.
    Captured,
    /// Being let go.
    Resuming,
    /// Being written.
    Writing,
    /// Its part is durable. Waits for the verdict; nothing but a verdict ends this stage.
    Written,
    /// The round is called off; bytes go back, threads are being let go.
    Freeing,
    /// Committed, and everybody is let go.
    Done,
}

impl Stage {
    /// Nothing of the round is left to do on this node.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Out | Self::Done)
    }

    /// What the node does, for a person: "n2 (agent 4711) is still …".
    #[must_use]
    pub const fn deed(self) -> &'static str {
        match self {
            Self::Out => "idle",
            Self::Parking => "parking threads",
            Self::Flushing => "waiting for its connections to run empty",
            Self::Flushed => "waiting for other nodes' connections to run empty",
            Self::Capturing => "capturing processes and descriptors",
            Self::Captured => "waiting for other nodes' captures",
            Self::Resuming => "letting threads go",
            Self::Writing => "writing",
            Self::Written => "waiting for the commit",
            Self::Freeing => "putting bytes back and letting threads go",
            Self::Done => "done",
        }
    }
}

/// How far a node is in a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RestartStage {
    /// Waits to be told what to restart.
    #[default]
    Waiting,
    /// Reads its part of the generation, binds listening sockets.
    Preparing,
    /// Waits for the table of addresses.
    Bound,
    /// Pairs connections, makes processes, fills memory.
    Building,
    /// Every process is back in its park. Waits until all nodes are.
    Ready,
    /// Being let go: all nodes were ready.
    Going,
    /// Let go.
    Running,
    /// Ended.
    Ended,
}

impl RestartStage {
    /// What the node does, for a person.
    #[must_use]
    pub const fn deed(self) -> &'static str {
        match self {
            Self::Waiting => "waiting to be told what to restart",
            Self::Preparing => "reading its part of the generation and binding ports",
            Self::Bound => "waiting for other nodes' addresses",
            Self::Building => "connecting and building processes",
            Self::Ready => "waiting for other nodes to be ready",
            Self::Going => "letting threads go",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}

/// The coordinator's answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    #[allow(missing_docs)]
    Welcome(Welcome),
    #[allow(missing_docs)]
    TurnedAway(TurnedAway),
}

/// Come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Pid of the coordinator: another one than last time means that it remembers nothing.
    pub coordinator: u32,
    /// A node without contact for this long is given up, ms.
    pub agent_timeout_ms: u64,
}

/// Why an agent is not let in. It ends, and says the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum TurnedAway {
    /// The peer is of another release.
    #[error("{host} speaks version {theirs} between nodes, the coordinator {ours}: every node needs the same release")]
    Version {
        /// As its address says: nothing else of another version can be read.
        host: String,
        #[allow(missing_docs)]
        theirs: u16,
        #[allow(missing_docs)]
        ours: u16,
    },
    /// It belongs to another job.
    #[error("{host} is of job {theirs}, this is job {ours}")]
    Job {
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        theirs: String,
        #[allow(missing_docs)]
        ours: String,
    },
    /// It was left over from before a restart, or the coordinator was.
    #[error("{host} is of life {theirs} of job {job}, this is life {ours}")]
    Life {
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        job: String,
        #[allow(missing_docs)]
        theirs: u32,
        #[allow(missing_docs)]
        ours: u32,
    },
    /// Somebody else is that node.
    #[error("{node} is {holder} (guardian {guardian}) and alive; {host} cannot be it")]
    Taken {
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        node: NodeId,
        /// The host that is the node.
        holder: String,
        /// Its guardian's pid.
        guardian: u32,
    },
    /// A younger agent of the same guardian has been here.
    #[error("{node} has a younger agent than {agent} of {host}")]
    Replaced {
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        node: NodeId,
        #[allow(missing_docs)]
        agent: u32,
    },
    /// It was without contact for too long; the job has been ended, or restarted without it.
    #[error("{node} ({host}) was given up after {silent_ms} ms without contact")]
    GivenUp {
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        node: NodeId,
        #[allow(missing_docs)]
        silent_ms: u64,
    },
    /// More nodes than a job may have.
    #[error("{node} ({host}): a job has at most {most} nodes")]
    TooMany {
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        node: NodeId,
        #[allow(missing_docs)]
        most: u32,
    },
}
