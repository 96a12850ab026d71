// SPDX-License-Identifier: GPL-2.0

//! Tests of streaming mappings, on a platform device without hardware.
//!
//! What a device does to memory is tested where there is one; here, what comes back and when.

use super::{
    ensure,
    fixture::{
        free_forgotten,
        on_each_bus,
        on_platform_device,
        prove,
        with_platform_device, //
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
        address,
        leaked,
        quarantined,
        Bidirectional,
        Buffer,
        Constraints,
        CpuWrites,
        Direction,
        DmaAddress,
        DmaMask,
        FromDevice,
        Mapper,
        Pages,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};
use core::cell::Cell;

/// A vector of `len` bytes, each different from its neighbours, alone in its cache lines.
fn pattern(len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len.next_power_of_two().max(256), GFP_KERNEL)?;

    for i in 0..len {
        // CAST: Cut on purpose.
        vec.push((i * 7 + i / 256) as u8, GFP_KERNEL)?;
    }

    Ok(vec)
}

fn is_pattern(bytes: &[u8]) -> bool {
    // CAST: Cut on purpose.
    bytes
        .iter()
        .enumerate()
        .all(|(i, &byte)| byte == (i * 7 + i / 256) as u8)
}

/// Takes back a buffer that no device was told of.
fn take_back<B: Buffer, D: Direction>(buf: Streaming<'_, B, D>) -> StreamingBox<'_, B, D> {
    let len = buf.address().len();

    // SAFETY: There is no device.
    unsafe { buf.complete(0..len) }
}

#[kunit_tests(rust_dma_streaming)]
mod cases {
    use super::*;

    /// Where a buffer is in physical memory is found without a look at the kernel's image.
    #[test]
    fn in_the_linear_map() -> Result {
        fn check<B: Buffer>(buf: B) -> Result {
            let first = buf.as_ptr();

            // SAFETY: A buffer lies in the linear map.
            let found = unsafe {
                bindings::phys_to_virt(bindings::dma_linear_to_phys(first.cast())).cast::<u8>()
            };

            ensure!(found.cast_const() == first);
            Ok(())
        }

        check(pattern(100)?)?;
        check(KBox::new([0_u8; 5000], GFP_KERNEL)?)?;
        check(Pages::zeroed(2, GFP_KERNEL)?)
    }

    fn there_and_back<D: Direction>(dma: Mapper<'_>, len: usize) -> Result {
        let buf = StreamingBox::<_, D>::map(dma, pattern(len)?)?;

        ensure!(is_pattern(buf.bytes()) && buf.bytes().len() == len);

        let buf = buf.submit();
        ensure!(buf.address().len() == len);

        // SAFETY: There is no device.
        let buf = unsafe { buf.complete(0..len) };
        ensure!(is_pattern(buf.bytes()));
        ensure!(is_pattern(&buf.unmap()));
        Ok(())
    }

    /// The bytes survive each way through the states, for all directions and many lengths.
    #[test]
    fn bytes_come_back() -> Result {
        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;

            for len in [1, 2, 63, 64, 65, 127, 128, 129, 2048, 4095, 4096, 10_000] {
                there_and_back::<ToDevice>(dma, len)?;
                there_and_back::<FromDevice>(dma, len)?;
                there_and_back::<Bidirectional>(dma, len)?;
            }

            Ok(())
        })
    }

    /// What is dropped after the driver, when no proof can come any more, is leaked, and counted.
    #[test]
    fn dropped_too_late() -> Result {
        /// Dropped with the last resources of the device.
        struct Late<T>(T);

        // SAFETY: Dropping a mapping uses the device's record, which is released after it.
        unsafe impl<T: Send + Sync> Lendable for Late<T> {}

        let before = (quarantined(), leaked());
        let left = Cell::new(None);

        on_platform_device(
            Some(Constraints::new(DmaMask::new::<64>())),
            |_| {},
            &mut |pdev| {
                let dev: &Device<Core<'_>> = pdev.as_ref();
                let buf = pattern(64)?;
                let bytes = buf.as_ptr();
                let buf =
                    Streaming::<_, ToDevice>::map(crate::dma::fixture::open(dev.bound())?, buf)?;

                left.set(Some((bytes, buf.address().bits())));
                devres::register_lent(dev, Ok::<_, Error>(Late(buf)), GFP_KERNEL).map(drop)
            },
            |dev| {
                let (bytes, addr) = left.get().ok_or(EINVAL)?;

                // SAFETY: Both were leaked, and the device is still there.
                unsafe {
                    bindings::dma_unmap_phys(dev, addr, 64, ToDevice::DATA_DIRECTION.into(), 0);
                    free_forgotten(bytes);
                }
                Ok(())
            },
        )?;

        ensure!((quarantined(), leaked()) == (before.0 + 1, before.1 + 1));
        Ok(())
    }

    /// The end of the last mapping that the device can address has no address, and needs none.
    #[test]
    fn end_of_bus_addresses() -> Result {
        let last = DmaAddress::MAX - 0xfff;

        ensure!(address::within(last, 0xfff) == DmaAddress::MAX);
        ensure!(address::within(last, 0x1000) == 0);
        Ok(())
    }

    /// What the CPU wrote after a transfer stays, though the unmapping would copy or invalidate.
    #[test]
    fn writes_after_completion_stay() -> Result {
        fn write<D: CpuWrites>(dma: Mapper<'_>) -> Result {
            let buf = Streaming::<_, D>::map(dma, KVec::from_elem(0_u8, 4096, GFP_KERNEL)?)?;
            // SAFETY: There is no device.
            let mut buf = unsafe { buf.complete(0..4096) };

            buf.bytes_mut().fill(0x77);
            ensure!(buf.unmap().iter().all(|&byte| byte == 0x77));
            Ok(())
        }

        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;

            write::<ToDevice>(dma)?;
            write::<Bidirectional>(dma)
        })
    }

    /// A partial transfer defines its range, and only that; unmapping defines all.
    #[test]
    fn partial_completion() -> Result {
        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;
            let buf = Streaming::<_, FromDevice>::map(dma, pattern(1024)?)?;
            // SAFETY: There is no device.
            let buf = unsafe { buf.complete(128..512) };

            ensure!(buf.bytes().len() == 384);
            ensure!(is_pattern(&buf.unmap()));
            Ok(())
        })
    }

    #[test]
    fn all_buffers() -> Result {
        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;

            let buf = Streaming::<_, ToDevice>::map(dma, KBox::new([3_u32; 5], GFP_KERNEL)?)?;
            ensure!(buf.address().len() == 20);
            drop(take_back(buf));

            let buf = StreamingBox::<_, FromDevice>::map(dma, Pages::zeroed(2, GFP_KERNEL)?)?;
            ensure!(buf.bytes().len() == 4 * PAGE_SIZE);
            drop(buf);
            Ok(())
        })
    }

    #[test]
    fn addresses() -> Result {
        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;
            let buf = Streaming::<_, ToDevice>::map(dma, pattern(1000)?)?;
            let whole = buf.address();

            let bits = |address: crate::dma::DmaAddr<'_>| address.bits();

            ensure!(bits(whole.offset(10)?) == bits(whole) + 10);
            ensure!(whole.offset(10)?.len() == 990);
            ensure!(whole.offset(999)?.len() == 1);
            ensure!(whole.offset(1000).is_err());
            ensure!(whole.slice(5..5).is_err());
            ensure!(whole.slice(500..1001).is_err());
            // An end before the start.
            ensure!(whole.slice(core::ops::Range { start: 6, end: 5 }).is_err());

            drop(take_back(buf));
            Ok(())
        })
    }

    /// A buffer that can't be mapped comes back as it was.
    #[test]
    fn refusals_give_the_buffer_back() -> Result {
        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;

            let empty = Streaming::<_, ToDevice>::map(dma, KVec::<u8>::new());
            ensure!(matches!(empty, Err(ref e) if e.error == EINVAL));

            let max = dma.max_mapping_size();

            // The shortest that is too long.
            if let Some(order) = (0..=10).find(|order| PAGE_SIZE << order > max) {
                let pages = Pages::zeroed(order, GFP_KERNEL)?;
                let address = Buffer::as_ptr(&pages);

                match Streaming::<_, ToDevice>::map(dma, pages) {
                    Err(e) => {
                        ensure!(e.error == EOVERFLOW);
                        ensure!(Buffer::as_ptr(&e.value) == address);
                    }
                    Ok(_) => return Err(EINVAL),
                }
            }

            Ok(())
        })
    }

    /// A part of some pages, which claims to own so many bytes of them.
    struct Window {
        pages: Pages,
        start: usize,
        len: usize,
        allocation: usize,
    }

    // SAFETY: A part of a buffer is one, if it is inside.
    unsafe impl Buffer for Window {
        fn as_ptr(&self) -> *const u8 {
            Buffer::as_ptr(&self.pages).wrapping_add(self.start)
        }

        fn as_mut_ptr(&mut self) -> *mut u8 {
            Buffer::as_mut_ptr(&mut self.pages).wrapping_add(self.start)
        }

        fn len(&self) -> usize {
            self.len
        }

        fn allocation(&self) -> usize {
            self.allocation
        }
    }

    /// Returns whether the kernel bounces for the device what shares a line by its length.
    fn may_bounce(dma: Mapper<'_>) -> bool {
        let direction = FromDevice::DATA_DIRECTION.into();

        // SAFETY: `dma` leads to a valid `struct device`.
        unsafe { bindings::dma_bounces_unaligned(dma.device().as_raw(), 1, direction) }
    }

    /// Maps a buffer that shares a line with something else, for a device that writes it: that is
    /// refused, or somewhere else.
    fn map_shared<B: Buffer, D: Direction>(dma: Mapper<'_>, buf: B, bounces: bool) -> Result {
        // SAFETY: A buffer lies in the linear mapping.
        let phys = unsafe { bindings::dma_linear_to_phys(buf.as_ptr().cast()) };

        match Streaming::<B, D>::map(dma, buf) {
            Ok(buf) => {
                ensure!(dma.is_coherent() || bounces);
                #[allow(clippy::useless_conversion, reason = "either may have 32 bits")]
                let bounced = u64::from(buf.address().bits()) != u64::from(phys);
                ensure!(dma.is_coherent() || bounced);
                drop(take_back(buf));
            }
            Err(e) => {
                ensure!(e.error == EINVAL);
                ensure!(!dma.is_coherent() && !bounces);
            }
        }

        Ok(())
    }

    /// A device that isn't coherent may not write into lines that hold something else, neither the
    /// first nor the last: the kernel bounces such a buffer, if its length tells it to. Each is
    /// fine for a device that only reads.
    #[test]
    fn shared_lines_at_the_ends() -> Result {
        // SAFETY: No requirements.
        // CAST: A small positive number.
        let line = unsafe { bindings::dma_get_cache_alignment() } as usize;
        let half = line.div_ceil(2);

        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;
            let window = |start, len, allocation| -> Result<Window> {
                Ok(Window {
                    pages: Pages::zeroed(0, GFP_KERNEL)?,
                    start,
                    len,
                    allocation,
                })
            };

            for (start, len, allocation) in [
                (0, line, line),
                (line, half, line),
                (0, half, half),
                (half, line, 2 * line),
                (0, line + half, line + half),
            ] {
                let read = StreamingBox::<_, ToDevice>::map(dma, window(start, len, allocation)?);
                ensure!(read.is_ok());
            }

            for (start, len, allocation) in [(0, line, line), (line, half, line)] {
                let buf = StreamingBox::<_, FromDevice>::map(dma, window(start, len, allocation)?);
                ensure!(buf.is_ok());
                let buf =
                    StreamingBox::<_, Bidirectional>::map(dma, window(start, len, allocation)?);
                ensure!(buf.is_ok());
            }

            if line == 1 {
                return Ok(());
            }

            // A length of whole lines doesn't tell the kernel that the first is shared.
            for (start, len, allocation, bounces) in [
                (0, half, half, may_bounce(dma)),
                (half, line, 2 * line, false),
                (0, line + half, line + half, may_bounce(dma)),
            ] {
                map_shared::<_, FromDevice>(dma, window(start, len, allocation)?, bounces)?;
                map_shared::<_, Bidirectional>(dma, window(start, len, allocation)?, bounces)?;
            }

            Ok(())
        })
    }

    /// The same, as it happens with `kmalloc()`.
    #[test]
    fn shared_cache_lines() -> Result {
        // SAFETY: No requirements.
        let line = unsafe { bindings::dma_get_cache_alignment() };

        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;
            let small = KBox::new([0_u8; 5], GFP_KERNEL)?;
            let read = Streaming::<_, ToDevice>::map(dma, small)?;
            let small = take_back(read).unmap();

            if line == 1 {
                return Ok(());
            }
            map_shared::<_, FromDevice>(dma, small, may_bounce(dma))
        })?;

        // A device that the kernel maps for itself takes such buffers, if any does.
        with_platform_device(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;

            let bounces = cfg!(CONFIG_DMA_BOUNCE_UNALIGNED_KMALLOC) && !dma.is_coherent();

            ensure!(may_bounce(dma) == bounces);
            Ok(())
        })
    }

    /// Values may be forgotten: that leaks, and nothing else.
    #[test]
    fn dropping_in_flight_is_counted() -> Result {
        on_each_bus(|pdev| {
            let dma = crate::dma::fixture::open(pdev.as_ref())?;
            let before = quarantined();

            // Nobody asked for the address, so the device can't have been told.
            drop(Streaming::<_, ToDevice>::map(dma, pattern(64)?)?);
            ensure!(quarantined() == before);

            let buf = Streaming::<_, ToDevice>::map(dma, pattern(64)?)?;

            buf.address();
            ensure!(buf.take_back().map(drop).is_err_and(|buf| buf.len() == 64));
            ensure!(quarantined() == before + 1);

            // SAFETY: It was quarantined, and there is no device.
            unsafe { prove(dma) };
            Ok(())
        })
    }
}

/// What a mapping costs, and where its bytes are, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_streaming_sim)]
mod on_sim {
    use super::*;
    use crate::dma::sim::{
        self,
        Model,
        Script,
        Sim, //
    };

    const LEN: usize = 1024;

    fn on_each_model(mut body: impl FnMut(Mapper<'_>, &Sim) -> Result) -> Result {
        sim::run_on_each(Script::new(Model::Coherent), |pdev, sim| {
            body(crate::dma::fixture::open(pdev.as_ref())?, sim)
        })
    }

    /// What was called since the last time, and for how many bytes.
    #[derive(Debug, Default, PartialEq)]
    struct Calls {
        maps: usize,
        unmaps: usize,
        syncs_for_cpu: usize,
        syncs_for_device: usize,
        to_device: usize,
        to_cpu: usize,
    }

    /// Compares what was called since the last time with what should have been.
    struct Meter<'s> {
        sim: &'s Sim,
        before: sim::Counters,
    }

    impl<'s> Meter<'s> {
        fn new(sim: &'s Sim) -> Self {
            Self {
                sim,
                before: sim.counters(),
            }
        }

        fn expect(&mut self, calls: Calls) -> Result {
            let (before, now) = (self.before, self.sim.counters());

            self.before = now;

            let called = Calls {
                maps: now.maps - before.maps,
                unmaps: now.unmaps - before.unmaps,
                syncs_for_cpu: now.syncs_for_cpu - before.syncs_for_cpu,
                syncs_for_device: now.syncs_for_device - before.syncs_for_device,
                to_device: now.to_device - before.to_device,
                to_cpu: now.to_cpu - before.to_cpu,
            };

            if called != calls {
                pr_err!("called {called:?}, expected {calls:?}\n");
                return Err(EINVAL);
            }

            Ok(())
        }
    }

    fn complete<'a, D: Direction>(
        buf: Streaming<'a, KVec<u8>, D>,
        range: core::ops::Range<usize>,
    ) -> StreamingBox<'a, KVec<u8>, D> {
        // SAFETY: The device does nothing by itself.
        unsafe { buf.complete(range) }
    }

    /// The CPU fills it again and again.
    #[test]
    fn to_device() -> Result {
        on_each_model(|dma, sim| {
            let mut meter = Meter::new(sim);
            let map = Calls {
                maps: 1,
                ..Calls::default()
            };
            let sync = |len| Calls {
                syncs_for_device: 1,
                to_device: len,
                ..Calls::default()
            };

            let buf = StreamingBox::<_, ToDevice>::map(dma, pattern(LEN)?)?;
            meter.expect(map)?;
            let buf = buf.submit();
            meter.expect(sync(LEN))?;

            // Only the part that the device read can have been written since.
            let mut buf = complete(buf, 100..300);
            ensure!(buf.bytes() == &pattern(LEN)?[100..300]);
            ensure!(buf.bytes_mut() == &pattern(LEN)?[100..300]);
            meter.expect(Calls::default())?;
            buf.bytes_mut().fill(0xee);
            let buf = buf.submit();
            meter.expect(sync(200))?;

            let mut seen = [0; LEN];
            // SAFETY: The buffer is the device's.
            ensure!(unsafe { sim.device_read(buf.address().bits(), &mut seen) });
            ensure!(seen[..100] == pattern(LEN)?[..100] && seen[300..] == pattern(LEN)?[300..]);
            ensure!(seen[100..300] == [0xee; 200]);

            let buf = complete(buf, 0..LEN);
            ensure!(buf.unmap()[..] == seen);
            meter.expect(Calls {
                unmaps: 1,
                ..Calls::default()
            })
        })
    }

    /// The device fills it again and again.
    #[test]
    fn from_device() -> Result {
        on_each_model(|dma, sim| {
            let mut meter = Meter::new(sim);
            let to_cpu = |calls, len| Calls {
                syncs_for_cpu: calls,
                to_cpu: len,
                ..Calls::default()
            };

            let buf = StreamingBox::<_, FromDevice>::map(dma, pattern(LEN)?)?;
            meter.expect(Calls {
                maps: 1,
                ..Calls::default()
            })?;

            // What caches hold must not be written back over what the device writes.
            let buf = buf.submit();
            meter.expect(Calls {
                syncs_for_device: 1,
                to_device: LEN,
                ..Calls::default()
            })?;

            let buf = complete(buf, 0..300);
            meter.expect(to_cpu(1, 300))?;
            let buf = buf.submit();
            meter.expect(Calls::default())?;

            // The rest, on both sides, when it is unmapped.
            let buf = complete(buf, 100..300);
            meter.expect(to_cpu(1, 200))?;
            ensure!(is_pattern(&buf.unmap()));
            meter.expect(Calls {
                unmaps: 1,
                ..to_cpu(2, LEN - 200)
            })
        })
    }

    /// Both write: all of it goes each way.
    #[test]
    fn bidirectional() -> Result {
        on_each_model(|dma, sim| {
            let mut meter = Meter::new(sim);
            let buf = Streaming::<_, Bidirectional>::map(dma, pattern(LEN)?)?;

            meter.expect(Calls {
                maps: 1,
                to_device: LEN,
                ..Calls::default()
            })?;

            let mut buf = complete(buf, 100..300);
            meter.expect(Calls {
                syncs_for_cpu: 1,
                to_cpu: LEN,
                ..Calls::default()
            })?;

            buf.bytes_mut()[0] = 0xff;
            let buf = buf.submit();
            meter.expect(Calls {
                syncs_for_device: 1,
                to_device: LEN,
                ..Calls::default()
            })?;

            let mut buf = complete(buf, 0..1);
            ensure!(buf.bytes()[0] == 0xff);
            buf.bytes_mut()[0] = 0;
            meter.expect(Calls {
                syncs_for_cpu: 1,
                to_cpu: LEN,
                ..Calls::default()
            })?;
            ensure!(is_pattern(&buf.unmap()));
            meter.expect(Calls {
                unmaps: 1,
                ..Calls::default()
            })
        })
    }

    /// Who throws a buffer away doesn't want its bytes.
    #[test]
    fn drop_syncs_nothing() -> Result {
        on_each_model(|dma, sim| {
            let buf = Streaming::<_, FromDevice>::map(dma, pattern(LEN)?)?;
            let buf = complete(buf, 0..10);
            let mut meter = Meter::new(sim);

            drop(buf);
            meter.expect(Calls {
                unmaps: 1,
                ..Calls::default()
            })?;
            ensure!(sim.counters().live == 0);
            Ok(())
        })
    }

    /// Room for mappings ends somewhere; then the buffer comes back, and what is mapped stays good.
    #[test]
    #[slow]
    fn no_room_left() -> Result {
        on_each_model(|dma, _| {
            let mut held = KVec::new();

            loop {
                let pages = Pages::zeroed(6, GFP_KERNEL)?;

                match Streaming::<_, FromDevice>::map(dma, pages) {
                    Ok(mapped) => held.push(mapped, GFP_KERNEL)?,
                    Err(refused) => {
                        ensure!(refused.error == ENOMEM);
                        ensure!(Buffer::len(&refused.value) == PAGE_SIZE << 6);
                        break;
                    }
                }
            }

            ensure!(held.len() == 8);
            while let Some(mapped) = held.pop() {
                drop(take_back(mapped));
            }
            Ok(())
        })
    }

    /// Where no mapping can be had, the buffer is as it was.
    #[test]
    fn failed_map() -> Result {
        on_each_model(|dma, sim| {
            sim.fail_map(1);

            match StreamingBox::<_, Bidirectional>::map(dma, pattern(LEN)?) {
                Err(refused) => {
                    ensure!(refused.error == ENOMEM);
                    ensure!(is_pattern(&refused.value));
                }
                Ok(_) => return Err(EINVAL),
            }

            ensure!(sim.counters().live == 0 && sim.counters().unmaps == 0);
            Ok(())
        })
    }
}
