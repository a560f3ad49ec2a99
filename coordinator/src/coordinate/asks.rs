//! The coordinator's socket in the job's folder, where the agent of the first node hands requests on.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::coordinator::{Wish, WishId};
use coordinator_protocol::node::Outside;
use coordinator_protocol::round::{Director, Step};
use coordinator_protocol::{Answer, Committed, Mode, Phase, Request, decode, encode, read_limit};
use node_agent::guardian::Life;
use node_agent::job::COORDINATOR_SOCKET;

use super::events::Event;

/// How often those who wait are told how far it is.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// They are told at least so often, though nothing has changed: then they know that there is a coordinator.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long somebody may take to say what he wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens, in a thread of its own.
pub fn listen(life: &Life, to: &Sender<Event>) -> io::Result<()> {
    let path = life.folder.path().join(COORDINATOR_SOCKET);
    let fresh = life.folder.path().join(format!(".{COORDINATOR_SOCKET}"));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    // A name that is there is one that answers.
    fs::rename(&fresh, &path)?;
    let (to, stop) = (to.clone(), life.record.stop);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let to = to.clone();
            thread::spawn(move || hear(stream, stop, &to));
        }
    });
    Ok(())
}

/// `always_stop`: checkpoints of this job are without twins.
fn hear(stream: UnixStream, always_stop: bool, to: &Sender<Event>) {
    let event = match ask(&stream) {
        Ok(Request::Launch { host, options, line }) => Event::Launch { stream, host, options, line },
        Ok(Request::Checkpoint { kill, stop, timeout_s }) => {
            let mode = if stop || always_stop { Mode::Stop } else { Mode::Twin };
            Event::Checkpoint { stream, wish: Wish { mode, kill, timeout_s, outside: Outside::Refuse } }
        }
        Ok(Request::Status) => return refuse(&stream, "agents know how they are"),
        Err(error) => return refuse(&stream, &error.to_string()),
    };
    let _ = to.send(event);
}

fn ask(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut frame = Vec::new();
    BufReader::new(stream.take(read_limit())).read_until(b'\n', &mut frame)?;
    decode(&frame).map_err(io::Error::other)
}

/// Says no. Who has gone away needs no answer.
pub fn refuse(stream: &UnixStream, reason: &str) {
    answer(stream, &Answer::Failed { reason: reason.to_owned() });
}

/// Says something.
pub fn answer(mut stream: &UnixStream, answer: &Answer) {
    if let Ok(frame) = encode(answer) {
        let _ = stream.write_all(&frame);
    }
}

/// Somebody who waits for a checkpoint; the clock, where there is no stream.
pub struct Asked {
    #[allow(missing_docs)]
    pub wish: WishId,
    stream: Option<UnixStream>,
    begun: Instant,
    told: Option<(Answer, Instant)>,
}

impl Asked {
    #[allow(missing_docs)]
    pub fn new(wish: WishId, stream: Option<UnixStream>) -> Self {
        Self { wish, stream, begun: Instant::now(), told: None }
    }

    #[allow(missing_docs)]
    pub fn is_by_the_clock(&self) -> bool {
        self.stream.is_none()
    }

    /// How far it is, when that has changed.
    pub fn tell(&mut self, how_far: &Answer) {
        let known = self.told.as_ref().is_some_and(|(told, when)| told == how_far && when.elapsed() < HEARTBEAT);
        if let (false, Some(stream)) = (known, &self.stream) {
            answer(stream, how_far);
            self.told = Some((how_far.clone(), Instant::now()));
        }
    }

    /// It counts.
    pub fn committed(self, cost: Committed) {
        let total_ms = self.begun.elapsed().as_secs_f64() * 1e3;
        if let Some(stream) = &self.stream {
            answer(stream, &Answer::Committed(Committed { total_ms, ..cost }));
        }
    }

    /// It does not.
    pub fn failed(self, reason: &str) {
        self.stream.iter().for_each(|stream| refuse(stream, reason));
    }
}

/// What those who wait are told of the round that is being taken.
pub fn how_far(director: Option<&Director>) -> Answer {
    let Some(director) = director else { return Answer::Waiting };
    let phase = match director.step() {
        Step::Park => Phase::Quiesce,
        Step::Flush => Phase::Drain,
        Step::Capture => Phase::Snapshot,
        Step::Write => Phase::Write,
        Step::Commit | Step::Settle => Phase::Commit,
        Step::Abort | Step::Over => Phase::Idle,
    };
    let (done, total) = director.progress();
    Answer::Progress { phase, done, total }
}
