//! New namespaces, entered by a process made for it: the guardian itself never leaves its own.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sched::{CloneFlags, unshare};

use super::board::Board;
use super::error::RestartError;
use super::sys::{self, Kinship};
use super::{RestartPlan, init, stand_in};
use crate::snapshot;

/// Makes the namespaces and pid 1 in them; returns pid 1 as this process sees it, which is then its child.
///
/// # Errors
/// Says which namespace or capability is refused, and what to change.
pub fn enter(plan: &RestartPlan<'_>, board: Board) -> Result<u32, RestartError> {
    let error = RestartError::system("fork", "a process for the job's namespaces");
    let Some(child) = sys::fork(Kinship::Child, None).map_err(error)? else {
        match unshare_all(plan) {
            Ok(()) => {}
            Err(error) => {
                board.fail(&error.to_string());
                sys::exit(1);
            }
        }
        match sys::fork(Kinship::Sibling, None) {
            Ok(None) => init::run(plan, board),
            Ok(Some(init)) => {
                board.head().init.store(init, std::sync::atomic::Ordering::Release);
                sys::exit(0);
            }
            Err(error) => {
                board.fail(&format!("cannot make pid 1 of the job: {error}"));
                sys::exit(1);
            }
        }
    };
    sys::wait(child as i32).map_err(RestartError::system("wait for", "the maker of namespaces"))?;
    if let Some(text) = board.failure() {
        return Err(RestartError::Inside(text));
    }
    let init = board.head().init.load(std::sync::atomic::Ordering::Acquire);
    if !board.wait_for(&board.head().ready, |ready| ready == 1) {
        let text = board.failure().unwrap_or_default();
        let _ = sys::wait(init as i32);
        return Err(RestartError::Inside(text));
    }
    Ok(init)
}

fn unshare_all(plan: &RestartPlan<'_>) -> Result<(), RestartError> {
    let meeting = plan.meeting.iter().map(|it| it.listener.as_raw_fd());
    let listeners = plan.meeting.iter().flat_map(|it| &it.listeners).map(|it| it.1.as_raw_fd());
    let keep: Vec<RawFd> = [plan.segment].into_iter().chain(plan.stdio).chain(meeting).chain(listeners).collect();
    stand_in::close_all_but(3, &keep).map_err(RestartError::system("close", "the guardian's descriptors"))?;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let refused = |deed: &'static str| {
        move |source: io::Error| RestartError::Namespaces { deed, uid: uid.as_raw(), remedy: remedy(), source }
    };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| refused("make a user namespace")(error.into()))?;
    let map = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    map("setgroups", "deny".into()).map_err(refused("give groups up in a user namespace"))?;
    map("uid_map", format!("{uid} {uid} 1")).map_err(refused("map a uid in a user namespace"))?;
    map("gid_map", format!("{gid} {gid} 1")).map_err(refused("map a gid in a user namespace"))?;
    // linux/sched.h; libc has no name for it.
    let time = CloneFlags::from_bits_retain(0x80);
    let others =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(others | time).map_err(|error| refused("make mount, pid, ipc, uts and time namespaces")(error.into()))?;
    fs::write("/proc/self/timens_offsets", clock_offsets(plan)).map_err(refused("set a time namespace's clocks"))
}

/// The job's clocks go on from where they were, whatever this node's say.
fn clock_offsets(plan: &RestartPlan<'_>) -> String {
    const SECOND: i64 = 1_000_000_000;
    let line = |name: &str, was: u64, is: u64| {
        let offset = was as i64 - is as i64;
        format!("{name} {} {}\n", offset.div_euclid(SECOND), offset.rem_euclid(SECOND))
    };
    let machine = &plan.model.machine;
    let now = snapshot::clocks();
    line("monotonic", machine.monotonic_ns, now.monotonic_ns) + &line("boottime", machine.boottime_ns, now.boottime_ns)
}

/// What keeps user namespaces from working here, as far as the system tells.
fn remedy() -> String {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "Debian forbids user namespaces here: sysctl kernel.unprivileged_userns_clone=1".into()
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "no user namespaces are allowed here: sysctl user.max_user_namespaces=15000".into()
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "Ubuntu's AppArmor takes the capabilities of user namespaces away: sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,` for ckpt-restart"
            .into()
    } else {
        "a security policy (seccomp of a container, SELinux, AppArmor) or user.max_*_namespaces forbids namespaces here"
            .into()
    }
}
