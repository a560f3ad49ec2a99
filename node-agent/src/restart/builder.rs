//! The builder and what it makes: objects, open files, then the tree of processes, each of which finds its place.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;

use node_agent_image::model::{FileKind, NodeModel};

use super::board::Board;
use super::error::RestartError;
use super::mapped::Mapped;
use super::sys::{self, Kinship};
use super::tree::{Node, Role, Tree, Way};
use super::{RestartPlan, become_process, mapped, objects, stand_in};

/// What every process inherits from the builder.
pub struct Inheritance<'a> {
    pub plan: &'a RestartPlan<'a>,
    pub board: Board,
    pub tree: &'a Tree,
    /// From this number on nothing belongs to the job.
    pub base: RawFd,
    /// By index of the model's files.
    pub files: Vec<RawFd>,
    pub objects: objects::Objects,
    pub mapped: Mapped,
    /// The control segment.
    pub segment: RawFd,
}

/// Never returns.
pub fn run(plan: &RestartPlan<'_>, board: Board, tree: &Tree) -> ! {
    match build(plan, board, tree) {
        Ok(()) => sys::exit(0),
        Err(error) => {
            board.fail(&error.to_string());
            sys::exit(1)
        }
    }
}

fn build(plan: &RestartPlan<'_>, board: Board, tree: &Tree) -> Result<(), RestartError> {
    let inheritance = prepare(plan, board, tree)?;
    make_all(&inheritance, 0, true)?;
    make_all(&inheritance, 0, false)?;
    // The objects stay mapped for the agent to fill them; descriptors would keep pipes open.
    let keep: Vec<RawFd> = inheritance.objects.descriptors.iter().copied().filter(|it| *it >= 0).collect();
    stand_in::close_all_but(0, &keep).map_err(RestartError::system("close", "the builder's descriptors"))?;
    if !board.wait_for(&board.head().settled, |settled| settled == 1) {
        return Ok(());
    }
    objects::finish(plan.model, &inheritance.objects)?;
    crate::files::cut_back(plan.model, plan.policy)?;
    let last = plan.model.processes.iter().flat_map(|it| it.threads.iter().map(|it| it.tid).chain([it.pid])).max();
    // New processes of the job get numbers after the old ones, as they would have; where this is refused they start low.
    let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", last.unwrap_or(2).to_string());
    board.head().finished.store(1, Ordering::Release);
    sys::futex_wake(&board.head().finished);
    Ok(())
}

fn prepare<'a>(plan: &'a RestartPlan<'a>, board: Board, tree: &'a Tree) -> Result<Inheritance<'a>, RestartError> {
    let base = first_free_number(plan.model);
    raise_limit()?;
    let segment = sys::dup_above(plan.segment, base).map_err(RestartError::system("keep", "the control segment"))?;
    let mapped = mapped::open(plan.model, base)?;
    let objects = objects::make(plan.model, base, board)?;
    crate::ipc::make(plan.model)?;
    let files = crate::files::open_all(plan.model, base, plan.stdio, &objects.descriptors, plan.meeting)?;
    Ok(Inheritance { plan, board, tree, base, files, objects, mapped, segment })
}

fn raise_limit() -> Result<(), RestartError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .map_err(|error| RestartError::system("raise", "the limit of descriptors")(error.into()))
}

/// Above every number that a process of the job, or an epoll set, uses.
fn first_free_number(model: &NodeModel) -> RawFd {
    const LEAST: RawFd = 16;
    let descriptors = model.processes.iter().flat_map(|it| it.descriptors.iter().map(|it| it.number));
    let watched = model.files.iter().flat_map(|it| match &it.kind {
        FileKind::Epoll { entries } => entries.iter().map(|it| it.number).collect(),
        _ => Vec::new(),
    });
    descriptors.chain(watched).max().unwrap_or(0).max(LEAST) + 1
}

/// Makes those whom node `maker` makes before (`early`) or after its own setsid.
fn make_all(inheritance: &Inheritance<'_>, maker: usize, early: bool) -> Result<(), RestartError> {
    let tree = inheritance.tree;
    for (way, index) in &tree.nodes[maker].makes {
        if (*way == Way::Early) != early {
            continue;
        }
        let pid = tree.nodes[*index].pid;
        let error = || RestartError::system("make", format!("a process with pid {pid}"));
        let kinship = if *way == Way::Sibling { Kinship::Sibling } else { Kinship::Child };
        if *way == Way::Orphan {
            make_orphan(inheritance, *index).map_err(error())?;
        } else if sys::fork(kinship, Some(pid)).map_err(error())?.is_none() {
            live(inheritance, *index);
        }
    }
    Ok(())
}

fn make_orphan(inheritance: &Inheritance<'_>, index: usize) -> std::io::Result<()> {
    let orphans = inheritance.tree.nodes.iter().flat_map(|it| &it.makes).filter(|it| it.0 == Way::Orphan);
    let number = orphans.take_while(|it| it.1 != index).count();
    let between = inheritance.tree.spare.get(number).copied();
    let Some(child) = sys::fork(Kinship::Child, between)? else {
        match sys::fork(Kinship::Child, Some(inheritance.tree.nodes[index].pid)) {
            Ok(None) => live(inheritance, index),
            Ok(Some(_)) => sys::exit(0),
            Err(_) => sys::exit(1),
        }
    };
    match sys::wait(child as i32)? {
        (_, 0) => Ok(()),
        _ => Err(std::io::Error::from_raw_os_error(libc::EEXIST)),
    }
}

/// The life of a new process up to the restorer.
fn live(inheritance: &Inheritance<'_>, index: usize) -> ! {
    let node = &inheritance.tree.nodes[index];
    let result = find_place(inheritance, index, node);
    if let Err(error) = result {
        inheritance.board.fail(&format!("pid {}: {error}", node.pid));
    }
    sys::exit(1)
}

fn find_place(inheritance: &Inheritance<'_>, index: usize, node: &Node) -> Result<(), RestartError> {
    let Inheritance { plan, board, tree, .. } = inheritance;
    let process = match node.role {
        Role::Process(process) => Some(process),
        _ => None,
    };
    if node.role == Role::Guardian || process.is_some_and(|it| plan.model.processes[it].child_subreaper) {
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(RestartError::system("become", "a subreaper"))?;
    }
    make_all(inheritance, index, true)?;
    if node.leads_session {
        nix::unistd::setsid().map_err(|error| RestartError::system("lead", "a session")(error.into()))?;
    }
    if node.group == node.pid && !node.leads_session {
        set_group(node)?;
    }
    make_all(inheritance, index, false)?;
    let participants = tree.nodes.len() as u32 - 1;
    if !board.meet(0, participants) {
        return Ok(());
    }
    if node.group != node.pid && node.group != 0 {
        set_group(node)?;
    }
    if !board.meet(1, participants) {
        return Ok(());
    }
    match node.role {
        Role::Temporary => sys::exit(0),
        Role::Builder | Role::Outsider => stand_in::outsider(),
        Role::Guardian => stand_in::guardian(plan.model, inheritance.board),
        Role::Process(process) => {
            if let Some(status) = plan.model.processes[process].zombie {
                sys::end_as(status);
            }
            settle_children(inheritance, node)?;
            become_process::run(inheritance, process)
        }
    }
}

fn set_group(node: &Node) -> Result<(), RestartError> {
    let pid = |it: u32| nix::unistd::Pid::from_raw(it as i32);
    nix::unistd::setpgid(pid(0), pid(node.group))
        .map_err(|error| RestartError::system("join", format!("process group {}", node.group))(error.into()))
}

/// Stand-ins for dead leaders are reaped, zombies are waited for without reaping.
fn settle_children(inheritance: &Inheritance<'_>, node: &Node) -> Result<(), RestartError> {
    let nodes = &inheritance.tree.nodes;
    let by_siblings = node.makes.iter().filter(|it| nodes[it.1].role == Role::Temporary);
    let of_siblings = by_siblings.flat_map(|it| &nodes[it.1].makes).filter(|it| it.0 == Way::Sibling);
    for (_, index) in node.makes.iter().filter(|it| matches!(it.0, Way::Early | Way::Child)).chain(of_siblings) {
        let child = &nodes[*index];
        let zombie = match child.role {
            Role::Process(process) => inheritance.plan.model.processes[process].zombie.is_some(),
            _ => false,
        };
        let error = || RestartError::system("wait for", format!("the end of pid {}", child.pid));
        if zombie {
            sys::wait_until_ended(child.pid).map_err(error())?;
        } else if child.role == Role::Temporary {
            sys::wait(child.pid as i32).map_err(error())?;
        }
    }
    Ok(())
}

/// Called by the guardian's process too: its temporaries go with its ordinary reaping.
pub fn published(board: Board, status: i32) {
    let head = board.head();
    head.root_status.store(status, Ordering::Release);
    head.root_ended.store(1, Ordering::Release);
    sys::futex_wake(&head.root_ended);
}
