// SPDX-License-Identifier: GPL-2.0

//! Pools of small blocks of coherent memory.
//!
//! Coherent memory comes in pages. A [`Pool`] cuts them into blocks of one type, for what a device
//! reads and writes in small pieces: descriptors that are linked, lists of pages, commands. As with
//! streaming mappings, the type of a block says who owns it:
//!
//! ```text
//!                  Pool::alloc()                  submit()
//!        pool --------------------> PoolBox ------------------> PoolEntry
//!             <--------------------         <------------------
//!                   dropped          completion, seen by a protocol
//!
//!                           (the CPU owns it)     (the device may access it)
//! ```
//!
//! The C side keeps its list of free blocks inside the blocks. That is why a block that a device
//! may still write is never given back, not even for a moment, and why fresh blocks are zeroed:
//! they would tell the device where other blocks are.
//!
//! A pool belongs to its device, which lends it to the driver for as long as it is bound and
//! destroys it after all else of the driver is gone ([`Device::manage`]). So blocks simply borrow
//! it, and can be kept wherever the driver likes: in its data, in a session, in a ring.
//!
//! C header: [`include/linux/dmapool.h`](srctree/include/linux/dmapool.h)

use super::{
    super::DmaAddress,
    orphan::{
        put_away,
        Orphan, //
    },
    DmaAddr,
    Mapper, //
};
use crate::{
    alloc::{
        flags::__GFP_ZERO,
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
    io::{
        IoBase,
        SysMem,
        SysMemBackend, //
    },
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

/// A pool, of whatever type.
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
    /// See [`Record::plain_len`](super::record::Record).
    plain_len: usize,
}

// SAFETY: The C side has a lock.
unsafe impl Send for Inner<'_> {}

// SAFETY: As above.
unsafe impl Sync for Inner<'_> {}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        // Complains about blocks that are in use, and leaks them with the pages that they are in.
        //
        // SAFETY: By the type invariants. Blocks borrow the pool, so those that are left were
        // forgotten, or leaked since the device may access them: nobody gives them back.
        unsafe { bindings::dma_pool_destroy(self.raw.as_ptr().cast()) };
    }
}

/// A block of a pool. Dropping it does nothing; the owners decide.
///
/// Three words: a block alone tells neither its pool nor its bus address. Rings whose blocks are of
/// one pool need to keep two of them.
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

// SAFETY: Any thread may give a block back. Who accesses what is in it, `PoolBox` and `PoolEntry`
// say, which hold the type.
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
        // SAFETY: By the type invariants and the safety requirements.
        unsafe {
            bindings::dma_pool_free(self.pool.raw.as_ptr().cast(), self.ptr.as_ptr(), self.addr);
        }
    }

    /// Tells the compiler that somebody else reads or writes the block from here on.
    ///
    /// For the device that isn't enough: whoever tells it about the block orders that after what
    /// was written here, by `writel()` or by `dma_wmb()`.
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

// SAFETY: Blocks may be given back in any context. Who keeps them takes the last proof before the
// device's resources, of which the pool is one, are released, and leaks what is left.
unsafe impl Orphan for Block<'_> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.pool.size
    }

    unsafe fn release(self) {
        // SAFETY: By the safety requirements.
        unsafe { self.free() };
    }
}

/// A pool of blocks, each of which holds a `T`, in coherent memory of a device.
///
/// Blocks are aligned as `T` is, at least; they are never moved, and pages that the pool has
/// allocated stay with it. A `T` is plain data of up to a page (for more, there is
/// [`Coherent`](crate::dma::Coherent)), and not zero-sized; what doesn't fit doesn't compile.
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

/// What the C side writes into free blocks: an address and a bus address.
const LINK: usize = 16;

impl<'a, T: FromBytes + IntoBytes + Send + 'static> Pool<'a, T> {
    /// Makes a pool, which the device keeps until it is unbound. The first characters of `name` are
    /// for the device's file `pools` in sysfs.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the driver has no `dma_constraints()`;
    /// - [`ENOMEM`].
    #[inline]
    pub fn new(dev: &Device<Core<'a>>, name: &CStr) -> Result<&'a Self> {
        Self::with_layout::<1, 0>(dev, name)
    }

    /// Makes a pool for hardware that demands more: blocks at multiples of `ALIGN`, none of which
    /// crosses a multiple of `BOUNDARY`, unless that is 0. Both are powers of two, of up to a page
    /// for `ALIGN`; it holds for bus addresses and for those of the CPU.
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
        // No more than that is promised of the addresses, by all backends and for both sides.
        const_assert!(
            Self::block::<ALIGN>() <= PAGE_SIZE,
            "a block is at most a page: use `Coherent`"
        );

        let dma = Mapper::get(dev.bound())?;

        // SAFETY: The device is valid; the name is copied.
        let raw = unsafe {
            bindings::dma_pool_create_node(
                name.as_char_ptr(),
                dma.as_raw(),
                size_of::<T>(),
                Self::align::<ALIGN>(),
                BOUNDARY,
                bindings::NUMA_NO_NODE,
            )
        };

        // INVARIANT: Just made, for blocks of this size.
        let inner = Inner {
            dma,
            raw: NonNull::new(raw.cast()).ok_or(ENOMEM)?,
            size: size_of::<T>(),
            plain_len: dma.record().plain_len,
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

    /// Returns the alignment of blocks, which is also enough for what free ones hold.
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

    /// Returns the distance of blocks, or slightly more.
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

        // SAFETY: By the type invariants of `Inner`.
        let ptr = unsafe {
            bindings::dma_pool_alloc(
                self.inner.raw.as_ptr().cast(),
                (flags | __GFP_ZERO).as_raw(),
                &mut addr,
            )
        };

        // INVARIANT: A block of the pool, which nobody else knows, and a valid `T`: it is as long
        // and as aligned as one, and zeroed.
        let block = PoolBox {
            block: Block {
                pool: &self.inner,
                ptr: NonNull::new(ptr).ok_or(ENOMEM)?,
                addr,
            },
            _type: PhantomData,
        };

        if size_of::<T>() > self.inner.plain_len {
            self.inner
                .dma
                .record()
                .constraints()
                .admit(addr, size_of::<T>())?;
        }

        Ok(block)
    }
}

/// A block that the CPU owns.
///
/// Nobody else accesses it, so there are references to what is in it, as with a
/// [`KBox`](crate::alloc::KBox). Dropping it gives the block back to the pool; forgetting it keeps
/// the block allocated for good, which the log says when the device is unbound.
///
/// Context of dropping it: any.
///
/// # Invariants
///
/// `block` is ours and holds a valid `T`; no device accesses it.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Pool, PoolEntry}, prelude::*};
/// /// For a handler of interrupts.
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
    /// What the CPU has written is there when the device is told about the block in the usual ways,
    /// which are ordered after it. Context: any.
    #[inline]
    pub fn submit(self) -> PoolEntry<'a, T> {
        let block = ManuallyDrop::new(self).block;

        block.hand_over();

        // INVARIANT: There are no references to what is in it any more.
        PoolEntry {
            block,
            is_shown: Atomic::new(false),
            _type: PhantomData,
        }
    }

    /// Returns whose block it is.
    #[inline]
    pub(in crate::dma) fn dma(&self) -> Mapper<'a> {
        self.block.pool.dma
    }

    /// Returns where the device finds the block once it is submitted.
    #[inline]
    pub(in crate::dma) fn raw_address(&self) -> DmaAddress {
        self.block.addr
    }

    /// Returns where the CPU finds it, also while the device may access it.
    #[inline]
    pub(in crate::dma) fn as_ptr(&self) -> *mut T {
        self.block.ptr.as_ptr().cast()
    }
}

impl<T> Deref for PoolBox<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariants.
        unsafe { self.block.ptr.cast().as_ref() }
    }
}

impl<T> DerefMut for PoolBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariants.
        unsafe { self.block.ptr.cast().as_mut() }
    }
}

impl<T> Drop for PoolBox<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants; `self` is not used afterwards.
        unsafe { self.block.free() };
    }
}

/// A block that the device may access.
///
/// It has an address. What is in it may change at any time, so there are no references to it, but
/// volatile accesses: those of [`Io`](crate::io::Io), [`io_read!`](crate::io::io_read) and
/// [`io_write!`](crate::io::io_write). Only a protocol that saw the device finish turns it back
/// into a [`PoolBox`].
///
/// If it is dropped, the block is given back at once if the device can't have been told about it:
/// nobody asked for the [address](Self::address), or the device never ran. Else it is given back if
/// the device was proven to have stopped since, or quarantined until there is such a proof, as a
/// [`Streaming`](super::Streaming) buffer would be. Forgetting it keeps the block allocated for
/// good.
///
/// Context of dropping it: any.
///
/// # Invariants
///
/// `block` is ours and holds a valid `T`, whoever writes it; there are no references to that.
/// Unless `is_shown`, nobody knows the address.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Pool, PoolEntry}, prelude::*};
/// use kernel::io::{io_read, io_write, Io};
///
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Mailbox {
///     doorbell: u32,
///     answer: u32,
/// }
///
/// fn ask(mailbox: &PoolEntry<'_, Mailbox>) -> u32 {
///     assert_eq!(mailbox.address().len(), 8);
///
///     io_write!(mailbox, .doorbell, 1);
///     io_read!(mailbox, .answer)
/// }
///
/// fn copy(mailbox: &PoolEntry<'_, Mailbox>) -> Mailbox {
///     mailbox.copy_read()
/// }
/// ```
#[must_use = "dropping it quarantines the block if the device may still access it"]
pub struct PoolEntry<'a, T> {
    block: Block<'a>,
    is_shown: Atomic<bool>,
    _type: PhantomData<T>,
}

impl<'a, T> PoolEntry<'a, T> {
    /// Returns where the device finds the block.
    ///
    /// From here on the device is taken to know it.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        // INVARIANT: Somebody knows it.
        self.is_shown.store(true, Relaxed);

        // SAFETY: By the type invariants the block is allocated until `self` goes, and the pool is
        // of blocks for a `T`.
        unsafe { DmaAddr::new(self.block.addr, size_of::<T>()) }
    }

    /// Takes the block back from the device.
    ///
    /// # Safety
    ///
    /// The device must have been seen to be done with the block, in order before the accesses to
    /// come (`dma_rmb()`), or must never have been told the address.
    #[cfg_attr(
        not(CONFIG_RUST_DMA_KUNIT_TEST),
        expect(dead_code, reason = "for protocols")
    )]
    #[inline]
    pub(in crate::dma) unsafe fn complete(self) -> PoolBox<'a, T> {
        let block = ManuallyDrop::new(self).block;

        block.hand_over();

        // INVARIANT: By the safety requirements; any bytes are a valid `T`.
        PoolBox {
            block,
            _type: PhantomData,
        }
    }
}

impl<'e, T> IoBase<'e> for &'e PoolEntry<'_, T> {
    type Backend = SysMemBackend;
    type Target = T;

    #[inline]
    fn as_view(self) -> SysMem<'e, T> {
        // SAFETY: By the type invariants the block is allocated until `self` goes, long and aligned
        // as a `T` is.
        unsafe { SysMem::new(self.block.ptr.as_ptr().cast()) }
    }
}

impl<T> Drop for PoolEntry<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // `self` is not used afterwards.
        release_or_keep(self.block, self.is_shown.load(Relaxed));
    }
}

/// Frees a block that nobody uses any more, or keeps it if the device may access it.
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
