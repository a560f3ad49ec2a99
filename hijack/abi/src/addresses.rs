//! The address table: what programs that were moved remember, and where it is now.
//!
//! A program knows addresses of its first life for ever: its own (*old* addresses of its virtual node) and those of others.
//! The library translates what it hands to the kernel (old → new) and what the kernel hands back (new → old), so the
//! program never sees a new address. Each virtual node has a segment and so a table of its own.
//!
//! # What is in it
//!
//! ```text
//! Entry       old address, port ⇄ new address, port      port 0 on both sides: the whole address, ports stay
//!   own       the old address is one of this virtual node
//!   one_way   old → new only
//!   ports     whole addresses: the local ports that this virtual node's sockets take on a host that it shares
//! Connection  real local and remote endpoint → remembered ones, where the entries do not lead there
//! ports       the slice of this node itself; none where it has its host for itself
//! ```
//!
//! Endpoints are IPv6; an IPv4 address is its v4-mapped form, whatever family a socket has. An address without entry is
//! left as it is: it belongs to somebody outside the job, or is a new one that the program has just learned.
//!
//! # Rules
//!
//! 1. *Old → new* ([`AddressTable::to_new`]): the exact entry, else the whole address. One step, never a chain, so nodes may
//!    have swapped addresses. `bind` uses own entries only; everything else names a peer and uses all.
//! 2. *New → old* ([`AddressTable::to_old_peer`], [`AddressTable::to_old_own`]): the exact entry; else the whole address whose
//!    slice has the port; else the first whole address that was entered. What a socket says of itself (getsockname)
//!    uses own entries only.
//! 3. Exact entries are a bijection: no old endpoint twice, no new one twice, unless all but one are `one_way` (two old
//!    addresses of a node whose new host has one). A moved port hides the same port of the whole address: the agent
//!    moves to ports that nobody uses.
//! 4. Several old addresses may share a new one. Those of one node: the first entered is what comes back. Those of several
//!    virtual nodes on one host: each has a slice of ports, does not overlap, best outside of `ip_local_port_range`. Who connects, sends
//!    or binds without a port takes one of its slice, and whoever it reaches knows by it who it is. Existing connections
//!    between them, and listening ports outside of the slices, are entered exactly.
//! 5. Loopback addresses belong to each virtual node. Where several share a host, all but one of them have [`loopback`]
//!    addresses as `own` entries, for each old one that is in use: 127.0.0.1, 127.0.1.1 (a host's own name on some
//!    systems), ::1. Who connects to such an address is bound to it first, as the source of a loopback connection is its
//!    target's address. Without entry, 127.0.0.53 say, they are the host's.
//! 6. A socket bound to the unspecified address keeps it. Where its port was moved, the unspecified address has an own
//!    exact entry too, besides one for each address by which it is reached.
//! 7. A Connection is looked for before the entries, by both real ends: getsockname and getpeername of connected sockets. It
//!    outlives the connection: another one between the same real ends has the right addresses, but ports of the first.
//!
//! # Who writes, who reads
//!
//! ```text
//! agent                                             thread
//! fills the table that is not in use                generation g: 0 = there is none
//! generation = epoch, count (Release)   ────→       looks up in table g & 1
//!                                                   generation still g? else once more
//! ```
//!
//! The epoch goes on from life to life, so a thread that was parked within a look-up and comes back in another life sees
//! another generation. A writer that dies leaves the table before it in force.

use core::cmp::Ordering as Order;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod table;
#[cfg(test)]
mod tests;

pub use table::{AddressTable, Addresses};

/// Entries of a table at most: 1,024 nodes with some addresses each, and moved ports.
pub const ENTRIES: usize = 8192;
/// Connections of a table at most: those of one virtual node whose ends are not what it remembers.
pub const CONNECTIONS: usize = 16384;

/// An address and a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv6 address, the first byte the highest; IPv4 as `::ffff:a.b.c.d`.
    pub address: u128,
    /// Port; 0 in a table: any.
    pub port: u16,
}

impl Endpoint {
    /// The same address without port.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self { address: self.address, port: 0 }
    }

    /// The IPv4 address, where it is one.
    #[must_use]
    pub const fn v4(self) -> Option<u32> {
        if self.address >> 32 == 0xffff { Some(self.address as u32) } else { None }
    }

    /// Whether it is one of 127.0.0.0/8.
    #[must_use]
    pub const fn is_v4_loopback(self) -> bool {
        matches!(self.v4(), Some(address) if address >> 24 == 127)
    }

    const fn words(self) -> [u64; 2] {
        [(self.address >> 64) as u64, self.address as u64]
    }

    const fn of([high, low]: [u64; 2], port: u16) -> Self {
        Self { address: (high as u128) << 64 | low as u128, port }
    }
}

impl From<IpAddr> for Endpoint {
    fn from(address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { address: address.to_bits(), port: 0 }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(name: SocketAddr) -> Self {
        Self { port: name.port(), ..name.ip().into() }
    }
}

impl From<Endpoint> for SocketAddr {
    /// IPv4 where it is v4-mapped.
    fn from(endpoint: Endpoint) -> Self {
        let address = match endpoint.v4() {
            Some(address) => Ipv4Addr::from_bits(address).into(),
            None => Ipv6Addr::from_bits(endpoint.address).into(),
        };
        Self::new(address, endpoint.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(out)
    }
}

/// The address that takes the place of loopback address `old` for the virtual node at place `place` of its host; the one
/// at place 0 keeps it. `None` for what is no loopback address or is not divided: 127.1.0.0 and above.
///
/// 127.0.x.y becomes 127.`place`.x.y. There is one ::1 on a host, so it becomes ::ffff:127.`place`.255.1, which sockets with
/// IPV6_V6ONLY cannot use.
#[must_use]
pub const fn loopback(place: u8, old: IpAddr) -> Option<IpAddr> {
    match old {
        IpAddr::V4(address) => match address.octets() {
            [127, 0, x, y] => Some(IpAddr::V4(Ipv4Addr::new(127, place, x, y))),
            _ => None,
        },
        IpAddr::V6(address) if address.is_loopback() && place == 0 => Some(old),
        IpAddr::V6(address) if address.is_loopback() => {
            Some(IpAddr::V6(Ipv4Addr::new(127, place, 255, 1).to_ipv6_mapped()))
        }
        IpAddr::V6(_) => None,
    }
}

/// A slice of ports, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// 0: none at all.
    pub first: u16,
    #[allow(missing_docs)]
    pub last: u16,
}

impl Ports {
    /// No slice.
    pub const NONE: Self = Self { first: 0, last: 0 };

    /// Whether a port is in it.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first != 0 && self.first <= port && port <= self.last
    }

    /// How many there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        if self.first == 0 || self.last < self.first { 0 } else { (self.last - self.first) as u32 + 1 }
    }
}

/// Where something that programs remember is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What is remembered.
    pub old: Endpoint,
    /// Where it is.
    pub new: Endpoint,
    /// Whole addresses of virtual nodes that share a host: the ports that this one's sockets take.
    pub ports: Ports,
    /// It is of this virtual node.
    pub own: bool,
}

/// An existing connection, as it is and as its program remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Real ends: local, remote.
    pub real: [Endpoint; 2],
    /// Remembered ends: local, remote.
    pub remembered: [Endpoint; 2],
}

/// What an old endpoint is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub endpoint: Endpoint,
    /// It is of this virtual node.
    pub own: bool,
}

/// Everything that a table is to hold, in the order in which it is looked up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sorted<'a> {
    /// The slice of this virtual node.
    pub ports: Ports,
    /// All entries, ascending by `old`.
    pub by_old: &'a [Entry],
    /// Those that lead back, ascending by `new`; entries of one address in the order in which they count.
    pub by_new: &'a [Entry],
    /// Ascending by `real`.
    pub connections: &'a [Connection],
}

/// Why a table is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// More than [`ENTRIES`].
    Entries(usize),
    /// More than [`CONNECTIONS`].
    Connections(usize),
    /// A port on one side only.
    OneSided(Endpoint),
    /// An old endpoint twice, or entries out of order.
    Old(Endpoint),
    /// A new endpoint with port twice, or entries out of order.
    New(Endpoint),
    /// A connection twice, or connections out of order; its real local end.
    Connection(Endpoint),
}

impl fmt::Display for TableError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(count) => write!(out, "{count} addresses are more than {ENTRIES}"),
            Self::Connections(count) => write!(out, "{count} moved connections are more than {CONNECTIONS}"),
            Self::OneSided(old) => write!(out, "{old} has a port on one side only"),
            Self::Old(old) => write!(out, "old address {old} is entered twice"),
            Self::New(new) => write!(out, "new address {new} is entered twice"),
            Self::Connection(local) => write!(out, "a connection of {local} is entered twice"),
        }
    }
}

impl core::error::Error for TableError {}

impl Sorted<'_> {
    fn check(&self) -> Result<(), TableError> {
        if self.by_old.len() > ENTRIES || self.by_new.len() > ENTRIES {
            return Err(TableError::Entries(self.by_old.len().max(self.by_new.len())));
        }
        if self.connections.len() > CONNECTIONS {
            return Err(TableError::Connections(self.connections.len()));
        }
        if let Some(entry) = self.by_old.iter().chain(self.by_new).find(|it| (it.old.port == 0) != (it.new.port == 0)) {
            return Err(TableError::OneSided(entry.old));
        }
        let pair = self.by_old.windows(2).find(|pair| pair[0].old >= pair[1].old);
        pair.map_or(Ok(()), |pair| Err(TableError::Old(pair[1].old)))?;
        let wrong = |pair: &&[Entry]| match pair[0].new.cmp(&pair[1].new) {
            Order::Less => false,
            Order::Equal => pair[1].new.port != 0,
            Order::Greater => true,
        };
        self.by_new.windows(2).find(wrong).map_or(Ok(()), |pair| Err(TableError::New(pair[1].new)))?;
        let pair = self.connections.windows(2).find(|pair| pair[0].real >= pair[1].real);
        pair.map_or(Ok(()), |pair| Err(TableError::Connection(pair[1].real[0])))
    }
}
