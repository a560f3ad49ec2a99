//! `ckpt inspect`: what is in a generation, for people and as JSON.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use node_agent::memory::Cost;
use node_agent_image::model::{Backing, FileKind, NodeModel, ObjectKind, Process, Remote};
use serde::Serialize;

use crate::generations;
use crate::{ckpt, table, time};

/// Show what is in a generation: nodes, processes, threads, memory, descriptors
#[derive(Debug, Args)]
pub struct Options {
    /// The folder that --dir named
    dir: PathBuf,
    /// Another than the newest
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// As JSON, all of it
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Whole {
    generation: u64,
    path: String,
    committed_at: String,
    bytes_stored: u64,
    /// Of all nodes together.
    cost: Cost,
    /// Bytes of address space by kind, of all nodes together.
    memory: BTreeMap<&'static str, u64>,
    nodes: Vec<Node>,
}

/// One virtual node of it: its number is in the model.
#[derive(Debug, Serialize)]
struct Node {
    host: String,
    bytes_stored: u64,
    /// Bytes of address space by kind.
    memory: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    model: NodeModel,
}

/// Prints it.
pub fn inspect(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let found = generations::find(ckpt::TOOL, &options.dir, options.generation)?;
    let manifest = found.manifest()?;
    let node = |number: u32, bytes_stored: u64| -> Result<Node, generations::GenerationError> {
        let model = found.open(number)?.into_model();
        Ok(Node { host: model.machine.host.clone(), bytes_stored, memory: memory(&model), model })
    };
    let nodes = manifest.nodes.iter().map(|it| node(it.node, it.bytes_stored));
    if options.json {
        let nodes: Vec<Node> = nodes.collect::<Result<_, _>>()?;
        let whole = Whole {
            generation: found.number,
            path: found.path.display().to_string(),
            committed_at: time::moment(found.committed_ns()),
            bytes_stored: found.bytes_stored(),
            cost: manifest.cost.clone(),
            memory: summed(nodes.iter().map(|it| &it.memory)),
            nodes,
        };
        println!("{}", serde_json::to_string_pretty(&whole)?);
    } else {
        println!("generation {}, {}", found.number, found.path.display());
        for (index, node) in nodes.enumerate() {
            show(&node?, index == 0);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// For people. `is_first`: with what all nodes have in common.
fn show(node: &Node, is_first: bool) {
    let Node { host, bytes_stored, memory, model } = node;
    if is_first {
        println!("{}", head(model));
    }
    println!("\nnode {} on {host}, {} stored", model.node, table::bytes(*bytes_stored));
    println!("processes");
    let cells: Vec<[String; 6]> = model.processes.iter().map(process).collect();
    table::print(["  PID", "PARENT", "THREADS", "DESCRIPTORS", "ADDRESS SPACE", "PROGRAM"], &cells);
    println!("memory by kind");
    memory.iter().for_each(|(kind, bytes)| println!("  {kind:<22}{}", table::bytes(*bytes)));
    println!("open files");
    (0..model.files.len()).for_each(|index| println!("  {}", open_file(model, index)));
}

fn summed<'a>(all: impl Iterator<Item = &'a BTreeMap<&'static str, u64>>) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    all.flatten().for_each(|(kind, bytes)| *sums.entry(*kind).or_default() += bytes);
    sums
}

fn head(model: &NodeModel) -> String {
    let NodeModel { job, machine, .. } = model;
    format!(
        "job {} ({}): {}\ntaken {}, {}, kernel {}",
        job.id,
        job.name,
        job.command.join(" "),
        time::moment(machine.realtime_ns),
        machine.architecture,
        machine.kernel,
    )
}

fn process(it: &Process) -> [String; 6] {
    let program = match it.zombie {
        Some(_) => format!("{} (zombie)", it.comm),
        None => it.exe.path.clone(),
    };
    let space: u64 = it.memory.vmas.iter().map(|vma| vma.end.saturating_sub(vma.start)).sum();
    [
        format!("  {}", it.pid),
        it.ppid.to_string(),
        it.threads.len().to_string(),
        it.descriptors.len().to_string(),
        table::bytes(space),
        program,
    ]
}

/// Bytes of address space by kind, over all processes.
fn memory(model: &NodeModel) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for vma in model.processes.iter().flat_map(|process| &process.memory.vmas) {
        let kind = match (&vma.backing, vma.shared) {
            (Backing::Anonymous, _) => "anonymous",
            (Backing::Heap, _) => "heap",
            (Backing::Stack, _) => "stack",
            (Backing::Vdso(_), _) => "vdso",
            (Backing::File { .. }, false) => "files, private",
            (Backing::File { .. }, true) => "files, shared",
            (Backing::Object { .. }, _) => "shared memory",
            (Backing::Device(_), _) => "devices",
        };
        *sums.entry(kind).or_default() += vma.end.saturating_sub(vma.start);
    }
    sums
}

/// `pipe 3, 12 bytes in it — 4711:5 4712:0`.
fn open_file(model: &NodeModel, index: usize) -> String {
    let mut line = describe(model, &model.files[index].kind);
    let _ = write!(line, "  ←");
    for process in &model.processes {
        for descriptor in process.descriptors.iter().filter(|it| it.file == index) {
            let _ = write!(line, " {}:{}", process.pid, descriptor.number);
        }
    }
    line
}

fn describe(model: &NodeModel, kind: &FileKind) -> String {
    match kind {
        FileKind::Nothing => "nothing".into(),
        FileKind::Inherited { stream } => format!("stream {stream} of ckpt-run"),
        FileKind::Path { file, folder: true, .. } => format!("folder {}", file.path),
        FileKind::Path { file, path_only: true, .. } => format!("path {}", file.path),
        FileKind::Path { file, position, .. } => format!("file {} at {position} of {}", file.path, file.size),
        FileKind::Object { object, .. } => model.objects.get(*object).map_or_else(
            || "object".into(),
            |it| match &it.kind {
                ObjectKind::Anonymous => format!("shared memory, {}", table::bytes(it.size)),
                ObjectKind::Memfd { name, .. } => format!("memfd {name}, {}", table::bytes(it.size)),
                ObjectKind::SysV { id, .. } => format!("System V shared memory {id}"),
                ObjectKind::Named { file } | ObjectKind::Spare { file } => format!("file {}, contents kept", file.path),
                ObjectKind::Deleted { path } => format!("deleted file {path}, contents kept"),
            },
        ),
        FileKind::Device { path } => format!("device {path}"),
        FileKind::Pipe { pipe, path, contents, .. } => {
            let name = path.as_ref().map_or_else(|| format!("pipe {pipe}"), |path| format!("FIFO {path}"));
            format!("{name}, {} bytes in it", contents.len())
        }
        FileKind::Socket(socket) => {
            let family = match socket.family {
                1 => "Unix".to_owned(),
                2 => "IPv4".into(),
                10 => "IPv6".into(),
                16 => "netlink".into(),
                other => format!("family {other}"),
            };
            let state = match (socket.backlog, socket.peer, socket.peer_node) {
                (Some(_), ..) => "listens".to_owned(),
                (None, Some(peer), _) => format!("connected to file {peer}"),
                (None, None, Some(Remote { node, remote, .. })) => format!("connected to {remote} on node {node}"),
                (None, None, None) => "not connected".into(),
            };
            format!("{family} socket, {state}, {} packets in it", socket.received.len())
        }
        FileKind::Epoll { entries } => format!("epoll of {} descriptors", entries.len()),
        FileKind::Eventfd { count, .. } => format!("eventfd, {count}"),
        FileKind::Timerfd { .. } => "timerfd".into(),
        FileKind::Signalfd { .. } => "signalfd".into(),
        FileKind::Inotify { watches } => format!("inotify of {} paths", watches.len()),
        FileKind::Pidfd { pid } => format!("pidfd of {pid}"),
        FileKind::Pty { index, master, .. } => {
            format!("{} of terminal {index}", if *master { "master" } else { "slave" })
        }
        #[allow(unreachable_patterns)]
        _ => "of a kind that this version does not know".into(),
    }
}

#[cfg(test)]
mod tests {
    use node_agent_image::model::{Descriptor, FileIdentity, OpenFile, Vma};

    use super::*;

    #[test]
    fn a_file_is_shown_with_its_holders() {
        let file = FileIdentity { path: "/tmp/lines.txt".into(), size: 9, ..FileIdentity::default() };
        let kind = FileKind::Path { file, position: 4, folder: false, path_only: false };
        let files = vec![OpenFile { kind, ..OpenFile::default() }];
        let descriptors = vec![Descriptor { number: 3, file: 0, close_on_exec: false }];
        let processes = vec![Process { pid: 7, descriptors, ..Process::default() }];
        let model = NodeModel { files, processes, ..NodeModel::default() };
        assert_eq!(open_file(&model, 0), "file /tmp/lines.txt at 4 of 9  ← 7:3");
    }

    #[test]
    fn memory_is_summed_by_kind() {
        let vma = |start, end, backing| Vma { start, end, backing, ..Vma::default() };
        let mut process = Process::default();
        process.memory.vmas = vec![
            vma(0, 4096, Backing::Heap),
            vma(8192, 16384, Backing::Anonymous),
            vma(20480, 24576, Backing::Anonymous),
        ];
        let model = NodeModel { processes: vec![process], ..NodeModel::default() };
        assert_eq!(memory(&model), BTreeMap::from([("anonymous", 12288), ("heap", 4096)]));
    }
}
