//! A connection that has shown its key: it opens a session, carries it, and leaves it.

use std::sync::Arc;
use std::time::Instant;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep_until, timeout};

use super::ServerEvent;
use super::refusals::canonical;
use super::registry::{Found, Hub, Member, Stage};
use crate::events::Held;
use crate::frame::{Frame, FrameError, Item, OPEN_BYTES_MAX, Open, ReceiveError, receive};
use crate::session::{Code, End, closed};

/// Frames that open a session, at most: one that is unknown here, one that is new.
const OPENS_MAX: usize = 2;

/// From the first frame to the end of the connection.
pub(super) async fn serve(hub: Arc<Hub>, connection: Connection) {
    let from = connection.remote_address();
    let opened = timeout(hub.options.handshake_timeout, open(&hub, &connection)).await;
    let (member, visit, open, streams) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err((code, reason))) => {
            connection.close(code.into(), reason.as_bytes());
            // Who has gone was not refused: a client that tried two of our addresses needs one of them.
            if code != Code::Gone {
                hub.refusals.note(&reason, from);
            }
            return;
        }
        Err(_) => {
            connection.close(Code::Late.into(), b"no session was opened");
            return hub.refusals.note("it opened no session", from);
        }
    };
    // Whoever carried the session before has to let go first; its connection was closed.
    let turn = member.turn.lock().await;
    let end = match hub.has(&member) {
        true => carry(&hub, &member, &connection, open, streams).await,
        false => return connection.close(Code::Gone.into(), b""),
    };
    if let End::Violated(cause) = &end {
        hub.refusals.note(&cause.to_string(), from);
    }
    leave(&hub, &member, visit, end);
    drop(turn);
}

/// The session that the client asks for.
async fn open(
    hub: &Hub,
    connection: &Connection,
) -> Result<(Arc<Member>, u64, Open, (SendStream, RecvStream)), (Code, String)> {
    let gone = |cause: String| (Code::Gone, cause);
    let (mut to, mut from) = connection.accept_bi().await.map_err(|cause| gone(closed(&cause)))?;
    for _ in 0..OPENS_MAX {
        let open = match receive(&mut from, OPEN_BYTES_MAX).await {
            Ok(Frame::Open(open)) => open,
            Ok(_) => return Err((Code::Violated, FrameError::Unexpected.to_string())),
            Err(ReceiveError::Frame(cause)) => return Err((Code::Violated, cause.to_string())),
            Err(cause) => return Err(gone(cause.to_string())),
        };
        match hub.find(&open, connection) {
            Found::Member(member, visit) => return Ok((member, visit, open, (to, from))),
            Found::Unknown => write(&mut to, &Frame::Unknown).await.map_err(gone)?,
            Found::Full => {
                return Err((Code::Full, format!("there are {} sessions already", hub.options.sessions_max)));
            }
        }
    }
    Err((Code::Violated, FrameError::Unexpected.to_string()))
}

/// Says what we have, tells the caller, and carries.
async fn carry(
    hub: &Hub,
    member: &Member,
    connection: &Connection,
    open: Open,
    (mut to, from): (SendStream, RecvStream),
) -> End {
    let received = {
        let mut link = member.session.link();
        if let Err(cause) = link.rewind(open.received) {
            drop(link);
            connection.close(Code::Violated.into(), cause.to_string().as_bytes());
            return End::Violated(cause);
        }
        link.received()
    };
    if let Err(cause) = write(&mut to, &Frame::Opened { received }).await {
        return End::Broken(cause);
    }
    announce(hub, member, connection, open.hello);
    let deliver = |item, bytes, room| deliver(hub, member, item, bytes, room);
    member.session.carry(connection, (to, from), deliver).await
}

fn announce(hub: &Hub, member: &Member, connection: &Connection, hello: Vec<u8>) {
    let mut state = member.state();
    let peer = member.peer;
    state.connected = true;
    if state.stage == Stage::Closing {
        return;
    }
    hub.events.put(match state.announced {
        true => ServerEvent::Back { peer },
        false => ServerEvent::Joined { peer, hello, from: canonical(connection.remote_address()) },
    });
    state.announced = true;
}

fn deliver(
    hub: &Hub,
    member: &Member,
    item: Item,
    bytes: Vec<u8>,
    room: OwnedSemaphorePermit,
) -> Result<(), FrameError> {
    let mut state = member.state();
    let peer = member.peer;
    match (item, state.stage) {
        (Item::Message, Stage::Welcomed) => {
            hub.events.put_holding(ServerEvent::Message { peer, bytes }, Held::Room(room))
        }
        (Item::Message | Item::End, Stage::Closing) => {}
        (Item::End, _) => {
            state.stage = Stage::Closing;
            hub.events.put(ServerEvent::Left { peer });
        }
        // A client says nothing before it is welcome, and never says that we are.
        (Item::Message | Item::Welcome | Item::TurnedAway, _) => return Err(FrameError::Unexpected),
    }
    Ok(())
}

/// The connection is gone. The session too, if everything was said; else it waits for another one.
fn leave(hub: &Arc<Hub>, member: &Arc<Member>, visit: u64, end: End) {
    let reason = match end {
        End::Done => return hub.remove(member),
        End::Broken(reason) => reason,
        End::Violated(cause) => cause.to_string(),
    };
    let mut state = member.state();
    if state.connected {
        state.connected = false;
        state.broken = Instant::now();
        if state.stage != Stage::Closing {
            hub.events.put(ServerEvent::Broken { peer: member.peer, reason: reason.clone() });
        }
    }
    if state.visits != visit {
        return;
    }
    let until = state.broken + hub.options.timeout;
    let (hub, member) = (Arc::clone(hub), Arc::clone(member));
    tokio::spawn(async move {
        sleep_until(until.into()).await;
        hub.lose(&member, visit, reason);
    });
}

async fn write(to: &mut SendStream, frame: &Frame) -> Result<(), String> {
    to.write_all(&frame.encode()).await.map_err(|cause| cause.to_string())
}
