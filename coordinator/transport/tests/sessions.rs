//! What a session keeps its word about: every message once and in order, whatever becomes of connections.

mod common;

use std::cell::Cell;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coordinator_transport::limits::{INBOX_BYTES_MAX, MESSAGE_BYTES_MAX, OUTBOX_BYTES_MAX};
use coordinator_transport::{
    Client, ClientEvent, ClientOptions, Keys, RecvError, SendError, Server, ServerEvent, ServerOptions, bind,
};

use common::relay::{Relay, Weather};
use common::*;

/// How long a look at one side keeps from the other.
const POLL: Duration = Duration::from_millis(5);

/// Messages with numbers, so that a missing, double or early one is seen.
fn numbered(number: u32) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(4 + (number as usize * 37) % 3000, 7);
    bytes
}

#[test]
fn a_hello_a_welcome_and_messages_both_ways() {
    let keys = Keys::make("job-1").expect("keys");
    let (server, events) = serve(&keys, LONG);
    let (client, client_events) = join(&keys.join_file(vec![server.local_address()]), "node 3", LONG);
    let peer = match next(&events) {
        ServerEvent::Joined { peer, hello, from } => {
            assert_eq!((hello.as_slice(), from.ip().is_loopback()), (&b"node 3"[..], true));
            peer
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(client.send(b"early"), Err(SendError::NoSession));
    assert_eq!(server.send(peer, b"early"), Err(SendError::NoSession));
    server.answer(peer, Ok(b"come in".to_vec())).expect("the first answer");
    assert_eq!(server.answer(peer, Ok(Vec::new())), Err(SendError::Over), "it was answered");
    server.send(peer, b"one").expect("room");
    assert_eq!(next(&client_events), ClientEvent::Welcomed { welcome: b"come in".to_vec(), fresh: true });
    assert_eq!(next(&client_events), ClientEvent::Message { bytes: b"one".to_vec() });
    client.send(b"two").expect("room");
    client.send(b"").expect("room");
    assert_eq!(next(&events), ServerEvent::Message { peer, bytes: b"two".to_vec() });
    assert_eq!(next(&events), ServerEvent::Message { peer, bytes: Vec::new() });
}

#[test]
fn what_was_sent_before_the_end_arrives_before_it() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, LONG);
    let address = served.0.local_address();
    let ((client, client_events), peer) = pair(&keys, &served, address, LONG);
    let (server, events) = served;
    (0..100).for_each(|number| client.send(&numbered(number)).expect("room"));
    assert!(client.finish(PATIENCE));
    (0..100).for_each(|number| assert_eq!(message(&events), numbered(number)));
    assert_eq!(next(&events), ServerEvent::Left { peer });
    assert_eq!(server.send(peer, b"x"), Err(SendError::Over));
    assert_eq!(client_events.recv(), Err(RecvError));

    let served = (server, events);
    let ((client, client_events), peer) = pair(&keys, &served, address, LONG);
    (0..100).for_each(|number| served.0.send(peer, &numbered(number)).expect("room"));
    served.0.close(peer);
    (0..100).for_each(|number| assert_eq!(client_message(&client_events), numbered(number)));
    assert_eq!(next(&client_events), ClientEvent::Ended);
    assert_eq!(client_events.recv(), Err(RecvError));
    assert_eq!(client.send(b"x"), Err(SendError::Over));

    let ((_client, client_events), _) = pair(&keys, &served, address, LONG);
    assert_eq!(served.0.finish(PATIENCE), 0);
    assert_eq!(next(&client_events), ClientEvent::Ended);
}

#[test]
fn who_is_turned_away_reads_why_and_does_not_come_again() {
    let keys = Keys::make("job").expect("keys");
    let (server, events) = serve(&keys, LONG);
    let (client, client_events) = join(&keys.join_file(vec![server.local_address()]), "old", LONG);
    server.answer(joined(&events), Err("version 1 is too old".to_owned())).expect("the first answer");
    assert_eq!(next(&client_events), ClientEvent::TurnedAway { reason: "version 1 is too old".to_owned() });
    assert_eq!(client_events.recv(), Err(RecvError));
    assert_eq!(client.send(b"x"), Err(SendError::Over));
    assert_eq!(server.finish(PATIENCE), 0);
    assert_eq!(events.recv(), Err(RecvError), "a peer that was turned away makes no other event");
}

/// What has come to one side.
#[derive(Default)]
struct Seen {
    messages: Vec<Vec<u8>>,
    broken: u32,
    back: u32,
}

impl Seen {
    fn at_server(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Message { bytes, .. } => self.messages.push(bytes),
            ServerEvent::Broken { .. } => self.broken += 1,
            ServerEvent::Back { .. } => self.back += 1,
            other => panic!("{other:?}"),
        }
    }

    fn at_client(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Message { bytes } => self.messages.push(bytes),
            ClientEvent::Broken { .. } => self.broken += 1,
            ClientEvent::Welcomed { fresh: false, welcome } => {
                assert_eq!(welcome, b"welcome");
                self.back += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bad_weather_and_breaks_lose_and_double_nothing() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, LONG);
    let relay = Relay::new(served.0.local_address(), 4);
    let ((client, client_events), peer) = pair(&keys, &served, relay.address, LONG);
    relay.weather(Weather { lost: 30, doubled: 50, held: 50 });
    let (server, events) = served;
    let (mut here, mut there) = (Seen::default(), Seen::default());
    for round in 0..4 {
        // In the middle of what is sent: later in each round.
        relay.cut_after(20 + 40 * u64::from(round));
        for number in round * 200..(round + 1) * 200 {
            client.send(&numbered(number)).expect("room");
            server.send(peer, &numbered(number)).expect("room");
        }
        while !relay.is_cut() || here.broken == here.back || there.broken == there.back {
            events.recv_timeout(POLL).into_iter().for_each(|event| here.at_server(event));
            client_events.recv_timeout(POLL).into_iter().for_each(|event| there.at_client(event));
        }
        relay.cut(false);
    }
    while here.messages.len() < 800 {
        here.at_server(next(&events));
    }
    while there.messages.len() < 800 {
        there.at_client(next(&client_events));
    }
    assert!(here.broken >= 4 && there.broken >= 4);
    (0..800).zip(&here.messages).for_each(|(number, bytes)| assert_eq!(*bytes, numbered(number)));
    (0..800).zip(&there.messages).for_each(|(number, bytes)| assert_eq!(*bytes, numbered(number)));
}

#[test]
fn a_cut_longer_than_the_timeout_ends_the_session_on_both_sides_and_another_begins() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, SHORT);
    let relay = Relay::new(served.0.local_address(), 1);
    let ((client, client_events), peer) = pair(&keys, &served, relay.address, SHORT);
    let (server, events) = served;
    relay.cut(true);
    client.send(b"into the void").expect("room");
    assert!(matches!(next(&client_events), ClientEvent::Broken { .. }));
    assert!(matches!(next(&events), ServerEvent::Broken { .. }));
    client.send(b"into the void, too").expect("a broken session takes messages");
    assert!(matches!(next(&client_events), ClientEvent::Lost { .. }));
    assert!(matches!(next(&events), ServerEvent::Lost { peer: lost, .. } if lost == peer));
    assert_eq!(client.send(b"x"), Err(SendError::NoSession));
    assert_eq!(server.send(peer, b"x"), Err(SendError::Over));
    relay.cut(false);
    let again = welcome(&server, &events, b"again");
    assert_ne!(again, peer);
    assert_eq!(next(&client_events), ClientEvent::Welcomed { welcome: b"again".to_vec(), fresh: true });
    client.send(b"news").expect("room");
    assert_eq!(message(&events), b"news", "nothing of the old session");
}

#[test]
fn a_server_started_anew_on_the_same_port_gets_a_fresh_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    Keys::make("job").expect("keys").write(&path).expect("written");
    let options = || ServerOptions { timeout: LONG, idle: LONG, ..ServerOptions::default() };
    let served = Server::start(socket(), &Keys::read(&path).expect("read"), options()).expect("a server");
    let address = served.0.local_address();
    let relay = Relay::new(address, 1);
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let hello = move || counter.fetch_add(1, Ordering::SeqCst).to_le_bytes().to_vec();
    let join = Keys::read(&path).expect("read").join_file(vec![relay.address]);
    let patient = ClientOptions { idle: LONG, ..client_options(LONG) };
    let (client, client_events) = Client::start(&join, hello, patient).expect("a client");
    welcome(&served.0, &served.1, b"first");
    assert_eq!(next(&client_events), ClientEvent::Welcomed { welcome: b"first".to_vec(), fresh: true });
    // As if it was killed: it says nothing any more.
    relay.cut(true);
    client.send(b"never seen").expect("room");
    drop(served);
    let socket = std::net::UdpSocket::bind(address).expect("the same port");
    let (server, events) = Server::start(socket, &Keys::read(&path).expect("read"), options()).expect("a server");
    relay.cut(false);
    // It has the old one's keys, so it can say at once that it does not know the connection.
    match next(&client_events) {
        ClientEvent::Broken { reason } => assert!(reason.ends_with("(started anew)"), "{reason}"),
        other => panic!("{other:?}"),
    }
    match next(&events) {
        ServerEvent::Joined { peer, hello, .. } => {
            assert_eq!(hello, (asked.load(Ordering::SeqCst) - 1).to_le_bytes(), "it was asked for this session");
            server.answer(peer, Ok(b"second".to_vec())).expect("the first answer");
        }
        other => panic!("{other:?}"),
    }
    // Whether the session is there by now or not: as long as the caller does not know, it means the old one.
    assert_eq!(client.send(b"for the old one"), Err(SendError::NoSession));
    assert_eq!(next(&client_events), ClientEvent::Welcomed { welcome: b"second".to_vec(), fresh: true });
    client.send(b"for the new one").expect("room");
    assert_eq!(message(&events), b"for the new one");
}

#[test]
fn a_server_that_goes_in_order_is_found_again_at_once() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, LONG);
    let address = served.0.local_address();
    let ((_client, client_events), _) = pair(&keys, &served, address, LONG);
    drop(served);
    assert!(matches!(next(&client_events), ClientEvent::Broken { reason } if reason == "it went away"));
    let (server, events) = serve_on(std::net::UdpSocket::bind(address).expect("the same port"), &keys, LONG);
    welcome(&server, &events, b"second");
    assert_eq!(next(&client_events), ClientEvent::Welcomed { welcome: b"second".to_vec(), fresh: true });
}

#[test]
fn a_client_started_anew_joins_anew_and_the_old_one_is_lost() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, SHORT);
    let address = served.0.local_address();
    let (old, first) = pair(&keys, &served, address, SHORT);
    drop(old);
    let ((client, _client_events), second) = pair(&keys, &served, address, SHORT);
    let lost = expect(&served.1, |event| match event {
        ServerEvent::Lost { peer, .. } => Some(*peer),
        _ => None,
    });
    assert_eq!((lost, lost == second), (first, false));
    client.send(b"still here").expect("room");
    assert_eq!(message(&served.1), b"still here");
}

#[test]
fn a_long_message_arrives_and_a_longer_one_is_not_taken() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, LONG);
    let address = served.0.local_address();
    let ((client, client_events), peer) = pair(&keys, &served, address, LONG);
    let mut long: Vec<u8> = (0..MESSAGE_BYTES_MAX).map(|at| (at * at / 7) as u8).collect();
    client.send(&long).expect("room");
    served.0.send(peer, &long).expect("room");
    assert!(message(&served.1) == long);
    assert!(client_message(&client_events) == long);
    long.push(0);
    assert_eq!(client.send(&long), Err(SendError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
    assert_eq!(served.0.send(peer, &long), Err(SendError::TooLong { bytes: MESSAGE_BYTES_MAX + 1 }));
}

#[test]
fn who_does_not_take_its_messages_slows_the_sender_and_nobody_else() {
    let keys = Keys::make("job").expect("keys");
    let served = serve(&keys, LONG);
    let address = served.0.local_address();
    let ((slow, slow_events), peer) = pair(&keys, &served, address, LONG);
    let ((_other, other_events), other_peer) = pair(&keys, &served, address, LONG);
    // As much as fits into its outbox here and its inbox there, with a part on the way.
    let part = |number: u32| [&number.to_le_bytes()[..], &[1; (1 << 20) - 4]].concat();
    let most = (OUTBOX_BYTES_MAX + INBOX_BYTES_MAX + MESSAGE_BYTES_MAX) >> 20;
    let sent = Cell::new(0);
    let more = || {
        let taken = served.0.send(peer, &part(sent.get())).is_ok();
        sent.set(sent.get() + u32::from(taken));
        taken
    };
    until("what it does not take is on its side", || {
        !more() && sent.get() as usize >= ((INBOX_BYTES_MAX + OUTBOX_BYTES_MAX) >> 20) - 2
    });
    for _ in 0..20 {
        more();
        std::thread::sleep(POLL);
    }
    assert!(matches!(served.0.send(peer, &part(0)), Err(SendError::Full { .. })));
    assert!(sent.get() as usize <= most, "{} parts are somewhere", sent.get());
    served.0.send(other_peer, b"and you?").expect("room for others");
    assert_eq!(client_message(&other_events), b"and you?");
    (0..sent.get()).for_each(|number| assert!(client_message(&slow_events) == part(number)));
    until("there is room again", more);
    drop(slow);
}

#[test]
fn both_families_and_addresses_that_lead_nowhere() {
    let keys = Keys::make("job").expect("keys");
    let (server, events) = Server::start(bind(0).expect("a port"), &keys, server_options(LONG)).expect("a server");
    let port = server.local_address().port();
    let nobody = socket();
    let mut addresses = vec![nobody.local_addr().expect("an address"), SocketAddr::from(([127, 0, 0, 1], port))];
    if server.local_address().is_ipv6() {
        addresses.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
    for address in addresses[1..].iter().rev() {
        let joins = [keys.join_file(vec![*address]), keys.join_file(vec![addresses[0], *address])];
        for file in joins {
            let (client, client_events) = join(&file, "agent", LONG);
            let (peer, from) = expect(&events, |event| match event {
                ServerEvent::Joined { peer, from, .. } => Some((*peer, *from)),
                _ => None,
            });
            assert_eq!(from.ip(), address.ip(), "an IPv4 address looks like one");
            server.answer(peer, Ok(Vec::new())).expect("the first answer");
            assert!(matches!(next(&client_events), ClientEvent::Welcomed { .. }));
            assert!(client.finish(PATIENCE));
        }
    }
    assert!(Client::start(&keys.join_file(Vec::new()), Vec::new, client_options(LONG)).is_err());
}

#[test]
fn a_client_whom_nobody_answers_says_so_and_goes_on_looking() {
    let keys = Keys::make("job").expect("keys");
    let silent = socket();
    let address = silent.local_addr().expect("an address");
    let (_client, client_events) = join(&keys.join_file(vec![address]), "agent", SHORT);
    match next(&client_events) {
        ClientEvent::Lost { reason } => assert!(reason.ends_with("did not answer"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(silent);
    let socket = std::net::UdpSocket::bind(address).expect("the same port");
    let (server, events) = serve_on(socket, &keys, LONG);
    welcome(&server, &events, b"late");
    assert_eq!(next(&client_events), ClientEvent::Welcomed { welcome: b"late".to_vec(), fresh: true });
}
