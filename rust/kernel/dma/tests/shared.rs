// SPDX-License-Identifier: GPL-2.0

//! Tests of coherent memory, on a platform device without hardware, and on simulated buses.

use super::{
    ensure,
    fixture::{
        self,
        forget,
        on_each_bus,
        on_each_bus_set_up,
        on_platform_device,
        prove, //
    }, //
};
use crate::{
    alloc::Flags,
    bindings,
    device::{
        Core,
        Device, //
    },
    devres::{
        self,
        Lendable, //
    },
    dma::{
        dma_read,
        dma_write,
        leaked,
        quarantined,
        AllocAttrs,
        Constraints,
        DeviceOnly,
        DmaAddress,
        DmaMask,
        Mapper,
        Pool,
        Shared,
        SharedBox, //
    },
    io::{
        io_project,
        IoBase, //
    },
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::SpinLockIrq, //
};
use core::cell::Cell;

/// What a driver and its device say to each other.
#[derive(FromBytes, IntoBytes, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Mailbox {
    command: u32,
    status: u32,
    count: u64,
    small: [u16; 4],
    data: [u8; 40],
}

const EMPTY: Mailbox = Mailbox {
    command: 0,
    status: 0,
    count: 0,
    small: [0; 4],
    data: [0; 40],
};

const WIDE: Constraints = Constraints::new(DmaMask::new::<64>());

/// Sizes around those of pages, and one that takes many.
pub(super) const SIZES: [usize; 7] = [
    1,
    17,
    PAGE_SIZE - 1,
    PAGE_SIZE,
    PAGE_SIZE + 1,
    3 * PAGE_SIZE,
    2 << 20,
];

/// Runs a test on each kind of bus, with a device that runs.
fn on_each(mut body: impl FnMut(Mapper<'_>) -> Result) -> Result {
    on_each_bus(|pdev| body(open(pdev.as_ref())?))
}

/// Returns the permission to map for a device that runs.
pub(super) fn open<'a>(dev: &Device<Core<'a>>) -> Result<Mapper<'a>> {
    fixture::open(dev.bound())
}

/// The byte at an index. CAST: Cut on purpose.
fn pattern(i: usize) -> u8 {
    (i * 7 + i / 251) as u8
}

/// Says that the device of a test accesses nothing. There is none.
pub(super) fn stop(dma: Mapper<'_>) {
    // SAFETY: There is no device.
    unsafe { prove(dma) };
}

/// Memory of each size is zeroed, keeps what either side writes, and is zeroed again.
pub(super) fn sizes_with(
    dma: Mapper<'_>,
    flags: Flags,
    attrs: AllocAttrs,
    sizes: &[usize],
) -> Result {
    for &size in sizes {
        for _ in 0..2 {
            let mut memory = SharedBox::<[u8]>::slice_with(dma, size, flags, attrs)?;

            ensure!(memory.len() == size && memory.iter().all(|byte| *byte == 0));
            for (i, byte) in memory.iter_mut().enumerate() {
                *byte = pattern(i);
            }

            let memory = memory.submit();

            ensure!(memory.address().len() == size);
            dma_write!(&memory, [try: size - 1], 0xa5);

            let mut copy = KVVec::from_elem(0, size, GFP_KERNEL)?;

            memory.as_view().copy_to(&mut copy)?;
            ensure!(copy[..size - 1]
                .iter()
                .enumerate()
                .all(|(i, byte)| *byte == pattern(i)));
            ensure!(copy[size - 1] == 0xa5);

            copy.iter_mut().for_each(|byte| *byte = !*byte);
            memory.as_view().copy_from(&copy)?;
            stop(dma);

            let memory = memory.take_back().map_err(|_| EBUSY)?;

            ensure!(memory[..] == copy[..]);
            open_again(dma)?;
        }
    }
    Ok(())
}

fn open_again(dma: Mapper<'_>) -> Result {
    fixture::open(dma.bound()).map(drop)
}

/// Whatever length is asked for, there is an error, and nothing complains.
pub(super) fn absurd_lengths(dma: Mapper<'_>) -> Result {
    // CAST: Cut where addresses have 32 bits.
    for len in [usize::MAX, usize::MAX / 2, (1_u64 << 46) as usize, 1 << 31] {
        let bytes = SharedBox::<[u8]>::slice(dma, len, GFP_KERNEL);
        let words = SharedBox::<[u64]>::slice(dma, len, GFP_ATOMIC);
        let alone = DeviceOnly::new(dma, len, GFP_KERNEL, AllocAttrs::NONE);

        if len != 0 {
            ensure!(matches!(bytes, Err(e) if e == ENOMEM));
            ensure!(matches!(words, Err(e) if e == ENOMEM));
            ensure!(matches!(alone, Err(e) if e == ENOMEM));
        }
    }

    Ok(())
}

#[kunit_tests(rust_dma_shared)]
mod cases {
    use super::*;

    #[test]
    fn sizes() -> Result {
        on_each(|dma| sizes_with(dma, GFP_KERNEL, AllocAttrs::NONE, &SIZES))
    }

    /// No attribute changes what the CPU and the device see.
    #[test]
    fn attributes() -> Result {
        on_each(|dma| {
            for attrs in [
                AllocAttrs::WRITE_COMBINE,
                AllocAttrs::FORCE_CONTIGUOUS,
                AllocAttrs::SINGLE_PAGES,
                AllocAttrs::WRITE_COMBINE | AllocAttrs::SINGLE_PAGES,
            ] {
                sizes_with(dma, GFP_KERNEL, attrs, &SIZES[..6])?;
            }
            Ok(())
        })
    }

    /// Whatever is asked for, there is an error, and nothing complains.
    #[test]
    fn absurd() -> Result {
        on_each(|dma| {
            absurd_lengths(dma)?;
            ensure!(matches!(SharedBox::<[u64]>::slice(dma, 0, GFP_KERNEL), Err(e) if e == EINVAL));
            ensure!(matches!(
                DeviceOnly::new(dma, 0, GFP_KERNEL, AllocAttrs::NONE),
                Err(e) if e == EINVAL
            ));

            // More than the page allocator has in one piece: others may have it, or not.
            for flags in [GFP_KERNEL, GFP_ATOMIC] {
                match SharedBox::<[u64]>::slice(dma, 8 << 20, flags) {
                    Ok(memory) => ensure!(memory.iter().all(|word| *word == 0)),
                    Err(error) => ensure!(error == ENOMEM),
                }
            }
            Ok(())
        })
    }

    /// Words, and more than words, where they belong.
    #[test]
    fn fields() -> Result {
        on_each(|dma| {
            let mut mailbox = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?;

            ensure!(*mailbox == EMPTY);
            mailbox.status = 7;

            let mailbox = mailbox.submit();

            ensure!(dma_read!(&mailbox, .status) == 7);
            ensure!(dma_read!(&mailbox, .small[build: 3]) == 0);
            dma_write!(&mailbox, .command, 0x1234_5678);
            dma_write!(&mailbox, .small[try: 1], 0xabcd);
            dma_write!(&mailbox, .data[try: 39], 0xee);
            io_project!(&mailbox, .count).write_relaxed(u64::MAX - 1);
            ensure!(io_project!(&mailbox, .count).read_relaxed() == u64::MAX - 1);

            let mut expected = Mailbox {
                command: 0x1234_5678,
                status: 7,
                count: u64::MAX - 1,
                small: [0, 0xabcd, 0, 0],
                data: [0; 40],
            };

            expected.data[39] = 0xee;
            ensure!(mailbox.as_view().snapshot() == expected);

            // Parts that begin and end anywhere.
            for start in 0..20 {
                for end in start + 1..=40 {
                    let part = io_project!(&mailbox, .data[try: start..end]);
                    let (mut to, mut from) = ([0; 40], [0; 40]);

                    for (i, byte) in from.iter_mut().enumerate() {
                        // CAST: Small numbers.
                        *byte = (start * 40 + end + i) as u8;
                    }
                    part.copy_from(&from[start..end])?;
                    expected.data[start..end].copy_from_slice(&from[start..end]);
                    ensure!(mailbox.as_view().snapshot() == expected);

                    part.copy_to(&mut to[start..end])?;
                    ensure!(to[start..end] == from[start..end]);
                    ensure!(part.copy_to(&mut to[..end - start - 1]) == Err(EINVAL));
                    ensure!(part.copy_from(&to[..end - start - 1]) == Err(EINVAL));
                }
            }

            // An address of a part is that of the whole and an offset.
            let base = mailbox.address().bits();

            ensure!(io_project!(&mailbox, .small).address().bits() == base + 16);
            ensure!(io_project!(&mailbox, .small[try: 2]).address().bits() == base + 20);
            ensure!(io_project!(&mailbox, .small[try: 2]).address().len() == 2);

            mailbox.as_view().put(EMPTY);
            ensure!(mailbox.as_view().snapshot() == EMPTY);
            stop(dma);
            Ok(())
        })
    }

    /// There is no element beyond the end.
    #[test]
    fn out_of_bounds() -> Result {
        on_each(|dma| {
            let numbers = SharedBox::<[u32]>::slice(dma, 10, GFP_KERNEL)?.submit();
            let read = |i| -> Result { dma_read!(&numbers, [try: i]).validate(|_| Ok(())) };
            let write = |i| -> Result {
                dma_write!(&numbers, [try: i], 1);
                Ok(())
            };

            ensure!(read(9).is_ok() && write(9).is_ok());
            ensure!(read(10) == Err(ERANGE) && write(10) == Err(ERANGE));
            ensure!(read(usize::MAX) == Err(ERANGE));
            Ok(())
        })
    }

    /// Memory that is dropped in flight is kept from everybody, until the device was proven to have
    /// stopped.
    #[test]
    fn dropping_in_flight_is_counted() -> Result {
        on_each(|dma| {
            let before = quarantined();
            let memory = SharedBox::<[u64]>::slice(dma, 1024, GFP_KERNEL)?.submit();
            let address = memory.address().bits();
            let place = memory.as_ptr().cast::<u64>();

            dma_write!(&memory, [try: 1], 0x5555);
            drop(memory);
            ensure!(quarantined() == before + 1);

            let alone = DeviceOnly::new(dma, 5000, GFP_KERNEL, AllocAttrs::NONE)?;

            alone.address();
            drop(alone);
            ensure!(quarantined() == before + 2);

            // The address of a part counts as well.
            let part = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit();

            io_project!(&part, .data).address();
            drop(part);
            ensure!(quarantined() == before + 3);

            let other = SharedBox::<[u64]>::slice(dma, 1024, GFP_KERNEL)?.submit();

            ensure!(other.address().bits() != address);
            // SAFETY: The memory is allocated still, and nobody writes it.
            ensure!(unsafe { place.add(1).read_volatile() } == 0x5555);

            stop(dma);
            drop(other);
            ensure!(quarantined() == before + 3);
            Ok(())
        })
    }

    /// Memory comes back when the device can't access it, and not before.
    #[test]
    fn taking_back() -> Result {
        on_each(|dma| {
            let before = quarantined();

            // Nobody asked.
            let mut memory = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?;

            memory.command = 9;
            let memory = memory.submit().take_back().map_err(|_| EBUSY)?;
            ensure!(memory.command == 9);

            // Somebody did, of all of it or of a part.
            let memory = memory.submit();

            memory.address();
            let Err(memory) = memory.take_back() else {
                return Err(EINVAL);
            };
            stop(dma);
            let memory = memory.take_back().map_err(|_| EBUSY)?;
            ensure!(memory.command == 9);

            open_again(dma)?;
            let memory = memory.submit();

            io_project!(&memory, .count).address();
            let Err(memory) = memory.take_back() else {
                return Err(EINVAL);
            };

            // The device ran again since: what it was shown before is over, but nobody knows when
            // this was.
            stop(dma);
            open_again(dma)?;
            let Err(memory) = memory.take_back() else {
                return Err(EINVAL);
            };

            // A protocol knows.
            //
            // SAFETY: There is no device.
            let memory = unsafe { memory.complete() };

            ensure!(memory.command == 9);
            drop(memory);
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// The same for blocks of a pool.
    #[test]
    fn taking_blocks_back() -> Result {
        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let pool = Pool::<Mailbox>::new(dev, c"mailboxes")?;
            let dma = open(dev)?;
            let mut block = pool.alloc(GFP_KERNEL)?;

            block.command = 5;
            let block = block.submit().take_back().map_err(|_| EBUSY)?.submit();
            let address = block.address().bits();

            ensure!(io_project!(&block, .count).address().bits() == address + 8);
            dma_write!(&block, .status, 6);

            let Err(block) = block.take_back() else {
                return Err(EINVAL);
            };

            stop(dma);
            let block = block.take_back().map_err(|_| EBUSY)?;
            ensure!(block.command == 5 && block.status == 6);
            Ok(())
        })
    }

    /// Memory that the device was never shown is freed at once.
    #[test]
    fn never_shown() -> Result {
        on_each(|dma| {
            let before = quarantined();

            drop(SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit());
            drop(DeviceOnly::new(
                dma,
                100,
                GFP_KERNEL,
                AllocAttrs::SINGLE_PAGES,
            )?);
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// All that handlers of interrupts may do.
    #[test]
    fn atomic() -> Result {
        on_each(|dma| {
            let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
            let lock: &SpinLockIrq<()> = &lock;
            let mut all = KVec::with_capacity(10, GFP_KERNEL)?;
            let before = quarantined();

            {
                let _guard = lock.lock();

                for i in 0..10 {
                    let mut memory = SharedBox::<[u64]>::slice(dma, 1 + i * 100, GFP_ATOMIC)?;

                    ensure!(memory.iter().all(|word| *word == 0));
                    memory.fill(u64::MAX);
                    all.push(memory, GFP_ATOMIC)?;
                }
                while let Some(memory) = all.pop() {
                    drop(memory.submit());
                }
                drop(DeviceOnly::new(dma, 100, GFP_ATOMIC, AllocAttrs::NONE)?);

                let memory = SharedBox::<Mailbox>::new(dma, GFP_ATOMIC)?.submit();

                memory.address();
                drop(memory);
            }

            ensure!(quarantined() == before + 1);
            stop(dma);

            // What was dropped there may be free by now, or not. It is when this returns.
            dma.record().later().flush();
            Ok(())
        })
    }

    /// Memory meets the driver's constraints: backends align it as it is long.
    #[test]
    fn constraints() -> Result {
        for (constraints, len, align, boundary) in [
            (WIDE.coherent_mask(DmaMask::new::<32>()), 100, 1, 0),
            (WIDE.alignment(64), 100, 64, 0),
            (WIDE.alignment(4096), 100, 4096, 0),
            (WIDE.alignment(1 << 16), 1, 1 << 16, 0),
            (WIDE.alignment(1 << 16), 70_000, 1 << 16, 0),
            (WIDE.segment_boundary(0xffff), 65_536, 1, 1 << 16),
            (WIDE.segment_boundary(0x1_ffff), 70_000, 1, 1 << 17),
            (WIDE.segment_boundary(0xfff), 4096, 1, 4096),
            (
                WIDE.segment_boundary(0xffff).alignment(1 << 16),
                100,
                1 << 16,
                1 << 16,
            ),
            // The longest segment is no limit for what is no segment.
            (WIDE.max_segment_size(64), 4096, 1, 0),
        ] {
            on_each_bus_set_up(Some(constraints), |pdev| {
                let dma = open(pdev.as_ref())?;
                let mut all = KVec::new();

                for _ in 0..4 {
                    let memory = SharedBox::<[u8]>::slice(dma, len, GFP_KERNEL)?.submit();
                    // CAST: Widening, or small numbers.
                    let first = memory.address().bits() as u64;
                    let last = first + len as u64 - 1;

                    ensure!(memory.address().len() == len);
                    ensure!(first % align == 0);
                    ensure!(boundary == 0 || first / boundary == last / boundary);
                    all.push(memory, GFP_KERNEL)?;
                }

                stop(dma);
                Ok(())
            })
            .inspect_err(|_| pr_err!("{constraints:?}\n"))?;
        }

        // So long that there is no place for it.
        on_each_bus_set_up(Some(WIDE.segment_boundary(0xfff)), |pdev| {
            let dma = open(pdev.as_ref())?;
            let too_long = SharedBox::<[u8]>::slice(dma, 4097, GFP_KERNEL);

            ensure!(matches!(too_long, Err(e) if e == EINVAL));
            Ok(())
        })
    }

    /// A device that reaches little memory gets what it reaches.
    #[test]
    fn narrow_mask() -> Result {
        let narrow = WIDE.coherent_mask(DmaMask::new::<32>());

        on_each_bus_set_up(Some(narrow), |pdev| {
            let dma = open(pdev.as_ref())?;

            for flags in [GFP_KERNEL, GFP_ATOMIC] {
                let memory = SharedBox::<[u8]>::slice(dma, 10_000, flags)?.submit();
                // CAST: Widening.
                let address = memory.address().bits() as u64;

                ensure!(address + 10_000 <= 1 << 32);
                stop(dma);
            }
            Ok(())
        })
    }

    /// Frees memory that was forgotten, or leaked.
    ///
    /// # Safety
    ///
    /// It must have been allocated like this for the device, and nobody may use it.
    unsafe fn free(dev: *mut bindings::device, size: usize, place: *mut u8, address: DmaAddress) {
        // SAFETY: By the safety requirements.
        unsafe { bindings::dma_free_attrs(dev, size, place.cast(), address, 0) };
    }

    /// What is forgotten stays allocated.
    #[test]
    fn forgotten() -> Result {
        let left = Cell::new(None);

        on_platform_device(
            Some(WIDE),
            |_| {},
            &mut |pdev| {
                let dma = open(pdev.as_ref())?;
                let memory = SharedBox::<[u8]>::slice(dma, 100, GFP_KERNEL)?.submit();

                dma_write!(&memory, [try: 99], 0x77);
                left.set(Some((
                    memory.as_ptr().cast::<u8>(),
                    memory.address().bits(),
                )));
                forget(memory)?;
                Ok(())
            },
            |raw| {
                let (place, address) = left.get().ok_or(EINVAL)?;
                // SAFETY: The memory is allocated still.
                let kept = unsafe { place.add(99).read_volatile() } == 0x77;

                // SAFETY: Nobody uses it; the device is there.
                unsafe { free(raw, 100, place, address) };
                ensure!(kept);
                Ok(())
            },
        )
    }

    /// Memory that is dropped after the driver, when no proof can come any more, is leaked, and
    /// counted.
    #[test]
    fn dropped_too_late() -> Result {
        /// Dropped with the last resources of the device.
        struct Late<T>(T);

        // SAFETY: Dropping the memory uses the device's record, which is released after it.
        unsafe impl<T: Send + Sync> Lendable for Late<T> {}

        let before = (quarantined(), leaked());
        let left = Cell::new(None);

        on_platform_device(
            Some(WIDE),
            |_| {},
            &mut |pdev| {
                let dev: &Device<Core<'_>> = pdev.as_ref();
                let dma = fixture::open(dev.bound())?;
                let memory = SharedBox::<[u8]>::slice(dma, 100, GFP_KERNEL)?.submit();

                left.set(Some((
                    memory.as_ptr().cast::<u8>(),
                    memory.address().bits(),
                )));
                devres::register_lent(dev, Ok::<_, Error>(Late(memory)), GFP_KERNEL).map(drop)
            },
            |raw| {
                let (place, address) = left.get().ok_or(EINVAL)?;

                // SAFETY: Nobody uses it; the device is there.
                unsafe { free(raw, 100, place, address) };
                Ok(())
            },
        )?;

        ensure!((quarantined(), leaked()) == (before.0 + 1, before.1 + 1));
        Ok(())
    }
}

/// What the device sees, and what fails, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_shared_sim)]
mod on_sim {
    use super::*;
    use crate::{
        dma::sim::{
            self,
            Model,
            Script,
            Sim, //
        },
        time::{
            delay::fsleep,
            Delta,
            Instant,
            Monotonic, //
        }, //
    };

    fn on_each_model(script: Script, mut body: impl FnMut(Mapper<'_>, &Sim) -> Result) -> Result {
        sim::run_on_each(script, |pdev, sim| body(open(pdev.as_ref())?, sim))
    }

    const PLAIN: Script = Script::new(Model::Coherent);
    const WEAK: Script = PLAIN.weak_order(true);

    /// The device reads and writes the memory that it was told of.
    #[test]
    fn device_access() -> Result {
        on_each_model(PLAIN, |dma, sim| {
            let mut memory = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?;

            memory.command = 0x1122_3344;

            let memory = memory.submit();
            let address = memory.address().bits();
            let mut seen = [0; size_of::<Mailbox>()];

            dma_write!(&memory, .status, 0x5566_7788);

            // SAFETY: Nobody else accesses it.
            ensure!(unsafe { sim.device_read(address, &mut seen) });
            ensure!(seen[..4] == 0x1122_3344_u32.to_ne_bytes());
            ensure!(seen[4..8] == 0x5566_7788_u32.to_ne_bytes());

            // SAFETY: As above.
            ensure!(unsafe { sim.device_write(address + 8, &[0xaa; 8]) });
            ensure!(dma_read!(&memory, .count) == 0xaaaa_aaaa_aaaa_aaaa);

            let alone = DeviceOnly::new(dma, 5000, GFP_KERNEL, AllocAttrs::NONE)?;
            let place = alone.address().bits();
            let mut byte = [0];

            // SAFETY: As above.
            ensure!(unsafe {
                sim.device_write(place + 4999, &[3]) && sim.device_read(place + 4999, &mut byte)
            });
            ensure!(byte == [3]);
            stop(dma);
            Ok(())
        })
    }

    /// Who finds the word that says so finds the rest: on both sides.
    #[test]
    fn messages() -> Result {
        on_each_model(WEAK, |dma, sim| {
            let memory = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit();
            let address = memory.address().bits();

            sim.hold_stores(address, size_of::<Mailbox>())?;

            for turn in 1..20_u32 {
                let count = u64::from(turn) << 40;
                let (mut command, mut seen) = ([0; 4], [0; 8]);

                // To the device, which looks at the command.
                io_project!(&memory, .count).write_relaxed(count);
                dma_write!(&memory, .command, turn);

                // SAFETY: Nobody else accesses it.
                ensure!(unsafe {
                    sim.device_read_now(address, &mut command)
                        && sim.device_read(address + 8, &mut seen)
                });
                ensure!(command == turn.to_ne_bytes() && seen == count.to_ne_bytes());

                // And back, with the status last.
                //
                // SAFETY: As above.
                ensure!(unsafe {
                    sim.device_write_late(address + 8, &(!count).to_ne_bytes())
                        && sim.device_write(address + 4, &turn.to_ne_bytes())
                });
                ensure!(dma_read!(&memory, .status) == turn);
                ensure!(io_project!(&memory, .count).read_relaxed() == !count);
            }

            stop(dma);
            Ok(())
        })
    }

    /// More than a word is in order, too.
    #[test]
    fn long_messages() -> Result {
        on_each_model(WEAK, |dma, sim| {
            let memory = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit();
            let address = memory.address().bits();
            let mut seen = [0; 8];

            sim.hold_stores(address, size_of::<Mailbox>())?;

            // What was written before is seen before; `put` comes last here.
            io_project!(&memory, .count).write_relaxed(1);
            io_project!(&memory, .small).put([1, 2, 3, 4]);
            // SAFETY: Nobody else accesses it.
            ensure!(unsafe { sim.device_read(address + 8, &mut seen) });
            ensure!(seen == 1_u64.to_ne_bytes());

            io_project!(&memory, .count).write_relaxed(2);
            io_project!(&memory, .data[try: 3..9]).copy_from(b"abcdef")?;
            // SAFETY: As above.
            ensure!(unsafe { sim.device_read(address + 8, &mut seen) });
            ensure!(seen == 2_u64.to_ne_bytes());

            // What is read later is newer than what `snapshot` and `copy_to` return.
            //
            // SAFETY: As above.
            ensure!(unsafe { sim.device_write_late(address + 8, &[9; 8]) });
            ensure!(io_project!(&memory, .small).snapshot() == [1, 2, 3, 4]);
            ensure!(io_project!(&memory, .count).read_relaxed() == u64::from_ne_bytes([9; 8]));

            let mut bytes = [0; 6];

            // SAFETY: As above.
            ensure!(unsafe { sim.device_write_late(address + 8, &[8; 8]) });
            io_project!(&memory, .data[try: 3..9]).copy_to(&mut bytes)?;
            ensure!(bytes == *b"abcdef");
            ensure!(io_project!(&memory, .count).read_relaxed() == u64::from_ne_bytes([8; 8]));
            stop(dma);
            Ok(())
        })
    }

    /// A device writes whatever it likes, whenever it likes: that is an error, and no more.
    #[test]
    fn lies() -> Result {
        on_each_model(PLAIN, |dma, sim| {
            let memory = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit();
            let address = memory.address().bits();
            let table = [1, 2, 3];

            for forged in [0, 2, 3, 4, u32::MAX / 2, u32::MAX] {
                // SAFETY: Nobody else accesses it.
                ensure!(unsafe { sim.device_write(address, &forged.to_ne_bytes()) });

                let index = dma_read!(&memory, .command);
                let entry = index.index_into(&table);

                // It changes between the check and the use: the value that was checked is used.
                //
                // SAFETY: As above.
                ensure!(unsafe { sim.device_write(address, &[0xff; 4]) });
                ensure!(entry.is_ok() == (forged < 3));
                ensure!(dma_read!(&memory, .command) == u32::MAX);
            }

            // Half of a message is old.
            //
            // SAFETY: As above.
            ensure!(unsafe { sim.device_write(address + 8, &[0xee; 4]) });
            ensure!(dma_read!(&memory, .count).at_most(100).is_err());

            let mixed = memory.as_view().snapshot();

            ensure!(
                mixed.validate(|all| if all.count < 100 { Ok(()) } else { Err(EIO) }) == Err(EIO)
            );
            stop(dma);
            Ok(())
        })
    }

    /// Without memory there is an error, and nothing else happens.
    #[test]
    fn no_memory() -> Result {
        on_each_model(PLAIN, |dma, sim| {
            for _ in 0..3 {
                sim.fail_alloc(1);
                ensure!(
                    matches!(SharedBox::<Mailbox>::new(dma, GFP_KERNEL), Err(e) if e == ENOMEM)
                );
                sim.fail_alloc(1);
                ensure!(
                    matches!(SharedBox::<[u8]>::slice(dma, 9, GFP_ATOMIC), Err(e) if e == ENOMEM)
                );
                sim.fail_alloc(1);
                ensure!(matches!(
                    DeviceOnly::new(dma, 9, GFP_KERNEL, AllocAttrs::NONE),
                    Err(e) if e == ENOMEM
                ));
                ensure!(sim.counters().live == 0);
            }

            // Nor if all addresses are taken.
            let all = SharedBox::<[u8]>::slice(dma, 2 << 20, GFP_KERNEL)?;

            ensure!(matches!(SharedBox::<Mailbox>::new(dma, GFP_KERNEL), Err(e) if e == ENOMEM));
            drop(all);
            ensure!(sim.counters().live == 0);
            Ok(())
        })
    }

    /// Where interrupts are off nothing is freed, but soon after, and at unbind at the latest.
    #[test]
    fn freed_later() -> Result {
        on_each_model(PLAIN, |dma, sim| {
            let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
            let lock: &SpinLockIrq<()> = &lock;
            let first = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?;
            let second = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit();
            let third = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?.submit();
            let last = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?;

            third.address();
            {
                let _guard = lock.lock();

                drop(first);
                drop(second);
                drop(third);
                ensure!(sim.counters().frees == 0 && sim.counters().live == 4);
            }

            // No longer than it takes to run a work item.
            let start = Instant::<Monotonic>::now();

            while sim.counters().frees < 2 && start.elapsed() < Delta::from_secs(10) {
                fsleep(Delta::from_millis(1));
            }
            ensure!(sim.counters().frees == 2 && sim.counters().live == 2);

            // A proof frees what was quarantined, here where one may sleep.
            stop(dma);
            ensure!(sim.counters().frees == 3 && sim.counters().live == 1);

            // The bus complains if unbinding leaves this.
            let _guard = lock.lock();

            drop(last);
            Ok(())
        })
    }
}

/// Memory goes to other threads as what is in it does.
#[expect(dead_code, reason = "it only has to compile")]
fn may_be_shared<'m>(memory: &'m Shared<'m, Mailbox>) -> impl Send + Sync + 'm {
    memory
}
