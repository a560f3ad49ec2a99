//! Jobs are parked and let go: under load, while threads and processes come and go, with stopped processes, with
//! laggards. Without libtest: whatever this process starts is the job.
#![allow(unsafe_code)] // forks in a process of one thread

use std::error::Error;
use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hijack_abi::{ProcessFacts, Segment, Slot, command, state};
use nix::sys::wait::waitpid;

mod laggards;
mod parks;
mod program;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is tried, in a folder.
type Scenario = fn(&Path) -> Outcome<()>;

const USER: u32 = 47003;
const FOLDER: &str = "SLACKWATER_TEST_FOLDER";
const NAMESPACE: &str = "SLACKWATER_TEST_NAMESPACE";
const DEADLINE: Duration = Duration::from_secs(20);
/// For what is asked of parked threads.
const COMMAND: Duration = Duration::from_secs(10);

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
        ("a hundred parks of five threads", parks::a_hundred_parks),
        ("threads come and go", |folder| parks::while_it_changes(folder, "churn")),
        ("processes come and go", |folder| parks::while_it_changes(folder, "forks")),
        ("programs are executed", |folder| parks::while_it_changes(folder, "execs")),
        ("what threads tell", parks::what_threads_tell),
        ("twins", parks::twins),
        ("a stopped process", laggards::a_stopped_process),
        ("no leader, a zombie", laggards::no_leader_and_a_zombie),
        ("vfork", laggards::vfork),
        ("a static program", laggards::a_static_program),
        ("a debugger", laggards::a_debugger),
        ("another pid namespace", laggards::another_pid_namespace),
    ];
    let only = std::env::args().nth(1).unwrap_or_default();
    for (name, scenario) in scenarios.into_iter().filter(|(name, _)| name.contains(&only)) {
        let start = Instant::now();
        scenario(folder).map_err(|error| format!("{name}: {error}"))?;
        println!("  {name}: {} ms", start.elapsed().as_millis());
    }
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
