//! A job of the test program.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use node_agent::guardian::Root;
use node_agent::guardian::board::Progress;
use node_agent::guardian::control::Control;
use node_agent::guardian::members::zombie_status;
use node_agent::quiesce::{ParkedJob, QuiesceError, quiesce};
use node_agent::tasks::{Job, TaskStatus};

use crate::{DEADLINE, Outcome};

/// A job of the test program; its processes are killed when this is dropped.
pub struct Program {
    pub control: Control,
    counters: File,
    path: PathBuf,
    pub child: Child,
    pub job: Job,
}

impl Program {
    pub fn start(folder: &Path, arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(folder.join("parks"));
        Self::run(folder, |path| command.arg(path).args(arguments))
    }

    pub fn run<'a>(folder: &Path, with: impl FnOnce(&Path) -> &'a mut Command) -> Outcome<Self> {
        let control = Control::create()?;
        let path = folder.join(format!("counters-{}", nix::unistd::geteuid()));
        let counters = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        counters.set_len(4096)?;
        let segment = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", control.number()))?;
        let child = with(&path).stdin(segment).spawn()?;
        let job = Job { guardian: std::process::id(), apart: [std::process::id(), 0], root: Root::Child(child.id()) };
        let program = Self { control, counters, path, child, job };
        program.until("it runs", || program.counter(0) > 0);
        Ok(program)
    }

    pub fn counter(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        self.counters.read_exact_at(&mut bytes, index as u64 * 8).expect("counters");
        u64::from_ne_bytes(bytes)
    }

    pub fn set(&self, index: usize, value: u64) -> Outcome<()> {
        Ok(self.counters.write_all_at(&value.to_ne_bytes(), index as u64 * 8)?)
    }

    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            if start.elapsed() > DEADLINE {
                let pid = self.child.id();
                let (status, ended) = (TaskStatus::read(pid, pid), zombie_status(pid));
                panic!("still waiting: {what}; {status:?}, wait status {ended:?}");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub fn goes_on(&self, counters: &[usize]) {
        for index in counters {
            let now = self.counter(*index);
            self.until(&format!("counter {index} goes on from {now}"), || self.counter(*index) > now);
        }
    }

    pub fn park_within(&self, deadline: Duration) -> Result<ParkedJob, QuiesceError> {
        quiesce(&self.control, self.job, deadline, &Progress::default())
    }

    pub fn park(&self) -> Outcome<ParkedJob> {
        Ok(self.park_within(DEADLINE)?)
    }

    /// Parked, and nothing moves.
    pub fn park_still(&self) -> Outcome<ParkedJob> {
        let parked = self.park()?;
        let before: Vec<u64> = (0..5).map(|it| self.counter(it)).collect();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(before, (0..5).map(|it| self.counter(it)).collect::<Vec<_>>(), "somebody runs");
        Ok(parked)
    }

    /// The error's text; everybody runs on afterwards.
    pub fn refusal(&self, deadline: Duration, counters: &[usize]) -> String {
        let error = self.park_within(deadline).map(|_| ()).expect_err("it cannot be parked");
        self.goes_on(counters);
        error.to_string()
    }

    pub fn state(&self, pid: u32) -> char {
        TaskStatus::read(pid, pid).map_or('-', |it| it.state)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let everybody = Job { root: Root::Child(0), ..self.job };
        let mut left = everybody.pids();
        while !left.is_empty() {
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
            }
            while waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)).is_ok_and(|it| it.pid().is_some()) {}
            left = everybody.pids();
        }
        let _ = self.child.try_wait();
        let _ = fs::remove_file(&self.path);
    }
}
