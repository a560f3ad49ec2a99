//! Plain calls; `cluster-sim` breaks things.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::node::{NodeId, Order, Place, Prepare, Report, RestartStage as Stage, Welcome};

const NOW: Duration = Duration::from_secs(500);

fn seats(nodes: u32) -> BTreeMap<NodeId, Seat> {
    let prepare = Prepare { dir: "/ckpt/gen-000001".into(), generation: 1, nodes, folders: Vec::new() };
    (0..nodes).map(|node| (NodeId(node), Seat::new(&format!("n{node}"), 10 + node, prepare.clone()))).collect()
}

fn outputs(director: &mut Director) -> Vec<DirectorOutput> {
    std::iter::from_fn(|| director.poll_output()).collect()
}

fn bound(port: u16) -> Report {
    let meeting = ([10, 0, 0, 1], port).into();
    Report::Bound { meeting, addresses: vec![(([10, 9, 9, 9], 0).into(), meeting)] }
}

fn is_end(output: &DirectorOutput) -> bool {
    matches!(output, DirectorOutput::Send(_, Order::End { .. }))
}

#[test]
fn all_bind_then_all_build_then_all_go() {
    let mut director = Director::begin(NOW, seats(2));
    assert_eq!(outputs(&mut director).len(), 2);
    director.handle_report(NOW, NodeId(0), bound(7));
    assert_eq!(outputs(&mut director), []);
    director.handle_report(NOW, NodeId(1), bound(8));
    let begun = outputs(&mut director);
    let [DirectorOutput::Send(_, Order::Begin { table }), _] = &begun[..] else { panic!("{begun:?}") };
    let hosts: Vec<&str> = table.iter().map(|Place { host, .. }| host.as_str()).collect();
    assert_eq!(hosts, ["n0", "n1"]);
    (0..2).for_each(|node| director.handle_report(NOW, NodeId(node), Report::Ready));
    assert_eq!(outputs(&mut director), [0, 1].map(|node| DirectorOutput::Send(NodeId(node), Order::Go)));
    (0..2).for_each(|node| director.handle_report(NOW, NodeId(node), Report::Running));
    assert_eq!(outputs(&mut director), [DirectorOutput::Announce(Announcement::Running)]);
}

#[test]
fn a_node_that_fails_or_is_silent_ends_all() {
    let mut director = Director::begin(NOW, seats(3));
    director.handle_report(NOW, NodeId(1), Report::RestartFailed { reason: "port 80 is taken".into() });
    let got = outputs(&mut director);
    assert_eq!(got.iter().filter(|it| is_end(it)).count(), 3);
    let reason = "n1 (node 1, agent 11): port 80 is taken".to_owned();
    assert_eq!(got.last(), Some(&DirectorOutput::Announce(Announcement::Failed { reason })));

    let mut director = Director::begin(NOW, seats(2));
    director.handle_report(NOW + STILL / 2, NodeId(0), Report::RestartProgress { done: 1, total: 2 });
    director.handle_report(NOW + STILL / 2, NodeId(1), Report::RestartProgress { done: 1, total: 2 });
    director.handle_timeout(NOW + STILL);
    assert_eq!(director.poll_timeout(), Some(NOW + STILL / 2 + STILL));
    director.handle_report(NOW + STILL, NodeId(0), bound(7));
    director.handle_timeout(NOW + STILL * 2);
    let reason = "n1 (node 1, agent 11) is still reading its part of the generation and binding ports".to_owned();
    assert_eq!(outputs(&mut director).last(), Some(&DirectorOutput::Announce(Announcement::Failed { reason })));
}

#[test]
fn a_new_coordinator_learns() {
    let timeout = Duration::from_secs(30);
    let learn = |stages: &[Stage]| {
        let mut director = Director::recover(NOW, timeout, seats(2));
        for (node, stage) in stages.iter().enumerate() {
            director.handle_joined(NOW, NodeId(node as u32), "n", 1, Some(*stage));
        }
        (director.step(), outputs(&mut director))
    };
    assert_eq!(learn(&[Stage::Ready]).0, Step::Learn);
    assert_eq!(learn(&[Stage::Ready, Stage::Ready]).0, Step::Go);
    assert_eq!(learn(&[Stage::Going]).0, Step::Go);
    assert_eq!(learn(&[Stage::Running, Stage::Ready]).0, Step::Go);
    assert_eq!(learn(&[Stage::Running, Stage::Running]).0, Step::Running);
    let (step, got) = learn(&[Stage::Ready, Stage::Building]);
    assert_eq!((step, got.iter().filter(|it| is_end(it)).count()), (Step::Ended, 2));
}

#[test]
fn a_deputy_that_was_not_let_go_ends_alone() {
    let timeout = Duration::from_secs(30);
    let mut deputy = Deputy::new(NOW, timeout);
    deputy.handle_connected(&Welcome { coordinator: 1, agent_timeout_ms: 30_000 });
    assert_eq!(deputy.poll_timeout(), None);
    deputy.handle_disconnected(NOW);
    deputy.handle_timeout(NOW + timeout);
    assert!(matches!(deputy.poll_output(), Some(DeputyOutput::Do(Deed::End(_)))));
    assert_eq!(deputy.stage(), Stage::Ended);
    deputy.handle_order(Order::Go);
    assert_eq!(deputy.poll_output(), None);
}
