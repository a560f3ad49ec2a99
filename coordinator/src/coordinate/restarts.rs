//! A restart of many nodes: agents on all hosts, then the protocol's director, until everybody runs.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator_protocol::members::Members;
use coordinator_protocol::node::{Hello, NodeId, Order, Prepare, Report};
use coordinator_protocol::restart::{Announcement, Director, DirectorOutput, Seat};
use node_agent::job::JobRecord;

/// A restart that is under way.
pub struct Restart {
    prepare: Prepare,
    nodes: u32,
    director: Option<Director>,
}

/// What comes of it.
pub enum Outcome {
    /// It goes on.
    Underway(Vec<(u32, Order)>),
    /// Everybody runs.
    Running,
    /// Nobody does.
    Failed(String),
}

impl Restart {
    /// The one that a record speaks of.
    pub fn of(record: &JobRecord) -> Option<Self> {
        let dir = record.generation.as_ref().filter(|_| record.nodes > 1)?.display().to_string();
        let (generation, nodes) = (record.restarted_from.unwrap_or_default(), record.nodes);
        Some(Self { prepare: Prepare { dir, generation, nodes, folders: Vec::new() }, nodes, director: None })
    }

    /// An agent was let in.
    pub fn note_join(&mut self, now: Duration, members: &Members, hello: &Hello) {
        if let Some(director) = &mut self.director {
            return director.handle_joined(now, hello.node, &hello.host, hello.agent, hello.restart);
        }
        let there = members.all().iter().filter(|(_, it)| it.session.is_some());
        let seats: BTreeMap<NodeId, Seat> =
            there.map(|(node, it)| (*node, Seat::new(&it.host, it.agent, self.prepare.clone()))).collect();
        if seats.len() == self.nodes as usize {
            self.director = Some(Director::begin(now, seats));
        }
    }

    #[allow(missing_docs)]
    pub fn note_report(&mut self, now: Duration, node: u32, report: Report) {
        if let Some(director) = &mut self.director {
            director.handle_report(now, NodeId(node), report);
        }
    }

    #[allow(missing_docs)]
    pub fn note_parted(&mut self, node: NodeId) {
        self.director.iter_mut().for_each(|it| it.handle_parted(node));
    }

    #[allow(missing_docs)]
    pub fn let_time_pass(&mut self, now: Duration) {
        self.director.iter_mut().for_each(|it| it.handle_timeout(now));
    }

    /// When [`Restart::let_time_pass`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.director.as_ref().and_then(Director::poll_timeout)
    }

    /// What is to be said now, and what has come of it.
    pub fn poll(&mut self) -> Outcome {
        let mut orders = Vec::new();
        let Some(director) = &mut self.director else { return Outcome::Underway(orders) };
        while let Some(output) = director.poll_output() {
            match output {
                DirectorOutput::Send(node, order) => orders.push((node.0, order)),
                DirectorOutput::Announce(Announcement::Running) => return Outcome::Running,
                DirectorOutput::Announce(Announcement::Failed { reason }) => return Outcome::Failed(reason),
            }
        }
        Outcome::Underway(orders)
    }
}
