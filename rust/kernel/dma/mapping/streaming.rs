// SPDX-License-Identifier: GPL-2.0

//! Streaming mappings of single buffers.
//!
//! A mapped buffer is owned either by the CPU ([`StreamingBox`]) or by the device ([`Streaming`]),
//! and the type says by whom. Moving between the two *is* the sync, so none can be forgotten, made
//! twice or made with the wrong direction, and while the device owns the buffer there is no way to
//! its bytes.
//!
//! ```text
//!                    Streaming::map()
//!        buffer ---------------------------------> Streaming      (the device owns it)
//!          |  ^                                     |  ^
//!          |  | unmap()         completion, seen by |  | submit()
//!          |  |                 a protocol          v  |
//!          |  +--------------------------------- StreamingBox     (the CPU owns it)
//!          +------------------------------------>
//!                    StreamingBox::map()
//! ```
//!
//! There is no safe way from a `Streaming` whose address was asked for back to `StreamingBox`: only
//! code that saw the device finish may go it, and that is the protocols of this crate, such as
//! transfers. The buffer is owned throughout, so forgetting any of these values leaks memory and
//! never frees it.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    super::DmaAddress,
    address,
    barrier::loads_before_stores,
    constraints::ALWAYS_MAPPABLE,
    orphan::{
        put_away,
        Orphan, //
    },
    Buffer,
    CpuWrites,
    Direction,
    DmaAddr,
    MapAttrs,
    Mapper, //
};
use crate::{
    bindings,
    error::ErrorWith,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Range, //
};

/// A buffer and the address at which the device sees it: what both owners have in common.
///
/// Dropping it does nothing; the owners decide.
///
/// # Invariants
///
/// All of `buf` is mapped for `dma`'s device at `addr`, in the direction `D`.
struct Mapping<'a, B: Buffer, D: Direction> {
    dma: Mapper<'a>,
    addr: DmaAddress,
    buf: ManuallyDrop<B>,
    _direction: PhantomData<D>,
}

/// Maps a buffer for the device, in the direction `D`.
///
/// # Errors
///
/// As [`Streaming::map`].
#[inline]
pub(in crate::dma) fn map<B: Buffer, D: Direction>(
    dma: Mapper<'_>,
    buf: &B,
    attrs: MapAttrs,
) -> Result<DmaAddress> {
    if buf.len() > dma.record().plain_len {
        return map_limited::<B, D>(dma, buf, attrs);
    }

    check::<B, D>(dma, buf)?;
    map_checked::<B, D>(dma, buf, attrs)
}

/// As [`map`], where the length alone doesn't tell that the device can take the buffer.
#[cold]
fn map_limited<B: Buffer, D: Direction>(
    dma: Mapper<'_>,
    buf: &B,
    attrs: MapAttrs,
) -> Result<DmaAddress> {
    if buf.len() > ALWAYS_MAPPABLE && buf.len() > dma.max_mapping_size() {
        return Err(EOVERFLOW);
    }

    check::<B, D>(dma, buf)?;
    dma.record().constraints().admit_len(buf.len())?;

    let addr = map_checked::<B, D>(dma, buf, attrs)?;

    dma.record()
        .constraints()
        .admit(addr, buf.len())
        // SAFETY: It was just mapped, and no device was shown the address.
        .inspect_err(|_| unsafe { unmap::<D>(dma, addr, buf.len(), attrs) })?;
    Ok(addr)
}

/// Maps a buffer that was checked.
#[inline]
fn map_checked<B: Buffer, D: Direction>(
    dma: Mapper<'_>,
    buf: &B,
    attrs: MapAttrs,
) -> Result<DmaAddress> {
    // SAFETY: The device and the bytes are valid. This only looks at them, and complains.
    #[cfg(CONFIG_DMA_API_DEBUG)]
    unsafe {
        bindings::debug_dma_map_single(dma.as_raw(), buf.as_ptr().cast(), buf.len())
    };

    // SAFETY: `Mapper` proves a bound device whose masks are set. By the contract of
    // `Buffer` the bytes are in the linear map, contiguous, initialised and ours alone.
    // Failure is checked below.
    let addr = unsafe {
        bindings::dma_map_phys(
            dma.as_raw(),
            bindings::virt_to_phys(buf.as_ptr().cast_mut().cast()),
            buf.len(),
            D::DATA_DIRECTION.into(),
            attrs.as_raw(),
        )
    };

    // SAFETY: `addr` was returned by the mapping call for this device.
    if unsafe { bindings::dma_mapping_error(dma.as_raw(), addr) } != 0 {
        return Err(no_room());
    }

    Ok(addr)
}

/// Tells the compiler that this hardly ever happens.
#[cold]
fn no_room() -> Error {
    ENOMEM
}

/// Refuses what the C side would warn about or get wrong.
#[inline]
fn check<B: Buffer, D: Direction>(dma: Mapper<'_>, buf: &B) -> Result {
    let len = buf.len();

    if len == 0 {
        return Err(EINVAL);
    }

    if D::DEVICE_WRITES && !dma.is_coherent() {
        // SAFETY: No requirements.
        // CAST: The C side returns a small power of two; so there is no division here.
        let mask = (unsafe { bindings::dma_get_cache_alignment() } as usize).wrapping_sub(1);
        let lines = len.wrapping_add(mask) & !mask;

        // Invalidating a line throws away what else lives in it.
        if (buf.as_ptr().addr() & mask != 0 || lines > buf.allocation()) && !bounces::<D>(dma, len)
        {
            return Err(EINVAL);
        }
    }

    Ok(())
}

/// Returns whether the kernel bounces a buffer of that length for a device that isn't cache
/// coherent, since what `kmalloc()` returns for it may share a cache line with something else.
#[cold]
#[inline(never)]
fn bounces<D: Direction>(dma: Mapper<'_>, len: usize) -> bool {
    // SAFETY: `dma` leads to a valid `struct device`.
    unsafe { bindings::dma_bounces_unaligned(dma.as_raw(), len, D::DATA_DIRECTION.into()) }
}

/// Undoes a mapping.
///
/// # Safety
///
/// `len` bytes must be mapped at `addr`, in the direction `D`; the device must be done with them.
#[inline]
pub(in crate::dma) unsafe fn unmap<D: Direction>(
    dma: Mapper<'_>,
    addr: DmaAddress,
    len: usize,
    attrs: MapAttrs,
) {
    // SAFETY: By the safety requirements.
    unsafe {
        bindings::dma_unmap_phys(
            dma.as_raw(),
            addr,
            len,
            D::DATA_DIRECTION.into(),
            attrs.as_raw(),
        )
    };
}

/// Lets the CPU see what the device wrote.
///
/// # Safety
///
/// `len` bytes must be mapped at `addr`, in the direction `D`; the device must be done with them.
#[inline]
pub(in crate::dma) unsafe fn sync_for_cpu<D: Direction>(
    dma: Mapper<'_>,
    addr: DmaAddress,
    len: usize,
) {
    if D::DEVICE_WRITES && len > 0 {
        // SAFETY: By the safety requirements.
        unsafe {
            bindings::dma_sync_single_for_cpu(dma.as_raw(), addr, len, D::DATA_DIRECTION.into())
        };
    }
}

/// Tells the compiler that somebody else reads or writes a buffer from here on, or did so before.
///
/// Where the C calls are inlined and the device needs no sync, nothing else would.
#[inline]
pub(in crate::dma) fn hand_over(buf: *mut u8) {
    // SAFETY: The assembly is empty. It takes the address of the buffer, so that accesses to
    // the bytes can't move across.
    unsafe {
        core::arch::asm!("/* {} */", in(reg) buf, options(nostack, preserves_flags));
    }
}

impl<'a, B: Buffer, D: Direction> Mapping<'a, B, D> {
    #[inline]
    fn new(dma: Mapper<'a>, buf: B, attrs: MapAttrs) -> Result<Self, ErrorWith<B>> {
        match map::<B, D>(dma, &buf, attrs) {
            // INVARIANT: The mapping succeeded, for all of `buf`.
            Ok(addr) => Ok(Self {
                dma,
                addr,
                buf: ManuallyDrop::new(buf),
                _direction: PhantomData,
            }),
            Err(error) => Err(ErrorWith { error, value: buf }),
        }
    }

    /// Returns the address at which a byte is; for an empty range at the end, something else.
    #[inline]
    fn address_of(&self, offset: usize) -> DmaAddress {
        address::within(self.addr, offset)
    }

    /// # Safety
    ///
    /// The device must own the bytes, and be done with them.
    #[inline]
    unsafe fn sync_for_cpu(&mut self, range: Range<usize>) {
        let addr = self.address_of(range.start);

        // SAFETY: By the safety requirements, and the type invariants: callers keep the range
        // inside the buffer.
        unsafe { sync_for_cpu::<D>(self.dma, addr, range.end - range.start) };

        hand_over(self.buf.as_mut_ptr());
    }

    #[inline]
    fn sync_for_device(&mut self, range: Range<usize>) {
        hand_over(self.buf.as_mut_ptr());

        if !range.is_empty() {
            // SAFETY: By the type invariants the range, which callers keep inside the buffer, is
            // mapped with this direction.
            unsafe {
                bindings::dma_sync_single_for_device(
                    self.dma.as_raw(),
                    self.address_of(range.start),
                    range.end - range.start,
                    D::DATA_DIRECTION.into(),
                )
            };
        }
    }

    /// Undoes the mapping without copying or cleaning anything.
    ///
    /// # Safety
    ///
    /// No device may access the buffer any more.
    #[inline]
    unsafe fn unmap(self) -> B {
        // SAFETY: By the type invariants and the safety requirements; `self` goes, so this is done
        // once.
        unsafe {
            unmap::<D>(
                self.dma,
                self.addr,
                self.buf.len(),
                MapAttrs::NONE.skip_cpu_sync(),
            )
        };

        ManuallyDrop::into_inner(self.buf)
    }
}

/// A mapped buffer that the CPU owns.
///
/// Dropping it unmaps and frees the buffer.
///
/// # Invariants
///
/// - No device accesses the buffer.
/// - `defined` lies inside the buffer, and the CPU sees what was last written to that range.
///   Outside of it the CPU may see older bytes.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, Streaming, StreamingBox, ToDevice}, prelude::*};
/// fn command<'a>(dma: Mapper<'a>) -> Result<Streaming<'a, KBox<[u8; 64]>, ToDevice>> {
///     let mut cmd = StreamingBox::map(dma, KBox::new([0; 64], GFP_KERNEL)?)?;
///
///     cmd.bytes_mut()[..4].copy_from_slice(b"read");
///     Ok(cmd.submit())
/// }
/// ```
#[must_use = "dropping it unmaps and frees the buffer"]
pub struct StreamingBox<'a, B: Buffer, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, B, D>>,
    defined: Range<usize>,
    /// Whether the device never owned the buffer since it was mapped: then caches may hold writes
    /// from before, wherever in the buffer.
    fresh: bool,
}

impl<'a, B: Buffer, D: Direction> StreamingBox<'a, B, D> {
    /// Maps a buffer and leaves it with the CPU.
    ///
    /// For buffers that are mapped once and used often. [`Streaming::map`] is cheaper for a single
    /// use: with this form, mapping and submitting are two calls, and a bounce buffer is filled
    /// twice.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// As [`Streaming::map`].
    #[inline]
    pub fn map(dma: Mapper<'a>, buf: B) -> Result<Self, ErrorWith<B>> {
        let mapping = Mapping::new(dma, buf, MapAttrs::NONE.skip_cpu_sync())?;
        let len = mapping.buf.len();

        // INVARIANT: No device was told the address; what the CPU wrote is what it sees.
        Ok(Self {
            mapping: ManuallyDrop::new(mapping),
            defined: 0..len,
            fresh: true,
        })
    }

    /// Returns the bytes that are defined: all after mapping, and if both sides may write; else
    /// those that the last transfer covered.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let Range { start, end } = self.defined;

        // SAFETY: By the contract of `Buffer` and the type invariants: inside the buffer,
        // initialised, and nobody else accesses it.
        unsafe { core::slice::from_raw_parts(self.mapping.buf.as_ptr().add(start), end - start) }
    }

    /// Gives the buffer to the device.
    ///
    /// Syncs what the CPU may have written (C: `dma_sync_single_for_device()`): nothing, if it
    /// could only read.
    ///
    /// Context: any.
    #[inline]
    pub fn submit(self) -> Streaming<'a, B, D> {
        let (mut mapping, defined, fresh) = self.into_parts();

        if D::DEVICE_WRITES {
            // The device may write from here on, but after what the CPU has read.
            loads_before_stores();
        }

        if fresh {
            let len = mapping.buf.len();
            mapping.sync_for_device(0..len);
        } else if D::CPU_WRITES {
            mapping.sync_for_device(defined);
        } else {
            hand_over(mapping.buf.as_mut_ptr());
        }

        // INVARIANT: The CPU's accesses are over and synced; the address wasn't asked for.
        Streaming {
            mapping: ManuallyDrop::new(mapping),
            is_shown: Atomic::new(false),
        }
    }

    /// Undoes the mapping and returns the buffer, all of whose bytes are defined then.
    ///
    /// Context: any.
    #[inline]
    pub fn unmap(self) -> B {
        let (mut mapping, defined, _) = self.into_parts();
        let len = mapping.buf.len();

        // The rest of a partial transfer. What the CPU may have written since must stay, so the
        // unmap itself copies nothing.
        //
        // SAFETY: No device accesses the buffer.
        unsafe {
            mapping.sync_for_cpu(0..defined.start);
            mapping.sync_for_cpu(defined.end..len);
        }

        // SAFETY: No device accesses the buffer.
        unsafe { mapping.unmap() }
    }

    #[inline]
    fn into_parts(self) -> (Mapping<'a, B, D>, Range<usize>, bool) {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut this.mapping) };

        (mapping, this.defined.clone(), this.fresh)
    }
}

impl<B: Buffer, D: CpuWrites> StreamingBox<'_, B, D> {
    /// Returns the defined bytes (see [`bytes`](Self::bytes)), for writing.
    ///
    /// Not there for [`FromDevice`](super::FromDevice): the CPU's writes would race with the
    /// device's on the way through a cache.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let Range { start, end } = self.defined;

        // SAFETY: As in `bytes()`; `&mut self` excludes other accesses of the CPU.
        unsafe {
            core::slice::from_raw_parts_mut(self.mapping.buf.as_mut_ptr().add(start), end - start)
        }
    }
}

impl<B: Buffer, D: Direction> Drop for StreamingBox<'_, B, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };

        // SAFETY: By the type invariants no device accesses the buffer.
        drop(unsafe { mapping.unmap() });
    }
}

/// A mapped buffer that the device owns.
///
/// It has an address, and no bytes. Only a protocol that saw the device finish turns it back into a
/// [`StreamingBox`].
///
/// Dropping it unmaps and frees the buffer at once if the device can't have been told about it:
/// nobody asked for the [address](Self::address), or the device never ran. Otherwise freeing the
/// buffer while the device may still access it would be corruption. So it is freed only if the
/// device was proven to have stopped since; else it is quarantined: it stays mapped and allocated
/// until there is such a proof, and the log names the device.
///
/// Context of dropping it: any in which a `B` may be dropped.
///
/// # Invariants
///
/// The CPU doesn't access the buffer. Unless `is_shown`, nobody knows the address.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, FromDevice, Streaming}, prelude::*};
/// fn receive_buffer<'a>(
///     dma: Mapper<'a>,
/// ) -> Result<Streaming<'a, KVec<u8>, FromDevice>> {
///     let buf = KVec::from_elem(0, 2048, GFP_KERNEL)?;
///     let rx = Streaming::map(dma, buf)?;
///
///     assert_eq!(rx.len(), 2048);
///     Ok(rx)
/// }
/// ```
#[must_use = "dropping it quarantines the buffer if the device may still access it"]
pub struct Streaming<'a, B: Buffer, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, B, D>>,
    is_shown: Atomic<bool>,
}

impl<'a, B: Buffer, D: Direction> Streaming<'a, B, D> {
    /// Maps a buffer and gives it to the device, in one C call (`dma_map_phys()`).
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The buffer comes back, with
    ///
    /// - [`EINVAL`] if it is empty, or if the device writes it, isn't cache coherent, and the
    ///   buffer doesn't begin and end on cache lines of its own;
    /// - [`EOVERFLOW`] if it is longer than [`Mapper::max_mapping_size`];
    /// - [`ENOMEM`] if there is no room for the mapping or the bounce buffer.
    #[inline]
    pub fn map(dma: Mapper<'a>, buf: B) -> Result<Self, ErrorWith<B>> {
        Self::map_with_attrs(dma, buf, MapAttrs::NONE)
    }

    /// As [`map`](Self::map), with attributes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    #[inline]
    pub fn map_with_attrs(dma: Mapper<'a>, buf: B, attrs: MapAttrs) -> Result<Self, ErrorWith<B>> {
        let mut mapping = Mapping::new(dma, buf, attrs)?;

        hand_over(mapping.buf.as_mut_ptr());

        // INVARIANT: The mapping call gave the buffer to the device, which doesn't know it yet.
        Ok(Self {
            mapping: ManuallyDrop::new(mapping),
            is_shown: Atomic::new(false),
        })
    }

    /// Returns what it was mapped with.
    #[inline]
    pub(in crate::dma) fn dma(&self) -> Mapper<'a> {
        self.mapping.dma
    }

    /// Returns the length in bytes of the buffer.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "what is mapped is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.buf.len()
    }

    /// Returns where the device finds the buffer.
    ///
    /// From here on the device is taken to know it: only a protocol that saw it finish, or a stop,
    /// gives the buffer back.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        // INVARIANT: Somebody knows it.
        self.is_shown.store(true, Relaxed);

        // SAFETY: By the type invariants of `Mapping` the whole buffer is mapped, until `self`
        // goes.
        unsafe { DmaAddr::new(self.mapping.addr, self.mapping.buf.len()) }
    }

    /// Returns whether somebody asked for the address.
    #[inline]
    pub(in crate::dma) fn is_shown(&self) -> bool {
        self.is_shown.load(Relaxed)
    }

    /// Forgets that somebody asked for the address.
    ///
    /// # Safety
    ///
    /// The device must not have been told the address, or must not use it, and nobody may keep it.
    #[inline]
    pub(in crate::dma) unsafe fn forget_address(&self) {
        // INVARIANT: By the safety requirements.
        self.is_shown.store(false, Relaxed);
    }

    /// Takes the buffer back from a device that wasn't told about it.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// It comes back if somebody asked for the [address](Self::address): the device may be at work
    /// on it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{Buffer, Direction, Streaming}, prelude::*};
    /// fn cancel<B: Buffer, D: Direction>(buf: Streaming<'_, B, D>) -> Result<B> {
    ///     buf.take_back().map(|buf| buf.unmap()).map_err(|_in_flight| EBUSY)
    /// }
    /// ```
    pub fn take_back(self) -> Result<StreamingBox<'a, B, D>, Self> {
        if self.is_shown() {
            return Err(self);
        }

        let len = self.len();

        // SAFETY: By the type invariants the device doesn't know the address.
        Ok(unsafe { self.complete(0..len) })
    }

    /// Takes the buffer back from a device that has accessed it in `range` at most.
    ///
    /// # Safety
    ///
    /// The device must have been seen to be done with the buffer, or must never have been told the
    /// address; `range` must lie inside the buffer.
    #[inline]
    pub(in crate::dma) unsafe fn complete(self, range: Range<usize>) -> StreamingBox<'a, B, D> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let mut mapping = unsafe { ManuallyDrop::take(&mut this.mapping) };

        // If both write, a line at the edge of the range could hold what the CPU wrote after this
        // sync, and would be thrown away by the sync of the rest.
        let range = if D::CPU_WRITES && D::DEVICE_WRITES {
            0..mapping.buf.len()
        } else {
            range
        };

        // SAFETY: By the safety requirements.
        unsafe { mapping.sync_for_cpu(range.clone()) };

        // INVARIANT: The device is done, and the CPU sees what it wrote in `range`.
        StreamingBox {
            mapping: ManuallyDrop::new(mapping),
            defined: range,
            fresh: false,
        }
    }
}

impl<B: Buffer, D: Direction> Drop for Streaming<'_, B, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };

        release_or_keep(mapping, self.is_shown());
    }
}

/// Frees a mapping that nobody uses any more, or keeps it if the device may access it.
#[cold]
fn release_or_keep<B: Buffer, D: Direction>(mapping: Mapping<'_, B, D>, is_shown: bool) {
    if !is_shown {
        // SAFETY: Nobody knows the address, so no device accesses the buffer.
        drop(unsafe { mapping.unmap() });
        return;
    }

    let dma = mapping.dma;

    put_away(dma.device(), dma.record(), None, mapping);
}

// SAFETY: Unmapping may be done in any context, and so may freeing a buffer, or else it can't be
// dropped there.
unsafe impl<B: Buffer, D: Direction> Orphan for Mapping<'_, B, D> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.buf.len()
    }

    unsafe fn release(self) {
        // SAFETY: By the safety requirements.
        drop(unsafe { self.unmap() });
    }
}
