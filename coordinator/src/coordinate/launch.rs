//! Daemons of launchers on other nodes. The first time a host is asked for, an agent is started there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;

use coordinator_protocol::Answer;
use coordinator_protocol::members::Members;
use coordinator_protocol::node::{NodeId, Order};
use coordinator_transport::JoinFile;
use node_agent::guardian::Life;
use node_agent::job::{self, JobRecord};
use node_agent::link::Join;

use super::asks;
use super::events::Event;
use super::nodes::Nodes;
use super::start;

const NS_PER_MS: u64 = 1_000_000;

/// All launches of a job.
pub struct Launches {
    record: JobRecord,
    folder: PathBuf,
    join: JoinFile,
    events: Sender<Event>,
    last: u64,
    launches: BTreeMap<u64, Launch>,
}

struct Launch {
    node: u32,
    line: String,
    /// Who waits for it to be started.
    stream: Option<UnixStream>,
    ordered: bool,
}

impl Launches {
    #[allow(missing_docs)]
    pub fn new(life: &Life, join: JoinFile, events: Sender<Event>) -> Self {
        let folder = life.folder.path().to_path_buf();
        // Of a restarted job there are numbers that its processes know and this coordinator does not.
        let earlier = if life.record.generation.is_some() { life.record.started_at_ns / NS_PER_MS } else { 0 };
        let last = last_in(&folder).max(earlier);
        Self { record: life.record.clone(), folder, join, events, last, launches: BTreeMap::new() }
    }

    /// A launcher wants a daemon on `host`.
    pub fn ask(&mut self, nodes: &mut Nodes, stream: UnixStream, host: &str, options: &[String], line: &str) {
        self.last += 1;
        // A coordinator that is started anew must not give the number again.
        let _ = fs::write(self.folder.join(format!("remote-{}", self.last)), host);
        let node = nodes.on(host).unwrap_or_else(|| {
            let node = nodes.add(host);
            self.start_agent(node, host, options);
            node
        });
        let launch = Launch { node, line: line.to_owned(), stream: Some(stream), ordered: false };
        self.launches.insert(self.last, launch);
    }

    /// Orders that nodes which are there have not had yet.
    pub fn orders(&mut self, members: &Members) -> Vec<(u32, Order)> {
        let there = |node: u32| members.all().get(&NodeId(node)).is_some_and(|it| it.session.is_some());
        let due: Vec<u64> =
            self.launches.iter().filter(|(_, it)| !it.ordered && there(it.node)).map(|it| *it.0).collect();
        self.launches.iter_mut().filter(|(id, _)| due.contains(id)).for_each(|(_, it)| it.ordered = true);
        due.into_iter().map(|id| self.order(id)).collect()
    }

    /// Starts an agent on a host, in the background.
    pub fn start_agent(&self, node: u32, host: &str, options: &[String]) {
        let join = Join { record: JobRecord { node, ..self.record.clone() }, reach: self.join.clone() };
        let (host, options, events) = (host.to_owned(), options.to_vec(), self.events.clone());
        thread::spawn(move || {
            let result = start::start_agent(&host, &options, &join);
            let _ = events.send(Event::Started { node, result });
        });
    }

    fn order(&self, id: u64) -> (u32, Order) {
        let launch = &self.launches[&id];
        (launch.node, Order::Launch { id, command: vec![launch.line.clone()], folder: String::new() })
    }

    /// An agent is there: what was asked of its node is ordered, once more perhaps.
    pub fn note_join(&mut self, node: u32) {
        self.launches.values_mut().filter(|it| it.node == node).for_each(|it| it.ordered = false);
    }

    /// An agent was started, or could not be.
    pub fn note_start(&mut self, nodes: &mut Nodes, node: u32, result: Result<(), String>) {
        let Err(reason) = result else { return };
        let host = nodes.host(node);
        nodes.remove(node);
        let gone: Vec<u64> = self.launches.iter().filter(|(_, it)| it.node == node).map(|(id, _)| *id).collect();
        for id in gone {
            self.note_failed(id, &format!("cannot start an agent on {host}: {reason}"));
        }
    }

    /// A daemon runs.
    pub fn note_launched(&mut self, id: u64) {
        if let Some(stream) = self.launches.get_mut(&id).and_then(|it| it.stream.take()) {
            asks::answer(&stream, &Answer::Launched { id });
        }
    }

    /// A daemon could not be started.
    pub fn note_failed(&mut self, id: u64, reason: &str) {
        if let Some(stream) = self.launches.remove(&id).and_then(|it| it.stream) {
            asks::refuse(&stream, reason);
        }
    }

    /// A daemon has ended: whoever waits for it sees the file.
    /// `init`: the first process of a restarted job's namespaces, in which the folder is another one.
    pub fn note_end(&mut self, id: u64, status: i32, init: Option<u32>) {
        self.launches.remove(&id);
        let folder = match init {
            Some(init) => PathBuf::from(format!("/proc/{init}/root{}", self.folder.display())),
            None => self.folder.clone(),
        };
        let fresh = folder.join(format!(".remote-{id}"));
        let _ = fs::write(&fresh, status.to_string());
        let _ = fs::rename(&fresh, folder.join(job::remote_end(id)));
    }
}

/// The highest number that an earlier coordinator has given.
fn last_in(folder: &Path) -> u64 {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix("remote-")?.parse().ok()).max().unwrap_or(0)
}
