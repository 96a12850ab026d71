// SPDX-License-Identifier: GPL-2.0

//! Orphans: memory that is dropped while a device may access it.
//!
//! Such memory must be neither unmapped nor freed. [`put_away`] decides. If the device didn't run
//! since the memory was shown, or was proven to have stopped since, the memory is freed at once.
//! Otherwise it goes to the [`Keeper`] of the device, which frees it when there is a proof. Without
//! a keeper it is leaked.

use super::{
    leaks::{
        leak,
        leak_bytes, //
    },
    record::Record, //
};
use crate::{
    bindings,
    device::Device,
    page::PAGE_SIZE,
    prelude::*, //
};
use core::{
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

/// Memory that a device may access, and that no driver uses any more.
///
/// # Safety
///
/// 1. Any thread may call [`release`](Self::release), in any context in which the value may be
///    dropped, and in process context.
/// 2. What the value borrows is there until the device is unbound, although no lifetime says so
///    where it is kept. So what a caller chooses the type of is `'static`, or lives for the `'a` of
///    a [`Core<'a>`](crate::device::Core).
pub(in crate::dma) unsafe trait Orphan: Send {
    /// Whether a driver that drops it in flight has a bug. Then it is logged and counted.
    const ACCIDENT: bool;

    /// Returns about how many bytes it holds.
    fn bytes(&self) -> usize;

    /// Frees it.
    ///
    /// # Safety
    ///
    /// The device must have been proven not to access it any more, and still be bound.
    unsafe fn release(self);
}

/// Keeps the orphans of a device until there is a proof that the device doesn't access them.
pub(in crate::dma) trait Keeper: Send + Sync {
    /// Keeps an orphan if `is_needed` returns true; otherwise gives it back, to be freed.
    ///
    /// It calls `is_needed` under the lock that a proof takes. So a proof either comes before, and
    /// `is_needed` sees it, or comes after, and finds the orphan. Context: any.
    fn keep(&self, orphan: Kept, is_needed: &dyn Fn() -> bool) -> Result<(), Kept>;

    /// Says whether the driver of a test can go on after a stop.
    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    fn set_resumes(&self, resumes: bool);

    /// Opens the device of a test that has no session, unless it is open.
    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    fn open_for_test(&self);

    /// Says that the device of a test, which has no session, accesses nothing of what it was shown,
    /// and frees what was kept.
    ///
    /// # Safety
    ///
    /// It must be so.
    #[cfg(CONFIG_RUST_DMA_FIXTURE)]
    unsafe fn prove_for_test(&self);
}

/// The header of an orphan on the heap, whatever its type is.
struct Header {
    next: Option<Kept>,
    bytes: usize,
    accident: bool,
    release: unsafe fn(NonNull<Header>),
    /// The module that is pinned for `release`. Null if none needs to be.
    module: *mut bindings::module,
}

#[repr(C)]
struct Cell<O> {
    header: Header,
    orphan: O,
}

/// # Safety
///
/// - `header` must be that of a `KBox<Cell<O>>`, which nobody else uses.
/// - The requirements of [`Orphan::release`] must hold.
unsafe fn release<O: Orphan>(header: NonNull<Header>) {
    // SAFETY: By the first requirement this is the header of a `KBox<Cell<O>>` that nobody else
    // uses. The header comes first in a `Cell`, so it has the address of the box.
    let cell = unsafe { KBox::<Cell<O>>::from_raw(header.as_ptr().cast()) };

    // SAFETY: By the second requirement the device doesn't access the orphan, and is bound.
    unsafe { KBox::into_inner(cell).orphan.release() };
}

/// An orphan of any type, on the heap. Dropping it leaks it.
///
/// # Invariants
///
/// - It is the header of a `KBox<Cell<O>>`, of which this is the only owner.
/// - Unless it is [`Abandoned`], the code that frees it stays as long as the device is bound:
///   `module` is pinned, or it is null and the code belongs to the kernel or to the driver of the
///   device.
pub(in crate::dma) struct Kept(NonNull<Header>);

// SAFETY: An orphan is `Send`.
unsafe impl Send for Kept {}

impl Kept {
    /// Moves an orphan of a bound device to the heap, and pins the module that frees it.
    ///
    /// # Errors
    ///
    /// The orphan comes back if there is no memory, or if its module is being unloaded and isn't
    /// that of the device's driver.
    fn new<O: Orphan>(dev: &Device, orphan: O) -> Result<Self, O> {
        let Ok(memory) = KBox::<MaybeUninit<Cell<O>>>::new_uninit(GFP_ATOMIC) else {
            return Err(orphan);
        };
        let Ok(module) = pin_module(dev, release::<O>) else {
            return Err(orphan);
        };
        let cell = KBox::into_raw(memory.write(MaybeUninit::new(Cell {
            header: Header {
                next: None,
                bytes: orphan.bytes(),
                accident: O::ACCIDENT,
                release: release::<O>,
                module,
            },
            orphan,
        })));

        // INVARIANT: This is the header of the box that was just made, and its only owner. The code
        // that frees it is that of `release::<O>`.
        // SAFETY: A box isn't null.
        Ok(Self(unsafe { NonNull::new_unchecked(cell.cast()) }))
    }

    fn header(&self) -> &Header {
        // SAFETY: By the type invariants the header is valid, and `self` is its only owner.
        unsafe { self.0.as_ref() }
    }

    pub(in crate::dma) fn bytes(&self) -> usize {
        self.header().bytes
    }

    pub(in crate::dma) fn is_accident(&self) -> bool {
        self.header().accident
    }

    fn pages(&self) -> usize {
        pages(self.bytes())
    }

    /// Frees the orphan.
    ///
    /// Context: that of dropping the orphan.
    ///
    /// # Safety
    ///
    /// As [`Orphan::release`].
    pub(in crate::dma) unsafe fn release(self) {
        let Header {
            release, module, ..
        } = *self.header();

        // SAFETY: By the type invariants, this is the header of a `KBox<Cell<O>>`, and `release`
        // was made for that `O`. The requirements of `Orphan::release` hold, by those of this
        // function.
        unsafe { release(self.0) };

        // SAFETY: `module` is null, or was pinned by `new()`. Its code has returned.
        unsafe { bindings::dma_unpin_code(module) };
    }
}

/// Keeps the module of a function from being unloaded while a device is bound. Returns null if
/// nothing needs to be pinned for that: for a function of the kernel, or of the device's driver,
/// which is unbound before its module goes.
///
/// # Errors
///
/// [`ENODEV`] if the module is being unloaded.
// Not inlined into modules, which can't call the C function.
#[inline(never)]
fn pin_module(dev: &Device, function: unsafe fn(NonNull<Header>)) -> Result<*mut bindings::module> {
    let mut module = core::ptr::null_mut();

    // CAST: The address of the function's code.
    // SAFETY: The device is valid, and `module` is valid for writing.
    if unsafe { bindings::dma_pin_code(dev.as_raw(), function as usize, &mut module) } {
        Ok(module)
    } else {
        Err(ENODEV)
    }
}

/// Returns how many pages that many bytes take, about.
pub(super) fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_SIZE).max(1)
}

/// A list of orphans. Dropping it leaks them.
#[derive(Default)]
pub(in crate::dma) struct List(Option<Kept>);

impl List {
    pub(in crate::dma) fn push(&mut self, mut orphan: Kept) {
        let next = self.0.take();

        // SAFETY: By the type invariants of `Kept`, nobody else has the header.
        unsafe { orphan.0.as_mut() }.next = next;
        self.0 = Some(orphan);
    }

    fn pop(&mut self) -> Option<Kept> {
        let mut first = self.0.take()?;

        // SAFETY: By the type invariants of `Kept`, nobody else has the header.
        self.0 = unsafe { first.0.as_mut() }.next.take();
        Some(first)
    }

    /// Returns how many there are, and about how many pages that is.
    pub(in crate::dma) fn size(&self) -> (u64, usize) {
        let (mut count, mut pages) = (0, 0);
        let mut next = self.0.as_ref();

        while let Some(orphan) = next {
            count += 1;
            pages += orphan.pages();
            next = orphan.header().next.as_ref();
        }

        (count, pages)
    }

    /// Gives up freeing them, and lets go of the modules whose code would have.
    pub(super) fn abandon(mut self) -> Abandoned {
        let mut next = self.0.as_mut();

        while let Some(orphan) = next {
            // SAFETY: By the type invariants of `Kept`, nobody else has the header.
            let header = unsafe { orphan.0.as_mut() };
            let module = core::mem::replace(&mut header.module, core::ptr::null_mut());

            // SAFETY: `module` is null, or was pinned when the orphan was made. Its code isn't
            // called any more.
            unsafe { bindings::dma_unpin_code(module) };
            next = header.next.as_mut();
        }

        Abandoned { _orphans: self }
    }

    /// Frees all of them. Returns how many were [accidents](Orphan::ACCIDENT).
    ///
    /// Context: that of dropping the orphans.
    ///
    /// # Safety
    ///
    /// As [`Orphan::release`], for each.
    pub(in crate::dma) unsafe fn release(mut self) -> u64 {
        let mut accidents = 0;

        while let Some(orphan) = self.pop() {
            accidents += u64::from(orphan.is_accident());
            // SAFETY: The requirements of `Orphan::release` hold for each orphan, by those of this
            // function.
            unsafe { orphan.release() };
        }

        accidents
    }
}

/// Orphans that are never freed. Their modules may be gone.
#[derive(Default)]
pub(super) struct Abandoned {
    /// For debuggers, and for kmemleak, which doesn't report what it can reach.
    _orphans: List,
}

/// Takes memory that no driver uses any more: frees it if the device can't access it, and otherwise
/// gives it to the device's keeper.
///
/// `shown` is the epoch in which the device was shown the memory, or [`None`] if that isn't known,
/// which is taken for the current one. Context: that of dropping `orphan`.
#[cold]
pub(in crate::dma) fn put_away<O: Orphan>(
    dev: &Device,
    record: &Record,
    shown: Option<u64>,
    orphan: O,
) {
    let is_needed = || record.may_access() && shown.is_none_or(|epoch| epoch == record.epoch());

    if !is_needed() {
        // SAFETY: By the type invariants of `Record`: whatever the device was shown in an earlier
        // epoch, it doesn't access. The caller borrows the bound device.
        unsafe { orphan.release() };
        return;
    }

    let bytes = orphan.bytes();

    let refused = match (record.keeper(), Kept::new(dev, orphan)) {
        (Some(keeper), Ok(orphan)) => keeper.keep(orphan, &is_needed),
        (None, Ok(orphan)) => {
            let mut list = List::default();

            list.push(orphan);
            leak(dev, list);
            return;
        }
        (_, Err(orphan)) => {
            let _leaked = ManuallyDrop::new(orphan);

            leak_bytes(dev, bytes);
            return;
        }
    };

    if let Err(orphan) = refused {
        // SAFETY: The keeper has seen that it isn't needed: there is a proof since, as above.
        unsafe { orphan.release() };
    }
}
