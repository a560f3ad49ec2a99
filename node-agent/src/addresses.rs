//! The agent's side of the address table: what a restart knows of moved addresses, into the control segment.
//!
//! The rules by which the entries are used, and what is to be entered for which restart, are in `hijack_abi::addresses`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use coordinator_protocol::node::Place;
use hijack_abi::Segment;
use hijack_abi::addresses::{Connection, Entry, Ports, Sorted, TableError};
use nix::net::if_::InterfaceFlags;

/// Addresses of this host that are up, loopback too; link-local ones are of no use to others.
#[must_use]
pub fn of_this_host() -> Vec<IpAddr> {
    let ip = |it: nix::ifaddrs::InterfaceAddress| {
        let address = it.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    let usable = |it: &IpAddr| match it {
        IpAddr::V4(it) => !it.is_link_local(),
        IpAddr::V6(it) => !it.is_unicast_link_local(),
    };
    let up = nix::ifaddrs::getifaddrs().into_iter().flatten().filter(|it| it.flags.contains(InterfaceFlags::IFF_UP));
    up.filter_map(ip).filter(usable).collect()
}

/// The table of a virtual node whose job lives in these places.
#[must_use]
pub fn table_of(places: &[Place], own: u32) -> Table {
    let mut table = Table::default();
    let mut entered = HashSet::new();
    // Its own first: of several that share an address the first comes back.
    let (mine, others): (Vec<&Place>, Vec<&Place>) = places.iter().partition(|it| it.node.0 == own);
    for place in mine.into_iter().chain(others) {
        let is_own = place.node.0 == own;
        for (old, new) in place.addresses.iter().filter(|(old, new)| old != new && entered.insert(*old)) {
            match old.port() {
                0 => table.address(old.ip(), new.ip(), Ports::NONE, is_own),
                _ => table.exact(*old, *new, is_own),
            }
        }
    }
    table
}

/// All that moved programs of one virtual node are to be told, in no order except that the first of several whole addresses
/// which share a new one is what comes back.
#[derive(Clone, Debug, Default)]
pub struct Table {
    ports: Ports,
    entries: Vec<Listed>,
    connections: Vec<Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    entry: Entry,
    leads_back: bool,
}

impl Table {
    /// The table of a virtual node that shares its host with others: its sockets take ports of this slice.
    #[must_use]
    pub fn sharing(ports: Ports) -> Self {
        Self { ports, ..Self::default() }
    }

    /// Enters an address, all ports of it, and the slice of ports that its virtual node takes (or [`Ports::NONE`]). `own`: of
    /// the virtual node that the table is for.
    pub fn address(&mut self, old: IpAddr, new: IpAddr, ports: Ports, own: bool) {
        self.enter(Entry { old: old.into(), new: new.into(), ports, own }, true);
    }

    /// Enters an address with its port.
    pub fn exact(&mut self, old: SocketAddr, new: SocketAddr, own: bool) {
        self.enter(Entry { old: old.into(), new: new.into(), ports: Ports::NONE, own }, true);
    }

    /// The same, where another entry already leads back from `new`.
    pub fn one_way(&mut self, old: SocketAddr, new: SocketAddr, own: bool) {
        self.enter(Entry { old: old.into(), new: new.into(), ports: Ports::NONE, own }, false);
    }

    /// Enters a connection whose ends (local, remote) are not those that its program remembers.
    pub fn connection(&mut self, real: [SocketAddr; 2], remembered: [SocketAddr; 2]) {
        self.connections.push(Connection { real: real.map(Into::into), remembered: remembered.map(Into::into) });
    }

    fn enter(&mut self, entry: Entry, leads_back: bool) {
        self.entries.push(Listed { entry, leads_back });
    }
}

/// Puts a table into the segment, in the place of the one that is there. Threads may be using that.
///
/// # Errors
/// Endpoints are entered twice, or more than the segment has room for. Nothing is changed then.
pub fn write_addresses(segment: &Segment, table: &Table) -> Result<(), TableError> {
    let mut by_old: Vec<Entry> = table.entries.iter().map(|it| it.entry).collect();
    by_old.sort_by_key(|entry| entry.old);
    let mut by_new: Vec<Entry> = table.entries.iter().filter(|it| it.leads_back).map(|it| it.entry).collect();
    by_new.sort_by_key(|entry| entry.new);
    let mut connections = table.connections.clone();
    connections.sort_by_key(|connection| connection.real);
    let sorted = Sorted { ports: table.ports, by_old: &by_old, by_new: &by_new, connections: &connections };
    segment.addresses.replace(segment.epoch.load(Ordering::Acquire), &sorted)
}

#[cfg(test)]
mod tests {
    use hijack_abi::addresses::Endpoint;

    use super::*;
    use crate::guardian::control::Control;

    fn name(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_of_several_addresses_comes_back() {
        let segment = Control::carrying(7).unwrap().segment();
        let mut table = Table::default();
        for old in ["10.0.0.9", "10.0.0.1", "10.0.0.5"] {
            table.address(old.parse().unwrap(), "10.9.9.9".parse().unwrap(), Ports::NONE, true);
        }
        table.exact(name("10.0.0.5:80"), name("10.9.9.9:81"), true);
        table.one_way(name("10.0.0.1:80"), name("10.9.9.9:81"), true);
        table.connection([name("10.9.9.9:1"), name("10.9.9.8:1")], [name("10.0.0.1:1"), name("10.0.0.2:1")]);
        write_addresses(segment, &table).unwrap();
        assert_eq!(segment.addresses.generation() >> 32, 7);
        let look = |look: &dyn Fn(Endpoint) -> Option<Endpoint>, at| look(name(at).into()).map(SocketAddr::from);
        segment.addresses.read(|table| {
            let to_old = |new| table.to_old_own(new);
            assert_eq!(look(&to_old, "10.9.9.9:99"), Some(name("10.0.0.9:99")));
            assert_eq!(look(&to_old, "10.9.9.9:81"), Some(name("10.0.0.5:80")));
            let to_new = |old| table.to_new(old).map(|target| target.endpoint);
            assert_eq!(look(&to_new, "10.0.0.1:80"), Some(name("10.9.9.9:81")));
            assert!(table.has_connections());
        });
        table.exact(name("10.0.0.7:1"), name("10.9.9.9:81"), false);
        assert_eq!(write_addresses(segment, &table), Err(TableError::New(name("10.9.9.9:81").into())));
    }
}
