//! Jobs of demo and bench: started as the ordinary user, marked by their environment, ended by pid.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::ground::{self, Outcome};
use crate::user::User;

/// Marks our processes in all their lives.
const VARIABLE: &str = "SLACKWATER_SESSION";
/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder, a user, an installation.
pub struct Session {
    /// The working folder.
    pub home: PathBuf,
    /// Who runs the jobs.
    pub user: User,
    prefix: PathBuf,
    mark: String,
}

/// A command that runs.
pub struct Running {
    child: Child,
    /// Where its standard output and error go.
    pub log: PathBuf,
}

impl Session {
    /// In a fresh folder on a real disk, with the product under `prefix`.
    pub fn open(name: &str, prefix: PathBuf) -> Outcome<Session> {
        let user = User::ordinary()?;
        let home = user.folder(PathBuf::from(format!("/var/tmp/slackwater-{name}-{}", user.uid)))?;
        let mark = format!("{name}-{}", std::process::id());
        Ok(Session { home, user, prefix, mark })
    }

    /// A command of the product's.
    pub fn tool(&self, name: &str) -> String {
        self.prefix.join("bin").join(name).display().to_string()
    }

    /// A command of this session, not yet started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.user.command(words[0], &self.home);
        command.args(&words[1..]).env(VARIABLE, &self.mark);
        command
    }

    /// Starts a command with its output in a file `log`.
    pub fn start(&self, words: &[&str], log: &str) -> Outcome<Running> {
        let log = self.home.join(log);
        let streams = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = streams.map_err(|cause| format!("cannot write {}: {cause}", log.display()))?;
        let child = self.command(words).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.map_err(|cause| format!("cannot start {}: {cause}", words[0]))?;
        Ok(Running { child, log })
    }

    /// Runs a command to its end; what it printed.
    pub fn run(&self, words: &[&str], log: &str) -> Outcome<String> {
        let mut running = self.start(words, log)?;
        let status = running.wait()?;
        let text = running.text();
        if status.success() {
            Ok(text)
        } else {
            Err(format!("`{}` ended with {status}: {}", words.join(" "), text.trim()).into())
        }
    }

    /// `ckpt checkpoint --json`; what it cost.
    pub fn checkpoint(&self, dir: &Path, options: &[&str]) -> Outcome<Value> {
        let dir = dir.display().to_string();
        let ckpt = self.tool("ckpt");
        let words = [&[ckpt.as_str(), "checkpoint", "--json", "--dir", dir.as_str()], options].concat();
        let output = ground::output(&mut self.command(&words))?;
        serde_json::from_str(&output)
            .map_err(|cause| format!("ckpt checkpoint --json printed no JSON ({cause}): {output}").into())
    }

    /// Live processes of this session.
    pub fn processes(&self) -> Vec<String> {
        let wanted = format!("{VARIABLE}={}", self.mark);
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let marked = entries.filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
        });
        marked.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// `kill -9` of all of them, by pid; how many there were.
    pub fn kill_all(&self) -> usize {
        let first = self.processes();
        ground::until(LIMIT, || {
            let left = self.processes();
            if left.is_empty() {
                return Some(());
            }
            ground::works(Command::new("kill").arg("-9").args(&left));
            None
        });
        first.len()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill_all();
        self.user.sweep();
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Running {
    /// What it has written so far.
    pub fn text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The word after `name ` at the beginning of a line.
    pub fn word(&self, name: &str) -> Option<String> {
        word_after(&self.text(), name)
    }

    /// Steps printed so far.
    pub fn step(&self) -> u64 {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().rev().find_map(|line| line.strip_prefix("step ")?.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    /// Waits for step `number`.
    pub fn wait_step(&mut self, number: u64) -> Outcome<()> {
        let reached = ground::until(LIMIT, || match (self.step() >= number, self.child.try_wait()) {
            (true, _) => Some(true),
            (false, Ok(None)) => None,
            (false, _) => Some(false),
        });
        if reached == Some(true) {
            Ok(())
        } else {
            Err(format!("step {number} was not reached: {}", self.text().trim()).into())
        }
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        let ended = ground::until(LIMIT, || self.child.try_wait().transpose());
        let ended: Option<io::Result<ExitStatus>> = ended;
        match ended {
            Some(status) => Ok(status.map_err(|cause| format!("cannot wait: {cause}"))?),
            None => Err(format!("not ended after {} s: {}", LIMIT.as_secs(), self.text().trim()).into()),
        }
    }
}

/// The word after `name ` at the beginning of a line of `text`.
pub fn word_after(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.split_whitespace().next().map(str::to_owned)
}
