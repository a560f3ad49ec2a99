//! Asking a job's agent.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator_protocol::{Answer, FrameError, Request, Status, decode, encode, read_limit};
use node_agent::job::{self, LiveJob};
use thiserror::Error;

/// How long a job whose agent hung up in mid-checkpoint may take to end: then that was why.
const JOB_ENDS: Duration = Duration::from_millis(1500);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// No agent listens.
    #[error("cannot reach the agent of job {job} ({name}): {source}")]
    Unreachable {
        #[allow(missing_docs)]
        job: String,
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot ask {socket}: {source}")]
    At {
        #[allow(missing_docs)]
        socket: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// It hung up, and its guardian is there.
    #[error("the agent died; the job runs on with another: ask again")]
    AgentDied,
    /// It hung up because there is no job any more.
    #[error("the job ended before it could answer")]
    JobEnded,
    /// Nothing for so long.
    #[error("the agent of job {job} does not answer within {within:?}")]
    Silent {
        #[allow(missing_docs)]
        job: String,
        #[allow(missing_docs)]
        within: Duration,
    },
    #[allow(missing_docs)]
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What the agent says.
    #[error("{0}")]
    Refused(String),
}

/// Sends a request and takes answers until the last; `told` sees those before it. `patience` is for each answer.
///
/// # Errors
/// No answer, or one that says no.
pub fn ask(
    job: &LiveJob,
    request: &Request,
    patience: Duration,
    mut told: impl FnMut(&Answer),
) -> Result<Answer, AskError> {
    let unreachable =
        |source| AskError::Unreachable { job: job.record.job.clone(), name: job.record.name.clone(), source };
    let job_ends = if *request == Request::Status { Duration::ZERO } else { JOB_ENDS };
    let mut stream = UnixStream::connect(job.folder.join(job::SOCKET)).map_err(unreachable)?;
    stream.set_read_timeout(Some(patience)).map_err(unreachable)?;
    // An agent that dies at this moment is noticed when its answer is missing.
    let _ = stream.write_all(&encode(request)?);
    let mut reader = BufReader::new(stream);
    loop {
        let mut frame = Vec::new();
        match reader.by_ref().take(read_limit()).read_until(b'\n', &mut frame) {
            Ok(_) if frame.ends_with(b"\n") => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(AskError::Silent { job: job.record.job.clone(), within: patience });
            }
            _ if ends_within(job, job_ends) => return Err(AskError::JobEnded),
            _ => return Err(AskError::AgentDied),
        }
        match decode(&frame)? {
            Answer::Failed { reason } => return Err(AskError::Refused(reason)),
            answer if answer.is_last() => return Ok(answer),
            answer => told(&answer),
        }
    }
}

/// The same of whoever listens at `socket`, with fewer words about who that is.
///
/// # Errors
/// No answer, or one that says no.
pub fn ask_at(socket: &Path, request: &Request, patience: Duration) -> Result<Answer, AskError> {
    let at = |source| AskError::At { socket: socket.to_path_buf(), source };
    let mut stream = UnixStream::connect(socket).map_err(at)?;
    stream.set_read_timeout(Some(patience)).map_err(at)?;
    stream.write_all(&encode(request)?).map_err(at)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut frame = Vec::new();
        reader.by_ref().take(read_limit()).read_until(b'\n', &mut frame).map_err(at)?;
        match decode(&frame)? {
            Answer::Failed { reason } => return Err(AskError::Refused(reason)),
            answer if answer.is_last() => return Ok(answer),
            _ => {}
        }
    }
}

/// How a job is, from its agent, or from the one that takes its place at this moment.
///
/// # Errors
/// As [`ask`].
pub fn status(job: &LiveJob, patience: Duration) -> Result<Status, AskError> {
    const TRIES: usize = 3;
    let mut last = AskError::AgentDied;
    for _ in 0..TRIES {
        match ask(job, &Request::Status, patience, |_| {}) {
            Ok(Answer::Status(status)) => return Ok(status),
            Ok(_) => return Err(AskError::Refused("the agent answered something else".into())),
            Err(AskError::AgentDied) => {}
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    Err(last)
}

/// Waits for a job to be gone, guardian and folder; false when it is still there.
pub fn ends_within(job: &LiveJob, time: Duration) -> bool {
    let until = std::time::Instant::now() + time;
    loop {
        if !job.folder.exists() && job::start_of(job.record.guardian) != Some(job.record.guardian_start) {
            return true;
        }
        if std::time::Instant::now() > until {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
