//! Short commands as one would type them, with the installation on the PATH.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::ground::{prefix, scratch, until};
use crate::job::Said;
use crate::leftovers::Mark;

/// The longest that a short command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder to type commands in.
pub struct Shell {
    /// The working folder.
    pub home: PathBuf,
    /// What marks its processes.
    pub mark: Mark,
}

impl Shell {
    /// In a fresh folder.
    pub fn new(name: &str) -> Shell {
        let mark = Mark::new();
        let home = scratch().join(format!("{name}-{}", mark.variable().1));
        fs::create_dir_all(&home).unwrap_or_else(|cause| panic!("cannot make {}: {cause}", home.display()));
        Shell { home, mark }
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Said {
        self.run_with_input(words, Vec::new())
    }

    /// Runs a command to its end with something on its standard input.
    pub fn run_with_input(&self, words: &[&str], input: Vec<u8>) -> Said {
        let mut child = self.spawn(words, Stdio::piped());
        let mut stdin = child.stdin.take();
        // In a thread: the command may want to be read from before it has read all.
        let feeder = std::thread::spawn(move || stdin.take().map(|mut stdin| stdin.write_all(&input)));
        let status = until(LIMIT, || child.try_wait().unwrap_or(None)).unwrap_or_else(|| {
            self.mark.kill_all();
            let _ = child.wait();
            panic!("{} did not end in {LIMIT:?}: {}", words.join(" "), self.read("err"));
        });
        let _ = feeder.join();
        Said { status, out: self.read("out"), err: self.read("err") }
    }

    /// Runs a line of sh.
    pub fn line(&self, line: &str) -> Said {
        self.run(&["sh", "-c", line])
    }

    /// Starts a command in a process group of its own with Ctrl-C as a terminal would have it.
    pub fn start(&self, words: &[&str]) -> Child {
        self.spawn(words, Stdio::null())
    }

    /// Sends a signal to the whole group of a started command, as a terminal does.
    pub fn signal(&self, child: &Child, signal: Signal) {
        killpg(Pid::from_raw(child.id().cast_signed()), signal)
            .unwrap_or_else(|cause| panic!("cannot signal: {cause}"));
    }

    /// What a started command has written so far.
    pub fn read(&self, stream: &str) -> String {
        fs::read(self.home.join(stream)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn spawn(&self, words: &[&str], input: Stdio) -> Child {
        let path = format!("{}:{}", prefix().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let (name, value) = self.mark.variable();
        let file = |stream: &str| {
            File::create(self.home.join(stream))
                .unwrap_or_else(|cause| panic!("cannot write in {}: {cause}", self.home.display()))
        };
        // A CI system may have started us with SIGINT ignored, which is inherited.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT")
            .args(words)
            .current_dir(&self.home)
            .env("PATH", path)
            .env(name, value)
            .process_group(0);
        command.stdin(input).stdout(file("out")).stderr(file("err"));
        command.spawn().unwrap_or_else(|cause| panic!("cannot start {}: {cause}", words.join(" ")))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.mark.kill_all();
        self.mark.sweep();
        let _ = fs::remove_dir_all(&self.home);
    }
}
