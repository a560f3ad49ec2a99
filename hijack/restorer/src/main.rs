//! The freestanding program that lays a restarted process out and jumps into it.
//!
//! It is not executed but mapped, by the process that is to become the old one, into a hole of the saved layout, and
//! entered with the address of its [`Orders`]. From then on it is the only code there: no libc, no allocator, no TLS, no
//! thread-local errno. Law of this crate: raw calls only; no panic can be reached; whatever fails is written into the
//! orders, and the process then waits to be killed.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // raw system calls, an address space of its own

mod call;
mod layout;
mod memory;
mod process;
mod threads;

use core::sync::atomic::Ordering;

use hijack_abi::orders::{Orders, Step, stage};

use call::Failure;

/// Entry, with the leader's stack of the region.
///
/// # Safety
/// `orders` is the address of complete orders, see [`Orders`]; nothing of the old address space is used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _start(orders: *const Orders) -> ! {
    // SAFETY: the process that jumped here wrote the orders and keeps them mapped; only atomics change from now on.
    let orders = unsafe { &*orders };
    if let Err(failure) = restore(orders) {
        call::fail(orders, failure);
    }
    call::halt()
}

fn restore(orders: &'static Orders) -> Result<(), Failure> {
    if orders.magic != hijack_abi::orders::ORDERS_MAGIC || orders.version != hijack_abi::VERSION {
        return Err(Failure::new(Step::Orders, -22, orders.version.into()));
    }
    call::enter(orders, stage::STARTED);
    layout::clear(orders)?;
    layout::map(orders)?;
    call::enter(orders, stage::MAPPED);
    call::wait_until_filled(orders);
    layout::describe(orders)?;
    layout::advise(orders)?;
    process::restore(orders)?;
    call::enter(orders, stage::THREADS);
    threads::make(orders)?;
    process::start_timers(orders)?;
    orders.stage.store(stage::LEFT, Ordering::Release);
    threads::leave_as_leader(orders)
}

// Clippy looks at a test build too, where std has one.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    call::halt()
}

/// The prebuilt core library's unwind tables name it; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
