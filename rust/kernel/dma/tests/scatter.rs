// SPDX-License-Identifier: GPL-2.0

//! Tests of mapped lists, without hardware and on simulated buses.

use super::{
    ensure,
    fixture::{
        self,
        on_each_bus,
        on_each_bus_set_up,
        with_platform_device, //
    }, //
};
use crate::{
    bindings,
    dma::{
        Bidirectional,
        Buffer,
        Constraints,
        CpuWrites,
        Direction,
        DmaAddr,
        DmaMask,
        Exclusive,
        FromDevice,
        Mapper,
        Pages,
        Piece,
        Scatter,
        ScatterBox,
        ScatterMap,
        SharedPages,
        ToDevice,
        Untrusted, //
    },
    error::ErrorWith,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// The byte at a place: different from its neighbours, and from those a page on.
pub(super) fn byte(at: usize) -> u8 {
    // CAST: Cut on purpose.
    (at * 7 + at / 251 + at / 4096) as u8
}

/// Parts of a block of pages, which may have gaps between them, or none.
pub(super) struct Parts {
    pages: Pages,
    /// Offset, length, and how much of the block belongs to the part.
    parts: KVec<(usize, usize, usize)>,
    /// Counts those that were dropped.
    dropped: Option<Arc<Atomic<u32>>>,
}

impl Parts {
    /// The parts own what follows up to the next multiple of a cache line.
    pub(super) fn new(order: u32, parts: impl IntoIterator<Item = (usize, usize)>) -> Result<Self> {
        let mut this = Self {
            pages: Pages::zeroed(order, GFP_KERNEL)?,
            parts: KVec::new(),
            dropped: None,
        };

        for (offset, len) in parts {
            this.parts
                .push((offset, len, len.next_multiple_of(128)), GFP_KERNEL)?;
        }

        Ok(this)
    }

    /// `count` parts of 64 bytes, with gaps.
    pub(super) fn small(order: u32, count: usize) -> Result<Self> {
        Self::new(order, (0..count).map(|i| (128 * i, 64)))
    }

    pub(super) fn counted(mut self, dropped: &Arc<Atomic<u32>>) -> Self {
        self.dropped = Some(dropped.clone());
        self
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.fetch_add(1, Relaxed);
        }
    }
}

// SAFETY: As for `Pages`; tests keep to the block.
unsafe impl Scatter for Parts {
    fn count(&self) -> usize {
        self.parts.len()
    }

    fn piece(&self, at: usize) -> Piece {
        let (offset, len, room) = self.parts.get(at).copied().unwrap_or((0, 0, 0));
        let first = Buffer::as_ptr(&self.pages).wrapping_add(offset);

        // SAFETY: A buffer lies in the linear map.
        Piece::new(
            unsafe { bindings::dma_linear_to_phys(first.cast()) },
            len,
            room,
        )
    }
}

// SAFETY: As above; the parts of the tests don't overlap.
unsafe impl Exclusive for Parts {
    fn slices(&self) -> usize {
        self.parts.len()
    }

    fn slice(&self, at: usize) -> *const [u8] {
        let (offset, len, _) = self.parts.get(at).copied().unwrap_or((0, 0, 0));

        core::ptr::slice_from_raw_parts(Buffer::as_ptr(&self.pages).wrapping_add(offset), len)
    }

    fn slice_mut(&mut self, at: usize) -> *mut [u8] {
        let (offset, len, _) = self.parts.get(at).copied().unwrap_or((0, 0, 0));

        core::ptr::slice_from_raw_parts_mut(
            Buffer::as_mut_ptr(&mut self.pages).wrapping_add(offset),
            len,
        )
    }
}

/// Writes the pattern to memory that isn't mapped.
pub(super) fn fill<S: Exclusive>(memory: &mut S) {
    let mut at = 0;

    for i in 0..memory.slices() {
        // SAFETY: By the contract of `Exclusive`; no device has the memory.
        for b in unsafe { &mut *memory.slice_mut(i) } {
            *b = byte(at);
            at += 1;
        }
    }
}

/// Whether memory that isn't mapped has the pattern.
fn is_filled<S: Exclusive>(memory: &S) -> bool {
    // SAFETY: By the contract of `Exclusive`; no device has the memory.
    let slices = (0..memory.slices()).map(|i| unsafe { &*memory.slice(i) });

    slices.flatten().enumerate().all(|(at, &b)| b == byte(at))
}

fn bytes_of<S: Scatter>(memory: &S) -> usize {
    (0..memory.count()).map(|at| memory.piece(at).len()).sum()
}

/// Vectors of these lengths, each alone in its cache lines.
fn vectors(lens: &[usize]) -> Result<KVec<KVec<u8>>> {
    let mut vectors = KVec::new();

    for &len in lens {
        let mut vector = KVec::with_capacity(len.next_power_of_two().max(256), GFP_KERNEL)?;

        vector.resize(len, 0, GFP_KERNEL)?;
        vectors.push(vector, GFP_KERNEL)?;
    }

    Ok(vectors)
}

fn pages(orders: &[u32]) -> Result<KVec<Pages>> {
    let mut all = KVec::new();

    for &order in orders {
        all.push(Pages::zeroed(order, GFP_KERNEL)?, GFP_KERNEL)?;
    }

    Ok(all)
}

/// Area of a `vmalloc()`.
pub(super) fn area(len: usize) -> Result<VVec<u8>> {
    Ok(VVec::from_elem(0, len, GFP_KERNEL)?)
}

/// Checks what the device sees of a list: all bytes, in segments that the device can take.
pub(super) fn check_segments<S: Scatter, D: Direction>(
    dma: Mapper<'_>,
    list: &ScatterMap<'_, S, D>,
) -> Result<usize> {
    // SAFETY: The device is valid.
    let (max, boundary) = unsafe {
        (
            bindings::dma_get_max_seg_size(dma.device().as_raw()) as usize,
            bindings::dma_get_seg_boundary(dma.device().as_raw()) as u64,
        )
    };
    let segments = list.segments_unshown();

    ensure!(segments.len() > 0);
    ensure!(segments.clone().map(DmaAddr::len).sum::<usize>() == list.len());

    for segment in segments.clone() {
        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        let first = u64::from(segment.bits());
        let last = first + segment.len() as u64 - 1;

        ensure!(segment.len() > 0 && segment.len() <= max);
        ensure!(segment.len() <= dma.max_mapping_size());
        ensure!(first & !boundary == last & !boundary);
        ensure!(dma
            .record()
            .constraints()
            .admit(segment.bits(), segment.len())
            .is_ok());
    }

    Ok(segments.len())
}

/// Returns how often memory can be mapped, submitted and taken back without a change.
fn there_and_back<S: Exclusive, D: Direction>(dma: Mapper<'_>, mut memory: S) -> Result<S> {
    let len = bytes_of(&memory);

    fill(&mut memory);

    let list = ScatterBox::<S, D>::map(dma, memory, GFP_KERNEL)?;

    ensure!(list.len() == len && list.defined() == len);
    ensure!(list.slices().map(<[u8]>::len).sum::<usize>() == len);
    ensure!(list
        .slices()
        .flatten()
        .enumerate()
        .all(|(at, &b)| b == byte(at)));

    let list = list.submit();

    check_segments(dma, &list)?;

    // SAFETY: There is no device.
    let list = unsafe { list.complete(Untrusted::new(len)) }?;

    ensure!(list.defined() == len);
    ensure!(list
        .slices()
        .flatten()
        .enumerate()
        .all(|(at, &b)| b == byte(at)));

    let memory = list.unmap();

    ensure!(is_filled(&memory));

    let list = ScatterMap::<S, D>::map(dma, memory, GFP_KERNEL)?;

    check_segments(dma, &list)?;

    let Ok(list) = list.take_back() else {
        return Err(EINVAL);
    };
    let memory = list.unmap();

    ensure!(is_filled(&memory));
    Ok(memory)
}

fn all_ways<S: Exclusive>(dma: Mapper<'_>, memory: S) -> Result {
    let memory = there_and_back::<S, ToDevice>(dma, memory)?;
    let memory = there_and_back::<S, FromDevice>(dma, memory)?;

    there_and_back::<S, Bidirectional>(dma, memory).map(drop)
}

/// All kinds of memory, there and back.
fn all_kinds(dma: Mapper<'_>) -> Result {
    all_ways(dma, vectors(&[64, 1, 4096, 300, 5000])?)?;
    all_ways(dma, pages(&[0, 2, 1, 0])?)?;
    all_ways(dma, Pages::zeroed(0, GFP_KERNEL)?)?;

    for len in [1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 20_000] {
        all_ways(dma, area(len)?)?;
    }

    // Neighbours, which share a segment or not.
    all_ways(dma, Parts::new(0, [(0, 128), (128, 256), (512, 512)])?)?;
    all_ways(dma, Parts::small(0, 30)?)
}

/// As [`all_kinds`], also of what is longer than a segment, and than a bounce buffer.
pub(super) fn all_lengths(dma: Mapper<'_>) -> Result {
    up_to(dma, 7)
}

/// As [`all_kinds`], also of 2 to the power of `order` pages, and almost as many of an area. To
/// look at each byte takes long, so there shouldn't be more of them than a test needs.
fn up_to(dma: Mapper<'_>, order: u32) -> Result {
    all_kinds(dma)?;
    all_ways(dma, Pages::zeroed(order, GFP_KERNEL)?)?;
    all_ways(dma, area((PAGE_SIZE << order.min(5)) - 300)?)
}

/// Checks that memory was refused with this error, and returns it.
fn refused<S: Scatter, D: Direction>(
    outcome: Result<ScatterMap<'_, S, D>, ErrorWith<S>>,
    error: Error,
) -> Result<S> {
    match outcome {
        Err(refused) if refused.error == error => Ok(refused.value),
        Err(refused) => {
            pr_err!("{:?} instead of {error:?}\n", refused.error);
            Err(EINVAL)
        }
        Ok(_) => Err(EINVAL),
    }
}

#[kunit_tests(rust_dma_scatter)]
mod cases {
    use super::*;

    #[test]
    fn comes_back() -> Result {
        on_each_bus(|pdev| all_kinds(fixture::open(pdev.as_ref())?))?;
        with_platform_device(|pdev| all_lengths(fixture::open(pdev.as_ref())?))
    }

    /// What C would warn of, or divide by zero over, is refused, and comes back as it was.
    #[test]
    fn refusals() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let map = |memory| ScatterMap::<_, FromDevice>::map(dma, memory, GFP_KERNEL);

            let none = refused(map(KVec::<KVec<u8>>::new()), EINVAL)?;
            ensure!(none.is_empty());

            let none = ScatterMap::<_, ToDevice>::map(dma, area(0)?, GFP_KERNEL);
            ensure!(refused(none, EINVAL)?.is_empty());

            let none = ScatterMap::<_, ToDevice>::map(
                dma,
                SharedPages::zeroed(0, GFP_KERNEL)?,
                GFP_KERNEL,
            );
            ensure!(refused(none, EINVAL)?.is_empty());

            for lens in [&[0][..], &[0, 64], &[64, 0, 64], &[64, 64, 0]] {
                let mut memory = vectors(lens)?;

                fill(&mut memory);

                let first = memory.as_slice().as_ptr();
                let memory = refused(map(memory), EINVAL)?;

                ensure!(memory.as_slice().as_ptr() == first && is_filled(&memory));
            }

            Ok(())
        })
    }

    /// What is too long for the device, or crosses a boundary, is divided; what isn't aligned is
    /// refused.
    #[test]
    fn divided() -> Result {
        let none = Constraints::new(DmaMask::new::<64>());

        for (constraints, order) in [
            (none.max_segment_size(512), 1),
            (none.max_segment_size(4096), 2),
            // Not a multiple of anything.
            (none.max_segment_size(5000), 2),
            (none.max_segment_size(100_000), 5),
            // More than a bounce buffer has room for.
            (none.max_segment_size(u32::MAX), 7),
            (none.segment_boundary(0xfff), 2),
            (none.segment_boundary(0x3ff), 1),
            (none.segment_boundary(usize::MAX), 1),
            (none.segment_boundary(0x1fff).max_segment_size(1 << 20), 3),
            (none.alignment(64), 1),
            (none.alignment(64).max_segment_size(1000), 1),
        ] {
            on_platform_device(constraints, |dma| up_to(dma, order))
                .inspect_err(|_| pr_err!("{constraints:?}\n"))?;
        }

        // How many segments: of a part, and of a page that doesn't follow it.
        for (max, part, count) in [
            (512, 512, 1 + 8),
            (512, 513, 2 + 8),
            (1000, 2000, 3 + 5),
            (2048, 1500, 1 + 2),
            (4096, 1500, 1 + 1),
            (16384, 1500, 1 + 1),
        ] {
            on_platform_device(none.max_segment_size(max), |dma| {
                let memory = Parts::new(1, [(0, part), (4096, 4096)])?;
                let list = ScatterMap::<_, ToDevice>::map(dma, memory, GFP_KERNEL)?;

                ensure!(check_segments(dma, &list)? == count);
                Ok(())
            })
            .inspect_err(|_| pr_err!("{max} {part}\n"))?;
        }

        on_each_bus_set_up(Some(none.alignment(64)), |pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let memory = Parts::new(0, [(0, 128), (1024 + 32, 64)])?;
            let list = ScatterMap::<_, ToDevice>::map(dma, memory, GFP_KERNEL);

            // Bounced and translated addresses are aligned by themselves, or keep their offset.
            match list {
                Ok(list) => check_segments(dma, &list).map(drop),
                list => refused(list, EINVAL).map(drop),
            }
        })
    }

    /// Runs a test on a platform device with these constraints.
    fn on_platform_device(constraints: Constraints, body: impl Fn(Mapper<'_>) -> Result) -> Result {
        fixture::on_platform_device(
            Some(constraints),
            |_| {},
            &mut |pdev| body(fixture::open(pdev.as_ref())?),
            |_| Ok(()),
        )
    }

    /// Pieces that follow each other in memory are one segment, up to the longest.
    #[test]
    fn joined() -> Result {
        let none = Constraints::new(DmaMask::new::<64>());

        for (max, boundary, count) in [
            (4096, usize::MAX, 2),
            (2048, usize::MAX, 3),
            (4096, 1023, 4),
        ] {
            let constraints = none.max_segment_size(max).segment_boundary(boundary);

            on_platform_device(constraints, |dma| {
                // The last doesn't follow the one before.
                let parts = [(0, 512), (512, 512), (1024, 1024), (2048, 512), (3072, 512)];
                let list = ScatterMap::<_, ToDevice>::map(dma, Parts::new(0, parts)?, GFP_KERNEL)?;

                ensure!(check_segments(dma, &list)? <= parts.len());
                // Bounced segments don't follow each other either.
                ensure!(list.segments_unshown().len() == count);
                Ok(())
            })
            .inspect_err(|_| pr_err!("{max} {boundary:#x} {count}\n"))?;
        }

        // A table of two chunks, of which few entries are in use.
        with_platform_device(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let memory = Parts::new(2, (0..200).map(|i| (64 * i, 64)))?;
            let list = ScatterMap::<_, ToDevice>::map(dma, memory, GFP_KERNEL)?;

            ensure!(check_segments(dma, &list)? == 1);
            Ok(())
        })
    }

    /// More pieces than fit into a chunk of C's table.
    #[test]
    fn many() -> Result {
        with_platform_device(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;

            // Around the size of one chunk, and of two.
            for count in [127, 128, 129, 255, 256, 257, 400] {
                let list =
                    ScatterMap::<_, FromDevice>::map(dma, Parts::small(4, count)?, GFP_KERNEL)?;

                ensure!(check_segments(dma, &list)? == count);
            }

            Ok(())
        })
    }

    /// As many pieces as nobody has. If there isn't room for all, they come back.
    ///
    /// Where each of them is bounced that takes half a minute.
    #[test]
    #[slow]
    fn very_many() -> Result {
        with_platform_device(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut memory = KVec::new();

            // 65,536 of 64 bytes, with gaps.
            for _ in 0..4 {
                memory.push(Parts::small(9, 16_384)?, GFP_KERNEL)?;
            }

            match ScatterMap::<_, FromDevice>::map(dma, Lists(memory), GFP_KERNEL) {
                Ok(list) => {
                    ensure!(list.len() == 64 << 16);
                    ensure!(check_segments(dma, &list)? == 1 << 16);
                }
                Err(refused) => {
                    // They take more bounce buffers than there are.
                    ensure!(refused.error == ENOMEM);
                    ensure!(refused.value.count() == 1 << 16);
                }
            }

            Ok(())
        })
    }

    /// Several of these, one after the other.
    struct Lists(KVec<Parts>);

    impl Lists {
        const EACH: usize = 16_384;
    }

    // SAFETY: As for the parts of it.
    unsafe impl Scatter for Lists {
        fn count(&self) -> usize {
            self.0.len() * Self::EACH
        }

        fn piece(&self, at: usize) -> Piece {
            self.0
                .get(at / Self::EACH)
                .map_or(Piece::new(0, 0, 0), |parts| parts.piece(at % Self::EACH))
        }
    }

    /// A device that isn't coherent may not write into lines that hold something else.
    #[test]
    fn shared_lines() -> Result {
        // SAFETY: No requirements.
        // CAST: A small positive number.
        let line = unsafe { bindings::dma_get_cache_alignment() } as usize;

        if line == 1 {
            return Ok(());
        }

        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;

            // Offset and length of the second piece, and how much it says it owns; whether its
            // length tells the kernel to bounce it.
            for (offset, len, room, alone, by_length) in [
                (line, line, line, true, false),
                (line, line / 2, line, true, true),
                (line, line / 2, line / 2, false, true),
                (line + line / 2, line, 2 * line, false, false),
                (line, line + line / 2, line + line / 2, false, true),
            ] {
                let mut memory = Parts::new(0, [(8 * line, line), (offset, len)])?;

                memory.parts[0].2 = line;
                memory.parts[1].2 = room;

                let list = ScatterMap::<_, ToDevice>::map(dma, memory, GFP_KERNEL)?;
                let Ok(list) = list.take_back() else {
                    return Err(EINVAL);
                };
                // SAFETY: `dma` leads to a valid `struct device`.
                let bounces = by_length
                    && unsafe {
                        bindings::dma_bounces_unaligned(
                            dma.device().as_raw(),
                            len,
                            FromDevice::DATA_DIRECTION.into(),
                        )
                    };
                let outcome = ScatterMap::<_, FromDevice>::map(dma, list.unmap(), GFP_KERNEL);

                if dma.is_coherent() || alone || bounces {
                    drop(outcome?);
                } else {
                    drop(refused(outcome, EINVAL)?);
                }
            }
            Ok(())
        })
    }

    /// What no device was told of goes at once, with its owner.
    #[test]
    fn dropped() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let dropped = Arc::new(Atomic::new(0_u32), GFP_KERNEL)?;
            let memory = || Ok::<_, Error>(Parts::small(0, 10)?.counted(&dropped));

            drop(ScatterMap::<_, ToDevice>::map(dma, memory()?, GFP_KERNEL)?);
            ensure!(dropped.load(Relaxed) == 1);
            drop(ScatterBox::<_, FromDevice>::map(
                dma,
                memory()?,
                GFP_KERNEL,
            )?);
            ensure!(dropped.load(Relaxed) == 2);
            Ok(())
        })
    }

    /// A device that says it moved more than there is, or less.
    #[test]
    fn lies() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut memory = vectors(&[64, 128, 64])?;

            fill(&mut memory);

            for moved in [257, 1 << 20, usize::MAX] {
                let list = ScatterMap::<_, FromDevice>::map(dma, memory, GFP_KERNEL)?;

                // SAFETY: There is no device.
                let Err(refused) = (unsafe { list.complete(Untrusted::new(moved)) }) else {
                    return Err(EINVAL);
                };

                ensure!(refused.error == EIO && refused.value.defined() == 0);
                ensure!(refused.value.slices().next().is_none());
                memory = refused.value.unmap();
                ensure!(is_filled(&memory));
            }

            for moved in [0, 1, 63, 64, 65, 192, 193, 256] {
                let list = ScatterMap::<_, Bidirectional>::map(dma, memory, GFP_KERNEL)?;
                // SAFETY: There is no device.
                let mut list = unsafe { list.complete(Untrusted::new(moved)) }?;

                ensure!(list.defined() == moved);
                ensure!(list.slices().map(<[u8]>::len).sum::<usize>() == moved);
                ensure!(list.slices().all(|slice| !slice.is_empty()));
                ensure!(list
                    .slices()
                    .flatten()
                    .enumerate()
                    .all(|(at, &b)| b == byte(at)));
                ensure!(list.slices_mut().flatten().count() == moved);
                memory = list.unmap();
                ensure!(is_filled(&memory));
            }

            Ok(())
        })
    }

    /// What the CPU wrote after a transfer stays, though unmapping would copy or invalidate.
    #[test]
    fn writes_after_completion_stay() -> Result {
        fn write<D: CpuWrites>(dma: Mapper<'_>) -> Result {
            let list = ScatterMap::<_, D>::map(dma, pages(&[0, 1])?, GFP_KERNEL)?;
            let len = list.len();
            // SAFETY: There is no device.
            let mut list = unsafe { list.complete(Untrusted::new(len)) }?;

            list.slices_mut().for_each(|slice| slice.fill(0x77));

            let memory = list.unmap();

            ensure!(memory
                .iter()
                .flat_map(|pages| pages.iter())
                .all(|&b| b == 0x77));
            Ok(())
        }

        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;

            write::<ToDevice>(dma)?;
            write::<Bidirectional>(dma)
        })
    }

    /// Pages of several owners are mapped by each of them, and there until the last one goes.
    #[test]
    fn shared() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let one = SharedPages::zeroed(3, GFP_KERNEL)?;
            let other = one.try_clone(GFP_KERNEL)?;
            let mut bytes = [0; 10];

            one.write(2 * PAGE_SIZE - 5, b"0123456789")?;
            ensure!(one.len() == 3 * PAGE_SIZE && other.len() == one.len());
            ensure!(one.write(3 * PAGE_SIZE - 9, b"0123456789") == Err(EINVAL));
            ensure!(one.read(usize::MAX, &mut bytes) == Err(EINVAL));

            // The same pages, not copies.
            for at in 0..3 {
                ensure!(one.piece(at).phys() == other.piece(at).phys());
            }

            let one = ScatterMap::<_, ToDevice>::map(dma, one, GFP_KERNEL)?;
            let other = ScatterMap::<_, ToDevice>::map(dma, other, GFP_KERNEL)?;

            check_segments(dma, &one)?;
            drop(one);
            check_segments(dma, &other)?;

            let Ok(other) = other.take_back() else {
                return Err(EINVAL);
            };
            let other = other.unmap();

            other.read(2 * PAGE_SIZE - 5, &mut bytes)?;
            ensure!(&bytes == b"0123456789");
            Ok(())
        })
    }
}

/// With allocations that fail.
#[cfg(CONFIG_FAILSLAB)]
#[kunit_tests(rust_dma_scatter_faults)]
mod with_faults {
    use super::*;
    use crate::error::to_result;

    /// Each allocation that fails gives the memory back.
    #[test]
    fn failed_allocations() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            // Two chunks of a table.
            let mut memory = Parts::small(4, 200)?;
            let mut failures = 0;

            fill(&mut memory);

            for k in 1..100 {
                // SAFETY: It is ended below, by this thread.
                to_result(unsafe { bindings::dma_fault_begin(k) })?;

                // Only allocations that can't wait are made to fail.
                let outcome =
                    ScatterMap::<_, FromDevice>::map(dma, memory, GFP_NOWAIT | __GFP_NOWARN);

                // SAFETY: It was begun above, by this thread.
                let left = unsafe { bindings::dma_fault_end() };

                memory = match outcome {
                    Ok(list) => match list.take_back() {
                        Ok(list) => list.unmap(),
                        Err(_) => return Err(EINVAL),
                    },
                    Err(refused) => {
                        ensure!(refused.error == ENOMEM);
                        failures += 1;
                        refused.value
                    }
                };
                ensure!(is_filled(&memory));

                if left != 0 {
                    break;
                }
            }

            ensure!(failures > 0);
            Ok(())
        })
    }
}

/// What a list costs, and where its bytes are, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_scatter_sim)]
mod on_sim {
    use super::*;
    use crate::dma::sim::{
        self,
        Model,
        Script,
        Sim, //
    };

    fn on_each_model(mut body: impl FnMut(Mapper<'_>, &Sim) -> Result) -> Result {
        sim::run_on_each(Script::new(Model::Coherent), |pdev, sim| {
            body(fixture::open(pdev.as_ref())?, sim)
        })
    }

    /// A device reads all of a list.
    fn device_reads<S: Scatter, D: Direction>(
        sim: &Sim,
        list: &ScatterMap<'_, S, D>,
    ) -> Result<KVec<u8>> {
        let mut all = KVec::from_elem(0, list.len(), GFP_KERNEL)?;
        let mut at = 0;

        for segment in list.segments_unshown() {
            // SAFETY: The memory is the device's.
            ensure!(unsafe { sim.device_read(segment.bits(), &mut all[at..at + segment.len()]) });
            at += segment.len();
        }

        Ok(all)
    }

    /// A device writes the first `len` bytes of a list.
    fn device_writes<S: Scatter, D: Direction>(
        sim: &Sim,
        list: &ScatterMap<'_, S, D>,
        len: usize,
        value: impl Fn(usize) -> u8,
    ) -> Result {
        let mut at = 0;

        for segment in list.segments_unshown() {
            let count = segment.len().min(len - at);
            let mut bytes = KVec::with_capacity(count, GFP_KERNEL)?;

            for i in at..at + count {
                bytes.push(value(i), GFP_KERNEL)?;
            }

            // SAFETY: The memory is the device's.
            ensure!(count == 0 || unsafe { sim.device_write(segment.bits(), &bytes) });
            at += count;
        }

        ensure!(at == len);
        Ok(())
    }

    /// The CPU fills it, the device reads it, again and again.
    fn sends<S: Exclusive>(dma: Mapper<'_>, sim: &Sim, mut memory: S) -> Result {
        fill(&mut memory);

        let list = ScatterMap::<_, ToDevice>::map(dma, memory, GFP_KERNEL)?;
        let len = list.len();
        let seen = device_reads(sim, &list)?;

        ensure!(seen.iter().enumerate().all(|(at, &b)| b == byte(at)));

        // SAFETY: The device does nothing by itself.
        let mut list = unsafe { list.complete(Untrusted::new(len)) }?;

        for (at, b) in list.slices_mut().flatten().enumerate() {
            *b = !byte(at);
        }

        let list = list.submit();
        let seen = device_reads(sim, &list)?;

        ensure!(seen.iter().enumerate().all(|(at, &b)| b == !byte(at)));
        // SAFETY: As above.
        drop(unsafe { list.complete(Untrusted::new(len)) }?);
        ensure!(sim.counters().live == 0);
        Ok(())
    }

    /// The device fills it, the CPU reads it, again and again.
    fn receives<S: Exclusive>(dma: Mapper<'_>, sim: &Sim, mut memory: S) -> Result {
        fill(&mut memory);

        let list = ScatterBox::<_, FromDevice>::map(dma, memory, GFP_KERNEL)?.submit();
        let len = list.len();
        let some = len / 2 + 1;

        device_writes(sim, &list, some, |at| !byte(at))?;

        // SAFETY: The device does nothing by itself.
        let list = unsafe { list.complete(Untrusted::new(some)) }?;

        ensure!(list.slices().flatten().count() == some);
        ensure!(list
            .slices()
            .flatten()
            .enumerate()
            .all(|(at, &b)| b == !byte(at)));

        let list = list.submit();

        device_writes(sim, &list, len, |at| byte(at) ^ 0x55)?;

        // SAFETY: As above.
        let list = unsafe { list.complete(Untrusted::new(some)) }?;

        ensure!(list
            .slices()
            .flatten()
            .enumerate()
            .all(|(at, &b)| b == byte(at) ^ 0x55));

        // All of it, on both sides of what the device spoke of.
        let memory = list.unmap();
        // SAFETY: It isn't mapped.
        let slices = (0..memory.slices()).map(|i| unsafe { &*memory.slice(i) });

        ensure!(slices
            .flatten()
            .enumerate()
            .all(|(at, &b)| b == byte(at) ^ 0x55));
        ensure!(sim.counters().live == 0);
        Ok(())
    }

    #[test]
    fn bytes() -> Result {
        on_each_model(|dma, sim| {
            sends(dma, sim, vectors(&[64, 1, 4096, 300, 5000])?)?;
            sends(dma, sim, pages(&[0, 2, 1, 0])?)?;
            sends(dma, sim, Pages::zeroed(7, GFP_KERNEL)?)?;
            sends(dma, sim, area(50_001)?)?;
            sends(dma, sim, Parts::new(0, [(0, 128), (128, 256), (512, 512)])?)?;
            sends(dma, sim, Parts::small(2, 100)?)?;

            receives(dma, sim, vectors(&[64, 1, 4096, 300, 5000])?)?;
            receives(dma, sim, pages(&[0, 2, 1, 0])?)?;
            receives(dma, sim, Pages::zeroed(4, GFP_KERNEL)?)?;
            receives(dma, sim, area(50_001)?)?;
            receives(dma, sim, Parts::new(0, [(0, 128), (128, 256), (512, 512)])?)?;
            receives(dma, sim, Parts::small(2, 100)?)
        })
    }

    /// Divided lists have the same bytes.
    #[test]
    fn bytes_of_divided() -> Result {
        let none = Constraints::new(DmaMask::new::<64>());

        for constraints in [
            none.max_segment_size(512),
            none.segment_boundary(0x3ff),
            none.max_segment_size(5000).segment_boundary(0x1fff),
        ] {
            sim::run_on_each(
                Script::new(Model::Coherent).constraints(constraints),
                |pdev, sim| {
                    let dma = fixture::open(pdev.as_ref())?;

                    sends(dma, sim, vectors(&[64, 1, 4096, 300, 5000])?)?;
                    sends(dma, sim, Pages::zeroed(3, GFP_KERNEL)?)?;
                    receives(dma, sim, vectors(&[64, 1, 4096, 300, 5000])?)?;
                    receives(dma, sim, area(20_000)?)
                },
            )
            .inspect_err(|_| pr_err!("{constraints:?}\n"))?;
        }

        Ok(())
    }

    /// Both write, and each sees what the other one wrote last.
    #[test]
    fn both_write() -> Result {
        on_each_model(|dma, sim| {
            let mut memory = pages(&[0, 1])?;

            fill(&mut memory);

            let list = ScatterMap::<_, Bidirectional>::map(dma, memory, GFP_KERNEL)?;
            let len = list.len();

            ensure!(device_reads(sim, &list)?
                .iter()
                .enumerate()
                .all(|(at, &b)| b == byte(at)));
            device_writes(sim, &list, 5000, |at| !byte(at))?;

            // SAFETY: The device does nothing by itself.
            let mut list = unsafe { list.complete(Untrusted::new(len)) }?;

            ensure!(list
                .slices()
                .flatten()
                .enumerate()
                .all(|(at, &b)| { b == if at < 5000 { !byte(at) } else { byte(at) } }));
            list.slices_mut().for_each(|slice| slice.fill(0x42));

            let list = list.submit();

            ensure!(device_reads(sim, &list)?.iter().all(|&b| b == 0x42));
            drop(list);
            ensure!(sim.counters().live == 0);
            Ok(())
        })
    }

    /// Calls since the last time: maps, unmaps, and syncs of each entry for the CPU and for the
    /// device.
    fn calls(sim: &Sim, before: &mut sim::Counters) -> [usize; 4] {
        let now = sim.counters();
        let since = [
            now.maps - before.maps,
            now.unmaps - before.unmaps,
            now.syncs_for_cpu - before.syncs_for_cpu,
            now.syncs_for_device - before.syncs_for_device,
        ];

        *before = now;
        since
    }

    /// A list is mapped, synced and unmapped as a whole, and no more often than needed.
    #[test]
    fn costs() -> Result {
        fn complete<'a, D: Direction>(
            list: ScatterMap<'a, Parts, D>,
        ) -> Result<ScatterBox<'a, Parts, D>> {
            // SAFETY: The device does nothing by itself.
            Ok(unsafe { list.complete(Untrusted::new(640)) }?)
        }

        on_each_model(|dma, sim| {
            let mut before = sim.counters();

            let list = ScatterMap::<_, ToDevice>::map(dma, Parts::small(0, 10)?, GFP_KERNEL)?;
            ensure!(calls(sim, &mut before) == [1, 0, 0, 0]);
            let list = complete(list)?;
            ensure!(calls(sim, &mut before) == [0, 0, 0, 0]);
            let list = complete(list.submit())?;
            ensure!(calls(sim, &mut before) == [0, 0, 0, 10]);
            drop(list.unmap());
            ensure!(calls(sim, &mut before) == [0, 1, 0, 0]);

            let list = ScatterMap::<_, FromDevice>::map(dma, Parts::small(0, 10)?, GFP_KERNEL)?;
            ensure!(calls(sim, &mut before) == [1, 0, 0, 0]);
            let list = complete(list)?;
            ensure!(calls(sim, &mut before) == [0, 0, 10, 0]);
            drop(list);
            ensure!(calls(sim, &mut before) == [0, 1, 0, 0]);

            // Where it is left with the CPU, nothing is copied.
            let copied = sim.counters().to_device;
            let list = ScatterBox::<_, ToDevice>::map(dma, Parts::small(0, 10)?, GFP_KERNEL)?;
            ensure!(sim.counters().to_device == copied);
            drop(list);
            ensure!(sim.counters().to_device == copied);
            Ok(())
        })
    }

    /// Others may write to their pages before they go to the device again.
    #[test]
    fn shared() -> Result {
        on_each_model(|dma, sim| {
            let one = SharedPages::zeroed(2, GFP_KERNEL)?;
            let other = one.try_clone(GFP_KERNEL)?;

            other.write(PAGE_SIZE, b"first")?;

            let list = ScatterMap::<_, ToDevice>::map(dma, one, GFP_KERNEL)?;

            ensure!(device_reads(sim, &list)?[PAGE_SIZE..].starts_with(b"first"));

            // SAFETY: The device does nothing by itself.
            let list = unsafe { list.complete(Untrusted::new(2 * PAGE_SIZE)) }?;

            other.write(PAGE_SIZE, b"again")?;

            let list = list.submit();

            ensure!(device_reads(sim, &list)?[PAGE_SIZE..].starts_with(b"again"));
            drop(list);

            // What a device wrote is everybody's.
            let one = other.try_clone(GFP_KERNEL)?;
            let list = ScatterMap::<_, FromDevice>::map(dma, one, GFP_KERNEL)?;
            let mut bytes = [0; 5];

            device_writes(sim, &list, 2 * PAGE_SIZE, byte)?;
            // SAFETY: As above.
            let list = unsafe { list.complete(Untrusted::new(2 * PAGE_SIZE)) }?;

            ensure!(list.defined() == 2 * PAGE_SIZE);
            other.read(100, &mut bytes)?;
            ensure!((100..).zip(bytes).all(|(at, b)| b == byte(at)));
            Ok(())
        })
    }

    /// Where a mapping fails, or the addresses end in the middle, the memory is as it was.
    #[test]
    fn failed_maps() -> Result {
        on_each_model(|dma, sim| {
            let mut memory = Parts::small(0, 10)?;

            fill(&mut memory);
            sim.fail_map(1);
            memory = refused(
                ScatterMap::<_, Bidirectional>::map(dma, memory, GFP_KERNEL),
                ENOMEM,
            )?;
            ensure!(is_filled(&memory));
            ensure!(sim.counters().live == 0 && sim.counters().unmaps == 0);
            drop(ScatterMap::<_, Bidirectional>::map(
                dma, memory, GFP_KERNEL,
            )?);
            Ok(())
        })?;

        for space in [64, 1024, 10 * 64 - 1] {
            sim::run_on_each(
                Script::new(Model::Coherent).address_space(space),
                |pdev, sim| {
                    let dma = fixture::open(pdev.as_ref())?;
                    let mut memory = Parts::small(0, 20)?;

                    fill(&mut memory);

                    let list = ScatterMap::<_, Bidirectional>::map(dma, memory, GFP_KERNEL);

                    ensure!(is_filled(&refused(list, ENOMEM)?));
                    ensure!(sim.counters().live == 0 && sim.counters().unmaps == 0);
                    Ok(())
                },
            )?;
        }

        Ok(())
    }
}
