//! The agent's side of the address table: what a restart knows of moved addresses, into the control segment.
//!
//! The rules by which the entries are used, and what is to be entered for which restart, are in `hijack_abi::addresses`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use coordinator_protocol::node::Place;
use hijack_abi::Segment;
use hijack_abi::addresses::{Connection, Entry, Ports, Sorted, TableError, loopback};
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

/// How a virtual node of a restarted job shares its host with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Which of the host's virtual nodes it is.
    pub place: u8,
    /// Ports that its sockets take; none where it has the host for itself.
    pub ports: Ports,
}

/// Ports that the virtual nodes of a host divide among themselves: below the kernel's own range, above well-known ones.
const SHARED_PORTS: [u16; 2] = [20_000, 32_000];

impl Share {
    /// Of virtual node `node`, where `hosts` has the host of each.
    #[must_use]
    pub fn of(hosts: &[String], node: u32) -> Self {
        let Some(host) = hosts.get(node as usize) else { return Self::default() };
        let place = hosts[..node as usize].iter().filter(|it| *it == host).count();
        let count = hosts.iter().filter(|it| *it == host).count();
        let [first, end] = SHARED_PORTS;
        let each = (end - first) / u16::try_from(count).unwrap_or(u16::MAX);
        let first = first + each * place as u16;
        let ports = if count > 1 && each > 0 { Ports { first, last: first + each - 1 } } else { Ports::NONE };
        Self { place: u8::try_from(place).unwrap_or(u8::MAX), ports }
    }

    /// Loopback addresses that are its own, where others on the host have the usual ones.
    pub fn loopbacks(self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let used: [IpAddr; 3] = [[127, 0, 0, 1].into(), [127, 0, 1, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1_u16].into()];
        let own = move |old: IpAddr| {
            let new = loopback(self.place, old)?;
            (self.place > 0).then(|| (SocketAddr::new(old, 0), SocketAddr::new(new, 0)))
        };
        used.into_iter().filter_map(own)
    }
}

/// The table of a virtual node whose job lives in these places; `hosts` has the host of each.
#[must_use]
pub fn table_of(places: &[Place], own: u32, hosts: &[String]) -> Table {
    let mut table = Table::sharing(Share::of(hosts, own).ports);
    let mut entered = HashSet::new();
    // Its own first: of several that share an address the first comes back.
    let (mine, others): (Vec<&Place>, Vec<&Place>) = places.iter().partition(|it| it.node.0 == own);
    for place in mine.into_iter().chain(others) {
        let (is_own, ports) = (place.node.0 == own, Share::of(hosts, place.node.0).ports);
        for (old, new) in &place.addresses {
            let is_of_one = old.ip().is_loopback() || old.ip().is_unspecified();
            // On a host that is shared the way back tells one from another by their ports, also where nothing moved.
            let leads_nowhere = old == new && ports == Ports::NONE;
            if leads_nowhere || (is_of_one && !is_own) || !entered.insert(*old) {
                continue;
            }
            match old.port() {
                0 => table.address(old.ip(), new.ip(), if is_of_one { Ports::NONE } else { ports }, is_own),
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
