use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::vec::Vec;
use std::{string::ToString, thread};

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Endpoint {
    match text.parse::<SocketAddr>() {
        Ok(name) => name.into(),
        Err(_) => text.parse::<IpAddr>().expect("an address").into(),
    }
}

fn entry(old: &str, new: &str) -> Entry {
    Entry { old: at(old), new: at(new), ..Entry::default() }
}

fn own(old: &str, new: &str) -> Entry {
    Entry { own: true, ..entry(old, new) }
}

/// Puts entries and connections into a table.
fn fill(
    table: &Addresses,
    epoch: u32,
    entries: &[Entry],
    one_way: &[Entry],
    connections: &[Connection],
) -> Result<(), TableError> {
    let mut by_new = entries.to_vec();
    by_new.sort_by_key(|entry| entry.new);
    let mut by_old = [entries, one_way].concat();
    by_old.sort_by_key(|entry| entry.old);
    let mut connections = connections.to_vec();
    connections.sort_by_key(|it| it.real);
    table.replace(epoch, &Sorted { ports: Ports::NONE, by_old: &by_old, by_new: &by_new, connections: &connections })
}

fn to_new(table: &Addresses, old: &str) -> Option<SocketAddr> {
    table.read(|table| table.to_new(at(old))).map(|target| target.endpoint.into())
}

fn to_old(table: &Addresses, new: &str) -> Option<SocketAddr> {
    table.read(|table| table.to_old_peer(at(new))).map(Into::into)
}

fn name(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("an address with port"))
}

#[test]
fn exact_entries_come_before_whole_addresses_and_nothing_is_a_chain() {
    static TABLE: Addresses = Addresses::new();
    assert!(!TABLE.is_set());
    assert_eq!((to_new(&TABLE, "10.0.0.1:5000"), to_old(&TABLE, "10.0.0.1:5000")), (None, None));
    let entries = [
        entry("10.0.0.1", "10.0.0.2"),
        entry("10.0.0.2", "10.0.0.1"),
        entry("10.0.0.1:5000", "10.0.0.2:6000"),
        entry("fd00::1", "10.0.0.7"),
    ];
    fill(&TABLE, 3, &entries, &[], &[]).unwrap();
    assert_eq!(TABLE.generation() >> 32, 3);
    for (old, new) in [
        ("10.0.0.1:5000", "10.0.0.2:6000"),
        ("10.0.0.1:5001", "10.0.0.2:5001"),
        ("10.0.0.2:5000", "10.0.0.1:5000"),
        ("10.0.0.2:0", "10.0.0.1:0"),
        ("[fd00::1]:80", "10.0.0.7:80"),
        ("[::ffff:10.0.0.1]:5000", "10.0.0.2:6000"),
    ] {
        assert_eq!(to_new(&TABLE, old), name(new), "{old}");
        assert_eq!(to_old(&TABLE, new), Some(at(old).into()), "{new}");
    }
    assert_eq!((to_new(&TABLE, "10.0.0.3:1"), to_old(&TABLE, "10.0.0.3:1")), (None, None));
}

#[test]
fn virtual_nodes_on_one_host_are_told_apart_by_their_ports() {
    static TABLE: Addresses = Addresses::new();
    let slice = |entry, first, last| Entry { ports: Ports { first, last }, ..entry };
    let entries = [
        slice(own("10.0.0.1", "10.9.9.9"), 10_000, 10_999),
        slice(own("192.168.0.1", "10.9.9.9"), 10_000, 10_999),
        slice(entry("10.0.0.2", "10.9.9.9"), 11_000, 11_999),
        entry("10.0.0.2:5000", "10.9.9.9:5000"),
        own("127.0.0.1", "127.1.0.1"),
        own("0.0.0.0:7000", "0.0.0.0:7001"),
    ];
    let second = Entry { own: true, ..entry("192.168.0.1:7000", "10.9.9.9:7001") };
    let moved = own("10.0.0.1:7000", "10.9.9.9:7001");
    fill(&TABLE, 1, &[&entries[..], &[moved]].concat(), &[second], &[]).unwrap();
    for (new, old) in [
        ("10.9.9.9:10000", "10.0.0.1:10000"),
        ("10.9.9.9:10999", "10.0.0.1:10999"),
        ("10.9.9.9:11000", "10.0.0.2:11000"),
        ("10.9.9.9:5000", "10.0.0.2:5000"),
        ("10.9.9.9:7001", "10.0.0.1:7000"),
        ("10.9.9.9:40000", "10.0.0.1:40000"),
        ("127.1.0.1:99", "127.0.0.1:99"),
        ("0.0.0.0:7001", "0.0.0.0:7000"),
    ] {
        assert_eq!(to_old(&TABLE, new), name(old), "{new}");
    }
    assert_eq!(to_new(&TABLE, "192.168.0.1:7000"), name("10.9.9.9:7001"));
    let of_socket = |new| TABLE.read(|table| table.to_old_own(at(new))).map(SocketAddr::from);
    assert_eq!(of_socket("10.9.9.9:11000"), name("10.0.0.1:11000"), "a socket of this node, whatever its port");
    assert_eq!(of_socket("10.9.9.9:5000"), name("10.0.0.1:5000"));
    let target = |old| TABLE.read(|table| table.to_new(at(old))).map(|target| target.own);
    assert_eq!((target("10.0.0.1:1"), target("10.0.0.2:1"), target("8.8.8.8:53")), (Some(true), Some(false), None));
}

#[test]
fn connections_are_found_by_both_ends() {
    static TABLE: Addresses = Addresses::new();
    let connection =
        |real: [&str; 2], remembered: [&str; 2]| Connection { real: real.map(at), remembered: remembered.map(at) };
    let all = [
        connection(["10.9.9.9:4", "10.9.9.9:3"], ["10.0.0.2:1", "10.0.0.1:1"]),
        connection(["10.9.9.9:3", "10.9.9.9:4"], ["10.0.0.1:1", "10.0.0.2:1"]),
        connection(["[fd00::9]:3", "[fd00::9]:4"], ["[fd00::1]:1", "[fd00::2]:2"]),
    ];
    fill(&TABLE, 1, &[], &[], &all).unwrap();
    for it in &all {
        assert_eq!(TABLE.read(|table| table.connection(it.real)), Some(it.remembered));
    }
    assert_eq!(TABLE.read(|table| table.connection(["10.9.9.9:4", "10.9.9.9:4"].map(at))), None);
    let twice = fill(&TABLE, 1, &[], &[], &[all[0], all[0]]).unwrap_err();
    assert_eq!(twice.to_string(), "a connection of 10.9.9.9:4 is entered twice");
    assert!(TABLE.read(|table| table.has_connections()), "what is refused changes nothing");
}

#[test]
fn what_is_no_table_is_refused() {
    static TABLE: Addresses = Addresses::new();
    let refusal = |entries: &[Entry]| fill(&TABLE, 1, entries, &[], &[]).unwrap_err().to_string();
    let twice = [entry("10.0.0.1", "10.0.0.2"), entry("10.0.0.1", "10.0.0.3")];
    assert_eq!(refusal(&twice), "old address 10.0.0.1:0 is entered twice");
    let twice = [entry("10.0.0.1:1", "10.0.0.2:1"), entry("10.0.0.3:2", "10.0.0.2:1")];
    assert_eq!(refusal(&twice), "new address 10.0.0.2:1 is entered twice");
    assert_eq!(refusal(&[entry("[fd00::1]:1", "10.0.0.2")]), "[fd00::1]:1 has a port on one side only");
    let many = |count: usize| -> Vec<Entry> {
        (0..count as u128)
            .map(|it| Endpoint { address: it + 1, port: 0 })
            .map(|it| Entry { old: it, new: it, ..Entry::default() })
            .collect()
    };
    assert_eq!(refusal(&many(ENTRIES + 1)), "8193 addresses are more than 8192");
    assert!(!TABLE.is_set());
    fill(&TABLE, 1, &many(ENTRIES), &[], &[]).unwrap();
    let last = Endpoint { address: ENTRIES as u128, port: 9 };
    assert_eq!(TABLE.read(|table| table.to_new(last)).map(|it| it.endpoint), Some(last));
    let connection = |port: usize| Connection {
        real: [Endpoint { address: 1, port: port as u16 }, Endpoint::default()],
        remembered: <[Endpoint; 2]>::default(),
    };
    let all: Vec<_> = (0..=CONNECTIONS).map(connection).collect();
    assert_eq!(fill(&TABLE, 1, &[], &[], &all), Err(TableError::Connections(CONNECTIONS + 1)));
    fill(&TABLE, 1, &[], &[], &all[1..]).unwrap();
    let table_of = |it: &Connection| TABLE.read(|table| table.connection(it.real));
    assert_eq!((table_of(&all[0]), table_of(&all[CONNECTIONS])), (None, Some(<[Endpoint; 2]>::default())));
}

#[test]
fn each_virtual_node_of_a_host_has_loopback_addresses_of_its_own() {
    let of = |place, old: &str| loopback(place, old.parse().unwrap()).map(|it| it.to_string());
    assert_eq!(of(0, "127.0.0.1").as_deref(), Some("127.0.0.1"));
    assert_eq!(of(3, "127.0.0.1").as_deref(), Some("127.3.0.1"));
    assert_eq!(of(255, "127.0.1.1").as_deref(), Some("127.255.1.1"));
    assert_eq!(of(3, "::1").as_deref(), Some("::ffff:127.3.255.1"));
    assert_eq!(of(0, "::1").as_deref(), Some("::1"));
    assert_eq!((of(3, "127.4.0.1"), of(3, "10.0.0.1"), of(3, "fd00::1")), (None, None, None));
    let endpoint = at("127.3.0.1:1");
    assert!(endpoint.is_v4_loopback() && !at("::1").is_v4_loopback() && !at("128.0.0.1").is_v4_loopback());
}

#[test]
fn a_reader_sees_one_table_or_the_other() {
    static TABLE: Addresses = Addresses::new();
    /// Each table maps all addresses to those of one network, so that a mixture shows.
    fn network(number: u32) -> Vec<Entry> {
        let address = |network: u32, host: u32| IpAddr::from(Ipv4Addr::from_bits(network << 16 | host)).into();
        (0..200).map(|host| Entry { old: address(10, host), new: address(number, host), ..Entry::default() }).collect()
    }
    fill(&TABLE, 1, &network(20), &[], &[]).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..2000 {
                fill(&TABLE, 1, &network(20 + number % 50), &[], &[]).unwrap();
            }
        });
        while !writer.is_finished() {
            let networks = TABLE.read(|table| {
                let new =
                    |host: u32| table.to_new(Endpoint::from(IpAddr::from(Ipv4Addr::from_bits((10 << 16) | host))));
                [0, 77, 199].map(|host| new(host).and_then(|it| it.endpoint.v4()).map(|it| it >> 16))
            });
            assert!(networks[0].is_some() && networks.iter().all(|it| *it == networks[0]), "{networks:?}");
        }
    });
}

/// Addresses and ports from so few that they meet.
fn endpoint(ports: std::ops::Range<u16>) -> impl Strategy<Value = Endpoint> {
    let address =
        prop_oneof![(0_u128..6).prop_map(|it| 0xffff_0a00_0000 + it), (0_u128..6).prop_map(|it| 0xfd00 << 112 | it)];
    (address, ports).prop_map(|(address, port)| Endpoint { address, port })
}

proptest! {
    #[test]
    fn old_to_new_to_old_is_the_identity(
        exact in prop::collection::vec((endpoint(1..9), endpoint(1..9)), 0..40),
        whole in prop::collection::vec((endpoint(0..1), endpoint(0..1)), 0..12),
        probes in prop::collection::vec(endpoint(1..9), 40),
    ) {
        static TABLE: Mutex<Addresses> = Mutex::new(Addresses::new());
        // A bijection of what was drawn.
        let (mut olds, mut news) = (BTreeSet::new(), BTreeSet::new());
        let mut entries = Vec::new();
        for (old, new) in exact.iter().chain(&whole).copied() {
            if !olds.contains(&old) && !news.contains(&new) {
                olds.insert(old);
                news.insert(new);
                entries.push(Entry { old, new, ..Entry::default() });
            }
        }
        let table = TABLE.lock().unwrap();
        fill(&table, 1, &entries, &[], &[]).unwrap();
        let exact_news: BTreeMap<Endpoint, Endpoint> =
            entries.iter().filter(|it| it.new.port != 0).map(|it| (it.new, it.old)).collect();
        for entry in &entries {
            prop_assert_eq!(table.read(|table| table.to_new(entry.old)).map(|it| it.endpoint), Some(entry.new));
            prop_assert_eq!(table.read(|table| table.to_old_peer(entry.new)), Some(entry.old));
        }
        for old in probes.into_iter().chain(olds.iter().copied()) {
            let Some(target) = table.read(|table| table.to_new(old)) else {
                prop_assert!(!olds.contains(&old) && !olds.contains(&old.whole()));
                continue;
            };
            // A port to which another one was moved is hidden by that (rule 3).
            let expected = exact_news.get(&target.endpoint).copied().unwrap_or(old);
            prop_assert_eq!(table.read(|table| table.to_old_peer(target.endpoint)), Some(expected));
        }
    }

    #[test]
    fn names_are_what_they_were(address in any::<u128>(), port in any::<u16>()) {
        for address in [address, 0xffff_0000_0000 | address & 0xffff_ffff] {
            let endpoint = Endpoint { address, port };
            prop_assert_eq!(Endpoint::from(SocketAddr::from(endpoint)), endpoint);
        }
    }
}
