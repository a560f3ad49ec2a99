//! Generations as files: damage, leftovers of a crash, copies, older ones, files that have changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Job, Program, native, until};

/// A job of some megabytes with a checkpoint, killed.
struct Killed {
    job: Job,
    want: String,
}

/// Step at which the checkpoint is asked for.
const AT: u64 = 20;

impl Killed {
    fn new(name: &str, generations: u32) -> Killed {
        let program = Program::serial("descriptors", &["100"]).named(name);
        let want = native(&program);
        let mut job = Job::start(&program);
        for round in 1..=u64::from(generations) {
            job.wait_step(AT * round);
            job.checkpoint();
        }
        job.kill_all();
        Killed { job, want }
    }

    fn dir(&self) -> String {
        self.job.dir.display().to_string()
    }

    /// Files of all generations, biggest last.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = files_below(&self.job.dir);
        files.sort_by_key(|file| fs::metadata(file).map_or(0, |about| about.len()));
        files
    }

    fn restarts(&mut self) {
        self.job.restart();
        assert_eq!(self.job.finish(), self.want);
        self.job.assert_clean();
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// A copy with modes and links as they are.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "cp -a {} {}", from.display(), to.display());
}

/// Flips a bit or cuts a file at a place that is spread over its length.
fn damage(file: &Path, round: usize) -> String {
    let mut bytes = fs::read(file).expect("a file of a generation can be read");
    assert!(!bytes.is_empty(), "{} is empty: no byte of it is under a checksum", file.display());
    let at = (round * 7919 + bytes.len() / 2) % bytes.len();
    let cut = round % 4 == 3;
    if cut {
        bytes.truncate(at)
    } else {
        bytes[at] ^= 1 << (round % 8)
    }
    fs::write(file, &bytes).expect("writable");
    format!("{} {} at {at}", file.display(), if cut { "cut" } else { "flipped" })
}

/// Whatever byte is wrong: verify names the file, restart refuses without a crash, and the undamaged copy restarts.
#[test]
fn damaged() {
    let mut killed = Killed::new("damaged", 1);
    let safe = killed.job.home.join("safe");
    copy(&killed.job.dir, &safe);
    let count = killed.files().len();
    for round in 0..4 * count.max(4) {
        copy(&safe, &killed.job.dir);
        let file = killed.files()[round % count].clone();
        let what = damage(&file, round);
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let said = killed.job.ckpt(&["verify", &killed.dir()]);
        assert!(
            said.code().is_some_and(|code| (1..=100).contains(&code)),
            "{what}: verify: {}: {}",
            said.status,
            said.text()
        );
        assert!(said.text().contains(&name), "{what}: verify does not name the file: {}", said.text());
        killed.job.restart();
        let status = killed.job.wait();
        let text = killed.job.text();
        assert!(
            status.code().is_some_and(|code| (1..=100).contains(&code)) && !text.contains("panicked"),
            "{what}: restart: {status}: {text}"
        );
        assert_eq!(killed.job.mark.leftovers(), Vec::<String>::new(), "{what}");
    }
    copy(&safe, &killed.job.dir);
    killed.restarts();
}

/// Anything but a generation in a generation's place.
#[test]
fn nonsense_files() {
    let mut killed = Killed::new("nonsense", 1);
    let safe = killed.job.home.join("safe");
    copy(&killed.job.dir, &safe);
    let count = killed.files().len();
    for which in 0..count {
        for bytes in [Vec::new(), b"{}\n".to_vec(), vec![0xff; 70_000], b"slkwater".repeat(512)] {
            copy(&safe, &killed.job.dir);
            let file = killed.files()[which].clone();
            fs::write(&file, &bytes).expect("writable");
            killed.job.restart();
            let status = killed.job.wait();
            let text = killed.job.text();
            assert!(
                status.code().is_some_and(|code| (1..=100).contains(&code)) && !text.contains("panicked"),
                "{}: {status}: {text}",
                file.display()
            );
        }
    }
}

/// What a crash left unfinished is no generation: it is passed over, said, and cleared away by the next checkpoint.
#[test]
fn an_unfinished_generation() {
    let mut killed = Killed::new("unfinished", 1);
    let newest = fs::read_dir(&killed.job.dir)
        .expect("readable")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
        .expect("a generation");
    let part = killed.job.dir.join(".gen-000009.part");
    copy(&newest, &part);
    damage(&files_below(&part)[0], 3);
    let said = killed.job.ckpt(&["ls", &killed.dir(), "--json"]);
    let rows: serde_json::Value =
        serde_json::from_str(&said.out).unwrap_or_else(|cause| panic!("{cause}: {}", said.text()));
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    let said = killed.job.ckpt(&["verify", &killed.dir()]);
    assert_eq!(said.code(), Some(0), "{}", said.text());
    assert!(said.text().contains("gen-000009"), "verify does not say what it passes over: {}", said.text());
    killed.job.restart();
    killed.job.wait_step(AT + 10);
    killed.job.checkpoint();
    assert!(!part.exists(), "the next checkpoint leaves {}", part.display());
    assert_eq!(killed.job.finish(), killed.want);
}

/// A generation is complete by itself: copied away it restarts, the original gone.
#[test]
fn copied_away() {
    let mut killed = Killed::new("copied", 3);
    let elsewhere = killed.job.home.join("elsewhere");
    fs::create_dir(&elsewhere).expect("writable");
    let mut generations: Vec<PathBuf> = fs::read_dir(&killed.job.dir)
        .expect("readable")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    generations.sort();
    let newest = generations.pop().expect("a generation");
    copy(&newest, &elsewhere.join(newest.file_name().expect("named")));
    fs::remove_dir_all(&killed.job.dir).expect("ours");
    killed.job.dir = elsewhere;
    killed.restarts();
}

/// An older generation restarts, and the files that have grown since are as they were.
#[test]
fn an_older_generation() {
    let mut killed = Killed::new("older", 2);
    let said = killed.job.ckpt(&["ls", &killed.dir(), "--json"]);
    let rows: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let oldest = rows[0]["generation"].as_u64().expect("a number").to_string();
    killed.job.restart_with(&["--generation", &oldest]);
    killed.job.wait_step(AT);
    assert!(killed.job.steps()[0] < 2 * AT, "not the older one: it goes on with {}", killed.job.steps()[0]);
    assert_eq!(killed.job.finish(), killed.want);
    killed.job.restart_with(&["--generation", "4711"]);
    let status = killed.job.wait();
    assert!(
        status.code().is_some_and(|code| (1..=100).contains(&code)) && killed.job.text().contains("4711"),
        "{status}: {}",
        killed.job.text()
    );
}

/// A file that the job had open is gone: the restart says which.
#[test]
fn a_file_is_gone() {
    let mut killed = Killed::new("gone", 1);
    fs::remove_file(killed.job.home.join("lines.txt")).expect("the program wrote it");
    killed.job.restart();
    let status = killed.job.wait();
    assert!(status.code().is_some_and(|code| (1..=100).contains(&code)), "{status}: {}", killed.job.text());
    assert!(killed.job.text().contains("lines.txt"), "{}", killed.job.text());
}

/// A restart that fails leaves files that have grown as they are: the next one may be of another generation, or with
/// `--files keep`.
#[test]
fn a_failed_restart_cuts_nothing() {
    let mut killed = Killed::new("uncut", 1);
    let grown = killed.job.home.join("lines.txt");
    let mut text = fs::read_to_string(&grown).expect("the program wrote it");
    text.push_str("a line of the time after the checkpoint\n");
    fs::write(&grown, &text).expect("it is ours");
    fs::remove_file(killed.job.home.join("appended.txt")).expect("the program wrote it");
    killed.job.restart();
    assert!(!killed.job.wait().success());
    assert!(killed.job.text().contains("appended.txt"), "{}", killed.job.text());
    assert_eq!(fs::read_to_string(&grown).expect("it is there"), text);
}

/// Restarted, checkpointed and killed again and again.
#[test]
fn without_end() {
    let program = Program::serial("threads", &["500"]).named("without-end");
    let want = native(&program);
    let mut job = Job::start(&program);
    for life in 1..=8 {
        job.wait_step(life * 20);
        job.checkpoint();
        job.kill_all();
        job.restart();
    }
    assert_eq!(job.finish(), want);
    job.assert_clean();
}

/// Zero and never-touched pages are not stored.
#[test]
fn empty_memory_costs_nothing() {
    let script = "import mmap,time\nm=mmap.mmap(-1,1<<30)\nm[0]=1\nz=bytearray(64<<20)\nprint('step 1',flush=True)\ntime.sleep(100)";
    let mut job = Job::start(&Program::new("empty", ["/usr/bin/python3", "-c", script]));
    job.wait_step(1);
    let cost = job.checkpoint();
    assert!(cost.number("bytes_stored") < f64::from(40 << 20), "1 GiB of nothing was stored: {}", cost.0);
    assert!(until(std::time::Duration::ZERO, || job.ended()).is_none());
}
