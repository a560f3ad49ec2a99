//! Everything there is, and one event after another.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_protocol::node::{Flow, NodeId, Stage};
use fastrand::Rng;

use super::Outcome;
use super::clock::Clock;
use super::disk::Disk;
use super::event::{AgentKey, Event, Queue};
use super::fault::{Fault, When};
use super::head::Head;
use super::job::Stream;
use super::network::Session;
use super::node::Node;
use super::plan::Plan;

/// A run that has so many events goes round in circles.
const EVENTS_MAX: u64 = 2_000_000;
const MS: u64 = 1000;

/// See the module's head.
#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) now_us: u64,
    pub(super) queue: Queue<Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) streams: Vec<Stream>,
    pub(super) flows: BTreeMap<Flow, usize>,
    pub(super) disk: Disk,
    pub(super) head: Option<Head>,
    pub(super) heads: u32,
    pub(super) head_frozen_until: u64,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) session_count: u64,
    pub(super) cut_until: Vec<u64>,
    /// Faults that have not struck yet, by their numbers.
    pub(super) waiting_faults: BTreeSet<usize>,
    pub(super) faults_planned: usize,
    /// When the last of what was injected is over.
    pub(super) calm_from: u64,
    pub(super) reached: BTreeMap<(u32, Stage), u32>,
    pub(super) wishes_to_come: usize,
    pub(super) killed_by_commit: bool,
    pub(super) logging: bool,
    pub(super) outcome: Outcome,
}

impl World {
    pub(super) fn new(plan: Plan, logging: bool) -> Self {
        let mut rng = Rng::with_seed(plan.seed ^ 0x5eed);
        let streams: Vec<Stream> = plan
            .streams
            .iter()
            .enumerate()
            .map(|(number, it)| Stream::new(number, NodeId(it.0), NodeId(it.1), it.2, it.3))
            .collect();
        let flows = streams.iter().enumerate().map(|(number, it)| (it.flow, number)).collect();
        let clock = |rng: &mut Rng| match plan.calm {
            true => Clock::default(),
            false => Clock { zero_us: rng.u64(..1_000_000_000), drift_ppm: rng.i64(-20_000..=20_000) },
        };
        let nodes: Vec<Node> = (0..plan.nodes).map(|_| Node::new(clock(&mut rng))).collect();
        Self {
            rng,
            now_us: 0,
            queue: Queue::default(),
            cut_until: vec![0; nodes.len()],
            nodes,
            streams,
            flows,
            disk: Disk::default(),
            head: None,
            heads: 0,
            head_frozen_until: 0,
            sessions: BTreeMap::new(),
            session_count: 0,
            waiting_faults: (0..plan.faults.len()).collect(),
            faults_planned: 0,
            calm_from: 0,
            reached: BTreeMap::new(),
            wishes_to_come: plan.wishes.len(),
            killed_by_commit: false,
            logging,
            outcome: Outcome::default(),
            plan,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        self.begin();
        while self.outcome.broken.is_none() {
            let Some((at_us, event)) = self.queue.pop() else { break };
            self.now_us = at_us;
            self.outcome.events += 1;
            if self.outcome.events > EVENTS_MAX {
                self.broken("every wait ends", format!("{EVENTS_MAX} events and no end"));
            }
            self.handle(event);
            self.check_always();
            if self.outcome.events.is_multiple_of(64) && self.is_quiet() {
                break;
            }
            self.check_patience();
        }
        self.check_at_the_end();
        self.outcome.elapsed_us = self.now_us;
        self.outcome
    }

    fn begin(&mut self) {
        self.queue.push(0, Event::HeadStarts);
        for number in 0..self.plan.nodes {
            self.queue.push(0, Event::AgentStarts(NodeId(number)));
            self.queue.push(0, Event::Act(NodeId(number)));
        }
        for (number, (at_us, _)) in self.plan.wishes.clone().into_iter().enumerate() {
            self.queue.push(at_us, Event::Wish(number));
        }
        for (number, (when, _)) in self.plan.faults.clone().into_iter().enumerate() {
            if let When::At(at_us) = when {
                self.plan_fault(number, at_us);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        if let Some(later) = self.frozen(&event) {
            return self.queue.push(later, event);
        }
        match event {
            Event::Act(node) => self.act(node),
            Event::Deed(key, round, deed) => self.deed_done(key, round, deed),
            Event::Look(key) => self.look(key),
            Event::WriteGoesOn(key, round, step) => self.write_goes_on(key, round, step),
            Event::AgentTimer(key) => self.agent_timer(key),
            Event::Connect(key) => self.connect(key),
            Event::GuardianSees(key) => self.guardian_sees(key),
            Event::AgentStarts(node) => self.agent_starts(node),
            Event::HeadTimer(pid) => self.head_timer(pid),
            Event::HeadStep(pid, step) => self.head_step(pid, step),
            Event::HeadStarts => self.head_starts(),
            Event::ToHead(session) => self.arrive_at_head(session),
            Event::ToAgent(session) => self.arrive_at_agent(session),
            Event::HeadSeesBroken(session) => self.head_sees_broken(session),
            Event::AgentSeesBroken(session) => self.agent_sees_broken(session),
            Event::Datagram(from, to, message) => self.datagram(from, to, message),
            Event::Fault(number) => self.strike(number),
            Event::Heal(number) => self.heal(number),
            Event::Wish(number) => self.wish(number),
        }
    }

    /// What stands still happens later.
    fn frozen(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Act(node) | Event::AgentStarts(node) | Event::Datagram(_, node, _) => *node,
            Event::Deed(key, ..)
            | Event::Look(key)
            | Event::WriteGoesOn(key, ..)
            | Event::AgentTimer(key)
            | Event::Connect(key)
            | Event::GuardianSees(key) => key.node,
            Event::ToAgent(session) | Event::AgentSeesBroken(session) => self.sessions.get(session)?.key.node,
            Event::HeadTimer(_)
            | Event::HeadStep(..)
            | Event::ToHead(_)
            | Event::HeadSeesBroken(_)
            | Event::Wish(_) => return (self.now_us < self.head_frozen_until).then_some(self.head_frozen_until),
            Event::HeadStarts | Event::Fault(_) | Event::Heal(_) => return None,
        };
        let until = self.nodes[node.0 as usize].frozen_until;
        (self.now_us < until).then_some(until)
    }

    /// Processes of a node send and receive a little.
    fn act(&mut self, node: NodeId) {
        if !self.nodes[node.0 as usize].lives() {
            return;
        }
        let next = if self.plan.calm { 5 * MS } else { self.rng.u64(MS..120 * MS) };
        self.queue.push(self.now_us + next, Event::Act(node));
        if !self.nodes[node.0 as usize].runs(self.now_us) {
            return;
        }
        for number in 0..self.streams.len() {
            self.transmit(number);
            let (sends, takes) = if self.plan.calm { (16, 16) } else { (self.rng.usize(..64), self.rng.usize(..64)) };
            let stream = &mut self.streams[number];
            if stream.from == node {
                stream.send(sends);
            }
            if stream.to == node
                && let Err(wrong) = stream.receive(takes)
            {
                self.broken("no byte lost or doubled", wrong);
            }
        }
    }

    /// The kernels of a stream's two nodes do what they can, unless the wire between them is cut.
    pub(super) fn transmit(&mut self, number: usize) {
        let (from, to) = (self.streams[number].from, self.streams[number].to);
        if self.is_cut(from, to) || [from, to].iter().any(|it| self.nodes[it.0 as usize].frozen_until > self.now_us) {
            return;
        }
        let bytes = if self.plan.calm { usize::MAX } else { self.rng.usize(..100) };
        self.streams[number].transmit(bytes);
    }

    pub(super) fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        let cut = |node: NodeId| self.now_us < self.cut_until[node.0 as usize];
        one != other && (cut(one) || cut(other))
    }

    /// Somewhere between a tenth and ten times what it usually takes; in a calm run just that.
    pub(super) fn takes(&mut self, usual_us: u64) -> u64 {
        if self.plan.calm {
            return usual_us;
        }
        let factor = [1, 2, 5, 10, 10, 10, 20, 50, 100][self.rng.usize(..9)];
        usual_us * factor / 10 + self.rng.u64(..=usual_us / 5 + 1)
    }

    pub(super) fn log(&mut self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if self.logging {
            let (ms, us) = (self.now_us / 1000, self.now_us % 1000);
            self.outcome.log.push(format!("{ms:>6}.{us:03} {:<5} {}", who(), what()));
        }
    }

    pub(super) fn log_node(&mut self, node: NodeId, what: impl FnOnce() -> String) {
        self.log(|| format!("n{}", node.0), what);
    }

    pub(super) fn log_head(&mut self, what: impl FnOnce() -> String) {
        self.log(|| "coord".into(), what);
    }

    pub(super) fn broken(&mut self, property: &str, how: String) {
        let text = format!("{property}: {how}");
        self.log(|| "CHECK".into(), || text.clone());
        self.outcome.broken.get_or_insert(text);
    }

    // Faults.

    pub(super) fn plan_fault(&mut self, number: usize, at_us: u64) {
        if self.waiting_faults.remove(&number) {
            self.faults_planned += 1;
            self.queue.push(at_us, Event::Fault(number));
        }
    }

    /// Something that faults may wait for has happened.
    pub(super) fn trigger(&mut self, is: impl Fn(&When) -> Option<u64>) {
        let due: Vec<(usize, u64)> = self
            .waiting_faults
            .iter()
            .filter_map(|number| Some((*number, is(&self.plan.faults[*number].0)?)))
            .collect();
        for (number, later) in due {
            self.plan_fault(number, self.now_us + later);
        }
    }

    fn strike(&mut self, number: usize) {
        self.faults_planned -= 1;
        let fault = self.plan.faults[number].1.clone();
        let until = self.now_us + fault.lasts_us();
        self.calm_from = self.calm_from.max(until);
        self.log(|| "FAULT".into(), || format!("{fault:?}"));
        let lives = |world: &Self, node: u32| world.nodes.get(node as usize).is_some_and(Node::lives);
        match fault {
            Fault::KillAgent(node) if lives(self, node) => self.kill_agent(NodeId(node)),
            Fault::KillAgentAfter(node, outputs) if lives(self, node) => {
                let agent = self.nodes[node as usize].agent.as_mut();
                agent.into_iter().for_each(|agent| agent.dies_after = Some(outputs));
            }
            Fault::KillCoordinator(us) => self.kill_head(us),
            Fault::Cut(node, _) => {
                let cut = &mut self.cut_until[node as usize];
                *cut = (*cut).max(until);
                self.cut_sessions(NodeId(node));
                self.queue.push(until, Event::Heal(number));
            }
            Fault::Freeze(node, _) => {
                let frozen = &mut self.nodes[node as usize].frozen_until;
                *frozen = (*frozen).max(until);
                self.cut_sessions(NodeId(node));
            }
            Fault::FreezeCoordinator(_) => {
                self.head_frozen_until = self.head_frozen_until.max(until);
                (0..self.plan.nodes).for_each(|node| self.cut_sessions(NodeId(node)));
            }
            Fault::PowerOff(node) if lives(self, node) => self.power_off(NodeId(node)),
            Fault::BreakSession(node) => self.break_sessions_of(NodeId(node)),
            Fault::DiskFull(_) | Fault::DiskSlow(_) => {
                (self.disk.full, self.disk.slow) = match fault {
                    Fault::DiskFull(_) => (true, self.disk.slow),
                    _ => (self.disk.full, true),
                };
                self.queue.push(until, Event::Heal(number));
            }
            Fault::SyncFails => self.disk.sync_fails = true,
            Fault::Unparkable(node) if lives(self, node) => self.nodes[node as usize].unparkable = true,
            Fault::Cancel => self.cancel(),
            _ => {}
        }
    }

    fn heal(&mut self, number: usize) {
        let fault = self.plan.faults[number].1.clone();
        match fault {
            Fault::DiskFull(_) => self.disk.full = false,
            Fault::DiskSlow(_) => self.disk.slow = false,
            _ => {}
        }
        self.log(|| "HEAL".into(), || format!("{fault:?}"));
    }

    fn power_off(&mut self, node: NodeId) {
        let it = &mut self.nodes[node.0 as usize];
        it.gone = true;
        if it.agent.take().is_some() {
            self.break_sessions_of(node);
        }
    }

    /// An agent that lives and is this one.
    pub(super) fn agent(&mut self, key: AgentKey) -> Option<&mut super::node::Agent> {
        let node = &mut self.nodes[key.node.0 as usize];
        if !node.lives() {
            return None;
        }
        node.agent.as_mut().filter(|agent| agent.incarnation == key.incarnation)
    }
}
