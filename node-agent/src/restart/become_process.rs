//! The last ordinary code of a new process: its descriptors, its folder, its orders, and the jump into the restorer.
#![allow(unsafe_code)] // orders are written into memory at an address of our choice, and jumped to

use std::fs;
use std::os::fd::RawFd;

use hijack_abi::orders::{Mapping, Orders, STACK_BYTES};
use node_agent_image::model::{Backing, ObjectKind, Process};

use super::board::PAGE;
use super::builder::Inheritance;
use super::error::RestartError;
use super::sys;
use super::write_orders::{self, Addresses};

/// Where holes are looked for: above the heap of position-independent programs, below libraries and stack.
const HOLES_FROM: u64 = 0x6000_0000_0000;
const HOLES_TO: u64 = 0x7000_0000_0000;
const HOLES_STEP: u64 = 0x1000_0000;

/// Returns only with an error.
pub fn run(inheritance: &Inheritance<'_>, index: usize) -> Result<(), RestartError> {
    let process = &inheritance.plan.model.processes[index];
    surroundings(process)?;
    terminal(process)?;
    let addresses = map_region(inheritance, process, index)?;
    let mappings = mappings(inheritance, process)?;
    let exe = inheritance.mapped.get(&process.exe.path)?;
    let keep = kept(&mappings, exe);
    crate::files::install(inheritance.plan.model, index, &inheritance.files, &keep)?;
    sys::block_signals();
    // SAFETY: the region is mapped, the orders' memory is zero-filled, page-aligned, as long as `bytes` said, and only
    // this process writes to it before its first stage.
    unsafe {
        write_orders::write(addresses, inheritance, process, &mappings, exe);
        sys::jump(addresses.entry, addresses.orders, addresses.leader_stack + STACK_BYTES);
    }
}

fn surroundings(process: &Process) -> Result<(), RestartError> {
    std::env::set_current_dir(&process.cwd).map_err(RestartError::system("enter its folder", &process.cwd))?;
    // Lower values than the caller's own need a right that the job may have had and this user has not.
    let _ = fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string());
    Ok(())
}

/// A session leader that opens a terminal which is nobody's gets it; only ptys of the job are asked for.
fn terminal(process: &Process) -> Result<(), RestartError> {
    let Some(terminal) = process.terminal.as_ref().filter(|_| process.sid == process.pid) else { return Ok(()) };
    const UNIX98_SLAVES: u64 = 136;
    if libc::major(terminal.device) as u64 != UNIX98_SLAVES {
        return Ok(());
    }
    let path = format!("/dev/pts/{}", libc::minor(terminal.device));
    if let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(&path) {
        sys::set_foreground(std::os::fd::AsRawFd::as_raw_fd(&file), terminal.foreground)
            .map_err(RestartError::system("set the foreground group of", path))?;
    }
    Ok(())
}

/// Puts the restorer, its orders and its stacks into a hole that is free now and in the saved layout.
fn map_region(inheritance: &Inheritance<'_>, process: &Process, index: usize) -> Result<Addresses, RestartError> {
    let restorer = &inheritance.plan.restorer;
    let orders_bytes = write_orders::bytes(process).next_multiple_of(PAGE);
    let stacks = STACK_BYTES * (process.threads.len() as u64 + 1);
    let length = restorer.span() + orders_bytes + stacks;
    let error = || RestartError::system("map", "the restorer");
    let base = hole(process, length)?;
    let (orders, stack) = (base + restorer.span(), base + restorer.span() + orders_bytes);
    sys::map_at(base, restorer.span() as usize, &restorer.relocated(base)).map_err(error())?;
    for segment in &restorer.segments {
        sys::protect(base + segment.start, segment.length as usize, segment.protection).map_err(error())?;
    }
    sys::move_mapping(inheritance.board.orders_address(index), orders_bytes as usize, orders).map_err(error())?;
    sys::map_at(stack, stacks as usize, &[]).map_err(error())?;
    let entry = base + restorer.entry;
    Ok(Addresses { region: [base, base + length], orders, leader_stack: stack, entry })
}

fn hole(process: &Process, length: u64) -> Result<u64, RestartError> {
    let maps = fs::read("/proc/self/maps").map_err(RestartError::system("read", "/proc/self/maps"))?;
    let now = node_agent_proc::maps::parse(&maps).map_err(|error| RestartError::Model(error.to_string()))?;
    let segment = process.memory.segment_address;
    let segment = (segment, segment + size_of::<hijack_abi::Segment>() as u64);
    let taken: Vec<(u64, u64)> = now
        .iter()
        .map(|it| (it.start, it.end))
        .chain(process.memory.vmas.iter().map(|it| (it.start, it.end)))
        .chain([segment])
        .collect();
    let free = |at: &u64| taken.iter().all(|(start, end)| at + length + PAGE <= *start || *end + PAGE <= *at);
    (HOLES_FROM..HOLES_TO)
        .step_by(HOLES_STEP as usize)
        .find(free)
        .ok_or_else(|| RestartError::Model(format!("no hole for the restorer in the memory of pid {}", process.pid)))
}

fn mappings(inheritance: &Inheritance<'_>, process: &Process) -> Result<Vec<Mapping>, RestartError> {
    let mut mappings = Vec::with_capacity(process.memory.vmas.len() + 1);
    for vma in &process.memory.vmas {
        let mut mapping = Mapping {
            start: vma.start,
            end: vma.end,
            protection: vma.protection,
            flags: write_orders::map_flags(vma) as u32,
            descriptor: -1,
            advice: write_orders::advice_bits(vma),
            ..Mapping::default()
        };
        match &vma.backing {
            Backing::Vdso(_) => continue,
            Backing::Anonymous | Backing::Heap | Backing::Stack => mapping.flags |= libc::MAP_ANONYMOUS as u32,
            Backing::File { file, offset } => {
                mapping.descriptor = inheritance.mapped.get(&file.path)?;
                mapping.offset = *offset;
            }
            Backing::Device(path) => mapping.descriptor = inheritance.mapped.get(path)?,
            Backing::Object { object, offset } => {
                let missing = || RestartError::Model(format!("no object {object}"));
                mapping.descriptor = *inheritance.objects.descriptors.get(*object).ok_or_else(missing)?;
                mapping.offset = *offset;
                if let Some(ObjectKind::SysV { id, .. }) =
                    inheritance.plan.model.objects.get(*object).map(|it| &it.kind)
                {
                    (mapping.attach, mapping.shm) = (1, *id);
                }
            }
        }
        mappings.push(mapping);
    }
    mappings.push(segment(inheritance.segment, process.memory.segment_address));
    mappings.sort_unstable_by_key(|it| it.start);
    Ok(mappings)
}

fn segment(descriptor: RawFd, address: u64) -> Mapping {
    Mapping {
        start: address,
        end: address + size_of::<hijack_abi::Segment>() as u64,
        protection: (libc::PROT_READ | libc::PROT_WRITE) as u32,
        flags: libc::MAP_SHARED as u32,
        descriptor,
        ..Mapping::default()
    }
}

fn kept(mappings: &[Mapping], exe: RawFd) -> Vec<RawFd> {
    let mut keep: Vec<RawFd> = mappings.iter().map(|it| it.descriptor).filter(|it| *it >= 0).chain([exe]).collect();
    keep.sort_unstable();
    keep.dedup();
    keep
}

/// Bytes that a process's orders take at most.
pub fn orders_bytes(process: &Process) -> u64 {
    debug_assert!(size_of::<Orders>() as u64 <= write_orders::bytes(process));
    write_orders::bytes(process)
}
