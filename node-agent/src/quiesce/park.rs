//! One attempt to park a job: list, signal, wait, list again, until a listing brings nothing new.
//!
//! ```text
//! listing N    every thread that is not parked: looked at, slot prepared, signal 33
//! wait         until those are parked, or a little while has passed
//! listing N+1  all of it was parked before it began, nobody else is there → done
//! ```
//!
//! A thread is signalled only while its process handles signal 33: the default action would end a program that has just
//! been executed and whose library is not there yet, and one that is linked statically.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hijack_abi::{PARK_SIGNAL, Segment, Slot, captured, state};
use nix::errno::Errno;

use super::error::QuiesceError;
use super::laggard::{Hindrance, Late};
use super::{Held, ParkedJob, ParkedProcess, ParkedThread, laggard, sys};
use crate::guardian::sys::kill;
use crate::segment;
use crate::tasks::{Job, Lister, Member, TaskStatus, call_of};

/// A thread that has not parked by then is signalled again: glibc's own handler of signal 33 is installed for a moment
/// when a program makes its first thread, and swallows it.
const SEND_AGAIN: Duration = Duration::from_millis(20);
/// Between two listings; doubles while somebody is awaited.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// When the only laggards by then are in vfork they may wait for somebody who is parked.
const VFORK_PATIENCE: Duration = Duration::from_millis(300);
/// Who has no handler or no segment by then, and a reason that does not go away, is not waited for until the deadline.
const HOPELESS_AFTER: Duration = Duration::from_secs(1);
/// How often reasons are looked for: it takes long.
const LOOK_FOR_REASONS: Duration = Duration::from_millis(250);
/// After the deadline threads that are new in the last listing have this long.
const LATECOMERS: Duration = Duration::from_millis(500);

/// Numbers of execve(2) and execveat(2).
const EXECVE: u64 = libc::SYS_execve as u64;
const EXECVEAT: u64 = libc::SYS_execveat as u64;

/// How an attempt ends that does not succeed. Everybody runs on.
pub(super) enum Stop {
    /// The only laggards are in vfork: trying again may help.
    InVfork(QuiesceError),
    Error(QuiesceError),
}

impl From<QuiesceError> for Stop {
    fn from(error: QuiesceError) -> Self {
        Self::Error(error)
    }
}

pub(super) struct Attempt {
    held: Held,
    job: Job,
    lister: Lister,
    known: HashMap<(u32, u32), Known>,
    /// Processes that were seen not to share their parent's memory: they never will.
    apart: HashSet<u32>,
    began: Instant,
    look_for_reasons: Instant,
}

/// A thread that has been seen in this attempt.
struct Known {
    /// Pid and tid as the job sees them.
    pid: u32,
    tid: u32,
    seen: Instant,
    /// Where it was asked to park, and when last.
    asked: Option<(&'static Slot, Instant)>,
    /// Was seen parked.
    parked: bool,
}

/// What a listing has brought.
#[derive(Default)]
struct Round {
    /// Somebody was not parked before it began.
    unsettled: bool,
    late: Vec<Late>,
    zombies: Vec<(u32, u32)>,
    /// Processes that job control has stopped.
    stopped: HashSet<u32>,
    /// All tids as the job sees them, where somebody had to know.
    living: Option<HashSet<u32>>,
}

enum Seen {
    Living,
    /// Its tid as the job sees it.
    Ended(u32),
    Gone,
}

impl Attempt {
    /// Begins a new epoch.
    pub(super) fn begin(segment: &'static Segment, job: Job) -> Self {
        let epoch = segment.epoch.load(Ordering::Acquire).wrapping_add(1);
        segment.capture.store(captured::OPEN, Ordering::Release);
        segment.gate.store(epoch.wrapping_sub(1), Ordering::Release);
        segment.epoch.store(epoch, Ordering::Release);
        let (known, apart, began) = (HashMap::new(), HashSet::new(), Instant::now());
        let held = Held::new(segment, epoch);
        Self { held, job, lister: Lister::new(job), known, apart, began, look_for_reasons: began + HOPELESS_AFTER }
    }

    /// Until everybody is parked, or `until`.
    pub(super) fn run(mut self, until: Instant, deadline: Duration) -> Result<ParkedJob, Stop> {
        let mut pause = PAUSE;
        loop {
            let members = self.lister.list();
            let round = self.visit_all(&members)?;
            if !round.unsettled {
                return Ok(self.finish(&members, round.zombies));
            }
            self.let_stopped_ones_in(&members, &round);
            self.wait(&round, pause);
            pause = PAUSE_MAX.min(pause * 2);
            let late = self.still_late(&round);
            let now = Instant::now();
            if now >= until && (!late.is_empty() || now >= until + LATECOMERS) {
                let first = late.first().or(round.late.first()).copied().unwrap_or_default();
                return Err(laggard::deadline(first, late.len(), &members, deadline).into());
            }
            if self.began.elapsed() > VFORK_PATIENCE
                && let [first, ..] = &late[..]
                && late.iter().all(|late| late.is_in_vfork())
            {
                return Err(Stop::InVfork(laggard::deadline(*first, late.len(), &members, deadline)));
            }
            self.give_up_hopeless(&late, &members)?;
        }
    }

    fn visit_all(&mut self, members: &[Member]) -> Result<Round, QuiesceError> {
        let mut round = Round::default();
        let pids: HashSet<u32> = members.iter().map(|it| it.pid).collect();
        for member in members {
            let (mut living, mut ended) = (0, None);
            for tid in &member.tids {
                match self.visit(member, *tid, members, &mut round)? {
                    Seen::Living => living += 1,
                    Seen::Ended(inner) if *tid == member.pid => ended = Some(inner),
                    Seen::Ended(_) | Seen::Gone => {}
                }
            }
            // One whose parent is not of the job is being reaped.
            if let (0, Some(inner), true) = (living, ended, pids.contains(&member.parent)) {
                round.zombies.push((member.pid, inner));
            }
        }
        round.unsettled |= self.has_missed_somebody(&pids);
        Ok(round)
    }

    /// A listing may leave out who lives, see [`crate::tasks`].
    fn has_missed_somebody(&self, listed: &HashSet<u32>) -> bool {
        let root = self.job.root.pid();
        let expected = self.known.keys().copied().chain([(root, root)]);
        let lives = |(pid, tid): (u32, u32)| TaskStatus::read(pid, tid).is_some_and(|it| !it.has_ended());
        expected.filter(|(pid, _)| !listed.contains(pid)).any(lives)
    }

    /// Looks at one thread and does what can be done about it.
    fn visit(&mut self, of: &Member, tid: u32, members: &[Member], round: &mut Round) -> Result<Seen, QuiesceError> {
        let epoch = self.held.epoch;
        if let Some(known) = self.known.get_mut(&(of.pid, tid))
            && let Some((slot, when)) = known.asked
        {
            if segment::is_parked(slot, epoch) {
                round.unsettled |= !known.parked;
                known.parked = true;
                return Ok(Seen::Living);
            }
            if when.elapsed() < SEND_AGAIN {
                round.is_late(of.pid, tid, Hindrance::Asked, Some(slot));
                return Ok(Seen::Living);
            }
        }
        let Some(status) = TaskStatus::read(of.pid, tid) else { return Ok(Seen::Gone) };
        if status.has_ended() {
            return Ok(Seen::Ended(status.tid));
        }
        let first = || Known { pid: status.pid, tid: status.tid, seen: Instant::now(), asked: None, parked: false };
        let known = self.known.entry((of.pid, tid)).or_insert_with(first);
        let (seen, asked) = (known.seen, known.asked.map(|it| it.0));
        let hindrance = match (self.hindrance(of, tid, &status, seen), asked) {
            (Some(hindrance), _) => hindrance,
            (None, None) => self.ask(of, tid, &status, members, round)?,
            (None, Some(slot)) => self.ask_again(of, tid, &status, slot),
        };
        if status.state == 'T' && hindrance == Hindrance::Asked {
            round.stopped.insert(of.pid);
        }
        let slot = self.known.get(&(of.pid, tid)).and_then(|it| it.asked).map(|it| it.0);
        round.is_late(of.pid, tid, hindrance, slot);
        Ok(Seen::Living)
    }

    /// Why a thread must not be signalled now.
    fn hindrance(&mut self, of: &Member, tid: u32, status: &TaskStatus, seen: Instant) -> Option<Hindrance> {
        if status.depth != self.lister.depth() {
            return Some(Hindrance::Namespace);
        }
        if !self.apart.contains(&of.pid) {
            if sys::share_memory(of.pid, of.parent) {
                return Some(Hindrance::SharesMemory);
            }
            self.apart.insert(of.pid);
        }
        if status.state == 't' {
            return Some(Hindrance::Traced);
        }
        if status.ignores(PARK_SIGNAL) {
            return Some(Hindrance::Ignored);
        }
        if !status.catches(PARK_SIGNAL) {
            return Some(Hindrance::NoHandler);
        }
        // Blocked for a moment: by glibc, by the library around an exec, or since the thread is on its way out of the
        // handler, from the last park, and still reads its slot. A stopped thread in the handler gets another slot.
        if status.blocks(PARK_SIGNAL) && status.state != 'T' {
            let is_executing = || matches!(call_of(of.pid, tid).number, EXECVE | EXECVEAT);
            if seen.elapsed() < SEND_AGAIN || is_executing() {
                return Some(Hindrance::Blocked);
            }
        }
        None
    }

    /// Prepares a slot and sends the signal.
    fn ask(
        &mut self,
        of: &Member,
        tid: u32,
        status: &TaskStatus,
        members: &[Member],
        round: &mut Round,
    ) -> Result<Hindrance, QuiesceError> {
        let segment = self.held.segment;
        if status.blocks(PARK_SIGNAL)
            && let Some(old) = segment::find(segment, status.tid)
            && (status.state == 'T' || matches!(old.state.load(Ordering::Acquire), state::PARKED | state::LEFT))
        {
            segment::abandon(old);
        }
        let is_gone = |tid| !round.living.get_or_insert_with(|| living(members)).contains(&tid);
        let slot = segment::claim(segment, status.tid, is_gone).ok_or(QuiesceError::Slots { pid: of.pid, tid })?;
        segment::ask(slot, self.held.epoch, call_of(of.pid, tid));
        // One that is gone is missed in the next listing; one for whom too many signals wait is asked again. What it has
        // not taken since the last park serves for this one: signals above 31 queue.
        if !status.awaits(PARK_SIGNAL) && sys::signal_thread(of.pid, tid, PARK_SIGNAL) == Err(Errno::EPERM) {
            return Ok(Hindrance::Refused);
        }
        self.held.slots.push(slot);
        if let Some(known) = self.known.get_mut(&(of.pid, tid)) {
            known.asked = Some((slot, Instant::now()));
        }
        Ok(Hindrance::Asked)
    }

    /// The signal was sent a while ago.
    fn ask_again(&mut self, of: &Member, tid: u32, status: &TaskStatus, slot: &'static Slot) -> Hindrance {
        if let Some(known) = self.known.get_mut(&(of.pid, tid)) {
            known.asked = Some((slot, Instant::now()));
        }
        if status.awaits(PARK_SIGNAL) {
            return Hindrance::Asked;
        }
        if !laggard::maps_segment(of.pid) {
            return Hindrance::NoSegment;
        }
        // A thread that runs may be in the handler by now, on its way to what the first hint says.
        let hint = call_of(of.pid, tid);
        if hint.valid == 1 {
            segment::hint_at(slot, hint);
        }
        let _ = sys::signal_thread(of.pid, tid, PARK_SIGNAL);
        Hindrance::Asked
    }

    /// A stopped thread takes no signal but SIGCONT. All threads of the process have been signalled, so that they go
    /// straight into the handler; the process is stopped again before anybody leaves it. Its parent may see that.
    fn let_stopped_ones_in(&mut self, members: &[Member], round: &Round) {
        for member in members.iter().filter(|it| round.stopped.contains(&it.pid)) {
            let hindered = |late: &Late| late.pid == member.pid && late.hindrance != Hindrance::Asked;
            if !round.late.iter().any(hindered) {
                self.held.stopped().insert(member.pid);
                kill(member.pid, libc::SIGCONT);
            }
        }
    }

    /// Until all that have been asked are parked, or `limit` has passed.
    fn wait(&mut self, round: &Round, limit: Duration) {
        let until = Instant::now() + limit;
        let (segment, epoch) = (self.held.segment, self.held.epoch);
        let mut asked: Vec<&Slot> = round.late.iter().filter_map(|late| late.slot).collect();
        let all_are_asked = asked.len() == round.late.len();
        loop {
            let count = segment.parked.load(Ordering::Acquire);
            while asked.last().is_some_and(|slot| segment::is_parked(slot, epoch)) {
                asked.pop();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (asked.is_empty() && all_are_asked) {
                break;
            }
            segment::wait(&segment.parked, count, left);
        }
        for late in &round.late {
            if let Some(known) = self.known.get_mut(&(late.pid, late.tid)) {
                known.parked = late.slot.is_some_and(|slot| segment::is_parked(slot, epoch));
            }
        }
    }

    fn still_late(&self, round: &Round) -> Vec<Late> {
        let is_parked = |late: &&Late| late.slot.is_none_or(|slot| !segment::is_parked(slot, self.held.epoch));
        round.late.iter().filter(is_parked).copied().collect()
    }

    fn give_up_hopeless(&mut self, late: &[Late], members: &[Member]) -> Result<(), QuiesceError> {
        if self.look_for_reasons > Instant::now() {
            return Ok(());
        }
        self.look_for_reasons = Instant::now() + LOOK_FOR_REASONS;
        let long =
            |late: &&Late| self.known.get(&(late.pid, late.tid)).is_some_and(|it| it.seen.elapsed() >= HOPELESS_AFTER);
        let hopeless = late.iter().filter(long).find(|late| late.is_hopeless());
        hopeless.map_or(Ok(()), |late| Err(QuiesceError::Hopeless(Box::new(late.describe(members)))))
    }

    fn finish(self, members: &[Member], zombies: Vec<(u32, u32)>) -> ParkedJob {
        let mut processes = Vec::new();
        for member in members {
            let thread = |tid: &u32| {
                let known = self.known.get(&(member.pid, *tid)).filter(|known| known.parked)?;
                let (slot, _) = known.asked?;
                Some((known.pid, ParkedThread { host_tid: *tid, tid: known.tid, slot }))
            };
            let mut threads: Vec<_> = member.tids.iter().filter_map(thread).collect();
            threads.sort_by_key(|(_, it)| (it.host_tid != member.pid, it.host_tid));
            if let Some(pid) = threads.first().map(|it| it.0) {
                let threads = threads.into_iter().map(|it| it.1).collect();
                processes.push(ParkedProcess { host_pid: member.pid, pid, threads });
            }
        }
        let depth = self.lister.depth();
        ParkedJob { held: self.held, job: self.job, depth, processes, zombies }
    }
}

impl Round {
    fn is_late(&mut self, pid: u32, tid: u32, hindrance: Hindrance, slot: Option<&'static Slot>) {
        self.unsettled = true;
        self.late.push(Late { pid, tid, hindrance, slot });
    }
}

/// All tids as the job sees them.
fn living(members: &[Member]) -> HashSet<u32> {
    let tasks = members.iter().flat_map(|it| it.tids.iter().map(|tid| (it.pid, *tid)));
    tasks.filter_map(|(pid, tid)| TaskStatus::read(pid, tid).map(|it| it.tid)).collect()
}
