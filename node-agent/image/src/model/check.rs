//! What has to hold inside the model, beside what its types say.

use std::collections::BTreeSet;

use super::{FileKind, NodeModel, Remote, Socket};
use crate::FormatError;
use crate::limits::NODES_MAX;
use crate::parse::{at_most, field_error};

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const SOCK_STREAM: i32 = 1;

/// `offset`: where the JSON begins in `file`.
pub(crate) fn check(file: &str, offset: u64, model: &NodeModel) -> Result<(), FormatError> {
    at_most(file, "number of a node", model.node.into(), NODES_MAX - 1)?;
    let mut connections = BTreeSet::new();
    for (index, open) in model.files.iter().enumerate() {
        let FileKind::Socket(socket) = &open.kind else { continue };
        let Some(remote) = &socket.peer_node else { continue };
        let wrong = wrong_remote(model.node, socket, remote).or_else(|| {
            (!connections.insert(remote.connection(model.node))).then_some("a connection that another file is")
        });
        if let Some(reason) = wrong {
            return Err(field_error(file, offset, format!("files[{index}].kind.socket.peer_node"), reason));
        }
    }
    Ok(())
}

fn wrong_remote(own: u32, socket: &Socket, remote: &Remote) -> Option<&'static str> {
    let is_tcp = matches!(socket.family, AF_INET | AF_INET6) && socket.kind == SOCK_STREAM;
    match () {
        () if socket.peer.is_some() => Some("beside a peer on this node"),
        () if remote.node == own => Some("this node"),
        () if remote.node as usize >= NODES_MAX => Some("a node that no generation has"),
        () if !is_tcp => Some("of a socket that is not TCP"),
        () if socket.backlog.is_some() => Some("of a socket that listens"),
        () if socket.local.is_empty() || socket.remote.is_empty() => Some("of a socket without both its addresses"),
        () if !remote.is_plain() => Some("addresses in another form than its other end has them"),
        () => None,
    }
}
