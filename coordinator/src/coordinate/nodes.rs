//! Which nodes the job has.

use std::collections::BTreeMap;

use coordinator_protocol::node::{Hello, TurnedAway, decode};
use coordinator_transport::Peer;

/// The job's virtual nodes, by number.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<u32, Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// As a launcher named it first; then as it names itself.
    names: Vec<String>,
    peer: Option<Peer>,
    hello: Hello,
}

impl Nodes {
    /// A new node on a host that a launcher has named. Its agent has still to come.
    pub fn add(&mut self, host: &str) -> u32 {
        let number = self.nodes.keys().next_back().map_or(1, |last| last + 1);
        self.nodes.insert(number, Node { names: vec![host.to_owned()], ..Node::default() });
        number
    }

    /// It did not come.
    pub fn remove(&mut self, node: u32) {
        self.nodes.remove(&node);
    }

    /// The node on a host.
    pub fn on(&self, host: &str) -> Option<u32> {
        self.nodes.iter().find(|(_, it)| it.names.iter().any(|name| name == host)).map(|(number, _)| *number)
    }

    /// An agent is there; which node it is, or why it is turned away.
    pub fn join(&mut self, peer: Peer, hello: &[u8], job: &str) -> Result<u32, TurnedAway> {
        let hello: Hello = decode(hello).map_err(|_| version())?;
        if hello.job != job {
            return Err(TurnedAway::Job { host: hello.host, theirs: hello.job, ours: job.to_owned() });
        }
        let number = hello.node.0;
        let node = self.nodes.entry(number).or_default();
        if node.peer.is_some() && node.hello.guardian != hello.guardian {
            return Err(TurnedAway::Taken {
                host: hello.host,
                node: hello.node,
                holder: node.hello.host.clone(),
                guardian: node.hello.guardian,
            });
        }
        if !node.names.contains(&hello.host) {
            node.names.push(hello.host.clone());
        }
        (node.peer, node.hello) = (Some(peer), hello);
        Ok(number)
    }

    /// Number of the node with which there is this session.
    pub fn of(&self, peer: Peer) -> Option<u32> {
        self.nodes.iter().find(|(_, it)| it.peer == Some(peer)).map(|(number, _)| *number)
    }

    /// The session with a node.
    pub fn peer(&self, node: u32) -> Option<Peer> {
        self.nodes.get(&node)?.peer
    }

    /// A session is over; number and host of its node.
    pub fn lose(&mut self, peer: Peer) -> Option<(u32, String)> {
        let number = self.of(peer)?;
        let host = self.host(number);
        self.nodes.get_mut(&number)?.peer = None;
        Some((number, host))
    }

    /// How a node is called.
    pub fn host(&self, node: u32) -> String {
        self.nodes.get(&node).and_then(|it| it.names.last().cloned()).unwrap_or_else(|| format!("node {node}"))
    }

    /// Nodes but the first that are there.
    pub fn others(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes.iter().filter(|(number, it)| **number != 0 && it.peer.is_some()).map(|(number, _)| *number)
    }
}

/// A hello that is not understood.
fn version() -> TurnedAway {
    TurnedAway::Version { host: "an agent".into(), theirs: 0, ours: coordinator_protocol::node::PROTOCOL }
}
