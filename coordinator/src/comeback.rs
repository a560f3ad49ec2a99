//! A job's next life on one node: what guardian and agent ask for, from a generation.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use node_agent::addresses::{self, Share};
use node_agent::files::FilePolicy;
use node_agent::files::listeners::{self, Listeners};
use node_agent::files::pairing::{Meeting, TOKEN_BYTES, Token};
use node_agent::guardian::{Life, Namespace, NextLife};
use node_agent::job::JobRecord;
use node_agent::link;
use node_agent::memory;
use node_agent::restart::{self, Ends, Prepared, RestartPlan};

use node_agent_image::model::NodeModel;

use crate::restart::TOOL;

/// What the guardian calls when all is ready for the job's processes.
pub struct Comeback {
    generation: memory::Generation,
    policy: FilePolicy,
    restorer: PathBuf,
    library: PathBuf,
    /// Of a job of many nodes: where this node's builder is found.
    meeting: Option<(TcpListener, Token)>,
    /// The same: its listening sockets.
    listeners: OnceLock<Listeners>,
    share: Share,
    /// Set before the agent is forked, so that both have it.
    prepared: OnceLock<Prepared>,
}

impl Comeback {
    /// Of one virtual node, on this host.
    ///
    /// # Errors
    /// No port is left, or no random numbers.
    pub fn new(
        generation: memory::Generation,
        policy: FilePolicy,
        restorer: PathBuf,
        library: PathBuf,
        record: &JobRecord,
    ) -> std::io::Result<Self> {
        let meeting = match record.nodes {
            0 | 1 => None,
            _ => Some((listen()?, token(&record.token))),
        };
        Ok(Self {
            generation,
            policy,
            restorer,
            library,
            meeting,
            listeners: OnceLock::new(),
            share: Share::of(&record.hosts, record.node),
            prepared: OnceLock::new(),
        })
    }
}

/// The pid by which a job knows its guardian.
pub fn stand_in(model: &NodeModel) -> u32 {
    model.outsiders.iter().find(|it| it.guardian).map_or(0, |it| it.pid)
}

/// On all addresses of this host.
fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"))
}

fn token(text: &str) -> Token {
    let mut token = [0; TOKEN_BYTES];
    token.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    token
}

impl NextLife for Comeback {
    fn epoch(&self) -> u32 {
        self.generation.model().epoch
    }

    fn ranks(&self) -> Vec<u32> {
        self.generation.model().job.ranks.clone()
    }

    fn launches(&self) -> Vec<(u64, u32)> {
        self.generation.model().job.launches.clone()
    }

    fn prepare(&self, _life: &Life) -> Result<(), Box<dyn Error>> {
        let _ = self.prepared.set(restart::prepare(self.generation.model())?);
        if self.meeting.is_some() {
            let _ = self.listeners.set(listeners::bind_all(self.generation.model(), self.share.place)?);
        }
        Ok(())
    }

    fn begin(&self, life: &Life) -> Result<Namespace, Box<dyn Error>> {
        let segment = life.control.number();
        let mut plan = RestartPlan::new(self.generation.model(), &self.restorer, &self.library, segment)?;
        plan.policy = self.policy;
        let mut meeting = self.meeting.as_ref().map(|(listener, token)| meeting(listener, *token, life)).transpose()?;
        if let (Some(meeting), Some(listeners)) = (&mut meeting, self.listeners.get()) {
            let own = listeners.sockets.iter().map(|(at, it)| Ok((*at, it.try_clone()?)));
            meeting.listeners = own.collect::<std::io::Result<_>>()?;
        }
        plan.meeting = meeting.as_ref();
        let prepared = self.prepared.get().ok_or("nothing was prepared")?;
        let begun = restart::begin(&plan, *prepared)?;
        if begun.degraded() {
            eprintln!(
                "{TOOL}: /proc cannot be mounted here: the job sees this machine's, with other pids than its own"
            );
        }
        Ok(Namespace { init: begun.init, root: begun.root })
    }

    fn complete(&self, life: &Life, ready: &mut dyn FnMut() -> Result<(), String>) -> Result<(), Box<dyn Error>> {
        let (Some(prepared), Some(Namespace { init, root })) = (self.prepared.get(), life.board.namespace()) else {
            return Err("the job's processes were not made".into());
        };
        let fill = |targets: &restart::Targets| self.generation.fill(targets).map_err(Into::into);
        let model = self.generation.model();
        restart::complete(&prepared.begun(init, root), model, life.control.segment(), fill, ready)?;
        Ok(())
    }

    fn moved_connections(&self, life: &Life) -> Vec<(Ends, Ends)> {
        let (Some(prepared), Some(Namespace { init, root })) = (self.prepared.get(), life.board.namespace()) else {
            return Vec::new();
        };
        restart::moved_connections(&prepared.begun(init, root), self.generation.model())
    }

    fn place(&self) -> Option<(SocketAddr, Vec<(SocketAddr, SocketAddr)>)> {
        let port = self.meeting.as_ref()?.0.local_addr().ok()?.port();
        let here = addresses::of_this_host();
        let meeting = here.iter().find(|it| !it.is_loopback()).or(here.first())?;
        let known = &self.generation.model().machine.addresses;
        let whole = moved(known, &here);
        let ports = self.listeners.get().into_iter().flat_map(|it| moved_ports(&it.moved, &whole));
        let own = self.share.loopbacks();
        Some((SocketAddr::new(*meeting, port), ports.chain(own).chain(whole.iter().copied()).collect()))
    }

    fn root_status(&self) -> Option<i32> {
        self.prepared.get().and_then(|it| it.begun(0, 0).root_status())
    }
}

/// The old addresses, each with one of this host's of its kind, in their order.
fn moved(known: &[IpAddr], here: &[IpAddr]) -> Vec<(SocketAddr, SocketAddr)> {
    let of_kind = |v4: bool| here.iter().filter(move |it| it.is_ipv4() == v4 && !it.is_loopback());
    let mut pairs = Vec::new();
    for v4 in [true, false] {
        let old = known.iter().filter(|it| it.is_ipv4() == v4 && !it.is_loopback());
        for (number, old) in old.enumerate() {
            // Where there are fewer now, the last stands for the rest.
            let new = of_kind(v4).nth(number).or_else(|| of_kind(v4).next_back());
            pairs.extend(new.map(|new| (SocketAddr::new(*old, 0), SocketAddr::new(*new, 0))));
        }
    }
    pairs
}

/// Ports that are others now, at each address by which they are reached.
fn moved_ports(
    ports: &[(SocketAddr, SocketAddr)],
    whole: &[(SocketAddr, SocketAddr)],
) -> Vec<(SocketAddr, SocketAddr)> {
    let mut pairs = Vec::new();
    for (old, new) in ports.iter().filter(|(old, new)| old.port() != new.port()) {
        pairs.push((*old, *new));
        if old.ip().is_unspecified() {
            let of_kind = whole.iter().filter(|it| it.0.is_ipv4() == old.is_ipv4());
            pairs.extend(
                of_kind.map(|it| (SocketAddr::new(it.0.ip(), old.port()), SocketAddr::new(it.1.ip(), new.port()))),
            );
        }
    }
    pairs
}

fn meeting(listener: &TcpListener, token: Token, life: &Life) -> Result<Meeting, Box<dyn Error>> {
    let places = link::read_places(life.folder.path())?;
    let places: BTreeMap<u32, SocketAddr> = places.into_iter().map(|it| (it.node.0, it.meeting)).collect();
    let listener = OwnedFd::from(listener.try_clone()?);
    Ok(Meeting { listener, listeners: Vec::new(), own: life.record.node, places, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paired_by_kind() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let known = [ip("127.0.0.1"), ip("10.0.0.1"), ip("fd00::1"), ip("10.1.0.1")];
        let pairs = moved(&known, &[ip("::1"), ip("fd00::9"), ip("10.0.0.9")]);
        let pairs: Vec<String> = pairs.iter().map(|(old, new)| format!("{} {}", old.ip(), new.ip())).collect();
        assert_eq!(pairs, ["10.0.0.1 10.0.0.9", "10.1.0.1 10.0.0.9", "fd00::1 fd00::9"]);
    }
}
