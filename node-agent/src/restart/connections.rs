//! Connections to other nodes have other ends now than their programs remember.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use node_agent_image::model::{FileKind, NodeModel};

use super::Begun;
use super::complete::descendants;
use crate::files::{sys, sys_socket as raw};

/// Both ends (local, remote) of a connection.
pub type Ends = [SocketAddr; 2];

/// Of each connection to another node, where they differ: what its ends are, and what its program remembers.
#[must_use]
pub fn moved_connections(begun: &Begun, model: &NodeModel) -> Vec<(Ends, Ends)> {
    let hosts = descendants(begun.init);
    let mut seen = HashSet::new();
    let mut moved = Vec::new();
    for process in model.processes.iter().filter(|it| it.zombie.is_none()) {
        let Some(pidfd) = hosts.get(&process.pid).and_then(|host| sys::pidfd_open(*host).ok()) else { continue };
        for descriptor in &process.descriptors {
            let Some(FileKind::Socket(socket)) = model.files.get(descriptor.file).map(|it| &it.kind) else { continue };
            if socket.peer_node.is_none() || !seen.insert(descriptor.file) {
                continue;
            }
            let remembered = (raw::inet(&socket.local), raw::inet(&socket.remote));
            let Ok(file) = sys::pidfd_getfd(&pidfd, descriptor.number) else { continue };
            let end = |peer| raw::name(file.as_raw_fd(), peer).ok().and_then(|it| raw::inet(&it));
            if let ((Some(local), Some(remote)), Some(own), Some(other)) = (remembered, end(false), end(true))
                && [local, remote] != [own, other]
            {
                moved.push(([own, other], [local, remote]));
            }
        }
    }
    moved
}
