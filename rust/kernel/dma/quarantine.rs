// SPDX-License-Identifier: GPL-2.0

//! Memory that a device may still access, though nobody uses it any more.
//!
//! A mapped buffer that is dropped while the device owns it must be neither unmapped nor freed. It
//! is kept by the device's [`Binding`](super::binding::Binding), in any context and without
//! sleeping, until a stop proves that the device is done with it. What was never proven when the
//! device is unbound is leaked: counted, and reported. A device that has made the kernel leak
//! [`MAX_LEAKED_PAGES`] is not bound again.

use super::configured::is_same;
use crate::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        SpinLockIrq, //
    }, //
};
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};

/// How much a device may leak and still be bound: 4 MiB, with pages of 4 KiB.
pub(super) const MAX_LEAKED_PAGES: usize = 1024;

/// Something that a device may access, and that is no longer used.
///
/// # Safety
///
/// `release` must be safe to call in any context in which the value may be dropped, and in process
/// context, by any thread.
pub(super) unsafe trait Keep: Send {
    /// Whether nobody should have dropped it: that is logged and counted.
    const ACCIDENT: bool;

    /// How much memory it is, about.
    fn bytes(&self) -> usize;

    /// Frees it.
    ///
    /// # Safety
    ///
    /// The device must have been proven not to access it any more, and still be bound.
    unsafe fn release(self);
}

/// The links of what is kept.
struct Link {
    next: Option<NonNull<Link>>,
    pages: usize,
    accident: bool,
    release: unsafe fn(NonNull<Link>),
}

#[repr(C)]
struct Kept<K> {
    link: Link,
    what: K,
}

/// # Safety
///
/// `link` must be that of a `KBox<Kept<K>>`, which nobody else uses, and the requirements of
/// [`Keep::release`] hold.
unsafe fn release<K: Keep>(link: NonNull<Link>) {
    // SAFETY: By the safety requirements; the link comes first.
    let kept = unsafe { KBox::<Kept<K>>::from_raw(link.as_ptr().cast()) };

    // SAFETY: By the safety requirements.
    unsafe { KBox::into_inner(kept).what.release() };
}

/// A list of what is kept.
#[derive(Default)]
pub(super) struct List(Option<NonNull<Link>>);

impl List {
    /// Allows it to be freed.
    ///
    /// # Safety
    ///
    /// As [`Keep::release`], for all of it, until it is released.
    pub(super) unsafe fn free(self) -> Free {
        Free(self)
    }
}

/// What was kept, and may now be freed. Dropping it leaks it.
#[derive(Default)]
#[must_use]
pub(super) struct Free(List);

impl Free {
    /// Frees all of it; returns how many accidents there were.
    ///
    /// Context: may sleep.
    pub(super) fn release(self) -> u64 {
        let mut next = self.0 .0;
        let mut count = 0;

        while let Some(link) = next {
            // SAFETY: What is in a list is valid, and ours.
            let kept = unsafe { link.read() };

            // SAFETY: By the contract of `List::free()`; it is taken from the list.
            unsafe { (kept.release)(link) };
            next = kept.next;
            count += u64::from(kept.accident);
        }

        count
    }
}

/// What is kept for one binding of a device.
///
/// Dropping it leaks what is left.
pub(super) struct Quarantine {
    dev: ARef<Device>,
    list: List,
    quarantined: u64,
    reclaimed: u64,
}

// SAFETY: What is kept is `Send`.
unsafe impl Send for Quarantine {}

impl Quarantine {
    pub(super) fn new(dev: ARef<Device>) -> Self {
        Self {
            dev,
            list: List::default(),
            quarantined: 0,
            reclaimed: 0,
        }
    }

    /// Keeps `what`, unless `needed` says, under the lock, that there is no need any more: then it
    /// comes back.
    ///
    /// Without memory to remember it, it is leaked. Context: any.
    pub(super) fn keep<K: Keep>(
        this: &SpinLockIrq<Self>,
        dev: &Device<Bound>,
        what: K,
        needed: impl FnOnce() -> bool,
    ) -> Result<(), K> {
        let bytes = what.bytes();
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        let memory = KBox::<MaybeUninit<Kept<K>>>::new_uninit(GFP_ATOMIC);
        let mut quarantine = this.lock();

        if !needed() {
            return Err(what);
        }

        let first = K::ACCIDENT && quarantine.quarantined == 0;

        if K::ACCIDENT {
            quarantine.quarantined += 1;
            QUARANTINED.fetch_add(1, Relaxed);
        }

        match memory {
            Ok(memory) => {
                let kept = KBox::into_raw(memory.write(MaybeUninit::new(Kept {
                    link: Link {
                        next: quarantine.list.0.take(),
                        pages,
                        accident: K::ACCIDENT,
                        release: release::<K>,
                    },
                    what,
                })));

                quarantine.list.0 = NonNull::new(kept.cast());
            }
            Err(_) => {
                core::mem::forget(what);
                leak(&quarantine.dev, 1, pages, None);
            }
        }
        drop(quarantine);

        if first {
            dev_err!(
                dev,
                "{bytes} bytes were dropped while the device might access them; \
                 kept until it is proven not to (and any others, silently)\n"
            );
        }

        Ok(())
    }

    /// Takes all that is kept.
    pub(super) fn take(&mut self) -> List {
        core::mem::take(&mut self.list)
    }

    pub(super) fn count_reclaimed(&mut self, count: u64) {
        self.reclaimed += count;
        RECLAIMED.fetch_add(count, Relaxed);
    }

    /// Returns how many accidents there were, and how many of them were made good.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.quarantined, self.reclaimed)
    }

    /// Refuses a device that has leaked too much.
    pub(super) fn check_leaks(dev: &Device<Bound>) -> Result {
        let pages = leaked_pages(dev);

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
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        let (mut count, mut pages) = (0, 0);
        let list = self.list.0.take();
        let mut next = list;

        while let Some(link) = next {
            // SAFETY: What is in a list is valid, and ours.
            let link = unsafe { link.as_ref() };

            next = link.next;
            pages += link.pages;
            count += 1;
        }

        if count > 0 {
            leak(&self.dev, count, pages, list);
        }
    }
}

/// What a device has leaked, at one time.
struct Leak {
    dev: ARef<Device>,
    pages: usize,
    /// For debuggers, and for kmemleak, which knows of a leak already when it finds this.
    _list: Option<NonNull<Link>>,
    next: *const Leak,
}

/// All that was leaked since boot. Nothing is ever taken off: the memory isn't given back.
static LEAKS: Atomic<usize> = Atomic::new(0);

static QUARANTINED: Atomic<u64> = Atomic::new(0);
static RECLAIMED: Atomic<u64> = Atomic::new(0);
static LEAKED: Atomic<u64> = Atomic::new(0);
static LEAKED_PAGES: Atomic<usize> = Atomic::new(0);

fn leaked_pages(dev: &Device) -> usize {
    let mut next = core::ptr::with_exposed_provenance::<Leak>(LEAKS.load(Acquire));
    let mut pages = 0;

    // SAFETY: Null, or an element of the list, which stays for good.
    while let Some(leak) = unsafe { next.as_ref() } {
        if is_same(&leak.dev, dev) {
            pages += leak.pages;
        }

        next = leak.next;
    }

    pages
}

/// Counts what will never be freed, and says so. Context: any.
#[cold]
fn leak(dev: &ARef<Device>, count: u64, pages: usize, list: Option<NonNull<Link>>) {
    dev_err!(
        dev,
        "leaked {pages} pages in {count} pieces: the device may still access them\n"
    );
    count_leak(dev, count, pages, list);
}

fn count_leak(dev: &ARef<Device>, count: u64, pages: usize, list: Option<NonNull<Link>>) {
    LEAKED.fetch_add(count, Relaxed);
    LEAKED_PAGES.fetch_add(pages, Relaxed);

    // SAFETY: No requirements.
    unsafe { bindings::add_taint(bindings::TAINT_WARN, bindings::lockdep_ok_LOCKDEP_STILL_OK) };

    // Without memory it isn't held against the device.
    let Ok(mut new) = KBox::new(
        Leak {
            dev: dev.clone(),
            pages,
            _list: list,
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

    // It belongs to the list now.
    let _ = KBox::into_raw(new);
}

/// Leaks what can't be kept, since the device's record is gone: its resources are being released.
///
/// Counts it, and says so once. Context: any.
#[cold]
pub(super) fn lose<K: Keep>(dev: &Device<Bound>, what: K) {
    static SAID: Atomic<i32> = Atomic::new(0);

    let pages = what.bytes().div_ceil(PAGE_SIZE).max(1);
    let owned: ARef<Device> = dev.into();

    core::mem::forget(what);

    if SAID.xchg(1, Relaxed) == 0 {
        dev_err!(
            dev,
            "{pages} pages were dropped after the driver, when no proof can come that the device \
             doesn't access them; leaked (and any others, silently)\n"
        );
    }

    count_leak(&owned, 1, pages, None);
}

/// Returns the number of buffers that were dropped while a device might access them, since boot.
///
/// Zero in a system whose drivers are right and whose devices stop.
///
/// # Examples
///
/// ```
/// let before = kernel::dma::quarantined();
///
/// // ... what is tested ...
/// assert_eq!(kernel::dma::quarantined(), before);
/// ```
pub fn quarantined() -> u64 {
    QUARANTINED.load(Relaxed)
}

/// Returns how many [quarantined] buffers, and enclosures that were dropped, were leaked: no stop
/// had proven that the device was done with them when it was unbound, or they were dropped after
/// that.
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

/// Writes the counters for a person to read.
pub(super) fn show(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "quarantined {}", QUARANTINED.load(Relaxed))?;
    writeln!(f, "reclaimed {}", RECLAIMED.load(Relaxed))?;
    writeln!(f, "leaked {}", LEAKED.load(Relaxed))?;
    writeln!(f, "leaked_pages {}", LEAKED_PAGES.load(Relaxed))
}
