//! What concerns all nodes is the coordinator's: the agent of the first node hands such requests on.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use coordinator_protocol::{Answer, Request, encode};

use super::Agent;
use super::serve::{answer, lock};
use crate::guardian::Life;
use crate::job::COORDINATOR_SOCKET;

/// How long a coordinator may take to come up, or to be replaced.
const COMES_UP: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Agent<'_> {
    /// Other nodes are wanted: there has to be a coordinator, and a link to it.
    pub(super) fn want_coordinator(&self) {
        self.life.board.want_coordinator();
        let _ = self.life.to_guardian.write(1);
        *lock(&self.wanted.0) = true;
        self.wanted.1.notify_all();
    }

    /// Hands a request to the coordinator, which is started where there is none, and its answers back.
    pub(super) fn relay(&self, stream: &UnixStream, request: &Request) -> io::Result<()> {
        self.relays.fetch_add(1, Ordering::AcqRel);
        let relayed = relay(self.life, stream, request);
        self.relays.fetch_sub(1, Ordering::AcqRel);
        relayed
    }
}

fn relay(life: &Life, stream: &UnixStream, request: &Request) -> io::Result<()> {
    if life.record.node != 0 {
        let reason = "this is not the node where the job was started: ask there".to_owned();
        return answer(stream, &Answer::Failed { reason });
    }
    let mut coordinator = match reach(life) {
        Ok(coordinator) => coordinator,
        Err(error) => {
            let reason = format!("the coordinator does not come up: {error}");
            return answer(stream, &Answer::Failed { reason });
        }
    };
    coordinator.write_all(&encode(request).map_err(io::Error::other)?)?;
    let mut to = stream;
    io::copy(&mut coordinator, &mut to)?;
    // Whoever asked sees at once that nothing more will come.
    stream.shutdown(Shutdown::Both)
}

fn reach(life: &Life) -> io::Result<UnixStream> {
    let (path, until) = (life.folder.path().join(COORDINATOR_SOCKET), Instant::now() + COMES_UP);
    loop {
        match UnixStream::connect(&path) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => thread::sleep(LOOK_AGAIN),
            connected => return connected,
        }
    }
}
