//! Everybody parks.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hijack_abi::captured;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::Program;
use crate::{COMMAND, Outcome};

pub fn a_hundred_parks(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["threads"])?;
    program.goes_on(&[0, 1, 2, 3, 4]);
    let mut times = Vec::new();
    for round in 0..100 {
        let start = Instant::now();
        let parked = if round % 10 == 0 { program.park_still()? } else { program.park()? };
        times.push(start.elapsed());
        assert_eq!(parked.epoch(), round + 1);
        assert!(parked.zombies().is_empty());
        parked.resume();
        if round % 20 == 0 {
            program.goes_on(&[0, 1, 2, 3, 4]);
        }
    }
    program.goes_on(&[0, 1, 2, 3, 4]);
    times.sort_unstable();
    println!("  parked within: median {} µs, most {} µs", times[50].as_micros(), times[99].as_micros());
    Ok(())
}

pub fn while_it_changes(folder: &Path, mode: &str) -> Outcome<()> {
    let program = Program::start(folder, &[mode])?;
    for _ in 0..100 {
        program.park_still()?.resume();
        let now = program.counter(0);
        program.until("it goes on", || program.counter(0) > now || program.state(program.child.id()) == 'Z');
    }
    assert_ne!(program.state(program.child.id()), 'Z', "it has seen something wrong");
    Ok(())
}

pub fn what_threads_tell(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["threads"])?;
    program.goes_on(&[4]);
    let pid = program.child.id();
    let parked = program.park()?;
    // Every signal is blocked in a handler, so that these wait: one for the process, one for a thread.
    kill(Pid::from_raw(pid as i32), Signal::SIGWINCH)?;
    let sources = parked.sources(COMMAND)?;
    let [source] = &sources[..] else { return Err(format!("{} processes", sources.len()).into()) };
    assert_eq!((source.host_pid, source.pid, source.stopped, source.threads.len()), (pid, pid, false, 5));
    assert_eq!((source.threads[0].host_tid, source.threads[0].state.tid), (pid, pid));
    assert!(source.threads.iter().all(|it| it.state.tid == it.host_tid && it.state.pid == pid));
    assert_ne!(source.facts.segment_address, 0);
    let [id, _, _, left, _] = source.facts.timers[0];
    assert_eq!((source.facts.timers_len, id), (1, 0));
    assert!((1..=3600).contains(&left), "{left} s are left of an hour");
    let signals: Vec<u64> = source.pending.iter().map(|it| it[0] & 0xffff_ffff).collect();
    assert_eq!(signals, [Signal::SIGWINCH as u64]);
    let again = parked.sources(COMMAND)?;
    assert_eq!(again[0].pending, source.pending, "it was queued again");
    let segment = program.control.segment();
    assert!(parked.capture());
    assert_eq!(segment.capture.load(Ordering::Acquire), captured::CAPTURED);
    assert!(!parked.capture(), "only once");
    parked.resume();
    program.goes_on(&[0, 1, 2, 3, 4]);
    let parked = program.park()?;
    program.control.free_everybody();
    assert!(!parked.capture(), "the guardian has let everybody go");
    program.goes_on(&[0, 1, 2, 3, 4]);
    Ok(())
}

pub fn twins(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["threads"])?;
    for _ in 0..3 {
        let parked = program.park()?;
        let twins = parked.twins(COMMAND)?;
        parked.resume();
        program.goes_on(&[0]);
        let [twin] = *twins.pids() else { return Err("one process, one twin".into()) };
        assert_eq!(fs::read_link(format!("/proc/{twin}/exe"))?, folder.join("parks"));
        assert_eq!(fs::read_dir(format!("/proc/{twin}/task"))?.count(), 1);
        drop(twins);
        assert!(matches!(program.state(twin), 'Z' | '-'), "the twin is gone");
    }
    // A twin that is stopped does not go by itself.
    let parked = program.park()?;
    let twins = parked.twins(COMMAND)?;
    let twin = twins.pids()[0];
    kill(Pid::from_raw(twin as i32), Signal::SIGSTOP)?;
    drop(parked);
    drop(twins);
    program.until("the twin is killed", || matches!(program.state(twin), 'Z' | '-'));
    program.goes_on(&[0]);
    Ok(())
}
