//! What is stored comes back, and only that.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use node_agent::guardian::board::Progress;
use node_agent::memory::{Bytes, Generation, Owner, Source, Stretch, hold};
use node_agent::restart::Targets;
use node_agent_image::model::{NodeModel, Object};
use node_agent_proc::maps::{self, Area};

use crate::sample::{PAGE, Pages, begin, commit, files, finish, memory, model, names, own_targets};

const WRITABLE: u32 = libc::PROT_WRITE as u32;

#[test]
fn memory_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("some/where");
    let mut pages = Pages::mixed(9000);
    let want = pages.as_ref().to_vec();
    let model = model(&[pages.stretch()]);
    let progress = Progress::default();
    let (unfinished, mut part) = begin(&dir);
    assert_eq!(unfinished.generation(), 1);
    part.write(&[pages.source()], &progress).unwrap();
    assert_eq!(progress.bytes(), (want.len() as u64, want.len() as u64));
    let written = finish(unfinished, part, &model).unwrap();
    assert_eq!((written.generation, written.bytes_read), (1, want.len() as u64));
    assert_eq!(written.path, dir.canonicalize().unwrap().join("gen-000001"));
    let lengths: u64 = files(&written.path).iter().map(|it| fs::metadata(it).unwrap().len()).sum();
    assert_eq!(written.bytes_stored, lengths);
    assert!(lengths < want.len() as u64 / 2, "{lengths} bytes for {}: nothing left out or compressed", want.len());

    let generation = Generation::open(&written.path, 0).unwrap();
    assert_eq!(generation.model(), &model);
    assert_eq!((generation.number(), generation.cost().stall_ms, generation.cost().processes), (1, 1.5, 1));
    assert_eq!(Generation::damage(&written.path), Vec::<String>::new());
    pages.as_mut().fill(0);
    generation.fill(&own_targets()).unwrap();
    assert!(pages.as_ref() == want);
    assert_eq!(generation.into_model(), model);
}

/// Part of a process was held, the rest comes from elsewhere; a process may also have no contents at all.
#[test]
fn written_in_two_calls() {
    let place = tempfile::tempdir().unwrap();
    let mut pages = Pages::mixed(900);
    let want = pages.as_ref().to_vec();
    let (model, Stretch { start, end, .. }) = (model(&[pages.stretch()]), pages.stretch());
    let middle = start + 301 * 4096;
    let piece = |start, end| memory(std::process::id(), vec![Stretch { start, end, keep_zeros: false }]);
    let progress = Progress::default();
    let (unfinished, mut part) = begin(place.path());
    part.write(&[piece(middle, end)], &progress).unwrap();
    part.write(&hold(vec![piece(start, middle)]).unwrap(), &progress).unwrap();
    let (done, total) = progress.bytes();
    assert!(done == total && done <= end - start, "{done} of {total}");
    let written = finish(unfinished, part, &model).unwrap();
    pages.as_mut().fill(0);
    Generation::open(&written.path, 0).unwrap().fill(&own_targets()).unwrap();
    assert!(pages.as_ref() == want);

    let nothing = commit(place.path(), &[], &NodeModel::default());
    assert_eq!(names(&nothing.path), ["manifest", "node-0.model"]);
    Generation::open(&nothing.path, 0).unwrap().fill(&Targets::default()).unwrap();
    assert_eq!(Generation::damage(&nothing.path), Vec::<String>::new());
}

/// What the model does not know of is not committed.
#[test]
fn contents_that_belong_to_nobody() {
    let place = tempfile::tempdir().unwrap();
    let pages = Pages::mixed(16);
    let (unfinished, mut part) = begin(place.path());
    part.write(&[pages.source()], &Progress::default()).unwrap();
    let error = finish(unfinished, part, &NodeModel::default()).unwrap_err().to_string();
    assert!(error.contains("does not read back") && error.contains("a process that is not in the model"), "{error}");
    assert_eq!(names(place.path()), Vec::<String>::new());
}

#[test]
fn equal_blocks_are_stored_once_and_zeros_where_they_matter() {
    let place = tempfile::tempdir().unwrap();
    let mut first = Pages::new(64);
    first.as_mut().copy_from_slice(&Pages::mixed(96).as_ref()[32 * PAGE..]);
    let mut second = Pages::new(64);
    second.as_mut().copy_from_slice(first.as_ref());
    let mut zeros = Pages::new(64);
    let mut stretches = vec![first.stretch(), second.stretch()];
    stretches.push(Stretch { keep_zeros: true, ..zeros.stretch() });
    stretches.sort_by_key(|it| it.start);
    let alone = commit(place.path(), &[first.source()], &model(&[first.stretch()]));
    let all = commit(place.path(), &[memory(std::process::id(), stretches.clone())], &model(&stretches));
    let more = all.bytes_stored - alone.bytes_stored;
    assert!(more < 8 << 10, "{more} bytes more for what is there already, and zeros");
    let want = first.as_ref().to_vec();
    for pages in [&mut first, &mut second, &mut zeros] {
        pages.as_mut().fill(0xee);
    }
    Generation::open(&all.path, 0).unwrap().fill(&own_targets()).unwrap();
    for (number, page) in want.chunks_exact(PAGE).enumerate() {
        let have = &second.as_ref()[number * PAGE..][..PAGE];
        let zero = page.iter().all(|byte| *byte == 0);
        assert!(if zero { have == [0xee; PAGE] } else { have == page }, "page {number}");
    }
    assert!(zeros.as_ref().iter().all(|byte| *byte == 0), "zeros that had to be stored were not");
}

/// What is held is as it was, whatever becomes of the memory; objects go where the builder has them.
#[test]
fn held_contents_and_objects() {
    let place = tempfile::tempdir().unwrap();
    let mut pages = Pages::mixed(5000);
    let want = pages.as_ref().to_vec();
    let path = place.path().join("object");
    fs::write(&path, [&want[..], b"and a bit"].concat()).unwrap();
    let size = want.len() as u64 + 9;
    let stretches = vec![
        Stretch { start: 0, end: 4096 * 4096, keep_zeros: false },
        Stretch { start: 4999 * 4096, end: size.next_multiple_of(4096), keep_zeros: false },
    ];
    let object = |bytes, index| Source { owner: Owner::Object(index), bytes, stretches: stretches.clone() };
    let base = pages.start();
    let sources = vec![
        pages.source(),
        object(Bytes::File(File::open(&path).unwrap()), 0),
        Source { stretches: vec![stretches[0]], ..object(Bytes::Memory { pid: std::process::id(), base }, 1) },
    ];
    let sources = hold(sources).unwrap();
    pages.as_mut().fill(0);
    fs::remove_file(&path).unwrap();
    let mut model = model(&[pages.stretch()]);
    model.objects = vec![Object { size, ..Object::default() }, Object { size: 4096 * 4096, ..Object::default() }];
    let written = commit(&place.path().join("dir"), &sources, &model);
    let (mut first, mut second) = (Pages::new(5001), Pages::new(4096));
    let targets =
        Targets { builder: std::process::id(), objects: vec![first.start(), second.start()], ..own_targets() };
    Generation::open(&written.path, 0).unwrap().fill(&targets).unwrap();
    assert!(pages.as_ref() == want);
    assert!(first.as_mut()[..4096 * PAGE] == want[..4096 * PAGE]);
    assert!(first.as_ref()[4096 * PAGE..4999 * PAGE].iter().all(|byte| *byte == 0), "no part of any stretch");
    assert!(first.as_ref()[4999 * PAGE..5000 * PAGE] == want[4999 * PAGE..]);
    assert_eq!(first.as_ref()[5000 * PAGE..][..12], *b"and a bit\0\0\0");
    assert!(second.as_mut()[..] == want[..4096 * PAGE]);
    let error = Generation::open(&written.path, 0).unwrap().fill(&own_targets()).unwrap_err().to_string();
    assert!(error.contains("object 0"), "{error}");
}

/// `cat`, waiting for input.
struct Other(Child);

impl Other {
    fn new() -> Self {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut echo = [0; 2];
        child.stdin.as_mut().unwrap().write_all(b"?\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut echo).unwrap();
        // It waits for more: from now on nothing in it changes.
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        Self(child)
    }

    fn areas(&self, path: &str) -> Vec<Area> {
        let text = fs::read(format!("/proc/{}/maps", self.0.id())).unwrap();
        let areas = maps::parse(&text).unwrap();
        areas.into_iter().filter(|it| it.path.ends_with(path.as_bytes()) && !it.shared).collect()
    }

    fn mem(&self, start: u64, end: u64) -> Vec<u8> {
        let mut bytes = vec![0; (end - start) as usize];
        File::open(format!("/proc/{}/mem", self.0.id())).unwrap().read_exact_at(&mut bytes, start).unwrap();
        bytes
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Program text is neither writable for its process nor for us, and yet comes back.
#[test]
fn another_process_read_only_pages_included() {
    let place = tempfile::tempdir().unwrap();
    let other = Other::new();
    let areas: Vec<Area> = other.areas("/cat").into_iter().filter(|it| it.protection & 1 != 0).collect();
    assert!(areas.iter().any(|it| it.protection & WRITABLE == 0), "{areas:?}");
    let stretches: Vec<Stretch> =
        areas.iter().map(|it| Stretch { start: it.start, end: it.end, keep_zeros: true }).collect();
    let mut model = model(&stretches);
    for (vma, area) in model.processes[0].memory.vmas.iter_mut().zip(&areas) {
        vma.protection = area.protection;
    }
    let want: Vec<_> = areas.iter().map(|it| other.mem(it.start, it.end)).collect();
    let written = commit(place.path(), &[memory(other.0.id(), stretches)], &model);
    let mem = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", other.0.id())).unwrap();
    for area in &areas {
        mem.write_all_at(&vec![0xcc; (area.end - area.start) as usize], area.start).unwrap();
    }
    let targets = Targets { processes: vec![Some(other.0.id())], ..Targets::default() };
    Generation::open(&written.path, 0).unwrap().fill(&targets).unwrap();
    for (area, want) in areas.iter().zip(&want) {
        assert!(other.mem(area.start, area.end) == *want, "{area:?}");
    }
}

/// The guard page of a thread's stack can be read by nobody but /proc/PID/mem.
#[test]
fn pages_without_any_right() {
    let place = tempfile::tempdir().unwrap();
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let areas = maps::parse(&fs::read("/proc/self/maps").unwrap()).unwrap();
    let alike = |it: &&[Area]| it[0].protection == 0 && it[0].path.is_empty() && it[0].end == it[1].start;
    let two = areas.windows(2).rfind(alike).expect("a guard page");
    let stretch = Stretch { start: two[0].start, end: two[0].end, keep_zeros: true };
    let mut model = model(&[stretch]);
    model.processes[0].memory.vmas[0].protection = 0;
    let written = commit(place.path(), &[memory(std::process::id(), vec![stretch])], &model);
    assert_eq!(written.bytes_read, two[0].end - two[0].start);
    assert_eq!(Generation::damage(&written.path), Vec::<String>::new());
    end.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn what_cannot_be_read_is_named() {
    let place = tempfile::tempdir().unwrap();
    let attempt = |source: Source| {
        let (_unfinished, mut part) = begin(place.path());
        part.write(&[source], &Progress::default()).unwrap_err().to_string()
    };
    let pages = Pages::mixed(600);
    // Nothing is ever mapped there.
    let hole = Stretch { start: 4096, end: 8192, keep_zeros: false };
    let error = attempt(memory(std::process::id(), vec![hole, pages.stretch()]));
    assert!(error.contains(&format!("pid {} at 0x1000", std::process::id())), "{error}");
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let error = attempt(memory(gone.id(), vec![pages.stretch()]));
    assert!(error.contains(&format!("pid {} at {:#x}", gone.id(), pages.start())), "{error}");
    let short = File::open("/proc/version").unwrap();
    let stretches = vec![Stretch { start: 0, end: 3 * 4096, keep_zeros: false }];
    let error = attempt(Source { owner: Owner::Object(4), bytes: Bytes::File(short), stretches });
    assert!(error.contains("object 4") && error.contains("it ends there"), "{error}");
    assert_eq!(names(place.path()), Vec::<String>::new(), "an unfinished one that failed leaves something");
}
