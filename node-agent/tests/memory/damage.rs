//! A generation that is not as it was written.

use std::fs;
use std::path::Path;
use std::process::Command;

use node_agent::memory::Generation;

use crate::sample::{Pages, commit, files, model, own_targets};

/// Any file, flipped, cut, longer, missing or something else: it is named, and nothing of it gets into a process.
#[test]
fn damage_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut pages = Pages::mixed(1000);
    let written = commit(place.path(), &[pages.source()], &model(&[pages.stretch()]));
    let all = files(&written.path);
    assert!(all.len() >= 3 && fs::metadata(&all[1]).unwrap().len() > 1 << 20, "{all:?}");
    pages.as_mut().fill(0);
    for file in &all {
        let good = fs::read(file).unwrap();
        let mut ways = vec![Vec::new(), b"{}\n".to_vec(), vec![0xff; 70_000], [&good[..], &[0]].concat()];
        ways.extend([1, 7, good.len() / 2].map(|less| good[..good.len() - less].to_vec()));
        ways.extend((0..12).map(|round| {
            let mut bad = good.clone();
            let at = [0, good.len() - 1, round * 7919 + good.len() / 2][round % 3] % good.len();
            bad[at] ^= 1 << (round % 8);
            bad
        }));
        for bad in ways {
            fs::write(file, &bad).unwrap();
            let lines = Generation::damage(&written.path);
            assert!(lines.len() == 1 && lines[0].contains(&*file.to_string_lossy()), "{}: {lines:?}", file.display());
            let filled = Generation::open(&written.path, 0).and_then(|it| it.fill(&own_targets()));
            let error = filled.expect_err("damaged").to_string();
            assert!(error.contains(&*file.to_string_lossy()), "{error}");
        }
        fs::remove_file(file).unwrap();
        for replace in [|_: &Path| {}, |it: &Path| fs::create_dir(it).unwrap()] {
            replace(file);
            let lines = Generation::damage(&written.path);
            assert!(lines.iter().any(|it| it.contains(&*file.to_string_lossy())), "{lines:?}");
            assert!(Generation::open(&written.path, 0).and_then(|it| it.fill(&own_targets())).is_err());
        }
        fs::remove_dir(file).unwrap();
        fs::write(file, &good).unwrap();
    }
    assert_eq!(Generation::damage(&written.path), Vec::<String>::new());
    let error = Generation::open(&place.path().join("gen-000009"), 0).unwrap_err().to_string();
    assert!(error.contains("gen-000009/manifest"), "{error}");
}

/// A file from another generation is as it was written, and does not belong here.
#[test]
fn mixed_generations_are_seen() {
    let place = tempfile::tempdir().unwrap();
    let mut pages = Pages::mixed(512);
    let first = commit(place.path(), &[pages.source()], &model(&[pages.stretch()]));
    pages.as_mut()[5000] ^= 1;
    let second = commit(place.path(), &[pages.source()], &model(&[pages.stretch()]));
    for name in ["node-0.model", "node-0.data-0"] {
        let good = fs::read(second.path.join(name)).unwrap();
        fs::copy(first.path.join(name), second.path.join(name)).unwrap();
        let lines = Generation::damage(&second.path);
        assert!(lines.iter().any(|it| it.contains(name)), "{name}: {lines:?}");
        fs::write(second.path.join(name), good).unwrap();
    }
}

#[test]
fn verification_leaves_no_thread() {
    // In a process of its own: other tests have threads here.
    let threads = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
        line.trim().parse::<u32>().unwrap()
    };
    const FOLDER: &str = "SLACKWATER_TEST_GENERATION";
    match std::env::var_os(FOLDER) {
        Some(folder) => {
            let before = threads();
            assert_eq!(Generation::damage(Path::new(&folder)), Vec::<String>::new());
            assert_eq!(threads(), before);
        }
        None => {
            let place = tempfile::tempdir().unwrap();
            let pages = Pages::mixed(6000);
            let written = commit(place.path(), &[pages.source()], &model(&[pages.stretch()]));
            assert!(written.bytes_stored > 8 << 20, "too little for a second thread");
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "damage::verification_leaves_no_thread", "--test-threads=1"])
                .env(FOLDER, &written.path)
                .status();
            assert!(status.unwrap().success());
        }
    }
}
