//! The one thread in which the network lives. tokio is not seen outside of it.

use std::future::Future;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::error::TransportError;

/// The thread; dropping it ends and awaits it.
#[derive(Debug)]
pub(crate) struct Runtime {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Runs `setup` in a new thread and gives back what it says; then runs what it made until the handle is dropped
    /// (the receiver it was given resolves) or it ends by itself.
    pub(crate) fn start<F, T>(
        name: &str,
        setup: impl FnOnce(oneshot::Receiver<()>) -> Result<(T, F), TransportError> + Send + 'static,
    ) -> Result<(Self, T), TransportError>
    where
        F: Future<Output = ()>,
        T: Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(cause) => return drop(tell.send(Err(TransportError::Thread(cause)))),
            };
            let context = runtime.enter();
            match setup(stopped) {
                Ok((value, main)) => {
                    drop(tell.send(Ok(value)));
                    drop(context);
                    runtime.block_on(main);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run).map_err(TransportError::Thread)?;
        let runtime = Self { stop: Some(stop), thread: Some(thread) };
        let gone = || Err(TransportError::Thread(std::io::Error::other("it ended at once")));
        let value = told.recv().unwrap_or_else(|_| gone())?;
        Ok((runtime, value))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A hello that drops its own client would wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
