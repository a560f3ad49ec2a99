//! What has to be on the machine: Debian packages, and MPIs from PyPI in virtual environments of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{self, Outcome};

/// Makes sure that the Debian (or Ubuntu) packages are installed; says what it installs.
pub fn debian(packages: &[&str]) -> Outcome<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !ground::works(Command::new("apt-get").arg("--version")) {
        return Err(
            format!("this needs what Debian calls {list}, and there is no apt-get here: install it by hand").into()
        );
    }
    println!("installing {list} (apt-get)");
    let mut apt = administrator("apt-get").ok_or_else(|| {
        format!("not root and no sudo without a password: run `apt-get install {list}` as root, then this again")
    })?;
    let _ = ground::run(apt().args(["-qq", "update"]));
    ground::run(
        apt()
            .args(["-qq", "-y", "--no-install-recommends", "install"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    let said = query.args(["-W", "-f=${db:Status-Status}", package]).output();
    said.is_ok_and(|said| said.stdout == b"installed")
}

/// Makes commands that run `program` as root; `None` where we cannot.
pub fn administrator(program: &'static str) -> Option<impl FnMut() -> Command> {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    if !root && !ground::works(Command::new("sudo").args(["-n", "true"])) {
        return None;
    }
    Some(move || {
        if root {
            return Command::new(program);
        }
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND", program]);
        sudo
    })
}

/// A package of PyPI in a virtual environment in `folder`, made once; its bin folder.
pub fn wheel(requirement: &str, folder: &Path) -> Outcome<PathBuf> {
    let done = folder.join("installed");
    if fs::read_to_string(&done).is_ok_and(|text| text == requirement) {
        return Ok(folder.join("bin"));
    }
    println!("installing {requirement} from PyPI into {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|cause| format!("cannot clear {}: {cause}", folder.display()))?;
    }
    let python = python();
    if !ground::works(Command::new(&python).args(["-c", "import venv, ensurepip"])) {
        debian(&["python3-venv"])?;
    }
    ground::run(Command::new(&python).args(["-m", "venv"]).arg(folder))?;
    ground::run(Command::new(folder.join("bin/pip")).args([
        "--quiet",
        "--disable-pip-version-check",
        "install",
        requirement,
    ]))?;
    // pip writes with our umask; the jobs run as somebody else.
    ground::run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder))?;
    fs::write(&done, requirement).map_err(|cause| format!("cannot write {}: {cause}", done.display()))?;
    Ok(folder.join("bin"))
}

/// The system's Python rather than one in somebody's home, which the jobs' user could not reach.
fn python() -> PathBuf {
    let system = PathBuf::from("/usr/bin/python3");
    if system.exists() { system } else { PathBuf::from("python3") }
}
