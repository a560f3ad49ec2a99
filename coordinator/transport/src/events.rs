//! Events on their way from the network's thread to the caller's.

use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

/// The caller's end, like the one of [`std::sync::mpsc`]: what a peer has sent counts against its
/// [limit](crate::limits::INBOX_BYTES_MAX) until it is taken from here.
#[derive(Debug)]
pub struct Receiver<E>(mpsc::Receiver<Waiting<E>>);

/// The network's end.
#[derive(Debug)]
pub(crate) struct Outlet<E>(mpsc::Sender<Waiting<E>>);

/// An event, and what is dropped when the caller takes it.
type Waiting<E> = (E, Held);

/// What an event holds until it is taken.
pub(crate) enum Held {
    Nothing,
    /// Room in its peer's inbox.
    Room(#[allow(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit),
    /// Something to do first.
    Call(Box<dyn FnOnce() + Send>),
}

impl<E> Receiver<E> {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`RecvError`]: the other end is gone and no event is left.
    pub fn recv(&self) -> Result<E, RecvError> {
        self.0.recv().map(taken)
    }

    /// Waits for the next event, at most so long.
    ///
    /// # Errors
    /// [`RecvTimeoutError`]: none came, or the other end is gone.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<E, RecvTimeoutError> {
        self.0.recv_timeout(timeout).map(taken)
    }

    /// An event that is there already.
    ///
    /// # Errors
    /// [`TryRecvError`]: there is none, or the other end is gone.
    pub fn try_recv(&self) -> Result<E, TryRecvError> {
        self.0.try_recv().map(taken)
    }

    /// All events until the other end is gone.
    pub fn iter(&self) -> impl Iterator<Item = E> + '_ {
        self.0.iter().map(taken)
    }
}

impl<E> Outlet<E> {
    /// An event. That the caller has dropped its end is no error: it does not want to know.
    pub(crate) fn put(&self, event: E) {
        self.put_holding(event, Held::Nothing);
    }

    /// An event that holds something until it is taken.
    pub(crate) fn put_holding(&self, event: E, held: Held) {
        let _ = self.0.send((event, held));
    }
}

impl<E> Clone for Outlet<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn taken<E>((event, held): Waiting<E>) -> E {
    if let Held::Call(call) = held {
        call();
    }
    event
}

/// Both ends.
pub(crate) fn channel<E>() -> (Outlet<E>, Receiver<E>) {
    let (sender, receiver) = mpsc::channel();
    (Outlet(sender), Receiver(receiver))
}
