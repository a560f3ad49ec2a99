//! The job: on every node a process that sends bytes to others and knows what it must receive.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use coordinator_protocol::node::{Edge, EdgeState, Flow, NodeId};

/// One direction between two nodes.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) flow: Flow,
    /// Bytes that the sender has ever sent; the next is [`byte`] of this number.
    pub(super) sent: u64,
    /// Bytes that the receiver has ever received.
    pub(super) received: u64,
    /// In the sender's kernel.
    pub(super) queue: VecDeque<u8>,
    /// In the receiver's kernel.
    pub(super) buffer: VecDeque<u8>,
    pub(super) queue_max: usize,
    pub(super) buffer_max: usize,
    /// Bytes that have ever left the queue: a stream that gets on changes it.
    pub(super) moved: u64,
}

/// What a node's part of a generation says of one of its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// By the stream's number: what its sender had sent.
    pub(super) sent: BTreeMap<usize, u64>,
    /// What its receiver had received, and what was on the way to it.
    pub(super) received: BTreeMap<usize, (u64, Vec<u8>)>,
}

/// The byte of a stream with this number. 251 is prime: a block that is lost or doubled shifts all that follows.
pub(super) const fn byte(number: u64) -> u8 {
    (number % 251) as u8
}

impl Stream {
    pub(super) fn new(number: usize, from: NodeId, to: NodeId, queue_max: usize, buffer_max: usize) -> Self {
        let (queue, buffer) = (VecDeque::new(), VecDeque::new());
        let flow = Flow { from: address(from, number), to: address(to, number) };
        Self { from, to, flow, sent: 0, received: 0, queue, buffer, queue_max, buffer_max, moved: 0 }
    }

    /// The sender's process sends as much as it wants and as fits.
    pub(super) fn send(&mut self, bytes: usize) {
        for _ in 0..bytes.min(self.queue_max.saturating_sub(self.queue.len())) {
            self.queue.push_back(byte(self.sent));
            self.sent += 1;
        }
    }

    /// The kernels move so many bytes at most.
    pub(super) fn transmit(&mut self, bytes: usize) {
        let room = self.buffer_max.saturating_sub(self.buffer.len());
        let bytes = bytes.min(room).min(self.queue.len());
        self.moved += bytes as u64;
        self.buffer.extend(self.queue.drain(..bytes));
    }

    /// The receiver's process takes so many bytes at most, and looks at each.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), String> {
        for got in self.buffer.drain(..bytes.min(self.buffer.len())) {
            if got != byte(self.received) {
                let (number, want) = (self.received, byte(self.received));
                return Err(format!("{} → {}: byte {number} is {got}, not {want}", self.from, self.to));
            }
            self.received += 1;
        }
        Ok(())
    }

    /// What the sender's (`true`) or the receiver's node reports of it.
    pub(super) const fn edge(&self, senders: bool) -> Edge {
        let (local, remote) = if senders { (self.flow.from, self.flow.to) } else { (self.flow.to, self.flow.from) };
        Edge { local, remote, state: EdgeState::Open, pid: 1 }
    }
}

fn address(node: NodeId, number: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 0, (node.0 >> 8) as u8, node.0 as u8), 1000 + number as u16).into()
}
