//! `cargo xtask install`: bin/ and lib/slackwater/ under a prefix.
//!
//! The binaries look for `../lib/slackwater` beside the folder that they lie in, so the prefix can be moved. A file in
//! use is never written to: the new one gets a name of its own and is renamed over the old one, which running jobs keep.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{self, Outcome};

/// Names of the one binary beside its own, `ckpt`.
const OTHER_NAMES: [&str; 2] = ["ckpt-run", "ckpt-restart"];
/// The binary that people type.
const BINARY: &str = "ckpt";
/// What the binary loads, by cargo package: preload library and restorer.
const LOADED: [(&str, &str); 2] = [("hijack", "libckpt_hijack.so"), ("hijack-restorer", "ckpt-restorer")];
/// Folder of [`LOADED`] under the prefix.
const LIBRARIES: &str = "lib/slackwater";

/// Builds the release and installs it under `prefix`.
pub fn install(prefix: &Path) -> Outcome<()> {
    let built = build()?;
    let bin = prefix.join("bin");
    let libraries = prefix.join(LIBRARIES);
    for folder in [&bin, &libraries] {
        ground::make_folder(folder)?;
    }
    // Libraries first: a new binary must never meet the old ones.
    for (_, file) in LOADED {
        put(&built.join(file), &libraries.join(file))?;
    }
    put(&built.join(BINARY), &bin.join(BINARY))?;
    for name in OTHER_NAMES {
        link(BINARY, &bin.join(name))?;
    }
    println!("installed {BINARY}, {} in {}", OTHER_NAMES.join(", "), bin.display());
    Ok(())
}

/// Builds what is installed; the folder in which cargo put it.
fn build() -> Outcome<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(ground::root()).args(["build", "--release", "--package", "coordinator"]);
    for (package, _) in LOADED {
        cargo.args(["--package", package]);
    }
    ground::run(&mut cargo)?;
    Ok(ground::target().join("release"))
}

/// Copies `from` to `to` under another name and renames it.
fn put(from: &Path, to: &Path) -> Outcome<()> {
    let fresh = fresh_name(to);
    let copied = fs::copy(from, &fresh)
        .and_then(|_| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&fresh, to));
    copied.map_err(|cause| {
        let _ = fs::remove_file(&fresh);
        format!("cannot copy {} to {}: {cause}", from.display(), to.display()).into()
    })
}

/// Makes `at` a relative link to `target`, replacing what is there.
fn link(target: &str, at: &Path) -> Outcome<()> {
    let fresh = fresh_name(at);
    let _ = fs::remove_file(&fresh);
    symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, at))
        .map_err(|cause| format!("cannot link {} to {target}: {cause}", at.display()).into())
}

fn fresh_name(of: &Path) -> PathBuf {
    let name = of.file_name().unwrap_or_default().to_string_lossy();
    of.with_file_name(format!(".{name}.{}", std::process::id()))
}
