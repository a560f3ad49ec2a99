//! Generations of many nodes, as people see them.

use std::fs;
use std::path::{Path, PathBuf};

use node_agent::memory::{Cost, Part, Unfinished};
use node_agent_image::model::{
    Backing, Descriptor, FileIdentity, FileKind, NodeModel, OpenFile, Process, Remote, Socket, Thread, Vma,
};
use serde_json::Value;

use crate::place::{Place, text};

/// A node with one process of two threads, a heap, and a connection to the next node.
fn node(number: u32, of: u32) -> NodeModel {
    let next = (number + 1) % of;
    let [local, remote] = [number, next].map(|it| ([10, 0, 0, it as u8], 4000).into());
    let socket = Socket {
        family: 2,
        kind: 1,
        local: vec![2; 16],
        remote: vec![2; 16],
        peer_node: (of > 1).then(|| Remote::new(next, local, remote)),
        ..Socket::default()
    };
    let mut process = Process {
        pid: 100 + number,
        exe: FileIdentity { path: format!("/opt/solver-{number}"), ..FileIdentity::default() },
        descriptors: vec![Descriptor { number: 3, file: 0, close_on_exec: false }],
        threads: vec![Thread::default(); 2],
        ..Process::default()
    };
    process.memory.vmas = vec![Vma { start: 4096, end: 12288, backing: Backing::Heap, ..Vma::default() }];
    let files = vec![OpenFile { kind: FileKind::Socket(Box::new(socket)), ..OpenFile::default() }];
    let mut model = NodeModel { node: number, processes: vec![process], files, ..NodeModel::default() };
    model.job.id = "4f3a".into();
    model.machine.host = format!("n{}", number + 1);
    model
}

/// Commits a generation of so many nodes to `DIR`; its folder.
fn commit(place: &Place, nodes: u32) -> PathBuf {
    let unfinished = Unfinished::begin(&dir(place)).unwrap();
    let finish = |number| Part::begin(unfinished.path(), number).unwrap().finish(&node(number, nodes)).unwrap();
    let receipts = (0..nodes).map(finish).collect();
    unfinished.commit(receipts, Cost { job: "4f3a".into(), ..Cost::default() }).unwrap().path
}

fn dir(place: &Place) -> PathBuf {
    place.path().join("generations")
}

fn run(place: &Place, tool: &str, words: &[&str]) -> (i32, String, String) {
    let said = place.run(tool, words);
    (said.status.code().unwrap(), text(&said.stdout), text(&said.stderr))
}

fn json(place: &Place, words: &[&str]) -> Value {
    let (code, out, err) = run(place, "ckpt", words);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn ls_counts_nodes() {
    let place = Place::new();
    commit(&place, 1);
    let damaged = commit(&place, 3);
    commit(&place, 3);
    fs::write(damaged.join("manifest"), "{}").unwrap();
    let rows = json(&place, &["ls", "generations", "--json"]);
    let nodes: Vec<&Value> = rows.as_array().unwrap().iter().map(|it| &it["nodes"]).collect();
    assert_eq!(nodes, [&Value::from(1), &Value::Null, &Value::from(3)]);
    let (_, out, _) = run(&place, "ckpt", &["ls", "generations"]);
    assert!(out.lines().next().unwrap().contains("NODES"), "{out}");
    let shown: Vec<&str> = out.lines().skip(1).map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(shown, ["1", "?", "3"], "{out}");
}

#[test]
fn inspect_shows_every_node() {
    let place = Place::new();
    commit(&place, 3);
    let (code, out, err) = run(&place, "ckpt", &["inspect", "generations"]);
    assert_eq!(code, 0, "{err}");
    for wanted in [
        "node 0 on n1",
        "node 1 on n2",
        "node 2 on n3",
        "/opt/solver-0",
        "/opt/solver-2",
        "connected to 10.0.0.1:4000 on node 1",
        "102:3",
    ] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    let whole = json(&place, &["inspect", "generations", "--json"]);
    assert_eq!((&whole["cost"]["processes"], &whole["cost"]["threads"]), (&Value::from(3), &Value::from(6)));
    assert_eq!(whole["memory"]["heap"], 3 * 8192);
    for (number, node) in whole["nodes"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&node["node"], &node["host"]), (&Value::from(number), &Value::from(format!("n{}", number + 1))));
        assert_eq!((&node["memory"]["heap"], &node["processes"][0]["pid"]), (&8192.into(), &(100 + number).into()));
    }
    assert_eq!(whole["nodes"].as_array().unwrap().len(), 3);
}

#[test]
fn verify_names_files_of_all_nodes() {
    let place = Place::new();
    let folder = commit(&place, 3);
    assert_eq!(run(&place, "ckpt", &["verify", "generations"]).0, 0);
    for name in ["node-1.model", "node-2.model"] {
        let mut bytes = fs::read(folder.join(name)).unwrap();
        bytes[100] ^= 1;
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("node-7.model"), "what?").unwrap();
    let (code, out, err) = run(&place, "ckpt", &["verify", "generations"]);
    assert_eq!((code, out.trim()), (1, "generation 1: damaged"));
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    for (line, name) in lines.iter().zip(["node-1.model", "node-2.model", "node-7.model"]) {
        assert!(line.contains(name), "{err}");
    }
}

/// A part of a job is never restarted: the rest would be missed.
#[test]
fn a_restart_of_many_nodes_asks_for_hosts() {
    let place = Place::new();
    let folder = commit(&place, 3);
    let before = listing(&folder);
    let (code, _, err) = run(&place, "ckpt-restart", &["generations"]);
    assert_eq!(code, 1);
    assert!(err.contains("the job is to run on n1,n2,n3") && err.contains("--hosts"), "{err}");
    fs::write(place.path().join("hosts"), "a:2\nb slots=4\n").unwrap();
    let (code, _, err) = run(&place, "ckpt-restart", &["--hostfile", "hosts", "generations"]);
    assert!(code == 1 && err.contains("the job is to run on a,b"), "{err}");
    assert_eq!(listing(&folder), before);
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    all.sort();
    all
}
