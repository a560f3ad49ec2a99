//! Both ends, a network between them that can be broken, and patience.
#![allow(dead_code, reason = "each test program uses its part of it")]

pub mod relay;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use coordinator_transport::{
    Client, ClientEvent, ClientOptions, JoinFile, Keys, Peer, Receiver, Server, ServerEvent, ServerOptions,
};

/// Nothing here takes that long, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Served = (Server, Receiver<ServerEvent>);
pub type Joined = (Client, Receiver<ClientEvent>);

/// The time-out of sessions in tests that lose one.
pub const SHORT: Duration = Duration::from_secs(2);
/// In tests that must not lose one.
pub const LONG: Duration = Duration::from_secs(45);

pub fn server_options(timeout: Duration) -> ServerOptions {
    ServerOptions { timeout, idle: Duration::from_secs(1), ..ServerOptions::default() }
}

pub fn client_options(timeout: Duration) -> ClientOptions {
    ClientOptions { timeout, idle: Duration::from_secs(1), keep_alive: Duration::from_millis(100) }
}

pub fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port")
}

pub fn serve(keys: &Keys, timeout: Duration) -> Served {
    serve_on(socket(), keys, timeout)
}

pub fn serve_on(socket: UdpSocket, keys: &Keys, timeout: Duration) -> Served {
    Server::start(socket, keys, server_options(timeout)).expect("a server")
}

pub fn join(join: &JoinFile, hello: &str, timeout: Duration) -> Joined {
    let hello = hello.as_bytes().to_vec();
    Client::start(join, move || hello.clone(), client_options(timeout)).expect("a client")
}

/// A client that is let in; what it is called at the server.
pub fn pair(keys: &Keys, (server, events): &Served, address: SocketAddr, timeout: Duration) -> (Joined, Peer) {
    let (client, client_events) = join(&keys.join_file(vec![address]), "agent", timeout);
    let peer = welcome(server, events, b"welcome");
    expect(&client_events, |event| matches!(event, ClientEvent::Welcomed { fresh: true, .. }).then_some(()));
    ((client, client_events), peer)
}

/// Lets the next one in.
pub fn welcome(server: &Server, events: &Receiver<ServerEvent>, with: &[u8]) -> Peer {
    let peer = joined(events);
    server.answer(peer, Ok(with.to_vec())).expect("it was not answered yet");
    peer
}

/// Somebody with something to say of itself wants in.
pub fn joined(events: &Receiver<ServerEvent>) -> Peer {
    expect(events, |event| match event {
        ServerEvent::Joined { peer, hello, .. } if !hello.is_empty() => Some(*peer),
        _ => None,
    })
}

/// The first event that is looked for; others on the way there are not.
pub fn expect<E: std::fmt::Debug, T>(events: &Receiver<E>, look: impl Fn(&E) -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    let mut others = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(event) => match look(&event) {
                Some(found) => return found,
                None => others.push(event),
            },
            Err(cause) => panic!("{cause}; there were only {others:?}"),
        }
    }
}

pub fn next<E>(events: &Receiver<E>) -> E {
    events.recv_timeout(PATIENCE).expect("another event")
}

/// The next message at the server.
pub fn message(events: &Receiver<ServerEvent>) -> Vec<u8> {
    expect(events, |event| match event {
        ServerEvent::Message { bytes, .. } => Some(bytes.clone()),
        ServerEvent::Lost { .. } | ServerEvent::Joined { .. } => panic!("{event:?}"),
        _ => None,
    })
}

/// The next message at the client.
pub fn client_message(events: &Receiver<ClientEvent>) -> Vec<u8> {
    expect(events, |event| match event {
        ClientEvent::Message { bytes } => Some(bytes.clone()),
        ClientEvent::Lost { .. } | ClientEvent::Welcomed { fresh: true, .. } => panic!("{event:?}"),
        _ => None,
    })
}

/// The reason of the next refusal.
pub fn refused(events: &Receiver<ServerEvent>) -> String {
    expect(events, |event| match event {
        ServerEvent::Refused { reason, .. } => Some(reason.clone()),
        _ => None,
    })
}

/// Waits until something holds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
