//! One frame is one line of JSON, `{"protocol":1,"message":…}`. `ckpt` sends one [`Request`] and reads [`Answer`]s until
//! one [`Answer::is_last`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::phase::Phase;

/// Version of the messages. A field may be added at any time; a change of meaning is a new version.
pub const PROTOCOL: u32 = 1;
/// Bytes of a frame with its newline, at most: a refusal that lists some thousand descriptors fits.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// What `ckpt` asks of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Take a checkpoint. One at a time: a second one waits for the first.
    Checkpoint {
        /// End the job once it is committed.
        kill: bool,
        /// Keep the job parked until it is committed, in place of making twins.
        stop: bool,
        /// No phase may take longer than this, s.
        timeout_s: Option<u64>,
    },
    /// How is the job?
    Status,
    /// Start a launcher's daemon on another node. Asked by `ckpt-rsh`, in place of ssh.
    Launch {
        /// As the launcher names it.
        host: String,
        /// What the launcher wants of ssh: options and a user.
        options: Vec<String>,
        /// For the user's shell there.
        line: String,
    },
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Another checkpoint is being taken; this one comes after it.
    Waiting,
    /// How far it is.
    Progress {
        #[allow(missing_docs)]
        phase: Phase,
        /// Bytes read and written so far; 0 before the phase `write`.
        done: u64,
        /// Bytes in all, 0 where unknown.
        total: u64,
    },
    /// It counts.
    Committed(Committed),
    /// It does not; the job runs on.
    Failed {
        /// For a person.
        reason: String,
    },
    #[allow(missing_docs)]
    Status(Status),
    /// The daemon runs. Its end is told by a file: who waits for it is of the job and holds no connection.
    Launched {
        /// Number of the launch in this job.
        id: u64,
    },
}

impl Answer {
    /// No more answers follow.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Progress { .. })
    }
}

/// How pages were frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In copy-on-write twins, read while the job computed on.
    #[default]
    Twin,
    /// The job stayed parked until all was written.
    Stop,
}

/// A committed generation and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    #[allow(missing_docs)]
    pub generation: u64,
    /// Its folder.
    pub path: String,
    /// From the first parked thread to the last that was let go, ms.
    pub stall_ms: f64,
    /// From request to commit, ms.
    pub total_ms: f64,
    /// Of the job's memory.
    pub bytes_read: u64,
    /// In the generation's files.
    pub bytes_stored: u64,
    /// Open file descriptions.
    pub files: u64,
    #[allow(missing_docs)]
    pub processes: u64,
    #[allow(missing_docs)]
    pub threads: u64,
    #[allow(missing_docs)]
    pub mode: Mode,
}

/// How a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Pid of the agent that answers.
    pub agent: u32,
    /// Pid of the coordinator; 0 where the job is on one node.
    #[serde(default)]
    pub coordinator: u32,
    /// Processes in the job.
    pub processes: u64,
    /// Newest generation that this life has committed or was restarted from.
    pub generation: Option<u64>,
    /// Of a checkpoint that is being taken.
    pub phase: Phase,
}

/// Why a frame was not understood.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Nothing of a sane peer is that long.
    #[error("a frame of more than {FRAME_BYTES_MAX} bytes")]
    TooLong,
    /// The peer is of another release.
    #[error("the other side speaks protocol {theirs}, this one {PROTOCOL}: use the ckpt that started the job")]
    Version {
        #[allow(missing_docs)]
        theirs: u32,
    },
    /// Bad bytes; the text names line and field.
    #[error("a frame that is not understood: {0}")]
    Syntax(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Frame<M> {
    protocol: u32,
    message: M,
}

#[derive(Deserialize)]
struct Head {
    protocol: u32,
}

/// A message as a frame, newline included.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut bytes = serde_json::to_vec(&Frame { protocol: PROTOCOL, message })?;
    bytes.push(b'\n');
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    Ok(bytes)
}

/// The message in a frame.
///
/// # Errors
/// Another version, bad bytes, too many of them.
pub fn decode<M: DeserializeOwned>(frame: &[u8]) -> Result<M, FrameError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    // The version first: what follows it may mean anything in another one.
    let head: Head = serde_json::from_slice(frame)?;
    if head.protocol != PROTOCOL {
        return Err(FrameError::Version { theirs: head.protocol });
    }
    Ok(serde_json::from_slice::<Frame<M>>(frame)?.message)
}

/// How many bytes to read for a line, one more than allowed so that [`decode`] notices.
#[must_use]
pub const fn read_limit() -> u64 {
    FRAME_BYTES_MAX as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Request {
        Request::Checkpoint { kill: true, stop: false, timeout_s: Some(5) }
    }

    #[test]
    fn what_is_sent_is_received() {
        let bytes = encode(&asked()).unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(decode::<Request>(&bytes).unwrap(), asked());
        let answers = [
            Answer::Waiting,
            Answer::Progress { phase: Phase::Write, done: 1, total: 2 },
            Answer::Committed(Committed { generation: 7, stall_ms: 0.5, ..Committed::default() }),
            Answer::Failed { reason: "two\nlines".into() },
            Answer::Status(Status { agent: 1, generation: Some(3), ..Status::default() }),
        ];
        for answer in answers {
            assert_eq!(decode::<Answer>(&encode(&answer).unwrap()).unwrap(), answer);
        }
    }

    #[test]
    fn only_the_end_is_last() {
        assert!(!Answer::Waiting.is_last());
        assert!(!Answer::Progress { phase: Phase::Drain, done: 0, total: 0 }.is_last());
        assert!(Answer::Failed { reason: String::new() }.is_last());
    }

    #[test]
    fn another_version_is_named() {
        let error = decode::<Request>(br#"{"protocol":9,"message":{"what":1}}"#).unwrap_err();
        assert!(error.to_string().contains("protocol 9"), "{error}");
    }

    #[test]
    fn bad_bytes_are_errors() {
        for bytes in [&b""[..], b"\xff", b"{}", b"[]", br#"{"protocol":1,"message":{"checkpoint":{"kill":true}}}"#] {
            assert!(matches!(decode::<Request>(bytes), Err(FrameError::Syntax(_))), "{bytes:?}");
        }
    }

    #[test]
    fn a_frame_has_a_limit() {
        let reason = "x".repeat(FRAME_BYTES_MAX);
        assert!(matches!(encode(&Answer::Failed { reason }), Err(FrameError::TooLong)));
        assert!(matches!(decode::<Answer>(&vec![b' '; FRAME_BYTES_MAX + 1]), Err(FrameError::TooLong)));
    }
}
