//! Which pages of private memory have to be stored.
//!
//! | mapping | stored |
//! |---|---|
//! | anonymous, heap, stack | present or swapped out, but not the zero page |
//! | private, of a file or an object | those that are no longer the file's; zeros too, or the file would shine through |
//! | of our own library (flag [`WHOLE`]) | all: another installation has another file |
//! | shared, device, vDSO | none |
//!
//! Guard regions hold nothing and cannot be read: left out. PROT_NONE hides contents and does not take them away.

use std::io;

use node_agent_image::model::{Backing, Vma};

use super::Stretch;
use super::pagemap::Pagemap;
use crate::snapshot::WHOLE;

/// Stretches of the private memory of process `pid`, as this process numbers it, that have to be stored. Usually a
/// frozen twin of the process that `vmas` describe, with the same layout. `vmas` in ascending order.
///
/// # Errors
/// When /proc/PID/pagemap cannot be read.
pub fn private(pid: u32, vmas: &[Vma]) -> io::Result<Vec<Stretch>> {
    let mut stretches = Vec::new();
    let mut pagemap = Pagemap::open(pid)?;
    for vma in vmas {
        let first = stretches.len();
        match class(vma) {
            Class::Nothing => {}
            Class::Whole => stretches.push(Stretch { start: vma.start, end: vma.end, keep_zeros: false }),
            Class::Pages { over_file } => pagemap.pages(vma, over_file, &mut stretches)?,
        }
        join(&mut stretches, first, vmas);
    }
    Ok(stretches)
}

/// True for memory that a fork leaves out, empties, or may not have pages for: it is read from the parked process itself.
#[must_use]
pub fn not_in_twin(vma: &Vma) -> bool {
    let has = |flag: &str| vma.flags.iter().any(|it| it == flag);
    has("dc") || has("wf") || (has("ht") && !vma.shared)
}

enum Class {
    Nothing,
    Whole,
    Pages { over_file: bool },
}

fn class(vma: &Vma) -> Class {
    if vma.shared {
        return Class::Nothing;
    }
    match vma.backing {
        Backing::Vdso(_) | Backing::Device(_) => Class::Nothing,
        _ if vma.flags.iter().any(|it| it == WHOLE) => Class::Whole,
        Backing::Anonymous | Backing::Heap | Backing::Stack => Class::Pages { over_file: false },
        Backing::File { .. } | Backing::Object { .. } => Class::Pages { over_file: true },
    }
}

/// Joins the stretch at `first` to the one before it, unless one of the two can be read and the other cannot: the quick
/// way of reading stops at memory without PROT_READ.
fn join(stretches: &mut Vec<Stretch>, first: usize, vmas: &[Vma]) {
    if first == 0 || first >= stretches.len() {
        return;
    }
    let (last, next) = (stretches[first - 1], stretches[first]);
    let readable = |address: u64| {
        let at = vmas.partition_point(|it| it.end <= address);
        vmas[at].protection & libc::PROT_READ as u32
    };
    let same_kind = last.keep_zeros == next.keep_zeros && last.end == next.start;
    if same_kind && readable(last.end - 1) == readable(next.start) {
        stretches[first - 1].end = next.end;
        stretches.remove(first);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pagemap::tests::{PRIVATE, RW, map, touch, vma};
    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn neighbours_are_one_stretch_where_they_are_read_alike() {
        let at = map(6, RW, PRIVATE, None);
        (0..6).for_each(|page| touch(at, page, 1));
        let hidden = Vma { protection: 0, ..vma(at + 4 * PAGE, 2, Backing::Anonymous) };
        let vmas = [vma(at, 2, Backing::Anonymous), vma(at + 2 * PAGE, 2, Backing::Anonymous), hidden];
        let stretches = private(std::process::id(), &vmas).expect("they can be read");
        let stretch = |from, to| Stretch { start: at + from * PAGE, end: at + to * PAGE, keep_zeros: false };
        assert_eq!(stretches, [stretch(0, 4), stretch(4, 6)]);
    }

    #[test]
    fn of_our_own_library_everything() {
        let vma = Vma { flags: vec![WHOLE.into()], ..vma(map(8, RW, PRIVATE, None), 8, Backing::Anonymous) };
        let stretch = Stretch { start: vma.start, end: vma.end, keep_zeros: false };
        assert_eq!(private(std::process::id(), &[vma]).expect("it can be read"), [stretch]);
    }

    #[test]
    fn shared_memory_devices_and_the_vdso_have_no_private_pages() {
        let at = map(1, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, None);
        touch(at, 0, 1);
        let object = Backing::Object { object: 0, offset: 0 };
        let vmas = [
            Vma { shared: true, ..vma(at, 1, object) },
            vma(at, 1, Backing::Device("/dev/null".into())),
            vma(at, 1, Backing::Vdso("[vdso]".into())),
        ];
        assert!(private(std::process::id(), &vmas).expect("nothing to read").is_empty());
    }

    #[test]
    fn what_a_fork_does_not_copy() {
        let with = |flag: &str, shared| Vma { flags: vec![flag.into()], shared, ..Vma::default() };
        assert!(not_in_twin(&with("dc", false)) && not_in_twin(&with("wf", false)) && not_in_twin(&with("ht", false)));
        assert!(!not_in_twin(&with("ht", true)) && !not_in_twin(&with("nr", false)));
    }
}
