//! A session on one connection: items of ours go out, items of theirs come in, until the connection or the session ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use crate::error::SendError;
use crate::frame::{FRAME_BYTES_MAX, Frame, FrameError, Item, ReceiveError, receive};
use crate::limits::{FAREWELL, INBOX_BYTES_MAX, MESSAGE_OVERHEAD_BYTES, REASON_BYTES_MAX};
use crate::link::{Link, Step};
use crate::tls::handshake_failure;

/// What the two of them know together, whether they are connected or not.
#[derive(Debug)]
pub(crate) struct Session {
    link: Mutex<Link>,
    changed: Notify,
    /// Room for items that were received and not yet taken.
    inbox: Arc<Semaphore>,
}

/// How a connection's part in a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The connection is gone, the session may go on.
    Broken(String),
    /// Everything was said.
    Done,
    /// The peer does not keep to the protocol.
    Violated(FrameError),
}

/// Why a connection is closed, for the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    /// Everything was said.
    Done = 1,
    /// The process ends, or its handle was dropped.
    Gone = 2,
    /// A frame that cannot be.
    Violated = 3,
    /// Another connection carries the session now.
    Replaced = 4,
    /// No room for another session.
    Full = 5,
    /// Nothing was said for too long.
    Late = 6,
}

impl Session {
    pub(crate) fn new() -> Self {
        let inbox = Arc::new(Semaphore::new(INBOX_BYTES_MAX));
        Self { link: Mutex::default(), changed: Notify::new(), inbox }
    }

    /// Puts an item into the outbox and wakes who carries it.
    pub(crate) fn push(&self, item: Item, bytes: &[u8]) -> Result<(), SendError> {
        self.link().push(item, bytes)?;
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries the session until something ends. `deliver` gets every item of the peer's once and in order.
    pub(crate) async fn carry(
        &self,
        connection: &Connection,
        (mut to, mut from): (SendStream, RecvStream),
        mut deliver: impl FnMut(Item, Vec<u8>, OwnedSemaphorePermit) -> Result<(), FrameError>,
    ) -> End {
        let end = tokio::select! {
            // The reader first: it knows whether a connection that was closed has served its purpose.
            biased;
            end = self.read(connection, &mut from, &mut deliver) => end,
            end = self.write(&mut to) => end,
            cause = connection.closed() => End::Broken(closed(&cause)),
        };
        match &end {
            End::Done => connection.close(Code::Done.into(), b""),
            End::Violated(cause) => connection.close(Code::Violated.into(), cause.to_string().as_bytes()),
            End::Broken(_) => {}
        }
        end
    }

    async fn read(
        &self,
        connection: &Connection,
        from: &mut RecvStream,
        deliver: &mut impl FnMut(Item, Vec<u8>, OwnedSemaphorePermit) -> Result<(), FrameError>,
    ) -> End {
        loop {
            let (number, item, bytes) = match receive(from, FRAME_BYTES_MAX).await {
                Ok(Frame::Data { number, item, bytes }) => (number, item, bytes),
                Ok(Frame::Ack { received }) => match self.link().acknowledge(received) {
                    Ok(true) => {
                        self.changed.notify_one();
                        continue;
                    }
                    Ok(false) => continue,
                    Err(cause) => return End::Violated(cause),
                },
                Ok(_) => return End::Violated(FrameError::Unexpected),
                Err(cause) => return End::from(cause),
            };
            let cost = u32::try_from(bytes.len() + MESSAGE_OVERHEAD_BYTES).unwrap_or(u32::MAX);
            let Ok(room) = Arc::clone(&self.inbox).acquire_many_owned(cost).await else { return End::Done };
            // Between these two there is no wait: what was counted was delivered.
            match self.link().accept(number, item, bytes.len(), Instant::now()) {
                Ok(true) => self.changed.notify_one(),
                Ok(false) => {}
                Err(cause) => return End::Violated(cause),
            }
            if let Err(cause) = deliver(item, bytes, room) {
                return End::Violated(cause);
            }
            if item.is_last() {
                // The other side hangs up when it has our acknowledgement.
                let _ = timeout(FAREWELL, connection.closed()).await;
                return End::Done;
            }
        }
    }

    async fn write(&self, to: &mut SendStream) -> End {
        loop {
            let step = self.link().step(Instant::now());
            match step {
                Step::Write(mut frames) => match to.write_all_chunks(&mut frames).await {
                    Ok(()) => {}
                    Err(WriteError::ConnectionLost(cause)) => return End::Broken(closed(&cause)),
                    Err(cause) => return End::Broken(cause.to_string()),
                },
                Step::Wait(None) => self.changed.notified().await,
                // Reached or not, there is something to look at.
                Step::Wait(Some(at)) => drop(timeout_at(at.into(), self.changed.notified()).await),
                Step::Done => return End::Done,
            }
        }
    }
}

impl From<ReceiveError> for End {
    fn from(cause: ReceiveError) -> Self {
        match cause {
            ReceiveError::Frame(cause) => Self::Violated(cause),
            ReceiveError::Stream(quinn::ReadError::ConnectionLost(cause)) => Self::Broken(closed(&cause)),
            cause => Self::Broken(cause.to_string()),
        }
    }
}

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Why a connection ended, in words.
pub(crate) fn closed(cause: &ConnectionError) -> String {
    match cause {
        ConnectionError::TimedOut => "nothing was heard of it".to_owned(),
        ConnectionError::Reset => "it knows nothing of the connection (started anew)".to_owned(),
        ConnectionError::ApplicationClosed(close) if close.error_code == Code::Gone.into() => "it went away".to_owned(),
        ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            let reason = &close.reason[..close.reason.len().min(REASON_BYTES_MAX)];
            format!("it closed the connection: {}", String::from_utf8_lossy(reason))
        }
        cause => handshake_failure(cause),
    }
}
