//! The guardian's loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use super::board::Comeback;
use super::daemons::Daemons;
use super::ranks::Ranks;
use super::sys::Inherited;
use super::{FAILURE, Life, Namespace, NextLife, Root, ending, members, sys};
use crate::agent;
use crate::files::{keeper, refill};

/// This many agents may die within [`AGENTS_WITHIN`], which no user and no OOM killer does to a job, but an agent that
/// cannot live; then the job runs on without one.
const AGENTS_MAX: usize = 32;
/// See [`AGENTS_MAX`].
const AGENTS_WITHIN: Duration = Duration::from_secs(10);
/// How long an agent that has ended the job on request may take to say so to whoever asked.
const AGENT_SAYS_SO: Duration = Duration::from_secs(10);
/// How long one that is told to go may take.
const AGENT_GOES: Duration = Duration::from_millis(500);

/// How long the coordinator may take to end the job on other nodes; longer than its own patience with them.
const COORDINATOR_GOES: Duration = Duration::from_secs(15);

/// Exit code when the job cannot go on.
const FAILED: i32 = 1;

/// The loop's state.
pub(super) struct Guardian<'life> {
    life: &'life Life,
    /// How this life began, where it is not the first.
    next: Option<&'life dyn NextLife>,
    agent: Option<u32>,
    coordinator: Option<u32>,
    agents_started: Vec<Instant>,
    ranks: Ranks,
    /// The root's wait status, once it has ended.
    ended: Option<i32>,
    daemons: Daemons,
    /// How daemons begin: signal mask and all as this process found them.
    inherited: &'life Inherited,
    root_stopped: bool,
    /// The terminal has asked the whole group to stop.
    told_to_stop: bool,
    /// All processes of a restarted node have ended.
    namespace_is_over: bool,
}

impl<'life> Guardian<'life> {
    pub(super) fn new(life: &'life Life, next: Option<&'life dyn NextLife>, inherited: &'life Inherited) -> Self {
        Self {
            life,
            next,
            agent: None,
            coordinator: None,
            agents_started: Vec::new(),
            ranks: Ranks::default(),
            ended: None,
            daemons: Daemons::default(),
            inherited,
            root_stopped: false,
            told_to_stop: false,
            namespace_is_over: false,
        }
    }

    /// Until the root has ended: its wait status.
    pub(super) fn watch(&mut self, signals: BorrowedFd<'_>) -> io::Result<i32> {
        loop {
            let _ = self.life.to_guardian.read();
            self.note_children();
            self.note_ranks()?;
            self.note_wishes();
            if let Some(status) = self.ended {
                return Ok(status);
            }
            self.wait(signals)?;
            while let Some(received) = sys::next_signal(signals) {
                self.note_signal(received);
            }
        }
    }

    /// Sleeps until something happens.
    fn wait(&self, signals: BorrowedFd<'_>) -> io::Result<()> {
        let fixed = [signals, self.life.to_guardian.as_fd()];
        let mut fds: Vec<PollFd<'_>> =
            fixed.into_iter().chain(self.ranks.descriptors()).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What agents have asked for: daemons, a coordinator, the end.
    fn note_wishes(&mut self) {
        if self.life.board.is_over() && self.life.record.node != 0 {
            self.ended = Some(0);
            return;
        }
        if self.life.board.begin_is_due() {
            self.begin();
        }
        if self.life.board.node_is_lost() {
            self.ended = Some(FAILED << 8);
            return;
        }
        if self.daemons.start_new(self.life.tool, self.life.folder.path(), self.inherited) {
            let _ = self.life.to_agent.write(1);
        }
        let here = self.life.record.node == 0 && self.life.board.wants_coordinator();
        if self.coordinator.is_none() && here && self.ended.is_none() {
            self.start_coordinator();
        }
    }

    /// Makes the processes of a restarted job.
    fn begin(&mut self) {
        let Some(next) = self.next else { return };
        match next.begin(self.life) {
            Ok(namespace) => self.life.board.set_namespace(namespace),
            Err(error) => {
                // The coordinator says it where there is one.
                if self.life.record.nodes < 2 {
                    self.say(&format!("cannot restart the job: {error}"));
                }
                let _ = std::fs::write(self.life.folder.path().join(FAILURE), error.to_string());
                self.life.board.set_comeback(Comeback::Failed);
                self.ended = Some(FAILED << 8);
            }
        }
    }

    /// New ranks are watched, ended ones are looked at.
    fn note_ranks(&mut self) -> io::Result<()> {
        let announced = self.life.control.ranks_after(self.ranks.announced());
        self.ranks.watch(&announced, self.life.root().init());
        let mut fds: Vec<PollFd<'_>> = self.ranks.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::ZERO)?;
        let ended: Vec<usize> = (0..fds.len()).filter(|at| fds[*at].any() == Some(true)).collect();
        drop(fds);
        self.ranks.note(&ended, self.life.board);
        Ok(())
    }

    fn note_children(&mut self) {
        while let Some((pid, status)) = sys::reap() {
            let over = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
            if pid == self.life.root().child() {
                match over {
                    // The agent has still to tell of the daemons' ends; when the job is over is the coordinator's to say.
                    true if self.is_beside_others() => self.namespace_is_over = true,
                    true => self.ended = Some(self.next.and_then(NextLife::root_status).unwrap_or(status)),
                    false => self.root_stopped = libc::WIFSTOPPED(status),
                }
            } else if Some(pid) == self.agent && over {
                self.agent = None;
                self.replace_agent(status);
            } else if Some(pid) == self.coordinator && over {
                self.coordinator = None;
                self.say(&format!("the coordinator died ({}): starting another", ending_of(status)));
            } else if over && self.daemons.note_end(self.life.folder.path(), pid, status) {
                let _ = self.life.to_agent.write(1);
            }
        }
        self.stop_with_the_root();
    }

    /// One of a running job's other nodes, where the last process may end before the job does.
    fn is_beside_others(&self) -> bool {
        self.life.record.node != 0 && self.life.board.comeback() == Comeback::Done
    }

    fn note_signal(&mut self, received: sys::Received) {
        if let Root::Namespace(namespace) = self.life.root() {
            if self.namespace_is_over {
                return;
            }
            return pass_into(namespace, received);
        }
        let root = self.life.root().pid();
        match received.signal {
            libc::SIGCHLD => {}
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU if !received.from_process || received.sender == root => {
                self.told_to_stop = true;
            }
            // What the terminal sends has reached the whole group; what the root sends to its group, too.
            signal if received.from_process && received.sender != root => {
                self.told_to_stop |= matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
                sys::kill(root, signal);
            }
            _ => {}
        }
        if received.signal == libc::SIGCONT {
            self.told_to_stop = false;
        }
    }

    /// A shell sees its job stop when ckpt-run stops: after the root has, and only when the group was told to. A root
    /// that somebody else stops by its pid must not take us along, or nobody would see it go on and end.
    fn stop_with_the_root(&mut self) {
        if self.root_stopped && self.told_to_stop {
            self.told_to_stop = false;
            self.root_stopped = false;
            sys::stop_self();
        }
    }

    pub(super) fn start_agent(&mut self, next: Option<&dyn NextLife>) {
        self.agents_started.push(Instant::now());
        self.life.board.count_agent();
        match sys::fork() {
            Ok(sys::Forked::Child) => agent::main(self.life, next),
            Ok(sys::Forked::Parent(pid)) => self.agent = Some(pid),
            Err(error) => {
                self.say(&format!("cannot start an agent: {error}; the job runs on without checkpoints"));
                self.turn_away();
            }
        }
    }

    fn start_coordinator(&mut self) {
        self.agents_started.retain(|start| start.elapsed() < AGENTS_WITHIN);
        if self.agents_started.len() >= AGENTS_MAX {
            return;
        }
        self.agents_started.push(Instant::now());
        match sys::fork() {
            Ok(sys::Forked::Child) => (self.life.coordinate)(self.life),
            Ok(sys::Forked::Parent(pid)) => {
                self.coordinator = Some(pid);
                self.life.board.set_coordinator(pid);
            }
            Err(error) => self.say(&format!("cannot start the coordinator: {error}; other nodes cannot be reached")),
        }
    }

    /// The agent is gone: nobody must wait for it.
    fn replace_agent(&mut self, status: i32) {
        if self.ended.is_some() || self.life.board.ended_after().is_some() {
            return;
        }
        if self.life.board.comeback() != Comeback::Done {
            // Half a job must not run.
            match self.life.board.namespace() {
                Some(namespace) => sys::kill(namespace.init, libc::SIGKILL),
                None => self.ended = Some(FAILED << 8),
            }
            return;
        }
        self.free_everybody();
        self.agents_started.retain(|start| start.elapsed() < AGENTS_WITHIN);
        if self.agents_started.len() >= AGENTS_MAX {
            let within = AGENTS_WITHIN.as_secs();
            self.say(&format!("{AGENTS_MAX} agents died within {within} s: the job runs on without checkpoints"));
            self.turn_away();
            return;
        }
        self.say(&format!("the agent died ({}); the job runs on with another", ending_of(status)));
        self.start_agent(None);
    }

    /// Nobody will ever answer: who asks, now or later, must not wait.
    fn turn_away(&self) {
        let listener = &self.life.listener;
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        let _ = listener.set_nonblocking(true);
        while listener.accept().is_ok() {}
    }

    /// Puts back what the agent had drained and lets every parked thread go.
    fn free_everybody(&self) {
        keeper::wait_for_orphans();
        if let Err(error) = refill::from_ledger(&self.life.ledger) {
            self.say(&format!("bytes in flight are lost, the job may hang: {error}"));
        }
        self.life.control.free_everybody();
        self.life.board.progress.enter(coordinator_protocol::Phase::Idle);
    }

    /// The root has ended: so does the job. The exit code.
    pub(super) fn end(&mut self, status: i32) -> i32 {
        let _ = self.note_ranks();
        let lost = self.life.board.lost_rank();
        // They are among the rest, and deaf to SIGTERM.
        self.life.control.end_twins();
        let apart: Vec<u32> = self.agent.into_iter().chain(self.coordinator).collect();
        let stubborn = ending::end_the_rest(&apart);
        if !stubborn.is_empty() {
            self.say(&format!("these processes do not end, not even by SIGKILL: {stubborn:?}"));
        }
        self.dismiss_agent();
        self.dismiss_coordinator();
        if let Some(generation) = self.life.board.ended_after() {
            self.say(&format!("killed after checkpoint {generation} on request"));
        }
        let code = exit_code(status);
        match lost {
            Some((pid, signal)) if self.life.board.ended_after().is_none() => {
                self.say(&format!("rank with pid {pid} died by signal {signal} ({})", signal_name(signal as i32)));
                if code == 0 { 1 } else { code }
            }
            _ => code,
        }
    }

    /// Waits for an agent that still has to say what it did, tells any other to go.
    fn dismiss_agent(&mut self) {
        let Some(agent) = self.agent else { return };
        let patience = if self.life.board.ended_after().is_some() {
            AGENT_SAYS_SO
        } else {
            sys::kill(agent, libc::SIGTERM);
            AGENT_GOES
        };
        if !self.goes(agent, patience) {
            sys::kill(agent, libc::SIGKILL);
            self.goes(agent, AGENT_GOES);
        }
    }

    /// It ends the job on the other nodes before it goes.
    fn dismiss_coordinator(&mut self) {
        let Some(coordinator) = self.coordinator.take() else { return };
        sys::kill(coordinator, libc::SIGTERM);
        if !self.goes(coordinator, COORDINATOR_GOES) {
            self.say("other nodes have not said that they ended the job");
            sys::kill(coordinator, libc::SIGKILL);
            self.goes(coordinator, AGENT_GOES);
        }
    }

    fn goes(&mut self, process: u32, patience: Duration) -> bool {
        let Ok(pidfd) = sys::pidfd_open(process) else { return true };
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let gone = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready == 1);
        while sys::reap().is_some() {}
        gone
    }

    fn say(&self, what: &str) {
        eprintln!("{}: {what}", self.life.tool);
    }
}

/// A restarted job is of another session: what the terminal sends goes to those who were in our caller's process group.
fn pass_into(namespace: Namespace, received: sys::Received) {
    let Namespace { init, root } = namespace;
    let tell_group = |signal| {
        let group = members::in_group_of(root, &members::descendants(init, &[]));
        group.into_iter().for_each(|pid| sys::kill(pid, signal));
    };
    match received.signal {
        libc::SIGCHLD => {}
        // Nobody of that session would ever continue it: the kernel ignores SIGTSTP in such a group.
        libc::SIGTSTP => {
            tell_group(libc::SIGSTOP);
            sys::stop_self();
        }
        libc::SIGCONT => tell_group(libc::SIGCONT),
        signal if received.from_process => sys::kill(root, signal),
        signal => tell_group(signal),
    }
}

/// A shell's exit code for a wait status.
fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

fn ending_of(status: i32) -> String {
    match libc::WIFSIGNALED(status) {
        true => signal_name(libc::WTERMSIG(status)),
        false => format!("exit code {}", libc::WEXITSTATUS(status)),
    }
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |it| it.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!((exit_code(0), exit_code(7 << 8), exit_code(9)), (0, 7, 137));
        assert_eq!((ending_of(9), ending_of(1 << 8)), ("SIGKILL".into(), "exit code 1".into()));
        assert_eq!(signal_name(40), "signal 40");
    }
}
