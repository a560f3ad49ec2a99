//! Agent → coordinator.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::node::{Between, Edge, Flow, NodeId, Round};
use crate::phase::Phase;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// A program of [`crate::node::Order::Launch`] runs. This and the next two are said again after each greeting.
    Launched {
        #[allow(missing_docs)]
        id: u64,
        /// On its host.
        pid: u32,
    },
    /// It could not be started.
    LaunchFailed {
        #[allow(missing_docs)]
        id: u64,
        #[allow(missing_docs)]
        reason: String,
    },
    /// It has ended.
    Ended {
        #[allow(missing_docs)]
        id: u64,
        /// As wait(2) has it.
        status: i32,
    },
    /// A rank was ended by a signal that nobody of ours sent.
    RankLost {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        signal: i32,
        #[allow(missing_docs)]
        command: String,
    },
    /// Connections that lead to other nodes, at most [`crate::node::EDGES_PER_REPORT`] in one report.
    Edges {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        edges: Vec<Edge>,
    },
    /// Every thread is parked. Nobody waits for all to say this; it tells that streams may be read out here.
    Parked {
        #[allow(missing_docs)]
        round: Round,
        /// How many edges were reported before: if the coordinator has fewer, some got lost with a session.
        edges: u64,
    },
    /// Streams of this node's that do not run empty, because their receivers are full.
    Stuck {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flows: Vec<StuckFlow>,
    },
    /// Barrier 1: nothing of this node's is on the wire.
    Flushed {
        #[allow(missing_docs)]
        round: Round,
    },
    /// Barrier 2: all that must be remembered is captured.
    Captured {
        #[allow(missing_docs)]
        round: Round,
    },
    /// Everybody runs again.
    Resumed {
        #[allow(missing_docs)]
        round: Round,
        /// From the first parked thread to the last that was let go, µs.
        stall_us: u64,
    },
    /// How far it is; every second at least while it writes.
    Progress {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        phase: Phase,
        /// Bytes read and written.
        done: u64,
        /// Bytes in all, 0 where unknown.
        total: u64,
    },
    /// This node's part is durable.
    Written {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        receipt: Receipt,
    },
    /// The commit was heard and everybody is let go.
    Settled {
        #[allow(missing_docs)]
        round: Round,
    },
    /// This node cannot go on with the round. It has begun to let everybody go.
    Failed {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        reason: String,
    },
    /// Of this round nothing is left on this node: bytes are back, everybody runs.
    Aborted {
        #[allow(missing_docs)]
        round: Round,
    },
    /// Words for another agent.
    Relay {
        #[allow(missing_docs)]
        to: NodeId,
        #[allow(missing_docs)]
        message: Between,
    },
    /// What listened before listens again.
    Bound {
        /// Where others find this agent to pair connections.
        meeting: SocketAddr,
        /// As in [`crate::node::Place`].
        addresses: Vec<(SocketAddr, SocketAddr)>,
    },
    /// How far a restart is; every second at least while the node works at it.
    RestartProgress {
        /// Bytes read.
        done: u64,
        /// Bytes in all, 0 where unknown.
        total: u64,
    },
    /// Every process is back in its park.
    Ready,
    /// Everybody is let go.
    Running,
    /// The restart cannot go on here.
    RestartFailed {
        #[allow(missing_docs)]
        reason: String,
    },
}

/// A stream that does not run empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckFlow {
    #[allow(missing_docs)]
    pub flow: Flow,
    /// Bytes that the sender's kernel holds.
    pub unacknowledged: u64,
}

/// What a node has written, and what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    #[allow(missing_docs)]
    pub model: ModelFile,
    /// In the order of their numbers.
    pub data: Vec<DataFile>,
    /// Of the job's memory.
    pub bytes_read: u64,
    #[allow(missing_docs)]
    pub processes: u64,
    #[allow(missing_docs)]
    pub threads: u64,
    /// Open file descriptions.
    pub files: u64,
}

/// `node-K.model`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub bytes: u64,
    /// XXH3-128 of all its bytes, 32 hex digits.
    pub xxh3_128: String,
}

/// `node-K.data-J`; checksums of its blocks are in the model file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub bytes: u64,
}
