//! What the tests of descriptors share: programs under test, and a place for objects.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use node_agent::files::{self, FileObjects, FilesError, Ledger, ProcessRef};
use node_agent_image::model::{NodeModel, ObjectIndex, ObjectKind, Process};

/// Keeps objects as files of a folder.
pub struct Objects {
    pub folder: PathBuf,
    pub known: Vec<(u64, u64)>,
}

impl Objects {
    /// What an earlier process has kept in `folder`.
    pub fn open(folder: &Path) -> Vec<File> {
        let open = |at| File::options().read(true).write(true).open(folder.join(format!("object-{at}")));
        (0..).map_while(|at| open(at).ok()).collect()
    }
}

impl FileObjects for Objects {
    fn find(&self, device: u64, inode: u64) -> Option<ObjectIndex> {
        self.known.iter().position(|it| *it == (device, inode))
    }

    fn add_file(&mut self, file: OwnedFd, kind: ObjectKind) -> io::Result<ObjectIndex> {
        assert_ne!(kind, ObjectKind::Anonymous);
        let file = File::from(file);
        let metadata = file.metadata()?;
        let mut bytes = vec![0; metadata.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        fs::write(self.folder.join(format!("object-{}", self.known.len())), bytes)?;
        self.known.push((metadata.dev(), metadata.ino()));
        Ok(self.known.len() - 1)
    }
}

/// A program under test; ended when it goes out of scope.
pub struct Program {
    pub child: Child,
    pub lines: BufReader<std::process::ChildStdout>,
}

impl Program {
    /// What the tests themselves have inherited stays here: it would lead out of the job.
    pub fn start(program: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        const CLOSING: &str =
            "for n in /proc/self/fd/*; do n=${n##*/}; [ $n -lt 3 ] || eval \"exec $n>&-\"; done; exec \"$0\" \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", CLOSING]).arg(program).args(arguments).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, lines }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("its output can be read");
        line.trim().into()
    }

    pub fn processes(&self) -> [ProcessRef; 1] {
        [ProcessRef { host_pid: self.child.id(), pid: self.child.id() }]
    }
}

/// Ended by its own handle, and waited for.
impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn compile(folder: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(format!("{name}.c"));
    let program = folder.join(name);
    let compiled = Command::new("gcc").args(["-O1", "-o"]).arg(&program).arg(source).status().expect("gcc runs");
    assert!(compiled.success());
    program
}

pub fn model_of(program: &Program, folder: &Path, ledger: &Ledger) -> Result<NodeModel, FilesError> {
    let mut objects = Objects { folder: folder.into(), known: Vec::new() };
    // The program's own 0, 1 and 2 stand for ckpt-run's.
    let captured = files::capture(&program.processes(), program.child.id(), &mut objects, ledger, &[])?;
    let [descriptors] = captured.descriptors.try_into().expect("one process");
    let process = Process { pid: program.child.id(), descriptors, ..Process::default() };
    Ok(NodeModel { files: captured.files, processes: vec![process], ..NodeModel::default() })
}
