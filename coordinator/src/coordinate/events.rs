//! What the coordinator hears of, and from whom.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::thread;

use coordinator_protocol::coordinator::Wish;
use coordinator_transport::ServerEvent;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use node_agent::guardian::Life;

/// Something that has happened.
pub enum Event {
    #[allow(missing_docs)]
    Network(ServerEvent),
    /// A launcher wants a daemon on another node.
    Launch {
        /// Where the answer goes.
        stream: UnixStream,
        #[allow(missing_docs)]
        host: String,
        /// Of ssh.
        options: Vec<String>,
        /// For the user's shell.
        line: String,
    },
    /// Somebody wants a checkpoint.
    Checkpoint {
        /// Where the answers go.
        stream: UnixStream,
        #[allow(missing_docs)]
        wish: Wish,
    },
    /// An agent was started on another host, or could not be.
    Started {
        #[allow(missing_docs)]
        node: u32,
        /// Why not.
        result: Result<(), String>,
    },
    /// The guardian has said so, or is dead.
    Over,
}

/// Watches for the end: SIGTERM, or the guardian's death.
pub fn watch(life: &Life, to: &Sender<Event>) -> std::io::Result<()> {
    let signals = node_agent::guardian::signals()?;
    let guardian = node_agent::guardian::handle_of(life.record.guardian)?;
    let to = to.clone();
    thread::spawn(move || {
        loop {
            let mut fds = [signals.as_fd(), guardian.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let ready = poll(&mut fds, PollTimeout::NONE).is_ok();
            let [signalled, orphaned] = fds.map(|fd| fd.any() == Some(true));
            let told = signalled && node_agent::guardian::next_signal(signals.as_fd()) == Some(libc::SIGTERM);
            if !ready || orphaned || told {
                let _ = to.send(Event::Over);
                return;
            }
        }
    });
    Ok(())
}

/// The coordinator holds no stream of its caller but standard error: a reader of the job's output must see it end.
pub fn leave_streams() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
    }
}
