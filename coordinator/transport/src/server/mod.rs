//! The coordinator's end: any number of sessions behind one socket.

mod attach;
mod listen;
mod refusals;
mod registry;
mod watch;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::Runtime as _;
use quinn::{Endpoint, TokioRuntime};
use socket2::{Domain, SockRef, Socket, Type};

use self::refusals::Refusals;
use self::registry::Hub;
use self::watch::Watch;
use crate::error::{SendError, TransportError};
use crate::events::{Receiver, channel};
use crate::keys::Keys;
use crate::limits::{
    HANDSHAKE_TIMEOUT, HANDSHAKES_AT_ONCE_MAX, HANDSHAKES_PER_SECOND_MAX, IDLE, RECEIVE_BUFFER_BYTES, SESSIONS_MAX,
    TIMEOUT,
};
use crate::runtime::Runtime;
use crate::tls;

/// A session with an agent, as the server counts them; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer(u64);

/// What has happened at the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// Somebody with the job's key wants in. [`Server::answer`] is expected; no message comes from it before.
    Joined {
        #[allow(missing_docs)]
        peer: Peer,
        /// What it says of itself.
        hello: Vec<u8>,
        #[allow(missing_docs)]
        from: SocketAddr,
    },
    #[allow(missing_docs)]
    Message { peer: Peer, bytes: Vec<u8> },
    /// Its connection is gone; messages to it wait.
    #[allow(missing_docs)]
    Broken { peer: Peer, reason: String },
    /// It is connected again, and nothing was lost.
    #[allow(missing_docs)]
    Back { peer: Peer },
    /// It has ended the session itself, after everything that it had to say.
    #[allow(missing_docs)]
    Left { peer: Peer },
    /// It was not back in time. What waited for it is dropped.
    #[allow(missing_docs)]
    Lost { peer: Peer, reason: String },
    /// Somebody was not let in. Told once a minute for each reason, with how many there were since.
    Refused {
        /// The last of them.
        from: SocketAddr,
        #[allow(missing_docs)]
        reason: String,
        #[allow(missing_docs)]
        count: u64,
    },
}

/// What may be set. The defaults are in [`crate::limits`], with their reasons.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// A session without a connection for this long is lost.
    pub timeout: Duration,
    /// A connection on which nothing was heard for this long is broken.
    pub idle: Duration,
    /// From a connection's first datagram to its session.
    pub handshake_timeout: Duration,
    /// Connections that have not shown a key yet.
    pub handshakes_at_once_max: usize,
    #[allow(missing_docs)]
    pub handshakes_per_second_max: u32,
    #[allow(missing_docs)]
    pub sessions_max: usize,
}

/// The coordinator's end. When it is dropped, connections are closed and sessions forgotten, as if the process had ended;
/// [`Server::finish`] ends them in order.
pub struct Server {
    hub: Arc<Hub>,
    address: SocketAddr,
    _runtime: Runtime,
}

/// A UDP socket for [`Server::start`] on all addresses of this host, IPv6 and IPv4 (only that, where there is no other).
/// Port 0: any.
///
/// # Errors
/// [`TransportError::Bind`]: usually because the port is another's.
pub fn bind(port: u16) -> Result<UdpSocket, TransportError> {
    let both = || {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        socket.set_only_v6(false)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        Ok(UdpSocket::from(socket))
    };
    both()
        .or_else(|_: std::io::Error| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
        .map_err(|source| TransportError::Bind { port, source })
}

impl Server {
    /// Listens on a socket, in a thread of its own.
    ///
    /// # Errors
    /// [`TransportError`]: the keys are damaged, or the machine has no thread or event queue left.
    pub fn start(
        socket: UdpSocket,
        keys: &Keys,
        options: ServerOptions,
    ) -> Result<(Self, Receiver<ServerEvent>), TransportError> {
        let config = tls::server_config(keys, options.idle)?;
        let (endpoint_config, identifiers_key) = tls::server_endpoint(keys)?;
        let address = socket.local_addr().map_err(TransportError::Socket)?;
        // What the machine does not allow costs a retransmission now and then.
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        let (events, receiver) = channel();
        let refusals = Arc::new(Refusals::new(events.clone()));
        let hub = Arc::new(Hub::new(events, Arc::clone(&refusals), options));
        let shared = Arc::clone(&hub);
        let (runtime, ()) = Runtime::start("ckpt-network", move |stop| {
            let socket = TokioRuntime.wrap_udp_socket(socket).map_err(TransportError::Socket)?;
            let watch = Arc::new(Watch::new(socket, identifiers_key, refusals));
            let endpoint =
                Endpoint::new_with_abstract_socket(endpoint_config, Some(config), watch, Arc::new(TokioRuntime));
            Ok(((), listen::run(shared, endpoint.map_err(TransportError::Socket)?, stop)))
        })?;
        Ok((Self { hub, address, _runtime: runtime }, receiver))
    }

    /// Lets a peer in, with what it should know first, or turns it away, with the reason that its user will read.
    ///
    /// # Errors
    /// [`SendError`]: it was answered already, or is gone.
    pub fn answer(&self, peer: Peer, answer: Result<Vec<u8>, String>) -> Result<(), SendError> {
        self.hub.answer(peer, answer)
    }

    /// A message for a peer. It is delivered once and in order, as long as the session lives.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&self, peer: Peer, bytes: &[u8]) -> Result<(), SendError> {
        self.hub.send(peer, bytes)
    }

    /// Ends a session after everything that waits for it. No event comes of it any more.
    pub fn close(&self, peer: Peer) {
        self.hub.close(peer);
    }

    /// Ends all sessions, and waits at most so long until the peers know. Says how many do not.
    #[must_use]
    pub fn finish(self, wait: Duration) -> usize {
        self.hub.finish(wait)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "peer {}", self.0)
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            timeout: TIMEOUT,
            idle: IDLE,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshakes_at_once_max: HANDSHAKES_AT_ONCE_MAX,
            handshakes_per_second_max: HANDSHAKES_PER_SECOND_MAX,
            sessions_max: SESSIONS_MAX,
        }
    }
}
