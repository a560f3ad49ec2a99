//! TCP connections between virtual nodes, made anew by the two builders at a restart.
//!
//! ```text
//! the lower end (node, address)                    the other end
//!   connects to the other's meeting point ────────→ accepts
//!   token, which connection, length, bytes ───────→
//!         ←──────────────────────────────────────── length, bytes
//!   both: what the other had received and nobody read is sent once more, and stays in the connection
//! ```
//!
//! Bytes in flight are known to the receiver's image alone, and only the sender can put them back: so each end tells the
//! other first what it wants to have received. No program has the connection yet.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use node_agent_image::checksum;
use node_agent_image::model::{FileIndex, OpenFile, Remote, Socket};

use super::{FilesError, refill, socket, sys_socket as raw};

/// Who knows it is of the job.
pub type Token = [u8; TOKEN_BYTES];
/// Bytes of a [`Token`].
pub const TOKEN_BYTES: usize = 16;
/// Token and connection.
const HEAD_BYTES: usize = TOKEN_BYTES + 16;
const LENGTH_BYTES: usize = 8;
/// Bytes that one end may have to have received: more than a kernel holds.
const RECEIVED_BYTES_MAX: u64 = 1 << 30;
/// How long the others may take.
const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 1 << 20;

/// Where the builders of all virtual nodes meet.
#[derive(Debug)]
pub struct Meeting {
    /// This node's listening socket.
    pub listener: OwnedFd,
    /// Listening sockets of the job, see [`super::listeners`]: by file of the model.
    pub listeners: Vec<(FileIndex, OwnedFd)>,
    /// This virtual node.
    pub own: u32,
    /// Meeting points by virtual node.
    pub places: BTreeMap<u32, SocketAddr>,
    #[allow(missing_docs)]
    pub token: Token,
}

/// One connection that is being made.
struct Line {
    fd: OwnedFd,
    /// None until an accepted one has said which it is.
    file: Option<FileIndex>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
}

/// Makes all connections of `files` that lead to other virtual nodes.
///
/// # Errors
/// Names the connection, and the node that did not come.
pub fn pair_all(
    meeting: Option<&Meeting>,
    files: &[OpenFile],
    opened: &mut [Option<OwnedFd>],
) -> Result<(), FilesError> {
    for (at, bound) in meeting.iter().flat_map(|it| &it.listeners) {
        let own = bound.try_clone().and_then(|own| raw::shutdown(own.as_raw_fd(), libc::SHUT_RD).map(|()| own));
        opened[*at] = Some(own.map_err(error("keep", files, *at))?);
    }
    let ends: Vec<(FileIndex, &Socket, Remote)> = files
        .iter()
        .enumerate()
        .filter_map(|(at, file)| socket::of(file).and_then(|it| Some((at, it, it.peer_node?))))
        .collect();
    let Some(first) = ends.first() else { return Ok(()) };
    let meeting = meeting.ok_or_else(|| FilesError::Model(format!("file {} leads to another node", first.0)))?;
    let mut pairing = Pairing { meeting, expected: HashMap::new(), files, lines: Vec::new() };
    for (at, socket, remote) in &ends {
        pairing.begin(*at, socket, remote)?;
    }
    pairing.run()?;
    for line in pairing.lines {
        let Some(at) = line.file else { continue };
        let wanted = line.input.get(LENGTH_BYTES..).unwrap_or_default();
        refill::send_all(line.fd.as_raw_fd(), wanted).map_err(error("fill", files, at))?;
        opened[at] = Some(line.fd);
    }
    Ok(())
}

struct Pairing<'a> {
    meeting: &'a Meeting,
    /// Connections that others will make, by their numbers.
    expected: HashMap<u128, FileIndex>,
    files: &'a [OpenFile],
    lines: Vec<Line>,
}

impl Pairing<'_> {
    fn begin(&mut self, at: FileIndex, socket: &Socket, remote: &Remote) -> Result<(), FilesError> {
        let connection = remote.connection(self.meeting.own);
        let number = checksum(format!("{connection:?}").as_bytes());
        if connection.0[0] != (self.meeting.own, remote.local) {
            self.expected.insert(number, at);
            return Ok(());
        }
        let place = self.meeting.places.get(&remote.node);
        let place = *place.ok_or_else(|| FilesError::Model(format!("no node {}", remote.node)))?;
        let fd = connect(socket, place).map_err(error("connect", self.files, at))?;
        let mut out = self.meeting.token.to_vec();
        out.extend(number.to_le_bytes());
        out.extend(told(socket));
        self.lines.push(Line { fd, file: Some(at), out, sent: 0, input: Vec::new() });
        Ok(())
    }

    /// Until every end knows what the other wants.
    fn run(&mut self) -> Result<(), FilesError> {
        let until = Instant::now() + PATIENCE;
        while !self.expected.is_empty() || self.lines.iter().any(|it| !it.is_done()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.too_late());
            }
            self.step(left)?;
        }
        Ok(())
    }

    fn step(&mut self, left: Duration) -> Result<(), FilesError> {
        let listener = self.meeting.listener.as_fd();
        let wanted = |line: &Line| match line.sent < line.out.len() {
            true => PollFlags::POLLIN | PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        };
        let lines: Vec<usize> = (0..self.lines.len()).filter(|it| !self.lines[*it].is_done()).collect();
        let mut fds: Vec<PollFd<'_>> =
            lines.iter().map(|it| PollFd::new(self.lines[*it].fd.as_fd(), wanted(&self.lines[*it]))).collect();
        if !self.expected.is_empty() {
            fds.push(PollFd::new(listener, PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).map_err(|errno| FilesError::restore("wait for", "other nodes")(errno.into()))?;
        let ready: Vec<bool> = fds.iter().map(|it| it.any() == Some(true)).collect();
        drop(fds);
        // From the last on: one that is a stranger is taken out.
        for (at, _) in lines.iter().zip(&ready).rev().filter(|(_, ready)| **ready) {
            self.advance(*at)?;
        }
        if !self.expected.is_empty() && ready.last() == Some(&true) {
            self.accept()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), FilesError> {
        let accepted =
            raw::accept(self.meeting.listener.as_raw_fd()).map_err(FilesError::restore("accept", "another node"))?;
        set_nonblocking(&accepted).map_err(FilesError::restore("accept", "another node"))?;
        self.lines.push(Line { fd: accepted, file: None, out: Vec::new(), sent: 0, input: Vec::new() });
        Ok(())
    }

    fn advance(&mut self, at: usize) -> Result<(), FilesError> {
        let line = &mut self.lines[at];
        let moved = line.write().and_then(|()| line.read());
        match (moved, line.file) {
            (Ok(()), _) => {}
            (Err(source), Some(file)) => return Err(error("pair", self.files, file)(source)),
            // A stranger at the meeting point.
            (Err(_), None) => {
                self.lines.remove(at);
                return Ok(());
            }
        }
        if line.file.is_none() && line.input.len() >= HEAD_BYTES {
            self.recognise(at);
        }
        Ok(())
    }

    /// An accepted one has said which connection it is.
    fn recognise(&mut self, at: usize) {
        let line = &mut self.lines[at];
        let mut number = [0; HEAD_BYTES - TOKEN_BYTES];
        number.copy_from_slice(&line.input[TOKEN_BYTES..HEAD_BYTES]);
        let of_the_job = line.input[..TOKEN_BYTES] == self.meeting.token;
        let file = self.expected.remove(&u128::from_le_bytes(number)).filter(|_| of_the_job);
        line.input.drain(..HEAD_BYTES);
        match file {
            Some(file) => {
                line.file = Some(file);
                line.out = socket::of(&self.files[file]).map(told).unwrap_or_default();
            }
            None => drop(self.lines.remove(at)),
        }
    }

    fn too_late(&self) -> FilesError {
        let waits = self.expected.values().next().or(self.lines.iter().find_map(|it| it.file.as_ref()));
        let what = waits.and_then(|at| socket::of(&self.files[*at])).map(socket::describe).unwrap_or_default();
        let source = io::Error::new(io::ErrorKind::TimedOut, "the node of its other end did not come");
        FilesError::restore("pair", format!("TCP {what}"))(source)
    }
}

impl Line {
    /// All is said and heard.
    fn is_done(&self) -> bool {
        self.file.is_some() && self.sent == self.out.len() && self.wanted().is_some_and(|it| it == self.input.len())
    }

    /// Bytes to be read in all, once the length is there.
    fn wanted(&self) -> Option<usize> {
        let length = self.input.first_chunk::<LENGTH_BYTES>()?;
        Some(LENGTH_BYTES + u64::from_le_bytes(*length) as usize)
    }

    fn write(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match raw::send(
                self.fd.as_raw_fd(),
                &self.out[self.sent..],
                &[],
                &[],
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            ) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Not a byte more than belongs to it: what follows is the program's.
    fn read(&mut self) -> io::Result<()> {
        loop {
            let goal = match (self.file, self.wanted()) {
                (None, _) => HEAD_BYTES,
                (Some(_), None) => LENGTH_BYTES,
                (Some(_), Some(wanted)) if wanted as u64 > RECEIVED_BYTES_MAX => {
                    return Err(io::Error::other("more bytes than a connection holds"));
                }
                (Some(_), Some(wanted)) => wanted,
            };
            let missing = goal - self.input.len();
            if missing == 0 {
                return Ok(());
            }
            let mut chunk = vec![0; missing.min(CHUNK_BYTES)];
            match raw::receive(self.fd.as_raw_fd(), &mut chunk, libc::MSG_DONTWAIT).map(|it| it.length) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.input.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// What an end wants to have received, with its length.
fn told(socket: &Socket) -> Vec<u8> {
    let bytes = socket.received.first().map(|it| it.bytes.as_slice()).unwrap_or_default();
    let mut told = (bytes.len() as u64).to_le_bytes().to_vec();
    told.extend_from_slice(bytes);
    told
}

/// A connection to a meeting point, from the old port where that is free.
fn connect(socket: &Socket, to: SocketAddr) -> io::Result<OwnedFd> {
    let attempt = |port: u16| {
        let made = socket::fresh(socket)?;
        raw::set_option_int(made.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        let any: IpAddr = if socket.family == libc::AF_INET { [0; 4].into() } else { [0_u16; 8].into() };
        raw::bind(made.as_raw_fd(), &raw::address(socket.family, SocketAddr::new(any, port))?)?;
        raw::connect(made.as_raw_fd(), &raw::address(socket.family, to)?)?;
        set_nonblocking(&made)?;
        Ok(made)
    };
    let port = raw::inet(&socket.local).map_or(0, |it| it.port());
    attempt(port).or_else(|_: io::Error| attempt(0))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    super::sys::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK.into()).map(drop)
}

fn error<'a>(
    deed: &'static str,
    files: &'a [OpenFile],
    at: FileIndex,
) -> impl FnOnce(io::Error) -> FilesError + use<'a> {
    move |source| {
        let what = socket::of(&files[at]).map(socket::describe).unwrap_or_default();
        FilesError::restore(deed, format!("TCP {what}"))(source)
    }
}
