//! Coordinator → agent.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::messages::Mode;
use crate::node::{Between, Edge, Flow, NodeId, Round};
use crate::phase::Deadlines;

/// What an agent is told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Start a program as part of the job. Said again after a break with the same `id`: it is started once.
    Launch {
        /// The coordinator's number for it.
        id: u64,
        /// One word: a line for `/bin/sh -c`. More: the program and its arguments.
        command: Vec<String>,
        /// Working folder.
        folder: String,
    },
    /// Begin a round: park, and run the send queues empty.
    Park(Park),
    /// Who has the other ends of streams that were reported stuck; they are parked, so that they can be asked to read out.
    Holders {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        flows: Vec<(Flow, NodeId)>,
    },
    /// These connections lead out of the job and do not hold the round up: do not wait for them.
    Outside {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        edges: Vec<Edge>,
    },
    /// Barrier 1 is passed: capture.
    Capture {
        #[allow(missing_docs)]
        round: Round,
        /// Node of the other end of each edge that this node has reported, edges in the order of (local, remote); this
        /// node itself where nobody in the job has the other end.
        peers: Vec<NodeId>,
    },
    /// Barrier 2 is passed: let everybody go, then write from the twins.
    Resume {
        #[allow(missing_docs)]
        round: Round,
    },
    /// Barrier 2 is passed, and the job stands still for longer (`--stop`, `--kill`): write.
    Write {
        #[allow(missing_docs)]
        round: Round,
    },
    /// The generation has its final name. Whoever is still parked is let go, or ended if the round was one with `kill`.
    Committed {
        #[allow(missing_docs)]
        round: Round,
        #[allow(missing_docs)]
        generation: u64,
    },
    /// The round is called off: let everybody go.
    Abort {
        #[allow(missing_docs)]
        round: Round,
        /// For a person.
        reason: String,
    },
    /// Another agent's words, which came by way of the coordinator.
    Relayed {
        #[allow(missing_docs)]
        from: NodeId,
        #[allow(missing_docs)]
        message: Between,
    },
    /// Begin a restart: read and check your part, bind what listened.
    Prepare(Prepare),
    /// All nodes have bound: connect, build, fill.
    Begin {
        /// Of every virtual node.
        table: Vec<Place>,
    },
    /// All nodes are ready: let everybody go.
    Go,
    /// The job is over on this node: end it and yourself.
    End {
        /// For a person.
        reason: String,
    },
}

/// What a round is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    #[allow(missing_docs)]
    pub round: Round,
    /// What it would commit.
    pub generation: u64,
    /// The unfinished folder, which every node sees under this path. It is there. Its name has the round's number in it, so
    /// that a late write of an earlier round goes elsewhere.
    pub dir: String,
    #[allow(missing_docs)]
    pub mode: Mode,
    /// End the job once it is committed. Then it stays parked until it is, as with [`Mode::Stop`].
    pub kill: bool,
    /// What becomes of connections out of the job.
    pub outside: Outside,
    /// Of the phases on each node.
    pub deadlines: Deadlines,
}

impl Park {
    /// The job stays parked until the commit.
    #[must_use]
    pub fn stays_parked(&self) -> bool {
        self.kill || self.mode == Mode::Stop
    }
}

/// What becomes of a connection whose other end is not in the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outside {
    /// The round is refused, and the connection named.
    #[default]
    Refuse,
    /// It is in the image as one that the peer has closed.
    Drop,
    /// It is left alone; in the image it is as with [`Outside::Drop`].
    Leave,
}

/// What an agent is to restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// Path of the generation's folder on this host.
    pub dir: String,
    #[allow(missing_docs)]
    pub generation: u64,
    /// Number of nodes of the job.
    pub nodes: u32,
    /// Folders that are elsewhere now, old → new.
    pub folders: Vec<(String, String)>,
}

/// Where a virtual node lives now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    #[allow(missing_docs)]
    pub node: NodeId,
    #[allow(missing_docs)]
    pub host: String,
    /// Where its agent waits for those who pair connections with it.
    pub meeting: SocketAddr,
    /// Addresses as the programs remember them → as they are now. Port 0 stands for every port that has no line of its own.
    pub addresses: Vec<(SocketAddr, SocketAddr)>,
}
