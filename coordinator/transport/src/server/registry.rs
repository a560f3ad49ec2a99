//! Who is in a session with us.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::Connection;

use super::refusals::Refusals;
use super::{Peer, ServerEvent, ServerOptions};
use crate::error::SendError;
use crate::events::Outlet;
use crate::frame::{Item, Open, SessionId};
use crate::limits::REASON_BYTES_MAX;
use crate::session::{Code, Session};

/// What the caller's threads and the network's thread share.
pub(super) struct Hub {
    pub events: Outlet<ServerEvent>,
    pub refusals: Arc<Refusals>,
    pub options: ServerOptions,
    registry: Mutex<Registry>,
    /// A member has left the registry.
    left: Condvar,
}

#[derive(Default)]
struct Registry {
    members: HashMap<SessionId, Arc<Member>>,
    peers: HashMap<Peer, Arc<Member>>,
    last: u64,
}

/// One session.
pub(super) struct Member {
    pub peer: Peer,
    id: SessionId,
    pub session: Session,
    /// Held by the connection that carries the session: one at a time.
    pub turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What changes about it. Locked after the registry, never before it.
pub(super) struct State {
    pub stage: Stage,
    /// The newest connection.
    pub connection: Connection,
    /// How many there were: who is not the newest has nothing to say any more.
    pub visits: u64,
    /// The caller has heard of it.
    pub announced: bool,
    /// A connection carries it, as far as the caller knows.
    pub connected: bool,
    /// Since when none does.
    pub broken: Instant,
}

/// What the caller has said to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nothing yet.
    Pending,
    /// It is in.
    Welcomed,
    /// It is over; only what waits is still delivered.
    Closing,
}

/// What an opening frame leads to.
pub(super) enum Found {
    /// A session, and which of its connections this is.
    Member(Arc<Member>, u64),
    /// The client knows a session that we do not know.
    Unknown,
    /// One more is too many.
    Full,
}

impl Hub {
    pub(super) fn new(events: Outlet<ServerEvent>, refusals: Arc<Refusals>, options: ServerOptions) -> Self {
        Self { events, refusals, options, registry: Mutex::default(), left: Condvar::new() }
    }

    pub(super) fn answer(&self, peer: Peer, answer: Result<Vec<u8>, String>) -> Result<(), SendError> {
        let member = self.member(peer).ok_or(SendError::Over)?;
        let mut state = member.state();
        if state.stage != Stage::Pending {
            return Err(SendError::Over);
        }
        match answer {
            Ok(welcome) => member.session.push(Item::Welcome, &welcome)?,
            Err(reason) => {
                let reason = &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)];
                member.session.push(Item::TurnedAway, reason)?;
                state.stage = Stage::Closing;
                return Ok(());
            }
        }
        state.stage = Stage::Welcomed;
        Ok(())
    }

    pub(super) fn send(&self, peer: Peer, bytes: &[u8]) -> Result<(), SendError> {
        let member = self.member(peer).ok_or(SendError::Over)?;
        // Held while pushing, so that nothing comes before the welcome or after the end.
        let state = member.state();
        match state.stage {
            Stage::Pending => Err(SendError::NoSession),
            Stage::Welcomed => member.session.push(Item::Message, bytes),
            Stage::Closing => Err(SendError::Over),
        }
    }

    pub(super) fn close(&self, peer: Peer) {
        if let Some(member) = self.member(peer) {
            member.close();
        }
    }

    pub(super) fn finish(&self, wait: Duration) -> usize {
        let mut registry = self.registry();
        registry.members.values().for_each(|member| member.close());
        let until = Instant::now() + wait;
        while !registry.members.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            registry = self.left.wait_timeout(registry, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        registry.members.len()
    }

    /// The session that a client opens, or another one of the same name if it may be new. An older connection of the
    /// session is closed: the client has given it up.
    pub(super) fn find(&self, open: &Open, connection: &Connection) -> Found {
        let mut registry = self.registry();
        if let Some(member) = registry.members.get(&open.session) {
            let mut state = member.state();
            state.visits += 1;
            std::mem::replace(&mut state.connection, connection.clone()).close(Code::Replaced.into(), b"");
            return Found::Member(Arc::clone(member), state.visits);
        }
        if open.begun {
            return Found::Unknown;
        }
        if registry.members.len() >= self.options.sessions_max {
            return Found::Full;
        }
        registry.last += 1;
        let member = Arc::new(Member::new(Peer(registry.last), open.session, connection.clone()));
        registry.members.insert(open.session, Arc::clone(&member));
        registry.peers.insert(member.peer, Arc::clone(&member));
        Found::Member(member, 0)
    }

    /// Whether a member is still what its name stands for.
    pub(super) fn has(&self, member: &Arc<Member>) -> bool {
        self.registry().members.get(&member.id).is_some_and(|found| Arc::ptr_eq(found, member))
    }

    /// The session is over.
    pub(super) fn remove(&self, member: &Member) {
        self.registry().remove(member);
        self.left.notify_all();
    }

    /// Its time is up, unless another connection has come since.
    pub(super) fn lose(&self, member: &Member, visit: u64, reason: String) {
        let mut registry = self.registry();
        let state = member.state();
        if state.visits != visit || state.connected {
            return;
        }
        registry.remove(member);
        if state.announced && state.stage != Stage::Closing {
            self.events.put(ServerEvent::Lost { peer: member.peer, reason });
        }
        self.left.notify_all();
    }

    fn member(&self, peer: Peer) -> Option<Arc<Member>> {
        self.registry().peers.get(&peer).map(Arc::clone)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn remove(&mut self, member: &Member) {
        if self.peers.remove(&member.peer).is_some() {
            self.members.remove(&member.id);
        }
    }
}

impl Member {
    fn new(peer: Peer, id: SessionId, connection: Connection) -> Self {
        let state = State {
            stage: Stage::Pending,
            connection,
            visits: 0,
            announced: false,
            connected: false,
            broken: Instant::now(),
        };
        Self { peer, id, session: Session::new(), turn: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.state();
        if state.stage != Stage::Closing {
            state.stage = Stage::Closing;
            // An end always fits, and there was none before.
            let _ = self.session.push(Item::End, &[]);
        }
    }
}
