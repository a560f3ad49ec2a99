//! The coordinator's shell.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator_protocol::coordinator::{Coordinator, CoordinatorOutput, WishId, WishOutcome};
use coordinator_protocol::members::{Job, SessionId};
use coordinator_protocol::node::{Hello, NodeId, Order, Report, Round};
use coordinator_protocol::round::Commit;

use super::clock::Clock;
use super::disk::{Folder, Manifest};
use super::event::{Event, HeadStep};
use super::fault::When;
use super::network::Wire;
use super::words;
use super::world::World;

const MS: u64 = 1000;

/// A coordinator that lives.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) pid: u32,
    pub(super) machine: Coordinator,
    clock: Clock,
    timer: Option<u64>,
    commit: Option<Commit>,
    generations: BTreeMap<Round, u64>,
    /// Those that wait for their outcome.
    pub(super) wishes: BTreeMap<WishId, Round>,
}

impl World {
    pub(super) fn head_starts(&mut self) {
        self.heads += 1;
        let pid = self.heads;
        let job = Job { id: "job".into(), life: 0 };
        let timeout = Duration::from_micros(self.plan.agent_timeout_us);
        let mut machine = Coordinator::new(job, timeout, pid, self.disk.named());
        let zero_us = if self.plan.calm { 0 } else { self.rng.u64(..1_000_000_000) };
        let clock = Clock { zero_us, ..self.nodes[0].clock };
        // As the job's folder has them.
        for number in 0..self.plan.nodes {
            machine.expect(clock.show(self.now_us), NodeId(number), &format!("n{number}"));
        }
        let (commit, generations, wishes) = (None, BTreeMap::new(), BTreeMap::new());
        self.head = Some(Head { pid, machine, clock, timer: None, commit, generations, wishes });
        self.log_head(|| "starts".into());
        self.drive_head();
    }

    pub(super) fn kill_head(&mut self, back_after_us: u64) {
        if self.head.take().is_none() {
            return;
        }
        self.log_head(|| "dies".into());
        self.break_all_sessions();
        self.queue.push(self.now_us + back_after_us, Event::HeadStarts);
    }

    pub(super) fn wish(&mut self, number: usize) {
        let (_, wish) = self.plan.wishes[number];
        if self.head.is_none() {
            // Whoever asks is told that there is nobody.
            self.wishes_to_come -= 1;
            return;
        }
        self.wishes_to_come -= 1;
        self.log_head(|| {
            format!("is asked for a checkpoint: {:?}{}", wish.mode, if wish.kill { ", kill" } else { "" })
        });
        self.with_head(|machine, now| _ = machine.wish(now, wish));
    }

    pub(super) fn cancel(&mut self) {
        let Some(head) = &self.head else { return };
        if let Some(id) = head.wishes.keys().next().copied() {
            self.with_head(|machine, now| machine.cancel(now, id, "interrupted by the user"));
        }
    }

    pub(super) fn head_hears_hello(&mut self, session: u64, hello: &Hello) {
        self.with_head(|machine, now| machine.handle_hello(now, SessionId(session), hello));
    }

    pub(super) fn head_hears(&mut self, session: u64, report: Report) {
        self.with_head(|machine, now| drop(machine.handle_report(now, SessionId(session), report)));
    }

    pub(super) fn head_sees_broken(&mut self, session: u64) {
        let pid = self.sessions.get(&session).map(|it| it.head);
        if self.head.as_ref().is_some_and(|head| Some(head.pid) == pid) {
            self.with_head(|machine, now| machine.handle_broken(now, SessionId(session)));
        }
    }

    pub(super) fn head_timer(&mut self, pid: u32) {
        let now_us = self.now_us;
        let Some(head) = self.head.as_mut().filter(|head| head.pid == pid) else { return };
        if head.timer.is_some_and(|at| at <= now_us) {
            head.timer = None;
            self.with_head(Coordinator::handle_timeout);
        }
    }

    fn with_head(&mut self, input: impl FnOnce(&mut Coordinator, Duration)) {
        let now_us = self.now_us;
        let Some(head) = &mut self.head else { return };
        let now = head.clock.show(now_us);
        input(&mut head.machine, now);
        self.drive_head();
    }

    fn drive_head(&mut self) {
        while let Some(output) = self.head.as_mut().and_then(|head| head.machine.poll_output()) {
            self.obey_head(output);
        }
        let now_us = self.now_us;
        let Some(head) = &mut self.head else { return };
        let at = head.machine.poll_timeout().map(|wants| head.clock.when(wants).max(now_us));
        if let Some(at) = at.filter(|at| head.timer.is_none_or(|planned| *at < planned)) {
            head.timer = Some(at);
            let pid = head.pid;
            self.queue.push(at, Event::HeadTimer(pid));
        }
    }

    fn obey_head(&mut self, output: CoordinatorOutput) {
        let Some(head) = &mut self.head else { return };
        match output {
            CoordinatorOutput::Greet(session, greeting) => self.send_to_agent(session.0, Wire::Greeting(greeting)),
            CoordinatorOutput::Close(session) => self.close_session(session.0),
            CoordinatorOutput::Send(session, order) => self.head_sends(session.0, order),
            CoordinatorOutput::Draft { wish, round, generation } => {
                head.generations.insert(round, generation);
                head.wishes.insert(wish, round);
                self.head_step_later(HeadStep::Folder(round));
            }
            CoordinatorOutput::Commit(commit) => {
                self.check_barriers();
                self.head.iter_mut().for_each(|head| head.commit = None);
                if let Some(head) = &mut self.head {
                    head.commit = Some(commit);
                }
                self.commits(0);
                self.head_step_later(HeadStep::Manifest);
            }
            CoordinatorOutput::Discard(round) => {
                self.log_head(|| format!("removes the folder of {round}"));
                self.disk.folders.remove(&round);
            }
            CoordinatorOutput::Outcome(id, outcome) => {
                let round = head.wishes.remove(&id);
                self.outcome_of(id, round, outcome);
            }
            CoordinatorOutput::Lost(node) => {
                self.log_head(|| format!("has lost {node}: ends the job"));
                self.with_head(|machine, _| machine.end("a node is lost"));
            }
        }
    }

    fn head_sends(&mut self, session: u64, order: Order) {
        if !matches!(order, Order::Relayed { .. }) {
            let node = self.sessions.get(&session).map(|it| it.key.node.0);
            self.log_head(|| {
                format!("→ n{} {}", node.map_or(String::from("?"), |it| it.to_string()), words::order(&order))
            });
        }
        self.send_to_agent(session, Wire::Order(order));
    }

    fn outcome_of(&mut self, id: WishId, round: Option<Round>, outcome: WishOutcome) {
        match outcome {
            WishOutcome::Committed(durable) => {
                let commit = durable.commit();
                let (generation, kill) = (commit.generation(), self.nodes[0].board.standing.kill);
                self.outcome.committed += 1;
                self.killed_by_commit |= kill;
                self.log_head(|| format!("generation {generation} is committed"));
                self.check_committed(commit.round());
            }
            WishOutcome::Failed { reason } => {
                self.outcome.failed += 1;
                self.log_head(|| format!("checkpoint {} failed: {reason}", id.0));
                self.check_failed(round);
            }
        }
    }

    fn head_step_later(&mut self, step: HeadStep) {
        let took = self.takes(if self.disk.slow { 50 * MS } else { 2 * MS });
        let Some(head) = &self.head else { return };
        let event = Event::HeadStep(head.pid, step);
        self.queue.push(self.now_us + took, event);
    }

    fn commits(&mut self, step: u8) {
        self.trigger(|when| (*when == When::Commits(step)).then_some(0));
    }

    /// A step of what the machine asked for, unless the coordinator has died since.
    pub(super) fn head_step(&mut self, pid: u32, step: HeadStep) {
        let Some(head) = self.head.as_mut().filter(|head| head.pid == pid) else { return };
        if let HeadStep::Folder(round) = step {
            let generation = head.generations.get(&round).copied().unwrap_or_default();
            return self.make_folder(round, generation);
        }
        let Some(round) = head.commit.as_ref().map(Commit::round) else { return };
        let nodes = head.commit.iter().flat_map(|commit| commit.receipts().keys().copied()).collect();
        let disk = &mut self.disk;
        let (next, number) = match step {
            HeadStep::Manifest | HeadStep::Folder(_) => {
                if let Err(reason) = disk.room() {
                    return self.refuse(reason);
                }
                let folder = disk.folders.entry(round).or_default();
                folder.manifest = Some(Manifest { nodes, synced: false });
                (HeadStep::Sync, 1)
            }
            HeadStep::Sync => {
                if let Err(reason) = disk.sync() {
                    return self.refuse(reason);
                }
                disk.folders.entry(round).or_default().manifest.iter_mut().for_each(|it| it.synced = true);
                (HeadStep::Rename, 2)
            }
            HeadStep::Rename => {
                disk.folders.entry(round).or_default().named = true;
                (HeadStep::SyncName, 3)
            }
            HeadStep::SyncName => {
                let folder = disk.folders.entry(round).or_default();
                folder.name_synced = true;
                if std::mem::take(&mut disk.sync_fails) {
                    // The name is taken back before anybody hears of it.
                    disk.folders.entry(round).and_modify(|it| (it.named, it.name_synced) = (false, false));
                    return self.refuse("cannot sync the folder: input/output error".into());
                }
                let Some(commit) = self.head.as_mut().and_then(|head| head.commit.take()) else { return };
                self.with_head(|machine, now| machine.handle_durable(now, commit.made_durable()));
                return self.commits(4);
            }
        };
        self.commits(number);
        self.head_step_later(next);
    }

    fn refuse(&mut self, reason: String) {
        let Some(commit) = self.head.as_mut().and_then(|head| head.commit.take()) else { return };
        self.with_head(|machine, now| machine.handle_not_durable(now, commit.refused(reason)));
    }

    fn make_folder(&mut self, round: Round, generation: u64) {
        let made = self.disk.room().map(|()| {
            self.disk.folders.insert(round, Folder { generation, ..Folder::default() });
            format!("/ckpt/.gen-{generation:06}.{}", round.0)
        });
        self.with_head(|machine, now| machine.handle_drafted(now, round, made));
    }
}
