//! A restart over many nodes: director and deputies of `coordinator_protocol::restart` against sessions that break, agents
//! and a coordinator that die, nodes that fail, stand still or are gone.
//!
//! What must hold: *nobody runs before all are ready*; *all or nobody*: in the end every node that is left runs, or none
//! does; *one outcome*; *every wait ends*.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use coordinator_protocol::node::{NodeId, Order, Prepare, Report, RestartStage as Stage, Welcome};
use coordinator_protocol::restart::{Announcement, Deed, Deputy, DeputyOutput, Director, DirectorOutput, Done, Seat};
use fastrand::Rng;

use super::Outcome;
use super::event::Queue;

const SECOND: u64 = 1_000_000;
const AGENT_TIMEOUT: u64 = 30 * SECOND;
/// After the last fault every deadline and time-out has passed.
const PATIENCE: u64 = 600 * SECOND;

#[derive(Clone, Debug)]
enum Event {
    Deed(usize, u32, Deed),
    AgentTimer(usize, u32),
    /// Which session's.
    ToHead(usize, u64),
    ToAgent(usize, u64),
    Connect(usize),
    Lost(usize, u64),
    HeadTimer(u32),
    HeadStarts,
    Fault,
}

#[derive(Debug)]
struct Node {
    deputy: Deputy,
    /// Dead agents' deeds are nobody's.
    incarnation: u32,
    gone: bool,
    /// It has been ready; its agent may have died since.
    was_ready: bool,
    /// Its next deed fails.
    fails: bool,
    frozen_until: u64,
    /// The session's number, and what is under way in it.
    session: Option<u64>,
    sessions: u64,
    to_head: VecDeque<Report>,
    to_agent: VecDeque<Order>,
    last_us: u64,
}

#[derive(Debug)]
struct World {
    rng: Rng,
    now_us: u64,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    head: Option<Director>,
    heads: u32,
    head_back_at: u64,
    faults_left: u32,
    calm_from: u64,
    announced: Vec<Announcement>,
    outcome: Outcome,
    logging: bool,
}

/// Runs a seed's restart to its end.
#[must_use]
pub fn run(seed: u64, logging: bool) -> Outcome {
    let mut rng = Rng::with_seed(seed ^ 0x0e57);
    let nodes = (0..rng.usize(1..=6)).map(|_| Node {
        deputy: Deputy::new(Duration::ZERO, Duration::from_micros(AGENT_TIMEOUT)),
        incarnation: 0,
        gone: false,
        was_ready: false,
        fails: false,
        frozen_until: 0,
        session: Some(0),
        sessions: 1,
        to_head: VecDeque::new(),
        to_agent: VecDeque::new(),
        last_us: 0,
    });
    let mut world = World {
        nodes: nodes.collect(),
        faults_left: rng.u32(0..=4),
        rng,
        now_us: 0,
        queue: Queue::default(),
        head: None,
        heads: 0,
        head_back_at: 0,
        calm_from: 0,
        announced: Vec::new(),
        outcome: Outcome::default(),
        logging,
    };
    world.run();
    world.outcome
}

impl World {
    fn run(&mut self) {
        (0..self.nodes.len()).for_each(|number| self.welcome(number));
        self.head = Some(Director::begin(Duration::ZERO, self.seats()));
        self.drive_head();
        let first = self.rng.u64(..5 * SECOND);
        self.queue.push(first, Event::Fault);
        while let Some((at_us, event)) = self.queue.pop().filter(|_| self.outcome.broken.is_none()) {
            self.now_us = at_us;
            self.outcome.events += 1;
            self.handle(event);
            if self.now_us > self.calm_from + PATIENCE && self.faults_left == 0 {
                self.broken("every wait ends", format!("{:?}", self.stages()));
            }
            if self.faults_left == 0 && self.is_quiet() {
                break;
            }
        }
        self.outcome.elapsed_us = self.now_us;
        self.check_at_the_end();
    }

    fn handle(&mut self, event: Event) {
        if let Event::Deed(number, ..)
        | Event::AgentTimer(number, _)
        | Event::ToAgent(number, _)
        | Event::Connect(number) = &event
            && self.now_us < self.nodes[*number].frozen_until
        {
            return self.queue.push(self.nodes[*number].frozen_until, event);
        }
        let now = Duration::from_micros(self.now_us);
        match event {
            Event::Deed(number, incarnation, deed) => self.deed_done(number, incarnation, deed),
            Event::AgentTimer(number, incarnation) if self.nodes[number].incarnation == incarnation => {
                self.nodes[number].deputy.handle_timeout(now);
                self.drive_agent(number);
            }
            Event::ToHead(number, session) if self.nodes[number].session == Some(session) => {
                let report = self.nodes[number].to_head.pop_front();
                if let (Some(report), Some(head)) = (report, &mut self.head) {
                    head.handle_report(now, NodeId(number as u32), report);
                    self.drive_head();
                }
            }
            Event::ToAgent(number, session) if self.nodes[number].session == Some(session) => {
                if let Some(order) = self.nodes[number].to_agent.pop_front() {
                    self.log(|| format!("n{number} hears {order:?}"));
                    self.nodes[number].deputy.handle_order(order);
                    self.drive_agent(number);
                }
            }
            Event::Connect(number) => self.connect(number),
            Event::Lost(number, sessions) => {
                let absent = self.nodes[number].session.is_none() && self.nodes[number].sessions == sessions;
                if let Some(head) = self.head.as_mut().filter(|_| absent) {
                    head.handle_lost(NodeId(number as u32));
                    self.drive_head();
                }
            }
            Event::HeadTimer(which) if which == self.heads => {
                self.head.iter_mut().for_each(|head| head.handle_timeout(now));
                self.drive_head();
            }
            Event::HeadStarts => self.head_starts(),
            Event::Fault => self.fault(),
            _ => {}
        }
    }

    fn deed_done(&mut self, number: usize, incarnation: u32, deed: Deed) {
        let node = &mut self.nodes[number];
        if node.incarnation != incarnation || node.gone {
            return;
        }
        let meeting: SocketAddr = (Ipv4Addr::new(10, 0, 0, number as u8), 7000).into();
        let done = match deed {
            _ if std::mem::take(&mut node.fails) => Done::Failed("port 4711 is taken".into()),
            Deed::Prepare(_) => Done::Bound(meeting, Vec::new()),
            Deed::Build(table) => {
                if table.len() != self.nodes.len() {
                    return self.broken("nobody runs before all are ready", "the table is not complete".into());
                }
                Done::Built
            }
            Deed::Go => Done::Running,
            Deed::End(_) => return,
        };
        self.nodes[number].deputy.handle_done(done);
        self.drive_agent(number);
    }

    fn drive_agent(&mut self, number: usize) {
        while let Some(output) = self.nodes[number].deputy.poll_output() {
            match output {
                DeputyOutput::Send(report) => self.send(number, Ok(report)),
                DeputyOutput::Do(deed) => {
                    self.log(|| format!("n{number} {deed:?}"));
                    if deed == Deed::Go {
                        self.check_go(number);
                    }
                    let took = self.rng.u64(..2 * SECOND);
                    let incarnation = self.nodes[number].incarnation;
                    self.queue.push(self.now_us + took, Event::Deed(number, incarnation, deed));
                }
            }
        }
        self.nodes[number].was_ready |= self.nodes[number].deputy.stage() == Stage::Ready;
        if let Some(at) = self.nodes[number].deputy.poll_timeout() {
            let at_us = self.now_us.max(at.as_micros() as u64);
            self.queue.push(at_us, Event::AgentTimer(number, self.nodes[number].incarnation));
        }
    }

    fn drive_head(&mut self) {
        while let Some(output) = self.head.as_mut().and_then(Director::poll_output) {
            match output {
                DirectorOutput::Send(node, order) => self.send(node.0 as usize, Err(order)),
                DirectorOutput::Announce(announcement) => {
                    self.log(|| format!("coord {announcement:?}"));
                    match announcement {
                        Announcement::Running => self.outcome.committed += 1,
                        Announcement::Failed { .. } => self.outcome.failed += 1,
                    }
                    self.announced.push(announcement);
                }
            }
        }
        if let Some(at) = self.head.as_ref().and_then(Director::poll_timeout) {
            let at_us = self.now_us.max(at.as_micros() as u64);
            self.queue.push(at_us, Event::HeadTimer(self.heads));
        }
    }

    /// In order, if there is a session.
    fn send(&mut self, number: usize, message: Result<Report, Order>) {
        let took = self.rng.u64(50..5000);
        let node = &mut self.nodes[number];
        let Some(session) = node.session else { return };
        node.last_us = node.last_us.max(self.now_us + took);
        let event = match message {
            Ok(report) => {
                node.to_head.push_back(report);
                Event::ToHead(number, session)
            }
            Err(order) => {
                node.to_agent.push_back(order);
                Event::ToAgent(number, session)
            }
        };
        self.queue.push(node.last_us, event);
    }

    /// Both ends learn of it; what was under way arrived up to some point.
    fn part(&mut self, number: usize) {
        let now = Duration::from_micros(self.now_us);
        let arrive = self.rng.usize(..=self.nodes[number].to_agent.len());
        for _ in 0..arrive {
            let order = self.nodes[number].to_agent.pop_front();
            order.into_iter().for_each(|order| self.nodes[number].deputy.handle_order(order));
        }
        let node = &mut self.nodes[number];
        (node.session, node.last_us) = (None, 0);
        node.to_agent.clear();
        node.to_head.clear();
        node.deputy.handle_disconnected(now);
        let sessions = node.sessions;
        self.queue.push(self.now_us + AGENT_TIMEOUT, Event::Lost(number, sessions));
        let again = self.rng.u64(1000..2 * SECOND);
        self.queue.push(self.now_us + again, Event::Connect(number));
        if let Some(head) = &mut self.head {
            head.handle_parted(NodeId(number as u32));
        }
        self.drive_agent(number);
        self.drive_head();
    }

    fn connect(&mut self, number: usize) {
        if self.nodes[number].gone || self.nodes[number].session.is_some() {
            return;
        }
        let Some(head) = &mut self.head else {
            let again = self.rng.u64(1000..2 * SECOND);
            return self.queue.push(self.now_us + again, Event::Connect(number));
        };
        let now = Duration::from_micros(self.now_us);
        let node = &mut self.nodes[number];
        node.session = Some(node.sessions);
        node.sessions += 1;
        let stage = node.deputy.stage();
        head.handle_joined(now, NodeId(number as u32), "n", 1 + node.incarnation, Some(stage));
        self.welcome(number);
        self.drive_head();
    }

    fn welcome(&mut self, number: usize) {
        let welcome = Welcome { coordinator: self.heads, agent_timeout_ms: AGENT_TIMEOUT / 1000 };
        self.nodes[number].deputy.handle_connected(&welcome);
        self.drive_agent(number);
    }

    fn seats(&self) -> BTreeMap<NodeId, Seat> {
        let nodes = self.nodes.len() as u32;
        let prepare = Prepare { dir: "/ckpt/gen-000001".into(), generation: 1, nodes, folders: Vec::new() };
        (0..nodes).map(|number| (NodeId(number), Seat::new("n", 1, prepare.clone()))).collect()
    }

    fn head_starts(&mut self) {
        self.heads += 1;
        let (now, timeout) = (Duration::from_micros(self.now_us), Duration::from_micros(AGENT_TIMEOUT));
        self.head = Some(Director::recover(now, timeout, self.seats()));
        for number in 0..self.nodes.len() {
            let sessions = self.nodes[number].sessions;
            self.queue.push(self.now_us + AGENT_TIMEOUT, Event::Lost(number, sessions));
        }
        self.drive_head();
    }

    fn fault(&mut self) {
        if self.faults_left == 0 {
            return;
        }
        self.faults_left -= 1;
        let next = self.rng.u64(..3 * SECOND);
        self.queue.push(self.now_us + next, Event::Fault);
        let number = self.rng.usize(..self.nodes.len());
        let lasts = self.rng.u64(1000..40 * SECOND);
        self.calm_from = self.calm_from.max(self.now_us + lasts);
        match self.rng.u32(..12) {
            0..=3 => self.broken_session(number),
            4 => {
                self.log(|| format!("FAULT n{number} will fail"));
                self.nodes[number].fails = true;
            }
            5 => self.kill_agent(number),
            6 => {
                self.log(|| format!("FAULT n{number} is gone"));
                self.nodes[number].gone = true;
                self.nodes[number].incarnation += 1;
                self.broken_session(number);
            }
            7..=8 => {
                self.log(|| format!("FAULT n{number} stands still for {lasts} us"));
                self.nodes[number].frozen_until = self.now_us + lasts;
                self.broken_session(number);
            }
            _ if self.head.is_some() => {
                self.log(|| format!("FAULT the coordinator dies for {} us", lasts / 4));
                self.head = None;
                (0..self.nodes.len()).for_each(|number| self.broken_session(number));
                self.head_back_at = self.now_us + lasts / 4;
                self.queue.push(self.head_back_at, Event::HeadStarts);
            }
            _ => {}
        }
    }

    fn broken_session(&mut self, number: usize) {
        self.log(|| format!("the session of n{number} breaks"));
        if self.nodes[number].session.is_some() {
            self.part(number);
        }
    }

    fn kill_agent(&mut self, number: usize) {
        self.log(|| format!("FAULT the agent of n{number} dies"));
        // Who runs, runs on; what was being built is gone.
        if self.nodes[number].gone || matches!(self.nodes[number].deputy.stage(), Stage::Running | Stage::Ended) {
            return;
        }
        self.broken_session(number);
        let (now, timeout) = (Duration::from_micros(self.now_us), Duration::from_micros(AGENT_TIMEOUT));
        self.nodes[number].incarnation += 1;
        self.nodes[number].deputy = Deputy::new(now, timeout);
        self.drive_agent(number);
    }

    fn stages(&self) -> Vec<Stage> {
        self.nodes.iter().filter(|node| !node.gone).map(|node| node.deputy.stage()).collect()
    }

    fn is_quiet(&self) -> bool {
        let stages = self.stages();
        let all = |stage: Stage| stages.iter().all(|it| *it == stage);
        self.head.as_ref().is_some_and(Director::is_over) && (all(Stage::Running) || all(Stage::Ended))
    }

    fn check_go(&mut self, number: usize) {
        let early = self.nodes.iter().position(|it| !it.was_ready);
        if let Some(early) = early {
            let how = format!("n{number} goes while n{early} is {}", self.nodes[early].deputy.stage().deed());
            self.broken("nobody runs before all are ready", how);
        }
    }

    fn check_at_the_end(&mut self) {
        let stages = self.stages();
        let (running, others) = (stages.iter().filter(|it| **it == Stage::Running).count(), stages.len());
        if running != 0 && running != others {
            self.broken("all or nobody", format!("{stages:?}"));
        }
        if self.announced.len() > 1 + self.heads as usize {
            self.broken("one outcome", format!("{:?}", self.announced));
        }
    }

    fn log(&mut self, what: impl FnOnce() -> String) {
        if self.logging {
            let line = format!("{:>6}.{:03} {}", self.now_us / 1000, self.now_us % 1000, what());
            self.outcome.log.push(line);
        }
    }

    fn broken(&mut self, property: &str, how: String) {
        let text = format!("{property}: {how}");
        self.log(|| format!("CHECK {text}"));
        self.outcome.broken.get_or_insert(text);
    }
}
