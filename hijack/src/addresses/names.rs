//! struct sockaddr of the families that are translated, and endpoints.
#![allow(unsafe_code)] // the program's buffers

use core::ptr;

use hijack_abi::addresses::Endpoint;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Bytes of the longest name that is translated, `struct sockaddr_in6`.
pub const NAME_BYTES: u32 = 28;
/// Bytes that hold family, port and address; what may come behind them is not looked at.
const V4_BYTES: u32 = 8;
const V6_BYTES: u32 = 24;
const V4_MAPPED: u128 = 0xffff << 32;

/// A name, as long as it was up to [`NAME_BYTES`].
#[repr(C)]
pub struct Name {
    family: u16,
    port: [u8; 2],
    /// IPv4: the address, zeros. IPv6: flow information (4), address (16), scope (4).
    rest: [u8; 24],
    len: u32,
}

const _: () = assert!(core::mem::offset_of!(Name, len) == NAME_BYTES as usize);

impl Name {
    /// Room for one.
    pub const EMPTY: Self = Self { family: 0, port: [0; 2], rest: [0; 24], len: 0 };

    /// A copy of a name.
    ///
    /// # Safety
    /// `len` bytes can be read, or the name is null.
    pub unsafe fn copy(name: *const u8, len: u32) -> Self {
        let mut copy = Self::EMPTY;
        if !name.is_null() {
            copy.len = len.min(NAME_BYTES);
            // SAFETY: as the caller vouches; the fields before `len` have room for that many.
            unsafe { ptr::copy_nonoverlapping(name, copy.start(), copy.len as usize) };
        }
        copy
    }

    /// A name that `fill` writes for the kernel: address of the bytes, address of their number. None where it fails.
    pub fn filled(fill: impl FnOnce(usize, usize) -> isize) -> Option<Self> {
        let mut name = Self { len: NAME_BYTES, ..Self::EMPTY };
        let bytes = name.start() as usize;
        let result = fill(bytes, (&raw mut name.len) as usize);
        name.len = name.len.min(NAME_BYTES);
        (result == 0).then_some(name)
    }

    /// The unspecified address and no port, in this name's family.
    pub fn unspecified(&self) -> Self {
        let len = if self.family == AF_INET { 16 } else { NAME_BYTES };
        Self { family: self.family, len, ..Self::EMPTY }
    }

    /// Whether it is an unspecified address without port: that of a socket that nobody has bound.
    pub fn is_unbound(&self) -> bool {
        self.endpoint().is_some_and(|it| it.port == 0 && [0, V4_MAPPED].contains(&it.address))
    }

    /// Its endpoint, if its family is one that is translated and it is all there.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let [v4 @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = self.rest;
        let [_, _, _, _, v6 @ .., _, _, _, _] = self.rest;
        let address = match self.family {
            AF_INET if self.len >= V4_BYTES => V4_MAPPED | u128::from(u32::from_be_bytes(v4)),
            AF_INET6 if self.len >= V6_BYTES => u128::from_be_bytes(v6),
            _ => return None,
        };
        Some(Endpoint { address, port: u16::from_be_bytes(self.port) })
    }

    /// Makes it the name of an endpoint. False, and nothing done, where its family has no such address.
    pub fn set(&mut self, endpoint: Endpoint) -> bool {
        let place = match (self.family, endpoint.v4()) {
            (AF_INET, Some(address)) => self.rest.first_chunk_mut().map(|place| *place = address.to_be_bytes()),
            (AF_INET6, _) => {
                let [_, _, _, _, v6 @ .., _, _, _, _] = &mut self.rest;
                *v6 = endpoint.address.to_be_bytes();
                Some(())
            }
            _ => None,
        };
        if place.is_some() {
            self.port = endpoint.port.to_be_bytes();
        }
        place.is_some()
    }

    /// Writes as much of it as there is room for.
    ///
    /// # Safety
    /// `room` bytes can be written to `buffer`.
    pub unsafe fn write(&mut self, buffer: *mut u8, room: u32) {
        // SAFETY: as the caller vouches; no more than the fields before `len` have.
        unsafe { ptr::copy_nonoverlapping(self.start(), buffer, room.min(self.len) as usize) };
    }

    /// Where its bytes begin.
    pub fn start(&mut self) -> *mut u8 {
        (&raw mut *self).cast()
    }

    /// Bytes of it.
    pub fn len(&self) -> u32 {
        self.len
    }
}
