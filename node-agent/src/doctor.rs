//! What this machine lets an ordinary user do, found out by doing it: versions lie (back-ports, containers, profiles).
//!
//! Everything is tried in processes of its own; nothing is left behind.

use std::fs;
use std::io;

mod namespaces;
mod parts;
mod sys;

pub use namespaces::{Obstacle, Step};

/// How much depends on a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No checkpoint without it.
    Checkpoint,
    /// No restart without it.
    Restart,
    /// It costs time or memory when it is missing.
    Speed,
}

impl Need {
    /// What does not work without it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Restart => "restart",
            Self::Speed => "speed",
        }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is, in the kernel's words.
    pub what: &'static str,
    #[allow(missing_docs)]
    pub need: Need,
    /// `None` = it works; else what went wrong and what to do.
    pub trouble: Option<String>,
}

/// Tries everything. Call it in a process of one thread: it forks.
#[must_use]
pub fn examine() -> Vec<Finding> {
    let mut findings = parts::examine();
    findings.push(Finding {
        what: "user, pid, mount, ipc, uts and time namespaces, own /proc, chosen pids (clone3 set_tid)",
        need: Need::Restart,
        trouble: namespaces::examine().err().map(|obstacle| format!("{obstacle}{}", remedy(&obstacle))),
    });
    findings
}

/// What its administrator can do about an obstacle, for the distributions that are known to put it there.
fn remedy(obstacle: &Obstacle) -> String {
    let setting = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok().map(|it| it.trim().to_owned())
    };
    if setting("kernel.apparmor_restrict_unprivileged_userns").is_some_and(|it| it == "1") {
        return "; Ubuntu 24.04 and later: an AppArmor profile with `userns,` for ckpt-restart, or \
                `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
            .into();
    }
    if setting("kernel.unprivileged_userns_clone").is_some_and(|it| it == "0") {
        return "; Debian: `sysctl kernel.unprivileged_userns_clone=1`".into();
    }
    if setting("user.max_user_namespaces").is_some_and(|it| it == "0") {
        return "; RHEL: `sysctl user.max_user_namespaces=15000`".into();
    }
    match obstacle.step {
        Step::MountProc => {
            "; something is mounted below /proc, as in containers: one clean mount of proc anywhere cures it".into()
        }
        Step::SetTid => "; the kernel is older than 5.5, or a seccomp profile filters clone3".into(),
        _ if obstacle.errno() == Some(libc::EPERM) => {
            "; in a container: allow unshare and clone with namespaces".into()
        }
        _ => String::new(),
    }
}

/// For findings.
fn trouble<T>(result: io::Result<T>, remedy: &str) -> Option<String> {
    result.err().map(|error| format!("{error}; {remedy}"))
}
