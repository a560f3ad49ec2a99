//! The address space: everything else goes, everything of old comes.

use hijack_abi::orders::{Mapping, Orders, Step, advice};

use crate::call::{Failure, array, may, must};

const SYS_MMAP: usize = 9;
const SYS_MPROTECT: usize = 10;
const SYS_MUNMAP: usize = 11;
const SYS_MADVISE: usize = 28;
const SYS_SHMAT: usize = 30;
const SYS_MLOCK: usize = 149;
const SYS_PRCTL: usize = 157;
const SYS_ARCH_PRCTL: usize = 158;
const SYS_RSEQ: usize = 334;
const ARCH_MAP_VDSO_64: usize = 0x2003;
const MAP_FIXED_NOREPLACE: u32 = 0x10_0000;
const RSEQ_FLAG_UNREGISTER: usize = 1;
const SHM_RDONLY: usize = 0o10000;
const SHM_EXEC: usize = 0o100000;
const PROT_WRITE: u32 = 2;
const PROT_EXEC: u32 = 4;
const PR_SET_MM: usize = 35;
const PR_SET_MM_MAP: usize = 14;
/// End of the lower half with four-level page tables; five-level addresses are only given to those who ask.
const TASK_END: u64 = 0x7fff_ffff_f000;

/// Unmaps all but the restorer's region and puts the vDSO where it was.
pub fn clear(orders: &Orders) -> Result<(), Failure> {
    let [address, length, signature] = orders.old_rseq;
    if address != 0 {
        let arguments = [address as usize, length as usize, RSEQ_FLAG_UNREGISTER, signature as usize, 0, 0];
        must(Step::Rseq, address, SYS_RSEQ, arguments)?;
    }
    let [start, end] = orders.region;
    must(Step::Unmap, 0, SYS_MUNMAP, [0, start as usize, 0, 0, 0, 0])?;
    must(Step::Unmap, end, SYS_MUNMAP, [end as usize, (TASK_END - end) as usize, 0, 0, 0, 0])?;
    if orders.vdso != 0 {
        must(Step::Vdso, orders.vdso, SYS_ARCH_PRCTL, [ARCH_MAP_VDSO_64, orders.vdso as usize, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Maps everything at its address with its final protection; the contents come from outside.
pub fn map(orders: &'static Orders) -> Result<(), Failure> {
    for mapping in array::<Mapping>(orders, orders.mappings) {
        if mapping.attach != 0 {
            attach(mapping)?;
            continue;
        }
        let length = (mapping.end - mapping.start) as usize;
        let flags = mapping.flags | MAP_FIXED_NOREPLACE;
        let arguments = [
            mapping.start as usize,
            length,
            mapping.protection as usize,
            flags as usize,
            mapping.descriptor as isize as usize,
            mapping.offset as usize,
        ];
        let at = must(Step::Map, mapping.start, SYS_MMAP, arguments)?;
        if at as u64 != mapping.start {
            return Err(Failure::new(Step::Map, -17, mapping.start));
        }
    }
    Ok(())
}

/// The first part of a System V segment attaches all of it; further parts only differ in protection.
fn attach(mapping: &Mapping) -> Result<(), Failure> {
    let (start, length) = (mapping.start as usize, (mapping.end - mapping.start) as usize);
    if mapping.offset == 0 {
        let read_only = if mapping.protection & PROT_WRITE == 0 { SHM_RDONLY } else { 0 };
        let execute = if mapping.protection & PROT_EXEC != 0 { SHM_EXEC } else { 0 };
        must(Step::Attach, mapping.start, SYS_SHMAT, [mapping.shm as usize, start, read_only | execute, 0, 0, 0])?;
    } else {
        must(Step::Attach, mapping.start, SYS_MPROTECT, [start, length, mapping.protection as usize, 0, 0, 0])?;
    }
    Ok(())
}

/// brk, stack, arguments, environment, auxiliary vector, executable.
pub fn describe(orders: &Orders) -> Result<(), Failure> {
    let map = &raw const orders.mm as usize;
    must(Step::MmMap, 0, SYS_PRCTL, [PR_SET_MM, PR_SET_MM_MAP, map, size_of_val(&orders.mm), 0, 0])?;
    Ok(())
}

/// Advice bit and MADV_*; a kernel built without a feature refuses its advice, and nothing depends on it.
const ADVICE: [(u32, usize); 6] = [
    (advice::DONTFORK, 10),
    (advice::DONTDUMP, 16),
    (advice::WIPEONFORK, 18),
    (advice::HUGEPAGE, 14),
    (advice::NOHUGEPAGE, 15),
    (advice::MERGEABLE, 12),
];

/// madvise and mlock, now that the pages are there.
pub fn advise(orders: &'static Orders) -> Result<(), Failure> {
    for mapping in array::<Mapping>(orders, orders.mappings) {
        let (start, length) = (mapping.start as usize, (mapping.end - mapping.start) as usize);
        for (bit, number) in ADVICE {
            if mapping.advice & bit == 0 {
                continue;
            }
            let arguments = [start, length, number, 0, 0, 0];
            if bit & (advice::DONTFORK | advice::WIPEONFORK) != 0 {
                must(Step::Advice, mapping.start, SYS_MADVISE, arguments)?;
            } else {
                may(SYS_MADVISE, arguments);
            }
        }
        if mapping.advice & advice::LOCK != 0 {
            must(Step::Advice, mapping.start, SYS_MLOCK, [start, length, 0, 0, 0, 0])?;
        }
    }
    Ok(())
}
