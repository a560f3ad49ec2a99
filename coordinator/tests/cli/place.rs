//! The built binary under its three names, in a scratch folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A scratch folder and the tools.
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// A new one. Builds the preload library, which the binary looks for beside itself, unless it is there.
    pub fn new() -> Self {
        static LIBRARY: Once = Once::new();
        LIBRARY.call_once(|| {
            if Path::new(env!("CARGO_BIN_EXE_ckpt")).with_file_name("libckpt_hijack.so").exists() {
                return;
            }
            let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "hijack"]).status();
            assert!(built.is_ok_and(|status| status.success()), "cargo build --package hijack");
        });
        let folder = tempfile::tempdir().expect("a scratch folder");
        for tool in ["ckpt", "ckpt-run", "ckpt-restart"] {
            symlink(env!("CARGO_BIN_EXE_ckpt"), folder.path().join(tool)).expect("a link");
        }
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A tool with arguments, started in the scratch folder.
    pub fn tool<W: AsRef<OsStr>>(&self, tool: &str, words: &[W]) -> Command {
        let mut command = Command::new(self.path().join(tool));
        command.args(words).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run<W: AsRef<OsStr>>(&self, tool: &str, words: &[W]) -> Output {
        self.tool(tool, words).output().expect("it starts")
    }

    /// A job that is running: `sh -c script` under `ckpt-run --name name`, once it has said `up`.
    pub fn job(&self, name: &str, script: &str) -> Job {
        let (out, err) = (self.path().join(format!("{name}.out")), self.path().join(format!("{name}.err")));
        let mut command = self.tool("ckpt-run", &["--name", name, "sh", "-c", script]);
        command.stdout(fs::File::create(&out).expect("writable")).stderr(fs::File::create(&err).expect("writable"));
        let mut job = Job { child: command.spawn().expect("it starts"), out, err };
        until("the program is up", || job.out().contains("up").then_some(()));
        assert!(job.child.try_wait().expect("a child").is_none(), "{}", job.err());
        job
    }

    /// What `ckpt ps` knows of a job.
    pub fn listed(&self, name: &str) -> Option<serde_json::Value> {
        let said = self.run("ckpt", &["ps", "--json"]);
        let rows: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
        rows.as_array().expect("a list").iter().find(|row| row["name"] == name).cloned()
    }
}

/// A running job. Ended when it is dropped, by its guardian: one without an agent has nobody else to do it.
pub struct Job {
    pub child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Job {
    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits for its end: exit code, or 128 + signal.
    pub fn end(&mut self) -> i32 {
        let status = until("the job ends", || self.child.try_wait().expect("a child"));
        status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
            until("the job ends on SIGTERM", || self.child.try_wait().ok().flatten());
        }
    }
}

/// Waits for a condition.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// True while a process exists and is no zombie.
pub fn alive(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !matches!(stat.rsplit(')').next().unwrap_or_default().split_whitespace().next(), Some("Z" | "X"))
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
