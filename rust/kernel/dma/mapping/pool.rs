// SPDX-License-Identifier: GPL-2.0

//! Pools of small blocks of coherent memory.
//!
//! The C side keeps its list of free blocks inside the blocks. So a block that a device may still
//! write is never given back, not even for a moment. Fresh blocks are zeroed, since the list would
//! tell the device where other blocks are.
//!
//! A pool belongs to its device, which lends it to the driver and destroys it after everything else
//! of the driver is gone ([`devres::register_lent`]). So blocks borrow it, and can be kept wherever
//! the driver likes: in its data, in a session, in a ring.
//!
//! C header: [`include/linux/dmapool.h`](srctree/include/linux/dmapool.h)

use super::{
    super::DmaAddress,
    barrier::loads_before_stores,
    orphan::{
        put_away,
        Orphan, //
    },
    view::{
        SharedBackend,
        SharedView, //
    },
    DmaAddr,
    Mapper, //
};
use crate::{
    alloc::{
        flags::{
            __GFP_NOWARN,
            __GFP_ZERO, //
        },
        Flags, //
    },
    bindings,
    device::{
        Core,
        Device, //
    },
    devres::{
        self,
        Lendable, //
    },
    io::IoBase,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::{
        needs_drop,
        ManuallyDrop, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};

/// A pool, whatever the type of its blocks is.
///
/// # Invariants
///
/// `raw` is a `struct dma_pool` of the device of `dma`, and valid until this is dropped. Its blocks
/// have at least `size` bytes.
struct Inner<'a> {
    dma: Mapper<'a>,
    // The type has no name where there is no DMA.
    raw: NonNull<c_void>,
    size: usize,
}

// SAFETY: The C side has a lock.
unsafe impl Send for Inner<'_> {}

// SAFETY: As above.
unsafe impl Sync for Inner<'_> {}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        // If blocks are in use, C logs that, and leaks them with the pages that they are in.
        //
        // SAFETY: By the type invariants `raw` is a valid pool. Blocks borrow it, so those that are
        // in use were forgotten, or leaked since the device may access them: they are never given
        // back.
        unsafe { bindings::dma_pool_destroy(self.raw.as_ptr().cast()) };
    }
}

/// A block of a pool. Dropping it does nothing: its owner, [`PoolBox`] or [`PoolEntry`], frees it.
///
/// # Invariants
///
/// `ptr` is a block that was allocated from `pool`, at the bus address `addr`.
#[derive(Clone, Copy)]
struct Block<'a> {
    pool: &'a Inner<'a>,
    ptr: NonNull<c_void>,
    addr: DmaAddress,
}

// SAFETY: Any thread may give a block back. `PoolBox` and `PoolEntry`, which know the type, say who
// may access the contents.
unsafe impl Send for Block<'_> {}

// SAFETY: As above.
unsafe impl Sync for Block<'_> {}

impl Block<'_> {
    /// Gives the block back.
    ///
    /// # Safety
    ///
    /// This must be done once; neither the CPU nor the device may access the block any more.
    #[inline]
    unsafe fn free(self) {
        // SAFETY: By the type invariants the block is one of this pool, at this address. By the
        // safety requirements it is given back once, and isn't accessed any more.
        unsafe {
            bindings::dma_pool_free(self.pool.raw.as_ptr().cast(), self.ptr.as_ptr(), self.addr);
        }
    }

    /// Tells the compiler that the device may read or write the block from here on, or did so
    /// before.
    ///
    /// This is no barrier for the CPU. The doorbell, or a `dma_wmb()`, makes the device see what
    /// the CPU wrote.
    #[inline]
    fn hand_over(&self) {
        // SAFETY: The assembly is empty. It takes the address of the block, so that accesses to
        // the bytes can't move across.
        unsafe {
            core::arch::asm!("/* {} */", in(reg) self.ptr.as_ptr(),
                             options(nostack, preserves_flags));
        }
    }
}

// SAFETY:
// 1. A block may be given back in any context.
// 2. The keeper records the last proof before the device's resources are released, of which the
//    pool is one, and leaks the blocks that are left.
unsafe impl Orphan for Block<'_> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.pool.size
    }

    unsafe fn release(self) {
        // SAFETY: By the safety requirements the device doesn't access the block. The CPU doesn't,
        // since the owner was dropped.
        unsafe { self.free() };
    }
}

/// A pool of small blocks of coherent memory, each of which holds a `T` (C: `struct dma_pool`).
///
/// Use it for what a device reads and writes in small pieces: linked descriptors, lists of pages,
/// commands. [`Shared`](super::Shared) memory comes in whole pages. The type of a block
/// says who owns it:
///
/// ```text
///                  alloc()                      submit()
///     pool ---------------------> PoolBox -------------------> PoolEntry
///          <---------------------         <-------------------
///                   drop                       completion
///
///                            (the CPU owns it)       (the device may access it)
/// ```
///
/// Blocks are aligned as `T` is, at least, and as the driver's
/// [`Constraints`](super::Constraints) demand; they are never moved, and pages that the pool has
/// allocated stay with it. A `T` is plain data of up to a page (for more, there is
/// [`Shared`](super::Shared)), and not zero-sized; what doesn't fit doesn't compile.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Core, Device}, prelude::*};
/// use kernel::dma::{Pool, PoolEntry};
///
/// /// A list of pages, as the device reads it.
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(transparent)]
/// struct List([u64; 32]);
///
/// struct Data<'a> {
///     lists: &'a Pool<'a, List>,
///     first: PoolEntry<'a, List>,
/// }
///
/// fn probe<'a>(dev: &Device<Core<'a>>) -> Result<Data<'a>> {
///     let lists = Pool::<List>::new(dev, c"lists")?;
///     let mut first = lists.alloc(GFP_KERNEL)?;
///
///     first.0[0] = 1;
///     Ok(Data { lists, first: first.submit() })
/// }
/// ```
pub struct Pool<'a, T> {
    inner: Inner<'a>,
    _type: PhantomData<fn() -> T>,
}

// SAFETY: Dropping it destroys the pool of the device, which needs to be valid and no more. No `T`
// is dropped.
unsafe impl<T> Lendable for Pool<'_, T> {}

/// The size of what the C side writes into each free block: an address and a bus address.
const LINK: usize = 16;

impl<'a, T: FromBytes + IntoBytes + Send + 'static> Pool<'a, T> {
    /// Makes a pool, which lives until the device is unbound (C: `dma_pool_create()`).
    ///
    /// The device's file `pools` in sysfs shows the beginning of `name`.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the driver is no `DmaDriver` of its bus, or if its constraints demand an
    ///   alignment of more than a page, or a boundary that each block would cross;
    /// - [`EOVERFLOW`] if a block is longer than they allow for a segment;
    /// - [`ENOMEM`].
    #[inline]
    pub fn new(dev: &Device<Core<'a>>, name: &CStr) -> Result<&'a Self> {
        Self::with_layout::<1, 0>(dev, name)
    }

    /// Makes a pool whose blocks lie at multiples of `ALIGN` bytes, and don't cross a multiple of
    /// `BOUNDARY` bytes (C: `dma_pool_create()`).
    ///
    /// Both are powers of two, and hold for bus addresses and for the CPU's. `ALIGN` is at most a
    /// page. With a `BOUNDARY` of 0 there is none.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{device::{Core, Device}, dma::Pool, prelude::*};
    /// /// A device that wants its commands at multiples of 64 bytes, each inside of 4 KiB.
    /// fn commands<'a>(dev: &Device<Core<'a>>) -> Result<&'a Pool<'a, [u8; 48]>> {
    ///     Pool::with_layout::<64, 4096>(dev, c"commands")
    /// }
    /// ```
    pub fn with_layout<const ALIGN: usize, const BOUNDARY: usize>(
        dev: &Device<Core<'a>>,
        name: &CStr,
    ) -> Result<&'a Self> {
        const_assert!(size_of::<T>() > 0, "a block of no bytes");
        const_assert!(!needs_drop::<T>(), "nobody drops what is in a block");
        const_assert!(
            ALIGN.is_power_of_two() && (BOUNDARY == 0 || BOUNDARY.is_power_of_two()),
            "alignment and boundary must be powers of two"
        );
        const_assert!(
            BOUNDARY == 0 || Self::block::<ALIGN>() <= BOUNDARY,
            "a block doesn't fit inside of the boundary"
        );
        // Backends promise aligned addresses only within a page.
        const_assert!(
            Self::block::<ALIGN>() <= PAGE_SIZE,
            "a block is at most a page: use `Shared`"
        );

        let dma = Mapper::get(dev.bound())?;
        let (align, boundary) = dma.record().constraints().admit_blocks(
            size_of::<T>(),
            Self::align::<ALIGN>(),
            BOUNDARY,
        )?;

        // The C side refuses it, too, but doesn't say why.
        if boundary != 0 && size_of::<T>().max(LINK).next_multiple_of(align) > boundary {
            return Err(EINVAL);
        }

        // SAFETY: The device is valid; the name is copied.
        let raw = unsafe {
            bindings::dma_pool_create_node(
                name.as_char_ptr(),
                dma.as_raw(),
                size_of::<T>(),
                align,
                boundary,
                bindings::dev_to_node(dma.as_raw()),
            )
        };

        // INVARIANT: The pool was just made, for this device and blocks of this size.
        let inner = Inner {
            dma,
            raw: NonNull::new(raw.cast()).ok_or(ENOMEM)?,
            size: size_of::<T>(),
        };

        devres::register_lent(
            dev,
            Ok::<_, Error>(Self {
                inner,
                _type: PhantomData,
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the alignment of blocks, which also suits what C writes into free ones.
    const fn align<const ALIGN: usize>() -> usize {
        let mut align = ALIGN;

        if align < align_of::<T>() {
            align = align_of::<T>();
        }
        if align < align_of::<DmaAddress>() {
            align = align_of::<DmaAddress>();
        }
        if align < align_of::<*mut ()>() {
            align = align_of::<*mut ()>();
        }

        align
    }

    /// Returns an upper limit for the distance between blocks in bytes.
    const fn block<const ALIGN: usize>() -> usize {
        let size = size_of::<T>();

        if size < LINK { LINK } else { size }.next_multiple_of(Self::align::<ALIGN>())
    }

    /// Allocates a block, all of whose bytes are zero (C: `dma_pool_zalloc()`).
    ///
    /// Context: any that `flags` allow, such as [`GFP_ATOMIC`] for interrupts.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    #[inline]
    pub fn alloc(&'a self, flags: Flags) -> Result<PoolBox<'a, T>> {
        let mut addr = 0;

        // If there is no page, some backends would complain, though it is no mistake to ask.
        //
        // SAFETY: By the type invariants of `Inner` the pool is valid.
        let ptr = unsafe {
            bindings::dma_pool_alloc(
                self.inner.raw.as_ptr().cast(),
                (flags | __GFP_ZERO | __GFP_NOWARN).as_raw(),
                &mut addr,
            )
        };

        // INVARIANT: A block of the pool, which nobody else knows, and a valid `T`: it is as long
        // and as aligned as one, and zeroed.
        Ok(PoolBox {
            block: Block {
                pool: &self.inner,
                ptr: NonNull::new(ptr).ok_or(ENOMEM)?,
                addr,
            },
            _type: PhantomData,
        })
    }
}

/// A block of a [`Pool`] that the CPU owns.
///
/// It dereferences to the `T` inside, as a [`KBox`](crate::alloc::KBox) does.
/// [`submit`](Self::submit) allows the device to access it. Dropping it gives the block back to the
/// pool (C: `dma_pool_free()`). Forgetting it leaks the block, which the log says when the device
/// is unbound.
///
/// Context of dropping it: any.
///
/// # Invariants
///
/// This owns `block`, which holds a valid `T`. No device writes to it, and one that reads it is
/// done before somebody else gets this.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Pool, PoolEntry}, prelude::*};
/// /// May be called by an interrupt handler.
/// fn command<'a>(pool: &'a Pool<'a, [u32; 4]>) -> Result<PoolEntry<'a, [u32; 4]>> {
///     let mut command = pool.alloc(GFP_ATOMIC)?;
///
///     assert_eq!(*command, [0; 4]);
///     command[0] = 0x1234;
///     Ok(command.submit())
/// }
/// ```
#[must_use = "dropping it frees the block"]
pub struct PoolBox<'a, T> {
    block: Block<'a>,
    _type: PhantomData<T>,
}

impl<'a, T> PoolBox<'a, T> {
    /// Allows the device to access the block.
    ///
    /// Then tell the device the address by `Io::write32()`, or in shared memory by
    /// [`dma_write!`](super::dma_write). These are ordered after all that the CPU wrote before, so
    /// the device sees it. Context: any.
    #[inline]
    pub fn submit(self) -> PoolEntry<'a, T> {
        let block = ManuallyDrop::new(self).block;

        // The device may write from here on, so the CPU must have read before.
        loads_before_stores();
        block.hand_over();

        // INVARIANT: `self` is gone, and with it all references to the contents.
        PoolEntry {
            block,
            is_shown: Atomic::new(false),
            _type: PhantomData,
        }
    }

    /// Returns the permission to map that the pool was made with.
    #[inline]
    pub(in crate::dma) fn dma(&self) -> Mapper<'a> {
        self.block.pool.dma
    }

    /// Returns the bus address of the block.
    #[inline]
    pub(in crate::dma) fn raw_address(&self) -> DmaAddress {
        self.block.addr
    }

    /// Returns the CPU's address of the block.
    #[inline]
    pub(in crate::dma) fn as_ptr(&self) -> *mut T {
        self.block.ptr.as_ptr().cast()
    }
}

impl<T> Deref for PoolBox<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariants there is a valid `T`, which no device accesses.
        unsafe { self.block.ptr.cast().as_ref() }
    }
}

impl<T> DerefMut for PoolBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariants there is a valid `T`, which no device accesses.
        unsafe { self.block.ptr.cast().as_mut() }
    }
}

impl<T> Drop for PoolBox<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants no device accesses the block; `self` is not used
        // afterwards.
        unsafe { self.block.free() };
    }
}

/// A block of a [`Pool`] that the device may access, and the CPU as well.
///
/// It is a small [`Shared`](super::Shared): it has an [`address`](Self::address), and the device
/// may change its contents at any time. So the CPU has no references to them, but reads and writes
/// words by [`dma_read!`](super::dma_read) and [`dma_write!`](super::dma_write).
///
/// Dropping it is safe at any time, as with [`Streaming`](super::Streaming):
///
/// - The block is given back at once if nobody asked for the address, or if the device didn't run
///   since it was last proven to have stopped.
/// - Otherwise it is quarantined until there is such a proof, and the log says so.
///
/// Forgetting it leaks the block.
///
/// Context of dropping it: any.
///
/// # Invariants
///
/// This owns `block`, which holds a valid `T`, whatever the device writes; there are no references
/// to it. `is_shown` is as in [`Streaming`](super::Streaming).
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Pool, PoolEntry}, prelude::*};
/// use kernel::dma::{dma_read, dma_write, Untrusted};
///
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Mailbox {
///     doorbell: u32,
///     answer: u32,
/// }
///
/// fn ask(mailbox: &PoolEntry<'_, Mailbox>) -> Untrusted<u32> {
///     assert_eq!(mailbox.address().len(), 8);
///
///     dma_write!(mailbox, .doorbell, 1);
///     dma_read!(mailbox, .answer)
/// }
/// ```
#[must_use = "dropping it quarantines the block if the device may still access it"]
pub struct PoolEntry<'a, T> {
    block: Block<'a>,
    is_shown: Atomic<bool>,
    _type: PhantomData<T>,
}

impl<'a, T> PoolEntry<'a, T> {
    /// Returns the bus address of the block. That of a field is [`SharedView::address`].
    ///
    /// From here on the block counts as shown: dropping it doesn't free it while the device runs.
    /// Context: any.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        self.as_view().address()
    }

    /// Returns the permission to map that the pool was made with.
    #[inline]
    pub(in crate::dma) fn dma(&self) -> Mapper<'a> {
        self.block.pool.dma
    }

    /// Returns the bus address, for a protocol that owns the block from before the device is shown
    /// the address until the device is done.
    #[inline]
    pub(in crate::dma) fn address_unshown(&self) -> DmaAddr<'_> {
        // SAFETY: By the type invariants the device finds the block there, until `self` goes.
        unsafe { DmaAddr::new(self.block.addr, size_of::<T>()) }
    }

    /// Returns whether somebody asked for the address.
    #[inline]
    pub(in crate::dma) fn was_shown(&mut self) -> bool {
        *self.is_shown.get_mut()
    }

    /// Takes the block back if the device can't access it: if nobody asked for the address, or if
    /// the device didn't run since it was last proven to have stopped.
    ///
    /// Use it after the driver has stopped its device. The contents may be what the device wrote,
    /// so check them. Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back if the device may access the block.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::PoolEntry, prelude::*};
    /// /// The driver has stopped the device: its list is empty then.
    /// fn clear<'a>(list: PoolEntry<'a, [u64; 32]>) -> Result<PoolEntry<'a, [u64; 32]>> {
    ///     let mut list = list.take_back().map_err(|_in_use| EBUSY)?;
    ///
    ///     list.fill(0);
    ///     Ok(list.submit())
    /// }
    /// ```
    pub fn take_back(self) -> Result<PoolBox<'a, T>, Self> {
        if self.is_shown.load(Relaxed) && self.block.pool.dma.record().may_access() {
            return Err(self);
        }

        // SAFETY: By the type invariants nobody has the address. Or somebody had it, in the time
        // for which `self` was borrowed; but the device has let go of all that it was shown then,
        // and was not started since.
        Ok(unsafe { self.complete() })
    }

    /// Takes the block back from a running device that is done with it.
    ///
    /// For a protocol of the driver's own, in the one file of the driver that has `unsafe` code.
    /// The contents may be what the device wrote, so check them. Context: any.
    ///
    /// # Safety
    ///
    /// As for [`Shared::complete`](super::Shared::complete).
    #[inline]
    pub unsafe fn complete(self) -> PoolBox<'a, T> {
        let block = ManuallyDrop::new(self).block;

        block.hand_over();

        // INVARIANT: By the safety requirements no device accesses the block; any bytes are a valid
        // `T`.
        PoolBox {
            block,
            _type: PhantomData,
        }
    }
}

impl<'e, T> IoBase<'e> for &'e PoolEntry<'_, T> {
    type Backend = SharedBackend;
    type Target = T;

    #[inline]
    fn as_view(self) -> SharedView<'e, T> {
        // SAFETY: By the type invariants the block is allocated until `self` goes, is a `T`, and
        // there are no references to it. The device finds it at this address.
        unsafe {
            SharedView::new(
                self.block.ptr.as_ptr().cast(),
                self.block.addr,
                &self.is_shown,
            )
        }
    }
}

impl<T> Drop for PoolEntry<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // `self` is not used afterwards.
        release_or_keep(self.block, self.is_shown.load(Relaxed));
    }
}

/// Frees a block whose owner was dropped, or quarantines it if the device may access it.
#[cold]
fn release_or_keep(block: Block<'_>, is_shown: bool) {
    if !is_shown {
        // SAFETY: The owner was dropped, and nobody else knows the block.
        unsafe { block.free() };
        return;
    }

    let dma = block.pool.dma;

    put_away(dma.device(), dma.record(), None, block);
}
