//! Which host is which node, under all names that launchers and hosts have for it; and sessions as the protocol numbers them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use coordinator_protocol::members::SessionId;
use coordinator_transport::Peer;

/// In the job's folder: the names of every node that was ever let in, for a coordinator that is started anew.
const FILE: &str = "nodes.json";

/// Nodes and sessions.
#[derive(Debug, Default)]
pub struct Nodes {
    file: PathBuf,
    names: BTreeMap<u32, Vec<String>>,
    peers: BTreeMap<SessionId, Peer>,
    last_session: u64,
}

impl Nodes {
    /// As an earlier coordinator has left them.
    pub fn read(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let names = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, names, ..Self::default() }
    }

    /// All that are known, with the last of their names.
    pub fn all(&self) -> impl Iterator<Item = (u32, &str)> {
        self.names.iter().filter_map(|(node, names)| Some((*node, names.last()?.as_str())))
    }

    /// The node on a host.
    pub fn on(&self, host: &str) -> Option<u32> {
        self.names.iter().find(|(_, names)| names.iter().any(|name| name == host)).map(|(node, _)| *node)
    }

    /// A new node on a host that a launcher has named; its agent has still to come.
    pub fn add(&mut self, host: &str) -> u32 {
        let node = self.names.keys().next_back().map_or(1, |last| last + 1);
        self.name(node, host);
        node
    }

    /// It did not come.
    pub fn remove(&mut self, node: u32) {
        self.names.remove(&node);
        self.write();
    }

    /// A node calls itself so, too.
    pub fn name(&mut self, node: u32, host: &str) {
        let names = self.names.entry(node).or_default();
        if !names.iter().any(|name| name == host) {
            names.push(host.to_owned());
            self.write();
        }
    }

    fn write(&self) {
        // What cannot be written is missed only by a coordinator that follows this one; it hears of its nodes from them.
        if let Ok(text) = serde_json::to_vec(&self.names) {
            let fresh = self.file.with_extension("new");
            let _ = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.file));
        }
    }

    /// How a node is called.
    pub fn host(&self, node: u32) -> String {
        self.names.get(&node).and_then(|names| names.last().cloned()).unwrap_or_else(|| format!("node {node}"))
    }

    /// A session begins.
    pub fn enter(&mut self, peer: Peer) -> SessionId {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.peers.insert(session, peer);
        session
    }

    /// It is over.
    pub fn leave(&mut self, peer: Peer) -> Option<SessionId> {
        let session = self.session(peer)?;
        self.peers.remove(&session);
        Some(session)
    }

    #[allow(missing_docs)]
    pub fn session(&self, peer: Peer) -> Option<SessionId> {
        self.peers.iter().find(|(_, it)| **it == peer).map(|(session, _)| *session)
    }

    #[allow(missing_docs)]
    pub fn peer(&self, session: SessionId) -> Option<Peer> {
        self.peers.get(&session).copied()
    }
}
