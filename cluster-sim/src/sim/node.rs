//! A node: its guardian, whose memory outlives agents; its agent; and whether its processes run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coordinator_protocol::node::{Edge, Flow, NodeId, Park, Standing};
use coordinator_protocol::round::{Deputy, Incoming, Outgoing, Remains};

use super::clock::Clock;
use super::job::Image;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) clock: Clock,
    /// Powered off.
    pub(super) gone: bool,
    /// The job was ended here, and why.
    pub(super) ended: Option<String>,
    pub(super) frozen_until: u64,
    /// The job's threads stand still, and since when.
    pub(super) parked: Option<u64>,
    /// A thread will not park in the next round.
    pub(super) unparkable: bool,
    pub(super) agent: Option<Agent>,
    pub(super) incarnations: u32,
    pub(super) board: Board,
}

/// What guardian and agents share, and what is left of a dead agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    pub(super) standing: Standing,
    pub(super) outgoing: BTreeMap<Flow, Ledger>,
    pub(super) incoming: BTreeMap<Flow, Ledger>,
}

/// What the ledger has of one stream.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    /// Where the other end is.
    pub(super) peer: NodeId,
    pub(super) bytes: VecDeque<u8>,
    /// It is known that this is all.
    pub(super) total: Option<u64>,
    /// Of an incoming one: the sender's node has it all.
    pub(super) delivered: bool,
}

/// A living agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) incarnation: u32,
    pub(super) deputy: Deputy,
    pub(super) session: Option<u64>,
    /// When its next time-out is planned.
    pub(super) timer: Option<u64>,
    /// Dies before it acts on its deputy's output after so many more.
    pub(super) dies_after: Option<u32>,
    pub(super) park: Option<Park>,
    /// What was captured. Twins end with the agent.
    pub(super) twin: Option<Image>,
    pub(super) watch: Watch,
}

/// What an agent looks at again and again.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// A look is planned.
    pub(super) planned: bool,
    /// All send queues, until they are empty; and until when, µs.
    pub(super) flush_until: Option<u64>,
    /// These only.
    pub(super) single: BTreeSet<Flow>,
    /// Streams out of the job, by their local ends.
    pub(super) left: Vec<Edge>,
    /// What had moved at the last look, and since when it has not moved on.
    pub(super) still: BTreeMap<Flow, (u64, u64)>,
    pub(super) stuck: BTreeSet<Flow>,
    pub(super) reading: BTreeSet<Flow>,
}

impl Board {
    pub(super) fn remains(&self) -> Remains {
        let outgoing = self.outgoing.iter().map(|(flow, ledger)| {
            let kept = ledger.bytes.len() as u64;
            let settled = ledger.total == Some(kept);
            let mut outgoing = Outgoing::stuck();
            (outgoing.holder, outgoing.owed) = (Some(ledger.peer), true);
            (outgoing.kept, outgoing.total, outgoing.settled) = (kept, ledger.total, settled);
            (*flow, outgoing)
        });
        let incoming = self.incoming.iter().map(|(flow, ledger)| {
            let mut incoming = Incoming::begun(ledger.peer);
            (incoming.read, incoming.total) = (ledger.bytes.len() as u64, ledger.total);
            incoming.delivered = ledger.delivered;
            (*flow, incoming)
        });
        Remains { standing: self.standing.clone(), outgoing: outgoing.collect(), incoming: incoming.collect() }
    }
}

impl Ledger {
    pub(super) const fn new(peer: NodeId) -> Self {
        Self { peer, bytes: VecDeque::new(), total: None, delivered: false }
    }
}

impl Node {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            gone: false,
            ended: None,
            frozen_until: 0,
            parked: None,
            unparkable: false,
            agent: None,
            incarnations: 0,
            board: Board::default(),
        }
    }

    /// It is there and has a job.
    pub(super) const fn lives(&self) -> bool {
        !self.gone && self.ended.is_none()
    }

    pub(super) fn runs(&self, now_us: u64) -> bool {
        self.lives() && self.parked.is_none() && now_us >= self.frozen_until
    }

    pub(super) fn now(&self, now_us: u64) -> Duration {
        self.clock.show(now_us)
    }
}
