//! The coordinator: a process of its own beside the agent of the first node, from the moment when there is a second node.
//!
//! ```text
//! asks      the agent of the first node hands on what `ckpt` and `ckpt-rsh` want     (Unix socket in the job's folder)
//! network   agents of all nodes, the first one's too                                 (QUIC)
//! machine   coordinator-protocol decides; outputs.rs does what it asks for
//! launch    daemons of launchers; start: agents on new hosts · commits: generations
//! ```
//!
//! It may be killed: its guardian starts another, which has the same keys and the same port; agents find it again.

use std::error::Error;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use coordinator_protocol::coordinator::{Coordinator as Machine, Wish};
use coordinator_protocol::members::Job;
use coordinator_protocol::node::{FrameError, Hello, NodeId, Report, TurnedAway, decode};
use coordinator_transport::{Server, ServerEvent};
use node_agent::guardian::Life;

mod asks;
mod commits;
mod events;
mod launch;
mod network;
mod nodes;
mod outputs;
mod restarts;
mod start;

use asks::Asked;
use commits::Commits;
use events::Event;
use launch::Launches;
use nodes::Nodes;
use restarts::{Outcome, Restart};

/// Name of the coordinator in ps(1).
const NAME: &std::ffi::CStr = c"ckpt-coordinator";
/// How long a node may be without contact, beside the time that a session lives on without a connection.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
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
    begun: Instant,
    server: Server,
    events: Receiver<Event>,
    machine: Machine,
    nodes: Nodes,
    launches: Launches,
    restart: Option<Restart>,
    commits: Commits,
    asked: Vec<Asked>,
    /// When the next checkpoint by the clock is due.
    next: Option<Instant>,
}

impl<'life> Coordinator<'life> {
    fn begin(life: &'life Life) -> Result<Self, Box<dyn Error>> {
        let (sender, events) = mpsc::channel();
        let commits = Commits::new(&life.record);
        let job = Job { id: life.record.job.clone(), life: 0 };
        let mut machine = Machine::new(job, AGENT_TIMEOUT, std::process::id(), commits.committed());
        let nodes = Nodes::read(life.folder.path());
        nodes.all().for_each(|(node, host)| machine.expect(Duration::ZERO, NodeId(node), host));
        let (server, join) = network::start(life, &sender)?;
        events::watch(life, &sender)?;
        asks::listen(life, &sender)?;
        let every = Some(life.record.every_s).filter(|it| *it > 0).map(Duration::from_secs);
        let next = every.map(|every| Instant::now() + every);
        let launches = Launches::new(life, join, sender);
        let (asked, restart) = (Vec::new(), Restart::of(&life.record));
        let begun = Instant::now();
        let mut coordinator =
            Self { life, begun, server, events, machine, nodes, launches, restart, commits, asked, next };
        coordinator.start_agents();
        Ok(coordinator)
    }

    /// Of a restarted job: on the hosts of all virtual nodes but the first.
    fn start_agents(&mut self) {
        for (node, host) in (0..).zip(&self.life.record.hosts).skip(1) {
            self.nodes.name(node, host);
            self.launches.start_agent(node, host, &[]);
        }
    }

    fn run(mut self) {
        loop {
            let event = self.next_event();
            let now = self.begun.elapsed();
            match event {
                Ok(Event::Network(event)) => self.note(event),
                Ok(Event::Launch { stream, host, options, line }) => {
                    self.launches.ask(&mut self.nodes, stream, &host, &options, &line);
                }
                Ok(Event::Started { node, result: Err(reason) }) if self.restart.is_some() => {
                    let host = self.nodes.host(node);
                    self.fail(&format!("cannot start an agent on {host}: {reason}"));
                }
                Ok(Event::Started { node, result }) => self.launches.note_start(&mut self.nodes, node, result),
                Ok(Event::Checkpoint { stream, wish }) => {
                    let id = self.machine.wish(now, wish);
                    self.asked.push(Asked::new(id, Some(stream)));
                }
                Ok(Event::Over) | Err(RecvTimeoutError::Disconnected) => return self.end(),
                Err(RecvTimeoutError::Timeout) => self.let_time_pass(),
            }
            // Greetings first: nobody can be told anything before.
            self.put_out();
            self.advance_restart();
        }
    }

    fn next_event(&self) -> Result<Event, RecvTimeoutError> {
        let restart = self.restart.as_ref().and_then(Restart::poll_timeout);
        let machine = [self.machine.poll_timeout(), restart].into_iter().flatten().min().map(|at| self.begun + at);
        let tell = (!self.asked.is_empty()).then(|| Instant::now() + asks::PROGRESS_EVERY);
        match [machine, self.next, tell].into_iter().flatten().min() {
            Some(due) => self.events.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn let_time_pass(&mut self) {
        let now = self.begun.elapsed();
        self.machine.handle_timeout(now);
        self.restart.iter_mut().for_each(|it| it.let_time_pass(now));
        if self.next.is_some_and(|due| due <= Instant::now()) {
            let mode = if self.life.record.stop { coordinator_protocol::Mode::Stop } else { Default::default() };
            let id = self.machine.wish(now, Wish { mode, ..Wish::default() });
            self.asked.push(Asked::new(id, None));
            self.next = Some(Instant::now() + Duration::from_secs(self.life.record.every_s));
        }
        let told = asks::how_far(self.machine.director());
        self.asked.iter_mut().for_each(|it| it.tell(&told));
    }

    fn note(&mut self, event: ServerEvent) {
        let now = self.begun.elapsed();
        match event {
            ServerEvent::Joined { peer, hello, from } => {
                let session = self.nodes.enter(peer);
                match decode::<Hello>(&hello) {
                    Ok(hello) => {
                        self.machine.handle_hello(now, session, &hello);
                        if self.machine.members().node_of(session).is_some() {
                            self.nodes.name(hello.node.0, &hello.host);
                            let members = self.machine.members();
                            self.restart.iter_mut().for_each(|it| it.note_join(now, members, &hello));
                        }
                    }
                    Err(error) => self.machine.turn_away(session, of_another_release(&from.to_string(), &error)),
                }
            }
            ServerEvent::Message { peer, bytes } => {
                let (Some(session), Ok(report)) = (self.nodes.session(peer), decode(&bytes)) else { return };
                if let Some((node, report)) = self.machine.handle_report(now, session, report) {
                    self.note_report(node.0, report);
                }
            }
            ServerEvent::Lost { peer, .. } | ServerEvent::Left { peer } => {
                let Some(session) = self.nodes.leave(peer) else { return };
                let node = self.machine.members().node_of(session);
                self.machine.handle_broken(now, session);
                if let (Some(node), Some(restart)) = (node, &mut self.restart) {
                    restart.note_parted(node);
                }
            }
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
            Report::Ended { id, status } => self.launches.note_end(id, status, self.life.root().init()),
            Report::RankLost { pid, signal, command } => {
                let host = self.nodes.host(node);
                self.say(&format!("rank {command} with pid {pid} on {host} died by signal {signal}"));
            }
            report => {
                let now = self.begun.elapsed();
                self.restart.iter_mut().for_each(|it| it.note_report(now, node, report.clone()));
            }
        }
    }

    /// The restart goes on, or has come to its end.
    fn advance_restart(&mut self) {
        match self.restart.as_mut().map(Restart::poll) {
            None => {}
            Some(Outcome::Underway(orders)) => orders.iter().for_each(|(node, order)| self.send_to(*node, order)),
            Some(Outcome::Running) => self.restart = None,
            Some(Outcome::Failed(reason)) => self.fail(&reason),
        }
    }

    /// The restart has failed: the job ends everywhere.
    fn fail(&mut self, reason: &str) {
        self.restart = None;
        self.say(&format!("cannot restart the job: {reason}"));
        self.life.board.lose_node();
        let _ = self.life.to_guardian.write(1);
    }

    /// The job is over: on all other nodes, too.
    fn end(mut self) {
        self.machine.end("the job has ended");
        self.put_out();
        let until = Instant::now() + NODES_END;
        while self.others().next().is_some() && Instant::now() < until {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Network(event)) => self.note(event),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        for host in self.others() {
            self.say(&format!("{host} has not said that the job is over there"));
        }
        // Who has not heard the last words by then ends by its own time-out.
        let _ = self.server.finish(LAST_WORDS);
    }

    /// Hosts of nodes but the first that are connected.
    fn others(&self) -> impl Iterator<Item = &str> {
        let members = self.machine.members().all().iter();
        members.filter(|(node, it)| node.0 != 0 && it.session.is_some()).map(|(_, it)| it.host.as_str())
    }

    fn say(&self, what: &str) {
        say(self.life, what);
    }
}

fn say(life: &Life, what: &str) {
    eprintln!("{}: {what}", life.tool);
}

/// Why a greeting is not understood.
fn of_another_release(host: &str, error: &FrameError) -> TurnedAway {
    let theirs = if let FrameError::Version { theirs } = error { *theirs } else { 0 };
    TurnedAway::Version { host: host.to_owned(), theirs, ours: coordinator_protocol::node::PROTOCOL }
}

/// For map_err.
fn in_words(deed: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("cannot {deed}: {error}")
}
