//! Sessions between agents and the coordinator, as the transport makes them: in order, exactly once, until they break; and
//! agents' words to each other, about which nothing is sure.

use std::collections::VecDeque;

use coordinator_protocol::node::{Between, Greeting, Hello, NodeId, Order, Report};

use super::event::{AgentKey, Event};
use super::words;
use super::world::World;

/// Without a word for this long either end takes a session to be broken, µs.
const IDLE: u64 = 3_000_000;
const LINK: u64 = 100;

/// What goes through a session.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    Hello(Box<Hello>),
    Report(Report),
    Greeting(Greeting),
    Order(Order),
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: AgentKey,
    /// Pid of the coordinator.
    pub(super) head: u32,
    to_head: Way,
    to_agent: Way,
    broken: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    messages: VecDeque<Wire>,
    /// When the last of them arrives, µs.
    last_us: u64,
}

impl World {
    /// An agent without a session asks for one.
    pub(super) fn connect(&mut self, key: AgentKey) {
        let Some(agent) = self.agent(key) else { return };
        if agent.session.is_some() {
            return;
        }
        let again = if self.plan.calm { 200_000 } else { self.rng.u64(50_000..1_500_000) };
        let reachable = !self.is_cut(key.node, NodeId(0)) && self.now_us >= self.head_frozen_until;
        let Some(head) = self.head.as_ref().map(|head| head.pid).filter(|_| reachable) else {
            return self.queue.push(self.now_us + again, Event::Connect(key));
        };
        let number = self.session_count;
        self.session_count += 1;
        let session = Session { key, head, to_head: Way::default(), to_agent: Way::default(), broken: false };
        self.sessions.insert(number, session);
        let Some(agent) = self.agent(key) else { return };
        agent.session = Some(number);
        let hello = Hello {
            job: "job".into(),
            life: 0,
            node: key.node,
            host: format!("n{}", key.node.0),
            guardian: 100 + key.node.0,
            agent: 1000 * (key.node.0 + 1) + key.incarnation,
            incarnation: key.incarnation,
            standing: agent.deputy.standing().clone(),
            restart: None,
        };
        self.send_to_head(number, Wire::Hello(Box::new(hello)));
    }

    pub(super) fn send_to_head(&mut self, number: u64, wire: Wire) {
        let took = self.takes(LINK);
        let Some(session) = self.sessions.get_mut(&number).filter(|it| !it.broken) else { return };
        session.to_head.messages.push_back(wire);
        session.to_head.last_us = session.to_head.last_us.max(self.now_us + took);
        self.queue.push(session.to_head.last_us, Event::ToHead(number));
    }

    pub(super) fn send_to_agent(&mut self, number: u64, wire: Wire) {
        let took = self.takes(LINK);
        let Some(session) = self.sessions.get_mut(&number).filter(|it| !it.broken) else { return };
        session.to_agent.messages.push_back(wire);
        session.to_agent.last_us = session.to_agent.last_us.max(self.now_us + took);
        self.queue.push(session.to_agent.last_us, Event::ToAgent(number));
    }

    pub(super) fn arrive_at_head(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let (key, head) = (session.key, session.head);
        if self.is_cut(key.node, NodeId(0)) {
            return self.queue.push(self.cut_until[key.node.0 as usize], Event::ToHead(number));
        }
        let Some(wire) = self.sessions.get_mut(&number).and_then(|it| it.to_head.messages.pop_front()) else { return };
        if self.head.as_ref().is_none_or(|it| it.pid != head) {
            return;
        }
        match wire {
            Wire::Hello(hello) => {
                self.log_head(|| format!("← n{} {}", key.node.0, words::hello(&hello)));
                self.head_hears_hello(number, &hello);
            }
            Wire::Report(report) => {
                if !matches!(report, Report::Relay { .. } | Report::Edges { .. }) {
                    self.log_head(|| format!("← n{} {}", key.node.0, words::report(&report)));
                }
                self.head_hears(number, report);
            }
            Wire::Greeting(_) | Wire::Order(_) => {}
        }
    }

    pub(super) fn arrive_at_agent(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        let key = session.key;
        if self.is_cut(key.node, NodeId(0)) {
            return self.queue.push(self.cut_until[key.node.0 as usize], Event::ToAgent(number));
        }
        let Some(wire) = self.sessions.get_mut(&number).and_then(|it| it.to_agent.messages.pop_front()) else { return };
        if self.agent(key).is_none_or(|agent| agent.session != Some(number)) {
            return;
        }
        match wire {
            Wire::Greeting(greeting) => self.agent_is_greeted(key, greeting),
            Wire::Order(order) => {
                if !matches!(order, Order::Relayed { .. }) {
                    self.log_node(key.node, || format!("← {}", words::order(&order)));
                }
                self.agent_hears(key, order);
            }
            Wire::Hello(_) | Wire::Report(_) => {}
        }
    }

    /// From one agent to another: directly, where that is possible, or by way of the coordinator.
    pub(super) fn tell(&mut self, key: AgentKey, to: NodeId, message: Between) {
        if !self.plan.direct || self.chance(5) {
            let session = self.agent(key).and_then(|agent| agent.session);
            let Some(number) = session else { return };
            return self.send_to_head(number, Wire::Report(Report::Relay { to, message }));
        }
        if self.is_cut(key.node, to) || self.chance(10) {
            return;
        }
        if self.chance(10) {
            let took = self.takes(LINK * 20);
            self.queue.push(self.now_us + took, Event::Datagram(key.node, to, message.clone()));
        }
        let took = if self.chance(10) { self.takes(LINK * 1000) } else { self.takes(LINK) };
        self.queue.push(self.now_us + took, Event::Datagram(key.node, to, message));
    }

    pub(super) fn datagram(&mut self, from: NodeId, to: NodeId, message: Between) {
        let Some(incarnation) = self.nodes[to.0 as usize].agent.as_ref().map(|agent| agent.incarnation) else { return };
        if self.is_cut(from, to) {
            return;
        }
        self.agent_hears(AgentKey { node: to, incarnation }, Order::Relayed { from, message });
    }

    /// One of so many times, in a run that is not calm.
    pub(super) fn chance(&mut self, of: u32) -> bool {
        !self.plan.calm && self.rng.u32(..of) == 0
    }

    /// A node is cut off or stands still: if that lasts, its sessions break.
    pub(super) fn cut_sessions(&mut self, node: NodeId) {
        let until =
            self.cut_until[node.0 as usize].max(self.nodes[node.0 as usize].frozen_until).max(self.head_frozen_until);
        if until > self.now_us + IDLE {
            self.break_sessions_of(node);
        }
    }

    pub(super) fn break_sessions_of(&mut self, node: NodeId) {
        let numbers: Vec<u64> =
            self.sessions.iter().filter(|(_, it)| it.key.node == node && !it.broken).map(|it| *it.0).collect();
        numbers.into_iter().for_each(|number| self.break_session(number));
    }

    pub(super) fn break_all_sessions(&mut self) {
        let numbers: Vec<u64> = self.sessions.iter().filter(|(_, it)| !it.broken).map(|it| *it.0).collect();
        numbers.into_iter().for_each(|number| self.break_session(number));
    }

    /// The coordinator closes it: what it has sent before arrives.
    pub(super) fn close_session(&mut self, number: u64) {
        let sent = self.sessions.get(&number).map(|it| it.to_agent.messages.clone());
        self.break_session(number);
        if let (Some(session), Some(sent)) = (self.sessions.get_mut(&number), sent) {
            session.to_agent.messages = sent;
        }
    }

    /// Of what is under way a prefix still arrives, and each end notices when it does.
    pub(super) fn break_session(&mut self, number: u64) {
        let calm = self.plan.calm;
        let Some(session) = self.sessions.get_mut(&number).filter(|it| !it.broken) else { return };
        session.broken = true;
        for way in [&mut session.to_head, &mut session.to_agent] {
            let arrive = if calm { 0 } else { self.rng.usize(..=way.messages.len()) };
            way.messages.truncate(arrive);
        }
        let (last_to_head, last_to_agent) = (session.to_head.last_us, session.to_agent.last_us);
        let mut late = || if calm { 1000 } else { self.rng.u64(1..2 * IDLE) };
        let (head, agent) = (late(), late());
        self.queue.push(last_to_head.max(self.now_us + head), Event::HeadSeesBroken(number));
        self.queue.push(last_to_agent.max(self.now_us + agent), Event::AgentSeesBroken(number));
    }

    pub(super) fn agent_sees_broken(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        let key = session.key;
        let Some(agent) = self.agent(key) else { return };
        if agent.session == Some(number) {
            agent.session = None;
            self.agent_is_disconnected(key);
            self.queue.push(self.now_us, Event::Connect(key));
        }
    }
}
