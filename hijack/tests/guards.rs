//! What the preload library wraps behaves as without it, and does what it is for. C programs are run with and without
//! the library in a job's folder that has an idle control segment.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hijack_abi::{JOB_FOLDER_VARIABLE, LIBRARY_FILE, MAGIC, PARK_SIGNAL, SEGMENT_FILE, Segment, VERSION};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Bit of the park signal in a mask of /proc/PID/status.
const PARK_BIT: u64 = 1 << (PARK_SIGNAL - 1);
/// Lives of the program that executes itself under fire.
const EXECS: &str = "300";
/// What every libc has, and compiled Rust code may call.
const MEMORY_FUNCTIONS: [&str; 6] = ["bcmp", "memcmp", "memcpy", "memmove", "memset", "strlen"];

/// A folder with the job's folder and the programs, which goes with the test.
struct Ground {
    folder: tempfile::TempDir,
}

impl Ground {
    fn new() -> Outcome<Self> {
        let ground = Self { folder: tempfile::tempdir()? };
        fs::set_permissions(ground.path(""), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(ground.job())?;
        symlink(library()?, ground.library())?;
        let mut segment = File::create(ground.job().join(SEGMENT_FILE))?;
        segment.write_all(&MAGIC.to_le_bytes())?;
        segment.write_all(&VERSION.to_le_bytes())?;
        segment.write_all(&u32::try_from(size_of::<Segment>() / 1024)?.to_le_bytes())?;
        segment.set_len(size_of::<Segment>() as u64)?;
        Ok(ground)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn job(&self) -> PathBuf {
        self.path("job")
    }

    fn library(&self) -> PathBuf {
        self.job().join(LIBRARY_FILE)
    }

    fn compile(&self, name: &str, options: &[&str]) -> Outcome<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name).with_extension("c");
        let program = self.path(&[&[name], options].concat().concat());
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-w", "-pthread"]).args(options).arg("-o").arg(&program).arg(source);
        let status = gcc.status()?;
        assert!(status.success(), "gcc {name}.c: {status}");
        Ok(program)
    }

    /// `program` in an environment with nothing but a PATH, and the job's where it is of the job.
    fn command(&self, program: impl AsRef<OsStr>, of_the_job: bool) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        if of_the_job {
            command.env("LD_PRELOAD", self.library()).env(JOB_FOLDER_VARIABLE, self.job());
        }
        command
    }
}

/// The library as it is installed, built when first asked for.
fn library() -> Outcome<PathBuf> {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "--package", "hijack"]).status()?;
    assert!(built.success(), "cargo build --release --package hijack: {built}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("a target folder")?;
    Ok(target.join("release").join(LIBRARY_FILE))
}

/// Its standard output, after it succeeded and said nothing else.
fn said(mut command: Command) -> Outcome<String> {
    let Output { status, stdout, stderr } = command.output()?;
    let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8_lossy(&stderr).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    Ok(stdout)
}

/// The first line in which two texts differ.
fn difference<'a>(left: &'a str, right: &'a str) -> Option<(&'a str, &'a str)> {
    let ended = [""];
    let pairs = left.lines().chain(ended).zip(right.lines().chain(ended));
    pairs.into_iter().find(|(left, right)| left != right)
}

#[test]
fn every_exec_does_what_it_does_without_the_library() -> Outcome {
    let ground = Ground::new()?;
    let program = ground.compile("exec_calls", &[])?;
    let run = |name: &str, prepare: &dyn Fn(&mut Command)| -> Outcome<String> {
        // Of one name for all, since it is part of what they print.
        let folder = ground.path("run");
        fs::create_dir(&folder)?;
        let mut command = ground.command(&program, false);
        command.arg(&program).current_dir(&folder);
        prepare(&mut command);
        let text = said(command)?;
        fs::rename(&folder, ground.path(name))?;
        assert!(text.ends_with("RESULT done\n"), "{text}");
        Ok(text)
    };
    let without = run("without", &|_| {})?;
    let with = run("with", &|command| {
        command.env("LD_PRELOAD", ground.library()).env(JOB_FOLDER_VARIABLE, ground.job());
    })?;
    assert_eq!(difference(&without, &with), None, "left: without, right: with the library in a job");
    let idle = run("idle", &|command| {
        command.env("LD_PRELOAD", ground.library());
    })?;
    assert_eq!(difference(&without, &idle), None, "left: without, right: with the library in no job");
    Ok(())
}

#[test]
fn parks_during_exec_end_nobody() -> Outcome {
    let ground = Ground::new()?;
    let program = ground.compile("exec_loop", &[])?;
    let mut command = ground.command(&program, true);
    command.args(["fire", EXECS]);
    assert_eq!(said(command)?, "exit 0 signal 0\n");
    Ok(())
}

#[test]
fn the_park_signal_is_blocked_until_the_new_program_has_its_handler() -> Outcome {
    let ground = Ground::new()?;
    // No preload library gets into this one, so it shows what a mask it was started with.
    let bare = ground.compile("show_mask", &["-static"])?;
    let preloaded = ground.compile("show_mask", &[])?;
    for (program, of_the_job, blocked) in [(&bare, true, true), (&preloaded, true, false), (&bare, false, false)] {
        let mut shell = ground.command("/bin/sh", of_the_job);
        shell.args(["-c", "exec \"$0\""]).arg(program);
        let mask = u64::from_str_radix(said(shell)?.trim(), 16)?;
        assert_eq!(mask & PARK_BIT != 0, blocked, "{}, of the job: {of_the_job}: {mask:x}", program.display());
        assert_eq!(mask & !PARK_BIT, 0, "nothing else is blocked");
    }
    Ok(())
}

#[test]
fn the_environment_keeps_the_job() -> Outcome {
    let ground = Ground::new()?;
    let program = ground.compile("environments", &[])?;
    let library = ground.library().display().to_string();
    let (job, preload) = (format!("{JOB_FOLDER_VARIABLE}={}", ground.job().display()), format!("LD_PRELOAD={library}"));
    let both = [preload.as_str(), job.as_str()];
    let other = format!("LD_PRELOAD={library}:libm.so.6");
    let longer = format!("LD_PRELOAD=libm.so.6:{library}.2");
    let longer_and_ours = format!("LD_PRELOAD={library}:libm.so.6:{library}.2");
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &both),
        (&["A=1", "B=2"], &[&preload, &job, "A=1", "B=2"]),
        (&["A=1", &job], &[&preload, &job, "A=1"]),
        (&[&preload, "A=1"], &[&job, &preload, "A=1"]),
        (&["A=1", "LD_PRELOAD=", "SLACKWATER_JOB="], &[&preload, &job, "A=1"]),
        (&["LD_PRELOAD=libm.so.6", &job, "A=1"], &[&other, &job, "A=1"]),
        (&[&longer, &job], &[&longer_and_ours, &job]),
        (&[&other, "A=1", &job], &[&other, "A=1", &job]),
        (&["SLACKWATER_JOB=/of/another", "A=1"], &["SLACKWATER_JOB=/of/another", "A=1"]),
    ];
    for (given, expected) in cases {
        for how in ["exec", "spawn", "spawnp"] {
            let mut command = ground.command(&program, true);
            command.arg(how).args(given);
            let text = said(command)?;
            assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{how} with {given:?}");
            let mut idle = ground.command(&program, false);
            idle.env("LD_PRELOAD", ground.library()).arg(how).args(given);
            let text = said(idle)?;
            assert_eq!(text.lines().collect::<Vec<_>>(), given, "{how} with {given:?} in no job");
        }
    }
    Ok(())
}

#[test]
fn tools_that_clear_the_environment_do_not_lose_the_job() -> Outcome {
    let ground = Ground::new()?;
    let program = ground.compile("environments", &[])?;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let job = format!("{JOB_FOLDER_VARIABLE}={}", ground.job().display());
    let preload = format!("LD_PRELOAD={}", ground.library().display());
    let of_job = [job.as_str(), preload.as_str()].map(str::to_owned);
    for arguments in [&["-i"][..], &["-u", "LD_PRELOAD"], &["-u", "SLACKWATER_JOB"], &["LD_PRELOAD="]] {
        let mut command = ground.command("/usr/bin/env", true);
        command.args(arguments).arg("/usr/bin/printenv");
        let text = said(command)?;
        assert!(lines(&text).is_superset(&of_job.clone().into()), "env {arguments:?}: {text}");
    }
    let mut many = ground.command(&program, true);
    many.arg("many");
    assert_eq!(lines(&said(many)?), ["MANY=1".to_owned()].into(), "more than are repaired: left as they are");
    let mut missing = ground.command(&program, true);
    missing.arg("spawn-missing");
    assert_eq!(said(missing)?, "2\n", "posix_spawn says why");
    Ok(())
}

#[test]
fn threads_and_small_signal_stacks_work() -> Outcome {
    let ground = Ground::new()?;
    let program = ground.compile("threads", &[])?;
    let without = said(ground.command(&program, false))?;
    assert_eq!(said(ground.command(&program, true))?, without);
    assert!(without.ends_with("setgid and setuid done\nRESULT done\n"), "{without}");

    let text = said(ground.command(ground.compile("altstack", &[])?, true))?;
    let expected = [
        "1000: -1 errno 12",
        "2048: 0 errno 0",
        "3000: 0 errno 0",
        "4096: 0 errno 0",
        "8191: 0 errno 0",
        "8192: 0 errno 0, size 8192 flags 0",
        "16384: 0 errno 0, size 16384 flags 0",
        "65536: 0 errno 0, size 65536 flags 0",
        "wrong flags -1 errno 22",
        "RESULT done",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn the_segment_is_mapped_when_it_is_needed() -> Outcome {
    let ground = Ground::new()?;
    let program = ground.compile("segment", &[])?;
    let run = |how: &str, variable: &str| {
        let mut command = ground.command(&program, true);
        command.arg(how).env(variable, "0");
        said(command)
    };
    assert_eq!(run("thread", "A")?, "start 0\nthen 1\n");
    // Also with no descriptor left.
    assert_eq!(run("park", "A")?, "start 0\nlimit 1, descriptor left 0\nthen 1\n");
    for variable in ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"] {
        assert_eq!(run("thread", variable)?, "start 1\nthen 1\n", "a rank");
    }
    Ok(())
}

fn text_of_all(library: &Path) -> Outcome<String> {
    let mut nm = Command::new("nm");
    nm.arg(library);
    said(nm)
}

/// Program headers: what a start costs.
#[test]
fn the_library_is_two_mappings_and_writes_to_one_page() -> Outcome {
    let mut readelf = Command::new("readelf");
    readelf.arg("-lW").arg(library()?);
    let text = said(readelf)?;
    let loads: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.first() == Some(&"LOAD"))
        .collect();
    assert_eq!(loads.len(), 2, "{text}");
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
    let (address, bytes) = (number(loads[1][2])?, number(loads[1][5])?);
    assert!(loads[1].contains(&"RW") && address % 4096 + bytes <= 4096, "{text}");
    assert!(bytes > number(loads[1][4])?, "without .bss the page is read before it is written, a fault more: {text}");
    assert!(!text.contains("GNU_RELRO"), "{text}");
    Ok(())
}

#[test]
fn the_library_needs_nothing() -> Outcome {
    let library = library()?;
    let mut readelf = Command::new("readelf");
    readelf.arg("-dW").arg(&library);
    let dynamic = said(readelf)?;
    assert!(!dynamic.contains("(NEEDED)"), "{dynamic}");
    let mut nm = Command::new("nm");
    nm.args(["-D", "--undefined-only", "--format=posix"]).arg(&library);
    let text = said(nm)?;
    let strong = text.lines().filter_map(|line| line.trim_end().strip_suffix(" U"));
    assert!(!text_of_all(&library)?.contains("4core9panicking"), "something can panic");
    let unknown: Vec<_> = strong.filter(|name| !MEMORY_FUNCTIONS.contains(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?} would have to be in every program's libc");
    Ok(())
}
