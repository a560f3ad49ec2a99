//! The job's root: the program that its user named, started as a shell would start it.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use hijack_abi::{JOB_FOLDER_VARIABLE, LIBRARY_FILE};
use nix::errno::Errno;

use super::sys::{self, Forked, Inherited};
use crate::job::LAUNCHER_FILE;

/// Exit code when a program is not found, as a shell's.
const NOT_FOUND: i32 = 127;
/// Exit code when it cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
const PRELOAD: &str = "LD_PRELOAD";
/// Variables by which launchers are told what to call in place of ssh: Open MPI 4, PRRTE (Open MPI 5), Hydra (MPICH and its kin).
pub const AGENT_VARIABLES: [&str; 3] = ["OMPI_MCA_plm_rsh_agent", "PRTE_MCA_plm_ssh_agent", "HYDRA_LAUNCHER_EXEC"];
/// Their daemons would else start others in a tree.
const FLAT_VARIABLES: [&str; 2] = ["OMPI_MCA_plm_rsh_no_tree_spawn", "PRTE_MCA_plm_ssh_no_tree_spawn"];

/// Forks and executes `command` in the caller's process group with the library preloaded; its pid. A failing exec is
/// said by the child itself, whose exit code is then 127 or 126.
///
/// # Errors
/// When there can be no child, or an argument holds a zero byte.
pub fn start(tool: &str, command: &[OsString], folder: &Path, inherited: &Inherited) -> io::Result<u32> {
    let words = command.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let environment = environment(folder)?;
    let Some(program) = words.first() else { return Err(Errno::ENOENT.into()) };
    match sys::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => {
            sys::default_sigpipe();
            sys::hand_on(inherited);
            keep_strangers_out(command);
            let error = nix::unistd::execvpe(program, &words, &environment).unwrap_err();
            eprintln!("{tool}: {}: {}", program.to_string_lossy(), error.desc());
            sys::exit_now(if error == Errno::ENOENT { NOT_FOUND } else { NOT_EXECUTABLE })
        }
    }
}

/// Pipes and sockets beyond standard error that happen to be open in our caller (a test harness, make, a daemon) lead out of
/// the job: nobody meant to pass them on, and every checkpoint would be refused because of them. Files are passed on, and
/// what the command names: a shell's `<(…)` is the argument /dev/fd/63.
fn keep_strangers_out(command: &[OsString]) {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    let stranger = |number: &i32| *number > 2 && !command.iter().any(|word| names(word, *number));
    for number in numbers.filter(stranger).collect::<Vec<i32>>() {
        let kind = fs::metadata(format!("/proc/self/fd/{number}")).map(|it| it.file_type());
        if kind.is_ok_and(|it| it.is_fifo() || it.is_socket()) {
            sys::close_on_exec(number);
        }
    }
}

/// Whether a word of the command line ends in the path of descriptor `number`, as in `--log=/dev/fd/63`.
fn names(word: &OsStr, number: i32) -> bool {
    let word = word.as_bytes();
    ["/dev/fd/", "/proc/self/fd/"].iter().any(|folder| word.ends_with(format!("{folder}{number}").as_bytes()))
}

/// What makes launchers start their daemons on other nodes through us. All from the first node: an agent would otherwise have
/// to ask for others on behalf of a daemon.
fn launchers(folder: &Path) -> impl Iterator<Item = (OsString, OsString)> {
    let through_us = folder.join(LAUNCHER_FILE).into_os_string();
    let agents = AGENT_VARIABLES.into_iter().map(move |name| (name.into(), through_us.clone()));
    agents.chain(FLAT_VARIABLES.into_iter().map(|name| (name.into(), "1".into())))
}

fn is_launchers(name: &OsStr) -> bool {
    AGENT_VARIABLES.into_iter().chain(FLAT_VARIABLES).any(|it| name == it)
}

/// The caller's environment, the library before what else is preloaded.
fn environment(folder: &Path) -> io::Result<Vec<CString>> {
    let mut preload = folder.join(LIBRARY_FILE).into_os_string();
    if let Some(others) = env::var_os(PRELOAD).filter(|it| !it.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let ours = [(OsString::from(PRELOAD), preload), (JOB_FOLDER_VARIABLE.into(), folder.into())];
    let ours = ours.into_iter().chain(launchers(folder));
    let others =
        env::vars_os().filter(|(name, _)| name != PRELOAD && name != JOB_FOLDER_VARIABLE && !is_launchers(name));
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        CString::new(name.into_vec()).map_err(io::Error::from)
    };
    others.chain(ours).map(variable).collect()
}
