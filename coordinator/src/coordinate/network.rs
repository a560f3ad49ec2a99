//! The coordinator's end of the network.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use coordinator_transport::{JoinFile, Keys, Server, ServerOptions, bind};
use node_agent::addresses;
use node_agent::guardian::Life;
use node_agent::link::Join;

use super::events::Event;
use super::in_words;

/// The job's keys, in its folder.
const KEYS: &str = "keys.json";
/// A session without a connection for this long is over; its agent begins another when it can.
const SESSION: Duration = Duration::from_secs(10);

/// Listens, with the keys and on the port of an earlier coordinator where there was one; writes the join file of the first
/// node's agent. Returns what other nodes need to join.
pub fn start(life: &Life, to: &Sender<Event>) -> Result<(Server, JoinFile), Box<dyn Error>> {
    let path = life.folder.path().join(KEYS);
    let before = Join::read(life.folder.path()).map_err(in_words("read the join file"))?;
    let keys = match path.exists() {
        true => Keys::read(&path)?,
        false => {
            let keys = Keys::make(&life.record.job)?;
            keys.write(&path)?;
            keys
        }
    };
    let port = before.and_then(|it| Some(it.reach.addresses.first()?.port())).unwrap_or(0);
    let (server, events) =
        Server::start(bind(port)?, &keys, ServerOptions { timeout: SESSION, ..ServerOptions::default() })?;
    let to = to.clone();
    thread::spawn(move || events.iter().for_each(|event| drop(to.send(Event::Network(event)))));
    let port = server.local_address().port();
    let addresses = addresses::of_this_host().into_iter().map(|ip| SocketAddr::new(ip, port));
    let (own, others): (Vec<_>, Vec<_>) = addresses.partition(|it| it.ip().is_loopback());
    let record = life.record.clone();
    let reach = keys.join_file(if own.is_empty() { others.clone() } else { own });
    Join { record, reach }.write(life.folder.path()).map_err(in_words("write the join file"))?;
    Ok((server, keys.join_file(others)))
}
