//! A network that loses, doubles, holds back and cuts. Everything goes through it, in both directions.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How soon a thread sees that it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Which way a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How often something happens to a datagram, per thousand.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub lost: u64,
    pub doubled: u64,
    /// Until another one has passed.
    pub held: u64,
}

type Filter = Box<dyn Fn(Way, &[u8]) -> bool + Send>;

pub struct Relay {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    front: UdpSocket,
    end: AtomicBool,
    cut: AtomicBool,
    weather: Mutex<Weather>,
    filter: Mutex<Option<Filter>>,
    passed: AtomicU64,
    cut_at: AtomicU64,
    chance: AtomicU64,
}

impl Relay {
    pub fn new(server: SocketAddr, seed: u64) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        front.set_read_timeout(Some(LOOK)).expect("a time-out");
        let address = front.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            server,
            front,
            end: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            weather: Mutex::default(),
            filter: Mutex::default(),
            passed: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            chance: AtomicU64::new(seed),
        });
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || forward(&own));
        Self { address, shared, thread: Some(thread) }
    }

    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::SeqCst);
    }

    /// Cuts by itself when so many more datagrams have passed.
    pub fn cut_after(&self, datagrams: u64) {
        self.shared.cut_at.store(self.passed() + datagrams, Ordering::SeqCst);
    }

    pub fn is_cut(&self) -> bool {
        self.shared.cut.load(Ordering::SeqCst)
    }

    pub fn weather(&self, weather: Weather) {
        *self.shared.weather.lock().expect("no panic") = weather;
    }

    /// Only what it says true to passes.
    pub fn filter(&self, filter: impl Fn(Way, &[u8]) -> bool + Send + 'static) {
        *self.shared.filter.lock().expect("no panic") = Some(Box::new(filter));
    }

    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn ends(&self) -> bool {
        self.end.load(Ordering::SeqCst)
    }

    /// SplitMix64: what happens is the same for the same seed and the same datagrams.
    fn happens(&self, per_mille: u64) -> bool {
        let state = self.chance.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 1000 < per_mille
    }

    fn pass(&self, way: Way, datagram: &[u8], held: &mut Vec<Vec<u8>>, send: impl Fn(&[u8])) {
        let weather = *self.weather.lock().expect("no panic");
        let filtered = self.filter.lock().expect("no panic").as_ref().is_some_and(|passes| !passes(way, datagram));
        if self.cut.load(Ordering::SeqCst) || filtered || self.happens(weather.lost) {
            return;
        }
        if self.happens(weather.held) {
            return held.push(datagram.to_vec());
        }
        if self.passed.fetch_add(1, Ordering::SeqCst) == self.cut_at.load(Ordering::SeqCst) {
            self.cut.store(true, Ordering::SeqCst);
        }
        send(datagram);
        if self.happens(weather.doubled) {
            send(datagram);
        }
        held.drain(..).for_each(|datagram| send(&datagram));
    }
}

fn forward(shared: &Arc<Shared>) {
    let mut flows: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)> = HashMap::new();
    let (mut buffer, mut held) = (vec![0; 65536], Vec::new());
    while !shared.ends() {
        let Some((length, from)) = receive(&shared.front, &mut buffer) else { continue };
        let (flow, _) = flows.entry(from).or_insert_with(|| open(shared, from));
        shared.pass(Way::ToServer, &buffer[..length], &mut held, |datagram| drop(flow.send(datagram)));
    }
    flows.into_values().for_each(|(_, thread)| drop(thread.join()));
}

/// What comes back to one client.
fn open(shared: &Arc<Shared>, client: SocketAddr) -> (Arc<UdpSocket>, JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.connect(shared.server).expect("a route");
    socket.set_read_timeout(Some(LOOK)).expect("a time-out");
    let socket = Arc::new(socket);
    let (shared, from) = (Arc::clone(shared), Arc::clone(&socket));
    let thread = thread::spawn(move || {
        let (mut buffer, mut held) = (vec![0; 65536], Vec::new());
        while !shared.ends() {
            let Some((length, _)) = receive(&from, &mut buffer) else { continue };
            let send = |datagram: &[u8]| drop(shared.front.send_to(datagram, client));
            shared.pass(Way::ToClient, &buffer[..length], &mut held, send);
        }
    });
    (socket, thread)
}

/// A port where nobody listens (the server is being started anew) is a datagram lost.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(buffer) {
        Ok(received) => Some(received),
        Err(cause) if cause.kind() == ErrorKind::ConnectionRefused => None,
        Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(cause) => panic!("the relay cannot receive: {cause}"),
    }
}
