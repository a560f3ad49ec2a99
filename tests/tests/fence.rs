//! What the compiler does not guard: arrows between crates, purity, where unsafe may live, what the preload library
//! exports, and the folders at the top. DESIGN: pure crates know no IO; nothing in a rank depends on std's allocator.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of ours a crate may depend on.
const ARROWS: [(&str, &[&str]); 13] = [
    ("cluster-sim", &["coordinator-protocol"]),
    ("coordinator", &["coordinator-protocol", "node-agent", "node-agent-image"]),
    ("coordinator-protocol", &[]),
    ("hijack", &["hijack-abi", "hijack-sys"]),
    ("hijack-abi", &[]),
    ("hijack-restorer", &["hijack-abi", "hijack-sys"]),
    ("hijack-sys", &["hijack-abi"]),
    ("interconnect-drain", &[]),
    (
        "node-agent",
        &["coordinator-protocol", "hijack-abi", "interconnect-drain", "node-agent-image", "node-agent-proc"],
    ),
    ("node-agent-image", &[]),
    ("node-agent-proc", &[]),
    ("tests", &[]),
    ("xtask", &[]),
];
/// Crates that run inside an application process: no dependency from outside at all.
const IN_A_RANK: [&str; 4] = ["hijack", "hijack-abi", "hijack-restorer", "hijack-sys"];
/// Crates that know no IO, no clock, no thread, no unsafe.
const PURE: [&str; 5] =
    ["coordinator-protocol", "hijack-abi", "interconnect-drain", "node-agent-image", "node-agent-proc"];
/// What pure crates may use from outside: types, encodings, errors.
const PURE_MAY_USE: [&str; 8] =
    ["base64", "lz4_flex", "postcard", "serde", "serde_json", "serde_path_to_error", "thiserror", "xxhash-rust"];
/// What pure crates never name outside of their tests.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::io::stdin",
    "Instant::now",
    "SystemTime",
    "libc::",
];
/// What may lie at the top.
const TOP: [&str; 20] = [
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "cluster-sim",
    "coordinator",
    "docs",
    "hijack",
    "interconnect",
    "node-agent",
    "rustfmt.toml",
    "slurm-plugin",
    "tests",
    "xtask",
];
/// The list of exported symbols, one in a line.
const EXPORTS: &str = "hijack/exports.txt";
/// The list of files that may use unsafe.
const UNSAFE_FILES: &str = "tests/unsafe-files.txt";
/// Folders with sources of ours.
const SOURCES: [&str; 8] =
    ["cluster-sim", "coordinator", "hijack", "interconnect", "node-agent", "slurm-plugin", "tests", "xtask"];

/// A workspace member: its folder, and its dependencies with their kind (normal, build; not dev).
struct Member {
    folder: PathBuf,
    dependencies: BTreeSet<String>,
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(root()).args(arguments).output();
    let output = output.unwrap_or_else(|cause| panic!("cannot start cargo: {cause}"));
    assert!(output.status.success(), "cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn members() -> BTreeMap<String, Member> {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("cargo metadata gives JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let member = |package: &serde_json::Value| {
        let folder = PathBuf::from(word(&package["manifest_path"])).parent().map(Path::to_path_buf).unwrap_or_default();
        let listed = package["dependencies"].as_array().into_iter().flatten().filter(|listed| listed["kind"] != "dev");
        (word(&package["name"]), Member { folder, dependencies: listed.map(|listed| word(&listed["name"])).collect() })
    };
    packages.iter().map(member).collect()
}

/// All Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|cause| panic!("cannot read {}: {cause}", path.display()))
}

/// Lines of a list, without comments.
fn list(path: &str) -> BTreeSet<String> {
    let text = read(&root().join(path));
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// A file without what it compiles for tests only, which by custom is its end.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]").map_or(text, |end| &text[..end])
}

#[test]
fn arrows_between_crates() {
    let members = members();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let have: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(have, known, "crates and the arrows known here differ: a new crate is a change of the architecture");
    for (name, allowed) in ARROWS {
        let ours = members[name].dependencies.iter().filter(|dependency| known.contains(dependency.as_str()));
        let wrong: Vec<&String> = ours.filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
        assert!(wrong.is_empty(), "{name} must not depend on {wrong:?}");
    }
}

#[test]
fn nothing_from_outside_in_a_rank() {
    let members = members();
    for name in IN_A_RANK {
        let foreign: Vec<&String> =
            members[name].dependencies.iter().filter(|dependency| !members.contains_key(*dependency)).collect();
        assert!(foreign.is_empty(), "{name} lives in other people's processes and must not depend on {foreign:?}");
    }
}

#[test]
fn pure_crates_are_pure() {
    let members = members();
    for name in PURE {
        let member = &members[name];
        let foreign = member.dependencies.iter().filter(|dependency| !PURE_MAY_USE.contains(&dependency.as_str()));
        assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&String>::new(), "{name} is pure");
        let library = read(&member.folder.join("src/lib.rs"));
        assert!(library.contains("#![forbid(unsafe_code)]"), "{name} is pure: its lib.rs must forbid unsafe_code");
        for file in rust_files(&member.folder.join("src")) {
            let text = read(&file);
            let found = IMPURE.iter().find(|word| without_tests(&text).contains(**word));
            assert!(found.is_none(), "{} names {}: {name} is pure", file.display(), found.unwrap_or(&""));
        }
    }
}

#[test]
fn unsafe_only_where_listed() {
    let mut have = BTreeSet::new();
    for folder in SOURCES {
        for file in rust_files(&root().join(folder)) {
            let text = read(&file);
            // Split, so that this file does not name it.
            let allowed = [concat!("allow(unsafe", "_code"), concat!("expect(unsafe", "_code")]
                .iter()
                .any(|word| text.contains(word));
            if allowed {
                have.insert(file.strip_prefix(root()).unwrap_or(&file).display().to_string());
            }
        }
    }
    let listed = list(UNSAFE_FILES);
    let unlisted: Vec<_> = have.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&have).collect();
    assert!(unlisted.is_empty(), "{unlisted:?} use unsafe and are not in {UNSAFE_FILES}: do they have to?");
    assert!(stale.is_empty(), "{stale:?} are in {UNSAFE_FILES} and use no unsafe: take them out");
}

#[test]
fn every_crate_obeys_the_lints() {
    for (name, member) in members() {
        let manifest = read(&member.folder.join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not take the workspace's lints");
    }
    let workspace = read(&root().join("Cargo.toml"));
    for lint in ["unsafe_code = \"deny\"", "undocumented_unsafe_blocks = \"deny\""] {
        assert!(workspace.contains(lint), "the workspace no longer says {lint}");
    }
}

#[test]
fn the_preload_library_exports_what_is_listed() {
    cargo(&["build", "--release", "--package", "hijack"]);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let library = target.join("release/libckpt_hijack.so");
    let output = Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&library).output();
    let output = output.unwrap_or_else(|cause| panic!("cannot start nm (binutils): {cause}"));
    assert!(output.status.success(), "nm -D {}: {}", library.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let have: BTreeSet<String> = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(have, list(EXPORTS), "left: what libckpt_hijack.so exports; right: {EXPORTS}");
}

#[test]
fn nothing_else_at_the_top() {
    let entries = fs::read_dir(root()).expect("the project's root can be read");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let other: Vec<String> = names.filter(|name| !TOP.contains(&name.as_str()) && name != "target").collect();
    assert!(other.is_empty(), "{other:?} at the top: the layout is given");
    let missing: Vec<&str> = TOP.into_iter().filter(|name| *name != ".git" && !root().join(name).exists()).collect();
    assert!(missing.is_empty(), "{missing:?} are missing at the top");
}
