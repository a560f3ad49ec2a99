//! An agent's end: one session, and the search for somebody to have it with.

mod connect;
mod life;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{SendError, TransportError};
use crate::events::{Receiver, channel};
use crate::frame::Item;
use crate::keys::JoinFile;
use crate::limits::{ADDRESSES_MAX, IDLE, KEEP_ALIVE, TIMEOUT};
use crate::runtime::Runtime;
use crate::session::Session;
use crate::tls;

/// What has happened at the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// There is a session.
    Welcomed {
        /// What the coordinator had to say.
        welcome: Vec<u8>,
        /// True: it is a new one, and what was sent in an older one and not received is dropped. False: after
        /// [`ClientEvent::Broken`], it goes on and nothing was lost.
        fresh: bool,
    },
    /// The coordinator does not want us. The last event.
    TurnedAway {
        #[allow(missing_docs)]
        reason: String,
    },
    #[allow(missing_docs)]
    Message { bytes: Vec<u8> },
    /// The connection is gone; another one is being made and messages wait.
    #[allow(missing_docs)]
    Broken { reason: String },
    /// There was no connection for the time-out, so the session is over. The search for the coordinator goes on; when
    /// it is found, there will be a fresh session.
    #[allow(missing_docs)]
    Lost { reason: String },
    /// The coordinator has ended the session, after everything that it had to say. The last event.
    Ended,
}

/// What may be set. The defaults are in [`crate::limits`], with their reasons.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// A session without a connection for this long is lost.
    pub timeout: Duration,
    /// A connection on which nothing was heard for this long is broken.
    pub idle: Duration,
    /// Something is said at least this often.
    pub keep_alive: Duration,
}

/// An agent's end. When it is dropped, its connection is closed as if the process had ended; [`Client::finish`] ends the
/// session in order.
pub struct Client {
    shared: Arc<Shared>,
    _runtime: Runtime,
}

/// What the caller's threads and the network's thread share.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The session is over, in order.
    over: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    /// The one that we were let into.
    pub session: Option<Arc<Session>>,
    /// The caller has heard of it. What it sent before that was meant for an older one.
    pub known: bool,
    /// No other session follows.
    pub over: bool,
    /// The caller has ended it.
    pub finishing: bool,
}

impl Client {
    /// Looks for the coordinator, in a thread of its own, until it is found or the client is dropped. `hello` is asked
    /// there for each new session, and must not wait.
    ///
    /// # Errors
    /// [`TransportError`]: the keys are damaged, there is no address, or the machine has no thread or event queue left.
    pub fn start(
        join: &JoinFile,
        hello: impl Fn() -> Vec<u8> + Send + 'static,
        options: ClientOptions,
    ) -> Result<(Self, Receiver<ClientEvent>), TransportError> {
        if !(1..=ADDRESSES_MAX).contains(&join.addresses.len()) {
            return Err(TransportError::Addresses(join.addresses.len()));
        }
        if options.keep_alive.is_zero() || options.keep_alive >= options.idle {
            return Err(TransportError::Time("keep_alive"));
        }
        let config = tls::client_config(join, options.idle, options.keep_alive)?;
        let addresses = join.addresses.clone();
        let (events, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let (runtime, ()) = Runtime::start("ckpt-network", move |stop| {
            let search = connect::Search::new(config, addresses);
            Ok(((), life::run(life::Life { search, shared: own, events, hello, timeout: options.timeout }, stop)))
        })?;
        Ok((Self { shared, _runtime: runtime }, receiver))
    }

    /// A message for the coordinator. It is delivered once and in order, as long as the session lives.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::NoSession`] until the fresh [`ClientEvent::Welcomed`] was taken from the receiver.
    pub fn send(&self, bytes: &[u8]) -> Result<(), SendError> {
        let state = self.shared.state();
        match &state.session {
            _ if state.over || state.finishing => Err(SendError::Over),
            Some(session) if state.known => session.push(Item::Message, bytes),
            _ => Err(SendError::NoSession),
        }
    }

    /// Ends the session after everything that was sent, and waits at most so long until the coordinator has it. False:
    /// it may not have it.
    #[must_use]
    pub fn finish(self, wait: Duration) -> bool {
        let mut state = self.shared.state();
        state.finishing = true;
        match &state.session {
            // An end always fits. Over already: nothing is to be done.
            Some(session) => drop(session.push(Item::End, &[])),
            None => return state.over,
        }
        let until = Instant::now() + wait;
        while !state.over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller is about to hear of a session.
    pub(crate) fn know(&self, session: &Arc<Session>) {
        let mut state = self.state();
        state.known |= state.session.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, session));
    }

    /// There is another session now, or none.
    pub(crate) fn replace(&self, session: Option<Arc<Session>>) {
        let mut state = self.state();
        (state.session, state.known) = (session, false);
    }

    /// No other session follows.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        (state.over, state.session) = (true, None);
        self.over.notify_all();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { timeout: TIMEOUT, idle: IDLE, keep_alive: KEEP_ALIVE }
    }
}
