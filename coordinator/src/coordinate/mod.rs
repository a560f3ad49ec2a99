//! The coordinator: a process of its own beside the agent of the first node, from the moment when there is a second node.
//!
//! ```text
//! ask       the agent of the first node hands on what `ckpt` and `ckpt-rsh` want     (Unix socket in the job's folder)
//! network   agents of all nodes, the first one's too                                 (QUIC)
//! nodes     which there are · launch  daemons of launchers, and agents for new hosts
//! ```
//!
//! It may be killed: its guardian starts another, which has the same keys and the same port; agents find it again.

use std::error::Error;
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use coordinator_protocol::node::{Order, Report};
use coordinator_transport::{Server, ServerEvent};
use node_agent::guardian::Life;

mod asks;
mod events;
mod hosts;
mod launch;
mod network;
mod nodes;

use events::Event;
use launch::Launches;
use nodes::Nodes;

/// Name of the coordinator in ps(1).
const NAME: &std::ffi::CStr = c"ckpt-coordinator";
/// How long other nodes may take to say that the job is over there.
const NODES_END: Duration = Duration::from_secs(10);
/// How long the last words may take to be received.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// All of a coordinator's life, in the process that the guardian has forked for it.
pub fn main(life: &Life) -> ! {
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(NAME);
    events::leave_streams();
    let code = match Coordinator::begin(life).map(Coordinator::run) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: the coordinator: {error}", life.tool);
            1
        }
    };
    std::process::exit(code)
}

/// What the coordinator's one thread owns.
struct Coordinator<'life> {
    life: &'life Life,
    server: Server,
    events: Receiver<Event>,
    nodes: Nodes,
    launches: Launches,
}

impl<'life> Coordinator<'life> {
    fn begin(life: &'life Life) -> Result<Self, Box<dyn Error>> {
        let (sender, events) = mpsc::channel();
        let (server, join) = network::start(life, &sender)?;
        asks::listen(life, &sender)?;
        events::watch(life, &sender)?;
        Ok(Self { life, server, events, nodes: Nodes::default(), launches: Launches::new(life, join, sender) })
    }

    fn run(mut self) {
        loop {
            match self.events.recv() {
                Ok(Event::Network(event)) => self.note(event),
                Ok(Event::Launch { stream, host, options, line }) => {
                    let orders = self.launches.ask(&mut self.nodes, stream, &host, &options, &line);
                    self.send(orders);
                }
                Ok(Event::Started { node, result }) => self.launches.note_start(&mut self.nodes, node, result),
                Ok(Event::Checkpoint { stream }) => asks::refuse(&stream, "checkpoints of several nodes: not yet"),
                Ok(Event::Over) | Err(_) => return self.end(),
            }
        }
    }

    fn send(&self, orders: Vec<(u32, Order)>) {
        for (node, order) in orders {
            network::send(&self.server, &self.nodes, node, &order);
        }
    }

    fn note(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Joined { peer, hello, .. } => {
                let answer = self.nodes.join(peer, &hello, &self.life.record.job);
                let node = answer.as_ref().ok().copied();
                network::answer(&self.server, peer, answer.map(drop));
                if let Some(node) = node {
                    let orders = self.launches.note_join(&self.nodes, node);
                    self.send(orders);
                }
            }
            ServerEvent::Message { peer, bytes } => {
                if let (Some(node), Some(report)) = (self.nodes.of(peer), network::report(&bytes)) {
                    self.note_report(node, report);
                }
            }
            ServerEvent::Lost { peer, reason } => {
                if let Some((node, host)) = self.nodes.lose(peer) {
                    self.say(&format!("{host} (node {node}) is lost: {reason}"));
                }
            }
            ServerEvent::Left { peer } => drop(self.nodes.lose(peer)),
            ServerEvent::Refused { from, reason, count } => {
                self.say(&format!("refused {count} connections, the last from {from}: {reason}"));
            }
            ServerEvent::Broken { .. } | ServerEvent::Back { .. } => {}
        }
    }

    fn note_report(&mut self, node: u32, report: Report) {
        match report {
            Report::Launched { id, .. } => self.launches.note_launched(id),
            Report::LaunchFailed { id, reason } => self.launches.note_failed(id, &reason),
            Report::Ended { id, status } => self.launches.note_end(id, status),
            Report::RankLost { pid, signal, command } => {
                let host = self.nodes.host(node);
                self.say(&format!("rank {command} with pid {pid} on {host} died by signal {signal}"));
            }
            _ => {}
        }
    }

    /// The job is over: on all other nodes, too.
    fn end(mut self) {
        let others: Vec<u32> = self.nodes.others().collect();
        let reason = "the job has ended".to_owned();
        self.send(others.into_iter().map(|node| (node, Order::End { reason: reason.clone() })).collect());
        let until = Instant::now() + NODES_END;
        while self.nodes.others().next().is_some() && Instant::now() < until {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Network(event)) => self.note(event),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        for node in self.nodes.others() {
            self.say(&format!("{} (node {node}) has not said that the job is over there", self.nodes.host(node)));
        }
        // Who has not heard the last words by then ends by its own time-out.
        let _ = self.server.finish(LAST_WORDS);
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.life.tool);
    }
}

/// For map_err.
fn in_words(deed: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("cannot {deed}: {error}")
}
