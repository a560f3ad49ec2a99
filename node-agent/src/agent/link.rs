//! The agent as one of the coordinator's: a client that does what it is told and says what has happened.
//!
//! One thread owns the state; sessions, the guardian's word and finished deeds reach it as inputs of one channel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::node::{Greeting, Hello, NodeId, Order, Report, Round, decode, encode};
use coordinator_protocol::restart;
use coordinator_protocol::round::{Deed, Deputy, DeputyOutput, Done};
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

/// A session that is broken for longer is given up and begun anew: shorter than a node may be without contact.
const SESSION: Duration = Duration::from_secs(10);
/// How long the coordinator may be out of reach before the job is given up on this node, unless it says otherwise.
const ALONE: Duration = Duration::from_secs(35);
/// How long the last words may take, when the node's part in the job is over.
const LAST_WORDS: Duration = Duration::from_millis(400);

/// What reaches the link.
pub(super) enum Input {
    Network(ClientEvent),
    /// The guardian has started daemons, or some have ended.
    Daemons,
    /// The worker has done or seen something for a round.
    Done(Round, Done),
    /// The same of a restart.
    Restart(restart::Done),
    /// The agent ends; who asks waits for the answer.
    Leave(Sender<()>),
}

/// The link's state.
struct Link<'life> {
    life: &'life Life,
    client: Client,
    deputy: Deputy,
    /// Until everybody runs.
    restart: Option<restart::Deputy>,
    restart_deeds: Sender<restart::Deed>,
    /// What the next greeting is to say.
    hello: Arc<Mutex<Hello>>,
    deeds: Sender<Deed>,
    begun: Instant,
    /// Daemons of which the coordinator has been told, in this session.
    told: BTreeMap<u64, Daemon>,
    welcome: bool,
    /// When the node is given up, if nothing is heard until then.
    given_up: Option<Instant>,
}

impl Agent<'_> {
    /// Waits until there is a coordinator, then serves it as long as this agent lives.
    pub(super) fn link(&self) {
        let Some(join) = self.wait_for_coordinator() else { return };
        let (inputs, received) = mpsc::channel();
        let (deeds, to_do) = mpsc::channel();
        let (restart_deeds, to_restart) = mpsc::channel();
        *lock(&self.inputs) = Some(inputs.clone());
        let hello = Arc::new(Mutex::new(hello(self.life)));
        let said = Arc::clone(&hello);
        let options = ClientOptions { timeout: SESSION, ..ClientOptions::default() };
        let started = Client::start(&join.reach, move || encode(&*lock(&said)).unwrap_or_default(), options);
        let (client, events) = match started {
            Ok(started) => started,
            Err(error) => return eprintln!("{}: cannot look for the coordinator: {error}", self.life.tool),
        };
        let (life, begun) = (self.life, Instant::now());
        thread::scope(|scope| {
            let (network, guardian) = (inputs.clone(), inputs.clone());
            scope.spawn(move || events.iter().for_each(|event| drop(network.send(Input::Network(event)))));
            scope.spawn(move || watch_guardian(life, &guardian));
            let restarts = inputs.clone();
            scope.spawn(move || self.work(&to_do, &inputs));
            let restart = self.next.map(|next| {
                scope.spawn(move || self.come_back(next, &to_restart, &restarts));
                restart::Deputy::new(Duration::ZERO, ALONE)
            });
            Link {
                life,
                client,
                deputy: Deputy::new(Duration::ZERO),
                restart,
                restart_deeds,
                hello,
                deeds,
                begun,
                told: BTreeMap::new(),
                welcome: false,
                given_up: None,
            }
            .run(&received);
        });
    }

    /// How the link is reached, once there is one.
    pub(super) fn inputs(&self) -> Option<Sender<Input>> {
        lock(&self.inputs).clone()
    }

    /// Says goodbye to the coordinator, where there is one.
    pub(super) fn take_leave(&self) {
        let Some(inputs) = self.inputs() else { return };
        let (answer, answered) = mpsc::channel();
        if inputs.send(Input::Leave(answer)).is_ok() {
            let _ = answered.recv_timeout(LAST_WORDS * 2);
        }
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
        loop {
            let done = match self.next(inputs) {
                Ok(Input::Network(event)) => self.note(event),
                Ok(Input::Daemons) => self.tell_of_daemons(),
                Ok(Input::Done(round, done)) => {
                    let now = self.now();
                    self.deputy.handle_done(now, round, done);
                    Ok(())
                }
                Ok(Input::Restart(done)) => {
                    self.restart.iter_mut().for_each(|it| it.handle_done(done.clone()));
                    Ok(())
                }
                Ok(Input::Leave(answer)) => {
                    // One that does not hear it notices soon enough.
                    let _ = self.client.finish(LAST_WORDS);
                    let _ = answer.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => self.let_time_pass(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = done.and_then(|()| self.put_out()) {
                eprintln!("{}: {error}", self.life.tool);
            }
        }
    }

    fn next(&self, inputs: &Receiver<Input>) -> Result<Input, RecvTimeoutError> {
        let restart = self.restart.as_ref().and_then(restart::Deputy::poll_timeout);
        let deputy = [self.deputy.poll_timeout(), restart].into_iter().flatten().min().map(|at| self.begun + at);
        match [deputy, self.given_up].into_iter().flatten().min() {
            Some(due) => inputs.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn let_time_pass(&mut self) -> io::Result<()> {
        let now = self.now();
        self.deputy.handle_timeout(now);
        self.restart.iter_mut().for_each(|it| it.handle_timeout(now));
        match self.given_up {
            Some(due) if due <= Instant::now() => {
                self.given_up = None;
                self.leave("no contact with the coordinator for too long")
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, event: ClientEvent) -> io::Result<()> {
        let now = self.now();
        match event {
            ClientEvent::Welcomed { welcome, fresh } => {
                match decode(&welcome) {
                    Ok(Greeting::TurnedAway(reason)) => return self.leave(&reason.to_string()),
                    Ok(Greeting::Welcome(welcome)) => {
                        self.deputy.handle_connected(now, &welcome);
                        self.restart.iter_mut().for_each(|it| it.handle_connected(&welcome));
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
                (self.welcome, self.given_up) = (true, None);
                if fresh {
                    self.told.clear();
                }
                self.tell_of_daemons()
            }
            ClientEvent::Message { bytes } => self.obey(decode(&bytes).map_err(io::Error::other)?),
            ClientEvent::Broken { .. } => {
                self.deputy.handle_disconnected(now);
                self.restart.iter_mut().for_each(|it| it.handle_disconnected(now));
                self.given_up.get_or_insert(Instant::now() + ALONE);
                Ok(())
            }
            ClientEvent::Lost { .. } => {
                self.welcome = false;
                Ok(())
            }
            ClientEvent::TurnedAway { reason } => self.leave(&reason),
            ClientEvent::Ended => self.leave("the job is over"),
        }
    }

    fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Launch { id, command, .. } => {
                daemons::order(self.life.folder.path(), id, &LaunchOrder { line: command.join(" ") })?;
                self.wake_guardian()
            }
            Order::End { reason } => {
                let end = Order::End { reason: reason.clone() };
                self.restart.iter_mut().for_each(|it| it.handle_order(end.clone()));
                self.leave(&reason)
            }
            order @ (Order::Prepare(_) | Order::Begin { .. } | Order::Go) => {
                self.restart.iter_mut().for_each(|it| it.handle_order(order.clone()));
                Ok(())
            }
            order => {
                let now = self.now();
                self.deputy.handle_order(now, order);
                Ok(())
            }
        }
    }

    /// What the deputy wants done and said.
    fn put_out(&mut self) -> io::Result<()> {
        let mut said = Ok(());
        while let Some(output) = self.deputy.poll_output() {
            match output {
                DeputyOutput::Do(deed) => drop(self.deeds.send(deed)),
                // What is not heard is said again after the next greeting.
                DeputyOutput::Send(report) if self.welcome => said = self.report(&report),
                DeputyOutput::Tell(to, message) if self.welcome => said = self.report(&Report::Relay { to, message }),
                DeputyOutput::Send(_) | DeputyOutput::Tell(..) => {}
            }
        }
        while let Some(output) = self.restart.as_mut().and_then(restart::Deputy::poll_output) {
            match output {
                restart::DeputyOutput::Do(deed) => {
                    if let restart::Deed::End(reason) = &deed {
                        said = self.leave(reason);
                    }
                    let _ = self.restart_deeds.send(deed);
                }
                restart::DeputyOutput::Send(report) if self.welcome => said = self.report(&report),
                restart::DeputyOutput::Send(_) => {}
            }
        }
        let mut hello = lock(&self.hello);
        hello.standing = self.deputy.standing().clone();
        hello.restart = self.restart.as_ref().map(restart::Deputy::stage);
        said
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

    /// Since this agent's link began.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }
}
