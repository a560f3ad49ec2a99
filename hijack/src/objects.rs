//! Finds the function that a wrapper wraps: the next one of that name behind this library.
//!
//! `dlsym(RTLD_NEXT)` would do, but takes a lock, may allocate, is in libdl before glibc 2.34 (which a program need not
//! have), and does not see a libpthread that was loaded later into another scope. The dynamic linker's own list is
//! plain memory: walk it in load order, look into each object's hash table. Objects that came with the program are
//! never unloaded, and the libc that has what we look for is one of them.
#![allow(unsafe_code)] // the dynamic linker's structures

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::libc;

/// A function that a wrapper passes on to; looked for when first used.
#[repr(C)]
pub struct Next {
    /// First: wrappers in assembler read it. Null until it is found.
    address: AtomicPtr<c_void>,
    name: &'static CStr,
}

impl Next {
    /// The function of this name.
    pub const fn new(name: &'static CStr) -> Self {
        Self { address: AtomicPtr::new(core::ptr::null_mut()), name }
    }

    /// Its address. One that is missing is looked for again: its library may be loaded later.
    pub fn address(&self) -> Option<*const c_void> {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return Some(known);
        }
        let found = find(self.name)?;
        self.address.store(found.cast_mut(), Ordering::Relaxed);
        Some(found)
    }
}

/// `struct r_debug`, as far as needed.
#[repr(C)]
struct LoadedObjects {
    version: c_int,
    first: *const Object,
}

/// `struct link_map`.
#[repr(C)]
struct Object {
    base: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
    next: *const Object,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Dynamic {
    tag: usize,
    value: usize,
}

/// `Elf64_Sym`.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: u64,
}

/// Tags of `Dynamic`.
const DT_NULL: usize = 0;
const DT_HASH: usize = 4;
const DT_STRTAB: usize = 5;
const DT_SYMTAB: usize = 6;
const DT_GNU_HASH: usize = 0x6fff_fef5;
const DT_VERSYM: usize = 0x6fff_fff0;
/// Type of a function, in the lower half of `Symbol::info`.
const STT_FUNC: u8 = 2;
/// In `DT_VERSYM`: an old version, kept for programs that were linked with it.
const VERSION_HIDDEN: u16 = 0x8000;

fn find(name: &CStr) -> Option<*const c_void> {
    let list = libc::loaded_objects().cast::<LoadedObjects>();
    if list.is_null() {
        return None;
    }
    let ours = own_dynamic();
    let mut behind_us = false;
    // SAFETY: the dynamic linker's list: each `next` is null or an object; what came with the program stays.
    let mut object = unsafe { (*list).first };
    while !object.is_null() {
        // SAFETY: as above; an object's tables are mapped as long as it is in the list.
        let found = unsafe {
            let here = &*object;
            object = here.next;
            let found = if behind_us { Tables::of(here).find(name) } else { None };
            behind_us |= here.dynamic == ours;
            found
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn own_dynamic() -> *const Dynamic {
    let address;
    // SAFETY: every shared object has this name for its own dynamic section.
    unsafe {
        asm!(".hidden _DYNAMIC", "lea {}, [rip + _DYNAMIC]", out(reg) address,
            options(pure, nomem, nostack, preserves_flags));
    }
    address
}

/// The tables of an object by which a name is found; null where it has none.
struct Tables {
    base: usize,
    strings: *const c_char,
    symbols: *const Symbol,
    versions: *const u16,
    gnu_hash: *const u32,
    hash: *const u32,
}

impl Tables {
    /// # Safety
    /// `object` is in the dynamic linker's list.
    unsafe fn of(object: &Object) -> Self {
        let base = object.base;
        let mut tables = [0usize; 5];
        let mut entry = object.dynamic;
        // SAFETY: a dynamic section ends with DT_NULL.
        while let Dynamic { tag, value } = unsafe { &*entry }
            && *tag != DT_NULL
        {
            let wanted = [DT_STRTAB, DT_SYMTAB, DT_VERSYM, DT_GNU_HASH, DT_HASH];
            if let Some(index) = wanted.iter().position(|wanted| wanted == tag) {
                // glibc has added the base in place, musl has not, and the vdso is read-only.
                tables[index] = if *value < base { base + value } else { *value };
            }
            // SAFETY: not the last entry.
            entry = unsafe { entry.add(1) };
        }
        let [strings, symbols, versions, gnu_hash, hash] = tables;
        Self {
            base,
            strings: strings as *const c_char,
            symbols: symbols as *const Symbol,
            versions: versions as *const u16,
            gnu_hash: gnu_hash as *const u32,
            hash: hash as *const u32,
        }
    }

    /// # Safety
    /// The object is still mapped.
    unsafe fn find(&self, name: &CStr) -> Option<*const c_void> {
        if self.strings.is_null() || self.symbols.is_null() {
            return None;
        }
        // SAFETY: the tables of a mapped object.
        let index = unsafe {
            match (self.gnu_hash.is_null(), self.hash.is_null()) {
                (false, _) => self.find_by_gnu_hash(name),
                (true, false) => self.find_by_hash(name),
                (true, true) => None,
            }
        }?;
        // SAFETY: as above, and the index is one of the symbol table.
        Some((self.base + unsafe { (*self.symbols.add(index)).value }) as *const c_void)
    }

    /// Table: number of buckets, first hashed symbol, words of the filter, its shift; the filter; for each bucket its
    /// first symbol; for each symbol its hash, bit 0 set at the end of a bucket.
    unsafe fn find_by_gnu_hash(&self, name: &CStr) -> Option<usize> {
        let hash =
            name.to_bytes().iter().fold(5381u32, |hash, byte| hash.wrapping_mul(33).wrapping_add((*byte).into()));
        // SAFETY: the layout above.
        unsafe {
            let [buckets, first, filter] = [0, 1, 2].map(|word| *self.gnu_hash.add(word) as usize);
            if buckets == 0 {
                return None;
            }
            let bucket = self.gnu_hash.add(4 + 2 * filter);
            let chain = bucket.add(buckets);
            let mut index = *bucket.add(hash as usize % buckets) as usize;
            if index < first {
                return None;
            }
            loop {
                let other = *chain.add(index - first);
                if other | 1 == hash | 1 && self.defines(index, name) {
                    return Some(index);
                }
                if other & 1 == 1 {
                    return None;
                }
                index += 1;
            }
        }
    }

    /// Table: number of buckets, number of symbols; for each bucket its first symbol; for each symbol the next one.
    unsafe fn find_by_hash(&self, name: &CStr) -> Option<usize> {
        let hash = name.to_bytes().iter().fold(0u32, |hash, byte| {
            let hash = (hash << 4).wrapping_add((*byte).into());
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        // SAFETY: the layout above.
        unsafe {
            let buckets = *self.hash as usize;
            if buckets == 0 {
                return None;
            }
            let chain = self.hash.add(2 + buckets);
            let mut index = *self.hash.add(2 + hash as usize % buckets) as usize;
            while index != 0 {
                if self.defines(index, name) {
                    return Some(index);
                }
                index = *chain.add(index) as usize;
            }
        }
        None
    }

    /// Whether symbol `index` is a function of this name, defined here, in its present version.
    unsafe fn defines(&self, index: usize, name: &CStr) -> bool {
        // SAFETY: `index` comes from the object's hash table; names lie in its string table.
        unsafe {
            let symbol = &*self.symbols.add(index);
            let hidden = !self.versions.is_null() && *self.versions.add(index) & VERSION_HIDDEN != 0;
            let defined = symbol.section != 0 && symbol.value != 0 && symbol.info & 0xf == STT_FUNC && !hidden;
            defined && CStr::from_ptr(self.strings.add(symbol.name as usize)) == name
        }
    }
}
