//! Sockets without a port, where virtual nodes share a host: the kernel would choose a port that says nothing about whose
//! it is, so one of the node's slice is chosen for it. And without an address, where loopback is divided.
//!
//! The port is bound as any program might bind one, which works on all kernels and outside of `ip_local_port_range`, where
//! nobody else's sockets get to. SO_REUSEADDR and SO_REUSEPORT are off meanwhile: with them two sockets get the same port.
#![allow(unsafe_code)] // raw system calls

use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, Ordering};

use hijack_abi::addresses::{Endpoint, Ports, Target};
use hijack_sys::syscall;

use super::names::Name;
use super::table;
use crate::call;

const BIND: usize = 49;
const GETSOCKNAME: usize = 51;
const GETPEERNAME: usize = 52;
const SETSOCKOPT: usize = 54;
const GETSOCKOPT: usize = 55;
const SOL_SOCKET: usize = 1;
const SO_REUSEADDR: usize = 2;
const SO_REUSEPORT: usize = 15;
const EADDRINUSE: isize = -98;
/// Ports of a slice that are tried at most, so that a full one does not take long.
const TRIES: u32 = 512;

/// In listen(2): a socket that was not bound gets its port there.
pub fn before_listen(fd: c_int) {
    if let Some(addresses) = table() {
        before_peer(fd, addresses.read(|table| table.ports()), None);
    }
}

/// Before a socket connects or sends. `own` is the address of this node that it connects to: the source of a loopback
/// connection is 127.0.0.1, whatever its target, and nobody would know it.
pub fn before_peer(fd: c_int, slice: Ports, own: Option<Target>) {
    let loopback = own.map(|target| target.endpoint).filter(|endpoint| endpoint.is_v4_loopback());
    if slice.count() == 0 && loopback.is_none() {
        return;
    }
    let Some(local) = local_name(fd).filter(Name::is_unbound) else { return };
    let mut name = local.unspecified();
    // What cannot be bound is connected all the same.
    match loopback {
        Some(Endpoint { address, .. }) if name.set(Endpoint { address, port: 0 }) => bind(fd, &mut name),
        _ => bind_in(fd, slice, &mut name),
    };
}

/// bind(2) to the address of `name` and a free port of a slice; the kernel's result.
pub fn bind_in(fd: c_int, slice: Ports, name: &mut Name) -> isize {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let (Some(endpoint), count) = (name.endpoint(), slice.count().max(1)) else { return EADDRINUSE };
    // Processes of the node begin at different places, and go on from where they were.
    let begin = call::getpid().wrapping_mul(0x9E37_79B1).wrapping_add(TURN.fetch_add(1, Ordering::Relaxed));
    let reuse = [SO_REUSEADDR, SO_REUSEPORT].map(|option| (option, option_of(fd, option)));
    let set = reuse.iter().filter(|(_, value)| *value != 0);
    set.clone().for_each(|(option, _)| set_option(fd, *option, 0));
    let mut result = EADDRINUSE;
    for at in 0..count.min(TRIES) {
        let port = slice.first.wrapping_add((begin.wrapping_add(at).checked_rem(count).unwrap_or(0)) as u16);
        name.set(Endpoint { port, ..endpoint });
        result = bind(fd, name);
        if result != EADDRINUSE {
            break;
        }
    }
    set.for_each(|(option, value)| set_option(fd, *option, *value));
    result
}

/// What a socket is bound to.
pub fn local_name(fd: c_int) -> Option<Name> {
    Name::filled(|name, len| raw(GETSOCKNAME, [fd as usize, name, len, 0, 0, 0]))
}

/// What it is connected to.
pub fn peer_name(fd: c_int) -> Option<Name> {
    Name::filled(|name, len| raw(GETPEERNAME, [fd as usize, name, len, 0, 0, 0]))
}

fn bind(fd: c_int, name: &mut Name) -> isize {
    raw(BIND, [fd as usize, name.start() as usize, name.len() as usize, 0, 0, 0])
}

fn option_of(fd: c_int, option: usize) -> c_int {
    let (mut value, mut bytes): (c_int, u32) = (0, size_of::<c_int>() as u32);
    let (at, len) = ((&raw mut value) as usize, (&raw mut bytes) as usize);
    raw(GETSOCKOPT, [fd as usize, SOL_SOCKET, option, at, len, 0]);
    value
}

fn set_option(fd: c_int, option: usize, value: c_int) {
    let at = (&raw const value) as usize;
    raw(SETSOCKOPT, [fd as usize, SOL_SOCKET, option, at, size_of::<c_int>(), 0]);
}

fn raw(number: usize, arguments: [usize; 6]) -> isize {
    // SAFETY: calls of sockets, with numbers and addresses of live memory as long as the kernel is told.
    unsafe { syscall(number, arguments) }
}
