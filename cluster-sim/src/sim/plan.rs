//! What a run is to be: decided by a seed, or written by hand.

use coordinator_protocol::Mode;
use coordinator_protocol::coordinator::Wish;
use coordinator_protocol::node::{Outside, Stage};
use fastrand::Rng;

use super::fault::{Fault, When};

/// A run before it has begun.
#[derive(Clone, Debug)]
pub struct Plan {
    #[allow(missing_docs)]
    pub seed: u64,
    #[allow(missing_docs)]
    pub nodes: u32,
    /// Sender, receiver, bytes in the sender's kernel and in the receiver's, at most.
    pub streams: Vec<(u32, u32, usize, usize)>,
    /// When somebody asks for what.
    pub wishes: Vec<(u64, Wish)>,
    #[allow(missing_docs)]
    pub faults: Vec<(When, Fault)>,
    /// Agents reach each other directly.
    pub direct: bool,
    /// Everything takes as long as it usually does, and no word gets lost.
    pub calm: bool,
    /// A node without contact for this long is given up, µs.
    pub agent_timeout_us: u64,
}

const SECOND: u64 = 1_000_000;

impl Plan {
    /// A calm run without faults, for scenarios to fill.
    #[must_use]
    pub fn calm(nodes: u32) -> Self {
        let (streams, wishes, faults) = (Vec::new(), Vec::new(), Vec::new());
        let agent_timeout_us = 30 * SECOND;
        Self { seed: 0, nodes, streams, wishes, faults, direct: true, calm: true, agent_timeout_us }
    }

    /// Whatever the seed says.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let nodes = rng.u32(1..=6);
        let mut streams = Vec::new();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                if rng.u32(..3) > 0 {
                    streams.push((from, to, rng.usize(1..200), rng.usize(1..100)));
                }
            }
        }
        let wishes = (0..rng.u32(1..=3)).map(|_| (rng.u64(0..20 * SECOND), wish(rng))).collect();
        let severe = rng.u32(..4) == 0;
        let faults = (0..rng.u32(0..=4)).map(|_| (when(rng, nodes), fault(rng, nodes, severe))).collect();
        let (direct, agent_timeout_us) = (rng.bool(), 30 * SECOND);
        Self { seed, nodes, streams, wishes, faults, direct, calm: false, agent_timeout_us }
    }

    /// Something in it is allowed to cost the job its life.
    pub(super) fn may_end_the_job(&self) -> bool {
        self.faults.iter().any(|(_, fault)| fault.may_end_the_job(self.agent_timeout_us))
    }
}

fn wish(rng: &mut Rng) -> Wish {
    let mode = if rng.bool() { Mode::Twin } else { Mode::Stop };
    let timeout_s = (rng.u32(..4) == 0).then(|| rng.u64(1..20));
    Wish { mode, kill: rng.u32(..10) == 0, timeout_s, outside: Outside::Refuse }
}

fn when(rng: &mut Rng, nodes: u32) -> When {
    const STAGES: [Stage; 9] = [
        Stage::Parking,
        Stage::Flushing,
        Stage::Flushed,
        Stage::Capturing,
        Stage::Captured,
        Stage::Resuming,
        Stage::Writing,
        Stage::Written,
        Stage::Freeing,
    ];
    match rng.u32(..5) {
        0 => When::At(rng.u64(0..30 * SECOND)),
        1 => When::Commits(rng.u8(..5)),
        _ => {
            let stage = STAGES[rng.usize(..STAGES.len())];
            let later = if rng.bool() { 0 } else { rng.u64(..200_000) };
            When::Reaches(rng.u32(..nodes), stage, rng.u32(..2), later)
        }
    }
}

fn fault(rng: &mut Rng, nodes: u32, severe: bool) -> Fault {
    let node = rng.u32(..nodes);
    let other = if nodes > 1 { rng.u32(1..nodes) } else { 0 };
    if severe && nodes > 1 && rng.bool() {
        return match rng.u32(..4) {
            0 => Fault::PowerOff(other),
            1 => Fault::Cut(other, rng.u64(10 * SECOND..90 * SECOND)),
            2 => Fault::Freeze(other, rng.u64(10 * SECOND..90 * SECOND)),
            _ => Fault::KillCoordinator(rng.u64(10 * SECOND..90 * SECOND)),
        };
    }
    match rng.u32(..14) {
        0..=1 => Fault::KillAgent(node),
        2..=3 => Fault::KillAgentAfter(node, rng.u32(..6)),
        4..=5 => Fault::KillCoordinator(rng.u64(10_000..8 * SECOND)),
        6 => Fault::Cut(other, rng.u64(1000..14 * SECOND)),
        7 => Fault::Freeze(node, rng.u64(1000..14 * SECOND)),
        8 => Fault::FreezeCoordinator(rng.u64(1000..14 * SECOND)),
        9 => Fault::BreakSession(node),
        10 => Fault::DiskFull(rng.u64(1000..5 * SECOND)),
        11 => Fault::SyncFails,
        12 => Fault::DiskSlow(rng.u64(SECOND..10 * SECOND)),
        _ if rng.bool() => Fault::Unparkable(node),
        _ => Fault::Cancel,
    }
}
