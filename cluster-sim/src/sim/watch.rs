//! What an agent looks at again and again: send queues that are to run empty, buffers that are read out.

use std::collections::BTreeSet;

use coordinator_protocol::node::{Flow, NodeId, Round, Stage, StuckFlow};
use coordinator_protocol::round::Done;

use super::event::{AgentKey, Event};
use super::node::Watch;
use super::world::World;

const MS: u64 = 1000;
/// A stream that has not got on for this long is stuck, µs.
const STUCK: u64 = 5 * MS;

impl World {
    /// One look, and the next is planned while there is something to look at.
    pub(super) fn look(&mut self, key: AgentKey) {
        let Some(agent) = self.agent(key) else { return };
        let standing = agent.deputy.standing();
        let (round, stage) = (standing.round, standing.stage);
        agent.watch.planned = false;
        if stage.is_over() {
            return;
        }
        for number in 0..self.streams.len() {
            self.transmit(number);
        }
        self.look_at_queues(key, round, stage);
        self.look_at_buffers(key, round);
        self.plan_look(key);
    }

    pub(super) fn plan_look(&mut self, key: AgentKey) {
        let took = self.takes(MS);
        let now_us = self.now_us;
        let Some(agent) = self.agent(key) else { return };
        let Watch { planned, flush_until, single, reading, .. } = &mut agent.watch;
        if !*planned && (flush_until.is_some() || !single.is_empty() || !reading.is_empty()) {
            *planned = true;
            self.queue.push(now_us + took, Event::Look(key));
        }
    }

    fn look_at_queues(&mut self, key: AgentKey, round: Round, stage: Stage) {
        let Some(agent) = self.agent(key) else { return };
        let flushing = agent.watch.flush_until.filter(|_| stage == Stage::Flushing);
        let left: BTreeSet<Flow> = agent.watch.left.iter().map(|edge| edge.outgoing()).collect();
        let single = agent.watch.single.clone();
        let mut busy = 0;
        for number in 0..self.streams.len() {
            let stream = &self.streams[number];
            let (flow, held, moved) = (stream.flow, stream.queue.len() as u64, stream.moved);
            if stream.from != key.node || left.contains(&flow) {
                continue;
            }
            let Some(agent) = self.agent(key) else { return };
            let was_stuck = agent.watch.stuck.contains(&flow);
            if held == 0 && (single.contains(&flow) || was_stuck) {
                agent.watch.single.remove(&flow);
                agent.watch.stuck.remove(&flow);
                self.done(key, round, Done::Emptied(flow));
            } else if held > 0 && flushing.is_some() {
                busy += 1;
                if !was_stuck && self.is_still(key, flow, moved) {
                    let Some(agent) = self.agent(key) else { return };
                    agent.watch.stuck.insert(flow);
                    self.done(key, round, Done::Stuck(StuckFlow { flow, unacknowledged: held }));
                }
            }
        }
        let Some(until) = flushing else { return };
        if busy == 0 {
            self.agent(key).into_iter().for_each(|agent| agent.watch.flush_until = None);
            self.done(key, round, Done::Quiet);
        } else if self.now_us >= until {
            self.agent(key).into_iter().for_each(|agent| agent.watch.flush_until = None);
            self.done(key, round, Done::Failed(format!("{busy} connections do not run empty")));
        }
    }

    fn is_still(&mut self, key: AgentKey, flow: Flow, moved: u64) -> bool {
        let now_us = self.now_us;
        let Some(agent) = self.agent(key) else { return false };
        let (last, since) = agent.watch.still.entry(flow).or_insert((moved, now_us));
        if *last != moved {
            (*last, *since) = (moved, now_us);
        }
        now_us - *since >= STUCK
    }

    fn look_at_buffers(&mut self, key: AgentKey, round: Round) {
        let Some(agent) = self.agent(key) else { return };
        for flow in agent.watch.reading.clone() {
            if let Some(upto) = self.take_out(key.node, flow) {
                self.done(key, round, Done::Read(flow, upto));
            }
        }
    }

    /// Takes what is in a receiver's buffer into the ledger; how much is there then, if that is more.
    pub(super) fn take_out(&mut self, node: NodeId, flow: Flow) -> Option<u64> {
        let number = *self.flows.get(&flow)?;
        for end in [node, self.streams[number].from] {
            if self.nodes[end.0 as usize].lives() && self.nodes[end.0 as usize].parked.is_none() {
                self.broken("no byte lost or doubled", format!("a stream is read out at {node} while {end} runs"));
            }
        }
        let most = if self.plan.calm { usize::MAX } else { self.rng.usize(1..40) };
        let stream = &mut self.streams[number];
        let ledger = self.nodes[node.0 as usize].board.incoming.get_mut(&flow)?;
        let bytes = most.min(stream.buffer.len());
        ledger.bytes.extend(stream.buffer.drain(..bytes));
        (bytes > 0).then_some(ledger.bytes.len() as u64)
    }
}
