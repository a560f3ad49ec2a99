//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::limits::{
    ADDRESSES_MAX, HELLO_BYTES_MAX, JOB_BYTES_MAX, KEY_FILE_BYTES_MAX, MESSAGE_BYTES_MAX, OUTBOX_BYTES_MAX,
};

/// Why a server or a client was not started.
#[derive(Debug, Error)]
pub enum TransportError {
    #[allow(missing_docs)]
    #[error("cannot bind UDP port {port}: {source}")]
    Bind { port: u16, source: io::Error },
    #[allow(missing_docs)]
    #[error("cannot use the UDP socket: {0}")]
    Socket(#[source] io::Error),
    #[allow(missing_docs)]
    #[error("cannot start a thread for the network: {0}")]
    Thread(#[source] io::Error),
    /// Not of one job, or damaged.
    #[error("cannot use the job's keys: {0}")]
    Keys(String),
    /// Nowhere to connect to.
    #[error("the coordinator has {0} addresses, not 1 to {ADDRESSES_MAX}")]
    Addresses(usize),
    /// A time of zero, or one that QUIC cannot say.
    #[error("the time {0} is of no use")]
    Time(&'static str),
}

/// Why keys were not made, read or written.
#[derive(Debug, Error)]
pub enum KeysError {
    /// It stands in a certificate and in paths.
    #[error("the job's name {0:?} is not 1 to {JOB_BYTES_MAX} letters, digits, '-', '_' or '.'")]
    Job(String),
    #[allow(missing_docs)]
    #[error("cannot make a certificate: {0}")]
    Make(String),
    #[allow(missing_docs)]
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[allow(missing_docs)]
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    /// Somebody else may have read it.
    #[error("{path} is open to others (mode {mode:o}): its keys cannot be trusted; make it 0600 and its owner's")]
    #[allow(missing_docs)]
    Open { path: PathBuf, mode: u32 },
    #[allow(missing_docs)]
    #[error("{path} is longer than {KEY_FILE_BYTES_MAX} bytes")]
    TooLong { path: PathBuf },
    /// Not JSON, or not of ours, or of another version.
    #[error("cannot understand {path}: {reason}")]
    #[allow(missing_docs)]
    Format { path: PathBuf, reason: String },
}

/// Why a message was not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SendError {
    #[allow(missing_docs)]
    #[error("cannot send a message of {bytes} bytes: more than {MESSAGE_BYTES_MAX}")]
    TooLong { bytes: usize },
    /// The peer is cut off or does not keep up. The message may be sent again later.
    #[error("cannot send: {bytes} bytes of {OUTBOX_BYTES_MAX} wait for the peer already")]
    #[allow(missing_docs)]
    Full { bytes: usize },
    /// No `Welcomed` yet, or none again: there is no session to send in. Or the server has not answered this peer yet.
    #[error("cannot send: there is no session yet")]
    NoSession,
    /// The session was ended, turned away or lost.
    #[error("cannot send: the session is over")]
    Over,
}

/// The text for a hello that is too long; it reaches the caller as the reason of a loss.
pub(crate) fn hello_too_long(bytes: usize) -> String {
    format!("its hello has {bytes} bytes, more than {HELLO_BYTES_MAX}")
}
