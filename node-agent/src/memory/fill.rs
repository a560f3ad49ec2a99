//! Contents go back into processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;
use node_agent_image::contents::{Owner, OwnerRuns, Run};
use node_agent_image::model::Vma;

use super::chunks::{ChunkReader, DataFiles, chunks};
use super::error::ImageError;
use super::generation::Generation;
use super::threads::{self, Turns, on_threads};
use crate::restart::Targets;

/// process_vm_writev takes no more pieces at once.
const IOV_MAX: usize = 1024;

/// Where a part of a block goes.
#[derive(Clone, Copy, Debug)]
struct Use {
    block: u32,
    /// As the agent sees it.
    pid: u32,
    address: u64,
    /// Where it begins in the raw block.
    at: u32,
    bytes: u32,
    /// The process itself may write there.
    writable: bool,
}

impl Generation {
    /// Puts all contents of this node into the processes of a restart, with all cores. The checksum of a block is compared before its
    /// bytes go anywhere.
    ///
    /// # Errors
    /// A damaged data file, or memory that cannot be written; then some of the contents are in place and some not.
    pub fn fill(&self, targets: &Targets) -> Result<(), ImageError> {
        let uses = self.uses(targets)?;
        let files = DataFiles::open(&self.path, self.node(), &self.contents)?;
        let chunks = chunks(&self.contents.blocks);
        let turns = Turns::new(chunks.len());
        let bytes = uses.iter().map(|it| u64::from(it.bytes)).sum();
        on_threads(threads::worth(bytes), || {
            let (mut reader, mut writer) = (ChunkReader::default(), Writer::default());
            while let Some(turn) = turns.take() {
                let chunk = &chunks[turn];
                let filled = || -> Result<(), ImageError> {
                    let unpacked = reader.read(&files, &self.contents.blocks[chunk.clone()])?;
                    let unpacked = unpacked.into_iter().collect::<Result<Vec<_>, _>>()?;
                    let from = uses.partition_point(|it| (it.block as usize) < chunk.start);
                    let to = uses.partition_point(|it| (it.block as usize) < chunk.end);
                    writer.write(&uses[from..to], chunk.start, &unpacked)
                }();
                turns.stop_at(filled)?;
            }
            Ok(())
        })
    }

    /// All runs, by block.
    fn uses(&self, targets: &Targets) -> Result<Vec<Use>, ImageError> {
        let mut uses = Vec::with_capacity(self.contents.owners.iter().map(|it| it.runs.len()).sum());
        for OwnerRuns { owner, runs } in &self.contents.owners {
            let target = match *owner {
                Owner::Process(index) => targets.processes.get(index).copied().flatten().map(|pid| (pid, 0)),
                Owner::Object(index) => targets.objects.get(index).map(|base| (targets.builder, *base)),
            };
            // An object at 0 is one that was not mapped.
            let target = target.filter(|(_, base)| *base != 0 || matches!(owner, Owner::Process(_)));
            let (pid, base) = target.ok_or(ImageError::NoTarget(*owner))?;
            let vmas = match *owner {
                Owner::Process(index) => Some(self.model().processes[index].memory.vmas.as_slice()),
                Owner::Object(_) => None,
            };
            uses.extend(runs.iter().map(|run| Use {
                block: run.block,
                pid,
                address: base.wrapping_add(run.start),
                at: run.at,
                bytes: run.bytes,
                writable: vmas.is_none_or(|vmas| is_writable(vmas, run)),
            }));
        }
        uses.sort_unstable_by_key(|it| (it.block, it.pid, it.address));
        Ok(uses)
    }
}

/// True when all of a run is in one writable VMA. `vmas` ascend.
fn is_writable(vmas: &[Vma], run: &Run) -> bool {
    let vma = vmas.get(vmas.partition_point(|it| it.end <= run.start));
    vma.is_some_and(|it| it.start <= run.start && run.end() <= it.end && it.protection & libc::PROT_WRITE as u32 != 0)
}

/// A thread that writes into processes.
#[derive(Debug, Default)]
struct Writer {
    /// /proc/PID/mem.
    files: HashMap<u32, File>,
}

impl Writer {
    /// `first`: number of the first block of those in `unpacked`.
    fn write(&mut self, uses: &[Use], first: usize, unpacked: &[&[u8]]) -> Result<(), ImageError> {
        let bytes = |it: &Use| &unpacked[it.block as usize - first][it.at as usize..][..it.bytes as usize];
        let mut rest = uses;
        while let Some(next) = rest.first() {
            if !next.writable {
                self.write_by_file(next.pid, next.address, bytes(next))?;
                rest = &rest[1..];
                continue;
            }
            let alike = rest.iter().take(IOV_MAX).take_while(|it| it.writable && it.pid == next.pid).count();
            let local: Vec<IoSlice<'_>> = rest[..alike].iter().map(|it| IoSlice::new(bytes(it))).collect();
            let remote: Vec<RemoteIoVec> = rest[..alike]
                .iter()
                .map(|it| RemoteIoVec { base: it.address as usize, len: it.bytes as usize })
                .collect();
            let written = match process_vm_writev(Pid::from_raw(next.pid as i32), &local, &remote) {
                Ok(written) => written,
                Err(Errno::EFAULT) => 0,
                Err(error) => return Err(error_at(next.pid, next.address)(error.into())),
            };
            rest = &rest[self.finish(&rest[..alike], written, bytes)?..];
        }
        Ok(())
    }

    /// How many of `uses` are done after `written` bytes. One that was cut off or refused is written by file: pages whose
    /// process may not write them after all, or an error that says which.
    fn finish<'a>(
        &mut self,
        uses: &[Use],
        mut written: usize,
        bytes: impl Fn(&Use) -> &'a [u8],
    ) -> Result<usize, ImageError> {
        for (number, it) in uses.iter().enumerate() {
            let length = it.bytes as usize;
            if written < length {
                self.write_by_file(it.pid, it.address + written as u64, &bytes(it)[written..])?;
                return Ok(number + 1);
            }
            written -= length;
        }
        Ok(uses.len())
    }

    fn write_by_file(&mut self, pid: u32, address: u64, bytes: &[u8]) -> Result<(), ImageError> {
        let file = match self.files.entry(pid) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(free) => {
                let file = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"));
                free.insert(file.map_err(error_at(pid, address))?)
            }
        };
        let mut done = 0;
        while done < bytes.len() {
            let at = address + done as u64;
            match file.write_at(&bytes[done..], at) {
                Ok(0) => return Err(error_at(pid, at)(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error_at(pid, at)(error)),
            }
        }
        Ok(())
    }
}

fn error_at(pid: u32, address: u64) -> impl FnOnce(io::Error) -> ImageError {
    move |source| ImageError::Process { pid, address, source }
}
