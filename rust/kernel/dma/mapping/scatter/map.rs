// SPDX-License-Identifier: GPL-2.0

//! Mapped lists: who owns them.

use super::{
    super::{
        barrier::loads_before_stores,
        orphan::{
            put_away,
            Orphan, //
        },
        streaming::hand_over,
        CpuWrites,
        Direction,
        MapAttrs,
        Mapper,
        Untrusted, //
    },
    table::Table,
    Exclusive,
    Scatter,
    ScatterSegments, //
};
use crate::{
    alloc::Flags,
    error::ErrorWith,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop, //
};

/// Mapped memory in pieces. Dropping it frees only the table, and must not happen while that is
/// mapped: its owner, [`ScatterMap`] or [`ScatterBox`], unmaps it.
///
/// # Invariants
///
/// All of `memory`, which is `len` bytes, is described by `table`, and mapped for `dma`'s device in
/// the direction `D`.
struct Mapping<'a, S: Scatter, D: Direction> {
    dma: Mapper<'a>,
    table: Table,
    len: usize,
    memory: ManuallyDrop<S>,
    _direction: PhantomData<D>,
}

impl<'a, S: Scatter, D: Direction> Mapping<'a, S, D> {
    #[inline]
    fn new(
        dma: Mapper<'a>,
        memory: S,
        attrs: MapAttrs,
        flags: Flags,
    ) -> Result<Self, ErrorWith<S>> {
        let (mut table, len) = match Table::of::<S, D>(dma, &memory, flags) {
            Ok(made) => made,
            Err(error) => {
                return Err(ErrorWith {
                    error,
                    value: memory,
                })
            }
        };

        // SAFETY: The table was just made. By the contract of `Scatter` the memory stays where it
        // is until `memory` is dropped, which is after it is unmapped.
        match unsafe { table.map::<D>(dma, attrs) } {
            // INVARIANT: The mapping succeeded, for all of `memory`.
            Ok(()) => Ok(Self {
                dma,
                table,
                len,
                memory: ManuallyDrop::new(memory),
                _direction: PhantomData,
            }),
            Err(error) => Err(ErrorWith {
                error,
                value: memory,
            }),
        }
    }

    /// Tells the compiler that the device may access the memory from here on, or did so before.
    ///
    /// Only the memory's owner is in memory for that, not all of the mapping.
    #[inline]
    fn hand_over(self) -> Self {
        let mut memory = self.memory;

        // The memory is reached through the value.
        hand_over((&raw mut memory).cast());
        // INVARIANT: It is what it was.
        Self { memory, ..self }
    }

    /// Makes the CPU see what the device wrote.
    ///
    /// # Safety
    ///
    /// The device must be done with the memory.
    #[inline]
    unsafe fn sync_for_cpu(self) -> Self {
        // SAFETY: By the type invariants it is mapped in this direction. The device is done with
        // it, by the safety requirement.
        unsafe { self.table.sync_for_cpu::<D>(self.dma) };
        self.hand_over()
    }

    /// Makes the device see what the CPU wrote.
    #[inline]
    fn sync_for_device(self) -> Self {
        let this = self.hand_over();

        // SAFETY: By the type invariants it is mapped in this direction.
        unsafe { this.table.sync_for_device::<D>(this.dma) };
        this
    }

    /// Undoes the mapping, without a sync.
    ///
    /// # Safety
    ///
    /// No device may access the memory any more.
    #[inline]
    unsafe fn unmap(self) -> S {
        // SAFETY: By the type invariants it is mapped in this direction. By the safety requirement
        // the device is done with it. `self` goes, so this is done once.
        unsafe { self.table.unmap::<D>(self.dma) };

        ManuallyDrop::into_inner(self.memory)
    }
}

/// A mapped list of pieces that the CPU owns.
///
/// [`submit`](Self::submit) gives it to the device, and [`unmap`](Self::unmap) gives the memory
/// back to the driver. If nobody else has the memory ([`Exclusive`]), its bytes can be read by
/// [`slices`](Self::slices), and written by [`slices_mut`](Self::slices_mut) if the direction
/// allows it. Dropping it unmaps the memory and drops it. Forgetting it leaks the memory.
///
/// Each move between the CPU and the device syncs all pieces, in one call.
///
/// # Invariants
///
/// - No device accesses the memory.
/// - The first `defined` bytes are there, and the CPU sees all bytes as they were last written.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, ScatterBox, ScatterMap, ToDevice}, prelude::*};
/// /// Maps a megabyte of memory, which need not be contiguous, and fills it.
/// fn picture<'a>(dma: Mapper<'a>) -> Result<ScatterMap<'a, VVec<u8>, ToDevice>> {
///     let memory = VVec::from_elem(0, 1 << 20, GFP_KERNEL)?;
///     let mut list = ScatterBox::map(dma, memory, GFP_KERNEL)?;
///
///     list.slices_mut().for_each(|slice| slice.fill(0xff));
///     Ok(list.submit())
/// }
/// ```
#[must_use = "dropping it unmaps and drops the memory"]
pub struct ScatterBox<'a, S: Scatter, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, S, D>>,
    defined: usize,
}

impl<'a, S: Scatter, D: Direction> ScatterBox<'a, S, D> {
    /// Maps memory and leaves it with the CPU.
    ///
    /// Use this for memory that is mapped once and used often, or filled after it was mapped. For a
    /// single use [`ScatterMap::map`] is cheaper. C: `dma_map_sgtable()` with
    /// `DMA_ATTR_SKIP_CPU_SYNC`.
    ///
    /// Context: as `flags` say.
    ///
    /// # Errors
    ///
    /// As [`ScatterMap::map`].
    #[inline]
    pub fn map(dma: Mapper<'a>, memory: S, flags: Flags) -> Result<Self, ErrorWith<S>> {
        let mapping = Mapping::new(dma, memory, MapAttrs::NONE.skip_cpu_sync(), flags)?;

        // INVARIANT: No device was told an address; what the CPU wrote is what it sees.
        Ok(Self {
            defined: mapping.len,
            mapping: ManuallyDrop::new(mapping),
        })
    }

    /// Returns the number of bytes, of all pieces together.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "what is mapped is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Returns how many bytes are *defined*, from the first on: all if the device didn't own the
    /// memory yet, and otherwise as many as it reported to have moved.
    ///
    /// Memory with other owners shows no bytes here: tell its owners this number.
    #[inline]
    pub fn defined(&self) -> usize {
        self.defined
    }

    /// Gives the memory to the device, and makes it see what the CPU wrote (C:
    /// `dma_sync_sgtable_for_device()`).
    ///
    /// The device isn't told: hand the result to a protocol for that. Context: any.
    #[inline]
    pub fn submit(self) -> ScatterMap<'a, S, D> {
        let mapping = self.into_mapping();

        if D::DEVICE_WRITES {
            // The device may write from here on, so the CPU must have read before.
            loads_before_stores();
        }

        // INVARIANT: The CPU's accesses are over and synced; nobody has asked for an address.
        ScatterMap {
            // Also if the CPU could only read: others may have written.
            mapping: ManuallyDrop::new(mapping.sync_for_device()),
            is_shown: Atomic::new(false),
        }
    }

    /// Undoes the mapping and returns the memory (C: `dma_unmap_sgtable()`).
    ///
    /// Beyond what the device reported to have moved, the bytes are what it wrote there, or what
    /// was there before. Context: any.
    #[inline]
    pub fn unmap(self) -> S {
        // The CPU sees all bytes, and may have written since, so the unmap itself must copy
        // nothing.
        //
        // SAFETY: By the type invariants no device accesses the memory.
        unsafe { self.into_mapping().unmap() }
    }

    #[inline]
    fn into_mapping(self) -> Mapping<'a, S, D> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        unsafe { ManuallyDrop::take(&mut this.mapping) }
    }
}

/// Returns how much of a slice is within the first `left` bytes of a list, and notes that they were
/// seen.
#[inline]
fn take_defined(left: &mut usize, slice: usize) -> usize {
    let len = slice.min(*left);

    *left -= len;
    len
}

impl<S: Exclusive, D: Direction> ScatterBox<'_, S, D> {
    /// Returns the [defined](Self::defined) bytes, slice by slice, for reading.
    ///
    /// Context: any.
    #[inline]
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let memory: &S = &self.mapping.memory;
        let mut left = self.defined;

        (0..memory.slices()).map_while(move |at| {
            let slice = memory.slice(at);
            let len = take_defined(&mut left, slice.len());

            // SAFETY: By the contract of `Exclusive` the slice is valid, initialised, and belongs
            // to `memory`, which is borrowed. By the type invariants no device accesses it.
            (len > 0).then(|| unsafe { core::slice::from_raw_parts(slice.cast(), len) })
        })
    }
}

impl<S: Exclusive, D: CpuWrites> ScatterBox<'_, S, D> {
    /// Returns the [defined](Self::defined) bytes, slice by slice, for writing.
    ///
    /// A [`FromDevice`](super::super::FromDevice) list doesn't have this, as with
    /// [`StreamingBox::bytes_mut`](super::super::StreamingBox::bytes_mut). Context: any.
    #[inline]
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let memory: &mut S = &mut self.mapping.memory;
        let mut left = self.defined;

        (0..memory.slices()).map_while(move |at| {
            let slice = memory.slice_mut(at);
            let len = take_defined(&mut left, slice.len());

            // SAFETY: As in `slices()`. `memory` is borrowed mutably, and slices don't overlap.
            (len > 0).then(|| unsafe { core::slice::from_raw_parts_mut(slice.cast(), len) })
        })
    }
}

impl<S: Scatter, D: Direction> Drop for ScatterBox<'_, S, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };

        // SAFETY: By the type invariants no device accesses the memory.
        drop(unsafe { mapping.unmap() });
    }
}

/// A mapped list of pieces that the device owns: it has segments with bus addresses, and no bytes.
///
/// Map memory, and hand the result to a protocol, for instance to a ring (`Chain::push_list()`), or
/// to a queue as a payload. When the protocol has seen the completion, it returns a [`ScatterBox`],
/// from which the memory comes back. Moving between the two types *is* the sync, as with
/// [`Streaming`](super::super::Streaming).
///
/// Dropping it is safe at any time:
///
/// - The memory is unmapped and dropped at once if nobody asked for its [segments](Self::segments),
///   or if the device didn't run since it was last proven to have stopped.
/// - Otherwise the device may be accessing the memory. So it is *quarantined*: it stays mapped and
///   allocated until there is such a proof, and the log names the device.
///
/// Forgetting it leaks the memory. Context of dropping it: any in which an `S` may be dropped.
///
/// # Invariants
///
/// The CPU doesn't access the memory, unless others have it, too. `is_shown` is as in
/// [`Streaming`](super::super::Streaming).
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{DmaAddr, FromDevice, Mapper, Pages, ScatterMap}, prelude::*};
/// fn receive_list<'a>(
///     dma: Mapper<'a>,
/// ) -> Result<ScatterMap<'a, KVec<Pages>, FromDevice>> {
///     let mut pages = KVec::new();
///
///     for _ in 0..16 {
///         pages.push(Pages::zeroed(0, GFP_KERNEL)?, GFP_KERNEL)?;
///     }
///
///     let list = ScatterMap::map(dma, pages, GFP_KERNEL)?;
///
///     // Behind an IOMMU it may be a single segment.
///     assert_eq!(list.segments().map(DmaAddr::len).sum::<usize>(), list.len());
///     Ok(list)
/// }
/// ```
#[must_use = "dropping it quarantines the memory if the device may still access it"]
pub struct ScatterMap<'a, S: Scatter, D: Direction> {
    mapping: ManuallyDrop<Mapping<'a, S, D>>,
    is_shown: Atomic<bool>,
}

impl<'a, S: Scatter, D: Direction> ScatterMap<'a, S, D> {
    /// Maps memory and gives it to the device (C: `sg_alloc_table()`, `dma_map_sgtable()`).
    ///
    /// All of it is mapped. The device isn't told: hand the result to a protocol for that. `flags`
    /// are for the table of pieces. Context: as `flags` say.
    ///
    /// # Errors
    ///
    /// The memory comes back, with
    ///
    /// - [`EINVAL`] if there is none, or a piece is empty;
    /// - [`EINVAL`] if the device writes it and isn't cache coherent, a piece doesn't begin and end
    ///   on cache lines of its own, and the kernel doesn't bounce it for that reason;
    /// - [`EINVAL`] if it breaks the alignment of the device's
    ///   [`Constraints`](super::super::Constraints); a piece that breaks one of the other limits is
    ///   divided;
    /// - [`EOVERFLOW`] if there are more pieces than a table can have: about 2^31, or on some
    ///   machines what fits into a page (`CONFIG_ARCH_NO_SG_CHAIN`);
    /// - [`ENOMEM`] if there is no room for the table, the mapping or the bounce buffers.
    #[inline]
    pub fn map(dma: Mapper<'a>, memory: S, flags: Flags) -> Result<Self, ErrorWith<S>> {
        let mapping = Mapping::new(dma, memory, MapAttrs::NONE, flags)?;

        if D::DEVICE_WRITES {
            // The device may write from here on, so the CPU must have read before.
            loads_before_stores();
        }

        // INVARIANT: The mapping call gave the memory to the device; nobody has asked for an
        // address.
        Ok(Self {
            mapping: ManuallyDrop::new(mapping.hand_over()),
            is_shown: Atomic::new(false),
        })
    }

    /// Returns the permission that it was mapped with.
    #[inline]
    pub(in crate::dma) fn dma(&self) -> Mapper<'a> {
        self.mapping.dma
    }

    /// Returns the number of bytes, of all pieces together.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "what is mapped is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Returns the segments that the device sees, in order.
    ///
    /// For a protocol of the driver's own. A ring or a queue asks for them by itself, and refuses a
    /// list whose addresses somebody else has. From here on the memory counts as shown:
    /// [`take_back`](Self::take_back) fails, and it isn't freed before a stop of the device.
    /// Context: any.
    #[inline]
    pub fn segments(&self) -> ScatterSegments<'_> {
        // INVARIANT: Noted before an address is handed out.
        self.is_shown.store(true, Relaxed);
        self.mapping.table.segments()
    }

    /// Returns the segments, for a protocol that owns the list from before the device is shown one
    /// until the device is done.
    #[inline]
    pub(in crate::dma) fn segments_unshown(&self) -> ScatterSegments<'_> {
        self.mapping.table.segments()
    }

    /// Returns whether somebody asked for the segments.
    #[inline]
    pub(in crate::dma) fn is_shown(&self) -> bool {
        self.is_shown.load(Relaxed)
    }

    /// As [`is_shown`](Self::is_shown). It costs nothing where the compiler knows the answer.
    #[inline]
    pub(in crate::dma) fn was_shown(&mut self) -> bool {
        *self.is_shown.get_mut()
    }

    /// Notes that the device was shown the segments, as [`segments`](Self::segments) does.
    #[cfg(CONFIG_DMA_ENGINE)]
    #[inline]
    pub(in crate::dma) fn set_shown(&mut self) {
        *self.is_shown.get_mut() = true;
    }

    /// Takes back memory that the device wasn't told about, for instance when a ring refused it.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back if somebody asked for the [segments](Self::segments), since the device may
    /// be accessing the memory.
    pub fn take_back(mut self) -> Result<ScatterBox<'a, S, D>, Self> {
        if self.was_shown() {
            return Err(self);
        }

        let len = self.len();

        // SAFETY: By the type invariants nobody else has an address. Who had one has given this
        // back, and the device wasn't shown it, or is done.
        Ok(unsafe { self.finish(len) })
    }

    /// Takes the memory back from a device that is done with it, and that reports to have moved
    /// `moved` bytes, from the first on.
    ///
    /// # Errors
    ///
    /// [`EIO`] if the list has fewer bytes. The value of the error is the list, of which no byte is
    /// [defined](ScatterBox::defined).
    ///
    /// # Safety
    ///
    /// The device must be done with the memory, and the caller have seen that, or the device must
    /// never have been shown an address.
    #[inline]
    pub(in crate::dma) unsafe fn complete(
        self,
        moved: Untrusted<usize>,
    ) -> Result<ScatterBox<'a, S, D>, ErrorWith<ScatterBox<'a, S, D>>> {
        match moved.at_most(self.len()) {
            // SAFETY: By the safety requirements; there are so many bytes.
            Ok(moved) => Ok(unsafe { self.finish(moved) }),
            Err(error) => Err(ErrorWith {
                error,
                // SAFETY: By the safety requirements.
                value: unsafe { self.finish(0) },
            }),
        }
    }

    /// As [`complete`](Self::complete).
    ///
    /// # Safety
    ///
    /// As for [`complete`](Self::complete), and there must be `moved` bytes.
    #[inline]
    pub(in crate::dma) unsafe fn finish(self, moved: usize) -> ScatterBox<'a, S, D> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut this.mapping) };

        // SAFETY: By the safety requirements the device is done.
        let mapping = unsafe { mapping.sync_for_cpu() };

        // INVARIANT: The device is done, and the CPU sees all that it wrote. By the safety
        // requirements there are so many bytes.
        ScatterBox {
            mapping: ManuallyDrop::new(mapping),
            defined: moved,
        }
    }
}

impl<S: Scatter, D: Direction> Drop for ScatterMap<'_, S, D> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };

        release_or_keep(mapping, self.was_shown());
    }
}

/// Unmaps and drops memory whose owner was dropped, or quarantines it if the device may access it.
#[cold]
fn release_or_keep<S: Scatter, D: Direction>(mapping: Mapping<'_, S, D>, is_shown: bool) {
    if !is_shown {
        // SAFETY: By the type invariants nobody knows an address, or the device is done. So no
        // device accesses the memory.
        drop(unsafe { mapping.unmap() });
        return;
    }

    let dma = mapping.dma;

    put_away(dma.device(), dma.record(), None, mapping);
}

// SAFETY:
// 1. Unmapping may be done in any context, and by any thread. Dropping the memory may be done in
//    process context, and in any in which the driver drops it.
// 2. A `Scatter` is `'static`.
unsafe impl<S: Scatter, D: Direction> Orphan for Mapping<'_, S, D> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.len
    }

    unsafe fn release(self) {
        // SAFETY: By the safety requirements no device accesses the memory any more.
        drop(unsafe { self.unmap() });
    }
}
