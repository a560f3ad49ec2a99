//! Where things are, and how commands are run: bounded, and with errors that name the command.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What every command of xtask gives: a value, or a sentence that says which deed on which object did not work.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How often a bounded wait looks.
const LOOK: Duration = Duration::from_millis(1);

/// The project's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A folder in which an ordinary user may run what we put there: target/, or, where that lies below a closed folder such
/// as /root, one in /var/tmp named after the project's path.
pub fn public() -> Outcome<PathBuf> {
    let target = target();
    make_folder(&target)?;
    if target.canonicalize()?.ancestors().all(|folder| mode_of(folder) & 0o001 != 0) {
        return Ok(target);
    }
    let name = root().display().to_string().replace('/', "-");
    let folder = PathBuf::from(format!("/var/tmp/slackwater-target{name}"));
    make_folder(&folder)?;
    Ok(folder)
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().map_or(0, |meta| meta.permissions().mode())
}

/// Makes a folder and its parents.
pub fn make_folder(folder: &Path) -> Outcome<()> {
    std::fs::create_dir_all(folder)
        .map_err(|cause| format!("cannot make the folder {}: {cause}", folder.display()).into())
}

/// Runs a command with our own streams; anything but exit code 0 is an error that names it.
pub fn run(command: &mut Command) -> Outcome<()> {
    let status = command.status().map_err(|cause| cannot_start(command, &cause))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", spoken(command)).into()) }
}

/// Runs a command and gives its standard output; its standard error stays ours.
pub fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|cause| cannot_start(command, &cause))?;
    if !output.status.success() {
        return Err(format!("`{}` ended with {}", spoken(command), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True when the command can be started and ends with 0; says nothing.
pub fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Looks until `ready` gives something, at most `limit`.
pub fn until<T>(limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK);
    }
}

/// A command as one would type it.
pub fn spoken(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command, cause: &io::Error) -> Box<dyn std::error::Error> {
    format!("cannot start `{}`: {cause}", spoken(command)).into()
}
