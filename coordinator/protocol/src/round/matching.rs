//! Which edges belong together: each connection inside the job is reported by the nodes of both its ends.

use core::net::SocketAddr;
use std::collections::{BTreeMap, HashMap};

use crate::node::{Edge, EdgeState, Flow, NodeId, canonical, is_of_one_host};

/// Edges of all nodes.
#[derive(Debug, Default)]
pub(super) struct Matching {
    edges: HashMap<Name, (NodeId, Edge)>,
    counts: BTreeMap<NodeId, u64>,
    hosts: BTreeMap<NodeId, String>,
}

/// A connection's end as both nodes can name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    /// Every host has a 127.0.0.1 of its own.
    host: Option<String>,
    local: SocketAddr,
    remote: SocketAddr,
}

/// What is in the way of barrier 1.
#[derive(Debug, Default)]
pub(super) struct Unmatched {
    /// Their other ends are in the hands of nobody in the job.
    pub(super) outside: BTreeMap<NodeId, Vec<Edge>>,
    /// The other end wrote and closed, and its kernel has bytes left that nobody can read out. It passes.
    pub(super) orphaned: Vec<(NodeId, Edge)>,
}

impl Matching {
    /// Takes what a node reports; the same edge twice is one.
    pub(super) fn add(&mut self, node: NodeId, host: &str, edges: Vec<Edge>) {
        self.hosts.entry(node).or_insert_with(|| host.to_owned());
        for edge in edges {
            let name = Name::new(host, edge.local, edge.remote);
            if self.edges.insert(name, (node, edge)).is_none() {
                *self.counts.entry(node).or_default() += 1;
            }
        }
    }

    /// How many edges of a node are known.
    pub(super) fn count(&self, node: NodeId) -> u64 {
        self.counts.get(&node).copied().unwrap_or_default()
    }

    /// The node of a stream's receiver.
    pub(super) fn holder(&self, sender: NodeId, flow: Flow) -> Option<NodeId> {
        let name = Name::new(self.hosts.get(&sender)?, flow.to, flow.from);
        self.edges.get(&name).filter(|(_, edge)| edge.state != EdgeState::Orphan).map(|(node, _)| *node)
    }

    /// For [`crate::node::Order::Capture`].
    pub(super) fn peers(&self, of: NodeId) -> Vec<NodeId> {
        let other = |name: &Name| self.edges.get(&name.reverse()).map_or(of, |(node, _)| *node);
        let mine = self.edges.iter().filter(|(_, (node, _))| *node == of);
        let mut peers: Vec<_> = mine.map(|(name, (_, edge))| ((edge.local, edge.remote), other(name))).collect();
        peers.sort_unstable();
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Once all are known.
    pub(super) fn unmatched(&self) -> Unmatched {
        let mut found = Unmatched::default();
        for (name, (node, edge)) in &self.edges {
            if edge.state != EdgeState::Open {
                continue;
            }
            match self.edges.get(&name.reverse()) {
                None => found.outside.entry(*node).or_default().push(*edge),
                Some((_, Edge { state: EdgeState::Orphan, .. })) => found.orphaned.push((*node, *edge)),
                Some(_) => {}
            }
        }
        found.outside.values_mut().for_each(|edges| edges.sort());
        found.orphaned.sort();
        found
    }
}

impl Name {
    fn new(host: &str, local: SocketAddr, remote: SocketAddr) -> Self {
        let host = is_of_one_host(local).then(|| host.to_owned());
        Self { host, local: canonical(local), remote: canonical(remote) }
    }

    fn reverse(&self) -> Self {
        Self { host: self.host.clone(), local: self.remote, remote: self.local }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(local: &str, remote: &str, state: EdgeState) -> Edge {
        Edge { local: local.parse().unwrap(), remote: remote.parse().unwrap(), state, pid: 7 }
    }

    #[test]
    fn both_ends_make_a_connection() {
        let mut matching = Matching::default();
        matching.add(NodeId(0), "n0", vec![edge("10.0.0.1:1", "[::ffff:10.0.0.2]:2", EdgeState::Open)]);
        assert_eq!(matching.unmatched().outside.len(), 1);
        let other = edge("[::ffff:10.0.0.2]:2", "10.0.0.1:1", EdgeState::Open);
        matching.add(NodeId(1), "n1", vec![other, other]);
        assert_eq!((matching.count(NodeId(1)), matching.count(NodeId(2))), (1, 0));
        assert!(matching.unmatched().outside.is_empty());
        let flow = Flow { from: "10.0.0.1:1".parse().unwrap(), to: "10.0.0.2:2".parse().unwrap() };
        assert_eq!(matching.holder(NodeId(0), flow), Some(NodeId(1)));
    }

    #[test]
    fn loopback_is_of_one_host() {
        let mut matching = Matching::default();
        matching.add(NodeId(0), "a", vec![edge("127.0.0.1:1", "127.0.0.1:2", EdgeState::Open)]);
        matching.add(NodeId(1), "b", vec![edge("127.0.0.1:2", "127.0.0.1:1", EdgeState::Open)]);
        assert_eq!(matching.unmatched().outside.len(), 2);
        matching.add(NodeId(2), "a", vec![edge("127.0.0.1:2", "127.0.0.1:1", EdgeState::Open)]);
        assert_eq!(matching.unmatched().outside.keys().collect::<Vec<_>>(), [&NodeId(1)]);
    }

    #[test]
    fn only_open_ones_need_their_other_end() {
        let mut matching = Matching::default();
        let alone = [EdgeState::Ended, EdgeState::Connecting, EdgeState::Backlog, EdgeState::Orphan];
        let edges = alone.iter().enumerate().map(|(at, state)| edge(&format!("10.0.0.1:{at}"), "10.0.0.2:9", *state));
        matching.add(NodeId(0), "n0", edges.collect());
        let found = matching.unmatched();
        assert!(found.outside.is_empty() && found.orphaned.is_empty());
        let reader = edge("10.0.0.2:9", "10.0.0.1:3", EdgeState::Open);
        matching.add(NodeId(1), "n1", vec![reader]);
        assert_eq!(matching.unmatched().orphaned, [(NodeId(1), reader)]);
    }
}
