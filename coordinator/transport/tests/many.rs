//! Two hundred at once, and a coordinator that is killed under them.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use coordinator_transport::{ClientEvent, Keys, Peer, ServerEvent};

use common::*;

/// Tells the process that [`echo_server`] is meant: the folder of its keys, and the port.
const SERVER: &str = "TRANSPORT_TEST_SERVER";

#[test]
fn two_hundred_clients_at_once() {
    const CLIENTS: usize = 200;
    const ROUNDS: usize = 5;
    let keys = Keys::make("job").expect("keys");
    let (server, events) = serve(&keys, LONG);
    let file = keys.join_file(vec![server.local_address()]);
    let clients: Vec<Joined> = (0..CLIENTS).map(|number| join(&file, &number.to_string(), LONG)).collect();
    let mut peers: HashMap<Peer, String> = HashMap::new();
    while peers.len() < CLIENTS {
        let (peer, hello) = expect(&events, |event| match event {
            ServerEvent::Joined { peer, hello, .. } => Some((*peer, String::from_utf8_lossy(hello).into_owned())),
            _ => None,
        });
        server.answer(peer, Ok(hello.clone().into_bytes())).expect("the first answer");
        assert_eq!(peers.insert(peer, hello), None);
    }
    for (number, (_, events)) in clients.iter().enumerate() {
        let welcome = ClientEvent::Welcomed { welcome: number.to_string().into_bytes(), fresh: true };
        assert_eq!(next(events), welcome);
    }
    // Barriers: all say something, then all are told something.
    for round in 0..ROUNDS {
        let text = |who: &str| format!("{who} in {round}").into_bytes();
        for (number, (client, _)) in clients.iter().enumerate() {
            client.send(&text(&number.to_string())).expect("room");
        }
        for _ in 0..CLIENTS {
            let (peer, bytes) = expect(&events, |event| match event {
                ServerEvent::Message { peer, bytes } => Some((*peer, bytes.clone())),
                _ => None,
            });
            assert_eq!(bytes, text(&peers[&peer]));
        }
        for peer in peers.keys() {
            server.send(*peer, &text("go")).expect("room");
        }
        clients.iter().for_each(|(_, events)| assert_eq!(client_message(events), text("go")));
    }
    assert_eq!(server.finish(PATIENCE), 0);
}

/// Kills it when the test is over, too.
struct Process(Child);

impl Process {
    fn start(folder: &Path, port: u16) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "echo_server", "--ignored", "--nocapture"])
            .env(SERVER, format!("{}:{port}", folder.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("it listens"))), "it does not listen");
        // What the test program says at its end must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("dead");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coordinator that lets everybody in and gives back what it gets, until its standard input ends.
#[test]
#[ignore = "a program of the test below"]
fn echo_server() {
    let Ok(what) = std::env::var(SERVER) else { return };
    let (folder, port) = what.rsplit_once(':').expect("folder:port");
    let keys = Keys::read(&Path::new(folder).join("keys")).expect("keys");
    let socket = UdpSocket::bind(("127.0.0.1", port.parse().expect("a port"))).expect("the port");
    let (server, events) = serve_on(socket, &keys, LONG);
    println!("it listens");
    std::io::stdout().flush().expect("told");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    for event in events.iter() {
        match event {
            ServerEvent::Joined { peer, .. } => server.answer(peer, Ok(Vec::new())).expect("the first answer"),
            ServerEvent::Message { peer, bytes } => server.send(peer, &bytes).expect("room"),
            _ => {}
        }
    }
}

#[test]
fn a_coordinator_that_is_killed_and_started_anew_is_found_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = Keys::make("job").expect("keys");
    keys.write(&folder.path().join("keys")).expect("written");
    let port = socket().local_addr().expect("an address").port();
    let file = keys.join_file(vec![([127, 0, 0, 1], port).into()]);
    let mut process = Process::start(folder.path(), port);
    let clients: Vec<Joined> = (0..20).map(|number| join(&file, &number.to_string(), LONG)).collect();
    for life in 0..3_u8 {
        for (client, events) in &clients {
            let fresh = |event: &ClientEvent| match event {
                ClientEvent::Welcomed { fresh, .. } => Some(*fresh),
                ClientEvent::Lost { .. } => panic!("{event:?}"),
                _ => None,
            };
            assert!(expect(events, fresh), "another process knows no session");
            client.send(&[life]).expect("room");
            assert_eq!(client_message(events), [life]);
        }
        process.kill();
        process = Process::start(folder.path(), port);
    }
}
