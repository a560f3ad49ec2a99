//! TCP connections between virtual nodes of a job: how the two ends find each other again.

use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The other end of a TCP connection that leads to another virtual node of the job.
///
/// The addresses are those that the network had when the image was taken. What the program believes is in
/// [`super::Socket::local`] and [`super::Socket::remote`] and may be older: after a restart addresses are translated. Two
/// ends of one connection have the same two addresses the other way round, whatever either program believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Virtual node of the other end.
    pub node: u32,
    /// Address of this end.
    pub local: SocketAddr,
    /// Address of the other end.
    pub remote: SocketAddr,
}

/// A connection, whichever end looks at it: node and address of both ends, the lower one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub [(u32, SocketAddr); 2]);

impl Remote {
    /// With addresses as both ends write them: IPv4 in an IPv6 socket is IPv4, and the scope of a link-local address, a
    /// number of this host's own, is left out.
    #[must_use]
    pub fn new(node: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        Self { node, local: plain(local), remote: plain(remote) }
    }

    /// The connection, equal at both its ends. `own`: the virtual node of this end.
    #[must_use]
    pub fn connection(&self, own: u32) -> Connection {
        let mut ends = [(own, self.local), (self.node, self.remote)];
        ends.sort_unstable();
        Connection(ends)
    }

    /// Whether the addresses are as [`Remote::new`] writes them.
    pub(super) fn is_plain(&self) -> bool {
        [self.local, self.remote].iter().all(|it| *it == plain(*it))
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
