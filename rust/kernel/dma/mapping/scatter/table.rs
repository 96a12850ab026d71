// SPDX-License-Identifier: GPL-2.0

//! Tables of pieces, as the DMA API takes them (C: `struct sg_table`).

use super::{
    super::{
        constraints::ALWAYS_MAPPABLE,
        streaming,
        Direction,
        DmaAddr,
        MapAttrs,
        Mapper, //
    },
    memory::Piece,
    Scatter, //
};
use crate::{
    alloc::Flags,
    bindings,
    device::Device,
    io::PhysAddr,
    page::PAGE_SIZE,
    prelude::*, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

/// The longest entry, whatever the device takes: its length is a `u32` in C, to which the IOMMU
/// code adds padding.
const MAX_ENTRY: usize = 1 << 30;

/// The entries that fit into one allocation of C's table; more are chained.
#[cfg(CONFIG_ARCH_NO_SG_CHAIN)]
const MAX_UNCHAINED: usize = PAGE_SIZE / size_of::<bindings::scatterlist>();

/// The length of a cache line on most machines. Entries that share one may cost more, also where
/// the device is coherent.
const LINE: usize = 64;

/// What an entry may be like. It is the same as long as a driver is bound, but for what the backend
/// maps at once.
#[derive(Clone, Copy)]
pub(in super::super) struct Limits {
    /// The longest, in bytes. Not 0.
    len: usize,
    /// A power of two less one: the boundary that none may cross.
    boundary: PhysAddr,
    /// A power of two. Where an entry is divided, each part but the last has a multiple of it, if
    /// possible.
    alignment: usize,
}

impl Limits {
    /// Returns the limits of a device that has its constraints, with this alignment.
    pub(in super::super) fn new(dev: &Device, alignment: usize) -> Self {
        // SAFETY: `dev` is a valid `struct device`; the last function has no requirements.
        let (max, boundary, line) = unsafe {
            (
                bindings::dma_get_max_seg_size(dev.as_raw()),
                bindings::dma_get_seg_boundary(dev.as_raw()),
                bindings::dma_get_cache_alignment(),
            )
        };

        Self {
            // CAST: Widening.
            len: (max as usize).min(MAX_ENTRY),
            // CAST: Widening.
            boundary: boundary as PhysAddr,
            // CAST: A small number.
            alignment: alignment.max(line as usize),
        }
        .rounded()
    }

    /// Returns the limits of what is mapped now.
    #[inline]
    fn of(dma: Mapper<'_>) -> Self {
        let limits = dma.record().limits;

        if limits.len <= ALWAYS_MAPPABLE {
            return limits;
        }

        Self {
            len: limits.len.min(dma.max_mapping_size()),
            ..limits
        }
        .rounded()
    }

    /// What is divided is so at pages, if pages fit, and else where the parts are aligned.
    fn rounded(mut self) -> Self {
        for granule in [PAGE_SIZE, LINE, self.alignment] {
            if self.len > granule {
                self.len &= !(granule - 1);
            }
        }

        self
    }

    /// Returns how many bytes at `phys` may be in one entry.
    #[inline]
    fn at(&self, phys: PhysAddr) -> usize {
        let to_boundary = self.boundary - (phys & self.boundary);

        match usize::try_from(to_boundary) {
            Ok(rest) => self.len.min(rest.saturating_add(1)),
            Err(_) => self.len,
        }
    }
}

/// Returns the mask of a cache line, if an entry that shares one could lose what is in it.
#[inline]
fn line_of<D: Direction>(dma: Mapper<'_>) -> usize {
    if !D::DEVICE_WRITES || dma.is_coherent() {
        return 0;
    }

    // The C side returns a power of two, so this is a mask.
    //
    // SAFETY: The function has no requirements.
    // CAST: A small number.
    (unsafe { bindings::dma_get_cache_alignment() } as usize).wrapping_sub(1)
}

/// Writes the entries of a table.
struct Filler {
    limits: Limits,
    /// A power of two less one. Each entry must begin at a multiple of that power of two, and own
    /// the rest of the last multiple, unless the kernel bounces it. 0 if that doesn't matter.
    line: usize,
    /// The next entry, unless there is none.
    next: *mut bindings::scatterlist,
    /// The last entry that was written.
    last: *mut bindings::scatterlist,
    /// How many there are room for.
    capacity: usize,
    /// How many were needed so far.
    needed: usize,
    /// The entry that may become longer. None if its length is 0.
    open: Piece,
}

impl Filler {
    /// Begins with the first entry of a table, which has that many.
    #[inline]
    fn new<D: Direction>(dma: Mapper<'_>, limits: Limits, table: &Table, capacity: usize) -> Self {
        Self {
            limits,
            line: line_of::<D>(dma),
            next: table.first.as_ptr(),
            last: table.first.as_ptr(),
            capacity,
            needed: 0,
            open: Piece::EMPTY,
        }
    }

    /// Adds a piece: to the entry before if it follows that in memory, and divided if it is too
    /// long.
    #[inline]
    fn add<D: Direction>(&mut self, dma: Mapper<'_>, mut piece: Piece) -> Result {
        if piece.len == 0 {
            return Err(EINVAL);
        }

        if self.joins(&piece) {
            self.open.room = self.open.len + piece.room;
            self.open.len += piece.len;
            return Ok(());
        }

        loop {
            self.write::<D>(dma)?;

            let len = piece.len.min(self.limits.at(piece.phys));

            self.open = Piece { len, ..piece };

            if len == piece.len {
                return Ok(());
            }

            // CAST: Widening, or as long as a physical address.
            piece.phys += len as PhysAddr;
            piece.len -= len;
            piece.room -= len;
        }
    }

    /// Returns whether a piece can be a part of the entry before.
    #[inline]
    fn joins(&self, piece: &Piece) -> bool {
        let Piece { phys, len, .. } = self.open;

        // CAST: Widening, or as long as a physical address.
        phys + len as PhysAddr == piece.phys
            && len != 0
            && len
                .checked_add(piece.len)
                .is_some_and(|sum| sum <= self.limits.at(phys))
    }

    /// Writes the entry that was open, if there is one.
    #[inline]
    fn write<D: Direction>(&mut self, dma: Mapper<'_>) -> Result {
        let Piece { phys, len, room } = self.open;

        if len == 0 {
            return Ok(());
        }

        let line = self.line;

        if line != 0 {
            // CAST: The low bits are what matters.
            let shared = phys as usize & line != 0 || len.saturating_add(line) & !line > room;

            // Invalidating a cache line would throw away whatever else is in it.
            if shared && !streaming::bounces::<D>(dma, len) {
                return Err(EINVAL);
            }
        }

        self.needed += 1;

        if self.needed <= self.capacity {
            self.last = self.next;

            // CAST: `Limits` allow no length of more than `MAX_ENTRY`.
            // SAFETY: There is an entry, since not more than `capacity` of them were written. The
            // memory has a `struct page`, by the contract of `Scatter`.
            unsafe {
                bindings::dma_sg_set_piece(self.next, phys, len as u32);
                self.next = bindings::sg_next(self.next);
            }
        }

        Ok(())
    }
}

/// A table of entries, which describe the pieces of some memory.
///
/// C's `struct sg_table` is made anew for each call, so that the numbers needn't be in memory.
///
/// # Invariants
///
/// `first` is the first entry of a table that was made by `sg_alloc_table()`, with `allocated`
/// entries. The first `used` of them are in use, which is at least one. If they are mapped, the
/// first `segments` have bus addresses.
pub(super) struct Table {
    first: NonNull<bindings::scatterlist>,
    used: u32,
    segments: u32,
    allocated: u32,
}

// SAFETY: The table owns its entries.
unsafe impl Send for Table {}

// SAFETY: A shared reference only reads.
unsafe impl Sync for Table {}

impl Table {
    /// Makes a table of `entries` entries, which aren't in use yet.
    #[inline]
    fn new(entries: usize, flags: Flags) -> Result<Self> {
        #[cfg(CONFIG_ARCH_NO_SG_CHAIN)]
        if entries > MAX_UNCHAINED {
            return Err(EOVERFLOW);
        }

        // The DMA API counts them in an `int`.
        if c_int::try_from(entries).is_err() {
            return Err(EOVERFLOW);
        }

        // CAST: It fits, as was just checked.
        let allocated = entries as u32;
        let mut raw: bindings::sg_table = pin_init::zeroed();

        // SAFETY: `raw` is valid for writing.
        let errno = unsafe { bindings::sg_alloc_table(&mut raw, allocated, flags.as_raw()) };

        if errno != 0 {
            return Err(refused(errno));
        }

        // INVARIANT: It was just made.
        Ok(Self {
            first: NonNull::new(raw.sgl).ok_or(ENOMEM)?,
            used: allocated,
            segments: 0,
            allocated,
        })
    }

    /// Returns what C has for it.
    #[inline(always)]
    fn to_raw(&self) -> bindings::sg_table {
        bindings::sg_table {
            sgl: self.first.as_ptr(),
            nents: self.segments,
            orig_nents: self.used,
        }
    }

    /// Makes a table of the pieces of some memory. Also returns how many bytes these are.
    ///
    /// Pieces that follow each other in memory share an entry, and those that are too long for the
    /// device have several.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no piece, or an empty one, or if a piece shares a cache line with
    ///   something else that the device would destroy;
    /// - [`EOVERFLOW`] if there are more than a table can have;
    /// - [`ENOMEM`].
    #[inline]
    pub(super) fn of<S: Scatter, D: Direction>(
        dma: Mapper<'_>,
        memory: &S,
        flags: Flags,
    ) -> Result<(Self, usize)> {
        if memory.count() == 1 {
            let piece = memory.piece(0);
            let limits = dma.record().limits;
            let longest = limits.at(piece.phys).min(ALWAYS_MAPPABLE);

            if (1..=longest).contains(&piece.len) {
                let table = Self::new(1, flags)?;
                let mut filler = Filler::new::<D>(dma, limits, &table, 1);

                filler.open = piece;
                filler.write::<D>(dma)?;
                return Ok((table.filled(&filler), piece.len));
            }
        }

        Self::of_many::<S, D>(dma, memory, flags)
    }

    /// Returns the table, of which that many entries are in use as were written: one at least.
    #[inline]
    fn filled(mut self, filler: &Filler) -> Self {
        // SAFETY: `last` is an entry of the table: at least one was written.
        unsafe { bindings::sg_mark_end(filler.last) };

        // INVARIANT: So many entries were written.
        // CAST: Not more than `allocated`.
        self.used = filler.needed as u32;
        self
    }

    /// As [`of`](Self::of), for any number of pieces. Apart, since there is much to it.
    #[inline(never)]
    fn of_many<S: Scatter, D: Direction>(
        dma: Mapper<'_>,
        memory: &S,
        flags: Flags,
    ) -> Result<(Self, usize)> {
        let limits = Limits::of(dma);
        let count = memory.count();
        let mut capacity = count;

        if count == 0 {
            return Err(EINVAL);
        }

        loop {
            let table = Self::new(capacity, flags)?;
            let mut filler = Filler::new::<D>(dma, limits, &table, capacity);
            let mut total = 0_usize;

            for at in 0..count {
                let piece = memory.piece(at);

                total = total.checked_add(piece.len).ok_or(EOVERFLOW)?;
                filler.add::<D>(dma, piece)?;
            }

            filler.write::<D>(dma)?;

            // Some were divided, which is rare.
            if filler.needed > capacity {
                capacity = filler.needed;
                continue;
            }

            return Ok((table.filled(&filler), total));
        }
    }

    /// Maps the entries for the device (C: `dma_map_sgtable()`).
    ///
    /// # Errors
    ///
    /// The entries aren't mapped, with
    ///
    /// - [`EINVAL`] or [`EOVERFLOW`] if a segment breaks the device's constraints;
    /// - [`ENOMEM`] if there is no room for the mapping or the bounce buffers.
    ///
    /// # Safety
    ///
    /// The entries must not be mapped. They must describe memory that stays allocated as long as
    /// it is mapped, and all of which is initialised.
    #[inline]
    pub(super) unsafe fn map<D: Direction>(&mut self, dma: Mapper<'_>, attrs: MapAttrs) -> Result {
        let mut raw = self.to_raw();

        // SAFETY: `Mapper` proves a bound device whose masks are set. By the type invariants the
        // table is valid, and by the safety requirements it describes memory that may be mapped.
        let errno = unsafe {
            bindings::dma_map_sgtable(
                dma.as_raw(),
                &mut raw,
                D::DATA_DIRECTION.into(),
                attrs.as_raw(),
            )
        };

        if errno != 0 {
            return Err(refused(errno));
        }

        // INVARIANT: It says how many have bus addresses.
        self.segments = raw.nents;

        // Otherwise the longest segment is the only limit, and the DMA API keeps to that.
        if dma.record().plain_len == 0 {
            let constraints = dma.record().constraints();

            self.segments()
                .try_for_each(|segment| constraints.admit(segment.bits(), segment.len()))
                // SAFETY: It was just mapped, and no device was shown an address.
                .inspect_err(|_| unsafe { self.unmap::<D>(dma) })?;
        }

        Ok(())
    }

    /// Undoes the mapping, without a sync (C: `dma_unmap_sgtable()`).
    ///
    /// # Safety
    ///
    /// The entries must be mapped for the device, in the direction `D`, and the device must be done
    /// with them.
    #[inline]
    pub(super) unsafe fn unmap<D: Direction>(&self, dma: Mapper<'_>) {
        // SAFETY: By the safety requirements.
        unsafe {
            bindings::dma_unmap_sgtable(
                dma.as_raw(),
                &mut self.to_raw(),
                D::DATA_DIRECTION.into(),
                MapAttrs::NONE.skip_cpu_sync().as_raw(),
            )
        };
    }

    /// Makes the CPU see what the device wrote (C: `dma_sync_sgtable_for_cpu()`).
    ///
    /// # Safety
    ///
    /// As [`unmap`](Self::unmap).
    #[inline]
    pub(super) unsafe fn sync_for_cpu<D: Direction>(&self, dma: Mapper<'_>) {
        if D::DEVICE_WRITES {
            // SAFETY: By the safety requirements.
            unsafe {
                bindings::dma_sync_sgtable_for_cpu(
                    dma.as_raw(),
                    &mut self.to_raw(),
                    D::DATA_DIRECTION.into(),
                )
            };
        }
    }

    /// Makes the device see what the CPU wrote (C: `dma_sync_sgtable_for_device()`).
    ///
    /// # Safety
    ///
    /// The entries must be mapped for the device, in the direction `D`.
    #[inline]
    pub(super) unsafe fn sync_for_device<D: Direction>(&self, dma: Mapper<'_>) {
        // SAFETY: By the safety requirements.
        unsafe {
            bindings::dma_sync_sgtable_for_device(
                dma.as_raw(),
                &mut self.to_raw(),
                D::DATA_DIRECTION.into(),
            )
        };
    }

    /// Returns the segments that the device sees. The entries must be mapped.
    #[inline]
    pub(super) fn segments(&self) -> ScatterSegments<'_> {
        // INVARIANT: By the type invariants.
        ScatterSegments {
            next: self.first.as_ptr(),
            left: self.segments,
            _table: PhantomData,
        }
    }
}

/// Returns the error for a list that couldn't be made or mapped.
#[cold]
fn refused(errno: c_int) -> Error {
    match Error::from_errno(errno) {
        // What C says if one of the entries can't be mapped: there is no room.
        EIO => ENOMEM,
        error => error,
    }
}

impl Drop for Table {
    #[inline]
    fn drop(&mut self) {
        let mut raw = bindings::sg_table {
            // What `sg_free_table()` goes by.
            orig_nents: self.allocated,
            ..self.to_raw()
        };

        // SAFETY: By the type invariants, `sg_alloc_table()` has made the table with that number of
        // entries.
        unsafe { bindings::sg_free_table(&mut raw) };
    }
}

/// The segments of a mapped list: an iterator over what the device sees.
///
/// Each is a bus address with a length. None is longer than the device's
/// [`Constraints`](super::super::Constraints) allow, and none crosses their boundary. There may be
/// fewer segments than pieces of memory, since an IOMMU can make pieces contiguous; or more, since
/// long pieces are divided. All together they have as many bytes as the memory, in the same order.
/// C: `for_each_sgtable_dma_sg()`, with `sg_dma_address()` and `sg_dma_len()`.
///
/// # Invariants
///
/// `next` is an entry of a table that is mapped for as long as `'m`, and is followed by at least
/// `left - 1` entries with bus addresses, unless `left` is 0.
#[derive(Clone)]
pub struct ScatterSegments<'m> {
    next: *mut bindings::scatterlist,
    left: u32,
    _table: PhantomData<&'m Table>,
}

// SAFETY: It only reads the table, as a shared reference does.
unsafe impl Send for ScatterSegments<'_> {}

// SAFETY: As above.
unsafe impl Sync for ScatterSegments<'_> {}

#[cfg(CONFIG_DMA_ENGINE)]
impl ScatterSegments<'_> {
    /// Returns the first entry of the table, and how many have addresses, for C code that takes
    /// such a table.
    pub(in crate::dma) fn as_raw(&self) -> (*mut bindings::scatterlist, c_uint) {
        (self.next, self.left)
    }
}

impl<'m> Iterator for ScatterSegments<'m> {
    type Item = DmaAddr<'m>;

    #[inline]
    fn next(&mut self) -> Option<DmaAddr<'m>> {
        self.left = self.left.checked_sub(1)?;

        let entry = self.next;

        // SAFETY: By the type invariants this is an entry with a bus address, which is mapped for
        // as long as `'m`.
        // CAST: Widening.
        Some(unsafe {
            self.next = bindings::sg_next(entry);
            DmaAddr::new(
                bindings::sg_dma_address(entry),
                bindings::sg_dma_len(entry) as usize,
            )
        })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // CAST: Widening.
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for ScatterSegments<'_> {}
