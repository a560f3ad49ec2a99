//! One thread.
#![allow(unsafe_code)] // nix has no sched_getscheduler, and getpriority of another thread only by number

use node_agent_image::model::Thread;

use super::process::{Source, SourceThread};
use super::{SnapshotError, read_text};

/// What the control segment and /proc tell of a thread.
pub fn thread(source: &Source, thread: &SourceThread) -> Result<Thread, SnapshotError> {
    let state = &thread.state;
    let comm = read_text(source.host_pid, source.pid, &format!("task/{}/comm", thread.host_tid))?;
    let (policy, priority, nice) = schedule(thread.host_tid);
    Ok(Thread {
        tid: state.tid,
        comm: comm.trim_end_matches('\n').into(),
        rip: state.rip,
        registers: [state.rsp, state.rbx, state.rbp, state.r12, state.r13, state.r14, state.r15],
        fs_base: state.fs_base,
        gs_base: state.gs_base,
        ucontext: state.ucontext,
        robust_list: (state.robust_list, state.robust_len),
        clear_tid: state.clear_tid,
        altstack: state.altstack,
        rseq: (state.rseq, state.rseq_len, state.rseq_signature),
        pdeathsig: state.pdeathsig,
        timerslack_ns: state.timerslack_ns,
        policy,
        priority,
        nice,
        affinity: affinity(thread.host_tid),
        pending: thread.pending.clone(),
    })
}

fn schedule(tid: u32) -> (i32, i32, i32) {
    // SAFETY: the structure is plain data and outlives its call; the others take no pointers.
    unsafe {
        let mut parameters: libc::sched_param = std::mem::zeroed();
        let policy = libc::sched_getscheduler(tid as i32).max(0);
        libc::sched_getparam(tid as i32, &raw mut parameters);
        (policy, parameters.sched_priority, libc::getpriority(libc::PRIO_PROCESS, tid))
    }
}

/// CPUs of a thread; empty when it may run on all that are online.
fn affinity(tid: u32) -> Vec<u32> {
    let Ok(set) = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(tid as i32)) else { return Vec::new() };
    // SAFETY: takes no pointers.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1) as usize;
    let cpus: Vec<u32> =
        (0..nix::sched::CpuSet::count()).filter(|it| set.is_set(*it) == Ok(true)).map(|it| it as u32).collect();
    if cpus.len() >= online { Vec::new() } else { cpus }
}
