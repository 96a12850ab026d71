// SPDX-License-Identifier: GPL-2.0

//! Streaming mappings of single buffers.
//!
//! [`Streaming`] is a buffer that the device owns, [`StreamingBox`] one that the CPU owns. A
//! *protocol* tells the device of a buffer, and sees its completion. Those of this crate, such as
//! `transfer`, call [`Streaming::complete`] when they have seen
//! the device finish. [`map`], [`unmap`] and [`sync_for_cpu`] are for protocols that keep a buffer
//! and its address apart, such as `ring`.
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
    Mapper,
    ToDevice, //
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

/// A mapped buffer and its bus address. Dropping it does nothing: its owner, [`Streaming`] or
/// [`StreamingBox`], unmaps it.
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
// C's are always inlined, too. A call would have its result in memory.
#[inline(always)]
pub(in crate::dma) fn map<B: Buffer, D: Direction>(
    dma: Mapper<'_>,
    buf: &B,
    attrs: MapAttrs,
) -> Result<DmaAddress> {
    check::<B, D>(dma, buf)?;

    // INVARIANT: They are those of `buf`.
    let bytes = Bytes {
        ptr: buf.as_ptr(),
        len: buf.len(),
    };

    map_checked::<D>(dma, bytes, attrs)
}

/// Maps memory for the device to read: as [`map`], for what is no [`Buffer`], since others may read
/// it, too.
///
/// # Errors
///
/// As [`Streaming::map`].
///
/// # Safety
///
/// `len` bytes from `ptr` on must be initialised, contiguous and in the linear map.
#[inline]
pub(in crate::dma) unsafe fn map_to_read(
    dma: Mapper<'_>,
    ptr: *const u8,
    len: usize,
) -> Result<DmaAddress> {
    if len == 0 {
        return Err(EINVAL);
    }

    // INVARIANT: By the safety requirements; the device only reads them.
    map_checked::<ToDevice>(dma, Bytes { ptr, len }, MapAttrs::NONE)
}

#[inline(always)]
fn map_checked<D: Direction>(dma: Mapper<'_>, bytes: Bytes, attrs: MapAttrs) -> Result<DmaAddress> {
    if bytes.len > dma.record().plain_len {
        let Mapped { addr, errno } = map_limited::<D>(dma, bytes, attrs);

        if errno != 0 {
            return Err(Error::from_errno(errno));
        }

        return Ok(addr);
    }

    map_bytes::<D>(dma, bytes, attrs)
}

/// Where a buffer is. The buffer itself would have to be in memory for a function that isn't
/// inlined.
///
/// # Invariants
///
/// The bytes are those of a [`Buffer`], as its contract says; or the device is to read them only,
/// and they are initialised, contiguous and in the linear map.
struct Bytes {
    ptr: *const u8,
    len: usize,
}

/// What came of mapping. Unlike a [`Result`], it is returned in two registers.
struct Mapped {
    addr: DmaAddress,
    /// 0 if it is mapped.
    errno: c_int,
}

/// As [`map`], for a buffer that may break a constraint, or be too long for the backend.
#[cold]
#[inline(never)]
fn map_limited<D: Direction>(dma: Mapper<'_>, bytes: Bytes, attrs: MapAttrs) -> Mapped {
    match try_map_limited::<D>(dma, bytes, attrs) {
        Ok(addr) => Mapped { addr, errno: 0 },
        Err(error) => Mapped {
            addr: 0,
            errno: error.to_errno(),
        },
    }
}

#[inline]
fn try_map_limited<D: Direction>(
    dma: Mapper<'_>,
    bytes: Bytes,
    attrs: MapAttrs,
) -> Result<DmaAddress> {
    let constraints = dma.record().constraints();
    let len = bytes.len;

    if len > ALWAYS_MAPPABLE && len > dma.max_mapping_size() {
        return Err(EOVERFLOW);
    }

    constraints.admit_len(len)?;

    let addr = map_bytes::<D>(dma, bytes, attrs)?;

    constraints
        .admit(addr, len)
        // SAFETY: It was just mapped, and no device was shown the address.
        .inspect_err(|_| unsafe { unmap::<D>(dma, addr, len, attrs) })?;
    Ok(addr)
}

/// Maps what was checked.
#[inline]
fn map_bytes<D: Direction>(dma: Mapper<'_>, bytes: Bytes, attrs: MapAttrs) -> Result<DmaAddress> {
    let Bytes { ptr, len } = bytes;

    // SAFETY: The device and the bytes are valid. This only looks at them, and complains.
    #[cfg(CONFIG_DMA_API_DEBUG)]
    unsafe {
        bindings::debug_dma_map_single(dma.as_raw(), ptr.cast(), len)
    };

    // SAFETY: `Mapper` proves a bound device whose masks are set. By the type invariants of
    // `Bytes`, and the contract of `Buffer`, the bytes are in the linear map, contiguous and
    // initialised; and they are ours alone, or the device only reads them. Failure is checked
    // below.
    let addr = unsafe {
        bindings::dma_map_phys(
            dma.as_raw(),
            bindings::dma_linear_to_phys(ptr.cast()),
            len,
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

/// Returns the error for a mapping that failed. A function, to mark the path as cold.
#[cold]
fn no_room() -> Error {
    ENOMEM
}

/// Refuses what the C side would warn about or get wrong: see [`Streaming::map`].
#[inline]
fn check<B: Buffer, D: Direction>(dma: Mapper<'_>, buf: &B) -> Result {
    let len = buf.len();

    if len == 0 {
        return Err(EINVAL);
    }

    if D::DEVICE_WRITES && !dma.is_coherent() {
        // The C side returns a power of two, so a mask replaces a division.
        //
        // SAFETY: The function has no requirements.
        // CAST: A small number.
        let mask = (unsafe { bindings::dma_get_cache_alignment() } as usize).wrapping_sub(1);
        let lines = len.wrapping_add(mask) & !mask;

        // Invalidating a cache line would throw away whatever else is in it.
        if (buf.as_ptr().addr() & mask != 0 || lines > buf.allocation()) && !bounces::<D>(dma, len)
        {
            return Err(EINVAL);
        }
    }

    Ok(())
}

/// Returns whether the kernel bounces a buffer of that length for a device that isn't cache
/// coherent. It does so where `kmalloc()` may have put it into a cache line with something else
/// (C: `dma_kmalloc_needs_bounce()`).
#[cold]
#[inline(never)]
pub(super) fn bounces<D: Direction>(dma: Mapper<'_>, len: usize) -> bool {
    // SAFETY: `dma` leads to a valid `struct device`.
    unsafe { bindings::dma_bounces_unaligned(dma.as_raw(), len, D::DATA_DIRECTION.into()) }
}

/// Undoes a mapping (C: `dma_unmap_single()`).
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
    // SAFETY: By the safety requirements `len` bytes are mapped at `addr` in this direction, and
    // the device is done with them.
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

/// Makes the CPU see what the device wrote (C: `dma_sync_single_for_cpu()`).
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

/// Tells the compiler that the device may read or write a buffer from here on, or did so before.
///
/// Nothing else tells it where the C calls are inlined and the device needs no sync. This is no
/// barrier for the CPU.
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

    /// Returns the bus address of a byte. At the end of the buffer it may wrap to 0.
    #[inline]
    fn address_of(&self, offset: usize) -> DmaAddress {
        address::within(self.addr, offset)
    }

    /// Makes the CPU see what the device wrote in `range`.
    ///
    /// # Safety
    ///
    /// `range` must lie inside the buffer, and the device must be done with it.
    #[inline]
    unsafe fn sync_for_cpu(&mut self, range: Range<usize>) {
        let addr = self.address_of(range.start);

        // SAFETY: By the type invariants the range is mapped in this direction, since it lies
        // inside the buffer. The device is done with it, by the safety requirements.
        unsafe { sync_for_cpu::<D>(self.dma, addr, range.end - range.start) };

        hand_over(self.buf.as_mut_ptr());
    }

    /// Makes the device see what the CPU wrote in `range`, which must lie inside the buffer.
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

    /// Undoes the mapping, without a sync.
    ///
    /// # Safety
    ///
    /// No device may access the buffer any more.
    #[inline]
    unsafe fn unmap(self) -> B {
        // SAFETY: By the type invariants the buffer is mapped at this address in this direction. By
        // the safety requirement the device is done with it. `self` goes, so this is done once.
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

/// A mapped buffer that the CPU owns: its bytes can be read, and written if the direction allows
/// it.
///
/// [`submit`](Self::submit) gives the buffer to the device, and [`unmap`](Self::unmap) gives it
/// back to the driver. Dropping it unmaps and frees the buffer. Forgetting it leaks the buffer.
///
/// *Defined* bytes are those that the CPU sees as they were last written, by either side. The
/// others may show an older state, since only the part that a transfer covered is synced when the
/// buffer comes back. [`unmap`](Self::unmap) syncs the rest.
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
    /// Whether the device hasn't owned the buffer since it was mapped. Then the CPU's writes from
    /// before may still be in its caches, anywhere in the buffer.
    fresh: bool,
}

impl<'a, B: Buffer, D: Direction> StreamingBox<'a, B, D> {
    /// Maps a buffer and leaves it with the CPU.
    ///
    /// Use this for a buffer that is mapped once and used often. For a single use
    /// [`Streaming::map`] is cheaper: it maps and submits in one call, and fills a bounce buffer
    /// once instead of twice. C: `dma_map_single_attrs()` with `DMA_ATTR_SKIP_CPU_SYNC`.
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

    /// Returns the [defined](Self) bytes, for reading.
    ///
    /// These are all bytes if the buffer was just mapped, if it was
    /// [taken back](Streaming::take_back), or if it is [`Bidirectional`](super::Bidirectional).
    /// Otherwise they are the bytes that the device reported to have moved. Context: any.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let Range { start, end } = self.defined;

        // SAFETY: By the type invariants `defined` lies inside the buffer, and no device accesses
        // it. By the contract of `Buffer` the bytes are initialised, and the buffer's alone.
        unsafe { core::slice::from_raw_parts(self.mapping.buf.as_ptr().add(start), end - start) }
    }

    /// Gives the buffer to the device, and makes it see what the CPU wrote (C:
    /// `dma_sync_single_for_device()`).
    ///
    /// The device isn't told: hand the result to a protocol for that. A buffer that was just mapped
    /// is synced whole; later only one that the CPU may write to is. Context: any.
    #[inline]
    pub fn submit(self) -> Streaming<'a, B, D> {
        let (mut mapping, defined, fresh) = self.into_parts();

        if D::DEVICE_WRITES {
            // The device may write from here on, so the CPU must have read before.
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

        // INVARIANT: The CPU's accesses are over and synced; nobody has asked for the address.
        Streaming {
            mapping: ManuallyDrop::new(mapping),
            is_shown: Atomic::new(false),
        }
    }

    /// Undoes the mapping and returns the buffer (C: `dma_unmap_single()`).
    ///
    /// All its bytes are [defined](Self) then. Those beyond what the device reported may be old or
    /// new.
    ///
    /// Context: any.
    #[inline]
    pub fn unmap(self) -> B {
        let (mut mapping, defined, _) = self.into_parts();
        let len = mapping.buf.len();

        // What is outside of `defined` wasn't synced yet. Inside, the CPU may have written since,
        // so the unmap itself must copy nothing.
        //
        // SAFETY: `defined` lies inside the buffer, which no device accesses, by the type
        // invariants.
        unsafe {
            mapping.sync_for_cpu(0..defined.start);
            mapping.sync_for_cpu(defined.end..len);
        }

        // SAFETY: By the type invariants no device accesses the buffer.
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
    /// Returns the [defined](Self) bytes (see [`bytes`](Self::bytes)), for writing.
    ///
    /// A [`FromDevice`](super::FromDevice) buffer doesn't have this: a cache line that the CPU
    /// wrote could reach memory after the device's writes, and overwrite them. Context: any.
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

/// A mapped buffer that the device owns: it has a bus address, and no bytes.
///
/// Map a buffer, and hand the result to a protocol: a `TransferSlot` or a queue takes it, while a
/// `Ring` maps buffers by itself. A protocol that has seen the completion returns a
/// [`StreamingBox`], from which the buffer comes back. Moving between the two types *is* the sync:
///
/// ```text
///                   Streaming::map()
///       buffer ---------------------------> Streaming       (the device owns it)
///         |  ^                               |  ^
///         |  | unmap()       completion, or  |  | submit()
///         |  |               take_back()     v  |
///         |  +---------------------------- StreamingBox     (the CPU owns it)
///         +------------------------------->
///                   StreamingBox::map()
/// ```
///
/// `bytes()` and `unmap()` are methods of a [`StreamingBox`] only. Where the compiler doesn't find
/// them here, the driver has to wait for the completion first, or to take back a buffer that was
/// never shown to the device.
///
/// Dropping it is safe at any time:
///
/// - The buffer is unmapped and freed at once if nobody asked for its [address](Self::address), or
///   if the device didn't run since it was last proven to have stopped.
/// - Otherwise the device may be accessing the buffer. So it is *quarantined*: it stays mapped and
///   allocated until there is such a proof, and the log names the device.
///
/// Forgetting it leaks the buffer. Context of dropping it: any in which a `B` may be dropped.
///
/// # Invariants
///
/// The CPU doesn't access the buffer. Unless `is_shown`, nobody has the address; or who has it owns
/// the buffer, and drops it only when the device is done.
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
#[must_use = "give it to a transfer or a queue; dropping it frees the buffer, or quarantines it"]
pub struct Streaming<'a, B: Buffer, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, B, D>>,
    is_shown: Atomic<bool>,
}

impl<'a, B: Buffer, D: Direction> Streaming<'a, B, D> {
    /// Maps a buffer and gives it to the device (C: `dma_map_single()`).
    ///
    /// All its bytes are mapped. The device isn't told: hand the result to a protocol for that.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// The buffer comes back, with
    ///
    /// - [`EINVAL`] if it is empty;
    /// - [`EINVAL`] if the device writes it and isn't cache coherent, while the buffer shares a
    ///   cache line with other memory and the kernel doesn't bounce it for that reason;
    /// - [`EINVAL`] if it breaks the boundary or the alignment of the device's
    ///   [`Constraints`](super::Constraints);
    /// - [`EOVERFLOW`] if it is longer than [`Mapper::max_mapping_size`], or than the longest
    ///   segment of the constraints;
    /// - [`ENOMEM`] if there is no room for the mapping or the bounce buffer.
    // As `map()` above.
    #[inline(always)]
    pub fn map(dma: Mapper<'a>, buf: B) -> Result<Self, ErrorWith<B>> {
        let mut mapping = Mapping::new(dma, buf, MapAttrs::NONE)?;

        if D::DEVICE_WRITES {
            // The device may write from here on, so the CPU must have read before.
            loads_before_stores();
        }

        hand_over(mapping.buf.as_mut_ptr());

        // INVARIANT: The mapping call gave the buffer to the device; nobody has asked for the
        // address.
        Ok(Self {
            mapping: ManuallyDrop::new(mapping),
            is_shown: Atomic::new(false),
        })
    }

    /// Returns the permission that it was mapped with.
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

    /// Returns the bus address of the buffer.
    ///
    /// For a protocol of the driver's own. A `TransferSlot` or a queue asks for it by itself, and
    /// refuses a buffer whose address somebody else has. From here on the buffer counts as shown:
    /// [`take_back`](Self::take_back) fails, and it isn't freed before a stop of the device.
    /// Context: any.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        // INVARIANT: Noted before the address is handed out.
        self.is_shown.store(true, Relaxed);
        self.address_unshown()
    }

    /// Returns the bus address, for a protocol that owns the buffer from before the device is shown
    /// the address until the device is done.
    #[inline]
    pub(in crate::dma) fn address_unshown(&self) -> DmaAddr<'_> {
        // SAFETY: By the type invariants of `Mapping` the whole buffer is mapped, until `self`
        // goes.
        unsafe { DmaAddr::new(self.mapping.addr, self.mapping.buf.len()) }
    }

    /// As [`is_shown`](Self::is_shown). It costs nothing where the compiler knows the answer.
    #[inline]
    pub(in crate::dma) fn was_shown(&mut self) -> bool {
        *self.is_shown.get_mut()
    }

    /// Returns whether somebody asked for the address.
    #[inline]
    pub(in crate::dma) fn is_shown(&self) -> bool {
        self.is_shown.load(Relaxed)
    }

    /// Notes that the device was shown the address, as [`address`](Self::address) does.
    #[cfg(CONFIG_DMA_ENGINE)]
    #[inline]
    pub(in crate::dma) fn set_shown(&mut self) {
        *self.is_shown.get_mut() = true;
    }

    /// Records that the buffer isn't shown, though somebody asked for the address.
    ///
    /// # Safety
    ///
    /// The device must not have been shown the address, or must not use it. Nobody may keep the
    /// address.
    #[inline]
    pub(in crate::dma) unsafe fn forget_address(&self) {
        // INVARIANT: By the safety requirements nobody has the address.
        self.is_shown.store(false, Relaxed);
    }

    /// Takes back a buffer that the device wasn't told about, for instance when a transfer was
    /// refused.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back if somebody asked for the [address](Self::address), since the device may
    /// be accessing the buffer.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{Buffer, Direction, Streaming}, prelude::*};
    /// fn cancel<B: Buffer, D: Direction>(buf: Streaming<'_, B, D>) -> Result<B> {
    ///     buf.take_back().map(|buf| buf.unmap()).map_err(|_in_flight| EBUSY)
    /// }
    /// ```
    pub fn take_back(mut self) -> Result<StreamingBox<'a, B, D>, Self> {
        if self.was_shown() {
            return Err(self);
        }

        let len = self.len();

        // SAFETY: By the type invariants nobody else has the address. Who had it has given this
        // back, and the device wasn't shown it, or is done.
        Ok(unsafe { self.complete(0..len) })
    }

    /// Takes the buffer back from a device that is done with it. `range` is what the device reports
    /// to have written or read, and becomes the [defined](StreamingBox) part.
    ///
    /// # Safety
    ///
    /// The device must be done with the buffer, and the caller have seen that, or the device must
    /// never have been shown the address. `range` must lie inside the buffer.
    #[inline]
    pub(in crate::dma) unsafe fn complete(self, range: Range<usize>) -> StreamingBox<'a, B, D> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let mut mapping = unsafe { ManuallyDrop::take(&mut this.mapping) };

        // If both write, all is synced now. The CPU could write to a cache line at the edge of the
        // range, and a later sync of the rest would throw that line away.
        let range = if D::CPU_WRITES && D::DEVICE_WRITES {
            0..mapping.buf.len()
        } else {
            range
        };

        // SAFETY: By the safety requirements the device is done, and `range` is inside the buffer.
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

        release_or_keep(mapping, self.was_shown());
    }
}

/// Unmaps and frees a buffer whose owner was dropped, or quarantines it if the device may access
/// it.
#[cold]
fn release_or_keep<B: Buffer, D: Direction>(mapping: Mapping<'_, B, D>, is_shown: bool) {
    if !is_shown {
        // SAFETY: By the type invariants nobody knows the address, or the device is done. So no
        // device accesses the buffer.
        drop(unsafe { mapping.unmap() });
        return;
    }

    let dma = mapping.dma;

    put_away(dma.device(), dma.record(), None, mapping);
}

// SAFETY:
// 1. Unmapping may be done in any context, and by any thread. Dropping the buffer may be done in
//    process context, and in any in which the driver drops it.
// 2. A `Buffer` is `'static`.
unsafe impl<B: Buffer, D: Direction> Orphan for Mapping<'_, B, D> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.buf.len()
    }

    unsafe fn release(self) {
        // SAFETY: By the safety requirements no device accesses the buffer any more.
        drop(unsafe { self.unmap() });
    }
}
