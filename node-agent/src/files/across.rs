//! TCP connections that lead to other nodes of the job. Each node sees one end: it knows when all that this end has sent has
//! arrived (its send queue is empty), and what has arrived here lies in the receive queue, where the capture peeks it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use node_agent_proc::net_tcp::state;

use super::socket::Sockets;
use super::table::Table;
use super::{FilesError, ProcessRef, sys, sys_socket as raw};

/// The ends that are here.
#[derive(Debug, Default)]
pub struct Across {
    ends: Vec<End>,
}

#[derive(Debug)]
struct End {
    socket: OwnedFd,
    local: SocketAddr,
    remote: SocketAddr,
    /// For a message: pid as the job sees it, descriptor.
    holder: (u32, i32),
}

/// Bytes of one end that have not arrived at the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    #[allow(missing_docs)]
    pub local: SocketAddr,
    #[allow(missing_docs)]
    pub remote: SocketAddr,
    #[allow(missing_docs)]
    pub bytes: u64,
    /// `pid 12 descriptor 5`.
    pub holder: String,
}

impl Across {
    /// Lists them among the descriptors of `processes`, which are parked. `guardian` as for `capture`.
    ///
    /// # Errors
    /// When the sockets cannot be looked at.
    pub fn list(processes: &[ProcessRef], guardian: u32) -> Result<Self, FilesError> {
        let table = Table::list(processes, guardian)?;
        let sockets = Sockets::list(&table)?;
        let mut ends = Vec::new();
        for ((local, remote), index) in &sockets.tcp_files {
            if leads_elsewhere(&sockets, *local, *remote)? {
                let description = &table.descriptions[*index];
                ends.push(End {
                    socket: table.open(*index)?,
                    local: *local,
                    remote: *remote,
                    holder: (description.pid, description.holder.1),
                });
            }
        }
        ends.sort_by_key(|it| (it.local, it.remote));
        Ok(Self { ends })
    }

    /// Own and other address of each, in their order, and a process that holds it.
    pub fn edges(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr, u32)> {
        self.ends.iter().map(|it| (it.local, it.remote, it.holder.0))
    }

    /// What has not arrived yet. Acknowledgements that this node's kernel holds back for the others are sent.
    ///
    /// # Errors
    /// When a socket cannot be asked.
    pub fn unsent(&self) -> io::Result<Vec<Unsent>> {
        let mut unsent = Vec::new();
        for end in &self.ends {
            let socket = end.socket.as_raw_fd();
            raw::set_option_int(socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)?;
            let bytes = sys::ioctl_int(socket, libc::TIOCOUTQ)? as u64;
            // A connection that was reset has nobody to arrive at.
            if bytes > 0 && raw::tcp_info(socket)?.state != state::CLOSE {
                let (local, remote) = (end.local, end.remote);
                let holder = format!("pid {} descriptor {}", end.holder.0, end.holder.1);
                unsent.push(Unsent { local, remote, bytes, holder });
            }
        }
        Ok(unsent)
    }
}

/// Whether a connection's other end is not in the job's part on this node. It may be in another virtual node's, on this machine too
/// where a restart has put several: the coordinator finds out, and what nobody in the job has is outside. An end that no
/// process holds waits to be accepted here, or was closed here. Over loopback no two virtual nodes meet, and all hosts have
/// the same names there.
fn leads_elsewhere(sockets: &Sockets, local: SocketAddr, remote: SocketAddr) -> Result<bool, FilesError> {
    if remote.ip().is_loopback() || sockets.tcp_files.contains_key(&(remote, local)) {
        return Ok(false);
    }
    let on_this_machine = sockets.all_tcp()?.get(&(remote, local));
    Ok(on_this_machine.map_or(remote.ip() != local.ip(), |it| it.inode != 0))
}
