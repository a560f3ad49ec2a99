//! Jobs are parked and let go: under load, while threads and processes come and go, with stopped processes, with
//! laggards. Without libtest: whatever this process starts is the job.
#![allow(unsafe_code)] // forks in a process of one thread

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hijack_abi::{ProcessFacts, Segment, Slot, captured, command, state};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use node_agent::guardian::board::Progress;
use node_agent::guardian::control::Control;
use node_agent::guardian::{Namespace, Root};
use node_agent::quiesce::{ParkedJob, QuiesceError, quiesce};
use node_agent::tasks::{Job, Lister, TaskStatus};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is tried, in a folder.
type Scenario = fn(&Path) -> Outcome<()>;

const USER: u32 = 47003;
const FOLDER: &str = "SLACKWATER_TEST_FOLDER";
const NAMESPACE: &str = "SLACKWATER_TEST_NAMESPACE";
const DEADLINE: Duration = Duration::from_secs(20);
const COMMAND: Duration = Duration::from_secs(10);
/// Counters of the program: flags from and for the test.
const GO: usize = 20;
const IN_VFORK: usize = 22;

fn main() -> Outcome<()> {
    if let Some(program) = std::env::var_os(NAMESPACE) {
        return become_namespace(Path::new(&program));
    }
    if let Some(folder) = std::env::var_os(FOLDER) {
        return scenarios(Path::new(&folder));
    }
    let folder = tempfile::tempdir_in("/tmp")?;
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777))?;
    compile(folder.path())?;
    let as_root = nix::unistd::geteuid().is_root();
    let users: &[Option<u32>] = if as_root { &[None, Some(USER)] } else { &[None] };
    for user in users {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(FOLDER, folder.path()).args(std::env::args().skip(1));
        if let Some(user) = user {
            command.uid(*user).gid(*user);
        }
        let status = command.status()?;
        assert!(status.success(), "quiesce as {user:?}: {status}");
        println!("quiesce as {user:?}: ok");
    }
    Ok(())
}

fn compile(folder: &Path) -> Outcome<()> {
    let facts = offset_of!(Slot, process);
    let defines = [
        ("SLOTS_AT", offset_of!(Segment, slots)),
        ("SLOTS", hijack_abi::SLOTS),
        ("PROBES", hijack_abi::PROBES),
        ("SLOT_BYTES", size_of::<Slot>()),
        ("SEGMENT_BYTES", size_of::<Segment>()),
        ("EPOCH_AT", offset_of!(Segment, epoch)),
        ("GATE_AT", offset_of!(Segment, gate)),
        ("PARKED_AT", offset_of!(Segment, parked)),
        ("ACKS_AT", offset_of!(Segment, acks)),
        ("TWINS_GONE_AT", offset_of!(Segment, twins_gone)),
        ("STATE_AT", offset_of!(Slot, state)),
        ("COMMAND_AT", offset_of!(Slot, command)),
        ("SLOT_EPOCH_AT", offset_of!(Slot, epoch)),
        ("ARGUMENT_AT", offset_of!(Slot, argument)),
        ("RESULT_AT", offset_of!(Slot, result)),
        ("THREAD_AT", offset_of!(Slot, thread)),
        ("FACTS_AT", facts),
        ("TIMERS_LEN_AT", facts + offset_of!(ProcessFacts, timers_len)),
        ("TIMERS_AT", facts + offset_of!(ProcessFacts, timers)),
        ("PENDING_LEN_AT", offset_of!(Slot, pending_len)),
        ("PENDING_THREAD_AT", offset_of!(Slot, pending_thread)),
        ("PENDING_PROCESS_AT", offset_of!(Slot, pending_process)),
    ];
    let words = [
        ("ASKED", state::ASKED),
        ("PARKED", state::PARKED),
        ("LEFT", state::LEFT),
        ("RESUME", command::RESUME),
        ("FACTS", command::FACTS),
        ("TWIN", command::TWIN),
        ("PENDING", command::PENDING),
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/parks.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-Wall", "-pthread", "-o"]).arg(folder.join("parks")).arg(source);
    gcc.args(defines.map(|(name, value)| format!("-D{name}={value}")));
    gcc.args(words.map(|(name, value)| format!("-D{name}={value}")));
    assert!(gcc.status()?.success(), "gcc");
    let lonely = folder.join("lonely.c");
    fs::write(&lonely, "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")?;
    let status = Command::new("gcc").arg("-static").arg("-o").arg(folder.join("lonely")).arg(lonely).status()?;
    assert!(status.success(), "gcc -static");
    Ok(())
}

fn scenarios(folder: &Path) -> Outcome<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let scenarios: [(&str, Scenario); 12] = [
        ("a hundred parks of five threads", a_hundred_parks),
        ("threads come and go", |folder| while_it_changes(folder, "churn")),
        ("processes come and go", |folder| while_it_changes(folder, "forks")),
        ("programs are executed", |folder| while_it_changes(folder, "execs")),
        ("what threads tell", what_threads_tell),
        ("twins", twins),
        ("a stopped process", a_stopped_process),
        ("no leader, a zombie", no_leader_and_a_zombie),
        ("vfork", vfork),
        ("a static program", a_static_program),
        ("a debugger", a_debugger),
        ("another pid namespace", another_pid_namespace),
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    for (name, scenario) in scenarios.into_iter().filter(|(name, _)| name.contains(&only)) {
        let start = Instant::now();
        scenario(folder).map_err(|error| format!("{name}: {error}"))?;
        println!("  {name}: {} ms", start.elapsed().as_millis());
    }
    Ok(())
}

/// A job of the test program; its processes are killed when this is dropped.
struct Program {
    control: Control,
    counters: File,
    path: PathBuf,
    child: Child,
    job: Job,
}

impl Program {
    fn start(folder: &Path, arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(folder.join("parks"));
        Self::run(folder, |path| command.arg(path).args(arguments))
    }

    fn run<'a>(folder: &Path, with: impl FnOnce(&Path) -> &'a mut Command) -> Outcome<Self> {
        let control = Control::create()?;
        let path = folder.join(format!("counters-{}", nix::unistd::geteuid()));
        let counters = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        counters.set_len(4096)?;
        let segment = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", control.number()))?;
        let child = with(&path).stdin(segment).spawn()?;
        let job = Job { guardian: std::process::id(), agent: std::process::id(), root: Root::Child(child.id()) };
        let program = Self { control, counters, path, child, job };
        program.until("it runs", || program.counter(0) > 0);
        Ok(program)
    }

    fn counter(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        self.counters.read_exact_at(&mut bytes, index as u64 * 8).expect("counters");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, index: usize, value: u64) -> Outcome<()> {
        Ok(self.counters.write_all_at(&value.to_ne_bytes(), index as u64 * 8)?)
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            if start.elapsed() > DEADLINE {
                let pid = self.child.id();
                let syscall = fs::read_to_string(format!("/proc/{pid}/syscall"));
                panic!(
                    "still waiting: {what}; {:?} {syscall:?} {:?}",
                    TaskStatus::read(pid, pid),
                    node_agent::guardian::members::zombie_status(pid)
                );
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn goes_on(&self, counters: &[usize]) {
        for index in counters {
            let now = self.counter(*index);
            self.until(&format!("counter {index} goes on from {now}"), || self.counter(*index) > now);
        }
    }

    fn park_within(&self, deadline: Duration) -> Result<ParkedJob, QuiesceError> {
        quiesce(&self.control, self.job, deadline, &Progress::default())
    }

    fn park(&self) -> Outcome<ParkedJob> {
        Ok(self.park_within(DEADLINE)?)
    }

    /// Parked, and nothing moves.
    fn park_still(&self) -> Outcome<ParkedJob> {
        let parked = self.park()?;
        let before: Vec<u64> = (0..5).map(|it| self.counter(it)).collect();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(before, (0..5).map(|it| self.counter(it)).collect::<Vec<_>>(), "somebody runs");
        Ok(parked)
    }

    /// The error's text; everybody runs on afterwards.
    fn refusal(&self, deadline: Duration, counters: &[usize]) -> String {
        let error = self.park_within(deadline).map(|_| ()).expect_err("it cannot be parked");
        self.goes_on(counters);
        error.to_string()
    }

    fn state(&self, pid: u32) -> char {
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

fn a_hundred_parks(folder: &Path) -> Outcome<()> {
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

fn while_it_changes(folder: &Path, mode: &str) -> Outcome<()> {
    let program = Program::start(folder, &[mode])?;
    for _ in 0..100 {
        program.park_still()?.resume();
        let now = program.counter(0);
        program.until("it goes on", || program.counter(0) > now || program.state(program.child.id()) == 'Z');
    }
    assert_ne!(program.state(program.child.id()), 'Z', "it has seen something wrong");
    Ok(())
}

fn what_threads_tell(folder: &Path) -> Outcome<()> {
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

fn twins(folder: &Path) -> Outcome<()> {
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

fn a_stopped_process(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["stopped"])?;
    program.goes_on(&[1, 2, 3]);
    let child = Lister::new(program.job).list().into_iter().find(|it| it.parent == program.child.id());
    let child = child.ok_or("it has a child")?.pid;
    kill(Pid::from_raw(child as i32), Signal::SIGSTOP)?;
    let all_are_stopped = || {
        let tasks = fs::read_dir(format!("/proc/{child}/task")).into_iter().flatten().flatten();
        let mut tids = tasks.filter_map(|it| it.file_name().to_str()?.parse().ok());
        tids.all(|tid| TaskStatus::read(child, tid).is_some_and(|it| it.state == 'T'))
    };
    program.until("it is stopped", all_are_stopped);
    let before = [1, 2].map(|it| program.counter(it));
    for round in 0..30 {
        let parked = program.park_still()?;
        let sources = parked.sources(COMMAND)?;
        let stopped: Vec<bool> = sources.iter().map(|it| it.stopped).collect();
        assert_eq!(stopped, [false, true], "round {round}");
        parked.resume();
        program.goes_on(&[0, 3]);
        program.until("it is stopped again", all_are_stopped);
        assert_eq!(before, [1, 2].map(|it| program.counter(it)), "a stopped process has run, round {round}");
    }
    kill(Pid::from_raw(child as i32), Signal::SIGCONT)?;
    program.goes_on(&[0, 1, 2, 3]);
    let parked = program.park_still()?;
    assert!(parked.sources(COMMAND)?.iter().all(|it| !it.stopped));
    // Stopped while it is parked: it is asked all the same.
    kill(Pid::from_raw(child as i32), Signal::SIGSTOP)?;
    program.until("it is stopped", all_are_stopped);
    assert!(parked.sources(COMMAND)?[1].host_pid == child);
    parked.resume();
    program.until("it stays stopped", all_are_stopped);
    program.goes_on(&[0, 3]);
    Ok(())
}

fn no_leader_and_a_zombie(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["zombie"])?;
    let zombie = || Lister::new(program.job).list().into_iter().find(|it| program.state(it.pid) == 'Z');
    program.until("a zombie", || zombie().is_some());
    let zombie = zombie().ok_or("a zombie")?.pid;
    let parked = program.park_still()?;
    assert_eq!(parked.zombies(), [(zombie, zombie)]);
    assert_eq!(parked.sources(COMMAND)?.len(), 1);
    drop(parked);
    drop(program);

    let mut command = Command::new(folder.join("parks"));
    let counted = |path: &Path| {
        fs::write(path, 1_u64.to_ne_bytes()).and_then(|()| File::options().write(true).open(path)?.set_len(4096))
    };
    let program = Program::run(folder, |path| {
        counted(path).expect("counters");
        command.arg(path).arg("leaderless")
    })?;
    program.until("its leader has ended", || program.state(program.child.id()) == 'Z');
    for _ in 0..10 {
        let parked = program.park_still()?;
        assert!(parked.zombies().is_empty(), "it lives");
        let sources = parked.sources(COMMAND)?;
        assert_eq!((sources[0].pid, sources[0].threads.len()), (program.child.id(), 1));
        drop(parked);
        program.goes_on(&[1]);
    }
    Ok(())
}

fn vfork(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["vfork"])?;
    program.until("it is in vfork", || program.counter(IN_VFORK) == 1);
    let text = program.refusal(Duration::from_millis(1500), &[0, 1]);
    assert!(text.contains("vfork") && text.contains("(parks)"), "{text}");
    program.set(GO, 1)?;
    program.park_still()?.resume();
    program.until("vfork is over", || program.counter(IN_VFORK) == 2);
    program.goes_on(&[0, 1, 2]);
    drop(program);

    // The child waits for another thread of the job: only when everybody is let go meanwhile it ever ends.
    let program = Program::start(folder, &["vfork-waits"])?;
    program.until("it is in vfork", || program.counter(IN_VFORK) == 1);
    program.park_still()?.resume();
    program.goes_on(&[0, 1, 2]);
    Ok(())
}

fn a_static_program(folder: &Path) -> Outcome<()> {
    let lonely = folder.join("lonely");
    let program = Program::start(folder, &["runs", &lonely.display().to_string()])?;
    let is_lonely = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|it| it == lonely);
    let lonely = || program.job.pids().into_iter().find(is_lonely);
    program.until("the program is executed", || lonely().is_some());
    let pid = lonely().ok_or("a process")?;
    let text = program.refusal(DEADLINE, &[0]);
    assert!(text.contains("statically") && text.contains(&format!("pid {pid} (lonely)")), "{text}");
    let text = program.refusal(Duration::from_millis(50), &[0]);
    assert!(text.contains("statically") && text.contains("within 50 ms"), "{text}");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    let parked = program.park_still()?;
    assert_eq!(parked.zombies(), [(pid, pid)]);
    Ok(())
}

fn a_debugger(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["threads"])?;
    let pid = Pid::from_raw(program.child.id() as i32);
    ptrace::seize(pid, ptrace::Options::empty())?;
    ptrace::interrupt(pid)?;
    waitpid(pid, None)?;
    let text = program.refusal(Duration::from_millis(300), &[1, 2, 3, 4]);
    assert!(text.contains("debugger"), "{text}");
    ptrace::detach(pid, None)?;
    program.park_still()?.resume();
    program.goes_on(&[0, 1, 2, 3, 4]);
    Ok(())
}

/// This process's job: pid 1, a stand-in below it, and below that the program.
fn another_pid_namespace(folder: &Path) -> Outcome<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(NAMESPACE, folder.join("parks"));
    let mut program = Program::run(folder, |path| command.env(FOLDER, path))?;
    let everybody = Lister::new(program.job).list();
    let inner = |pid: u32| TaskStatus::read(pid, pid).map_or((0, 0), |it| (it.depth, it.pid));
    let init = everybody.iter().find(|it| inner(it.pid) == (2, 1)).ok_or("pid 1")?.pid;
    let root = everybody.iter().find(|it| inner(it.pid) == (2, 3)).ok_or("pid 3")?.pid;
    program.job.root = Root::Namespace(Namespace { init, root });
    assert_eq!(program.job.pids(), BTreeSet::from([root]), "neither pid 1 nor the stand-in");
    for _ in 0..10 {
        let parked = program.park_still()?;
        let sources = parked.sources(COMMAND)?;
        assert_eq!((sources.len(), sources[0].host_pid, sources[0].pid), (1, root, 3));
        assert!(sources[0].threads.iter().all(|it| it.state.tid != it.host_tid && it.state.pid == 3));
        let twins = parked.twins(COMMAND)?;
        parked.resume();
        assert_eq!(fs::read_link(format!("/proc/{}/exe", twins.pids()[0]))?, folder.join("parks"));
        program.goes_on(&[0, 1, 2, 3, 4]);
    }
    // As a child of our own it is of another namespace than the job's.
    let job = Job { root: Root::Child(init), ..program.job };
    let error = quiesce(&program.control, job, DEADLINE, &Progress::default()).map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("namespace"), "{error}");
    program.goes_on(&[0, 1, 2, 3, 4]);
    Ok(())
}

/// Pid 1 → stand-in → program, each blocking signals as a restart has it.
fn become_namespace(program: &Path) -> Outcome<()> {
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{ForkResult, fork};
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let counters = std::env::var_os(FOLDER).ok_or("counters")?;
    for generation in 0..3 {
        // SAFETY: this process has one thread.
        if let ForkResult::Parent { child } = unsafe { fork()? } {
            if generation == 0 {
                return Ok(()); // pid 1 goes to the test, which is a subreaper
            }
            let all = u64::MAX;
            // SAFETY: the set outlives the call.
            unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, size_of::<u64>()) };
            loop {
                let _ = waitpid(child, None);
                nix::unistd::pause();
            }
        }
    }
    Err(Command::new(program).arg(counters).arg("threads").exec().into())
}
