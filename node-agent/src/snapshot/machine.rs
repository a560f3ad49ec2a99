//! Where and when an image is taken.

use std::fs;
use std::net::IpAddr;

use nix::time::{ClockId, clock_gettime};
use node_agent_image::model::Machine;

/// Clocks at one moment, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    #[allow(missing_docs)]
    pub realtime_ns: u64,
    #[allow(missing_docs)]
    pub monotonic_ns: u64,
    #[allow(missing_docs)]
    pub boottime_ns: u64,
}

/// Clocks as this process sees them.
pub fn clocks() -> Clocks {
    let read =
        |clock| clock_gettime(clock).map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64);
    Clocks {
        realtime_ns: read(ClockId::CLOCK_REALTIME),
        monotonic_ns: read(ClockId::CLOCK_MONOTONIC),
        boottime_ns: read(ClockId::CLOCK_BOOTTIME),
    }
}

/// /proc/cpuinfo's flags of the first CPU, sorted.
pub fn cpu_flags() -> Vec<String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("flags")).and_then(|line| line.split_once(':'));
    let mut flags: Vec<String> =
        line.map(|it| it.1.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    flags.sort_unstable();
    flags
}

/// This machine, with the clocks as `host_pid` of the job sees them: a restarted job has a time namespace of its own.
/// `known`: the addresses that the job knows it by.
pub fn machine(host_pid: u32, known: &[IpAddr]) -> Machine {
    let name = nix::sys::utsname::uname().ok();
    let text = |get: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        name.as_ref().map_or(String::new(), |name| get(name).to_string_lossy().into_owned())
    };
    let now = clocks();
    let offset = |clock: &str| offset(host_pid, clock) - offset(std::process::id(), clock);
    Machine {
        host: text(|it| it.nodename()),
        kernel: text(|it| it.release()),
        architecture: text(|it| it.machine()),
        cpu_flags: cpu_flags(),
        realtime_ns: now.realtime_ns,
        monotonic_ns: now.monotonic_ns.saturating_add_signed(offset("monotonic")),
        boottime_ns: now.boottime_ns.saturating_add_signed(offset("boottime")),
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        addresses: known.to_vec(),
    }
}

/// A process's clock offset, ns; 0 without time namespaces.
fn offset(pid: u32, clock: &str) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/timens_offsets")).unwrap_or_default();
    let mut line = text.lines().map(str::split_whitespace).filter(|line| line.clone().next() == Some(clock));
    let numbers: Vec<i64> =
        line.next().map(|line| line.skip(1).filter_map(|it| it.parse().ok()).collect()).unwrap_or_default();
    match numbers[..] {
        [seconds, nanoseconds] => seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        _ => 0,
    }
}
