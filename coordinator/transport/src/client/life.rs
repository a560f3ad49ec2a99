//! The client's life: connect, open the session, carry it, and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, RecvStream, SendStream};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{timeout, timeout_at};

use super::connect::Search;
use super::{ClientEvent, Shared};
use crate::error::hello_too_long;
use crate::events::{Held, Outlet};
use crate::frame::{Frame, FrameError, Item, OPEN_BYTES_MAX, Open, SessionId, receive};
use crate::limits::{ATTEMPT_TIMEOUT, HELLO_BYTES_MAX, REASON_BYTES_MAX};
use crate::session::{End, Session, closed};

/// What it needs.
pub(super) struct Life<H> {
    pub search: Search,
    pub shared: Arc<Shared>,
    pub events: Outlet<ClientEvent>,
    pub hello: H,
    pub timeout: Duration,
}

/// A session as the client sees it.
struct Own {
    id: SessionId,
    session: Arc<Session>,
    /// The server has opened it, so it must not open another one of that name.
    begun: bool,
    /// What the server said when it let us in; none before.
    welcome: Option<Vec<u8>>,
    /// It was ended by one of us.
    over: bool,
}

/// Until it is told to stop, or the session is over for good.
pub(super) async fn run<H: Fn() -> Vec<u8>>(mut life: Life<H>, mut stop: oneshot::Receiver<()>) {
    tokio::select! {
        () = life.live() => {}
        _ = &mut stop => {}
    }
    life.shared.end();
    life.search.close().await;
}

impl<H: Fn() -> Vec<u8>> Life<H> {
    async fn live(&mut self) {
        let mut own = Own::new();
        loop {
            let Some((connection, streams)) = self.find(&mut own).await else { return };
            self.search.found();
            if let (Some(welcome), false) = (&own.welcome, own.over) {
                self.events.put(ClientEvent::Welcomed { welcome: welcome.clone(), fresh: false });
            }
            let session = Arc::clone(&own.session);
            let (shared, events) = (&self.shared, &self.events);
            let end = session
                .carry(&connection, streams, |item, bytes, room| own.deliver(shared, events, item, bytes, room))
                .await;
            let reason = match end {
                End::Done => return,
                _ if own.over => return,
                End::Broken(reason) => reason,
                End::Violated(cause) => cause.to_string(),
            };
            if own.welcome.is_some() {
                self.events.put(ClientEvent::Broken { reason });
            }
        }
    }

    /// A connection with the session open on it. None: the session was to be ended, and is unknown or lost.
    async fn find(&mut self, own: &mut Own) -> Option<(Connection, (SendStream, RecvStream))> {
        let until = Instant::now() + self.timeout;
        let mut reason = String::new();
        if let Ok(found) = timeout_at(until.into(), self.search_for(own, &mut reason)).await {
            return found;
        }
        *own = self.begin_anew();
        if self.shared.state().finishing {
            return None;
        }
        self.events.put(ClientEvent::Lost { reason: reason.clone() });
        self.search_for(own, &mut reason).await
    }

    async fn search_for(
        &mut self,
        own: &mut Own,
        reason: &mut String,
    ) -> Option<(Connection, (SendStream, RecvStream))> {
        loop {
            match self.search.connect().await {
                Err(cause) => *reason = cause,
                Ok(connection) => match timeout(ATTEMPT_TIMEOUT, self.open(own, &connection)).await {
                    Ok(Ok(Some(streams))) => return Some((connection, streams)),
                    Ok(Ok(None)) => return None,
                    Ok(Err(cause)) => *reason = format!("{}: {cause}", connection.remote_address()),
                    Err(_) => *reason = format!("{}: it opens no session", connection.remote_address()),
                },
            }
            self.search.back_off().await;
        }
    }

    /// Opens the session, or a new one if the server does not know it.
    async fn open(
        &mut self,
        own: &mut Own,
        connection: &Connection,
    ) -> Result<Option<(SendStream, RecvStream)>, String> {
        let (mut to, mut from) = connection.open_bi().await.map_err(|cause| closed(&cause))?;
        loop {
            let hello = if own.begun { Vec::new() } else { (self.hello)() };
            if hello.len() > HELLO_BYTES_MAX {
                return Err(hello_too_long(hello.len()));
            }
            let received = own.session.link().received();
            let open = Frame::Open(Open { session: own.id, begun: own.begun, received, hello });
            to.write_all(&open.encode()).await.map_err(|cause| cause.to_string())?;
            match receive(&mut from, OPEN_BYTES_MAX).await {
                Ok(Frame::Opened { received }) => {
                    own.session.link().rewind(received).map_err(|cause| cause.to_string())?;
                    own.begun = true;
                    return Ok(Some((to, from)));
                }
                Ok(Frame::Unknown) if own.begun => {
                    *own = self.begin_anew();
                    if self.shared.state().finishing {
                        return Ok(None);
                    }
                }
                Ok(_) => return Err(FrameError::Unexpected.to_string()),
                Err(cause) => return Err(connection.close_reason().map_or(cause.to_string(), |cause| closed(&cause))),
            }
        }
    }

    /// The old session is no more: what is sent from now on is refused until there is another.
    fn begin_anew(&self) -> Own {
        self.shared.replace(None);
        Own::new()
    }
}

impl Own {
    fn new() -> Self {
        let mut id = SessionId::default();
        // ring asks the kernel, which has no reason to refuse once it has booted.
        let filled = SystemRandom::new().fill(&mut id);
        assert!(filled.is_ok(), "the kernel has no random bytes");
        Self { id, session: Arc::new(Session::new()), begun: false, welcome: None, over: false }
    }

    fn deliver(
        &mut self,
        shared: &Arc<Shared>,
        events: &Outlet<ClientEvent>,
        item: Item,
        bytes: Vec<u8>,
        room: OwnedSemaphorePermit,
    ) -> Result<(), FrameError> {
        match item {
            Item::Welcome if self.welcome.is_none() => {
                self.welcome = Some(bytes.clone());
                shared.replace(Some(Arc::clone(&self.session)));
                let (shared, session) = (Arc::clone(shared), Arc::clone(&self.session));
                let call = Held::Call(Box::new(move || shared.know(&session)));
                events.put_holding(ClientEvent::Welcomed { welcome: bytes, fresh: true }, call);
            }
            Item::Message if self.welcome.is_some() => {
                events.put_holding(ClientEvent::Message { bytes }, Held::Room(room))
            }
            Item::TurnedAway if self.welcome.is_none() => {
                self.over = true;
                let reason = &bytes[..bytes.len().min(REASON_BYTES_MAX)];
                events.put(ClientEvent::TurnedAway { reason: String::from_utf8_lossy(reason).into_owned() });
            }
            Item::End => {
                self.over = true;
                events.put(ClientEvent::Ended);
            }
            Item::Welcome | Item::Message | Item::TurnedAway => return Err(FrameError::Unexpected),
        }
        Ok(())
    }
}
