//! Folders: who may look into them, which cannot be used, how generations follow each other.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use node_agent::guardian::board::Progress;
use node_agent::memory::{Unfinished, clear_unfinished, retain};

use crate::sample::{Pages, begin, commit, files, finish, model, names};

#[test]
fn only_their_owner_may_look() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a/b");
    let pages = Pages::mixed(64);
    let written = commit(&dir, &[pages.source()], &model(&[pages.stretch()]));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!([mode(&place.path().join("a")), mode(&dir), mode(&written.path)], [0o700; 3]);
    files(&written.path).iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    for dir in [file.clone(), file.join("below"), PathBuf::from("/proc/self/generations")] {
        let error = Unfinished::begin(&dir).unwrap_err().to_string();
        assert!(error.contains(&dir.display().to_string()), "{error}");
    }
    // Taken away between begin and commit, or between write and commit.
    let pages = Pages::mixed(64);
    for remove_first in [true, false] {
        let dir = place.path().join("dir");
        let (unfinished, mut part) = begin(&dir);
        let remove = || fs::remove_dir_all(&dir).unwrap();
        if remove_first {
            remove();
        }
        let written = part.write(&[pages.source()], &Progress::default());
        assert_eq!(written.is_err(), remove_first);
        let error = match written {
            Err(error) => error,
            Ok(()) => {
                remove();
                finish(unfinished, part, &model(&[pages.stretch()])).unwrap_err()
            }
        };
        assert!(error.to_string().contains(".gen-000001.part/node-0."), "{error}");
        assert!(!dir.exists());
    }
}

/// For root everything is writable: this is about everybody else.
#[test]
fn a_folder_of_somebody_else() {
    let place = tempfile::tempdir().unwrap();
    if fs::metadata(place.path()).unwrap().uid() == 0 {
        let program = std::env::current_exe().unwrap();
        let copy = place.path().join("program");
        fs::copy(program, &copy).unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(&copy)
            .uid(47005)
            .args(["--exact", "folders::a_folder_of_somebody_else"])
            .env("TMPDIR", "/tmp")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    fs::set_permissions(place.path(), Permissions::from_mode(0o500)).unwrap();
    for dir in [place.path().to_path_buf(), place.path().join("below")] {
        let error = Unfinished::begin(&dir).unwrap_err().to_string();
        assert!(error.contains(&dir.display().to_string()) && error.contains("Permission denied"), "{error}");
    }
    fs::set_permissions(place.path(), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn generations_follow_each_other() {
    let place = tempfile::tempdir().unwrap();
    let pages = Pages::mixed(8);
    let model = model(&[pages.stretch()]);
    let take = || commit(place.path(), &[pages.source()], &model).generation;
    assert_eq!([take(), take(), take()], [1, 2, 3]);
    fs::rename(place.path().join("gen-000003"), place.path().join("gen-1234567")).unwrap();
    fs::create_dir(place.path().join("gen-9999999.old")).unwrap();
    fs::create_dir(place.path().join(".gen-000009.part")).unwrap();
    fs::write(place.path().join(".gen-000009.part/manifest"), "half").unwrap();
    fs::write(place.path().join("notes"), "mine").unwrap();
    assert_eq!(take(), 1_234_568);
    let all = ["gen-000001", "gen-000002", "gen-1234567", "gen-1234568", "gen-9999999.old", "notes"];
    assert_eq!(names(place.path()), all);
    retain(place.path(), 2);
    assert_eq!(names(place.path()), all[2..]);
    retain(place.path(), 0);
    assert_eq!(names(place.path()), all[3..]);
    // An unfinished one that is not committed leaves nothing, and one that died is cleared away.
    let unfinished = Unfinished::begin(place.path()).unwrap();
    assert_eq!(names(place.path())[0], ".gen-1234569.part");
    drop(unfinished);
    assert_eq!(names(place.path()), all[3..]);
    fs::create_dir(place.path().join(".gen-000001.part")).unwrap();
    clear_unfinished(place.path());
    clear_unfinished(&place.path().join("nowhere"));
    assert_eq!(names(place.path()), all[3..]);
}
