//! Between the socket and QUIC: datagrams that cannot be meant for us are counted and go no further.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, UdpPoller};
use quinn_proto::HashedConnectionIdGenerator;

use super::refusals::Refusals;

/// Bytes of a connection identifier of ours.
const CID_BYTES: usize = 8;
/// Bytes of the shortest packet on an established connection: flags, identifier, and what header protection samples.
const SHORT_PACKET_BYTES_MIN: usize = 1 + CID_BYTES + 20;
/// Bytes of a long header up to its version.
const LONG_HEAD_BYTES: usize = 5;
/// The version of QUIC that both ends speak.
const QUIC_VERSION: [u8; 4] = [0, 0, 0, 1];
/// Flags of no QUIC packet; quinn drops it without a thought.
const NO_PACKET: u8 = 0;

/// A socket that counts garbage.
pub(crate) struct Watch {
    socket: Arc<dyn AsyncUdpSocket>,
    identifiers: HashedConnectionIdGenerator,
    refusals: Arc<Refusals>,
}

impl Watch {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>, identifiers_key: u64, refusals: Arc<Refusals>) -> Self {
        Self { socket, identifiers: HashedConnectionIdGenerator::from_key(identifiers_key), refusals }
    }

    /// Whether a datagram can be meant for us: QUIC, and about a new connection or about one that we have named.
    fn is_plausible(&self, datagram: &[u8]) -> bool {
        match datagram.first() {
            Some(flags) if flags & 0x40 == 0 => false,
            Some(flags) if flags & 0x80 != 0 => datagram.get(1..LONG_HEAD_BYTES) == Some(&QUIC_VERSION[..]),
            Some(_) if datagram.len() < SHORT_PACKET_BYTES_MIN => false,
            Some(_) => self.identifiers.validate(&ConnectionId::new(&datagram[1..=CID_BYTES])).is_ok(),
            None => true,
        }
    }

    /// One buffer may hold several datagrams of one sender.
    fn look(&self, buffer: &mut [u8], stride: usize, from: SocketAddr) {
        for datagram in buffer.chunks_mut(stride.max(1)) {
            if !self.is_plausible(datagram) {
                datagram[0] = NO_PACKET;
                self.refusals.note("it sends what is not QUIC for this coordinator", from);
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Watch").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Watch {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(context, buffers, meta))?;
        for (buffer, about) in buffers.iter_mut().zip(meta.iter()).take(count) {
            self.look(&mut buffer[..about.len], about.stride, about.addr);
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
