//! Shared memory of every kind in two processes: each inode is one object, and its contents are those that the processes
//! see. As whoever runs the tests and, for root, as an ordinary user.

#[path = "files/program.rs"]
#[allow(dead_code)]
mod program;

use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use hijack_abi::ProcessFacts;
use node_agent::files::{self, Ledger, ProcessRef};
use node_agent::memory::{Bytes, Owner, pages};
use node_agent::objects::Objects;
use node_agent::snapshot::{self, FlagsAhead, WHOLE};
use node_agent_image::model::{Backing, FileKind, Object, ObjectKind, OpenFile, Process, Vma};
use program::{Program, compile};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ORDINARY: &str = "47003";
const PAGE: usize = 4096;

/// Of threads that are not parked: what they would tell is another test's business.
const NO_FACTS: ProcessFacts = ProcessFacts {
    segment_address: 0,
    brk: 0,
    actions: [[0; 4]; 64],
    itimers: [[0; 4]; 3],
    child_subreaper: 0,
    dumpable: 1,
    keepcaps: 0,
    thp_disable: 0,
    no_new_privs: 0,
    membarrier: 0,
    xcomp_permitted: 0,
    timers_len: 0,
    timers: [[0; 5]; 16],
};

/// The program with its two processes, and what it said of itself.
struct Sharer {
    program: Program,
    /// Addresses by name in parent and child; 0 = not there.
    places: HashMap<String, [u64; 2]>,
}

impl Sharer {
    fn start(folder: &Path, before: &[&str]) -> Self {
        let work = folder.join("work");
        fs::create_dir(&work).expect("a folder for its files");
        let (sharer, work) = (compile(folder, "sharer").display().to_string(), work.display().to_string());
        let words: Vec<&str> = before.iter().copied().chain([sharer.as_str(), work.as_str()]).collect();
        let mut program = Program::start(Path::new(words[0]), &words[1..], &[]);
        let mut places = HashMap::new();
        loop {
            let line = program.line();
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["ready"] => return Self { program, places },
                [name, parent, child] => {
                    let number = |it: &str| it.parse().expect("a number");
                    places.insert(name.into(), [number(parent), number(child)]);
                }
                _ => panic!("it said {line:?}"),
            }
        }
    }

    fn pids(&self) -> [u32; 2] {
        [self.program.child.id(), self.places["child"][0] as u32]
    }
}

/// What does not go with the processes.
impl Drop for Sharer {
    fn drop(&mut self) {
        let [id, pid] = self.places["id"];
        let _ = fs::remove_file(format!("/dev/shm/slackwater-test-{pid}"));
        if fs::read_to_string("/proc/sysvipc/shm").is_ok_and(|it| it.contains(&format!(" {pid} "))) {
            let _ = Command::new("ipcrm").args(["-m", &id.to_string()]).status();
        }
    }
}

/// Of both processes, as a checkpoint takes it.
struct Snapshot {
    processes: Vec<Process>,
    files: Vec<OpenFile>,
    objects: Vec<Object>,
    /// Contents, page by page; None where nothing is stored.
    contents: Vec<Vec<Option<Vec<u8>>>>,
}

fn snapshot(pids: [u32; 2], ahead: bool, files_first: bool) -> Outcome<Snapshot> {
    let ahead = ahead.then(|| FlagsAhead::look(&pids));
    let mut objects = Objects::new(&pids, ahead)?;
    let refs = pids.map(|pid| ProcessRef { host_pid: pid, pid });
    let capture = |objects: &mut Objects| {
        files::capture(&refs, pids[0], objects, &Ledger::create()?, &[]).map_err(Box::<dyn Error>::from)
    };
    let early = if files_first { Some(capture(&mut objects)?) } else { None };
    let mut processes = Vec::new();
    for pid in pids {
        let facts = NO_FACTS;
        let source = snapshot::Source { host_pid: pid, pid, stopped: false, facts, pending: vec![], threads: vec![] };
        processes.push(snapshot::process(&source, &mut objects)?);
    }
    let captured = early.map_or_else(|| capture(&mut objects), Ok)?;
    for (process, descriptors) in processes.iter_mut().zip(captured.descriptors) {
        process.descriptors = descriptors;
    }
    let mut contents: Vec<Vec<Option<Vec<u8>>>> =
        objects.objects().iter().map(|it| vec![None; (it.size as usize).div_ceil(PAGE)]).collect();
    for source in objects.sources()? {
        let Owner::Object(index) = source.owner else { panic!("{source:?}") };
        let (file, base) = match &source.bytes {
            Bytes::File(file) => (file.try_clone()?, 0),
            Bytes::Memory { pid, base } => (File::open(format!("/proc/{pid}/mem"))?, *base),
            Bytes::Held(_) => panic!("{source:?} is a copy"),
        };
        for stretch in &source.stretches {
            for offset in (stretch.start..stretch.end).step_by(PAGE) {
                let mut page = vec![0; PAGE];
                let read = file.read_at(&mut page, base.wrapping_add(offset))?;
                assert!(read == PAGE || matches!(source.bytes, Bytes::File(_)), "{source:?}");
                let place = &mut contents[index][offset as usize / PAGE];
                assert!(place.replace(page).is_none(), "object {index} at {offset:#x} twice");
            }
        }
    }
    Ok(Snapshot { processes, files: captured.files, objects: objects.objects(), contents })
}

impl Snapshot {
    fn vma(&self, sharer: &Sharer, name: &str, process: usize) -> Option<&Vma> {
        let address = sharer.places[name][process];
        self.processes[process].memory.vmas.iter().find(|it| (it.start..it.end).contains(&address))
    }

    /// The object that `name` is in both processes, as far as they have it.
    fn object(&self, sharer: &Sharer, name: &str) -> usize {
        let in_process = |process| match &self.vma(sharer, name, process)?.backing {
            Backing::Object { object, .. } => Some(*object),
            other => panic!("{name} in process {process} is {other:?}"),
        };
        let [parent, child] = [0, 1].map(in_process);
        let index = child.unwrap_or_else(|| panic!("{name} is nowhere"));
        assert!(parent.is_none_or(|it| it == index), "{name} is {parent:?} and {index}");
        index
    }

    fn has_descriptor_on(&self, object: usize) -> bool {
        self.files.iter().any(|it| matches!(it.kind, FileKind::Object { object: it, .. } if it == object))
    }

    /// Pages `marked` hold the mark of object `number` and are stored, the others are zeros or not stored.
    fn check_contents(&self, name: &str, object: usize, number: u32, marked: &[usize]) {
        for (at, page) in self.contents[object].iter().enumerate() {
            let mut expected = vec![0; PAGE];
            if marked.contains(&at) {
                expected[..8].copy_from_slice(&[number.to_ne_bytes(), (at as u32).to_ne_bytes()].concat());
                assert!(page.is_some(), "{name}, page {at} is not stored");
            }
            assert!(
                page.as_ref().is_none_or(|it| *it == expected),
                "{name}, page {at}: {:?}",
                page.as_ref().map(|it| &it[..8])
            );
        }
    }
}

fn check(sharer: &Sharer, seen: &Snapshot) {
    type Expected<'a> = (&'a str, u32, &'a [usize], u64, fn(&ObjectKind) -> bool);
    let expected: [Expected<'_>; 12] = [
        ("anonymous", 1, &[1, 2, 3, 4, 5], 8 * 4096, |it| *it == ObjectKind::Anonymous),
        ("hidden", 2, &[0, 1, 2, 3], 4 * 4096, |it| *it == ObjectKind::Anonymous),
        ("memfd", 3, &[0, 4000], 4096 * 4096, |it| {
            *it == ObjectKind::Memfd { name: "holes".into(), seals: libc::F_SEAL_GROW as u32, hugetlb: false }
        }),
        (
            "closed_memfd",
            4,
            &[0, 1, 2],
            3 * 4096,
            |it| matches!(it, ObjectKind::Memfd { name, .. } if name == "closed"),
        ),
        ("removed", 5, &[0, 1], 5000, |it| matches!(it, ObjectKind::SysV { removed: true, key: 0, .. })),
        ("kept", 6, &[2], 3 * 4096, |it| matches!(it, ObjectKind::SysV { removed: false, .. })),
        (
            "named_shm",
            7,
            &[3],
            4 * 4096,
            |it| matches!(it, ObjectKind::Named { file } if file.path.starts_with("/dev/shm/slackwater-test-")),
        ),
        (
            "unlinked_shm",
            8,
            &[1],
            4 * 4096,
            |it| matches!(it, ObjectKind::Deleted { path } if path.starts_with("/dev/shm/") && path.ends_with("-u")),
        ),
        (
            "deleted",
            9,
            &[1],
            100 * 4096 + 9,
            |it| matches!(it, ObjectKind::Deleted { path } if path.ends_with("/deleted")),
        ),
        ("store", 11, &[2], 4 * 4096, |it| matches!(it, ObjectKind::Named { file } if file.path.ends_with("/store"))),
        ("was_writable", 12, &[0], 4096, |it| matches!(it, ObjectKind::Named { .. })),
        ("written", 13, &[0], 4096, |it| matches!(it, ObjectKind::Named { .. })),
    ];
    let mut indices = Vec::new();
    for (name, number, marked, size, kind) in expected {
        let index = seen.object(sharer, name);
        let object = &seen.objects[index];
        assert!(kind(&object.kind), "{name}: {object:?}");
        assert_eq!(object.size, size, "{name}");
        seen.check_contents(name, index, number, marked);
        indices.push(index);
    }
    indices.push(seen.object(sharer, "deleted_private"));
    let count = indices.len();
    indices.sort_unstable();
    indices.dedup();
    assert_eq!(indices.len(), count, "two kinds share an object");
    // The program's own files lie below /tmp: those that it has open have a copy each.
    let shared: Vec<_> = seen.objects.iter().filter(|it| !matches!(it.kind, ObjectKind::Spare { .. })).collect();
    assert_eq!(shared.len(), count, "{:#?}", seen.objects);
    let mode = |name| seen.objects[seen.object(sharer, name)].mode;
    assert_eq!((mode("removed"), mode("kept"), mode("deleted"), mode("store")), (0o640, 0o600, 0o640, 0o640));
    let [id, key] = sharer.places["id"];
    let kind = &seen.objects[seen.object(sharer, "kept")].kind;
    assert_eq!(*kind, ObjectKind::SysV { id: id as i32, key: key as i32, removed: false });
}

#[test]
fn each_inode_is_one_object_with_its_contents() {
    let folder = tempfile::tempdir().expect("a folder");
    let sharer = Sharer::start(folder.path(), &["env"]);
    for (ahead, files_first) in [(false, false), (true, false), (true, true)] {
        let seen = snapshot(sharer.pids(), ahead, files_first).unwrap_or_else(|error| panic!("{error}"));
        check(&sharer, &seen);
        for name in ["memfd", "deleted"] {
            assert!(seen.has_descriptor_on(seen.object(&sharer, name)), "{name}");
        }
        let untouched = seen.vma(&sharer, "untouched", 1).expect("it is mapped");
        assert!(matches!(&untouched.backing, Backing::File { .. }), "{untouched:?}");
        // Most of the memfd is a hole.
        let stored = |name| seen.contents[seen.object(&sharer, name)].iter().flatten().count();
        assert_eq!(stored("memfd"), 2);
        check_private_view(&sharer, &seen);
    }
    // The job's own offset has not moved.
    let fdinfo = format!("/proc/{}/fdinfo/3", sharer.pids()[0]);
    assert!(fs::read_to_string(fdinfo).expect("its memfd").contains("pos:\t77\n"));
}

/// A deleted file that is only mapped privately: what a process has changed is its own, the rest is the file's.
fn check_private_view(sharer: &Sharer, seen: &Snapshot) {
    let object = seen.object(sharer, "deleted_private");
    assert_eq!(seen.objects[object].size, 4 * 4096);
    for (process, own) in [(0, 0), (1, 3)] {
        let vma = seen.vma(sharer, "deleted_private", process).expect("it is mapped").clone();
        let start = vma.start;
        let stretches = pages::private(sharer.pids()[process], &[vma]).expect("its pages");
        let [stretch] = stretches[..] else { panic!("{stretches:?}") };
        let at = start + own * PAGE as u64;
        assert_eq!((stretch.start, stretch.end, stretch.keep_zeros), (at, at + PAGE as u64, true));
    }
    // Each process hides one page from us, and the other shows it.
    seen.check_contents("deleted_private", object, 10, &[0, 1, 2, 3]);
}

/// A restarted job has namespaces of its own; they belong to its user.
#[test]
fn segments_of_another_ipc_namespace() {
    let folder = tempfile::tempdir().expect("a folder");
    let sharer = Sharer::start(folder.path(), &["unshare", "--user", "--map-root-user", "--ipc"]);
    check(&sharer, &snapshot(sharer.pids(), true, false).unwrap_or_else(|error| panic!("{error}")));
}

/// What was assumed of mappings while the process was parked is put right afterwards, or the checkpoint fails.
#[test]
fn flags_are_settled() {
    let folder = tempfile::tempdir().expect("a folder");
    let sharer = Sharer::start(folder.path(), &["env"]);
    let pids = sharer.pids();
    let exact = snapshot(pids, false, false).unwrap_or_else(|error| panic!("{error}"));
    let seen = snapshot(pids, true, false).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(exact.processes[0].memory.vmas, seen.processes[0].memory.vmas);
    let mut process = exact.processes[0].clone();
    for vma in &mut process.memory.vmas {
        vma.flags.clear();
    }
    process.memory.vmas[0].flags = vec!["lo".into(), WHOLE.into()];
    snapshot::settle(&mut process, pids[0]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(process.memory.vmas[0].flags, ["lo", WHOLE]);
    assert_eq!(process.memory.vmas[1..], exact.processes[0].memory.vmas[1..]);
    // Not in the twin: DONTFORK came after the look ahead.
    process.memory.vmas.insert(0, Vma { start: 0x1000, end: 0x2000, ..Vma::default() });
    let error = snapshot::settle(&mut process, pids[0]).expect_err("a mapping that is not there");
    assert!(error.to_string().contains("MADV_DONTFORK"), "{error}");
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
