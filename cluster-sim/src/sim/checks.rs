//! What must hold, each property under its name.

use coordinator_protocol::node::{NodeId, Round, Stage};

use super::disk::Disk;
use super::job::byte;
use super::world::World;

/// A node that has stood still for this long, and will go on doing so, µs: every deadline and lease of a round, a time-out
/// for bytes that cannot be brought back, and what was injected, are shorter together.
const PATIENCE: u64 = 300_000_000;

impl World {
    /// *Two barriers, and every picture of one moment*: whoever captures, captures while no thread of the job runs and
    /// nothing is on the wire.
    pub(super) fn check_capture(&mut self, node: NodeId) {
        let running = (0..self.nodes.len()).find(|it| self.nodes[*it].lives() && self.nodes[*it].parked.is_none());
        if let Some(running) = running {
            self.suspect(node, format!("{node} captures while node {running} runs"));
        }
        let wet = self.streams.iter().find(|it| !it.queue.is_empty()).map(|it| format!("{} → {}", it.from, it.to));
        if let Some(stream) = wet {
            self.suspect(node, format!("{node} captures while bytes are on the wire: {stream}"));
        }
    }

    /// It is wrong only if that round is committed: a round that is being called off may be captured by one who has not
    /// heard of it yet. [`World::check_committed`] then finds the picture torn.
    fn suspect(&mut self, node: NodeId, how: String) {
        self.log_node(node, || format!("(suspect: {how})"));
    }

    /// *Two barriers*: not more, not fewer.
    pub(super) fn check_barriers(&mut self) {
        let passed = self.head.as_ref().and_then(|head| head.machine.director()).map_or(0, |it| it.barriers());
        if passed != 2 {
            self.broken("two barriers", format!("{passed} were passed"));
        }
    }

    /// *Committed means restorable*: at that moment, also after a power cut at that moment.
    pub(super) fn check_committed(&mut self, round: Round) {
        let left = self.disk.after_power_cut();
        if let Err(how) = self.is_restorable(&left, round) {
            self.broken("committed means restorable", how);
        }
        let again = self.disk.folders.iter().filter(|(it, _)| **it == round).count();
        if again != 1 {
            self.broken("one outcome per round", format!("{round} has {again} folders"));
        }
    }

    /// *One outcome per round*: what was said to have failed has not got its final name.
    pub(super) fn check_failed(&mut self, round: Option<Round>) {
        let named = round.and_then(|round| self.disk.folders.get(&round)).is_some_and(|folder| folder.named);
        if named {
            self.broken("one outcome per round", format!("{round:?} failed and is committed"));
        }
    }

    /// *The job lives*: nobody ends it without a reason.
    pub(super) fn check_end(&mut self, node: NodeId, reason: &str) {
        let committed = self.nodes[node.0 as usize].board.standing.kill && reason.contains("is committed");
        if !committed && !self.killed_by_commit && !self.plan.may_end_the_job() {
            self.broken("the job lives", format!("{node} ends: {reason}"));
        }
    }

    /// After every event: nothing that would be found only at the end is wrong already.
    pub(super) fn check_always(&mut self) {
        for number in 0..self.nodes.len() {
            let Some(since) = self.nodes[number].parked else { continue };
            if self.nodes[number].lives() && self.now_us > since.max(self.calm_from) + PATIENCE {
                self.broken("every wait ends", format!("node {number} has stood still since {} ms", since / 1000));
            }
        }
    }

    /// *Every wait ends*: some time after the last fault all is quiet.
    pub(super) fn check_patience(&mut self) {
        let last_wish = self.plan.wishes.iter().map(|(at, _)| *at).max().unwrap_or_default();
        if self.faults_planned == 0 && self.now_us > self.calm_from.max(last_wish) + 2 * PATIENCE {
            let what = self.what_is_not_quiet();
            self.broken("every wait ends", what.unwrap_or_else(|| "all is quiet, and the run goes on".into()));
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.faults_planned == 0 && self.now_us > self.calm_from && self.what_is_not_quiet().is_none()
    }

    fn what_is_not_quiet(&self) -> Option<String> {
        if self.wishes_to_come > 0 {
            return Some("somebody is going to ask for a checkpoint".into());
        }
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.lives()) {
            let Some(agent) = &node.agent else { return Some(format!("node {number} has no agent")) };
            let standing = agent.deputy.standing();
            if node.parked.is_some() || !standing.stage.is_over() || !agent.deputy.is_settled() {
                return Some(format!("node {number} is {} ({})", standing.stage.deed(), standing.round));
            }
            if agent.session.is_none() {
                return Some(format!("node {number} is not connected"));
            }
        }
        let Some(head) = &self.head else { return Some("there is no coordinator".into()) };
        let ended = self.nodes.iter().all(|node| !node.lives());
        if !ended && (head.machine.director().is_some() || head.machine.waiting() > 0) {
            return Some("a checkpoint has no outcome yet".into());
        }
        None
    }

    pub(super) fn check_at_the_end(&mut self) {
        if self.outcome.broken.is_some() {
            return;
        }
        self.check_disk();
        self.check_verdicts();
        self.check_bytes();
    }

    /// *Committed means restorable*: whatever has its final name after a power cut is whole.
    fn check_disk(&mut self) {
        let left = self.disk.after_power_cut();
        let named: Vec<Round> = left.folders.iter().filter(|(_, it)| it.named).map(|(round, _)| *round).collect();
        for round in named {
            if let Err(how) = self.is_restorable(&left, round) {
                self.broken("committed means restorable", how);
            }
        }
    }

    /// *One outcome per round*: every node that is left has heard what the disk says.
    fn check_verdicts(&mut self) {
        for number in 0..self.nodes.len() {
            let standing = self.nodes[number].board.standing.clone();
            let named = self.disk.folders.get(&standing.round).is_some_and(|folder| folder.named);
            let (done, lives) = (standing.stage == Stage::Done, self.nodes[number].lives());
            if lives && done != named {
                let stage = standing.stage.deed();
                self.broken(
                    "one outcome per round",
                    format!("node {number} is {stage} in {} ({named})", standing.round),
                );
            }
            if lives && named && standing.kill {
                self.broken("one outcome per round", format!("node {number} lives on after a checkpoint with kill"));
            }
        }
    }

    /// *No byte lost or doubled*: once everybody has run on for a while, all that was sent was received.
    fn check_bytes(&mut self) {
        if self.nodes.iter().any(|node| !node.lives()) {
            return;
        }
        for number in 0..self.streams.len() {
            let stream = &mut self.streams[number];
            while !stream.queue.is_empty() || !stream.buffer.is_empty() {
                stream.transmit(usize::MAX);
                if let Err(wrong) = stream.receive(usize::MAX) {
                    return self.broken("no byte lost or doubled", wrong);
                }
            }
            let (sent, received) = (stream.sent, stream.received);
            if sent != received {
                let how = format!("{} → {}: {sent} sent, {received} received", stream.from, stream.to);
                return self.broken("no byte lost or doubled", how);
            }
        }
    }

    /// All parts are there, and what they say of each stream fits together.
    fn is_restorable(&self, disk: &Disk, round: Round) -> Result<(), String> {
        let folder = disk.folders.get(&round).filter(|folder| folder.named);
        let folder = folder.ok_or_else(|| format!("{round} has no folder with a final name"))?;
        let manifest = folder.manifest.as_ref().ok_or_else(|| format!("{round} has no manifest"))?;
        if manifest.nodes.len() != self.nodes.len() {
            return Err(format!("{round} has {} of {} nodes", manifest.nodes.len(), self.nodes.len()));
        }
        let part = |node: NodeId| folder.parts.get(&node).ok_or_else(|| format!("{round} has no part of {node}"));
        for (number, stream) in self.streams.iter().enumerate() {
            let sent = part(stream.from)?.image.sent.get(&number).copied().unwrap_or_default();
            let (received, waiting) = part(stream.to)?.image.received.get(&number).cloned().unwrap_or_default();
            let told = received + waiting.len() as u64;
            if sent != told {
                return Err(format!("{round}: {} had sent {sent}, {} knows of {told}", stream.from, stream.to));
            }
            let wrong = waiting.iter().zip(received..).find(|(got, number)| **got != byte(*number));
            if let Some((_, number)) = wrong {
                return Err(format!("{round}: byte {number} of {} → {} is wrong", stream.from, stream.to));
            }
        }
        Ok(())
    }
}
