//! The table as it lies in the segment: who replaces it, who looks up in it.

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::{CONNECTIONS, Connection, ENTRIES, Endpoint, Entry, Ports, Sorted, TableError, Target};

/// The part of the segment that is about addresses.
#[repr(C, align(4096))]
pub struct Addresses {
    /// First, so that the library finds it by its offset. 0: there is no table. Else the epoch in its upper half, a count in its lower; bit 0 says which table counts. Agent writes.
    generation: AtomicU64,
    tables: [AddressTable; 2],
}

impl Addresses {
    /// None, for tests: elsewhere it is memory of zeros.
    #[cfg(test)]
    pub(super) const fn new() -> Self {
        Self { generation: AtomicU64::new(0), tables: [const { AddressTable::new() }; 2] }
    }

    /// Whether there is a table.
    #[inline(always)]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.generation() != 0
    }

    /// Which table counts; every replacement has another.
    #[inline(always)]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What `look` finds in the table, in one that was not replaced meanwhile. An empty one where there is none.
    pub fn read<T>(&self, look: impl Fn(&AddressTable) -> T) -> T {
        loop {
            let generation = self.generation();
            let found = look(self.table(generation));
            fence(Ordering::Acquire);
            if self.generation.load(Ordering::Relaxed) == generation {
                return found;
            }
        }
    }

    /// Puts a table in the place of what there is. One writer at a time. `epoch` is the segment's.
    ///
    /// # Errors
    /// It breaks rule 3, or is too large.
    pub fn replace(&self, epoch: u32, table: &Sorted<'_>) -> Result<(), TableError> {
        table.check()?;
        let count = (self.generation() as u32).wrapping_add(1).max(1);
        let generation = u64::from(epoch) << 32 | u64::from(count);
        // Whoever still reads what is written over now has to see the generation before.
        fence(Ordering::Release);
        self.table(generation).store(table);
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    fn table(&self, generation: u64) -> &AddressTable {
        let [even, odd] = &self.tables;
        if generation & 1 == 0 { even } else { odd }
    }
}

/// A table as it lies in the segment. Words are atomic, so that one that is being replaced can be read, though not believed.
#[repr(C)]
pub struct AddressTable {
    by_old_len: AtomicU32,
    by_new_len: AtomicU32,
    connections_len: AtomicU32,
    /// First and last, 16 bits each.
    ports: AtomicU32,
    by_old: [EntryCell; ENTRIES],
    by_new: [EntryCell; ENTRIES],
    connections: [ConnectionCell; CONNECTIONS],
}

impl AddressTable {
    #[cfg(test)]
    const fn new() -> Self {
        Self {
            by_old_len: AtomicU32::new(0),
            by_new_len: AtomicU32::new(0),
            connections_len: AtomicU32::new(0),
            ports: AtomicU32::new(0),
            by_old: [const { EntryCell([const { AtomicU64::new(0) }; 6]) }; ENTRIES],
            by_new: [const { EntryCell([const { AtomicU64::new(0) }; 6]) }; ENTRIES],
            connections: [const { ConnectionCell([const { AtomicU64::new(0) }; 9]) }; CONNECTIONS],
        }
    }

    /// Where an old endpoint is now; `None`: where it was.
    #[must_use]
    pub fn to_new(&self, old: Endpoint) -> Option<Target> {
        let entry = self.entry(old).or_else(|| self.entry(old.whole()))?;
        let port = if entry.new.port == 0 { old.port } else { entry.new.port };
        Some(Target { endpoint: Endpoint { address: entry.new.address, port }, own: entry.own })
    }

    /// As whom programs remember somebody; `None`: as this.
    #[must_use]
    pub fn to_old_peer(&self, new: Endpoint) -> Option<Endpoint> {
        self.to_old(new, false)
    }

    /// As what programs remember an address of their own; `None`: as this.
    #[must_use]
    pub fn to_old_own(&self, new: Endpoint) -> Option<Endpoint> {
        self.to_old(new, true)
    }

    /// The remembered ends (local, remote) of a connection with these real ones.
    #[must_use]
    pub fn connection(&self, real: [Endpoint; 2]) -> Option<[Endpoint; 2]> {
        let cells = used(&self.connections, &self.connections_len);
        let found = cells.get(first_not_below(cells, |cell| cell.real() < real))?.load();
        (found.real == real).then_some(found.remembered)
    }

    /// Whether it holds connections at all: who asks for one needs both its ends.
    #[must_use]
    pub fn has_connections(&self) -> bool {
        self.connections_len.load(Ordering::Relaxed) != 0
    }

    /// The slice of this virtual node.
    #[must_use]
    pub fn ports(&self) -> Ports {
        let word = self.ports.load(Ordering::Relaxed);
        Ports { first: (word >> 16) as u16, last: word as u16 }
    }

    fn entry(&self, old: Endpoint) -> Option<Entry> {
        let cells = used(&self.by_old, &self.by_old_len);
        let found = cells.get(first_not_below(cells, |cell| cell.old_end() < old))?.load();
        (found.old == old).then_some(found)
    }

    fn to_old(&self, new: Endpoint, own_only: bool) -> Option<Endpoint> {
        let exact = if new.port == 0 { None } else { self.entry_of(new, 0, own_only) };
        let entry = exact.or_else(|| self.entry_of(new.whole(), new.port, own_only))?;
        let port = if entry.old.port == 0 { new.port } else { entry.old.port };
        Some(Endpoint { address: entry.old.address, port })
    }

    /// The entry that leads back from `new`: one whose slice has `port`, else the first.
    fn entry_of(&self, new: Endpoint, port: u16, own_only: bool) -> Option<Entry> {
        let cells = used(&self.by_new, &self.by_new_len);
        let mut at = first_not_below(cells, |cell| cell.new_end() < new);
        let mut first = None;
        while let Some(entry) = cells.get(at).map(EntryCell::load).filter(|entry| entry.new == new) {
            if entry.own || !own_only {
                if entry.ports.contains(port) {
                    return Some(entry);
                }
                first = first.or(Some(entry));
            }
            at += 1;
        }
        first
    }

    fn store(&self, table: &Sorted<'_>) {
        for (cells, entries) in [(&self.by_old, table.by_old), (&self.by_new, table.by_new)] {
            for (cell, entry) in cells.iter().zip(entries) {
                cell.store(entry);
            }
        }
        for (cell, connection) in self.connections.iter().zip(table.connections) {
            cell.store(connection);
        }
        let Ports { first, last } = table.ports;
        self.ports.store(u32::from(first) << 16 | u32::from(last), Ordering::Relaxed);
        self.by_old_len.store(table.by_old.len() as u32, Ordering::Relaxed);
        self.by_new_len.store(table.by_new.len() as u32, Ordering::Relaxed);
        self.connections_len.store(table.connections.len() as u32, Ordering::Relaxed);
    }
}

/// Old address, new address, ports (old, new, slice: 16 bits each from the top), own.
#[repr(C)]
struct EntryCell([AtomicU64; 6]);

impl EntryCell {
    fn load(&self) -> Entry {
        let [_, _, _, _, ports, own] = &self.0;
        let [_, _, first, last] = unpack(load(ports));
        Entry { old: self.old_end(), new: self.new_end(), ports: Ports { first, last }, own: load(own) != 0 }
    }

    fn old_end(&self) -> Endpoint {
        let [a, b, _, _, ports, _] = &self.0;
        Endpoint::of([load(a), load(b)], unpack(load(ports))[0])
    }

    fn new_end(&self) -> Endpoint {
        let [_, _, a, b, ports, _] = &self.0;
        Endpoint::of([load(a), load(b)], unpack(load(ports))[1])
    }

    fn store(&self, entry: &Entry) {
        let ([a, b], [c, d]) = (entry.old.words(), entry.new.words());
        let ports = pack([entry.old.port, entry.new.port, entry.ports.first, entry.ports.last]);
        for (word, value) in self.0.iter().zip([a, b, c, d, ports, entry.own.into()]) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// Four addresses, their ports.
#[repr(C)]
struct ConnectionCell([AtomicU64; 9]);

impl ConnectionCell {
    fn load(&self) -> Connection {
        let [_, _, _, _, a, b, c, d, ports] = &self.0;
        let [_, _, local, remote] = unpack(load(ports));
        let remembered = [Endpoint::of([load(a), load(b)], local), Endpoint::of([load(c), load(d)], remote)];
        Connection { real: self.real(), remembered }
    }

    fn real(&self) -> [Endpoint; 2] {
        let [a, b, c, d, _, _, _, _, ports] = &self.0;
        let [local, remote, _, _] = unpack(load(ports));
        [Endpoint::of([load(a), load(b)], local), Endpoint::of([load(c), load(d)], remote)]
    }

    fn store(&self, connection: &Connection) {
        let [local, remote] = connection.real;
        let [old_local, old_remote] = connection.remembered;
        let all = [local, remote, old_local, old_remote];
        let addresses = all.iter().flat_map(|endpoint| endpoint.words());
        let values = addresses.chain([pack(all.map(|endpoint| endpoint.port))]);
        for (word, value) in self.0.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

const fn pack([a, b, c, d]: [u16; 4]) -> u64 {
    (a as u64) << 48 | (b as u64) << 32 | (c as u64) << 16 | d as u64
}

const fn unpack(word: u64) -> [u16; 4] {
    [(word >> 48) as u16, (word >> 32) as u16, (word >> 16) as u16, word as u16]
}

/// The cells in use. What the length says may be of a table that is being replaced.
fn used<'a, T>(cells: &'a [T], len: &AtomicU32) -> &'a [T] {
    cells.get(..len.load(Ordering::Relaxed) as usize).unwrap_or_default()
}

/// The first cell that is not below what is looked for.
fn first_not_below<T>(cells: &[T], is_below: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut high) = (0, cells.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if cells.get(middle).is_some_and(&is_below) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

const _: () = {
    assert!(size_of::<EntryCell>() == 48);
    assert!(size_of::<ConnectionCell>() == 72);
    assert!(offset_of!(Addresses, generation) == 0);
    assert!(offset_of!(Addresses, tables) == 8);
    assert!(offset_of!(AddressTable, by_old) == 16);
};
