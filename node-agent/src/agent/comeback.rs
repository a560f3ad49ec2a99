//! A restart on one node: alone, or together with others as the coordinator says.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

use coordinator_protocol::node::Place;
use coordinator_protocol::restart::{Deed, Done};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Agent;
use super::link::Input;
use crate::addresses;
use crate::guardian::FAILURE;
use crate::guardian::board::Comeback;
use crate::guardian::{Life, NextLife, daemons, members, sys};
use crate::link;

/// How often, and how many times, an ended process is looked at until its parent has reaped it.
const REAPED_AGAIN: Duration = Duration::from_millis(1);
const REAPED_LOOKS: usize = 200;
/// How often it is looked whether the guardian has made the job's processes, which takes some milliseconds.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Does a restart, or ends the process that waits for it: the guardian then ends the job.
pub(super) fn alone(life: &Life, next: &dyn NextLife) {
    if let Err(reason) = build(life, next, &mut || Ok(())) {
        eprintln!("{}: {reason}", life.tool);
        life.board.set_comeback(Comeback::Failed);
        sys::exit_now(1);
    }
}

/// Everybody is let go when `ready` says so.
fn build(life: &Life, next: &dyn NextLife, ready: &mut dyn FnMut() -> Result<(), String>) -> Result<(), String> {
    life.board.want_begin();
    let _ = life.to_guardian.write(1);
    while life.board.namespace().is_none() {
        if life.board.comeback() == Comeback::Failed || nix::unistd::getppid().as_raw() as u32 != life.record.guardian {
            let why = std::fs::read_to_string(life.folder.path().join(FAILURE)).unwrap_or_default();
            return Err(if why.is_empty() { "its guardian ended".into() } else { why });
        }
        thread::sleep(LOOK_AGAIN);
    }
    next.complete(life, ready).map_err(|error| error.to_string())?;
    life.board.set_comeback(Comeback::Done);
    life.control.announce(&next.ranks());
    Ok(())
}

impl Agent<'_> {
    /// Does what the coordinator wants of a restart, in a thread of its own.
    pub(super) fn come_back(&self, next: &dyn NextLife, deeds: &Receiver<Deed>, inputs: &Sender<Input>) {
        let say = |done| drop(inputs.send(Input::Restart(done)));
        while let Ok(deed) = deeds.recv() {
            let done = match deed {
                Deed::Prepare(_) => match next.place() {
                    Some((meeting, addresses)) => Ok(Done::Bound(meeting, addresses)),
                    None => Err("it has no address".to_owned()),
                },
                Deed::Build(places) => self.build_with_others(next, &places, deeds, &say).map(|()| Done::Running),
                Deed::Go | Deed::End(_) => continue,
            };
            say(done.unwrap_or_else(Done::Failed));
        }
    }

    /// Launchers' daemons that came back: whoever waits for their end, in `ckpt-rsh`, came back as well.
    fn adopt(&self, next: &dyn NextLife) -> io::Result<()> {
        let Some(init) = self.life.root().init() else { return Ok(()) };
        let folder = self.life.folder.path().to_path_buf();
        for (id, pid) in next.launches() {
            let Some(pid) = members::with_inner_pid(init, pid) else { continue };
            let Ok(pidfd) = sys::pidfd_open(pid) else { continue };
            daemons::adopt(&folder, id, pid)?;
            let (folder, poke) = (folder.clone(), self.inputs());
            thread::spawn(move || {
                let status = end_of(&pidfd);
                let _ = daemons::note_adopted_end(&folder, id, status);
                poke.iter().for_each(|inputs| drop(inputs.send(Input::Daemons)));
            });
        }
        Ok(())
    }

    fn build_with_others(
        &self,
        next: &dyn NextLife,
        places: &[Place],
        deeds: &Receiver<Deed>,
        say: &dyn Fn(Done),
    ) -> Result<(), String> {
        let (folder, segment) = (self.life.folder.path(), self.life.control.segment());
        let mut table = addresses::table_of(places, self.life.record.node, &self.life.record.hosts);
        link::write_places(folder, places).map_err(cannot_write(folder))?;
        build(self.life, next, &mut || {
            for (real, remembered) in next.moved_connections(self.life) {
                table.connection(real, remembered);
            }
            addresses::write_addresses(segment, &table).map_err(|error| error.to_string())?;
            self.adopt(next).map_err(cannot_write(folder))?;
            say(Done::Built);
            wait_for_go(deeds)
        })
    }
}

/// Until a process ends; its wait status, 0 where the kernel does not tell.
fn end_of(pidfd: &OwnedFd) -> i32 {
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_ok() {
            break;
        }
    }
    // Its parent reaps it in a moment.
    for _ in 0..REAPED_LOOKS {
        if let Some(status) = sys::exit_status(pidfd.as_fd()) {
            return status;
        }
        thread::sleep(REAPED_AGAIN);
    }
    0
}

/// For map_err.
fn cannot_write(folder: &Path) -> impl FnOnce(io::Error) -> String {
    let folder = folder.display().to_string();
    move |error| format!("cannot write into {folder}: {error}")
}

fn wait_for_go(deeds: &Receiver<Deed>) -> Result<(), String> {
    loop {
        match deeds.recv() {
            Ok(Deed::Go) => return Ok(()),
            Ok(Deed::End(reason)) => return Err(reason),
            Ok(_) => {}
            Err(_) => return Err("the agent ends".into()),
        }
    }
}
