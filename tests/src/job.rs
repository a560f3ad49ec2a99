//! One program under `ckpt-run`, its checkpoints and its next lives.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::ground::{RUN_LIMIT, prefix, scratch, until};
use crate::leftovers::Mark;
use crate::program::Program;

/// The longest that a checkpoint of the tests' small jobs may take.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(60);

/// For this file a program waits that is [held](Program::held_at).
const GO_ON: &str = "go-on";

/// A running job and its history.
pub struct Job {
    /// What it runs.
    pub program: Program,
    /// Its working folder.
    pub home: PathBuf,
    /// Where its generations go.
    pub dir: PathBuf,
    /// What marks its processes.
    pub mark: Mark,
    lives: u32,
    child: Child,
}

/// What a checkpoint cost, as `ckpt checkpoint --json` says it.
#[derive(Clone, Debug)]
pub struct Cost(pub Value);

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Job {
    /// Starts `program` under `ckpt-run`.
    pub fn start(program: &Program) -> Job {
        Job::start_with(program, &[], None)
    }

    /// The same with options of `ckpt-run`, and with its generations in `dir`.
    pub fn start_with(program: &Program, options: &[&str], dir: Option<PathBuf>) -> Job {
        let mark = Mark::new();
        let home = home_of(&program.name);
        let dir = dir.unwrap_or_else(|| home.join("generations"));
        let command = [&["--dir", text(&dir)], options].concat();
        let child = launch("ckpt-run", &command, program, &home, &mark, 1);
        Job { program: program.clone(), home, dir, mark, lives: 1, child }
    }

    /// The pid of `ckpt-run` or `ckpt-restart`.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What this life has written so far, standard output and error together.
    pub fn text(&self) -> String {
        fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Numbers of the whole `step` lines that this life has printed.
    pub fn steps(&self) -> Vec<u64> {
        steps_in(&self.text())
    }

    /// The last step printed by this life; 0 before the first.
    pub fn step(&self) -> u64 {
        self.steps().last().copied().unwrap_or(0)
    }

    /// Waits for step `number`.
    pub fn wait_step(&mut self, number: u64) {
        self.wait_for(&format!("step {number}"), |text| steps_in(text).last().is_some_and(|&last| last >= number));
    }

    /// Waits until what this life has printed is as wanted.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let reached = until(RUN_LIMIT, || {
            let ended = self.child.try_wait().unwrap_or(None);
            let text = self.text();
            match (wanted(&text), ended) {
                (true, _) => Some(Ok(())),
                (false, Some(status)) => Some(Err(format!("ended with {status} before {what}"))),
                (false, None) => None,
            }
        });
        let reached = reached.unwrap_or_else(|| Err(format!("{what} not reached in {RUN_LIMIT:?}")));
        reached.unwrap_or_else(|why| panic!("{}: {why}; it said: {}", self.program.name, tail(&self.text())));
    }

    /// `ckpt checkpoint --json`; must succeed.
    pub fn checkpoint(&self) -> Cost {
        self.checkpoint_with(&[])
    }

    /// The same with options.
    pub fn checkpoint_with(&self, options: &[&str]) -> Cost {
        let said = self.try_checkpoint(&[&["--json"], options].concat());
        assert!(said.status.success(), "{}: ckpt checkpoint: {} {}", self.program.name, said.status, tail(&said.err));
        Cost(
            serde_json::from_str(&said.out)
                .unwrap_or_else(|cause| panic!("ckpt checkpoint --json is no JSON ({cause}): {}", said.out)),
        )
    }

    /// `ckpt checkpoint`, however it ends.
    pub fn try_checkpoint(&self, options: &[&str]) -> Said {
        ckpt(&[&["checkpoint", "--dir", text(&self.dir)], options].concat(), &self.home, &self.mark, CHECKPOINT_LIMIT)
    }

    /// `ckpt` with any arguments, in the job's folder.
    pub fn ckpt(&self, arguments: &[&str]) -> Said {
        ckpt(arguments, &self.home, &self.mark, CHECKPOINT_LIMIT)
    }

    /// `kill -9` of everything that belongs to the job, as a power cut would.
    pub fn kill_all(&mut self) {
        self.mark.kill_all();
        let _ = self.child.wait();
    }

    /// `ckpt-restart` of the newest generation; the job's output goes to a new file.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same with options.
    pub fn restart_with(&mut self, options: &[&str]) {
        assert!(self.ended().is_some(), "{}: a restart while it still runs", self.program.name);
        self.lives += 1;
        let command = [options, &[text(&self.dir)]].concat();
        self.child = launch(
            "ckpt-restart",
            &command,
            &Program { command: Vec::new(), ..self.program.clone() },
            &self.home,
            &self.mark,
            self.lives,
        );
    }

    /// Exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or(None)
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = until(RUN_LIMIT, || self.ended());
        ended.unwrap_or_else(|| {
            panic!("{}: did not end in {RUN_LIMIT:?}; it said: {}", self.program.name, tail(&self.text()))
        })
    }

    /// Waits for a good end; the program's result.
    pub fn finish(&mut self) -> String {
        let go_on = self.home.join(GO_ON);
        fs::write(&go_on, "").unwrap_or_else(|cause| panic!("cannot write {}: {cause}", go_on.display()));
        let status = self.wait();
        let text = self.text();
        assert!(
            status.success() && !text.contains("WRONG"),
            "{}: life {}: {status}: {}",
            self.program.name,
            self.lives,
            tail(&text)
        );
        result_in(&text).unwrap_or_else(|| panic!("{}: no RESULT: {}", self.program.name, tail(&text)))
    }

    /// Nothing may be left: no process, no shared memory, no job folder.
    pub fn assert_clean(&self) {
        let left = self.mark.leftovers();
        assert!(left.is_empty(), "{}: left behind: {left:?}", self.program.name);
    }

    fn log(&self) -> PathBuf {
        log_of(&self.home, self.lives)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what it said: {}", tail(&self.text()));
        }
        self.mark.kill_all();
        let _ = self.child.wait();
        self.mark.sweep();
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Cost {
    /// A number of the answer.
    pub fn number(&self, field: &str) -> f64 {
        self.0[field].as_f64().unwrap_or_else(|| panic!("ckpt checkpoint --json has no number {field}: {}", self.0))
    }
}

impl Said {
    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.err, self.out)
    }

    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// `ckpt` with any arguments, bounded.
pub fn ckpt(arguments: &[&str], home: &Path, mark: &Mark, limit: Duration) -> Said {
    let mut command = Command::new(prefix().join("bin/ckpt"));
    let (name, value) = mark.variable();
    command.args(arguments).current_dir(home).env(name, value).stdin(Stdio::null());
    let out = File::create(home.join("ckpt.out")).and_then(|out| Ok((out, File::create(home.join("ckpt.err"))?)));
    let (out, err) = out.unwrap_or_else(|cause| panic!("cannot write in {}: {cause}", home.display()));
    let mut child =
        command.stdout(out).stderr(err).spawn().unwrap_or_else(|cause| panic!("cannot start ckpt: {cause}"));
    let status = until(limit, || child.try_wait().unwrap_or(None)).unwrap_or_else(|| {
        let _ = child.kill();
        let _ = child.wait();
        panic!("ckpt {} did not end in {limit:?}", arguments.join(" "));
    });
    let read = |name: &str| {
        fs::read(home.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    };
    Said { status, out: read("ckpt.out"), err: read("ckpt.err") }
}

/// The last lines of a program's output, for a message.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// A new folder for a job; its generations may be big, so it lies on a real disk.
fn home_of(name: &str) -> PathBuf {
    let home = scratch().join(format!("{name}-{}-{}", std::process::id(), Mark::new().variable().1));
    fs::create_dir_all(&home).unwrap_or_else(|cause| panic!("cannot make {}: {cause}", home.display()));
    home
}

fn log_of(home: &Path, life: u32) -> PathBuf {
    home.join(format!("out.{life}"))
}

/// Starts `ckpt-run` or `ckpt-restart`, or with an empty `tool` the program by itself, in a process group of its own.
pub(crate) fn launch(tool: &str, options: &[&str], program: &Program, home: &Path, mark: &Mark, life: u32) -> Child {
    let words: Vec<&str> = program.command.iter().map(String::as_str).collect();
    let mut command = if tool.is_empty() {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
    } else {
        let mut command = Command::new(prefix().join("bin").join(tool));
        command.args(options).args(&words);
        command
    };
    let (name, value) = mark.variable();
    let log = File::create(log_of(home, life)).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) = log.unwrap_or_else(|cause| panic!("cannot write in {}: {cause}", home.display()));
    command.current_dir(home).env(name, value).envs(program.environment.iter().cloned()).process_group(0);
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    command.spawn().unwrap_or_else(|cause| panic!("cannot start {tool} {}: {cause}", words.join(" ")))
}

/// Numbers of the whole `step` lines of a text.
pub(crate) fn steps_in(text: &str) -> Vec<u64> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| line.strip_prefix("step ")?.split(' ').next()?.parse().ok()).collect()
}

/// The word after RESULT.
pub(crate) fn result_in(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("RESULT ")).map(|word| word.trim().to_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{result_in, steps_in, tail};

    #[test]
    fn a_cut_line_is_no_step() {
        assert_eq!(steps_in("ep 3 aa\nstep 4 bb\nstep 5 cc\nstep 6"), [4, 5]);
    }

    #[test]
    fn the_result_is_one_word() {
        assert_eq!(result_in("step 1 a\nRESULT 00ff\nGAP_MS 3\n").as_deref(), Some("00ff"));
        assert_eq!(result_in("step 1 a\n"), None);
    }

    #[test]
    fn a_tail_is_short() {
        assert_eq!(tail("1\n2\n3\n4\n5\n"), "2 | 3 | 4 | 5");
    }
}
