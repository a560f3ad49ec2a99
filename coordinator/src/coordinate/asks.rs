//! The coordinator's socket in the job's folder, where the agent of the first node hands requests on.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use coordinator_protocol::{Answer, Request, decode, encode, read_limit};
use node_agent::guardian::Life;
use node_agent::job::COORDINATOR_SOCKET;

use super::events::Event;

/// How long somebody may take to say what he wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens, in a thread of its own.
pub fn listen(life: &Life, to: &Sender<Event>) -> io::Result<()> {
    let path = life.folder.path().join(COORDINATOR_SOCKET);
    let fresh = life.folder.path().join(format!(".{COORDINATOR_SOCKET}"));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    // A name that is there is one that answers.
    fs::rename(&fresh, &path)?;
    let to = to.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let to = to.clone();
            thread::spawn(move || hear(stream, &to));
        }
    });
    Ok(())
}

fn hear(stream: UnixStream, to: &Sender<Event>) {
    let event = match ask(&stream) {
        Ok(Request::Launch { host, options, line }) => Event::Launch { stream, host, options, line },
        Ok(Request::Checkpoint { .. }) => Event::Checkpoint { stream },
        Ok(Request::Status) => return refuse(&stream, "agents know how they are"),
        Err(error) => return refuse(&stream, &error.to_string()),
    };
    let _ = to.send(event);
}

fn ask(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut frame = Vec::new();
    BufReader::new(stream.take(read_limit())).read_until(b'\n', &mut frame)?;
    decode(&frame).map_err(io::Error::other)
}

/// Says no. Who has gone away needs no answer.
pub fn refuse(stream: &UnixStream, reason: &str) {
    answer(stream, &Answer::Failed { reason: reason.to_owned() });
}

/// Says something.
pub fn answer(mut stream: &UnixStream, answer: &Answer) {
    if let Ok(frame) = encode(answer) {
        let _ = stream.write_all(&frame);
    }
}
