//! A program of two processes with three threads each parks itself, is killed, and goes on in its next life. Without
//! libtest: the process that restarts others has one thread.
#![allow(unsafe_code)] // maps the control segment

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hijack_abi::{ProcessFacts, Segment, Slot, ThreadState, slot_index, state};
use node_agent::files::{self, Ledger, ProcessRef};
use node_agent::memory::{Bytes, Owner};
use node_agent::objects::Objects;
use node_agent::restart::{RestartPlan, Targets, begin, complete, prepare};
use node_agent::snapshot::{self, Source, SourceThread};
use node_agent_image::model::{Backing, JobModel, NodeModel, Outsider};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Start, end, protection, path.
type Layout = Vec<(u64, u64, u32, Vec<u8>)>;

const USER: u32 = 47002;
const FOLDER: &str = "SLACKWATER_TEST_FOLDER";
const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> Outcome<()> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return scenario(Path::new(&folder));
    }
    let folder = tempfile::tempdir_in("/tmp")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), mode)?;
    compile(folder.path())?;
    if restorer().is_err() {
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "hijack-restorer"]).status()?;
        assert!(built.success(), "cargo build -p hijack-restorer");
    }
    let as_root = nix::unistd::geteuid().is_root();
    let users: &[Option<u32>] = if as_root { &[None, Some(USER)] } else { &[None] };
    for user in users {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(FOLDER, folder.path());
        if let Some(user) = user {
            command.uid(*user).gid(*user);
        }
        let status = command.status()?;
        assert!(status.success(), "restart as {user:?}: {status}");
        println!("restart as {user:?}: ok");
    }
    Ok(())
}

fn compile(folder: &Path) -> Outcome<()> {
    let defines = [
        ("SLOTS_AT", offset_of!(Segment, slots)),
        ("SLOTS", hijack_abi::SLOTS),
        ("SLOT_BYTES", size_of::<Slot>()),
        ("SEGMENT_BYTES", size_of::<Segment>()),
        ("THREAD_AT", offset_of!(Slot, thread)),
        ("FACTS_AT", offset_of!(Slot, process)),
        ("DUMPABLE_AT", offset_of!(Slot, process) + offset_of!(ProcessFacts, dumpable)),
        ("STATE_AT", offset_of!(Slot, state)),
        ("COMMAND_AT", offset_of!(Slot, command)),
        ("ARGUMENT_AT", offset_of!(Slot, argument)),
        ("GATE_AT", offset_of!(Segment, gate)),
        ("EPOCH_AT", offset_of!(Segment, epoch)),
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/parks_itself.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-pthread", "-o"]).arg(folder.join("parks_itself")).arg(source);
    gcc.args(defines.map(|(name, value)| format!("-D{name}={value}")));
    assert!(gcc.status()?.success(), "gcc");
    Ok(())
}

fn new_segment() -> Outcome<(OwnedFd, &'static Segment)> {
    // SAFETY: a new descriptor and a new mapping of it, all zero, which is valid for a segment of atomics; never unmapped.
    unsafe {
        let number = libc::memfd_create(c"segment".as_ptr(), libc::MFD_CLOEXEC);
        assert!(number >= 0);
        let file = OwnedFd::from_raw_fd(number);
        File::from(file.try_clone()?).set_len(size_of::<Segment>() as u64)?;
        let (length, both) = (size_of::<Segment>(), libc::PROT_READ | libc::PROT_WRITE);
        let at = libc::mmap(std::ptr::null_mut(), length, both, libc::MAP_SHARED, number, 0);
        assert_ne!(at, libc::MAP_FAILED);
        Ok((file, &*at.cast()))
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "still waiting: {what}");
        std::thread::yield_now();
    }
}

fn slot(segment: &Segment, tid: u32) -> Option<&Slot> {
    let mut probes = (0..hijack_abi::PROBES).map(|probe| &segment.slots[slot_index(tid, probe)]);
    probes.find(|slot| slot.tid.load(Ordering::Acquire) == tid)
}

fn tasks(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut tids: Vec<u32> = tasks.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect();
    tids.sort_unstable();
    tids
}

fn source(segment: &Segment, pid: u32) -> Source {
    let parked = |tid: &u32| slot(segment, *tid).is_some_and(|it| it.state.load(Ordering::Acquire) == state::PARKED);
    until("all threads parked", || tasks(pid).len() == 3 && tasks(pid).iter().all(parked));
    let state = |tid: u32| -> ThreadState { slot(segment, tid).map_or(ThreadState::default(), |it| it.thread) };
    let threads = tasks(pid).into_iter().map(|tid| SourceThread { host_tid: tid, state: state(tid), pending: vec![] });
    let facts = slot(segment, pid).expect("the leader's slot").process;
    Source { host_pid: pid, pid, stopped: false, facts, pending: vec![], threads: threads.collect() }
}

/// All private memory with contents, as it is, and what is stored of objects.
fn pages(model: &NodeModel, objects: &Objects) -> Outcome<Vec<(Owner, u64, Vec<u8>)>> {
    let mut pages = Vec::new();
    for source in objects.sources()? {
        let (file, base) = match source.bytes {
            Bytes::File(file) => (file, 0),
            Bytes::Memory { pid, base } => (File::open(format!("/proc/{pid}/mem"))?, base),
            Bytes::Held(_) => return Err("nothing has been copied yet".into()),
        };
        for stretch in source.stretches {
            let mut bytes = vec![0; (stretch.end - stretch.start) as usize];
            file.read_exact_at(&mut bytes, base.wrapping_add(stretch.start))?;
            pages.push((source.owner, stretch.start, bytes));
        }
    }
    for (index, process) in model.processes.iter().enumerate() {
        let memory = File::open(format!("/proc/{}/mem", process.pid))?;
        for vma in &process.memory.vmas {
            if vma.protection != 0 && !vma.shared && !matches!(vma.backing, Backing::Vdso(_)) {
                let mut bytes = vec![0; (vma.end - vma.start) as usize];
                if memory.read_exact_at(&mut bytes, vma.start).is_ok() {
                    pages.push((Owner::Process(index), vma.start, bytes));
                }
            }
        }
    }
    Ok(pages)
}

/// Mappings of files, without segment and orders; neighbours that the kernel is free to merge count as one.
fn maps(pid: u32) -> Outcome<Layout> {
    let areas = node_agent_proc::maps::parse(&fs::read(format!("/proc/{pid}/maps"))?)?;
    let mut merged: Layout = Vec::new();
    for area in areas.into_iter().filter(|it| it.inode != 0 && !it.path.ends_with(b" (deleted)")) {
        match merged.last_mut() {
            Some(last) if (last.1, last.2, &last.3) == (area.start, area.protection, &area.path) => last.1 = area.end,
            _ => merged.push((area.start, area.end, area.protection, area.path)),
        }
    }
    Ok(merged)
}

fn restorer() -> Outcome<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().map(|it| it.join("ckpt-restorer")).find(|it| it.is_file());
    found.ok_or_else(|| "build it first: cargo build -p hijack-restorer".into())
}

fn scenario(folder: &Path) -> Outcome<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let (file, segment) = new_segment()?;
    segment.epoch.store(5, Ordering::Release);
    let job = folder.join(format!("job-{}", std::process::id()));
    let files = folder.join(format!("files-{}", std::process::id()));
    fs::create_dir(&job)?;
    fs::create_dir(&files)?;
    let link = job.join("segment");
    symlink(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()), &link)?;
    let mut command = Command::new(folder.join("parks_itself"));
    // SAFETY: two raw system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
    command.env("SLACKWATER_JOB", &job).env("SLACKWATER_TEST_FILES", &files);
    let mut root = command.stdin(Stdio::null()).current_dir(folder).spawn()?;
    let children = format!("/proc/{0}/task/{0}/children", root.id());
    let mut child = 0;
    until("a child", || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        child = text.trim().parse().unwrap_or(0);
        child != 0
    });
    let sources = [source(segment, root.id()), source(segment, child)];
    let (model, objects) = model(&sources, &job)?;
    let pages = pages(&model, &objects)?;
    drop(objects);
    let before = [maps(root.id())?, maps(child)?];
    for pid in [child, root.id()] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL)?;
    }
    root.wait()?;
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child as i32), None)?;
    // One name is free, what the other leads to is no longer what it was.
    fs::remove_file(format!("/dev/shm/slackwater-test-{}", root.id()))?;
    fs::write(files.join("store"), [0xee; 1 << 16])?;
    restart(&model, &pages, &before)?;
    fs::remove_dir_all(&job)?;
    fs::remove_dir_all(&files)?;
    Ok(())
}

fn model(sources: &[Source], job: &Path) -> Outcome<(NodeModel, Objects)> {
    let refs: Vec<ProcessRef> = sources.iter().map(|it| ProcessRef { host_pid: it.host_pid, pid: it.pid }).collect();
    let pids: Vec<u32> = sources.iter().map(|it| it.host_pid).collect();
    let mut objects = Objects::new(&pids, None)?;
    let mut processes = Vec::new();
    for source in sources {
        processes.push(snapshot::process(source, &mut objects)?);
    }
    let captured = files::capture(&refs, std::process::id(), &mut objects, &Ledger::create()?, &[])?;
    for (process, descriptors) in processes.iter_mut().zip(captured.descriptors) {
        process.descriptors = descriptors;
    }
    let (sid, pgid) = (processes[0].sid, processes[0].pgid);
    let guardian = Outsider { pid: std::process::id(), sid, pgid, guardian: true };
    let mut outsiders = vec![guardian];
    for pid in [sid, pgid] {
        if pid != 0 && outsiders.iter().all(|it| it.pid != pid) {
            outsiders.push(Outsider { pid, sid, pgid: pid, guardian: false });
        }
    }
    let model = NodeModel {
        abi_version: hijack_abi::VERSION,
        epoch: 5,
        machine: snapshot::machine(sources[0].host_pid, &[]),
        job: JobModel { folder: job.display().to_string(), root: sources[0].pid, ..JobModel::default() },
        processes,
        outsiders,
        files: captured.files,
        objects: objects.objects(),
        ..NodeModel::default()
    };
    Ok((model, objects))
}

fn restart(model: &NodeModel, pages: &[(Owner, u64, Vec<u8>)], before: &[Layout]) -> Outcome<()> {
    let (file, segment) = new_segment()?;
    let (mut output, input) = io::pipe()?;
    let mut plan = RestartPlan::new(model, &restorer()?, Path::new("/nonexistent"), file.as_raw_fd())?;
    plan.stdio[1] = input.as_raw_fd();
    let begun = begin(&plan, prepare(model)?)?;
    drop(input);
    let mut after = Vec::new();
    let fill = |targets: &Targets| {
        for (owner, address, bytes) in pages {
            let (host, base) = match *owner {
                Owner::Process(index) => (targets.processes[index].ok_or("no such process")?, 0),
                Owner::Object(index) => (targets.builder, targets.objects[index]),
            };
            let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{host}/mem"))?;
            memory.write_all_at(bytes, base + *address)?;
        }
        for host in targets.processes.iter().flatten() {
            after.push(maps(*host).map_err(|error| error.to_string())?);
        }
        Ok(())
    };
    if let Err(error) = complete(&begun, model, segment, fill, || Ok(())) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(begun.init as i32), nix::sys::signal::SIGKILL)?;
        return Err(error.into());
    }
    let mut said = String::new();
    output.read_to_string(&mut said)?;
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(begun.init as i32), None)?;
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(matches!(words[..], ["1", _, "32"]), "it said {said:?}");
    assert_eq!(begun.root_status().map(|it| libc::WEXITSTATUS(it)), Some(7));
    assert_eq!(before, after, "mappings of files");
    Ok(())
}
