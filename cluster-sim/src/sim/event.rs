//! What is going to happen, in its order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use coordinator_protocol::node::{Between, NodeId, Round};
use coordinator_protocol::round::Deed;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The job's processes on a node send and receive.
    Act(NodeId),
    /// A deed of an agent's is done.
    Deed(AgentKey, Round, Deed),
    /// An agent looks at send queues and buffers.
    Look(AgentKey),
    /// A write gets on.
    WriteGoesOn(AgentKey, Round, u32),
    /// A deputy's time-out is due.
    AgentTimer(AgentKey),
    /// An agent without a session tries to get one.
    Connect(AgentKey),
    /// A guardian notices that its agent is dead.
    GuardianSees(AgentKey),
    /// The next agent is forked.
    AgentStarts(NodeId),
    /// The coordinator's time-out is due.
    HeadTimer(u32),
    /// The coordinator's shell has done a step.
    HeadStep(u32, HeadStep),
    /// A coordinator is started.
    HeadStarts,
    /// The next message of a session arrives.
    ToHead(u64),
    /// The same, the other way.
    ToAgent(u64),
    /// An end of a session notices that it is broken.
    HeadSeesBroken(u64),
    /// The same, the other end.
    AgentSeesBroken(u64),
    /// An agent's words arrive directly.
    Datagram(NodeId, NodeId, Between),
    /// A planned fault.
    Fault(usize),
    /// A cut heals, a disk works again.
    Heal(usize),
    /// Somebody asks for a checkpoint.
    Wish(usize),
}

/// Which agent: a dead one's events are nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AgentKey {
    pub(super) node: NodeId,
    pub(super) incarnation: u32,
}

/// Steps of the coordinator's shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadStep {
    /// The round's folder is made.
    Folder(Round),
    /// The manifest is written.
    Manifest,
    /// It is synced.
    Sync,
    /// The folder gets its final name.
    Rename,
    /// The name is synced.
    SyncName,
}

/// Events by time, and those of one time in the order in which they were planned.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    count: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), count: 0 }
    }
}

impl<E> Queue<E> {
    pub(super) fn push(&mut self, at_us: u64, event: E) {
        let slot = self.free.pop().unwrap_or(self.events.len());
        if slot == self.events.len() {
            self.events.push(None);
        }
        self.events[slot] = Some(event);
        self.heap.push(Reverse((at_us, self.count, slot)));
        self.count += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at_us, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        Some((at_us, self.events[slot].take()?))
    }
}
