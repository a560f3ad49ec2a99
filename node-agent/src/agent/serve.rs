//! One connection of `ckpt`: a request, answers until the last.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::{Answer, Mode, Request, Status, decode, encode, read_limit};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::getuid;

use super::{Agent, Wish};
use crate::guardian::sys;
use crate::tasks::Job;

/// How long somebody may take to say what he wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody who waits is told how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// He is told at least so often, though nothing has changed: then he knows that there is an agent.
const HEARTBEAT: Duration = Duration::from_secs(5);

impl Agent<'_> {
    /// Answers one request.
    pub(super) fn serve(&self, stream: UnixStream) {
        // The folder is closed to others; this is the second lock on the same door.
        let peer = getsockopt(&stream, sockopt::PeerCredentials);
        if !peer.is_ok_and(|it| it.uid() == getuid().as_raw() || it.uid() == 0) {
            return;
        }
        let answered = match ask(&stream) {
            Ok(Request::Status) => answer(&stream, &Answer::Status(self.status())),
            Ok(request @ Request::Launch { .. }) => {
                self.want_coordinator();
                self.relay(&stream, &request)
            }
            Ok(request @ Request::Checkpoint { .. }) if self.is_one_of_many() => self.relay(&stream, &request),
            Ok(Request::Checkpoint { kill, stop, timeout_s }) => {
                let mode = if stop || self.life.record.stop { Mode::Stop } else { Mode::Twin };
                self.checkpoint(&stream, Wish { kill, mode, timeout_s })
            }
            Err(error) => answer(&stream, &Answer::Failed { reason: error.to_string() }),
        };
        // Who has gone away needs no answer.
        drop(answered);
    }

    fn status(&self) -> Status {
        let agent = std::process::id();
        let processes = Job::of(self.life).pids().len() as u64;
        let board = self.life.board;
        Status {
            agent,
            coordinator: board.coordinator(),
            processes,
            generation: board.newest(),
            phase: board.progress.phase(),
        }
    }

    fn checkpoint(&self, stream: &UnixStream, wish: Wish) -> io::Result<()> {
        let handle = stream.try_clone()?;
        lock(&self.waiting).push(handle);
        if matches!(self.round.try_lock(), Err(TryLockError::WouldBlock)) {
            answer(stream, &Answer::Waiting)?;
        }
        let over = AtomicBool::new(false);
        let taken = thread::scope(|scope| {
            let teller = scope.spawn(|| self.tell_progress(stream, &over));
            let _round = lock(&self.round);
            let taken = self.take(wish);
            over.store(true, Ordering::Release);
            teller.thread().unpark();
            taken
        });
        let killed = taken.is_ok() && wish.kill;
        let said = answer(stream, &taken.map_or_else(failed, Answer::Committed));
        lock(&self.waiting).retain(|other| !same(other, stream));
        if killed {
            // The guardian waits for this agent: what it was asked for has been said.
            tell_all(&self.waiting, "the job was ended by another checkpoint --kill");
            sys::exit_now(0);
        }
        said
    }

    fn tell_progress(&self, stream: &UnixStream, over: &AtomicBool) {
        let mut last = (None, Instant::now());
        while !over.load(Ordering::Acquire) {
            let progress = &self.life.board.progress;
            let (done, total) = progress.bytes();
            let now = Some((progress.phase(), done, total));
            if last.0 != now || last.1.elapsed() > HEARTBEAT {
                let told = Answer::Progress { phase: progress.phase(), done, total };
                if answer(stream, &told).is_err() {
                    return;
                }
                last = (now, Instant::now());
            }
            thread::park_timeout(PROGRESS_EVERY);
        }
    }
}

/// Tells everybody who waits that nothing comes of it.
pub(super) fn tell_all(waiting: &Mutex<Vec<UnixStream>>, reason: &str) {
    for stream in lock(waiting).iter() {
        let _ = answer(stream, &Answer::Failed { reason: reason.to_owned() });
    }
}

fn failed(error: crate::checkpoint::CheckpointError) -> Answer {
    Answer::Failed { reason: error.to_string() }
}

fn ask(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut frame = Vec::new();
    BufReader::new(stream.take(read_limit())).read_until(b'\n', &mut frame)?;
    decode(&frame).map_err(io::Error::other)
}

pub(super) fn answer(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let frame = encode(answer).or_else(|error| encode(&Answer::Failed { reason: error.to_string() }));
    stream.write_all(&frame.map_err(io::Error::other)?)
}

fn same(one: &UnixStream, other: &UnixStream) -> bool {
    let inode = |it: &UnixStream| nix::sys::stat::fstat(it).map(|about| about.st_ino).ok();
    inode(one) == inode(other)
}

/// A thread of ours that panics takes the whole agent with it (panic = abort), so no lock is ever poisoned.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
