//! Addresses that programs remember, in the calls of sockets that name one (rules: hijack-abi, `addresses`).
//!
//! ```text
//! through    the way through a wrapper: before, libc's function, after
//! outgoing   bind, connect, sendto, sendmsg, sendmmsg: a copy of the name is translated, old → new
//! incoming   accept, getsockname, recvfrom, recvmsg, …: the name in the caller's buffer, new → old
//! names      struct sockaddr ⇄ endpoint
//! ports      sockets without a port, on a host that virtual nodes share
//! ```
//!
//! In a first life there is no table: then what names somebody is some branches and a jump. What may block and returns a name
//! looks for the table when it comes back: it may have been called in an earlier life.
#![allow(unsafe_code)] // what wrappers of libc's functions are made of

use core::sync::atomic::{AtomicBool, Ordering};

use hijack_abi::Segment;
use hijack_abi::addresses::Addresses;

use crate::objects::Next;
use crate::{environment, segment};

mod incoming;
mod names;
mod outgoing;
mod ports;
mod through;

use names::Name;
use outgoing::Letter;
pub use ports::before_listen;
use through::{always, recvfrom_of_chk, where_moved};

static ACCEPT: Next = Next::new(c"accept");
static ACCEPT4: Next = Next::new(c"accept4");
static BIND: Next = Next::new(c"bind");
static CONNECT: Next = Next::new(c"connect");
static GETPEERNAME: Next = Next::new(c"getpeername");
static GETSOCKNAME: Next = Next::new(c"getsockname");
static SENDTO: Next = Next::new(c"sendto");
static SENDMSG: Next = Next::new(c"sendmsg");
static SENDMMSG: Next = Next::new(c"sendmmsg");
static RECVFROM: Next = Next::new(c"recvfrom");
static RECVMSG: Next = Next::new(c"recvmsg");
static RECVMMSG: Next = Next::new(c"recvmmsg");

where_moved! {
    bind => BIND, outgoing::before_bind, outgoing::after_name,
    connect => CONNECT, outgoing::before_connect, outgoing::after_name,
    getpeername => GETPEERNAME, incoming::before_name, incoming::after_getpeername,
    getsockname => GETSOCKNAME, incoming::before_name, incoming::after_getsockname,
    sendto => SENDTO, outgoing::before_sendto, outgoing::after_send::<Name>,
    sendmsg => SENDMSG, outgoing::before_sendmsg, outgoing::after_send::<Letter>,
    sendmmsg => SENDMMSG, outgoing::before_sendmmsg, outgoing::after_sendmmsg,
}

always! {
    accept => ACCEPT, incoming::before_name, incoming::after_accept,
    accept4 => ACCEPT4, incoming::before_name, incoming::after_accept,
    recvfrom => RECVFROM, incoming::before_recvfrom, incoming::after_recvfrom,
    recvmsg => RECVMSG, incoming::before_recvmsg, incoming::after_recvmsg,
    recvmmsg => RECVMMSG, incoming::before_recvmmsg, incoming::after_recvmmsg,
}

recvfrom_of_chk!(recvfrom_chk => recvfrom);

/// The table, where there is one.
fn table() -> Option<&'static Addresses> {
    let addresses = &segment::get().or_else(late_segment)?.addresses;
    addresses.is_set().then_some(addresses)
}

/// A program that was started after a restart, has one thread, and names an address for the first time. Once: what cannot
/// open the segment now is not to try it in every call.
#[cold]
fn late_segment() -> Option<&'static Segment> {
    static TRIED: AtomicBool = AtomicBool::new(false);
    environment::job_folder()?;
    if TRIED.swap(true, Ordering::Relaxed) {
        return None;
    }
    segment::get_or_map()
}
