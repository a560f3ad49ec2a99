//! Files with keys: what is written is read, nobody else reads it, and nothing else is taken for one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coordinator_transport::limits::{JOB_BYTES_MAX, KEY_FILE_BYTES_MAX};
use coordinator_transport::{JoinFile, Keys, KeysError};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

fn put(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    path.to_owned()
}

#[test]
fn what_is_written_is_read_and_only_by_its_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, join_path) = (folder.path().join("keys"), folder.path().join("join"));
    let keys = Keys::make("job-7.x_y").expect("keys");
    let join = keys.join_file(vec!["10.0.0.1:700".parse().expect("an address"), "[fe80::1]:7".parse().expect("one")]);
    // Over what a killed predecessor left, and over a file that was open to all.
    fs::write(folder.path().join("keys.part"), "half").expect("written");
    fs::write(&path, "old").expect("written");
    keys.write(&path).expect("written");
    join.write(&join_path).expect("written");
    assert_eq!((mode(&path), mode(&join_path)), (0o600, 0o600));
    let again = Keys::read(&path).expect("read");
    assert_eq!(again.job(), "job-7.x_y");
    assert!(again.join_file(join.addresses.clone()) == join);
    assert!(JoinFile::read(&join_path).expect("read") == join);
    assert!(fs::read_to_string(&join_path).expect("text") == join.to_line());
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing else is left");
}

#[test]
fn no_key_is_in_a_debug_text() {
    let keys = Keys::make("job").expect("keys");
    let join = keys.join_file(vec!["10.0.0.1:700".parse().expect("an address")]);
    let json: serde_json::Value = serde_json::from_str(&join.to_line()).expect("JSON");
    let key = json["key"].as_str().expect("a key");
    let text = format!("{keys:?} {keys:#?} {join:?} {join:#?}");
    assert!(!text.contains(&key[..16]) && text.contains("10.0.0.1:700") && text.len() < 400, "{text}");
}

#[test]
fn what_is_no_key_file_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("join");
    let line = Keys::make("job").expect("keys").join_file(Vec::new()).to_line();
    let read = |text: &str| JoinFile::read(&put(&path, text)).expect_err("it is none");
    assert!(matches!(read(""), KeysError::Format { .. }));
    assert!(matches!(read("{"), KeysError::Format { .. }));
    assert!(matches!(read(&line[..line.len() / 2]), KeysError::Format { .. }));
    assert!(matches!(read(&line.replace("\"format\":1", "\"format\":2")), KeysError::Format { .. }));
    assert!(matches!(read(&line.replace("\"format\"", "\"other\"")), KeysError::Format { .. }));
    assert!(matches!(read(&line.replace("\"job\":\"job\"", "\"job\":\"../x\"")), KeysError::Job(_)));
    let long = format!("{}{line}", " ".repeat(KEY_FILE_BYTES_MAX as usize));
    assert!(matches!(read(&long), KeysError::TooLong { .. }));
    fs::set_permissions(put(&path, &line), fs::Permissions::from_mode(0o640)).expect("its mode");
    assert!(matches!(JoinFile::read(&path), Err(KeysError::Open { mode: 0o640, .. })));
    assert!(matches!(Keys::read(&folder.path().join("none")), Err(KeysError::Read { .. })));
    assert!(matches!(
        Keys::make("job").expect("keys").write(&folder.path().join("no/where")),
        Err(KeysError::Write { .. })
    ));
    let secret = line.replace("\"key\":\"", "\"key\":\"!SECRET!");
    assert!(!read(&secret).to_string().contains("SECRET"), "an error does not tell what it saw");
}

#[test]
fn a_job_has_a_plain_name() {
    for name in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(JOB_BYTES_MAX + 1)] {
        assert!(matches!(Keys::make(name), Err(KeysError::Job(_))), "{name:?}");
    }
    Keys::make(&"x".repeat(JOB_BYTES_MAX)).expect("keys");
}
