//! System V semaphores and message queues: no descriptor and no mapping leads to them, so all that the job can have made
//! is taken.
//!
//! In its first life a job shares its ipc namespace with others: what its user has made since it began counts as its own,
//! which may take too much, and does no harm: a restart has an ipc namespace of its own. From then on everything there is
//! the job's. SEM_UNDO is not kept: nobody can see from outside what a process has asked for.
#![allow(unsafe_code)] // nix has no semctl and no msgctl; enters another namespace in a process made for it

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use node_agent_image::model::{Message, MessageQueue, NodeModel, SemaphoreSet};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::keeper;

/// Longest message that is asked for; /proc/sys/kernel/msgmax is 8 KiB as a rule.
const MESSAGE_BYTES: usize = 1 << 20;
/// linux/msg.h; with it msgrcv(2) copies the nth message and leaves it there.
const MSG_COPY: i32 = 0o40000;

/// Places of size, creator's uid and time of change in a line of /proc/sysvipc/sem, and in one of msg.
const SEMAPHORE_FIELDS: [usize; 3] = [3, 6, 9];
const QUEUE_FIELDS: [usize; 3] = [3, 9, 13];

/// Why they cannot be saved or made again.
#[derive(Debug, Error)]
#[error("cannot {deed} System V {what}: {source}")]
pub struct IpcError {
    deed: &'static str,
    what: String,
    source: io::Error,
}

/// Semaphores and message queues of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ipc {
    #[allow(missing_docs)]
    pub semaphores: Vec<SemaphoreSet>,
    #[allow(missing_docs)]
    pub queues: Vec<MessageQueue>,
}

/// A line of /proc/sysvipc/sem or msg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    key: i32,
    id: i32,
    mode: u32,
    /// Semaphores of the set, or bytes of the queue.
    size: usize,
}

/// Everything in the ipc namespace of a parked process that its user has made, since `since` (seconds after 1970) where
/// the namespace is not the job's own.
///
/// # Errors
/// When the namespace cannot be entered or something in it not be read.
pub fn capture(host_pid: u32, since: Option<u64>) -> Result<Ipc, IpcError> {
    let error = |source| IpcError { deed: "read", what: "semaphores and message queues".into(), source };
    let bytes = keeper::run(|| {
        enter(host_pid)?;
        serde_json::to_vec(&read_all(since)?).map_err(io::Error::from)
    });
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from)).map_err(error)
}

/// Makes those of the model with their old ids. In the job's new ipc namespace.
///
/// # Errors
/// Names the set or the queue.
pub fn make(model: &NodeModel) -> Result<(), IpcError> {
    for set in &model.semaphores {
        let what = || format!("semaphore set {}", set.id);
        make_set(set).map_err(|source| IpcError { deed: "make", what: what(), source })?;
    }
    for queue in &model.queues {
        let what = || format!("message queue {}", queue.id);
        make_queue(queue).map_err(|source| IpcError { deed: "make", what: what(), source })?;
    }
    Ok(())
}

/// The namespaces of a restarted job belong to its user, who may enter them from outside.
fn enter(host_pid: u32) -> io::Result<()> {
    let link = |pid: &str, which: &str| fs::read_link(format!("/proc/{pid}/ns/{which}"));
    for which in ["user", "ipc"] {
        if link("self", which)? != link(&host_pid.to_string(), which)? {
            let file = File::open(format!("/proc/{host_pid}/ns/{which}"))?;
            // SAFETY: takes a number; this process was made for it and has one thread.
            check(unsafe { libc::setns(file.as_raw_fd(), 0) })?;
        }
    }
    Ok(())
}

fn read_all(since: Option<u64>) -> io::Result<Ipc> {
    let mut ipc = Ipc::default();
    for line in parse(&fs::read_to_string("/proc/sysvipc/sem")?, SEMAPHORE_FIELDS, since) {
        let values = gone_is_none(read_set(&line))?;
        ipc.semaphores.extend(values.map(|values| SemaphoreSet {
            id: line.id,
            key: line.key,
            mode: line.mode,
            values,
        }));
    }
    for line in parse(&fs::read_to_string("/proc/sysvipc/msg")?, QUEUE_FIELDS, since) {
        let messages = gone_is_none(read_queue(&line))?;
        ipc.queues.extend(messages.map(|it| MessageQueue {
            id: line.id,
            key: line.key,
            mode: line.mode,
            messages: it,
        }));
    }
    Ok(ipc)
}

/// Lines of what our user has made, since then. Both tables begin with key, id and permissions.
fn parse(text: &str, [size, creator, changed]: [usize; 3], since: Option<u64>) -> Vec<Line> {
    let own = nix::unistd::geteuid().as_raw();
    let line = |text: &str| {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
        let ours = number(creator)? == i64::from(own) && since.is_none_or(|it| number(changed) >= Some(it as i64));
        let mode = u32::from_str_radix(fields.get(2)?, 8).ok()? & 0o777;
        ours.then_some(Line { key: number(0)? as i32, id: number(1)? as i32, mode, size: number(size)? as usize })
    };
    text.lines().filter_map(line).collect()
}

/// Somebody else's may go while we look.
fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EIDRM | libc::EINVAL)) => Ok(None),
        other => other.map(Some),
    }
}

fn read_set(line: &Line) -> io::Result<Vec<u16>> {
    let mut values = vec![0u16; line.size];
    // SAFETY: a set keeps its size for life; the array is as long and outlives the call.
    check(unsafe { libc::semctl(line.id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    Ok(values)
}

/// struct msgbuf with room for the longest message.
fn read_queue(line: &Line) -> io::Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut buffer = vec![0u64; 1 + MESSAGE_BYTES / size_of::<u64>()];
    loop {
        let flags = MSG_COPY | libc::IPC_NOWAIT;
        // SAFETY: the buffer has room for the type and for as many bytes as said.
        let length = unsafe {
            libc::msgrcv(line.id, buffer.as_mut_ptr().cast(), MESSAGE_BYTES, messages.len() as libc::c_long, flags)
        };
        if length < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOMSG) { Ok(messages) } else { Err(error) };
        }
        let bytes = buffer[1..].iter().flat_map(|it| it.to_ne_bytes()).take(length as usize).collect();
        messages.push(Message { kind: buffer[0] as i64, bytes });
    }
}

fn make_set(set: &SemaphoreSet) -> io::Result<()> {
    fs::write("/proc/sys/kernel/sem_next_id", set.id.to_string())?;
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | set.mode as i32;
    // SAFETY: takes numbers.
    let id = check(unsafe { libc::semget(set.key, set.values.len() as i32, flags) })?;
    expect(id, set.id)?;
    // SAFETY: the array is as long as the set and outlives the call.
    check(unsafe { libc::semctl(id, 0, libc::SETALL, set.values.as_ptr()) }).map(drop)
}

fn make_queue(queue: &MessageQueue) -> io::Result<()> {
    fs::write("/proc/sys/kernel/msg_next_id", queue.id.to_string())?;
    // SAFETY: takes numbers.
    let id = check(unsafe { libc::msgget(queue.key, libc::IPC_CREAT | libc::IPC_EXCL | queue.mode as i32) })?;
    expect(id, queue.id)?;
    for message in &queue.messages {
        let mut buffer = message.kind.to_ne_bytes().to_vec();
        buffer.extend_from_slice(&message.bytes);
        // SAFETY: the buffer is the type and as many bytes as said.
        check(unsafe { libc::msgsnd(id, buffer.as_ptr().cast(), message.bytes.len(), libc::IPC_NOWAIT) })?;
    }
    Ok(())
}

fn expect(id: i32, wanted: i32) -> io::Result<()> {
    if id == wanted { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EEXIST)) }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_tell_what_is_ours_and_new() {
        let own = nix::unistd::geteuid();
        let sem = format!(
            "key semid perms nsems uid gid cuid cgid otime ctime\n 5 32769 600 3 1 1 {own} 1 0 900\n -7 2 666 1 1 1 {own} 1 0 800\n 0 3 600 1 1 1 4000000 1 0 950\n"
        );
        let first = Line { key: 5, id: 32769, mode: 0o600, size: 3 };
        assert_eq!(parse(&sem, SEMAPHORE_FIELDS, Some(900)), [first]);
        assert_eq!(parse(&sem, SEMAPHORE_FIELDS, None).len(), 2);
        let msg = format!(
            "key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime rtime ctime\n 0 1 600 8 1 2 3 1 1 {own} 1 0 0 900\n"
        );
        assert_eq!(parse(&msg, QUEUE_FIELDS, Some(900)), [Line { key: 0, id: 1, mode: 0o600, size: 8 }]);
        assert_eq!(parse(&msg, QUEUE_FIELDS, Some(901)), []);
    }

    #[test]
    fn messages_are_copied_and_stay() {
        // SAFETY: takes numbers.
        let id = check(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) }).expect("a queue");
        let send = |kind: i64, bytes: &[u8]| {
            let buffer = [&kind.to_ne_bytes(), bytes].concat();
            // SAFETY: the buffer is the type and as many bytes as said.
            check(unsafe { libc::msgsnd(id, buffer.as_ptr().cast(), bytes.len(), 0) }).expect("there is room");
        };
        send(7, b"one");
        send(3, b"");
        let line = Line { key: 0, id, mode: 0o600, size: 3 };
        let wanted = [Message { kind: 7, bytes: b"one".to_vec() }, Message { kind: 3, bytes: Vec::new() }];
        assert_eq!(read_queue(&line).expect("it can be read"), wanted);
        assert_eq!(read_queue(&line).expect("again"), wanted);
        // SAFETY: IPC_RMID takes no pointer.
        check(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).expect("it goes");
        assert!(gone_is_none(read_queue(&line)).expect("no error").is_none());
    }
}
