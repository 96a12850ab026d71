// SPDX-License-Identifier: GPL-2.0

//! Tests of the simulated bus itself: it must see what it is there to see.

use super::*;
use crate::{
    bindings,
    device::Bound,
    dma::{
        fixture::{
            self,
            ensure, //
        },
        Bidirectional,
        Coherent,
        CpuWrites,
        DataDirection,
        Direction,
        FromDevice,
        Mapper,
        Pages,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    page::PAGE_SIZE,
    scatterlist::SGTable,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            dma_mb,
            mb,
            smp_mb,
            Full,
            Read,
            Write, //
        },
        WaitQueue, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

const TWO_VIEWS: [Model; 2] = [Model::NonCoherent, Model::Bounce];

fn filled(byte: u8, len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len.next_power_of_two().max(256), GFP_KERNEL)?;

    vec.resize(len, byte, GFP_KERNEL)?;
    Ok(vec)
}

/// A buffer that the device owns, and its address.
fn given<'a, D: Direction>(
    dma: Mapper<'a>,
    len: usize,
) -> Result<(Streaming<'a, KVec<u8>, D>, DmaAddress)> {
    let buf = Streaming::map(dma, filled(0x11, len)?)?;
    let addr = buf.address().bits();

    Ok((buf, addr))
}

fn take_back<D: Direction>(buf: Streaming<'_, KVec<u8>, D>) -> StreamingBox<'_, KVec<u8>, D> {
    let len = buf.address().len();

    // SAFETY: The device does nothing by itself.
    unsafe { buf.complete(0..len) }
}

/// The device accesses memory; whether it could is for the test to know.
fn read(sim: &Sim, addr: DmaAddress, len: usize) -> Result<KVec<u8>> {
    let mut bytes = filled(0, len)?;

    // SAFETY: The tests are single-threaded.
    unsafe { sim.device_read(addr, &mut bytes) };
    Ok(bytes)
}

fn write(sim: &Sim, addr: DmaAddress, byte: u8, len: usize) -> Result<bool> {
    // SAFETY: The tests are single-threaded, and don't look at memory that the device owns.
    Ok(unsafe { sim.device_write(addr, &filled(byte, len)?) })
}

fn faults(sim: &Sim, expected: &[Fault]) -> Result {
    let faults = sim.take_faults()?;

    if &*faults != expected {
        pr_err!("faults {:?}, expected {:?}\n", &*faults, expected);
        return Err(EINVAL);
    }

    Ok(())
}

#[kunit_tests(rust_dma_sim)]
mod cases {
    use super::*;

    /// The device sees what the CPU wrote before it gave the buffer away, and nothing of later.
    #[test]
    fn writes_need_a_sync() -> Result {
        fn check<D: CpuWrites>(dma: Mapper<'_>, sim: &Sim) -> Result {
            let mut buf = StreamingBox::<_, D>::map(dma, filled(1, 64)?)?;

            // Mapped, but still the CPU's: it has no address yet that one could ask for.
            let addr = sim.bus.lock().leak(0).ok_or(ENOENT)?.addr;
            read(sim, addr, 64)?;
            faults(sim, &[Fault::NotGiven])?;

            buf.bytes_mut().fill(2);
            let buf = buf.submit();
            ensure!(read(sim, addr, 64)? == filled(2, 64)?);
            faults(sim, &[])?;

            let mut buf = take_back(buf);
            buf.bytes_mut().fill(3);
            read(sim, addr, 64)?;
            ensure!(sim.take_faults()?.len() == 1);

            let buf = buf.submit();
            ensure!(read(sim, addr, 64)? == filled(3, 64)?);
            drop(take_back(buf));
            faults(sim, &[])
        }

        for model in TWO_VIEWS {
            run(Script::new(model), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;

                check::<ToDevice>(dma, sim)?;
                check::<Bidirectional>(dma, sim)
            })?;
        }

        Ok(())
    }

    /// The CPU sees what the device wrote when it has the buffer back; before, it sees poison.
    #[test]
    fn reads_need_a_sync() -> Result {
        fn check<D: Direction>(dma: Mapper<'_>, sim: &Sim) -> Result {
            let buf = filled(0x11, 64)?;
            let cpu = buf.as_ptr();
            let buf = Streaming::<_, D>::map(dma, buf)?;
            let addr = buf.address().bits();

            write(sim, addr + 16, 0x22, 16)?;

            // SAFETY: The buffer is alive; looking at it is the mistake that is to be seen.
            let seen = unsafe { [cpu.read_volatile(), cpu.add(16).read_volatile()] };
            ensure!(seen == [CPU_POISON; 2]);

            // SAFETY: The device is done.
            let buf = unsafe { buf.complete(16..32) };
            ensure!(buf.bytes()[buf.bytes().len() - 1] == 0x22 || buf.bytes().len() == 64);

            let buf = buf.unmap();
            ensure!(buf[..16] == filled(0x11, 16)? && buf[32..] == filled(0x11, 32)?);
            ensure!(buf[16..32] == filled(0x22, 16)?);
            faults(sim, &[])
        }

        for model in TWO_VIEWS {
            run(Script::new(model), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;

                check::<FromDevice>(dma, sim)?;
                check::<Bidirectional>(dma, sim)
            })?;
        }

        Ok(())
    }

    /// On a coherent bus there is one view, and no poison.
    #[test]
    fn coherent_bus() -> Result {
        run(Script::new(Model::Coherent), |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let (buf, addr) = given::<Bidirectional>(dma, 64)?;

            ensure!(read(sim, addr, 64)? == filled(0x11, 64)?);
            write(sim, addr, 0x22, 64)?;
            ensure!(take_back(buf).unmap() == filled(0x22, 64)?);
            Ok(())
        })
    }

    /// The device keeps to what is mapped, and to the direction.
    #[test]
    fn device_faults() -> Result {
        for model in Model::ALL {
            run(Script::new(model), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;
                let (out, to_read) = given::<ToDevice>(dma, 100)?;
                let (back, to_write) = given::<FromDevice>(dma, 100)?;

                read(sim, 0x1234, 1)?;
                faults(sim, &[Fault::Unmapped])?;
                read(sim, to_read + 99, 2)?;
                faults(sim, &[Fault::PastEnd])?;
                ensure!(!write(sim, to_read, 1, 1)?);
                faults(sim, &[Fault::Direction])?;
                read(sim, to_write, 1)?;
                faults(sim, &[Fault::Direction])?;

                drop((take_back(out), take_back(back)));
                read(sim, to_read + 50, 1)?;
                faults(sim, &[Fault::AfterUnmap])?;
                ensure!(!write(sim, to_write, 1, 100)?);
                faults(sim, &[Fault::AfterUnmap])?;

                // What the driver does not own any more must not be touched.
                ensure!(take_back(given::<ToDevice>(dma, 100)?.0).unmap() == filled(0x11, 100)?);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// The CPU may not write what the device owns.
    #[test]
    fn cpu_faults() -> Result {
        for model in TWO_VIEWS {
            run(Script::new(model), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;
                let buf = filled(0x11, 64)?;
                let cpu = buf.as_ptr().cast_mut();
                let buf = Streaming::<_, FromDevice>::map(dma, buf)?;

                // SAFETY: The buffer is alive; writing to it is the mistake that is to be seen.
                unsafe { cpu.write_volatile(1) };
                drop(take_back(buf));
                faults(sim, &[Fault::CpuWrote])?;

                let buf = filled(0x11, 64)?;
                let cpu = buf.as_ptr().cast_mut();
                let buf = Streaming::<_, ToDevice>::map(dma, buf)?;
                let addr = buf.address().bits();

                // SAFETY: As above.
                unsafe { cpu.write_volatile(1) };
                read(sim, addr, 64)?;
                drop(take_back(buf));
                faults(sim, &[Fault::CpuWrote])
            })?;
        }

        Ok(())
    }

    /// Unmaps and syncs that don't fit. Past the DMA API's own debugging, which sees them too.
    #[test]
    fn driver_faults() -> Result {
        let to = bindings::dma_data_direction::DMA_TO_DEVICE;
        let from = bindings::dma_data_direction::DMA_FROM_DEVICE;

        for model in Model::ALL {
            run(Script::new(model), |pdev, sim| {
                let dev: &crate::device::Device<Bound> = pdev.as_ref();
                let dev = dev.as_raw();
                let dma = fixture::open(pdev.as_ref())?;
                let (buf, addr) = given::<ToDevice>(dma, 100)?;
                let unmap = sim.ops.unmap_phys.ok_or(ENOENT)?;
                let free = sim.ops.free.ok_or(ENOENT)?;
                let sync_cpu = sim.ops.sync_single_for_cpu.ok_or(ENOENT)?;
                let sync_device = sim.ops.sync_single_for_device.ok_or(ENOENT)?;

                // SAFETY: The bus sees that these are wrong, and does nothing.
                unsafe {
                    unmap(dev, addr, 99, to, 0);
                    unmap(dev, addr, 100, from, 0);
                    unmap(dev, addr + 1, 99, to, 0);
                    free(dev, 100, core::ptr::null_mut(), addr, 0);
                }
                faults(sim, &[Fault::BadUnmap; 4])?;

                // SAFETY: As above.
                unsafe {
                    sync_cpu(dev, addr, 100, from);
                    sync_device(dev, addr + 1, 100, to);
                    sync_device(dev, 0x1234, 1, to);
                }
                faults(sim, &[Fault::BadSync; 3])?;

                drop(take_back(buf));
                // SAFETY: As above.
                unsafe {
                    unmap(dev, addr, 100, to, 0);
                    sync_cpu(dev, addr, 100, to);
                }
                faults(sim, &[Fault::BadUnmap, Fault::BadSync])
            })?;
        }

        Ok(())
    }

    /// A fault that the test doesn't take fails it, and so does what is left mapped.
    #[test]
    fn judgement() -> Result {
        let faulty = run(Script::new(Model::NonCoherent), |_, sim| {
            read(sim, 0x1234, 1).map(drop)
        });
        ensure!(faulty == Err(EINVAL));

        let mut ptr = core::ptr::null();
        let leaky = run(Script::new(Model::NonCoherent), |pdev, _| {
            let buf = filled(0, 64)?;

            ptr = buf.as_ptr();
            core::mem::forget(Streaming::<_, ToDevice>::map(
                fixture::open(pdev.as_ref())?,
                buf,
            )?);
            Ok(())
        });
        ensure!(leaky == Err(EINVAL));

        // SAFETY: It was leaked, and the bus it was mapped on is gone.
        unsafe { fixture::free_forgotten(ptr) };

        let busy = run(
            Script::new(Model::NonCoherent).fate(Fate::never()),
            |pdev, sim| {
                let engine = CopyEngine::new(sim, 64)?;
                let (buf, addr) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 64)?;

                engine.command(addr, 64, 0, false)?;
                drop(take_back(buf));
                Ok(())
            },
        );
        ensure!(busy == Err(EINVAL));

        let unused = run(Script::new(Model::NonCoherent), |_, sim| {
            CopyEngine::new(sim, 64)?.then(Fate::never())
        });
        ensure!(unused == Err(EINVAL));

        let mut kept = None;
        let connected = run(Script::new(Model::NonCoherent), |_, sim| {
            kept = Some(sim.connect(Handler::new()?, Clock::Timer)?);
            Ok(())
        });
        ensure!(connected == Err(EINVAL) && kept.is_some());
        Ok(())
    }

    /// An allocation that outlives its device is a leak, and nothing worse.
    #[test]
    fn outliving_allocation() -> Result {
        let mut kept = None;
        let mut bus = None;
        let leaky = run(Script::new(Model::NonCoherent), |pdev, sim| {
            kept = Some(Coherent::<u64>::zeroed(pdev.as_ref(), GFP_KERNEL)?);
            bus = Some(sim.clone());
            Ok(())
        });

        ensure!(leaky == Err(EINVAL) && kept.is_some());
        drop(kept);

        // It went back where it came from.
        ensure!(bus.is_some_and(|sim| sim.counters().live == 0 && sim.counters().frees == 1));
        Ok(())
    }

    /// A test that knows of a leak says so.
    #[test]
    fn known_leaks() -> Result {
        let mut ptr = core::ptr::null();

        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let buf = filled(0, 64)?;

            ptr = buf.as_ptr();
            core::mem::forget(Streaming::<_, ToDevice>::map(
                fixture::open(pdev.as_ref())?,
                buf,
            )?);
            ensure!(sim.take_leaks() == 1 && sim.take_leaks() == 0);
            Ok(())
        })?;

        // SAFETY: It was leaked, and the bus it was mapped on is gone.
        unsafe { fixture::free_forgotten(ptr) };
        Ok(())
    }

    /// A report says who mapped.
    #[test]
    fn reports_name_the_site() -> Result {
        run(Script::new(Model::Bounce), |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let (buf, addr) = given::<ToDevice>(dma, 64)?;
            let leak = sim.bus.lock().leak(0).ok_or(ENOENT)?;
            let report = CString::try_from_fmt(fmt!("{leak}"))?;

            ensure!(contains(report.to_bytes(), b"reports_name_the_site"));
            drop(take_back(buf));

            read(sim, addr, 1)?;
            let (_, faults) = sim.bus.lock().take_faults();
            let report = CString::try_from_fmt(fmt!("{}", faults[0]))?;

            ensure!(contains(report.to_bytes(), b"AfterUnmap"));
            ensure!(contains(report.to_bytes(), b"reports_name_the_site"));
            Ok(())
        })
    }

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    /// Scripts that ask for the impossible, and a test in a test, are refused.
    #[test]
    fn refusals() -> Result {
        let mut ran = false;
        let none = run(Script::new(Model::Bounce).address_space(0), |_, _| {
            ran = true;
            Ok(())
        });
        ensure!(none == Err(EINVAL));

        let narrow = Script::new(Model::NonCoherent)
            .constraints(Constraints::new(DmaMask::new::<28>()))
            .smallest_mask(DmaMask::new::<32>());
        let refused = run(narrow, |_, _| {
            ran = true;
            Ok(())
        });
        ensure!(refused.is_err() && !ran);

        run(Script::new(Model::NonCoherent), |_, sim| {
            let nested = run(Script::new(Model::NonCoherent), |_, _| Ok(()));

            ensure!(nested == Err(EBUSY));
            ensure!(matches!(CopyEngine::new(sim, 0), Err(e) if e == EINVAL));

            let handler: Arc<dyn irq::Handler + Send + Sync> = Handler::new()?;
            let first = sim.connect(handler.clone(), Clock::Looks)?;
            ensure!(matches!(sim.connect(handler, Clock::Looks), Err(e) if e == EBUSY));
            drop(first);
            Ok(())
        })
    }

    /// The k-th mapping or allocation fails, and no other.
    #[test]
    fn failures_on_demand() -> Result {
        for model in Model::ALL {
            run(Script::new(model), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;

                sim.fail_map(2);
                for n in 1..=3 {
                    let mapped = Streaming::<_, ToDevice>::map(dma, filled(0x11, 64)?);

                    match mapped {
                        Ok(buf) => {
                            ensure!(n != 2);
                            drop(take_back(buf));
                        }
                        Err(e) => {
                            ensure!(n == 2 && e.error == ENOMEM);
                            ensure!(e.value == filled(0x11, 64)?);
                        }
                    }
                }

                sim.fail_alloc(1);
                ensure!(Coherent::<u64>::zeroed(pdev.as_ref(), GFP_KERNEL).is_err());
                ensure!(Coherent::<u64>::zeroed(pdev.as_ref(), GFP_KERNEL).is_ok());

                let counters = sim.counters();
                ensure!((counters.maps, counters.unmaps) == (3, 2));
                ensure!((counters.allocs, counters.frees) == (2, 1));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// A DMA pool fails when it has to grow and can't.
    #[test]
    fn pools() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let dev: &crate::device::Device<Bound> = pdev.as_ref();
            let mut addr = 0;

            // SAFETY: The device is bound, and the pool goes before it does.
            let pool = unsafe {
                bindings::dma_pool_create_node(
                    c"dma_sim".as_char_ptr(),
                    dev.as_raw(),
                    64,
                    64,
                    0,
                    bindings::NUMA_NO_NODE,
                )
            };
            ensure!(!pool.is_null());

            sim.fail_alloc(1);
            // SAFETY: `pool` is a valid pool.
            let none = unsafe { bindings::dma_pool_alloc(pool, GFP_KERNEL.as_raw(), &mut addr) };
            // SAFETY: As above.
            let some = unsafe { bindings::dma_pool_alloc(pool, GFP_KERNEL.as_raw(), &mut addr) };
            let seen = read(sim, addr, 64);

            // SAFETY: As above; what was allocated from it goes back first.
            unsafe {
                if !some.is_null() {
                    bindings::dma_pool_free(pool, some, addr);
                }

                bindings::dma_pool_destroy(pool);
            }

            ensure!(none.is_null() && !some.is_null() && seen.is_ok());
            ensure!((sim.counters().allocs, sim.counters().frees) == (2, 1));
            Ok(())
        })
    }

    /// The address space ends; what is unmapped makes room again.
    #[test]
    fn exhausted_addresses() -> Result {
        for model in Model::ALL {
            run(Script::new(model).address_space(1024), |pdev, _| {
                let dma = fixture::open(pdev.as_ref())?;
                let (first, _) = given::<ToDevice>(dma, 600)?;

                ensure!(matches!(given::<ToDevice>(dma, 600), Err(e) if e == ENOMEM));
                drop(take_back(first));
                drop(take_back(given::<ToDevice>(dma, 600)?.0));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Addresses fit the mask, use its top bit, and are not used again at once.
    #[test]
    #[slow]
    fn addresses() -> Result {
        fn check(constraints: Constraints, model: Model) -> Result {
            run(Script::new(model).constraints(constraints), |pdev, _| {
                let dma = fixture::open(pdev.as_ref())?;
                let mask = constraints.streaming_mask().value();
                let mut seen = KVec::new();

                for _ in 0..20 {
                    let (buf, addr) = given::<ToDevice>(dma, 5000)?;

                    ensure!(addr > mask / 2 && addr + 4999 <= mask);
                    ensure!(!seen.contains(&addr));
                    seen.push(addr, GFP_KERNEL)?;
                    drop(take_back(buf));
                }

                Ok(())
            })
        }

        for model in Model::ALL {
            for constraints in [
                Constraints::new(DmaMask::new::<24>()),
                Constraints::new(DmaMask::new::<32>()),
                Constraints::new(DmaMask::new::<64>()),
            ] {
                check(constraints, model)?;
            }
        }

        Ok(())
    }

    /// In a narrow window addresses come again, but never two at a time.
    #[test]
    fn addresses_wrap() -> Result {
        let constraints = Constraints::new(DmaMask::new::<24>());

        run(
            Script::new(Model::Coherent).constraints(constraints),
            |pdev, _| {
                let dma = fixture::open(pdev.as_ref())?;
                let (kept, at) = given::<ToDevice>(dma, 3 * PAGE_SIZE)?;

                // More than 8 MiB in all.
                for _ in 0..400 {
                    let (buf, addr) = given::<ToDevice>(dma, 8 * PAGE_SIZE)?;
                    // CAST: Widening.
                    let (len, page) = (PAGE_SIZE as u64, PAGE_SIZE as u64);

                    ensure!(addr + 8 * len + page <= at || at + 3 * len + page <= addr);
                    drop(take_back(buf));
                }

                drop(take_back(kept));
                Ok(())
            },
        )
    }

    /// A scatter-gather list: pages get addresses that follow each other, where an IOMMU is there.
    #[test]
    fn lists() -> Result {
        for model in Model::ALL {
            run(Script::new(model), |pdev, sim| {
                let pages = VVec::from_elem(0x33_u8, 3 * PAGE_SIZE, GFP_KERNEL)?;
                let table = KBox::pin_init(
                    SGTable::new(pdev.as_ref(), pages, DataDirection::ToDevice, GFP_KERNEL),
                    GFP_KERNEL,
                )?;
                let mut total = 0;

                for entry in table.iter() {
                    // CAST: Not longer than the list.
                    let len = entry.dma_len() as usize;

                    ensure!(read(sim, entry.dma_address(), len)? == filled(0x33, len)?);
                    total += len;
                }

                ensure!(total == 3 * PAGE_SIZE);
                ensure!(model == Model::Bounce || table.iter().count() == 1);

                let first = table.iter().next().map(|entry| entry.dma_address());
                drop(table);
                read(sim, first.ok_or(ENOENT)?, 1)?;
                faults(sim, &[Fault::AfterUnmap])?;

                let counters = sim.counters();
                ensure!((counters.maps, counters.unmaps, counters.live) == (1, 1, 0));
                ensure!(counters.to_device == 3 * PAGE_SIZE);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Coherent memory is one memory, also on a bus that isn't coherent.
    #[test]
    fn coherent_memory() -> Result {
        for model in Model::ALL {
            run(Script::new(model), |pdev, sim| {
                let memory = Coherent::<u64>::zeroed(pdev.as_ref(), GFP_KERNEL)?;

                ensure!(read(sim, memory.dma_address(), 8)? == filled(0, 8)?);
                write(sim, memory.dma_address(), 0x44, 8)?;
                // SAFETY: The device is done.
                ensure!(unsafe { memory.as_ptr().read_volatile() } == 0x4444_4444_4444_4444);

                // As aligned as the DMA API promises.
                let large = Coherent::<u8>::zeroed_slice(pdev.as_ref(), 20_000, GFP_KERNEL)?;
                ensure!(large.dma_address() % (32 << 10) == 0);
                ensure!(
                    Coherent::<u8>::zeroed_slice(pdev.as_ref(), usize::MAX, GFP_KERNEL).is_err()
                );
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Counts its calls, and whether they came as from an interrupt.
    struct Handler {
        calls: Atomic<u64>,
        in_interrupt: Atomic<u64>,
    }

    impl Handler {
        fn new() -> Result<Arc<Self>> {
            Ok(Arc::new(
                Self {
                    calls: Atomic::new(0),
                    in_interrupt: Atomic::new(0),
                },
                GFP_KERNEL,
            )?)
        }
    }

    impl irq::Handler for Handler {
        fn handle(&self) -> irq::IrqReturn {
            self.calls.fetch_add(1, Relaxed);

            // SAFETY: No requirements.
            if unsafe { bindings::in_hardirq() } {
                self.in_interrupt.fetch_add(1, Relaxed);
            }

            irq::IrqReturn::Handled
        }
    }

    /// Interrupts come as interrupts do, and wait where they are off.
    #[test]
    fn interrupts() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::after(1).twice());

        run(script, |pdev, sim| {
            let engine = CopyEngine::new(sim, 64)?;
            let handler = Handler::new()?;
            let line = sim.connect(handler.clone(), Clock::Looks)?;
            let (buf, addr) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 64)?;

            engine.command(addr, 64, 0, false)?;
            ensure!(handler.calls.load(Relaxed) == 0);

            let off = crate::interrupt::local_interrupt_disable();
            ensure!(!engine.is_busy()?);
            ensure!(handler.calls.load(Relaxed) == 0);
            drop(off);

            // The second report, too.
            sim.advance(1);
            ensure!(handler.calls.load(Relaxed) == 2);
            ensure!(handler.in_interrupt.load(Relaxed) == 2);

            drop(line);
            drop(take_back(buf));
            Ok(())
        })
    }

    /// Looks at the device that interrupted, and remembers whether it was called meanwhile.
    struct Nosy {
        engine: Arc<CopyEngine>,
        depth: Atomic<i32>,
        nested: Atomic<i32>,
        calls: Atomic<i32>,
    }

    impl irq::Handler for Nosy {
        fn handle(&self) -> irq::IrqReturn {
            if self.depth.fetch_add(1, Relaxed) > 0 {
                self.nested.store(1, Relaxed);
            }

            let _ = self.engine.is_busy();
            self.calls.fetch_add(1, Relaxed);
            self.depth.fetch_add(-1, Relaxed);
            irq::IrqReturn::Handled
        }
    }

    /// A handler isn't called again while it runs, though it makes time pass.
    #[test]
    fn handler_runs_once_at_a_time() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::after(1).twice());

        run(script, |pdev, sim| {
            let engine = CopyEngine::new(sim, 64)?;
            let nosy = Arc::new(
                Nosy {
                    engine: engine.clone(),
                    depth: Atomic::new(0),
                    nested: Atomic::new(0),
                    calls: Atomic::new(0),
                },
                GFP_KERNEL,
            )?;
            let line = sim.connect(nosy.clone(), Clock::Looks)?;
            let (buf, addr) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 64)?;

            engine.command(addr, 64, 0, false)?;
            sim.advance(1);
            sim.advance(1);
            ensure!(nosy.nested.load(Relaxed) == 0 && nosy.calls.load(Relaxed) == 2);

            drop(line);
            drop(take_back(buf));
            Ok(())
        })
    }

    /// With a timer, time passes while the driver sleeps.
    #[test]
    fn timer() -> Result {
        struct IrqHandler {
            waiters: Arc<WaitQueue>,
            calls: Atomic<u32>,
        }

        impl irq::Handler for IrqHandler {
            fn handle(&self) -> irq::IrqReturn {
                self.calls.fetch_add(1, Relaxed);
                self.waiters.wake_all();
                irq::IrqReturn::Handled
            }
        }

        let script = Script::new(Model::NonCoherent).fate(Fate::after(10));

        run(script, |pdev, sim| {
            let engine = CopyEngine::new(sim, 64)?;
            let dma = fixture::open(pdev.as_ref())?;
            let waiters = Arc::pin_init(crate::new_wait_queue!("dma::tests"), GFP_KERNEL)?;
            let handler = IrqHandler {
                waiters: waiters.clone(),
                calls: Atomic::new(0),
            };
            let handler = Arc::new(handler, GFP_KERNEL)?;
            let line = sim.connect(handler.clone(), Clock::Timer)?;
            let (buf, addr) = given::<ToDevice>(dma, 64)?;
            let start = Instant::<Monotonic>::now();

            engine.command(addr, 64, 0, false)?;

            // No look at the device, with which time would pass, too.
            let woken = waiters.wait_until(Delta::from_secs(20), || {
                (handler.calls.load(Relaxed) > 0).then_some(())
            });

            ensure!(woken.is_some() && start.elapsed() < Delta::from_secs(20));
            ensure!(!engine.is_busy()?);
            drop(line);
            drop(take_back(buf));
            Ok(())
        })
    }

    /// The ways in which a device stops, or doesn't.
    #[test]
    fn stops() -> Result {
        for (stop, stopped, faulty) in [
            (Stop::Works, Ok(true), None),
            (Stop::Hangs, Ok(false), Some(Fault::AfterUnmap)),
            (Stop::Gone, Err(ENODEV), None),
            (Stop::Lies, Ok(true), Some(Fault::AfterStop)),
        ] {
            let script = Script::new(Model::NonCoherent)
                .fate(Fate::after(10))
                .stop(stop);

            run(script, |pdev, sim| {
                let engine = CopyEngine::new(sim, 64)?;
                let (buf, addr) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 64)?;

                engine.command(addr, 64, 0, false)?;
                engine.stop();
                ensure!(engine.is_stopped() == stopped);
                drop(take_back(buf));

                sim.advance(20);
                faults(sim, faulty.as_slice())?;

                // What has stopped can be used again.
                let (buf, addr) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 64)?;
                if stop == Stop::Works {
                    ensure!(engine.command(addr, 64, 0, false) == Err(ESHUTDOWN));
                    engine.restart()?;
                    engine.command(addr, 64, 0, false)?;
                    sim.advance(20);
                }
                drop(take_back(buf));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Without bus mastering nothing reaches memory.
    #[test]
    fn bus_mastering() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let (buf, addr) = given::<FromDevice>(dma, 64)?;

            sim.set_bus_master(false);
            ensure!(!write(sim, addr, 0x55, 64)?);
            sim.set_bus_master(true);
            ensure!(sim.counters().blocked == 1);
            ensure!(take_back(buf).unmap() == filled(0x11, 64)?);
            Ok(())
        })
    }

    /// A device, and memory for its descriptors.
    struct Descriptors {
        nic: Arc<RingConsumer>,
        memory: Coherent<[u8]>,
    }

    const ENTRIES: usize = 32;
    const DONE: u32 = RingConsumer::DONE;
    const END: u32 = RingConsumer::END;
    const OWN: u32 = RingConsumer::OWN;
    const WRITE: u32 = RingConsumer::WRITE;

    impl Descriptors {
        fn new(dev: &crate::device::Device<Bound>, sim: &Arc<Sim>) -> Result<Self> {
            Ok(Self {
                nic: RingConsumer::new(sim)?,
                memory: Coherent::zeroed_slice(dev, ENTRIES * 16, GFP_KERNEL)?,
            })
        }

        /// A device that is told of descriptors by the doorbell.
        fn with_tail(dev: &crate::device::Device<Bound>, sim: &Arc<Sim>) -> Result<Self> {
            let this = Self::new(dev, sim)?;

            this.nic.set_ring(this.memory.dma_address(), ENTRIES)?;
            Ok(this)
        }

        /// A device that is told of descriptors by their flags.
        fn owned(dev: &crate::device::Device<Bound>, sim: &Arc<Sim>) -> Result<Self> {
            let this = Self::new(dev, sim)?;

            this.nic
                .set_ring_owned(this.memory.dma_address(), ENTRIES)?;
            Ok(this)
        }

        fn word(&self, index: usize, word: usize) -> *mut u32 {
            // SAFETY: The index is inside the ring.
            unsafe { self.memory.as_mut_ptr().cast::<u32>().add(index * 4 + word) }
        }

        fn put(&self, index: usize, addr: DmaAddress, len: usize, flags: u32) {
            // CAST: The halves of the address, and what is small.
            let words = [addr as u32, (addr >> 32) as u32, len as u32, flags];

            for (n, word) in words.into_iter().enumerate() {
                // SAFETY: The word is inside the ring, and the device does nothing now.
                unsafe { self.word(index, n).write_volatile(word.to_le()) };
            }
        }

        /// The length and the flags that the device wrote back.
        fn status(&self, index: usize) -> (u32, u32) {
            // SAFETY: The words are inside the ring, and the device does nothing now.
            unsafe {
                (
                    u32::from_le(self.word(index, 2).read_volatile()),
                    u32::from_le(self.word(index, 3).read_volatile()),
                )
            }
        }

        /// Stops the device, as it should be possible.
        fn stop(&self) -> Result {
            self.nic.stop();
            ensure!(self.nic.is_stopped()?);
            Ok(())
        }
    }

    /// A small driver of a ring: all descriptors of `count` frames at once, each with a buffer.
    struct Ring<'a> {
        descriptors: Descriptors,
        buffers: KVec<Option<Streaming<'a, KVec<u8>, FromDevice>>>,
        frames: KVec<Option<Streaming<'a, KVec<u8>, ToDevice>>>,
    }

    impl<'a> Ring<'a> {
        fn new(
            dma: Mapper<'a>,
            dev: &crate::device::Device<Bound>,
            sim: &Arc<Sim>,
        ) -> Result<Self> {
            let descriptors = Descriptors::with_tail(dev, sim)?;
            let (mut buffers, mut frames) = (KVec::new(), KVec::new());

            for n in 0..ENTRIES / 2 {
                // CAST: Small.
                frames.push(
                    Some(Streaming::map(dma, filled(n as u8, 100 + n)?)?),
                    GFP_KERNEL,
                )?;
                buffers.push(Some(Streaming::map(dma, filled(0, 256)?)?), GFP_KERNEL)?;
            }

            Ok(Self {
                descriptors,
                buffers,
                frames,
            })
        }

        /// Descriptors that receive come first, then those that send.
        fn post(&mut self, count: usize) -> Result {
            for n in 0..count {
                if let Some(buf) = &self.buffers[n] {
                    let (addr, len) = (buf.address().bits(), buf.address().len());

                    self.descriptors.put(n, addr, len, WRITE);
                }
            }

            for n in 0..count {
                if let Some(buf) = &self.frames[n] {
                    let (addr, len) = (buf.address().bits(), buf.address().len());

                    self.descriptors.put(count + n, addr, len, END);
                }
            }

            self.descriptors.nic.doorbell(2 * count)
        }

        /// Stops the device and takes all buffers back.
        fn stop(&mut self) -> Result {
            self.descriptors.stop()?;

            for buf in self.frames.iter_mut().filter_map(Option::take) {
                drop(take_back(buf));
            }

            for buf in self.buffers.iter_mut().filter_map(Option::take) {
                drop(take_back(buf));
            }

            Ok(())
        }
    }

    /// Runs frames through a ring with loopback; returns the order in which they came back.
    fn loop_frames(script: Script) -> Result<(KVec<u8>, u64)> {
        let mut order = KVec::new();
        let mut digest = 0;

        run(script, |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut ring = Ring::new(dma, pdev.as_ref(), sim)?;

            ring.descriptors.nic.loopback(true);
            ring.post(8)?;

            for _ in 0..1000 {
                if ring.descriptors.nic.left()?.at_most(0).is_ok() {
                    break;
                }
            }

            for n in 0..16 {
                ensure!(ring.descriptors.status(n).1 == DONE | END);
            }

            for n in 0..8 {
                let len = ring.descriptors.status(n).0 as usize;
                let buf = ring.buffers[n].take().ok_or(ENOENT)?;
                // SAFETY: The device is done with it.
                let buf = unsafe { buf.complete(0..len) };
                let frame = buf.bytes()[0];

                // CAST: Small.
                ensure!(len == 100 + usize::from(frame));
                ensure!(buf.bytes().iter().all(|&byte| byte == frame));
                order.push(frame, GFP_KERNEL)?;
            }

            ring.stop()?;
            digest = sim.digest();
            Ok(())
        })?;

        Ok((order, digest))
    }

    /// All frames come back, in order; or out of order, but always in the same one.
    #[test]
    #[slow]
    fn rings() -> Result {
        for model in Model::ALL {
            let (order, _) = loop_frames(Script::new(model))?;
            ensure!(*order == [0, 1, 2, 3, 4, 5, 6, 7]);

            let mixed = Script::new(model).fate(Fate::within(30));
            let first = loop_frames(mixed.seed(1))?;
            let again = loop_frames(mixed.seed(1))?;
            let other = loop_frames(mixed.seed(2))?;

            ensure!(*first.0 != *order);
            ensure!(*first.0 == *again.0 && first.1 == again.1);
            ensure!(first.1 != other.1);
        }

        Ok(())
    }

    /// What is reported twice is reported after it was carried out, and with the same words.
    #[test]
    fn repeated_reports() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::after(0).twice());

        run(script, |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut ring = Ring::new(dma, pdev.as_ref(), sim)?;

            // A descriptor to receive with, and nothing to receive.
            ring.post(1)?;
            sim.advance(3);
            ensure!(ring.descriptors.status(0).1 == WRITE);

            ring.descriptors.nic.receive(&filled(9, 40)?)?;
            sim.advance(1);
            ensure!(ring.descriptors.status(0) == (40, DONE | END));

            ring.descriptors.put(0, 0, 0, 0);
            sim.advance(1);
            ensure!(ring.descriptors.status(0) == (40, DONE | END));
            ring.stop()
        })
    }

    /// A device that lies about lengths and descriptors.
    #[test]
    fn lying_rings() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut ring = Ring::new(dma, pdev.as_ref(), sim)?;

            ring.descriptors.nic.receive(&filled(9, 40)?)?;
            ring.descriptors
                .nic
                .then(Fate::after(0).reports(1_000_000))?;
            ring.descriptors.nic.then(Fate::after(0).reports_at(5))?;
            ring.post(1)?;

            ensure!(ring.descriptors.status(0) == (1_000_000, DONE | END));
            ensure!(ring.descriptors.status(1).1 == END);
            ensure!(ring.descriptors.status(5) == (100, DONE | END));
            ensure!(ring.descriptors.nic.next_sent() == Some(filled(0, 100)?));
            ensure!(matches!(ring.descriptors.nic.doorbell(ENTRIES), Err(e) if e == EINVAL));
            ring.stop()
        })
    }

    /// Frames go in parts, both ways, past descriptors without memory.
    #[test]
    fn frames_in_parts() -> Result {
        for model in Model::ALL {
            run(Script::new(model), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;
                let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
                let (out, from) = given::<ToDevice>(dma, 100)?;
                let (back, to) = given::<FromDevice>(dma, 96)?;

                ring.put(0, 0x1234, 8, RingConsumer::CONTEXT);
                ring.put(1, from, 30, 0);
                ring.put(2, 0, 0, RingConsumer::CONTEXT | END);
                ring.put(3, from, 50, 0);
                ring.nic.doorbell(4)?;
                ensure!(ring.status(0) == (0, DONE) && ring.status(2) == (0, DONE));
                ensure!(ring.status(1) == (30, DONE) && ring.status(3) == (50, DONE));
                ensure!(ring.nic.next_sent().is_none());

                ring.put(4, from, 20, END);
                ring.put(5, from, 1, END);
                ring.nic.doorbell(6)?;
                ensure!(ring.status(4) == (20, DONE | END));
                ensure!(ring.nic.next_sent() == Some(filled(0x11, 100)?));
                ensure!(ring.nic.next_sent() == Some(filled(0x11, 1)?));

                // The first frame arrives in time, the second while a descriptor waits.
                ring.nic.receive(&filled(0x22, 60)?)?;
                for (n, at) in [0, 24, 48, 72].into_iter().enumerate() {
                    ring.put(6 + n, to + at, 24, WRITE);
                }
                ring.nic.doorbell(10)?;
                ensure!(ring.status(6) == (24, DONE) && ring.status(7) == (24, DONE));
                ensure!(ring.status(8) == (12, DONE | END) && ring.status(9) == (24, WRITE));
                ring.nic.receive(&filled(0x33, 24)?)?;
                sim.advance(1);
                ensure!(ring.status(9) == (24, DONE | END));

                let bytes = take_back(back).unmap();
                ensure!(bytes[..60] == filled(0x22, 60)? && bytes[72..] == filled(0x33, 24)?);
                drop(take_back(out));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// The device takes what it owns, when it looks, and takes it once.
    #[test]
    fn owned_rings() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let ring = Descriptors::owned(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 100)?;
            let sent = |len| Ok::<_, Error>(ring.nic.next_sent() == Some(filled(0x11, len)?));

            ring.put(0, from, 10, END | OWN);
            ring.put(1, from, 20, END | OWN);
            ring.put(2, from, 30, END);
            ensure!(ring.status(0).1 == END | OWN);
            sim.advance(1);
            ensure!(ring.status(0) == (10, DONE | END) && ring.status(1) == (20, DONE | END));
            ensure!(ring.status(2) == (30, END));
            ensure!(sent(10)? && sent(20)? && ring.nic.next_sent().is_none());

            ring.put(2, from, 30, END | OWN);
            ring.nic.poke()?;
            ensure!(sent(30)? && ring.nic.next_sent().is_none());

            // The whole ring, from the fourth one on, and once more the first of it.
            for n in 0..ENTRIES {
                ring.put((3 + n) % ENTRIES, from, 50, END | OWN);
                ring.nic.then(Fate::after(5))?;
            }
            sim.advance(1);
            ensure!(ring.nic.left()?.at_most(ENTRIES)? == ENTRIES);
            sim.advance(5);
            ensure!(ring.nic.left()?.at_most(ENTRIES)? == 0);
            for _ in 0..ENTRIES {
                ensure!(sent(50)?);
            }
            ensure!(ring.nic.next_sent().is_none());
            ring.put(3, from, 60, END | OWN);
            sim.advance(1);
            ensure!(sent(60)? && ring.status(3) == (60, DONE | END));

            // What it was not told of it doesn't take, and what has stopped takes nothing.
            ensure!(matches!(ring.nic.doorbell(4), Err(e) if e == EINVAL));
            ring.stop()?;
            ring.put(4, from, 70, END | OWN);
            sim.advance(1);
            ensure!(matches!(ring.nic.poke(), Err(e) if e == ESHUTDOWN));
            ensure!(ring.status(4) == (70, END | OWN));

            ring.nic.restart()?;
            sim.advance(1);
            ensure!(matches!(ring.nic.poke(), Err(e) if e == EINVAL));
            ring.nic.set_ring(ring.memory.dma_address(), ENTRIES)?;
            ensure!(matches!(ring.nic.poke(), Err(e) if e == EINVAL));
            ensure!(ring.nic.next_sent().is_none());
            drop(take_back(out));
            Ok(())
        })
    }

    /// A restarted device knows nothing of its ring, or of frames that were half done.
    #[test]
    fn restarted_rings() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(dma, 100)?;
            let (back, to) = given::<FromDevice>(dma, 64)?;

            ring.nic.receive(&filled(0x22, 100)?)?;
            ring.nic.receive(&filled(0x33, 40)?)?;
            ring.put(0, to, 64, WRITE);
            ring.put(1, from, 10, 0);
            ring.nic.doorbell(2)?;
            ensure!(ring.status(0) == (64, DONE) && ring.status(1) == (10, DONE));

            ring.stop()?;
            ring.nic.restart()?;
            ensure!(matches!(ring.nic.doorbell(1), Err(e) if e == EINVAL));

            ring.nic.set_ring(ring.memory.dma_address(), ENTRIES)?;
            ring.put(0, from, 20, END);
            ring.put(1, to, 64, WRITE);
            ring.nic.doorbell(2)?;
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 20)?));
            ensure!(ring.status(1) == (40, DONE | END));
            ensure!(take_back(back).unmap()[..40] == filled(0x33, 40)?);
            drop(take_back(out));
            Ok(())
        })
    }

    /// What the device wrote the CPU sees after a read barrier, but for the flags.
    #[test]
    fn loads_need_a_barrier() -> Result {
        for model in Model::ALL {
            run(Script::new(model).weak_order(true), |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;
                let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
                let buf = filled(0x11, 64)?;
                let cpu = buf.as_ptr();
                let buf = Streaming::<_, FromDevice>::map(dma, buf)?;
                let to = buf.address().bits();
                let receive = |index| {
                    ring.nic.receive(&filled(0x22, 40)?)?;
                    ring.put(index, to, 64, WRITE);
                    ring.nic.doorbell(index + 1)
                };
                // SAFETY: The buffer is alive; looking at it is the mistake that is to be seen.
                let seen = || unsafe { cpu.read_volatile() };

                receive(0)?;
                ensure!(ring.status(0) == (0xdddd_dddd, DONE | END));
                ensure!(model != Model::Coherent || seen() == LATE_POISON);
                dma_mb(Write);
                ensure!(ring.status(0).0 == 0xdddd_dddd);
                dma_mb(Read);
                ensure!(ring.status(0) == (40, DONE | END));
                ensure!(model != Model::Coherent || seen() == 0x22);

                // What the CPU stored since stays.
                receive(1)?;
                ring.put(1, to, 32, 0);
                dma_mb(Read);
                ensure!(ring.status(1) == (32, 0));

                // A barrier of before is none.
                dma_mb(Read);
                receive(2)?;
                ensure!(ring.status(2).0 == 0xdddd_dddd);

                // What comes back to the CPU is complete.
                let bytes = take_back(buf).unmap();
                ensure!(bytes[..40] == filled(0x22, 40)?);
                ensure!(ring.status(2).0 == 0xdddd_dddd);
                dma_mb(Read);
                ensure!(ring.status(2) == (40, DONE | END));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// What the CPU wrote the device sees after a write barrier, or a register, but for the flags.
    #[test]
    fn stores_need_a_barrier() -> Result {
        let script = Script::new(Model::NonCoherent).weak_order(true);

        run(script.fate(Fate::after(2)), |pdev, sim| {
            let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 100)?;

            ring.put(0, from, 10, END);
            ring.nic.doorbell(1)?;
            ring.put(0, from, 20, END);
            dma_mb(Read);
            sim.advance(2);
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 10)?));

            ring.put(1, from, 10, END);
            ring.nic.doorbell(2)?;
            ring.put(1, from, 20, END);
            dma_mb(Write);
            sim.advance(2);
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 20)?));
            drop(take_back(out));
            Ok(())
        })?;

        run(script, |pdev, sim| {
            let ring = Descriptors::owned(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 100)?;

            // No bytes, as the ring was when the device was told of it.
            ring.put(0, from, 10, END | OWN);
            sim.advance(1);
            ensure!(ring.nic.next_sent() == Some(KVec::new()));

            ring.put(1, from, 20, END);
            dma_mb(Write);
            ring.put(1, from, 20, END | OWN);
            sim.advance(1);
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 20)?));

            ring.put(2, from, 20, END | OWN);
            ring.nic.poke()?;
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 20)?));

            // What it wrote itself it sees: a length, here.
            ring.put(3, from, 10, END);
            ring.put(4, from, 10, END);
            dma_mb(Write);
            ring.nic.then(Fate::after(0).reports(20).reports_at(4))?;
            ring.put(3, from, 10, END | OWN);
            sim.advance(1);
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 10)?));
            // SAFETY: The word is inside the ring, and the device does nothing now.
            unsafe { ring.word(4, 3).write_volatile((END | OWN).to_le()) };
            sim.advance(1);
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 20)?));
            drop(take_back(out));
            Ok(())
        })
    }

    /// Each barrier orders what its kind says; those between CPUs order nothing for a device.
    #[test]
    fn kinds_of_barriers() -> Result {
        let script = Script::new(Model::NonCoherent).weak_order(true);
        let kinds: [(fn(), bool, bool); 9] = [
            (|| mb(Full), true, true),
            (|| mb(Read), true, false),
            (|| mb(Write), false, true),
            (|| dma_mb(Full), true, true),
            (|| dma_mb(Read), true, false),
            (|| dma_mb(Write), false, true),
            (|| smp_mb(Full), false, false),
            (|| smp_mb(Read), false, false),
            (|| smp_mb(Write), false, false),
        ];

        for (barrier, orders_loads, orders_stores) in kinds {
            run(script.fate(Fate::after(2)), |pdev, sim| {
                let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
                let (out, from) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 100)?;

                ring.put(0, from, 10, END);
                ring.nic.doorbell(1)?;
                ring.put(0, from, 20, END);
                barrier();
                sim.advance(2);

                let len = if orders_stores { 20 } else { 10 };

                ensure!(ring.nic.next_sent() == Some(filled(0x11, len)?));
                drop(take_back(out));
                Ok(())
            })?;

            run(script, |pdev, sim| {
                let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
                let (back, to) = given::<FromDevice>(fixture::open(pdev.as_ref())?, 64)?;

                ring.nic.receive(&filled(0x22, 40)?)?;
                ring.put(0, to, 64, WRITE);
                ring.nic.doorbell(1)?;
                ensure!(ring.status(0) == (0xdddd_dddd, DONE | END));
                barrier();
                ensure!(ring.status(0).0 == if orders_loads { 40 } else { 0xdddd_dddd });
                drop(take_back(back));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// What is due is carried out when it is due, whatever came before it and is forgotten.
    #[test]
    fn in_time() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 100)?;
            let is_done = |n| ring.status(n).1 & DONE != 0;

            for n in 0..7 {
                ring.put(n, from, 10, END);
            }

            for ticks in [3, 2, 1] {
                ring.nic.then(Fate::after(ticks))?;
            }
            ring.nic.doorbell(3)?;
            for n in [2, 1, 0] {
                ensure!(!is_done(n));
                sim.advance(1);
                ensure!(is_done(n));
            }

            // The first says that the second is done, which then isn't carried out.
            ring.nic.then(Fate::after(0).reports_at(4))?;
            for ticks in [2, 3, 9] {
                ring.nic.then(Fate::after(ticks))?;
            }
            ring.nic.doorbell(7)?;
            ensure!(!is_done(3) && is_done(4));
            sim.advance(3);
            ensure!(is_done(5) && !is_done(6));
            sim.advance(6);
            ensure!(is_done(6));
            drop(take_back(out));
            Ok(())
        })
    }

    /// More lies: about ends, about nothing, late, and outside of the ring.
    #[test]
    fn worse_rings() -> Result {
        run(Script::new(Model::NonCoherent), |pdev, sim| {
            let ring = Descriptors::with_tail(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(fixture::open(pdev.as_ref())?, 100)?;
            let at_once = Fate::after(0);

            for fate in [
                at_once.ends(false),
                at_once.ends(true),
                at_once.unreported(),
                at_once.reports_at(ENTRIES),
                at_once.reports_at(1 << 40),
                at_once.twice_after(3),
            ] {
                ring.nic.then(fate)?;
            }

            for n in 0..6 {
                ring.put(n, from, 10, if n == 1 { 0 } else { END });
            }

            ring.nic.doorbell(6)?;
            ensure!(ring.status(0) == (10, DONE) && ring.status(1) == (10, DONE | END));
            ensure!(ring.status(2) == (10, END));
            ensure!(ring.status(3) == (10, END) && ring.status(4) == (10, END));
            ensure!(ring.status(5) == (10, DONE | END));
            faults(sim, &[Fault::Unmapped; 2])?;

            // All were sent; what is lied about is only what was said of it.
            for len in [10, 20, 10, 10, 10] {
                ensure!(ring.nic.next_sent() == Some(filled(0x11, len)?));
            }

            ring.put(5, 0, 0, 0);
            sim.advance(2);
            ensure!(ring.status(5).1 == 0);
            sim.advance(1);
            ensure!(ring.status(5) == (10, DONE | END));

            // What is reported is not carried out later.
            ring.nic.then(at_once.reports_at(7))?;
            ring.nic.then(Fate::after(5))?;
            ring.put(6, from, 10, END);
            ring.put(7, from, 20, END);
            ring.nic.doorbell(8)?;
            ensure!(ring.status(7) == (10, DONE | END));
            ensure!(ring.nic.left()?.at_most(0).is_ok());
            drop(take_back(out));
            sim.advance(5);
            ensure!(ring.nic.next_sent() == Some(filled(0x11, 10)?));
            ensure!(ring.nic.next_sent().is_none());
            Ok(())
        })
    }

    /// Drives a ring whose device lies, as badly as a driver can. Returns how many descriptors were
    /// done, how often it had to start again, and what stands for all that happened.
    fn bear(script: Script, steps: usize, owned: bool) -> Result<(usize, usize, u64)> {
        let (mut done, mut resets, mut digest) = (0, 0, 0);

        run(script, |pdev, sim| {
            let dma = fixture::open(pdev.as_ref())?;
            let ring = Descriptors::new(pdev.as_ref(), sim)?;
            let (out, from) = given::<ToDevice>(dma, 64)?;
            let (back, to) = given::<FromDevice>(dma, 64)?;
            let set = || match owned {
                true => ring.nic.set_ring_owned(ring.memory.dma_address(), ENTRIES),
                false => ring.nic.set_ring(ring.memory.dma_address(), ENTRIES),
            };
            let (mut posted, mut reaped, mut idle) = (0, 0, 0);

            set()?;
            ring.nic.loopback(true);

            for step in 0..steps {
                if posted - reaped < ENTRIES - 1 {
                    let (addr, len, flags) = match step % 2 {
                        0 => (to, 64, WRITE),
                        _ => (from, 20, END),
                    };
                    let index = posted % ENTRIES;

                    posted += 1;

                    if owned {
                        ring.put(index, addr, len, flags);
                        dma_mb(Write);
                        ring.put(index, addr, len, flags | OWN);
                    } else {
                        ring.put(index, addr, len, flags);
                        ring.nic.doorbell(posted % ENTRIES)?;
                    }
                }

                sim.advance(1);
                idle += 1;

                while reaped < posted && ring.status(reaped % ENTRIES).1 & DONE != 0 {
                    dma_mb(Read);
                    reaped += 1;
                    done += 1;
                    idle = 0;
                }

                if idle > 60 {
                    ring.stop()?;
                    ring.nic.restart()?;
                    set()?;
                    (posted, reaped, idle) = (0, 0, 0);
                    resets += 1;
                }
            }

            ring.stop()?;
            drop((take_back(out), take_back(back)));
            digest = sim.digest();
            Ok(())
        })?;

        Ok((done, resets, digest))
    }

    /// A device that lies at random keeps to what it was given, and lies the same again.
    #[test]
    #[slow]
    fn random_lies() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::within(3).lies(2));

        for owned in [false, true] {
            for weak in [false, true] {
                let script = script.weak_order(weak);
                let first = bear(script.seed(1), 2000, owned)?;
                let again = bear(script.seed(1), 2000, owned)?;
                let other = bear(script.seed(2), 2000, owned)?;

                ensure!(first.0 > 500 && first.1 > 0);
                ensure!(first == again && first.2 != other.2);
            }
        }

        Ok(())
    }

    /// In a long run, and one that takes a second or two, nothing is lost.
    #[test]
    #[slow]
    fn long_runs() -> Result {
        let script = Script::new(Model::NonCoherent);
        let (done, resets, _) = bear(script, 100_000, false)?;

        ensure!(done > 99_000 && resets == 0);
        Ok(())
    }

    /// Pages are buffers, too; larger ones than a bounce buffer holds don't fit one.
    #[test]
    fn largest_mapping() -> Result {
        run(Script::new(Model::Bounce), |pdev, _| {
            let dma = fixture::open(pdev.as_ref())?;

            ensure!(dma.max_mapping_size() == 256 << 10);
            drop(StreamingBox::<_, ToDevice>::map(
                dma,
                Pages::zeroed(6, GFP_KERNEL)?,
            )?);
            ensure!(StreamingBox::<_, ToDevice>::map(dma, Pages::zeroed(7, GFP_KERNEL)?).is_err());
            Ok(())
        })
    }
}
