//! The deeds of a round of many nodes, in a thread of their own: the coordinator's word may come, or be missed, meanwhile.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::Phase;
use coordinator_protocol::node::{DataFile, Edge, EdgeState, ModelFile, NodeId, Park, Receipt, Round as Number};
use coordinator_protocol::round::{Deed, Done};
use node_agent_image::model::Remote;
use node_agent_image::receipt::Receipt as Written;

use super::link::Input;
use super::serve::lock;
use super::{Agent, CheckpointContext};
use crate::checkpoint::Round;
use crate::files::{Across, Unsent};
use crate::guardian::board::Progress;
use crate::guardian::sys;

/// Between two looks at send queues.
const LOOK_AGAIN: Duration = Duration::from_micros(300);
/// How long an answer that is handed on may take.
const SAYS_SO: Duration = Duration::from_secs(2);
/// How often the coordinator is told how far the writing is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is at hand in a round.
struct Hands<'a> {
    park: &'a Park,
    across: Across,
    round: Round<'a>,
    inputs: &'a Sender<Input>,
    deeds: &'a Receiver<Deed>,
    progress: &'a Progress,
}

/// What comes after a deed.
enum Next {
    /// Another deed of this round.
    Deed,
    /// The round is over on this node.
    Over,
}

impl Agent<'_> {
    /// Does deeds as long as there may be any.
    pub(super) fn work(&self, deeds: &Receiver<Deed>, inputs: &Sender<Input>) {
        while let Ok(deed) = deeds.recv() {
            match deed {
                Deed::Park(park) => {
                    let _round = lock(&self.round);
                    self.take_part(&park, deeds, inputs);
                    self.life.board.progress.enter(Phase::Idle);
                }
                // Of a round that has ended here already.
                Deed::Free(round) => say(inputs, round, Done::Freed),
                Deed::Resume(round) => say(inputs, round, Done::Resumed(0)),
                Deed::End(reason) => self.end(&reason, None),
                _ => {}
            }
        }
    }

    fn take_part(&self, park: &Park, deeds: &Receiver<Deed>, inputs: &Sender<Input>) {
        let number = park.round;
        let context = CheckpointContext {
            life: self.life,
            guardian: self.guardian,
            node: self.life.record.node,
            mode: park.mode,
            kill: park.kill,
            deadlines: park.deadlines,
            progress: &self.life.board.progress,
        };
        let parked = Round::begin(&context).and_then(|mut round| {
            round.park()?;
            let across = round.across()?;
            Ok((round, across))
        });
        let (round, across) = match parked {
            Ok(parked) => parked,
            Err(error) => return say(inputs, number, Done::Failed(error.to_string())),
        };
        let edges = across.edges().map(|(local, remote, pid)| Edge { local, remote, state: EdgeState::Open, pid });
        say(inputs, number, Done::Parked(edges.collect()));
        let progress = &self.life.board.progress;
        let mut hands = Hands { park, across, round, inputs, deeds, progress };
        while let Ok(deed) = deeds.recv() {
            if let Deed::End(reason) = &deed {
                return self.end(reason, Some(&mut hands));
            }
            if matches!(hands.obey(deed), Next::Over) {
                return;
            }
        }
    }

    /// The job is over on this node, perhaps since it was so wished after a commit.
    fn end(&self, reason: &str, hands: Option<&mut Hands<'_>>) {
        if let Some(hands) = hands
            && hands.park.kill
        {
            let ended = hands.round.end(hands.park.generation);
            ended.unwrap_or_else(|error| eprintln!("{}: {error}", self.life.tool));
            // The guardian waits for this agent: first whoever asked is told, and the coordinator.
            let until = Instant::now() + SAYS_SO;
            while self.relays.load(Ordering::Acquire) > 0 && Instant::now() < until {
                thread::sleep(LOOK_AGAIN);
            }
            self.take_leave();
            self.end_elsewhere();
            sys::exit_now(0);
        }
        eprintln!("{}: {reason}", self.life.tool);
        self.end_elsewhere();
    }

    /// On the first node the root's end is the job's.
    fn end_elsewhere(&self) {
        if self.life.record.node != 0 {
            self.life.board.end();
            let _ = self.life.to_guardian.write(1);
        }
    }
}

impl Hands<'_> {
    fn obey(&mut self, deed: Deed) -> Next {
        let done = match deed {
            Deed::Flush(_) => return self.flush(),
            Deed::Capture(_, peers) => self.capture(&peers).map(|()| Done::Captured),
            Deed::Resume(_) => {
                self.round.resume();
                Ok(Done::Resumed((self.round.stall_ms() * 1e3) as u64))
            }
            Deed::Write(_) => self.write().map(Done::Written),
            Deed::Free(round) => {
                // Dropped by the caller: before it says so, nobody may be parked.
                self.round.resume();
                say(self.inputs, round, Done::Freed);
                return Next::Over;
            }
            Deed::ReadOut(_, flow, _) => {
                Err(format!("the connection {} → {} is full and has to be read out", flow.from, flow.to))
            }
            _ => return Next::Deed,
        };
        self.say(done.unwrap_or_else(Done::Failed));
        Next::Deed
    }

    /// Until nothing that was sent here is on its way; or until something else is wanted.
    fn flush(&mut self) -> Next {
        let until = Instant::now() + Duration::from_millis(self.park.deadlines.drain_ms);
        let mut left_alone = BTreeSet::new();
        loop {
            let unsent = match self.across.unsent() {
                Ok(unsent) => unsent,
                Err(error) => {
                    self.say(Done::Failed(format!("cannot ask a connection's send queue: {error}")));
                    return Next::Deed;
                }
            };
            let waits = unsent.iter().find(|it| !left_alone.contains(&(it.local, it.remote)));
            let Some(waits) = waits else {
                self.say(Done::Quiet);
                return Next::Deed;
            };
            if Instant::now() > until {
                self.say(Done::Failed(too_late(waits, self.park.deadlines.drain_ms)));
                return Next::Deed;
            }
            match self.deeds.try_recv() {
                Ok(Deed::Leave(_, edges)) => left_alone.extend(edges.iter().map(|it| (it.local, it.remote))),
                Ok(deed) => return self.obey(deed),
                Err(TryRecvError::Empty) => thread::sleep(LOOK_AGAIN),
                Err(TryRecvError::Disconnected) => return Next::Over,
            }
        }
    }

    fn capture(&mut self, peers: &[NodeId]) -> Result<(), String> {
        let edges = self.across.edges().zip(peers);
        let remotes: Vec<Remote> = edges.map(|((local, remote, _), node)| Remote::new(node.0, local, remote)).collect();
        self.round.capture(&remotes).map_err(|error| error.to_string())
    }

    fn write(&mut self) -> Result<Receipt, String> {
        let over = AtomicBool::new(false);
        let (inputs, number, progress) = (self.inputs, self.park.round, self.progress);
        let written = thread::scope(|scope| {
            let teller = scope.spawn(|| tell_progress(inputs, number, progress, &over));
            let written = self.round.write(Path::new(&self.park.dir));
            over.store(true, Ordering::Release);
            teller.thread().unpark();
            written
        });
        written.map(receipt).map_err(|error| error.to_string())
    }

    fn say(&self, done: Done) {
        say(self.inputs, self.park.round, done);
    }
}

fn say(inputs: &Sender<Input>, round: Number, done: Done) {
    // Nobody hears it when the agent ends.
    let _ = inputs.send(Input::Done(round, done));
}

fn tell_progress(inputs: &Sender<Input>, round: Number, progress: &Progress, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let (done, total) = progress.bytes();
        say(inputs, round, Done::Progress(progress.phase(), done, total));
        thread::park_timeout(PROGRESS_EVERY);
    }
}

fn too_late(it: &Unsent, waited_ms: u64) -> String {
    let Unsent { local, remote, bytes, holder } = it;
    format!("{bytes} bytes from {local} ({holder}) to {remote} have not arrived after {waited_ms} ms")
}

fn receipt(it: Written) -> Receipt {
    let data = it.data.into_iter().map(|it| DataFile { name: it.name, bytes: it.bytes });
    Receipt {
        model: ModelFile { name: it.model.name, bytes: it.model.bytes, xxh3_128: it.model.xxh3_128 },
        data: data.collect(),
        bytes_read: it.bytes_read,
        processes: it.processes,
        threads: it.threads,
        files: it.files,
    }
}
