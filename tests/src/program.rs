//! Programs under test, and how they are compiled.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ground::scratch;

/// Everything in tests/programs that is C, with its source: the programs run where the sources may not be readable.
macro_rules! sources {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../programs/", $name)))),*] };
}
const SOURCES: &[(&str, &str)] = sources! {
    "judge.h"
    "alarms.c"
    "descriptors.c"
    "execs.c"
    "failing.c"
    "inflight.c"
    "ipc.c"
    "onesided.c"
    "pending.c"
    "ports.c"
    "resident.c"
    "shared.c"
    "signals.c"
    "stencil.c"
    "terminal.c"
    "threads.c"
    "timeouts.c"
    "tree.c"
    "watcher.c"
};

/// What is run, and with which environment.
#[derive(Clone, Debug)]
pub struct Program {
    /// Names the test's folder.
    pub name: String,
    /// Command line.
    pub command: Vec<String>,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
}

impl Program {
    /// A command line.
    pub fn new<W: AsRef<str>>(name: &str, command: impl IntoIterator<Item = W>) -> Program {
        let command = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Program { name: name.to_owned(), command, environment: Vec::new() }
    }

    /// A C program of tests/programs and its arguments.
    pub fn serial(source: &str, arguments: &[&str]) -> Program {
        let built = compile(source, "gcc");
        let command = std::iter::once(built.to_str().unwrap_or_default()).chain(arguments.iter().copied());
        Program::new(source, command)
    }

    /// The same, waiting after a step until the test wants its end ([`crate::Job::finish`]).
    pub fn held_at(&self, step: u64) -> Program {
        let mut held = self.clone();
        held.environment.push(("SLACKWATER_HOLD".to_owned(), step.to_string()));
        held
    }

    /// The same under another name of its folder.
    pub fn named(mut self, name: &str) -> Program {
        self.name = name.to_owned();
        self
    }
}

/// Compiles tests/programs/NAME.c, once in a test run.
pub fn compile(name: &str, compiler: &str) -> PathBuf {
    compile_with(name, compiler, &[])
}

/// The same with more options.
pub fn compile_with(name: &str, compiler: &str, options: &[&str]) -> PathBuf {
    let folder = scratch().join("programs");
    write_sources(&folder);
    let kind = [&[compiler], options].concat().join("").replace(|letter: char| !letter.is_alphanumeric(), "_");
    let to = folder.join(format!("{name}-{kind}"));
    if to.exists() {
        return to;
    }
    let fresh = folder.join(format!(".{name}-{}", std::process::id()));
    let mut command = Command::new(compiler);
    command.args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-pthread", "-o"]).arg(&fresh);
    command.arg(folder.join(format!("{name}.c"))).args(options).args(["-lm", "-lrt", "-lutil"]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|cause| panic!("cannot start {compiler}: {cause}; `cargo xtask test` installs it"));
    assert!(output.status.success(), "{compiler} {name}.c: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&fresh, &to).unwrap_or_else(|cause| panic!("cannot name {}: {cause}", to.display()));
    to
}

fn write_sources(folder: &Path) {
    fs::create_dir_all(folder).unwrap_or_else(|cause| panic!("cannot make {}: {cause}", folder.display()));
    for (name, text) in SOURCES {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|have| have == *text) {
            continue;
        }
        let written = fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.unwrap_or_else(|cause| panic!("cannot write {}: {cause}", path.display()));
    }
}
