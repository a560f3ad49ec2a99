//! Descriptors of every kind: a program holds them, is captured from outside and killed; another process opens them
//! again and becomes the same program, which checks each. As whoever runs the tests and, for root, as an ordinary user.

#[path = "files/program.rs"]
mod program;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use node_agent::files::{self, FilePolicy, FilesError, Ledger, refill};
use node_agent_image::model::{FileKind, NodeModel, OpenFile};
use program::{Objects, Program, compile, model_of};

const ORDINARY: &str = "47002";
/// Tells a copy of this program that it is to restart what lies in this folder.
const RESTART: &str = "SLACKWATER_TEST_RESTART";
const BASE: i32 = 400;
/// Instead of a program to become: hold the descriptors.
const PAUSE: &str = "pause";

/// `kinds hold` in `folder`, captured to `folder/model` and killed.
fn hold_and_capture(folder: &Path) {
    let kinds = compile(folder, "kinds");
    let work = folder.join("work");
    fs::create_dir(&work).expect("a folder for its files");
    let mut program = Program::start(&kinds, &["hold", &work.to_string_lossy()], &[]);
    assert_eq!(program.line(), "ready");
    let ledger = Ledger::create().expect("a ledger");
    let model = model_of(&program, folder, &ledger).unwrap_or_else(|error| panic!("{error}"));
    // Peeking left everything in place: it can be done again, with the same result.
    let again = model_of(&program, folder, &ledger).expect("a second capture");
    for (one, other) in model.files.iter().zip(&again.files) {
        if !matches!(one.kind, FileKind::Timerfd { .. }) {
            assert_eq!(one, other);
        }
    }
    let order = format!("{}\ncheck\n{}", kinds.display(), work.display());
    fs::write(folder.join("order"), order).expect("it is written");
    fs::write(folder.join("model"), serde_json::to_vec(&model).expect("the model is JSON")).expect("it is written");
}

fn restart_and_check(folder: &Path) -> String {
    let own = std::env::current_exe().expect("our own path");
    let mut program = Program::start(&own, &["--exact", "restart_helper", "--nocapture"], &[(RESTART, folder)]);
    let mut output = String::new();
    program.lines.read_to_string(&mut output).expect("its output can be read");
    output
}

#[test]
fn restart_helper() {
    let Some(folder) = std::env::var_os(RESTART).map(PathBuf::from) else { return };
    let model: NodeModel = serde_json::from_slice(&fs::read(folder.join("model")).expect("a model")).expect("JSON");
    let objects = Objects::open(&folder);
    let numbers: Vec<_> = objects.iter().map(AsRawFd::as_raw_fd).collect();
    let opened = files::open_all(&model, BASE, [0, 1, 2], &numbers, None);
    let opened = opened.unwrap_or_else(|error| panic!("{error}"));
    objects.into_iter().for_each(std::mem::forget);
    files::install(&model, 0, &opened, &[]).unwrap_or_else(|error| panic!("{error}"));
    files::cut_back(&model, FilePolicy::Cut).unwrap_or_else(|error| panic!("{error}"));
    let order = fs::read_to_string(folder.join("order")).expect("what to become");
    let mut words = order.lines();
    if order == PAUSE {
        println!("\nready");
        nix::unistd::pause();
    }
    let error = Command::new(words.next().expect("a program")).args(words).exec();
    panic!("cannot become the checking program: {error}");
}

#[test]
fn every_kind_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    hold_and_capture(folder.path());
    fs::write(folder.path().join("work/append"), "known and grown").expect("the file grows");
    let output = restart_and_check(folder.path());
    assert!(output.ends_with("0 failures\n"), "{output}");
}

/// What was opened again looks from outside as it looked before, down to flags and the sharing of descriptions.
#[test]
fn a_second_capture_sees_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    hold_and_capture(folder.path());
    fs::write(folder.path().join("order"), PAUSE).expect("it is written");
    let first: NodeModel = serde_json::from_slice(&fs::read(folder.path().join("model")).expect("it")).expect("JSON");
    let own = std::env::current_exe().expect("our own path");
    let arguments = ["--exact", "restart_helper", "--nocapture"];
    let mut program = Program::start(&own, &arguments, &[(RESTART, folder.path())]);
    while program.line() != "ready" {}
    let second = model_of(&program, folder.path(), &Ledger::create().expect("a ledger"));
    let second = second.unwrap_or_else(|error| panic!("{error}"));
    for (one, other) in first.processes[0].descriptors.iter().zip(&second.processes[0].descriptors) {
        assert_eq!(one, other);
    }
    for (index, (mut one, mut other)) in first.files.into_iter().zip(second.files).enumerate() {
        for file in [&mut one, &mut other] {
            blur(file);
        }
        assert_eq!(one, other, "file {index}");
    }
}

/// Takes out what is another's business (objects), goes on by itself (timers), or has a number of its own here (ptys and
/// netlink, which a restart puts into namespaces of their own).
fn blur(file: &mut OpenFile) {
    // Means nothing where every offset has 64 bits.
    const O_LARGEFILE: u32 = 0o100_000;
    file.flags &= !O_LARGEFILE;
    match &mut file.kind {
        FileKind::Timerfd { value_ns, .. } => *value_ns = 0,
        FileKind::Pty { index, .. } => *index = 0,
        FileKind::Path { file: identity, position, .. } if identity.path.contains("/object-") => {
            file.kind = FileKind::Object { object: 0, position: *position };
        }
        FileKind::Path { file: identity, .. } => identity.modified_ns = 0,
        FileKind::Object { object, .. } => *object = 0,
        FileKind::Socket(socket) if socket.family == AF_NETLINK => socket.local.clear(),
        // bind(2) of an IPv6 address sets IPV6_V6ONLY, which means nothing to a connection.
        FileKind::Socket(socket) if !socket.remote.is_empty() => socket.options.retain(|it| (it.0, it.1) != V6ONLY),
        _ => {}
    }
}

const AF_NETLINK: i32 = 16;
/// IPPROTO_IPV6, IPV6_V6ONLY.
const V6ONLY: (i32, i32) = (41, 26);

#[test]
fn missing_and_shrunk_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    hold_and_capture(folder.path());
    let model: NodeModel = serde_json::from_slice(&fs::read(folder.path().join("model")).expect("it")).expect("JSON");
    let only_paths = |model: &NodeModel| {
        let mut model = model.clone();
        model.files.retain(|it| matches!(it.kind, FileKind::Path { path_only: false, .. }));
        model
    };
    let model = only_paths(&model);
    let work = folder.path().join("work");
    fs::write(work.join("append"), "kno").expect("the file shrinks");
    let error = files::open_all(&model, BASE, [0, 1, 2], &[], None).expect_err("a shrunk file");
    assert!(matches!(&error, FilesError::Shrunk { was: 5, is: 3, path } if path.ends_with("/append")), "{error}");
    fs::remove_file(work.join("append")).expect("the file goes");
    let error = files::open_all(&model, BASE, [0, 1, 2], &[], None).expect_err("a missing file");
    assert!(error.to_string().contains("/append was open in the job and is missing"), "{error}");
}

#[test]
fn what_leads_out_of_the_job_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, writer) = io::pipe().expect("a pipe");
    let script = format!("exec 4</proc/{}/fd/{}; echo ready; exec sleep 600", std::process::id(), reader.as_raw_fd());
    let mut program = Program::start(Path::new("sh"), &["-c", &script], &[]);
    assert_eq!(program.line(), "ready");
    let error =
        model_of(&program, folder.path(), &Ledger::create().expect("a ledger")).expect_err("a pipe from outside");
    let FilesError::Refused(offences) = &error else { panic!("{error}") };
    assert_eq!((offences.len(), offences[0].number), (1, 4), "{error}");
    assert!(error.to_string().contains("a pipe whose other end is in no process of the job"), "{error}");
    drop((reader, writer));
}

/// Both directions of a connection full, one of another: parked as far as draining goes, for it waits for a signal.
fn start_full(folder: &Path) -> (Program, String) {
    let mut program = Program::start(&compile(folder, "full"), &[], &[]);
    let sent = program.line();
    assert!(sent.split(' ').next().and_then(|it| it.parse::<u64>().ok()) > Some(1 << 20), "{sent}");
    (program, sent)
}

const DEADLINE: Duration = Duration::from_secs(20);

fn goes_on_and_has_everything(mut program: Program) {
    let pid = nix::unistd::Pid::from_raw(program.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).expect("it takes signals");
    assert_eq!(program.line(), "equal");
}

#[test]
fn full_connections_are_drained_refilled_and_restarted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (program, sent) = start_full(folder.path());
    let ledger = Ledger::create().expect("a ledger");
    let pid = program.child.id();
    let read_out = files::drain(&program.processes(), pid, &ledger, DEADLINE).unwrap_or_else(|it| panic!("{it}"));
    assert!(read_out > 1 << 20, "{read_out}");
    let model = model_of(&program, folder.path(), &ledger).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(refill::from_ledger(&ledger).unwrap_or_else(|it| panic!("{it}")), read_out);
    assert!(ledger.is_empty().expect("it can be read"));
    goes_on_and_has_everything(program);

    let order = format!("{}\n{sent}", folder.path().join("full").display());
    fs::write(folder.path().join("order"), order).expect("it is written");
    fs::write(folder.path().join("model"), serde_json::to_vec(&model).expect("JSON")).expect("it is written");
    let output = restart_and_check(folder.path());
    assert!(output.ends_with("equal\n"), "{output}");
}

/// Tells a copy of this program to drain and refill this pid with this ledger until it is killed.
const DRAIN: &str = "SLACKWATER_TEST_DRAIN";

#[test]
fn drain_helper() {
    let Ok(order) = std::env::var(DRAIN) else { return };
    let (pid, path) = order.split_once(' ').expect("pid and ledger");
    let pid = pid.parse().expect("a pid");
    let memfd = File::options().read(true).write(true).open(path).expect("the ledger");
    let ledger = Ledger::from_memfd(memfd.into()).expect("a ledger");
    println!("\nbegun");
    loop {
        let processes = [files::ProcessRef { host_pid: pid, pid }];
        files::drain(&processes, pid, &ledger, DEADLINE).unwrap_or_else(|it| panic!("{it}"));
        refill::from_ledger(&ledger).unwrap_or_else(|it| panic!("{it}"));
    }
}

#[test]
fn an_agent_killed_while_draining_or_refilling_loses_nothing() {
    const KILLS: u32 = 25;
    let folder = tempfile::tempdir().expect("a folder");
    let (program, _) = start_full(folder.path());
    let memfd = nix::sys::memfd::memfd_create("ledger", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a memfd");
    let path = format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd());
    let ledger = Ledger::from_memfd(memfd).expect("a ledger");
    let own = std::env::current_exe().expect("our own path");
    let order = format!("{} {path}", program.child.id());
    for kill in 0..KILLS {
        let arguments = ["--exact", "drain_helper", "--nocapture"];
        let mut agent = Program::start(&own, &arguments, &[(DRAIN, Path::new(&order))]);
        while agent.line() != "begun" {}
        // Each time somewhere else; whether it hits the middle of a chunk is not what makes it right.
        std::thread::sleep(Duration::from_micros(u64::from(kill) * 911));
        drop(agent);
        refill::from_ledger(&ledger).unwrap_or_else(|it| panic!("{it}"));
    }
    goes_on_and_has_everything(program);
}

/// The same as an ordinary user, where the tests run as root.
#[test]
fn as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("anybody may write there");
    let program = folder.path().join("tests");
    fs::copy(std::env::current_exe().expect("our own path"), &program).expect("a copy that anybody may run");
    let status = Command::new("setpriv")
        .args(["--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups"])
        .arg(&program)
        .env("TMPDIR", folder.path())
        .status()
        .expect("setpriv runs");
    assert!(status.success());
}
