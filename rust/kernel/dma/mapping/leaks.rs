// SPDX-License-Identifier: GPL-2.0

//! Memory that is never freed, since the device was never proven to be done with it.
//!
//! Each leak is logged and counted. With `CONFIG_RUST_DMA_DEBUG` it also taints the kernel, and is
//! held against the device: one for which [`MAX_LEAKED_PAGES`] were leaked is not bound again.

#[cfg(CONFIG_RUST_DMA_DEBUG)]
use super::mapper::is_same;
#[cfg(CONFIG_RUST_DMA_DEBUG)]
use super::orphan::Abandoned;
use super::orphan::{
    pages,
    List, //
};
#[cfg(CONFIG_RUST_DMA_DEBUG)]
use crate::{
    bindings, fmt,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Full, //
        },
    },
};
use crate::{
    device::Device,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// How much a device may leak and still be bound: 4 MiB, with pages of 4 KiB.
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub(in crate::dma) const MAX_LEAKED_PAGES: usize = 1024;

static LEAKED: Atomic<u64> = Atomic::new(0);

/// Leaks orphans that the device may still access, and logs that. Context: any.
#[cold]
pub(in crate::dma) fn leak(dev: &Device, orphans: List) {
    let (count, pages) = orphans.size();
    let orphans = orphans.abandon();

    report(dev, count, pages);

    #[cfg(CONFIG_RUST_DMA_DEBUG)]
    hold_against(dev, pages, orphans);
    #[cfg(not(CONFIG_RUST_DMA_DEBUG))]
    let _ = orphans;
}

/// Logs and counts the leak of one orphan of that many bytes, where there was no memory to keep a
/// record of it. Context: any.
#[cold]
pub(super) fn leak_bytes(dev: &Device, bytes: usize) {
    report(dev, 1, pages(bytes));

    #[cfg(CONFIG_RUST_DMA_DEBUG)]
    hold_against(dev, pages(bytes), Abandoned::default());
}

fn report(dev: &Device, count: u64, pages: usize) {
    LEAKED.fetch_add(count, Relaxed);
    dev_err!(
        dev,
        "leaked {pages} pages in {count} pieces: the device may still access them\n"
    );
}

/// Returns how many pieces of memory were leaked since boot: buffers, blocks, rings, contents of a
/// session.
///
/// A test compares the number before and after. It is 0 in a system whose drivers are right and
/// whose devices stop. A piece is leaked if it was dropped while its device might access it, and
/// the device was not proven to have stopped before it was unbound. Context: any.
///
/// # Examples
///
/// ```
/// let before = kernel::dma::leaked();
///
/// // ... what is tested ...
/// assert_eq!(kernel::dma::leaked(), before);
/// ```
pub fn leaked() -> u64 {
    LEAKED.load(Relaxed)
}

/// What was leaked for a device at one time.
#[cfg(CONFIG_RUST_DMA_DEBUG)]
struct Leak {
    dev: ARef<Device>,
    pages: usize,
    _orphans: Abandoned,
    next: *const Leak,
}

/// All that was leaked since boot: a list. Elements are added to its front, and never removed.
#[cfg(CONFIG_RUST_DMA_DEBUG)]
static LEAKS: Atomic<usize> = Atomic::new(0);

#[cfg(CONFIG_RUST_DMA_DEBUG)]
static LEAKED_PAGES: Atomic<usize> = Atomic::new(0);

#[cfg(CONFIG_RUST_DMA_DEBUG)]
fn hold_against(dev: &Device, pages: usize, orphans: Abandoned) {
    LEAKED_PAGES.fetch_add(pages, Relaxed);

    // SAFETY: No requirements.
    unsafe { bindings::add_taint(bindings::TAINT_WARN, bindings::lockdep_ok_LOCKDEP_STILL_OK) };

    // Without memory for a list element, this leak doesn't count against the device.
    let Ok(mut new) = KBox::new(
        Leak {
            dev: dev.into(),
            pages,
            _orphans: orphans,
            next: core::ptr::null(),
        },
        GFP_ATOMIC,
    ) else {
        return;
    };

    let mut first = LEAKS.load(Acquire);

    loop {
        new.next = core::ptr::with_exposed_provenance(first);

        match LEAKS.cmpxchg(first, (&raw const *new).expose_provenance(), Full) {
            Ok(_) => break,
            Err(other) => first = other,
        }
    }

    // The list owns it now.
    let _ = KBox::into_raw(new);
}

/// Refuses to bind a device for which too much was leaked.
///
/// # Errors
///
/// [`ENOSPC`].
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub(super) fn check(dev: &Device) -> Result {
    let mut next = core::ptr::with_exposed_provenance::<Leak>(LEAKS.load(Acquire));
    let mut pages = 0;

    // SAFETY: `next` is null, or points to an element of the list, which is never freed.
    while let Some(leak) = unsafe { next.as_ref() } {
        if is_same(&leak.dev, dev) {
            pages += leak.pages;
        }

        next = leak.next;
    }

    if pages < MAX_LEAKED_PAGES {
        return Ok(());
    }

    dev_err!(
        dev,
        "not bound: {pages} pages were leaked since the device could not be proven to have \
         stopped; it takes a reboot, or a new device\n"
    );
    Err(ENOSPC)
}

/// Writes the counters for a person to read.
#[cfg(CONFIG_RUST_DMA_DEBUG)]
pub(in crate::dma) fn show(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "leaked {}", LEAKED.load(Relaxed))?;
    writeln!(f, "leaked_pages {}", LEAKED_PAGES.load(Relaxed))
}
