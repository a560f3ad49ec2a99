//! What the transport costs on this machine's loopback: `cargo run --release -p coordinator-transport --example measure`.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coordinator_transport::{Client, ClientEvent, ClientOptions, JoinFile, Keys, Receiver, Server, ServerEvent};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Repetitions of what takes below a millisecond.
const MANY: usize = 2000;
/// Repetitions of what takes longer.
const FEW: usize = 50;
/// Longest wait for the end of a session.
const FAREWELL: Duration = Duration::from_secs(10);
/// Agents whose memory is measured.
const AGENTS: usize = 500;

fn main() -> Outcome<()> {
    if let Some(file) = std::env::args().nth(1) {
        return agents(Path::new(&file));
    }
    let make = times(FEW, || Ok(Keys::make("job")?))?;
    println!("Keys::make                            {make}");
    let keys = Keys::make("job")?;
    let (server, events) = Server::start(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, &keys, Default::default())?;
    let address = server.local_address();
    let file = keys.join_file(vec![address]);
    let echo = std::thread::spawn(move || {
        echo(&server, &events);
        server.finish(FAREWELL)
    });
    measure_clients(&file)?;
    echo.join().map_err(|_| "the server's thread is gone")?;
    memory(&keys)
}

/// Lets everybody in and gives back what it gets, until one of them leaves in order.
fn echo(server: &Server, events: &Receiver<ServerEvent>) {
    for event in events.iter() {
        let taken = match event {
            ServerEvent::Joined { peer, .. } => server.answer(peer, Ok(Vec::new())),
            ServerEvent::Message { peer, bytes } => server.send(peer, &bytes),
            ServerEvent::Left { .. } => return,
            _ => Ok(()),
        };
        if let Err(cause) = taken {
            eprintln!("{cause}");
        }
    }
}

fn measure_clients(file: &JoinFile) -> Outcome<()> {
    let joined = times(FEW, || join(file))?;
    println!("thread, socket, handshake, welcome    {joined}");
    let (client, events) = join(file)?;
    for bytes in [100, 10_000, 1_000_000] {
        let message = vec![7; bytes];
        let count = if bytes > 100_000 { FEW } else { MANY };
        let there_and_back = times(count, || {
            client.send(&message)?;
            Ok(events.recv()?)
        })?;
        println!("{bytes:>7} bytes there and back         {there_and_back}");
    }
    if !client.finish(FAREWELL) {
        return Err("the server has not heard the end".into());
    }
    Ok(())
}

fn join(file: &JoinFile) -> Outcome<(Client, Receiver<ClientEvent>)> {
    let (client, events) = Client::start(file, Vec::new, ClientOptions::default())?;
    match events.recv()? {
        ClientEvent::Welcomed { .. } => Ok((client, events)),
        other => Err(format!("{other:?}").into()),
    }
}

/// The server's memory for each agent; the agents are in a process of their own.
fn memory(keys: &Keys) -> Outcome<()> {
    let path = std::env::temp_dir().join(format!("measure-{}.join", std::process::id()));
    let (server, events) = Server::start(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, keys, Default::default())?;
    keys.join_file(vec![SocketAddr::from(([127, 0, 0, 1], server.local_address().port()))]).write(&path)?;
    let before = resident_kb()?;
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?).arg(&path).stdin(Stdio::piped()).spawn()?;
    let (mut here, mut seen) = (0, Vec::new());
    while here < AGENTS {
        match events.recv_timeout(Duration::from_secs(60))? {
            ServerEvent::Joined { peer, .. } => {
                server.answer(peer, Ok(Vec::new()))?;
                here += 1;
            }
            other => seen.push(other),
        }
    }
    println!("{AGENTS} agents of one process joined in      {:.2?} (beside it: {seen:?})", start.elapsed());
    println!("the server's memory for each of them  {} KB", (resident_kb()? - before) / AGENTS as u64);
    drop(child.stdin.take());
    child.wait()?;
    Ok(fs::remove_file(path)?)
}

/// Joins, and stays until standard input ends.
fn agents(file: &Path) -> Outcome<()> {
    let file = JoinFile::read(file)?;
    let start = |_| Client::start(&file, Vec::new, ClientOptions::default());
    let clients = (0..AGENTS).map(start).collect::<Result<Vec<_>, _>>()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // They would be dropped one after the other, each with its farewell.
    std::mem::forget(clients);
    Ok(())
}

fn resident_kb() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Median and 99th percentile, without the time to drop what was made.
fn times<T>(count: usize, mut work: impl FnMut() -> Outcome<T>) -> Outcome<String> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let made = work()?;
        taken.push(start.elapsed());
        drop(made);
    }
    taken.sort();
    Ok(format!("median {:>9.1?}   99 % {:>9.1?}", taken[count / 2], taken[count * 99 / 100]))
}
