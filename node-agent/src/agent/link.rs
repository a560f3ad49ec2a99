//! The agent as one of the coordinator's: a client that does what it is told and says what has happened.
//!
//! One thread owns the state; sessions, the guardian's word and finished deeds reach it as inputs of one channel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::node::{Greeting, Hello, NodeId, Order, Report, decode, encode};
use coordinator_transport::{Client, ClientEvent, ClientOptions};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Agent;
use super::serve::lock;
use crate::guardian::Life;
use crate::guardian::daemons::{self, Daemon, LaunchOrder, Start};
use crate::link::Join;

/// How long a coordinator that is being started may take to say how it is reached.
const COMES_UP: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What reaches the link.
enum Input {
    Network(ClientEvent),
    /// The guardian has started daemons, or some have ended.
    Daemons,
}

/// The link's state.
struct Link<'life> {
    life: &'life Life,
    client: Client,
    /// Daemons of which the coordinator has been told, in this session.
    told: BTreeMap<u64, Daemon>,
    welcome: bool,
}

impl Agent<'_> {
    /// Waits until there is a coordinator, then serves it as long as this agent lives.
    pub(super) fn link(&self) {
        let Some(join) = self.wait_for_coordinator() else { return };
        let (inputs, received) = mpsc::channel();
        let life = self.life;
        let hello = hello(life);
        let started = Client::start(&join.reach, move || encode(&hello).unwrap_or_default(), ClientOptions::default());
        let (client, events) = match started {
            Ok(started) => started,
            Err(error) => return eprintln!("{}: cannot look for the coordinator: {error}", life.tool),
        };
        thread::scope(|scope| {
            let network = inputs.clone();
            scope.spawn(move || events.iter().for_each(|event| drop(network.send(Input::Network(event)))));
            scope.spawn(move || watch_guardian(life, &inputs));
            Link { life, client, told: BTreeMap::new(), welcome: false }.run(&received);
        });
    }

    fn wait_for_coordinator(&self) -> Option<Join> {
        let folder = self.life.folder.path();
        if self.life.record.node == 0 {
            let mut wanted = lock(&self.wanted.0);
            while !*wanted && !self.life.board.wants_coordinator() {
                wanted = self.wanted.1.wait(wanted).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }
        let until = Instant::now() + COMES_UP;
        loop {
            match Join::read(folder) {
                Ok(Some(join)) => return Some(join),
                Ok(None) if Instant::now() < until => thread::sleep(LOOK_AGAIN),
                Ok(None) => {
                    eprintln!("{}: the coordinator does not come up: no other nodes", self.life.tool);
                    return None;
                }
                Err(error) => {
                    eprintln!("{}: the join file in {}: {error}", self.life.tool, folder.display());
                    return None;
                }
            }
        }
    }
}

fn hello(life: &Life) -> Hello {
    let host = nix::unistd::gethostname().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    Hello {
        job: life.record.job.clone(),
        node: NodeId(life.record.node),
        host,
        guardian: life.record.guardian,
        agent: std::process::id(),
        incarnation: life.board.incarnation(),
        ..Hello::default()
    }
}

/// Passes on what the guardian says, until the agent ends.
fn watch_guardian(life: &Life, inputs: &Sender<Input>) {
    loop {
        let mut fds = [PollFd::new(life.to_agent.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            thread::sleep(LOOK_AGAIN);
        }
        let _ = life.to_agent.read();
        if inputs.send(Input::Daemons).is_err() {
            return;
        }
    }
}

impl Link<'_> {
    fn run(mut self, inputs: &Receiver<Input>) {
        for input in inputs {
            let done = match input {
                Input::Network(event) => self.note(event),
                Input::Daemons => self.tell_of_daemons(),
            };
            if let Err(error) = done {
                eprintln!("{}: {error}", self.life.tool);
            }
        }
    }

    fn note(&mut self, event: ClientEvent) -> io::Result<()> {
        match event {
            ClientEvent::Welcomed { welcome, fresh } => {
                if let Ok(Greeting::TurnedAway(reason)) = decode(&welcome) {
                    return self.leave(&reason.to_string());
                }
                self.welcome = true;
                if fresh {
                    self.told.clear();
                }
                self.tell_of_daemons()
            }
            ClientEvent::Message { bytes } => self.obey(decode(&bytes).map_err(io::Error::other)?),
            ClientEvent::Broken { .. } => Ok(()),
            ClientEvent::TurnedAway { reason } => self.leave(&reason),
            ClientEvent::Lost { reason } => self.leave(&format!("no contact with the coordinator: {reason}")),
            ClientEvent::Ended => self.leave("the job is over"),
        }
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Launch { id, command, .. } => {
                daemons::order(self.life.folder.path(), id, &LaunchOrder { line: command.join(" ") })?;
                self.wake_guardian()
            }
            Order::End { reason } => self.leave(&reason),
            _ => Ok(()),
        }
    }

    /// Nothing more will be heard of the coordinator: the job is over on this node, unless it began here.
    fn leave(&mut self, reason: &str) -> io::Result<()> {
        if self.life.record.node == 0 {
            return Ok(());
        }
        eprintln!("{}: {reason}", self.life.tool);
        self.life.board.end();
        self.wake_guardian()
    }

    fn wake_guardian(&self) -> io::Result<()> {
        self.life.to_guardian.write(1).map(drop).map_err(Into::into)
    }

    /// Says what has changed since it was said last.
    fn tell_of_daemons(&mut self) -> io::Result<()> {
        if !self.welcome {
            return Ok(());
        }
        for daemon in daemons::list(self.life.folder.path()) {
            let before = self.told.get(&daemon.id);
            if before.is_none() {
                self.report(&match &daemon.start {
                    Start::Pid(pid) => Report::Launched { id: daemon.id, pid: *pid },
                    Start::Refused(reason) => Report::LaunchFailed { id: daemon.id, reason: reason.clone() },
                })?;
            }
            if let (Some(status), None) = (daemon.ended, before.and_then(|it| it.ended)) {
                self.report(&Report::Ended { id: daemon.id, status })?;
            }
            self.told.insert(daemon.id, daemon);
        }
        Ok(())
    }

    fn report(&self, report: &Report) -> io::Result<()> {
        let bytes = encode(report).map_err(io::Error::other)?;
        self.client.send(&bytes).map_err(io::Error::other)
    }
}
