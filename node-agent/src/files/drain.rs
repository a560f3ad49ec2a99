//! Makes every TCP connection inside the job empty on the sender's side: what is in flight comes to lie in the receiver's
//! buffer, where it can be peeked; where that is full it is read out into the ledger.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use interconnect_drain::{Direction, Observation, Step};
use node_agent_image::model::FileIndex;
use node_agent_proc::net_tcp::state;
use thiserror::Error;

use super::ledger::{Entry, Ledger};
use super::socket::Sockets;
use super::table::Table;
use super::{FilesError, ProcessRef, sys, sys_socket as raw};

/// Between two looks at streams that move by themselves.
const LOOK_AGAIN: Duration = Duration::from_micros(300);
/// The most that is taken out of a socket at once.
const CHUNK_BYTES: u64 = 4 << 20;

/// Why the job's connections could not be drained. What had been read out is in the ledger still: refill.
#[derive(Debug, Error)]
pub enum DrainError {
    /// A previous drain's bytes were never put back.
    #[error("the ledger still holds bytes of an earlier drain: refill first")]
    NotRefilled,
    /// The job's sockets cannot be listed.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Time is up.
    #[error("{unacknowledged} bytes from {sender} to {receiver} have not arrived after {waited_ms} ms")]
    Deadline {
        #[allow(missing_docs)]
        sender: String,
        #[allow(missing_docs)]
        receiver: String,
        #[allow(missing_docs)]
        unacknowledged: u64,
        #[allow(missing_docs)]
        waited_ms: u128,
    },
    /// A call on one of the sockets fails.
    #[error("cannot drain the connection from {sender} to {receiver}: {source}")]
    Socket {
        #[allow(missing_docs)]
        sender: String,
        #[allow(missing_docs)]
        receiver: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The ledger cannot be read or written.
    #[error("cannot use the ledger of drained bytes: {0}")]
    Ledger(#[source] io::Error),
}

/// One direction that is not drained yet.
struct Flow {
    /// None: closed, nobody has a descriptor.
    sender: Option<(FileIndex, OwnedFd)>,
    receiver: (FileIndex, OwnedFd),
    /// Where the guardian finds both: pid and number of sender and receiver.
    holders: ((u32, RawFd), (u32, RawFd)),
    /// Sender's and receiver's.
    addresses: (SocketAddr, SocketAddr),
    /// Of a closed sender: bytes not acknowledged when it was looked at.
    orphaned: u64,
    direction: Direction,
    entry: Option<Entry>,
}

/// Drains all connections among `processes`, which are parked: nobody sends. Returns how many bytes had to be read out.
/// `guardian` as for `capture`.
///
/// # Errors
/// Names both ends of a connection that does not drain by the deadline. The caller refills in every case, with
/// `refill::from_ledger`, before anybody runs.
pub fn drain(processes: &[ProcessRef], guardian: u32, ledger: &Ledger, deadline: Duration) -> Result<u64, DrainError> {
    if !ledger.is_empty().map_err(DrainError::Ledger)? {
        return Err(DrainError::NotRefilled);
    }
    ledger.clear().map_err(DrainError::Ledger)?;
    let table = Table::list(processes, guardian)?;
    let mut flows = flows(&table)?;
    let started = Instant::now();
    let mut read_out = 0;
    while !flows.is_empty() {
        let before = (flows.len(), read_out);
        let mut undone = Vec::with_capacity(flows.len());
        for mut flow in flows {
            let step = flow.step(started, ledger, &mut read_out);
            if step.map_err(|source| flow.error(&table, source))? != Step::Done {
                undone.push(flow);
            }
        }
        flows = undone;
        if let Some(flow) = flows.first()
            && started.elapsed() > deadline
        {
            return Err(flow.too_late(&table, started.elapsed()));
        }
        if (flows.len(), read_out) == before {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    Ok(read_out)
}

/// Directions in which the kernel holds bytes on the sender's side, both ends in the job or the sender closed. What comes
/// from outside the job is left to `capture`, which refuses it by name.
fn flows(table: &Table) -> Result<Vec<Flow>, DrainError> {
    let sockets = Sockets::list(table)?;
    let mut flows = Vec::new();
    for ((local, remote), receiving) in &sockets.tcp_files {
        let mut flow = Flow {
            sender: None,
            receiver: (*receiving, table.open(*receiving)?),
            holders: ((0, -1), table.descriptions[*receiving].holder),
            addresses: (*remote, *local),
            orphaned: 0,
            direction: Direction::default(),
            entry: None,
        };
        if let Some(sending) = sockets.tcp_files.get(&(*remote, *local)) {
            let sender = table.open(*sending)?;
            let unacknowledged = sys::ioctl_int(sender.as_raw_fd(), libc::TIOCOUTQ);
            if unacknowledged.map_err(table.error("ask the send queue of", *sending))? == 0 {
                continue;
            }
            flow.holders.0 = table.descriptions[*sending].holder;
            flow.sender = Some((*sending, sender));
        } else if let Some(orphan) = sockets.all_tcp()?.get(&(*remote, *local)).filter(|it| it.inode == 0) {
            flow.orphaned = orphan.send_queue;
            if orphan.send_queue == 0 || orphan.state == state::ESTABLISHED {
                continue;
            }
        } else {
            continue;
        }
        flows.push(flow);
    }
    Ok(flows)
}

impl Flow {
    fn step(&mut self, started: Instant, ledger: &Ledger, read_out: &mut u64) -> io::Result<Step> {
        let receiver = self.receiver.1.as_raw_fd();
        // Acknowledgements that the receiver's kernel holds back are sent now.
        raw::set_option_int(receiver, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)?;
        let seen = self.look()?;
        let now_ms = started.elapsed().as_millis() as u64;
        let step = self.direction.handle_observation(now_ms, seen);
        if let Step::ReadOut(bytes) = step {
            *read_out += self.take(ledger, bytes)?;
        }
        Ok(step)
    }

    fn look(&self) -> io::Result<Observation> {
        let unread = sys::ioctl_int(self.receiver.1.as_raw_fd(), libc::FIONREAD)? as u64;
        let Some((_, sender)) = &self.sender else {
            // Closed: the end of the stream arrives after all else.
            let arrived = finished_receiving(raw::tcp_info(self.receiver.1.as_raw_fd())?.state);
            let unacknowledged = if arrived { 0 } else { self.orphaned };
            return Ok(Observation { unacknowledged, unread, refillable: false });
        };
        let sender = sender.as_raw_fd();
        let refillable = matches!(raw::tcp_info(sender)?.state, state::ESTABLISHED | state::CLOSE_WAIT);
        let unacknowledged = sys::ioctl_int(sender, libc::TIOCOUTQ)? as u64;
        Ok(Observation { unacknowledged, unread, refillable })
    }

    fn take(&mut self, ledger: &Ledger, bytes: u64) -> io::Result<u64> {
        let mut entry = match self.entry {
            Some(entry) => entry,
            None => ledger.add(self.new_entry()?)?,
        };
        let taken = take(ledger, &mut entry, self.receiver.1.as_raw_fd(), bytes)?;
        self.entry = Some(entry);
        Ok(taken)
    }

    fn new_entry(&self) -> io::Result<Entry> {
        let (_, sender) = self.sender.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EPIPE))?;
        let inode = |fd: &OwnedFd| Ok::<_, io::Error>(nix::sys::stat::fstat(fd)?.st_ino);
        Ok(Entry {
            sender: self.holders.0,
            receiver: self.holders.1,
            inodes: (inode(sender)?, inode(&self.receiver.1)?),
            written: written(sender.as_raw_fd())?,
            ..Entry::default()
        })
    }

    fn ends(&self, table: &Table) -> (String, String) {
        let end = |at: FileIndex| {
            let it = &table.descriptions[at];
            format!("pid {} descriptor {}", it.pid, it.holder.1)
        };
        let sender = match &self.sender {
            Some((at, _)) => format!("{} ({})", self.addresses.0, end(*at)),
            None => format!("{} (closed)", self.addresses.0),
        };
        (sender, format!("{} ({})", self.addresses.1, end(self.receiver.0)))
    }

    fn error(&self, table: &Table, source: io::Error) -> DrainError {
        let (sender, receiver) = self.ends(table);
        DrainError::Socket { sender, receiver, source }
    }

    fn too_late(&self, table: &Table, waited: Duration) -> DrainError {
        let (sender, receiver) = self.ends(table);
        let unacknowledged = self.look().map_or(0, |it| it.unacknowledged);
        DrainError::Deadline { sender, receiver, unacknowledged, waited_ms: waited.as_millis() }
    }
}

/// Peek, write down, take out, commit.
pub(super) fn take(ledger: &Ledger, entry: &mut Entry, receiver: RawFd, bytes: u64) -> io::Result<u64> {
    let mut chunk = vec![0; bytes.min(CHUNK_BYTES) as usize];
    let length = raw::receive(receiver, &mut chunk, libc::MSG_PEEK | libc::MSG_DONTWAIT)?.length;
    ledger.write(entry.index, entry.committed, &chunk[..length])?;
    entry.pending = length as u64;
    entry.consumed = consumed(receiver)?;
    ledger.put(entry)?;
    let taken = raw::discard(receiver, length)? as u64;
    entry.committed += taken;
    entry.pending = 0;
    ledger.put(entry)?;
    Ok(taken)
}

fn finished_receiving(tcp_state: u8) -> bool {
    !matches!(tcp_state, state::ESTABLISHED | state::FIN_WAIT1 | state::FIN_WAIT2 | state::SYN_RECV)
}

/// What a socket has ever been given to send, in bytes from a fixed start.
pub(super) fn written(sender: RawFd) -> io::Result<u64> {
    stable(sender, libc::TIOCOUTQ, |info| info.bytes_acked, |acked, queued| acked + queued)
}

/// What has ever been read out of a socket, in bytes from a fixed start.
pub(super) fn consumed(receiver: RawFd) -> io::Result<u64> {
    let received = |info: raw::TcpInfo| info.bytes_received - u64::from(finished_receiving(info.state));
    stable(receiver, libc::FIONREAD, received, |received, unread| received - unread)
}

/// Combines a counter with a queue length that belongs to the same moment.
fn stable(
    fd: RawFd,
    queue: libc::c_ulong,
    counter: impl Fn(raw::TcpInfo) -> u64,
    combine: impl Fn(u64, u64) -> u64,
) -> io::Result<u64> {
    let mut before = counter(raw::tcp_info(fd)?);
    loop {
        let queued = sys::ioctl_int(fd, queue)? as u64;
        let after = counter(raw::tcp_info(fd)?);
        if after == before {
            return Ok(combine(after, queued));
        }
        before = after;
    }
}
