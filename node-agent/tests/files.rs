//! Descriptors of every kind: a program holds them, is captured from outside and killed; another process opens them
//! again and becomes the same program, which checks each. As whoever runs the tests and, for root, as an ordinary user.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use node_agent::files::{self, FileObjects, FilePolicy, FilesError, ProcessRef};
use node_agent_image::model::{FileKind, NodeModel, ObjectIndex, ObjectKind, Process};

const ORDINARY: &str = "47002";
/// Tells a copy of this program that it is to restart what lies in this folder.
const RESTART: &str = "SLACKWATER_TEST_RESTART";
const BASE: i32 = 400;

/// Keeps objects as files of a folder.
struct Objects {
    folder: PathBuf,
    known: Vec<(u64, u64)>,
}

impl FileObjects for Objects {
    fn find(&self, device: u64, inode: u64) -> Option<ObjectIndex> {
        self.known.iter().position(|it| *it == (device, inode))
    }

    fn add_file(&mut self, file: OwnedFd, kind: ObjectKind) -> io::Result<ObjectIndex> {
        assert!(matches!(kind, ObjectKind::Memfd { .. } | ObjectKind::Deleted { .. }), "{kind:?}");
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
struct Program {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Program {
    /// What the tests themselves have inherited stays here: it would lead out of the job.
    fn start(program: &Path, arguments: &[&str], environment: &[(&str, &Path)]) -> Self {
        const CLOSING: &str =
            "for n in /proc/self/fd/*; do n=${n##*/}; [ $n -lt 3 ] || eval \"exec $n>&-\"; done; exec \"$0\" \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", CLOSING]).arg(program).args(arguments).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("its output can be read");
        line.trim().into()
    }

    fn processes(&self) -> [ProcessRef; 1] {
        [ProcessRef { host_pid: self.child.id(), pid: self.child.id() }]
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compile(folder: &Path, name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(format!("{name}.c"));
    let program = folder.join(name);
    let compiled = Command::new("gcc").args(["-O1", "-o"]).arg(&program).arg(source).status().expect("gcc runs");
    assert!(compiled.success());
    program
}

fn model_of(program: &Program, folder: &Path) -> Result<NodeModel, FilesError> {
    let mut objects = Objects { folder: folder.into(), known: Vec::new() };
    // The program's own 0, 1 and 2 stand for ckpt-run's.
    let captured = files::capture(&program.processes(), program.child.id(), &mut objects)?;
    let [descriptors] = captured.descriptors.try_into().expect("one process");
    let process = Process { pid: program.child.id(), descriptors, ..Process::default() };
    Ok(NodeModel { files: captured.files, processes: vec![process], ..NodeModel::default() })
}

/// `kinds hold` in `folder`, captured to `folder/model` and killed.
fn hold_and_capture(folder: &Path) {
    let kinds = compile(folder, "kinds");
    let work = folder.join("work");
    fs::create_dir(&work).expect("a folder for its files");
    let mut program = Program::start(&kinds, &["hold", &work.to_string_lossy()], &[]);
    assert_eq!(program.line(), "ready");
    let model = model_of(&program, folder).unwrap_or_else(|error| panic!("{error}"));
    // Peeking left everything in place: it can be done again, with the same result.
    let again = model_of(&program, folder).expect("a second capture");
    for (one, other) in model.files.iter().zip(&again.files) {
        if !matches!(one.kind, FileKind::Timerfd { .. }) {
            assert_eq!(one, other);
        }
    }
    fs::write(folder.join("model"), serde_json::to_vec(&model).expect("the model is JSON")).expect("it is written");
}

fn restart_and_check(folder: &Path) -> String {
    let own = std::env::current_exe().expect("our own path");
    let mut program = Program::start(&own, &["--exact", "restart_helper", "--nocapture"], &[(RESTART, folder)]);
    let mut output = String::new();
    program.lines.read_to_string(&mut output).expect("its output can be read");
    output
}

#[test]
fn restart_helper() {
    let Some(folder) = std::env::var_os(RESTART).map(PathBuf::from) else { return };
    let model: NodeModel = serde_json::from_slice(&fs::read(folder.join("model")).expect("a model")).expect("JSON");
    let mut objects = Vec::new();
    while let Ok(file) = File::options().read(true).write(true).open(folder.join(format!("object-{}", objects.len()))) {
        objects.push(file);
    }
    let numbers: Vec<_> = objects.iter().map(AsRawFd::as_raw_fd).collect();
    let opened = files::open_all(&model, BASE, [0, 1, 2], &numbers, FilePolicy::Cut);
    let opened = opened.unwrap_or_else(|error| panic!("{error}"));
    objects.into_iter().for_each(std::mem::forget);
    files::install(&model, 0, &opened, &[]).unwrap_or_else(|error| panic!("{error}"));
    let error = Command::new(folder.join("kinds")).arg("check").arg(folder.join("work")).exec();
    panic!("cannot become the checking program: {error}");
}

#[test]
fn every_kind_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    hold_and_capture(folder.path());
    fs::write(folder.path().join("work/append"), "known and grown").expect("the file grows");
    let output = restart_and_check(folder.path());
    assert!(output.ends_with("0 failures\n"), "{output}");
}

#[test]
fn missing_and_shrunk_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    hold_and_capture(folder.path());
    let model: NodeModel = serde_json::from_slice(&fs::read(folder.path().join("model")).expect("it")).expect("JSON");
    let only_paths = |model: &NodeModel| {
        let mut model = model.clone();
        model.files.retain(|it| matches!(it.kind, FileKind::Path { path_only: false, .. }));
        model
    };
    let model = only_paths(&model);
    let work = folder.path().join("work");
    fs::write(work.join("append"), "kno").expect("the file shrinks");
    let error = files::open_all(&model, BASE, [0, 1, 2], &[], FilePolicy::Cut).expect_err("a shrunk file");
    assert!(matches!(&error, FilesError::Shrunk { was: 5, is: 3, path } if path.ends_with("/append")), "{error}");
    fs::remove_file(work.join("append")).expect("the file goes");
    let error = files::open_all(&model, BASE, [0, 1, 2], &[], FilePolicy::Keep).expect_err("a missing file");
    assert!(error.to_string().contains("/append was open in the job and is missing"), "{error}");
}

#[test]
fn what_leads_out_of_the_job_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, writer) = io::pipe().expect("a pipe");
    let script = format!("exec 4</proc/{}/fd/{}; echo ready; exec sleep 600", std::process::id(), reader.as_raw_fd());
    let mut program = Program::start(Path::new("sh"), &["-c", &script], &[]);
    assert_eq!(program.line(), "ready");
    let error = model_of(&program, folder.path()).expect_err("a pipe from outside");
    let FilesError::Refused(offences) = &error else { panic!("{error}") };
    assert_eq!((offences.len(), offences[0].number), (1, 4), "{error}");
    assert!(error.to_string().contains("a pipe whose other end is in no process of the job"), "{error}");
    drop((reader, writer));
}

/// The same as an ordinary user, where the tests run as root.
#[test]
fn as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("anybody may write there");
    let program = folder.path().join("tests");
    fs::copy(std::env::current_exe().expect("our own path"), &program).expect("a copy that anybody may run");
    let status = Command::new("setpriv")
        .args(["--reuid", ORDINARY, "--regid", ORDINARY, "--clear-groups"])
        .arg(&program)
        .env("TMPDIR", folder.path())
        .status()
        .expect("setpriv runs");
    assert!(status.success());
}
