//! An agent's shell and its guardian: what deputies ask for, done to the model.

use coordinator_protocol::node::{Edge, Greeting, NodeId, Order, Round, Stage, Standing};
use coordinator_protocol::round::{Deed, Deputy, DeputyOutput, Done, StreamLimits};

use super::event::{AgentKey, Event};
use super::fault::When;
use super::job::Image;
use super::network::Wire;
use super::node::{Agent, Node, Watch};
use super::words;
use super::world::World;

const MS: u64 = 1000;

impl World {
    pub(super) fn agent_starts(&mut self, node: NodeId) {
        let now_us = self.now_us;
        let it = &mut self.nodes[node.0 as usize];
        if !it.lives() || it.agent.is_some() {
            return;
        }
        let now = it.now(now_us);
        let limits = StreamLimits { chunk_bytes: 16, window_bytes: 48 };
        let incarnation = it.incarnations;
        it.incarnations += 1;
        let deputy = match incarnation {
            0 => Deputy::new(now),
            _ => Deputy::revive(now, it.board.remains()),
        };
        let (deputy, watch) = (deputy.with_limits(limits), Watch::default());
        let (session, timer, dies_after, park, twin) = (None, None, None, None, None);
        it.agent = Some(Agent { incarnation, deputy, session, timer, dies_after, park, twin, watch });
        let key = AgentKey { node, incarnation };
        self.drive_agent(key);
        self.queue.push(now_us, Event::Connect(key));
    }

    pub(super) fn kill_agent(&mut self, node: NodeId) {
        let Some(agent) = self.nodes[node.0 as usize].agent.take() else { return };
        self.log_node(node, || "the agent dies".into());
        self.break_sessions_of(node);
        let took = self.takes(2 * MS);
        let key = AgentKey { node, incarnation: agent.incarnation };
        self.queue.push(self.now_us + took, Event::GuardianSees(key));
    }

    /// The guardian lets everybody go, unless bytes are owed, and forks another agent.
    pub(super) fn guardian_sees(&mut self, key: AgentKey) {
        if !self.nodes[key.node.0 as usize].lives() {
            return;
        }
        if !self.nodes[key.node.0 as usize].board.remains().holds() {
            self.log_node(key.node, || "the guardian lets everybody go".into());
            self.let_go(key.node);
        }
        let took = self.takes(5 * MS);
        self.queue.push(self.now_us + took, Event::AgentStarts(key.node));
    }

    pub(super) fn agent_is_greeted(&mut self, key: AgentKey, greeting: Greeting) {
        let now = self.nodes[key.node.0 as usize].now(self.now_us);
        let Some(agent) = self.agent(key) else { return };
        match greeting {
            Greeting::Welcome(welcome) => {
                agent.deputy.handle_connected(now, &welcome);
                self.drive_agent(key);
            }
            Greeting::TurnedAway(why) => {
                self.log_node(key.node, || format!("turned away: {why}"));
                self.end_node(key.node, why.to_string());
            }
        }
    }

    pub(super) fn agent_is_disconnected(&mut self, key: AgentKey) {
        self.log_node(key.node, || "has lost the coordinator".into());
        let now = self.nodes[key.node.0 as usize].now(self.now_us);
        let Some(agent) = self.agent(key) else { return };
        agent.deputy.handle_disconnected(now);
        self.drive_agent(key);
    }

    pub(super) fn agent_hears(&mut self, key: AgentKey, order: Order) {
        let now = self.nodes[key.node.0 as usize].now(self.now_us);
        let Some(agent) = self.agent(key) else { return };
        match order {
            Order::Relayed { from, message } => agent.deputy.handle_between(now, from, message),
            order => agent.deputy.handle_order(now, order),
        }
        self.drive_agent(key);
    }

    pub(super) fn agent_timer(&mut self, key: AgentKey) {
        let (now, now_us) = (self.nodes[key.node.0 as usize].now(self.now_us), self.now_us);
        let Some(agent) = self.agent(key) else { return };
        if agent.timer.is_some_and(|at| at <= now_us) {
            agent.timer = None;
            agent.deputy.handle_timeout(now);
            self.drive_agent(key);
        }
    }

    pub(super) fn done(&mut self, key: AgentKey, round: Round, done: Done) {
        let now = self.nodes[key.node.0 as usize].now(self.now_us);
        let Some(agent) = self.agent(key) else { return };
        agent.deputy.handle_done(now, round, done);
        self.drive_agent(key);
    }

    /// Does what the deputy asks for, and plans its next time-out.
    fn drive_agent(&mut self, key: AgentKey) {
        loop {
            let Some(agent) = self.agent(key) else { return };
            let standing = agent.deputy.standing().clone();
            let Some(output) = agent.deputy.poll_output() else { break };
            if let Some(left) = agent.dies_after.as_mut() {
                if *left == 0 {
                    return self.kill_agent(key.node);
                }
                *left -= 1;
            }
            self.note_standing(key.node, standing);
            self.obey(key, output);
        }
        let Some(agent) = self.agent(key) else { return };
        let (standing, wants, planned) = (agent.deputy.standing().clone(), agent.deputy.poll_timeout(), agent.timer);
        self.note_standing(key.node, standing);
        let at = wants.map(|wants| self.nodes[key.node.0 as usize].clock.when(wants).max(self.now_us));
        if let Some(at) = at.filter(|at| planned.is_none_or(|planned| *at < planned)) {
            self.agent(key).into_iter().for_each(|agent| agent.timer = Some(at));
            self.queue.push(at, Event::AgentTimer(key));
        }
    }

    /// The board is what the guardian sees.
    fn note_standing(&mut self, node: NodeId, standing: Standing) {
        let board = &mut self.nodes[node.0 as usize].board;
        let stage = standing.stage;
        if board.standing.round != standing.round {
            (board.outgoing, board.incoming) = Default::default();
        }
        let changed = (board.standing.round, board.standing.stage) != (standing.round, stage);
        board.standing = standing;
        if changed {
            let count = self.reached.entry((node.0, stage)).or_default();
            let nth = *count;
            *count += 1;
            self.trigger(|when| match when {
                When::Reaches(at, wanted, which, later) if (*at, *wanted, *which) == (node.0, stage, nth) => {
                    Some(*later)
                }
                _ => None,
            });
        }
    }

    fn obey(&mut self, key: AgentKey, output: DeputyOutput) {
        match output {
            DeputyOutput::Send(report) => {
                let Some(number) = self.agent(key).and_then(|agent| agent.session) else { return };
                self.send_to_head(number, Wire::Report(report));
            }
            DeputyOutput::Tell(to, message) => {
                self.log_node(key.node, || format!("→ n{} {}", to.0, words::between(&message)));
                self.tell(key, to, message);
            }
            DeputyOutput::Do(deed) => self.begin_deed(key, deed),
        }
    }

    fn begin_deed(&mut self, key: AgentKey, deed: Deed) {
        self.log_node(key.node, || words::deed(&deed));
        let Some(agent) = self.agent(key) else { return };
        let round = agent.deputy.standing().round;
        let usual = match &deed {
            Deed::Park(park) => {
                agent.park = Some(park.clone());
                agent.watch = Watch::default();
                agent.twin = None;
                MS
            }
            Deed::End(reason) => return self.end_node(key.node, reason.clone()),
            Deed::Leave(_, edges) => return agent.watch.left.extend(edges),
            Deed::Flush(_) | Deed::Watch(..) => 0,
            Deed::Owe(..) | Deed::Keep(..) | Deed::Settle(..) | Deed::Fetch(..) | Deed::Delivered(..) => 20,
            Deed::ReadOut(..) | Deed::ReadRest(..) => 100,
            // A big process, a slow fork, a page that has to come from a swap disk.
            Deed::Capture(..) if self.chance(30) => self.rng.u64(1..1000) * 10 * MS,
            Deed::Capture(..) => 5 * MS,
            Deed::Resume(_) | Deed::Free(_) => MS,
            Deed::Write(_) => {
                let took = self.takes(20 * MS);
                return self.queue.push(self.now_us + took, Event::WriteGoesOn(key, round, 0));
            }
        };
        // What is written into the ledger is done in the order in which it was asked for.
        let took = if usual <= 20 { usual } else { self.takes(usual) };
        self.queue.push(self.now_us + took, Event::Deed(key, round, deed));
    }

    /// A deed is done, if nothing has come in between.
    pub(super) fn deed_done(&mut self, key: AgentKey, round: Round, deed: Deed) {
        let now_us = self.now_us;
        let Some(agent) = self.agent(key) else { return };
        let stage = agent.deputy.standing().stage;
        if agent.deputy.standing().round != round {
            return;
        }
        match deed {
            Deed::Park(_) if stage == Stage::Parking => self.park(key, round),
            Deed::Flush(_) if stage == Stage::Flushing => {
                let drain_us = agent.park.as_ref().map_or(0, |park| park.deadlines.drain_ms * MS);
                agent.watch.flush_until = Some(now_us + drain_us);
                self.look(key);
            }
            Deed::Watch(_, flows) => {
                agent.watch.single = flows.into_iter().collect();
                agent.watch.flush_until = None;
                self.look(key);
            }
            Deed::Capture(..) if stage == Stage::Capturing => self.capture(key, round),
            Deed::Resume(_) if matches!(stage, Stage::Resuming | Stage::Done | Stage::Written) => {
                let stall_us = self.nodes[key.node.0 as usize].parked.map_or(0, |since| self.now_us - since);
                self.let_go(key.node);
                self.done(key, round, Done::Resumed(stall_us));
            }
            Deed::Free(_) if stage == Stage::Freeing => {
                agent.twin = None;
                agent.watch = Watch::default();
                self.let_go(key.node);
                self.done(key, round, Done::Freed);
            }
            deed => self.stream_deed_done(key, round, deed),
        }
    }

    fn park(&mut self, key: AgentKey, round: Round) {
        let (now_us, node) = (self.now_us, &mut self.nodes[key.node.0 as usize]);
        if node.unparkable {
            node.unparkable = false;
            let quiesce_us =
                node.agent.as_ref().and_then(|it| it.park.as_ref()).map_or(0, |it| it.deadlines.quiesce_ms);
            // All the others stand still meanwhile.
            node.parked = Some(now_us);
            return self.queue.push(now_us + quiesce_us * MS, Event::WriteGoesOn(key, round, u32::MAX));
        }
        node.parked = Some(now_us);
        self.log_node(key.node, || "all threads are parked".into());
        let here = |it: &&super::job::Stream| it.from == key.node || it.to == key.node;
        let edges: Vec<Edge> = self.streams.iter().filter(here).map(|it| it.edge(it.from == key.node)).collect();
        self.done(key, round, Done::Parked(edges));
    }

    fn capture(&mut self, key: AgentKey, round: Round) {
        let mut image = Image::default();
        for (number, stream) in self.streams.iter().enumerate() {
            if stream.from == key.node {
                image.sent.insert(number, stream.sent);
            }
            if stream.to == key.node {
                let ledger = self.nodes[key.node.0 as usize].board.incoming.get(&stream.flow);
                let on_the_way = ledger.map_or(&stream.buffer, |ledger| &ledger.bytes);
                image.received.insert(number, (stream.received, on_the_way.iter().copied().collect()));
            }
        }
        self.check_capture(key.node);
        let Some(agent) = self.agent(key) else { return };
        agent.twin = Some(image);
        self.done(key, round, Done::Captured);
    }

    /// A third of it is written; in the end it is synced.
    pub(super) fn write_goes_on(&mut self, key: AgentKey, round: Round, step: u32) {
        let Some(agent) = self.agent(key) else { return };
        let (standing, stays) = (agent.deputy.standing(), agent.park.as_ref().is_some_and(|it| it.stays_parked()));
        if standing.round != round {
            return;
        }
        if step == u32::MAX {
            if standing.stage == Stage::Parking {
                self.done(key, round, Done::Failed("thread 7 of pid 33 does not park: it is in vfork".into()));
            }
            return;
        }
        if standing.stage != Stage::Writing {
            return;
        }
        if stays && self.nodes[key.node.0 as usize].parked.is_none() {
            return self
                .broken("committed means restorable", format!("{} writes memory of threads that run", key.node));
        }
        if step < 3 {
            if let Err(full) = self.disk.room() {
                return self.done(key, round, Done::Failed(full));
            }
            let took = self.takes(if self.disk.slow { 500 * MS } else { 20 * MS });
            self.queue.push(self.now_us + took, Event::WriteGoesOn(key, round, step + 1));
            let phase = coordinator_protocol::Phase::Write;
            return self.done(key, round, Done::Progress(phase, u64::from(step), 3));
        }
        let done = self.write_part(key, round);
        self.done(key, round, done);
    }

    /// Everybody on the node runs again: bytes that were read out go back first.
    pub(super) fn let_go(&mut self, node: NodeId) {
        self.put_back(node);
        let it: &mut Node = &mut self.nodes[node.0 as usize];
        it.parked = None;
        it.board.outgoing.clear();
        it.board.incoming.retain(|_, ledger| !ledger.delivered);
        self.log_node(node, || "runs".into());
    }

    pub(super) fn end_node(&mut self, node: NodeId, reason: String) {
        self.log_node(node, || format!("ends: {reason}"));
        self.check_end(node, &reason);
        let it = &mut self.nodes[node.0 as usize];
        (it.ended, it.parked) = (Some(reason), None);
        it.agent = None;
        self.break_sessions_of(node);
    }
}
