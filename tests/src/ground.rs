//! Where product, MPIs and scratch folder are, and how long anything may take.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The longest that any program of the tests may run.
pub const RUN_LIMIT: Duration = Duration::from_secs(180);
/// The longest from `ckpt-restart` to the first sign of life.
pub const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// How often a bounded wait looks.
const LOOK: Duration = Duration::from_millis(5);

/// A variable that `cargo xtask test` sets.
pub(crate) fn told(variable: &str) -> PathBuf {
    match std::env::var_os(variable) {
        Some(value) => PathBuf::from(value),
        None => {
            panic!("{variable} is not set: these tests run under `cargo xtask test`, which installs what they need")
        }
    }
}

/// The installation: its bin/ has ckpt-run, ckpt and ckpt-restart.
pub fn prefix() -> PathBuf {
    let prefix = told("SLACKWATER_PREFIX");
    assert!(
        prefix.join("bin/ckpt-run").exists(),
        "no ckpt-run in {}/bin: `cargo xtask install --prefix {0}`",
        prefix.display()
    );
    prefix
}

/// A folder of ours on a real disk.
pub fn scratch() -> PathBuf {
    told("SLACKWATER_SCRATCH")
}

/// A file system of about 100 MB that a test may fill.
pub fn disk() -> PathBuf {
    match std::env::var_os("SLACKWATER_SMALL_DISK") {
        Some(folder) => PathBuf::from(folder),
        None => panic!(
            "there is no small file system to fill, and only root can mount one: run `cargo xtask test` as root or where sudo asks nothing"
        ),
    }
}

/// True with `cargo xtask test --full`: soak runs too.
pub fn full() -> bool {
    std::env::var_os("SLACKWATER_FULL").is_some_and(|value| !value.is_empty())
}

/// Looks until `ready` gives something, at most `limit`.
pub fn until<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK);
    }
}
