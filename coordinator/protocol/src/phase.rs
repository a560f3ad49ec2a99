//! The phases of a checkpoint, in their order.
//!
//! ```text
//! quiesce → drain → snapshot ─(twin)──────────→ resume → write → commit
//!                           └─(--stop, --kill)→ write → commit → resume, or the job's end
//! any failure before commit: resume; the job runs on as if nobody had asked
//! ```

use serde::{Deserialize, Serialize};

/// Where a checkpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// None is being taken.
    #[default]
    Idle,
    /// Threads are being parked.
    Quiesce,
    /// Streams are being emptied.
    Drain,
    /// Processes, descriptors and layouts are being remembered; twins are made.
    Snapshot,
    /// Drained bytes go back, threads are let go.
    Resume,
    /// Pages are being read, packed and written.
    Write,
    /// The manifest is being synced, read back and renamed.
    Commit,
}

impl Phase {
    /// All of them; the index is the number that [`Phase::from_number`] takes.
    pub const ALL: [Self; 7] =
        [Self::Idle, Self::Quiesce, Self::Drain, Self::Snapshot, Self::Resume, Self::Write, Self::Commit];

    /// The phase that `self as u8` came from; an unknown number is [`Phase::Idle`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    /// The verb, as people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Quiesce => "quiesce",
            Self::Drain => "drain",
            Self::Snapshot => "snapshot",
            Self::Resume => "resume",
            Self::Write => "write",
            Self::Commit => "commit",
        }
    }
}

/// How long a phase may take, ms. When one has passed, the round fails and names its laggard; the job runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// Until every thread is parked: a thread in uninterruptible sleep on a slow file server is given this long.
    pub quiesce_ms: u64,
    /// Until every stream is empty.
    pub drain_ms: u64,
    /// Until one parked process has answered one command (a twin of a big process takes a while).
    pub command_ms: u64,
}

impl Deadlines {
    /// What a checkpoint has when its user names no time-out.
    pub const USUAL: Self = Self { quiesce_ms: 10_000, drain_ms: 20_000, command_ms: 60_000 };

    /// The usual deadlines, none longer than `timeout_s` seconds.
    #[must_use]
    pub fn within(timeout_s: Option<u64>) -> Self {
        let most = timeout_s.map_or(u64::MAX, |seconds| seconds.saturating_mul(1000));
        let Self { quiesce_ms, drain_ms, command_ms } = Self::USUAL;
        Self { quiesce_ms: quiesce_ms.min(most), drain_ms: drain_ms.min(most), command_ms: command_ms.min(most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_phases_agree() {
        for (number, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, number);
            assert_eq!(Phase::from_number(number as u8), phase);
        }
        assert_eq!(Phase::from_number(200), Phase::Idle);
    }

    #[test]
    fn a_time_out_shortens_deadlines_and_never_lengthens_them() {
        assert_eq!(Deadlines::within(None), Deadlines::USUAL);
        assert_eq!(Deadlines::within(Some(u64::MAX)), Deadlines::USUAL);
        assert_eq!(Deadlines::within(Some(1)), Deadlines { quiesce_ms: 1000, drain_ms: 1000, command_ms: 1000 });
    }
}
