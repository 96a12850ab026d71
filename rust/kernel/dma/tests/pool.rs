// SPDX-License-Identifier: GPL-2.0

//! Tests of pools, on a platform device without hardware.

use super::{
    ensure,
    fixture::{
        on_each_bus,
        on_platform_device,
        prove, //
    }, //
};
use crate::{
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
        Constraints,
        DmaAddress,
        DmaMask,
        Mapper,
        Pool,
        PoolBox,
        PoolEntry, //
    },
    io::{
        IoBackend,
        IoBase, //
    },
    new_spinlock_irq,
    page::PAGE_SIZE,
    platform,
    prelude::*,
    sync::SpinLockIrq, //
};
use core::cell::Cell;

/// What is in a block.
#[derive(FromBytes, IntoBytes, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Item {
    first: u64,
    second: u32,
    third: u32,
    rest: [u64; 6],
}

const FULL: Item = Item {
    first: u64::MAX,
    second: u32::MAX,
    third: u32::MAX,
    rest: [u64::MAX; 6],
};

const EMPTY: Item = Item {
    first: 0,
    second: 0,
    third: 0,
    rest: [0; 6],
};

/// Runs a test with a new pool on each kind of bus.
fn on_each_pool(mut body: impl for<'a> FnMut(&'a Pool<'a, Item>, Mapper<'a>) -> Result) -> Result {
    on_each_bus(|pdev| {
        let (pool, dma) = make(pdev)?;

        body(pool, dma)
    })
}

fn make<'a>(pdev: &platform::Device<Core<'a>>) -> Result<(&'a Pool<'a, Item>, Mapper<'a>)> {
    let dev: &Device<Core<'a>> = pdev.as_ref();

    Ok((
        Pool::new(dev, c"items")?,
        super::fixture::open(dev.bound())?,
    ))
}

/// Where the CPU finds a block.
fn cpu_address<T>(block: &PoolBox<'_, T>) -> usize {
    (&raw const **block).addr()
}

/// As [`cpu_address`], for a block that a device shares.
fn place<'e, M: IoBase<'e>>(memory: M) -> *mut M::Target {
    M::Backend::as_ptr(memory.as_view())
}

/// Takes back a block that no device was told of.
fn take_back<'a, T>(entry: PoolEntry<'a, T>) -> PoolBox<'a, T> {
    // SAFETY: There is no device.
    unsafe { entry.complete() }
}

/// Frees the page of a block that was forgotten, which otherwise would be leaked.
///
/// # Safety
///
/// `block` must be at `address`, in a page of a pool of the device, which was destroyed, and nobody
/// may use the page.
unsafe fn free_page(dev: *mut bindings::device, block: *mut Item, address: DmaAddress) {
    let offset = block.addr() % PAGE_SIZE;

    // SAFETY: By the safety requirements.
    unsafe {
        bindings::dma_free_attrs(
            dev,
            PAGE_SIZE,
            block.byte_sub(offset).cast(),
            // CAST: Less than a page.
            address - offset as DmaAddress,
            0,
        );
    }
}

#[kunit_tests(rust_dma_pool)]
mod cases {
    use super::*;

    /// A block that comes back, written by whoever, is zero again, and so are those around.
    #[test]
    fn zeroed() -> Result {
        on_each_pool(|pool, _| {
            let mut block = pool.alloc(GFP_KERNEL)?;
            let address = block.raw_address();

            ensure!(*block == EMPTY);
            *block = FULL;
            drop(block);

            let block = pool.alloc(GFP_KERNEL)?;
            ensure!(block.raw_address() == address);
            ensure!(*block == EMPTY);

            // A fresh one, that was only in the list of free ones.
            ensure!(*pool.alloc(GFP_KERNEL)? == EMPTY);
            Ok(())
        })
    }

    /// Blocks over several pages: none overlaps another, and each keeps what is in it.
    #[test]
    fn many() -> Result {
        on_each_pool(|pool, _| {
            let count = 5 * PAGE_SIZE / size_of::<Item>() + 3;
            let mut blocks = KVec::with_capacity(count, GFP_KERNEL)?;

            for i in 0..count {
                let mut block = pool.alloc(GFP_KERNEL)?;

                // CAST: Widening.
                block.first = i as u64;
                block.rest[5] = !(i as u64);
                blocks.push(block, GFP_KERNEL)?;
            }

            let mut places = KVec::with_capacity(count, GFP_KERNEL)?;
            let mut addresses = KVec::with_capacity(count, GFP_KERNEL)?;

            for (i, block) in blocks.iter().enumerate() {
                // CAST: Widening.
                ensure!(block.first == i as u64 && block.rest[5] == !(i as u64));
                ensure!(block.second == 0 && block.rest[..5] == [0; 5]);
                places.push(cpu_address(block), GFP_KERNEL)?;
                addresses.push(block.raw_address(), GFP_KERNEL)?;
            }

            places.sort_unstable();
            addresses.sort_unstable();
            // CAST: A small number.
            let distance = size_of::<Item>() as DmaAddress;
            ensure!(places.windows(2).all(|p| p[1] - p[0] >= size_of::<Item>()));
            ensure!(addresses.windows(2).all(|a| a[1] - a[0] >= distance));
            Ok(())
        })
    }

    /// Blocks are where the hardware, the type, and the C side want them.
    #[test]
    fn layout() -> Result {
        #[derive(FromBytes, IntoBytes)]
        #[repr(C, align(64))]
        struct Wide([u8; 64]);

        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();

            // As aligned as the type, which is so for the CPU and the device.
            let pool = Pool::<Wide>::new(dev, c"wide")?;
            let mut wide = KVec::new();

            // As the hardware likes it.
            let aligned = Pool::<[u8; 40]>::with_layout::<32, 0>(dev, c"aligned")?;
            let mut sparse = KVec::new();

            // One of them fits inside of a boundary.
            let bounded = Pool::<[u8; 96]>::with_layout::<1, 128>(dev, c"bounded")?;
            let mut narrow = KVec::new();

            // The list of free blocks is aligned, too.
            let odd = Pool::<[u8; 17]>::new(dev, c"odd")?;
            let mut bytes = KVec::new();

            // The most that there is.
            let page = Pool::<[u8; PAGE_SIZE]>::with_layout::<PAGE_SIZE, 0>(dev, c"page")?;
            let mut pages = KVec::new();

            for _ in 0..100 {
                wide.push(pool.alloc(GFP_KERNEL)?, GFP_KERNEL)?;
                sparse.push(aligned.alloc(GFP_KERNEL)?, GFP_KERNEL)?;
                narrow.push(bounded.alloc(GFP_KERNEL)?, GFP_KERNEL)?;
                bytes.push(odd.alloc(GFP_KERNEL)?, GFP_KERNEL)?;
            }
            for _ in 0..4 {
                pages.push(page.alloc(GFP_KERNEL)?, GFP_KERNEL)?;
            }

            for block in &wide {
                ensure!(cpu_address(block) % 64 == 0 && block.raw_address() % 64 == 0);
            }
            for block in &sparse {
                ensure!(cpu_address(block) % 32 == 0 && block.raw_address() % 32 == 0);
            }
            for block in &narrow {
                let address = block.raw_address();

                ensure!(address / 128 == (address + 95) / 128);
            }
            for block in &bytes {
                ensure!(cpu_address(block) % align_of::<*mut ()>() == 0 && block.len() == 17);
            }
            for block in &pages {
                // CAST: Widening.
                ensure!(block.raw_address() % PAGE_SIZE as DmaAddress == 0);
            }
            Ok(())
        })
    }

    /// What the CPU writes is there for the device and back, and in between there are views.
    #[test]
    fn there_and_back() -> Result {
        on_each_pool(|pool, _| {
            let mut block = pool.alloc(GFP_KERNEL)?;
            let address = block.raw_address();

            block.second = 7;

            let entry = block.submit();
            // SAFETY: No device is told.
            ensure!(entry.address().bits() == address);
            ensure!(entry.address().len() == size_of::<Item>());
            ensure!(dma_read!(&entry, .second) == 7);
            dma_write!(&entry, .third, 8);
            ensure!(
                (&entry).as_view().snapshot()
                    == Item {
                        second: 7,
                        third: 8,
                        ..EMPTY
                    }
            );

            let block = take_back(entry);
            ensure!(block.raw_address() == address && block.third == 8);
            Ok(())
        })
    }

    /// An entry that is dropped is kept from everybody, until the device was proven to have
    /// stopped.
    #[test]
    fn dropping_in_flight_is_counted() -> Result {
        on_each_pool(|pool, dma| {
            let before = quarantined();
            let entry = pool.alloc(GFP_KERNEL)?.submit();

            dma_write!(&entry, .second, 0x5555);
            let address = entry.address().bits();
            let place = place(&entry);

            drop(entry);
            ensure!(quarantined() == before + 1);

            let others = [pool.alloc(GFP_KERNEL)?, pool.alloc(GFP_KERNEL)?];
            ensure!(others.iter().all(|other| other.raw_address() != address));

            // SAFETY: The block is allocated still, and nobody writes it.
            let item = unsafe { place.read_volatile() };

            ensure!(
                item == Item {
                    second: 0x5555,
                    ..EMPTY
                }
            );

            // SAFETY: There is no device.
            unsafe { prove(dma) };
            ensure!(pool.alloc(GFP_KERNEL)?.raw_address() == address);
            Ok(())
        })
    }

    /// If the device was proven to have stopped before, it is given back at once.
    #[test]
    fn dropping_after_the_stop() -> Result {
        on_each_pool(|pool, dma| {
            let before = quarantined();
            let entry = pool.alloc(GFP_KERNEL)?.submit();
            let address = entry.address().bits();

            // SAFETY: There is no device.
            unsafe { prove(dma) };

            drop(entry);
            ensure!(quarantined() == before);
            ensure!(pool.alloc(GFP_KERNEL)?.raw_address() == address);
            Ok(())
        })
    }

    /// All that handlers of interrupts may do.
    #[test]
    fn atomic() -> Result {
        on_each_pool(|pool, dma| {
            let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
            let lock: &SpinLockIrq<()> = &lock;
            let mut blocks = KVec::with_capacity(200, GFP_KERNEL)?;

            {
                let _guard = lock.lock();

                for _ in 0..200 {
                    blocks.push(pool.alloc(GFP_ATOMIC)?, GFP_ATOMIC)?;
                }
                while let Some(block) = blocks.pop() {
                    drop(take_back(block.submit()));
                }

                // Quarantined.
                drop(pool.alloc(GFP_ATOMIC)?.submit());
            }

            // SAFETY: There is no device.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// What is forgotten stays allocated; nothing of its page is freed with the pool.
    #[test]
    fn forgotten() -> Result {
        let left = Cell::new(None);

        on_platform_device(
            Some(Constraints::new(DmaMask::new::<64>())),
            |_| {},
            &mut |pdev| {
                let (pool, _) = make(pdev)?;
                let mut block = pool.alloc(GFP_KERNEL)?;
                let entry = pool.alloc(GFP_KERNEL)?.submit();

                block.first = 0x7777;
                left.set(Some((&raw mut *block, block.raw_address())));
                core::mem::forget(block);
                core::mem::forget(entry);

                ensure!(pool.alloc(GFP_KERNEL)?.first == 0);
                Ok(())
            },
            |raw| {
                let (place, address) = left.get().ok_or(EINVAL)?;

                // SAFETY: The block is allocated still.
                let kept = unsafe { place.read_volatile() }
                    == Item {
                        first: 0x7777,
                        ..EMPTY
                    };

                // SAFETY: The pool was destroyed and nobody uses its page; the device is there.
                unsafe { free_page(raw, place, address) };
                ensure!(kept);
                Ok(())
            },
        )
    }

    /// A block that is dropped after the driver, when no proof can come any more, is leaked, and
    /// counted.
    #[test]
    fn dropped_too_late() -> Result {
        /// Dropped with the last resources of the device, but before the pool.
        struct Late<T>(T);

        // SAFETY: Dropping a block uses the device's record, which is released after it.
        unsafe impl<T: Send + Sync> Lendable for Late<T> {}

        let before = (quarantined(), leaked());
        let left = Cell::new(None);

        on_platform_device(
            Some(Constraints::new(DmaMask::new::<64>())),
            |_| {},
            &mut |pdev| {
                let dev: &Device<Core<'_>> = pdev.as_ref();
                let (pool, _) = make(pdev)?;
                let mut block = pool.alloc(GFP_KERNEL)?;

                left.set(Some((&raw mut *block, block.raw_address())));

                let entry = block.submit();

                entry.address();
                devres::register_lent(dev, Ok::<_, Error>(Late(entry)), GFP_KERNEL).map(drop)
            },
            |raw| {
                let (place, address) = left.get().ok_or(EINVAL)?;

                // SAFETY: The pool was destroyed and nobody uses its page; the device is there.
                unsafe { free_page(raw, place, address) };
                Ok(())
            },
        )?;

        ensure!((quarantined(), leaked()) == (before.0 + 1, before.1 + 1));
        Ok(())
    }

    /// What the device is given may hold blocks: the pool goes after it.
    #[test]
    fn given_to_the_device() -> Result {
        on_each_bus(|pdev| {
            let dev: &Device<Core<'_>> = pdev.as_ref();
            let pool = Pool::<Item>::new(dev, c"items")?;

            devres::register_early(dev, Ok::<_, Error>(pool.alloc(GFP_KERNEL)?), GFP_KERNEL)
        })
    }

    /// A pool needs a device whose DMA is set up.
    #[test]
    fn without_set_up() -> Result {
        on_platform_device(
            None,
            |_| {},
            &mut |pdev| {
                let dev: &Device<Core<'_>> = pdev.as_ref();

                ensure!(matches!(Pool::<u64>::new(dev, c"none"), Err(e) if e == EINVAL));
                Ok(())
            },
            |_| Ok(()),
        )
    }
}

/// What the device sees, and what fails, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_pool_sim)]
mod on_sim {
    use super::*;
    use crate::{
        dma::sim::{
            self,
            Model,
            Script,
            Sim, //
        },
        sync::aref::ARef, //
    };

    fn on_each_model(mut body: impl for<'a> FnMut(&'a Pool<'a, Item>, &Sim) -> Result) -> Result {
        sim::run_on_each(Script::new(Model::Coherent), |pdev, sim| {
            body(make(pdev)?.0, sim)
        })
    }

    /// The device reads and writes the block that it was told of.
    #[test]
    fn device_access() -> Result {
        on_each_model(|pool, sim| {
            let mut block = pool.alloc(GFP_KERNEL)?;

            block.first = 0x1122_3344_5566_7788;
            block.rest[5] = 9;

            let entry = block.submit();
            let address = entry.address().bits();
            let mut seen = [0; size_of::<Item>()];

            // SAFETY: The block is the device's.
            ensure!(unsafe { sim.device_read(address, &mut seen) });
            ensure!(seen[..8] == 0x1122_3344_5566_7788_u64.to_ne_bytes());
            ensure!(seen[56..] == 9_u64.to_ne_bytes());

            // SAFETY: As above.
            ensure!(unsafe { sim.device_write(address + 8, &[0xaa; 4]) });
            ensure!(dma_read!(&entry, .second) == 0xaaaa_aaaa);
            ensure!(take_back(entry).second == 0xaaaa_aaaa);
            Ok(())
        })
    }

    /// A pool allocates pages, and frees them when it goes.
    #[test]
    fn pages() -> Result {
        on_each_model(|pool, sim| {
            ensure!(sim.counters().allocs == 0);

            let per_page = PAGE_SIZE / size_of::<Item>();
            let mut blocks = KVec::new();

            for _ in 0..2 * per_page {
                blocks.push(pool.alloc(GFP_KERNEL)?, GFP_KERNEL)?;
            }

            ensure!(sim.counters().allocs == 2);
            drop(blocks);
            ensure!(sim.counters().frees == 0);
            Ok(())
        })
    }

    /// Without memory there is an error, and nothing else happens.
    #[test]
    fn no_memory() -> Result {
        on_each_model(|pool, sim| {
            sim.fail_alloc(1);
            ensure!(matches!(pool.alloc(GFP_KERNEL), Err(e) if e == ENOMEM));
            ensure!(sim.counters().live == 0);

            let mut blocks = KVec::new();

            for _ in 0..PAGE_SIZE / size_of::<Item>() {
                let mut block = pool.alloc(GFP_KERNEL)?;

                *block = FULL;
                blocks.push(block, GFP_KERNEL)?;
            }

            // The page is full.
            sim.fail_alloc(1);
            ensure!(matches!(pool.alloc(GFP_ATOMIC), Err(e) if e == ENOMEM));
            ensure!(sim.counters().live == 1);
            ensure!(blocks.iter().all(|block| **block == FULL));

            ensure!(*pool.alloc(GFP_KERNEL)? == EMPTY);
            ensure!(sim.counters().live == 2);
            Ok(())
        })
    }

    /// What is forgotten keeps its pages mapped when the pool goes.
    #[test]
    fn forgotten() -> Result {
        for model in Model::ALL {
            let mut left = None;

            sim::run(Script::new(model), |pdev, sim| {
                let (pool, _) = make(pdev)?;
                let mut block = pool.alloc(GFP_KERNEL)?;
                let dev: &Device = pdev.as_ref();

                left = Some((
                    ARef::from(dev),
                    &raw mut *block,
                    block.raw_address(),
                    sim.clone(),
                ));
                core::mem::forget(block);
                ensure!(sim.take_leaks() == 1);
                Ok(())
            })?;

            let (dev, place, address, sim) = left.ok_or(EINVAL)?;

            ensure!(sim.counters().frees == 0);
            // SAFETY: The pool was destroyed and nobody uses its page; the device is there.
            unsafe { free_page(dev.as_raw(), place, address) };
            ensure!(sim.counters().frees == 1);
        }

        Ok(())
    }
}
