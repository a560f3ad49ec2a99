//! What a shell user expects of a wrapper: exit codes, streams, signals, refusals with a name, lists.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::{Job, Program, Said, Shell, prefix, until};

/// Exit code of wrong usage.
const USAGE: i32 = 2;
/// How long a signal may take to end a job.
const END: Duration = Duration::from_secs(10);

fn code(said: &Said) -> i32 {
    said.code().unwrap_or_else(|| panic!("ended by a signal: {}", said.status))
}

/// A refusal: an ordinary exit code, no panic, and the words in the message.
fn assert_refused(said: &Said, words: &[&str]) {
    let refused = (1..=100).contains(&code(said)) && !said.err.contains("panicked");
    assert!(refused, "{}: {}", said.status, said.text());
    for word in words {
        assert!(said.text().contains(word), "the message does not say {word}: {}", said.text());
    }
}

fn sleeper() -> Program {
    Program::new("sleeper", ["sh", "-c", "echo step 1; exec sleep 1000"])
}

#[test]
fn exit_codes_pass_through() {
    let shell = Shell::new("codes");
    assert_eq!(code(&shell.run(&["ckpt-run", "true"])), 0);
    assert_eq!(code(&shell.run(&["ckpt-run", "sh", "-c", "exit 7"])), 7);
    assert_eq!(code(&shell.run(&["ckpt-run", "--", "sh", "-c", "exit 250"])), 250);
    assert_eq!(code(&shell.run(&["ckpt-run", "sh", "-c", "kill -9 $$"])), 128 + 9);
    // A caller that lets the kernel reap its children hands that on.
    assert_eq!(code(&shell.run(&["env", "--ignore-signal=CHLD", "ckpt-run", "sh", "-c", "exit 7"])), 7);
    assert_eq!(code(&shell.run(&["ckpt-run", "sh", "-c", "kill -TERM $$"])), 128 + 15);
}

#[test]
fn a_missing_program() {
    let said = Shell::new("missing").run(&["ckpt-run", "/no/such/program"]);
    assert_eq!(code(&said), 127);
    assert!(said.err.contains("/no/such/program"), "{}", said.err);
}

#[test]
fn wrong_usage() {
    let shell = Shell::new("usage");
    for words in
        [&["ckpt-run"][..], &["ckpt-run", "--nonsense", "true"], &["ckpt"], &["ckpt", "nonsense"], &["ckpt-restart"]]
    {
        let said = shell.run(words);
        assert_eq!(code(&said), USAGE, "{words:?}: {}", said.text());
        assert!(said.err.contains("sage"), "{words:?} does not say how it is used: {}", said.err);
    }
    for tool in ["ckpt-run", "ckpt", "ckpt-restart"] {
        assert_eq!(code(&shell.run(&[tool, "--help"])), 0);
        assert!(shell.run(&[tool, "--version"]).out.contains(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn streams_pass_through() {
    let shell = Shell::new("streams");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let said = shell.run_with_input(&["ckpt-run", "cat"], bytes.clone());
    assert!(said.out.as_bytes() == bytes, "{} of {} bytes came through: {}", said.out.len(), bytes.len(), said.err);
    let said = shell.run(&["ckpt-run", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"), "ckpt-run adds nothing of its own");
    let said = shell.line("ckpt-run seq 100000 | ckpt-run tail -n 1");
    assert_eq!(said.out, "100000\n", "{}", said.err);
    let said = shell.line("ckpt-run sh -c 'echo fine' <&-");
    assert_eq!(said.out, "fine\n", "with its standard input closed: {}", said.err);
    let said = shell.run(&["bash", "-c", "ckpt-run cat <(echo substituted)"]);
    assert_eq!(said.out, "substituted\n", "a process substitution: {}", said.err);
    let said = shell.line("ckpt-run yes | head -n 1");
    assert_eq!(said.out, "y\n", "into a pipe that closes early: {}", said.err);
}

#[test]
fn a_terminal_passes_through() {
    let said = Shell::new("tty").run(&[
        "script",
        "-qec",
        "ckpt-run sh -c 'test -t 0 && test -t 1 && stty size >/dev/null && echo at a terminal'",
        "/dev/null",
    ]);
    assert_eq!(code(&said), 0, "{}", said.text());
    assert!(said.out.contains("at a terminal"), "{}", said.text());
}

#[test]
fn signals_end_everything() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let shell = Shell::new("signals");
        // Not a shell, which loses a SIGINT that comes before its child is there. The child ignores it.
        let script = "import signal as s,subprocess\ns.signal(2,s.SIG_IGN)\nsubprocess.Popen(['sleep','1000'])\ns.signal(2,s.SIG_DFL)\nprint('up',flush=True)\nwhile 1: s.pause()";
        let mut child = shell.start(&["ckpt-run", "/usr/bin/python3", "-c", script]);
        until(END, || shell.read("out").contains("up").then_some(())).expect("the program starts");
        shell.signal(&child, signal);
        let status =
            until(END, || child.try_wait().unwrap_or(None)).unwrap_or_else(|| panic!("{signal} did not end it"));
        let code = std::os::unix::process::ExitStatusExt::signal(&status).map_or(status.code(), |by| Some(128 + by));
        assert_eq!(code, Some(128 + signal as i32), "{status}");
        let left = shell.mark.leftovers();
        assert!(left.is_empty(), "after {signal}: {left:?}");
    }
}

/// With its default `--dir` a job puts nothing but its generations in the working folder.
#[test]
fn a_quiet_run_leaves_no_files() {
    let shell = Shell::new("quiet");
    assert_eq!(code(&shell.run(&["ckpt-run", "true"])), 0);
    let names: Vec<String> = fs::read_dir(&shell.home)
        .expect("readable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let other: Vec<&String> = names.iter().filter(|name| *name != "out" && *name != "err").collect();
    assert!(other.is_empty(), "{other:?}");
    assert_eq!(shell.mark.leftovers(), Vec::<String>::new());
}

#[test]
fn nothing_to_restart() {
    let shell = Shell::new("nothing");
    for place in [shell.home.display().to_string(), "/no/such/folder".to_owned(), "/etc/passwd".to_owned()] {
        assert_refused(&shell.run(&["ckpt-restart", &place]), &[&place]);
        assert_refused(&shell.run(&["ckpt", "inspect", &place]), &[&place]);
        assert_refused(&shell.run(&["ckpt", "verify", &place]), &[&place]);
    }
    assert_refused(&shell.run(&["ckpt", "checkpoint", "--dir", "."]), &[]);
    assert_refused(&shell.run(&["ckpt", "checkpoint", "no-such-job"]), &["no-such-job"]);
}

#[test]
fn a_statically_linked_program() {
    let shell = Shell::new("static");
    fs::write(
        shell.home.join("lonely.c"),
        "#include <stdio.h>\n#include <unistd.h>\nint main(void){puts(\"step 1\");fflush(stdout);sleep(100);return 0;}",
    )
    .expect("writable");
    let built = Command::new("gcc").args(["-static", "-o", "lonely", "lonely.c"]).current_dir(&shell.home).status();
    assert!(built.is_ok_and(|status| status.success()), "gcc -static: install libc6-dev");
    let lonely = shell.home.join("lonely").display().to_string();
    let mut job = Job::start(&Program::new("lonely", [lonely.as_str()]));
    job.wait_step(1);
    assert_refused(&job.try_checkpoint(&[]), &["statically"]);
    assert!(job.ended().is_none(), "a refused checkpoint ended the job");
}

/// A job with a connection to its outside, which it closes a tenth of a second after the file `asked` has appeared; the other
/// end, and its port.
fn connected_outside(name: &str) -> (Job, TcpStream, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = listener.local_addr().expect("bound").port().to_string();
    let script = "import os,socket,sys,time\ns=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\nfor k in range(1,100000):\n print('step',k,flush=True);time.sleep(0.001)\n if s and os.path.exists('asked'):\n  time.sleep(0.1);s.close();s=None";
    let mut job = Job::start(&Program::new(name, ["/usr/bin/python3", "-c", script, &port]));
    let (connection, _) = listener.accept().expect("it connects");
    job.wait_step(1);
    (job, connection, port)
}

fn assert_runs_on(job: &mut Job) {
    let step = job.step();
    job.wait_step(step + 5);
}

#[test]
fn a_peer_outside_the_job() {
    let (mut job, _connection, port) = connected_outside("peer");
    assert_refused(&job.try_checkpoint(&[]), &[&port]);
    assert_runs_on(&mut job);
}

/// A connection to a name service, say: it is there when the job is parked, and a moment later it is not.
#[test]
fn a_peer_outside_the_job_for_a_moment() {
    let (mut job, connection, _) = connected_outside("moment");
    // The other end closes as well: a half-closed connection to the outside would be one still.
    let closed = std::thread::spawn(move || std::io::copy(&mut &connection, &mut std::io::sink()));
    std::fs::write(job.home.join("asked"), "").expect("writable");
    job.checkpoint();
    closed.join().expect("it does not panic").expect("closed");
    assert_runs_on(&mut job);
}

#[test]
fn io_uring() {
    let script = "import ctypes,os,time\nc=ctypes.CDLL(None,use_errno=True)\np=(ctypes.c_char*120)()\nfd=c.syscall(425,4,p)\nprint('uring',fd,flush=True)\nfor k in range(1,100000):\n print('step',k,flush=True);time.sleep(0.02)";
    let mut job = Job::start(&Program::new("uring", ["/usr/bin/python3", "-c", script]));
    job.wait_step(1);
    if job.text().contains("uring -1") {
        return; // refused at set-up by us, or switched off on this machine: it cannot come up at all
    }
    assert_refused(&job.try_checkpoint(&[]), &["io_uring"]);
    assert_runs_on(&mut job);
}

#[test]
fn jobs_are_listed_and_found_by_name() {
    let mut tide = Job::start_with(&sleeper(), &["--name", "tide"], None);
    let mut ebb = Job::start_with(&sleeper(), &["--name", "ebb"], None);
    tide.wait_step(1);
    ebb.wait_step(1);
    let listed = tide.ckpt(&["ps"]);
    assert!(listed.out.contains("tide") && listed.out.contains("ebb"), "{}", listed.text());
    let rows: serde_json::Value = serde_json::from_str(&tide.ckpt(&["ps", "--json"]).out).expect("JSON");
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "tide")).expect("tide is listed");
    for field in ["job", "name", "dir", "agents", "processes"] {
        assert!(!row[field].is_null(), "ps --json lacks {field}: {row}");
    }
    assert_eq!(row["dir"].as_str().map(Path::new), Some(tide.dir.as_path()));
    assert!(row["agents"].as_array().is_some_and(|agents| !agents.is_empty()), "{row}");
    assert_refused(&tide.ckpt(&["checkpoint"]), &["tide", "ebb"]);
    assert_eq!(code(&tide.ckpt(&["checkpoint", "tide"])), 0);
    assert!(tide.dir.exists() && !ebb.dir.join("gen-000001").exists());
    ebb.kill_all();
}

/// What a restart needs beside the job (its pid 1, stand-ins for who stood around it) is not of the job.
#[test]
fn a_restarted_job_counts_its_own_processes() {
    let mut job = Job::start(&sleeper().named("counted"));
    let processes = |job: &Job| {
        let rows: serde_json::Value = serde_json::from_str(&job.ckpt(&["ps", "--json"]).out).expect("JSON");
        let dir = job.dir.display().to_string();
        rows.as_array()?.iter().find(|row| row["dir"] == dir)?["processes"].as_u64()
    };
    job.wait_step(1);
    until(END, || (processes(&job) == Some(1)).then_some(())).expect("the shell becomes sleep, and there is no other");
    job.checkpoint();
    job.kill_all();
    job.restart();
    until(END, || processes(&job)).expect("it is listed");
    // Waits for the restart to be done.
    assert_eq!(job.checkpoint().number("processes"), 1.0);
    assert_eq!(processes(&job), Some(1));
    job.kill_all();
}

#[test]
fn generations_are_listed_kept_and_closed_to_others() {
    let mut job = Job::start_with(&sleeper(), &["--keep", "3"], None);
    job.wait_step(1);
    let costs: Vec<_> = (0..5).map(|_| job.checkpoint()).collect();
    for field in ["generation", "stall_ms", "total_ms", "bytes_read", "bytes_stored", "files", "processes", "threads"] {
        costs[4].number(field);
    }
    let dir = job.dir.display().to_string();
    let rows: serde_json::Value = serde_json::from_str(&job.ckpt(&["ls", &dir, "--json"]).out).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 3, "--keep 3 after five checkpoints: {rows:?}");
    for field in ["generation", "path", "committed_at", "bytes_stored"] {
        assert!(rows.iter().all(|row| !row[field].is_null()), "ls --json lacks {field}: {rows:?}");
    }
    assert_eq!(code(&job.ckpt(&["verify", &dir])), 0);
    let said = job.ckpt(&["inspect", &dir, "--json"]);
    serde_json::from_str::<serde_json::Value>(&said.out)
        .unwrap_or_else(|cause| panic!("inspect --json ({cause}): {}", said.text()));
    assert!(job.ckpt(&["inspect", &dir]).out.contains("sleep"), "inspect names the program");
    assert_closed(&job.dir);
}

fn assert_closed(path: &Path) {
    let about = fs::symlink_metadata(path).expect("there");
    let want = if about.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(about.mode() & 0o777, want, "{}", path.display());
    if about.is_dir() {
        fs::read_dir(path).expect("readable").flatten().for_each(|entry| assert_closed(&entry.path()));
    }
}

#[test]
fn checkpoints_by_the_clock() {
    let mut job = Job::start_with(&sleeper(), &["--every", "1s"], None);
    job.wait_step(1);
    let dir = job.dir.display().to_string();
    let two = until(Duration::from_secs(30), || {
        let rows: serde_json::Value = serde_json::from_str(&job.ckpt(&["ls", &dir, "--json"]).out).ok()?;
        (rows.as_array()?.len() >= 2).then_some(())
    });
    assert!(two.is_some(), "--every 1s gave no two generations in 30 s: {}", job.text());
    assert!(job.ended().is_none());
}

/// The folder of an installation can be moved, and an older generation of it still restarts.
#[test]
fn a_moved_installation() {
    let shell = Shell::new("moved");
    let status = Command::new("cp").arg("-a").arg(prefix()).arg(shell.home.join("elsewhere")).status();
    assert!(status.is_ok_and(|status| status.success()));
    let tool = |name: &str| shell.home.join("elsewhere/bin").join(name).display().to_string();
    let said = shell.run(&[&tool("ckpt-run"), "sh", "-c", "echo moved"]);
    assert_eq!(said.out, "moved\n", "{}", said.err);
    let mut job =
        Job::start(&Program::new("moved", ["sh", "-c", "echo step 1; sleep 3; read line; echo RESULT $line"]));
    job.wait_step(1);
    let dir = job.dir.display().to_string();
    job.checkpoint_with(&["--kill"]);
    job.wait();
    let said = shell.run_with_input(&[&tool("ckpt-restart"), &dir], b"typed\n".to_vec());
    assert_eq!((code(&said), said.out.as_str()), (0, "RESULT typed\n"), "{}", said.err);
}

/// What takes the place of the old streams may be of another kind: a pipe for a file, a terminal for a pipe.
#[test]
fn a_restart_at_another_place() {
    let mut job = Job::start(&Program::new(
        "place",
        ["sh", "-c", "echo step 1; sleep 2; echo RESULT there; echo also >&2; exit 3"],
    ));
    job.wait_step(1);
    job.checkpoint_with(&["--kill"]);
    job.wait();
    let shell = Shell::new("place");
    let dir = job.dir.display().to_string();
    let said = shell.run(&["sh", "-c", "ckpt-restart \"$1\" 2>err.txt | cat; cat err.txt >&2", "sh", &dir]);
    assert!(said.out.ends_with("RESULT there\n") && said.err.contains("also"), "{}", said.text());
    let said = shell.run(&["ckpt-restart", &dir]);
    assert_eq!(code(&said), 3, "{}", said.text());
    let said = shell.run(&["script", "-qec", &format!("ckpt-restart {dir}"), "/dev/null"]);
    assert!(said.out.contains("RESULT there"), "{}", said.text());
}

/// Debuggers keep working: nothing of ours is anybody's tracer.
#[test]
fn nobody_is_traced() {
    let mut job = Job::start(&sleeper());
    job.wait_step(1);
    job.checkpoint();
    for pid in job.mark.processes() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(!status.contains("TracerPid:") || status.contains("TracerPid:\t0\n"), "{pid} is traced");
    }
}

/// Runs as an ordinary user: no capability anywhere.
#[test]
fn no_privileges() {
    let mut job = Job::start(&sleeper());
    job.wait_step(1);
    for pid in job.mark.processes() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(
            status.contains("CapEff:\t0000000000000000"),
            "{pid} has capabilities: run `cargo xtask test`, it gives them up"
        );
    }
}
