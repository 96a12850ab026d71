// SPDX-License-Identifier: GPL-2.0

//! Tests of the one-transfer protocol, with an engine that does as it is told.

use super::{
    ensure,
    fixture::{
        self,
        on_each_bus,
        prove, //
    }, //
};
use crate::{
    device::Device,
    dma::{
        quarantined,
        transfer::{
            Engine,
            Progress,
            Request,
            TransferSlot, //
        },
        Direction,
        FromDevice,
        Mapper,
        Streaming,
        StreamingBox,
        ToDevice,
        Untrusted, //
    },
    prelude::*,
    sync::{
        Arc,
        WaitQueue, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// What the engine says when it is asked.
#[derive(Clone, Copy)]
enum Answer {
    /// Done after so many questions.
    After(u32),
    /// Never done.
    Never,
    /// Done, having moved so many bytes.
    Moved(usize),
    /// Done, but stopped meanwhile.
    Stopped,
    /// There is no telling.
    Gone,
    /// It doesn't even start.
    Refuses,
}

/// Touches no memory.
struct Puppet<'a> {
    dma: Mapper<'a>,
    answer: Answer,
    asked: u32,
    len: usize,
    /// Woken right after each question, as by an interrupt at the worst time.
    irq: Option<Arc<WaitQueue>>,
}

impl<'a> Puppet<'a> {
    fn new(dma: Mapper<'a>, answer: Answer) -> Self {
        Self {
            dma,
            answer,
            asked: 0,
            len: 0,
            irq: None,
        }
    }
}

// SAFETY: It never accesses the memory, so whatever it says is true enough.
unsafe impl Engine for Puppet<'_> {
    type Target = Answer;

    fn device(&self) -> &Device {
        self.dma.device()
    }

    fn start(&mut self, request: Request<'_, Answer>) -> Result {
        self.answer = request.target;
        self.asked = 0;
        self.len = request.memory.len();

        match self.answer {
            Answer::Refuses => Err(EIO),
            _ => Ok(()),
        }
    }

    fn poll(&mut self) -> Result<Progress> {
        self.asked += 1;

        if let Some(irq) = &self.irq {
            irq.wake_all();
        }

        match self.answer {
            Answer::After(n) if self.asked > n => Ok(Progress::Done(Untrusted::new(self.len))),
            Answer::After(_) | Answer::Never => Ok(Progress::Busy),
            Answer::Moved(n) => Ok(Progress::Done(Untrusted::new(n))),
            Answer::Stopped => {
                // SAFETY: It accesses no memory.
                unsafe { prove(self.dma) };
                Ok(Progress::Done(Untrusted::new(self.len)))
            }
            Answer::Gone | Answer::Refuses => Err(ENODEV),
        }
    }
}

const TICK: Delta = Delta::from_millis(1);
/// For what doesn't come.
const SOON: Delta = Delta::from_millis(20);
/// For what does, however busy the host.
const LONG: Delta = Delta::from_secs(20);

type TestSlot<'a> = TransferSlot<'a, Puppet<'a>, KVec<u8>>;

fn bytes() -> Result<KVec<u8>> {
    Ok(KVec::from_elem(0x11, 256, GFP_KERNEL)?)
}

fn buffer<'a, D: Direction>(dma: Mapper<'a>) -> Result<Streaming<'a, KVec<u8>, D>> {
    Ok(Streaming::map(dma, bytes()?)?)
}

#[kunit_tests(rust_dma_transfer)]
mod cases {
    use super::*;

    #[test]
    fn transfer_and_reuse() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let mut buf = buffer::<ToDevice>(dma)?;

            for n in 0..3 {
                let done = slot
                    .start(buf, 0..256, Answer::After(n))?
                    .wait_polling(TICK, LONG)?;

                ensure!(done.bytes().len() == 256);
                buf = done.submit();
            }

            let done = slot.start(buf, 0..256, Answer::After(0))?;
            drop(done.wait_polling(TICK, LONG)?);
            Ok(())
        })
    }

    /// An interrupt only makes it look; one that never comes costs time, not the transfer.
    #[test]
    fn interrupts_are_hints() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let irq = Arc::pin_init(crate::new_wait_queue!("dma::tests"), GFP_KERNEL)?;
            let mut puppet = Puppet::new(dma, Answer::Never);

            // Three too early, each just when nobody waits yet; the fourth look finds it done.
            puppet.irq = Some(irq.clone());

            let mut slot = TestSlot::new(dma, puppet)?;
            let start = Instant::<Monotonic>::now();
            let buf = slot
                .start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(3))?
                .wait(&irq, Delta::from_secs(10))?;
            ensure!(slot.engine().asked == 4);
            ensure!(start.elapsed() < Delta::from_secs(10));
            drop((buf, slot));

            // None at all.
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let buf = slot
                .start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(1))?
                .wait(&irq, SOON)?;
            drop(buf);
            Ok(())
        })
    }

    /// Any time-out will do: without time it looks once, and neither waits nor overflows.
    #[test]
    fn hardly_any_time() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let irq = Arc::pin_init(crate::new_wait_queue!("dma::tests"), GFP_KERNEL)?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let start = Instant::<Monotonic>::now();

            for timeout in [i64::MIN, -1, 0].map(Delta::from_nanos) {
                let mut looks = 0;
                let found = irq.wait_until(timeout, || {
                    looks += 1;
                    None::<()>
                });
                ensure!(found.is_none() && looks == 1);

                let outcome = slot
                    .start(buffer::<ToDevice>(dma)?, 0..256, Answer::Never)?
                    .wait(&irq, timeout);
                ensure!(matches!(outcome, Err(e) if e == ETIMEDOUT));
                ensure!(slot.settle(TICK, timeout) == Err(ETIMEDOUT));
                ensure!(slot.engine().asked == 2);

                // SAFETY: The puppet accesses no memory.
                unsafe { prove(dma) };
                drop(slot.take::<ToDevice>()?.ok_or(EINVAL)?);
                fixture::open(pdev.as_ref())?;
            }

            ensure!(start.elapsed() < LONG);
            Ok(())
        })
    }

    /// An interval is cut to the time that is left, and one of less than nothing is nothing.
    #[test]
    fn interval_is_cut() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let start = Instant::<Monotonic>::now();

            for interval in [LONG.as_nanos(), i64::MAX, i64::MIN].map(Delta::from_nanos) {
                let outcome = slot
                    .start(buffer::<ToDevice>(dma)?, 0..256, Answer::Never)?
                    .wait_polling(interval, SOON);
                ensure!(matches!(outcome, Err(e) if e == ETIMEDOUT));
                ensure!(slot.settle(interval, SOON) == Err(ETIMEDOUT));
                // At the end, too.
                ensure!(slot.engine().asked >= 4);

                // SAFETY: The puppet accesses no memory.
                unsafe { prove(dma) };
                drop(slot.take::<ToDevice>()?.ok_or(EINVAL)?);
                fixture::open(pdev.as_ref())?;
            }

            ensure!(start.elapsed() < LONG);
            Ok(())
        })
    }

    /// A buffer of which another protocol may have told the device isn't started, nor given to the
    /// CPU.
    #[test]
    fn shown_by_others() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let buf = buffer::<ToDevice>(dma)?;
            let before = quarantined();

            buf.address();

            let Err(refused) = slot.start(buf, 0..256, Answer::Never) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == EINVAL);

            let Err(buf) = refused.value.take_back() else {
                return Err(EINVAL);
            };

            drop(buf);
            ensure!(quarantined() == before + 1);

            // SAFETY: The puppet accesses no memory.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// After a time-out the buffer is in the slot, until the device is done.
    #[test]
    fn time_out_keeps_the_buffer() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let before = quarantined();
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let buf = Streaming::<_, FromDevice>::map(dma, bytes()?)?;
            let transfer = slot.start(buf, 0..256, Answer::Never)?;

            ensure!(matches!(transfer.wait_polling(TICK, SOON), Err(e) if e == ETIMEDOUT));
            ensure!(slot.take::<FromDevice>()?.is_none());

            // It may not start another meanwhile, and gives that buffer back.
            match slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(0)) {
                Err(refused) => {
                    ensure!(refused.error == EBUSY);
                    ensure!(refused.value.take_back().map_err(|_| EINVAL)?.unmap().len() == 256);
                }
                Ok(_) => return Err(EINVAL),
            }
            ensure!(slot.settle(TICK, SOON) == Err(ETIMEDOUT));

            // A device that never finishes keeps its memory.
            drop(slot);
            ensure!(quarantined() == before + 1);

            // SAFETY: It was quarantined, and the puppet accesses no memory.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// A lost handle loses neither the buffer nor the engine.
    #[test]
    fn forgotten_handle() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let before = quarantined();
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;

            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(2))?;
            ensure!(slot.take::<ToDevice>()?.is_none());
            ensure!(slot.take::<ToDevice>()?.is_none());
            // It went the other way.
            ensure!(slot.take::<FromDevice>()?.is_none());
            let taken: Option<StreamingBox<'_, _, ToDevice>> = slot.take()?;
            ensure!(taken.is_some());
            drop(taken);

            // Nobody comes for this one: the next start frees it.
            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(0))?;
            let next = slot.start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(0))?;
            drop(next.wait_polling(TICK, LONG)?);

            // Nor for this one, but the slot itself finds it done when it goes.
            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(1))?;
            slot.settle(TICK, LONG)?;
            drop(slot);

            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(0))?;
            drop(slot);
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// What the device claims to have moved is checked against what it was asked to.
    #[test]
    fn lying_length() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;

            // Less is fine: only that much is defined.
            let buf = slot
                .start(buffer::<FromDevice>(dma)?, 128..256, Answer::Moved(100))?
                .wait_polling(TICK, LONG)?;
            ensure!(buf.bytes().len() == 100);

            // More is nonsense, and the buffer can be had back.
            for lie in [129, 256, usize::MAX] {
                let buf = slot
                    .start(buffer::<FromDevice>(dma)?, 128..256, Answer::Moved(lie))?
                    .wait_polling(TICK, LONG);
                ensure!(matches!(buf, Err(e) if e == EIO));

                let buf = slot.take::<FromDevice>()?.ok_or(EINVAL)?;
                ensure!(buf.bytes().is_empty());
                ensure!(buf.unmap().len() == 256);
            }
            Ok(())
        })
    }

    #[test]
    fn refusals() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;

            for (range, target, error) in [
                (0..0, Answer::After(0), EINVAL),
                (0..257, Answer::After(0), EINVAL),
                (0..256, Answer::Refuses, EIO),
            ] {
                match slot.start(buffer::<ToDevice>(dma)?, range, target) {
                    Err(refused) => {
                        ensure!(refused.error == error);

                        let buf = refused.value.take_back().map_err(|_| EINVAL)?;
                        ensure!(buf.unmap().iter().all(|&byte| byte == 0x11));
                    }
                    Ok(_) => return Err(EINVAL),
                }
            }
            Ok(())
        })
    }

    /// A device that is stopped while it is asked: what it says then doesn't count.
    #[test]
    fn stopped_while_asked() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let buf = Streaming::<_, FromDevice>::map(dma, bytes()?)?;
            let transfer = slot.start(buf, 0..256, Answer::Stopped)?;

            ensure!(matches!(transfer.wait_polling(TICK, LONG), Err(e) if e == ESHUTDOWN));

            let back = slot.take::<FromDevice>()?.ok_or(EINVAL)?;

            ensure!(back.bytes().is_empty());
            Ok(())
        })
    }

    /// A device that is gone: everybody gets told, nobody waits, the memory stays.
    #[test]
    fn vanished() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let before = quarantined();
            let mut slot = TestSlot::new(dma, Puppet::new(dma, Answer::Never))?;
            let buf = Streaming::<_, FromDevice>::map(dma, bytes()?)?;
            let transfer = slot.start(buf, 0..256, Answer::Gone)?;

            ensure!(matches!(transfer.wait_polling(TICK, SOON), Err(e) if e == ENODEV));
            ensure!(slot.settle(TICK, SOON) == Err(ENODEV));
            ensure!(slot.take::<FromDevice>().is_err());

            match slot.start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(0)) {
                Err(refused) => ensure!(refused.error == ENODEV),
                Ok(_) => return Err(EINVAL),
            }

            drop(slot);
            ensure!(quarantined() == before + 1);

            // SAFETY: It was quarantined, and the puppet accesses no memory.
            unsafe { prove(dma) };
            Ok(())
        })
    }
}

/// With data, on a simulated copy engine.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_transfer_sim)]
mod on_sim {
    use super::*;
    use crate::{
        dma::{
            sim::{
                self,
                Clock,
                Copier,
                CopyEngine,
                Fate,
                Model,
                Script,
                Sim,
                Stop, //
            }, //
        },
        irq, //
    };

    const MEMORY: usize = 512;

    /// Many looks, no waiting: time passes by looking.
    const EAGER: Delta = Delta::ZERO;

    type SimSlot<'a> = TransferSlot<'a, Copier, KVec<u8>>;

    fn on_each_model(
        fate: Fate,
        mut body: impl FnMut(Mapper<'_>, &Arc<Sim>, &Arc<CopyEngine>) -> Result,
    ) -> Result {
        sim::run_on_each(Script::new(Model::Coherent).fate(fate), |pdev, sim| {
            let engine = CopyEngine::new(sim, MEMORY)?;

            body(fixture::open(pdev.as_ref())?, sim, &engine)
        })
    }

    fn pattern(seed: usize) -> Result<KVec<u8>> {
        let mut vec = KVec::with_capacity(MEMORY, GFP_KERNEL)?;

        for i in 0..MEMORY {
            // CAST: Cut on purpose.
            vec.push((i * 5 + seed * 31 + 1) as u8, GFP_KERNEL)?;
        }

        Ok(vec)
    }

    /// What goes to the device comes back from it, at once or late.
    #[test]
    fn round_trip() -> Result {
        for fate in [Fate::after(0), Fate::after(3), Fate::within(9)] {
            on_each_model(fate, |dma, _, engine| {
                let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;

                for seed in 0..3 {
                    let out = Streaming::<_, ToDevice>::map(dma, pattern(seed)?)?;
                    let out = slot.start(out, 0..MEMORY, 0)?.wait_polling(EAGER, LONG)?;
                    ensure!(out.unmap() == pattern(seed)?);

                    let back = Streaming::<_, FromDevice>::map(dma, pattern(99)?)?;
                    let back = slot.start(back, 0..MEMORY, 0)?.wait_polling(EAGER, LONG)?;
                    ensure!(back.bytes() == &*pattern(seed)?);
                    ensure!(back.unmap() == pattern(seed)?);
                }

                Ok(())
            })?;
        }

        Ok(())
    }

    /// A buffer that stays mapped: each side sees what the other wrote last.
    #[test]
    fn kept_mapping() -> Result {
        on_each_model(Fate::after(1), |dma, _, engine| {
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;
            let mut out = StreamingBox::<_, ToDevice>::map(dma, pattern(7)?)?;
            let mut back = StreamingBox::<_, FromDevice>::map(dma, pattern(8)?)?;

            for seed in 0..4 {
                // Not by `copy_from_slice()`: objtool doesn't know that its panic doesn't return.
                for (to, from) in out.bytes_mut().iter_mut().zip(pattern(seed)?) {
                    *to = from;
                }

                out = slot
                    .start(out.submit(), 0..MEMORY, 0)?
                    .wait_polling(EAGER, LONG)?;
                back = slot
                    .start(back.submit(), 0..MEMORY, 0)?
                    .wait_polling(EAGER, LONG)?;
                ensure!(back.bytes() == &*pattern(seed)?);
            }

            Ok(())
        })
    }

    /// DescriptorInfo of a buffer, part of the engine's memory: what is not meant stays.
    #[test]
    fn partial_transfer() -> Result {
        on_each_model(Fate::after(0), |dma, _, engine| {
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;
            let out = Streaming::<_, ToDevice>::map(dma, pattern(1)?)?;
            let out = slot.start(out, 100..200, 10)?.wait_polling(EAGER, LONG)?;
            ensure!(out.bytes() == &pattern(1)?[100..200]);
            drop(out);

            let back = Streaming::<_, FromDevice>::map(dma, pattern(2)?)?;
            let back = slot.start(back, 300..350, 20)?.wait_polling(EAGER, LONG)?;
            ensure!(back.bytes() == &pattern(1)?[110..160]);

            let back = back.unmap();
            ensure!(back[..300] == pattern(2)?[..300] && back[350..] == pattern(2)?[350..]);
            ensure!(back[300..350] == pattern(1)?[110..160]);
            Ok(())
        })
    }

    /// No call too many, none too few, and none longer than it has to be.
    #[test]
    fn cost() -> Result {
        on_each_model(Fate::after(0), |dma, sim, engine| {
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;

            let out = Streaming::<_, ToDevice>::map(dma, pattern(1)?)?;
            drop(slot.start(out, 0..MEMORY, 0)?.wait_polling(EAGER, LONG)?);

            let counters = sim.counters();
            ensure!((counters.maps, counters.unmaps) == (1, 1));
            ensure!((counters.syncs_for_cpu, counters.syncs_for_device) == (0, 0));
            ensure!((counters.to_device, counters.to_cpu) == (MEMORY, 0));

            let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
            let back = slot.start(back, 0..100, 0)?.wait_polling(EAGER, LONG)?;

            let counters = sim.counters();
            ensure!((counters.maps, counters.unmaps) == (2, 1));
            ensure!((counters.syncs_for_cpu, counters.syncs_for_device) == (1, 0));
            ensure!((counters.to_device, counters.to_cpu) == (2 * MEMORY, 100));

            // Nothing to sync on the way back: the CPU could only read.
            let back = slot
                .start(back.submit(), 0..MEMORY, 0)?
                .wait_polling(EAGER, LONG)?;
            let counters = sim.counters();
            ensure!((counters.syncs_for_cpu, counters.syncs_for_device) == (2, 0));
            ensure!(counters.to_cpu == 100 + MEMORY);

            // All of it was synced.
            drop(back.unmap());
            let counters = sim.counters();
            ensure!((counters.unmaps, counters.syncs_for_cpu, counters.live) == (2, 2, 0));

            // Nobody comes for what this one moved.
            let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
            let _ = slot.start(back, 0..MEMORY, 0)?;
            drop(slot);
            let counters = sim.counters();
            ensure!((counters.unmaps, counters.syncs_for_cpu, counters.live) == (3, 2, 0));
            Ok(())
        })
    }

    struct IrqHandler(Arc<WaitQueue>);

    impl irq::Handler for IrqHandler {
        fn handle(&self) -> irq::IrqReturn {
            self.0.wake_all();
            irq::IrqReturn::Handled
        }
    }

    /// The driver sleeps until the interrupt; a second one for the same transfer does no harm.
    #[test]
    fn interrupts() -> Result {
        on_each_model(Fate::within(5).twice(), |dma, sim, engine| {
            let line = Arc::pin_init(crate::new_wait_queue!("dma::tests"), GFP_KERNEL)?;
            let waker = Arc::new(IrqHandler(line.clone()), GFP_KERNEL)?;
            let connection = sim.connect(waker, Clock::Timer)?;
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;

            for seed in 0..3 {
                let out = Streaming::<_, ToDevice>::map(dma, pattern(seed)?)?;
                drop(slot.start(out, 0..MEMORY, 0)?.wait(&line, LONG)?);

                let back = Streaming::<_, FromDevice>::map(dma, pattern(99)?)?;
                let back = slot.start(back, 0..MEMORY, 0)?.wait(&line, LONG)?;
                ensure!(back.unmap() == pattern(seed)?);
            }

            drop(connection);
            Ok(())
        })
    }

    /// A device that claims to have moved more, or less.
    #[test]
    fn lying_length() -> Result {
        on_each_model(Fate::after(0), |dma, _, engine| {
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;

            engine.then(Fate::after(1).reports(10))?;
            let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
            let back = slot.start(back, 0..MEMORY, 0)?.wait_polling(EAGER, LONG)?;
            ensure!(back.bytes() == [0; 10]);
            drop(back);

            engine.then(Fate::after(1).reports(MEMORY + 1))?;
            let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
            let outcome = slot.start(back, 0..MEMORY, 0)?.wait_polling(EAGER, LONG);
            ensure!(matches!(outcome, Err(e) if e == EIO));

            let back = slot.take::<FromDevice>()?.ok_or(EINVAL)?;
            ensure!(back.bytes().is_empty());
            ensure!(back.unmap() == KVec::from_elem(0, MEMORY, GFP_KERNEL)?);
            Ok(())
        })
    }

    /// A transfer that never ends, and a device that goes: the memory stays, though nobody wants
    /// it.
    #[test]
    fn never_ending() -> Result {
        on_each_model(Fate::never(), |dma, sim, engine| {
            let before = quarantined();
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;
            let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
            let outcome = slot.start(back, 0..MEMORY, 0)?.wait_polling(EAGER, TICK);

            ensure!(matches!(outcome, Err(e) if e == ETIMEDOUT));
            sim.pull();
            ensure!(slot.settle(EAGER, LONG) == Err(ENODEV));
            ensure!(sim.counters().live == 1);
            drop(slot);
            ensure!(quarantined() == before + 1 && sim.counters().live == 1);

            // SAFETY: It was quarantined, and the device is gone.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// Where the engine has no room, or is at work for somebody else.
    #[test]
    fn refusals() -> Result {
        on_each_model(Fate::after(3), |dma, sim, engine| {
            let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;
            let out = Streaming::<_, ToDevice>::map(dma, pattern(1)?)?;

            match slot.start(out, 0..MEMORY, 1) {
                Err(refused) => {
                    ensure!(refused.error == EINVAL);

                    let buf = refused.value.take_back().map_err(|_| EINVAL)?;
                    ensure!(buf.bytes() == &*pattern(1)?);
                    ensure!(buf.unmap() == pattern(1)?);
                }
                Ok(_) => return Err(EINVAL),
            }

            let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
            match slot.start(back, 0..MEMORY, 1) {
                Err(refused) => {
                    let buf = refused.value.take_back().map_err(|_| EINVAL)?;
                    ensure!(buf.bytes() == &*pattern(1)?);
                }
                Ok(_) => return Err(EINVAL),
            }

            let mut other = SimSlot::new(dma, Copier(engine.clone()))?;
            let out = Streaming::<_, ToDevice>::map(dma, pattern(1)?)?;
            let transfer = other.start(out, 0..MEMORY, 0)?;
            let back = Streaming::<_, FromDevice>::map(dma, pattern(2)?)?;
            ensure!(matches!(slot.start(back, 0..MEMORY, 0), Err(e) if e.error == EBUSY));

            drop(transfer.wait_polling(EAGER, LONG)?);
            ensure!(sim.counters().live == 0);
            Ok(())
        })
    }

    /// A device that stops when it is told to, with a transfer in flight: it never happens, and the
    /// buffer comes back as it was.
    #[test]
    fn stopped() -> Result {
        for model in Model::ALL {
            let script = Script::new(model).fate(Fate::after(50)).stop(Stop::Works);

            sim::run(script, |pdev, sim| {
                let dma = fixture::open(pdev.as_ref())?;
                let engine = CopyEngine::new(sim, MEMORY)?;
                let mut slot = SimSlot::new(dma, Copier(engine.clone()))?;
                let back = Streaming::<_, FromDevice>::map(dma, pattern(1)?)?;
                let _ = slot.start(back, 0..MEMORY, 0)?;

                engine.stop();
                ensure!(engine.is_stopped()?);
                sim.advance(100);

                let back = slot.take::<FromDevice>()?.ok_or(EINVAL)?;
                ensure!(back.bytes().is_empty());
                ensure!(back.unmap() == pattern(1)?);
                Ok(())
            })?;
        }

        Ok(())
    }
}
