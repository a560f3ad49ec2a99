//! Connections that lead away from a node, as both of its ends name them.

use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// One end of a connection whose other end is not on this virtual node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// As the socket has it.
    pub local: SocketAddr,
    #[allow(missing_docs)]
    pub remote: SocketAddr,
    #[allow(missing_docs)]
    pub state: EdgeState,
    /// A process that holds it, by its pid in the job; 0 where none does.
    pub pid: u32,
}

/// What a connection's end is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EdgeState {
    /// Bytes may come from the other end: the job must have that one, too.
    Open,
    /// The other end has sent its last (FIN or RST): nobody need hold it any more.
    Ended,
    /// On its way (SYN sent). What becomes of it at a restart is what becomes of a packet that got lost.
    Connecting,
    /// Complete, in a listening socket's queue, accepted by nobody yet.
    Backlog,
    /// Closed here by everybody, and the kernel still has bytes to send which nobody can read out any more.
    Orphan,
}

/// One direction of a connection: from the sender's own address to the receiver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The sender's end.
    pub from: SocketAddr,
    /// The receiver's end.
    pub to: SocketAddr,
}

impl Edge {
    /// The direction in which this end sends.
    #[must_use]
    pub const fn outgoing(&self) -> Flow {
        Flow { from: self.local, to: self.remote }
    }
}

/// An address as both ends may be compared: IPv4 in IPv6 is IPv4, scope and flow are of one host only.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// An address of a host's own that other hosts have as well: loopback.
#[must_use]
pub(crate) fn is_of_one_host(address: SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_name() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "10.0.0.1:80".parse().unwrap());
        let scoped: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(canonical(scoped), "[fe80::1]:80".parse().unwrap());
        assert!(is_of_one_host("[::ffff:127.0.0.1]:1".parse().unwrap()));
        assert!(!is_of_one_host("10.0.0.1:1".parse().unwrap()));
    }
}
