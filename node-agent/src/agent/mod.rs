//! The agent's control loop: answers `ckpt`, takes checkpoints by the clock, ends the job when its guardian has died.
//!
//! Forked from the guardian, which replaces it when it dies: whatever it knows that must outlive it is in the segment,
//! in the ledger or on the board.

use std::os::fd::AsFd;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::{Committed, Deadlines, Mode, Phase};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::setsid;

use crate::checkpoint::{self, CheckpointError};
use crate::guardian::{Life, NextLife, sys};

mod comeback;
mod context;
mod link;
mod orphaned;
mod relay;
mod round;
mod serve;

pub use context::CheckpointContext;

/// Name of the agent in ps(1).
const NAME: &std::ffi::CStr = c"ckpt-agent";
/// How long after a failing poll the loop goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the threads of an agent share.
struct Agent<'life> {
    life: &'life Life,
    /// A restart of many nodes, that has still to be done.
    next: Option<&'life dyn NextLife>,
    guardian: u32,
    /// Held while a checkpoint is taken.
    round: Mutex<()>,
    /// How the link is reached, once there is one.
    inputs: Mutex<Option<Sender<link::Input>>>,
    /// Requests that are being handed on to the coordinator.
    relays: AtomicUsize,
    /// Set, and told, when other nodes are wanted.
    wanted: (Mutex<bool>, Condvar),
    /// Those that wait for an answer, to be told when the job ends.
    waiting: Mutex<Vec<std::os::unix::net::UnixStream>>,
}

/// What is asked of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    kill: bool,
    mode: Mode,
    timeout_s: Option<u64>,
}

/// All of an agent's life, in the process that the guardian has forked for it.
pub fn main(life: &Life, next: Option<&dyn NextLife>) -> ! {
    let guardian = life.record.guardian;
    if nix::unistd::getppid().as_raw() as u32 != guardian {
        orphaned::end_job(life); // it died before this process did anything
    }
    // Of a session of its own: Ctrl-C and Ctrl-Z are for the job.
    let _ = setsid();
    let _ = nix::sys::prctl::set_name(NAME);
    context::leave_streams();
    // With other nodes the coordinator says when.
    let next = if let (Some(next), false) = (next, life.record.nodes > 1) {
        comeback::alone(life, next);
        None
    } else {
        next
    };
    let agent = Agent {
        life,
        next,
        guardian,
        round: Mutex::new(()),
        inputs: Mutex::default(),
        relays: AtomicUsize::new(0),
        wanted: Default::default(),
        waiting: Mutex::default(),
    };
    thread::scope(|scope| {
        scope.spawn(|| agent.announce_ranks());
        scope.spawn(|| agent.link());
        agent.watch(scope)
    })
}

impl<'life> Agent<'life> {
    /// The loop. Does not return.
    fn watch<'scope>(&'scope self, scope: &'scope thread::Scope<'scope, '_>) -> ! {
        let (Ok(guardian), Ok(signals)) = (sys::pidfd_open(self.guardian), sys::signal_descriptor()) else {
            orphaned::end_job(self.life)
        };
        let every = self.life.record.every_s;
        let every = (every > 0).then(|| Duration::from_secs(every));
        let mut next = every.map(|every| Instant::now() + every);
        loop {
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
            let watched = [guardian.as_fd(), signals.as_fd(), self.life.listener.as_fd()];
            let mut fds = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if poll(&mut fds, timeout).is_err() {
                thread::sleep(LOOK_AGAIN);
            }
            let [orphaned, signalled, asked] = fds.map(|fd| fd.any() == Some(true));
            if orphaned {
                orphaned::end_job(self.life);
            }
            if signalled && sys::next_signal(signals.as_fd()).is_some_and(|it| it.signal == libc::SIGTERM) {
                self.leave();
            }
            if asked && let Ok((stream, _)) = self.life.listener.accept() {
                scope.spawn(move || self.serve(stream));
            }
            if let (Some(every), Some(due)) = (every, next)
                && due <= Instant::now()
            {
                next = Some(Instant::now() + every);
                scope.spawn(|| self.by_the_clock());
            }
        }
    }

    /// Whether the job has other nodes: then a checkpoint is the coordinator's.
    fn is_one_of_many(&self) -> bool {
        self.life.record.node != 0 || self.life.board.wants_coordinator()
    }

    /// The job has ended: whoever waits is told.
    fn leave(&self) -> ! {
        serve::tell_all(&self.waiting, "the job ended before the checkpoint was committed");
        self.take_leave();
        if !self.is_one_of_many() {
            checkpoint::clear_unfinished(&self.life.record.dir);
        }
        sys::exit_now(0)
    }

    /// Wakes the guardian whenever ranks were announced.
    fn announce_ranks(&self) -> ! {
        let mut known = 0;
        loop {
            let _ = self.life.to_guardian.write(1);
            known = self.life.control.wait_for_ranks(known);
        }
    }

    fn by_the_clock(&self) {
        let Ok(_round) = self.round.try_lock() else { return };
        if self.is_one_of_many() {
            return; // the coordinator has a clock of its own
        }
        let mode = if self.life.record.stop { Mode::Stop } else { Mode::Twin };
        if let Err(error) = self.take(Wish { mode, ..Wish::default() }) {
            eprintln!("{}: checkpoint by the clock: {error}; the job runs on", self.life.tool);
        }
    }

    /// One checkpoint; the caller holds `round`.
    fn take(&self, wish: Wish) -> Result<Committed, CheckpointError> {
        let progress = &self.life.board.progress;
        let context = CheckpointContext {
            life: self.life,
            guardian: self.guardian,
            node: self.life.record.node,
            mode: wish.mode,
            kill: wish.kill,
            deadlines: Deadlines::within(wish.timeout_s),
            progress,
        };
        let taken = checkpoint::take(&context);
        progress.enter(Phase::Idle);
        if let Ok(committed) = &taken {
            self.life.board.set_newest(committed.generation);
        }
        taken
    }
}
