// SPDX-License-Identifier: GPL-2.0

//! Tests of lists of pieces in rings, and of lists that are dropped in flight.

use super::{
    ensure,
    fixture::{
        self,
        on_each_bus,
        prove, //
    },
    scatter::{
        byte,
        fill,
        Parts, //
    }, //
};
use crate::{
    device::{
        self,
        Core, //
    },
    dma::{
        leaked,
        quarantined,
        ring::{
            Descriptor,
            DescriptorInfo,
            Gathered,
            Publish,
            Ring,
            RingMemory,
            RingRegisters,
            Tail, //
        },
        sim::{
            self,
            Fate,
            Model,
            OwnedSender,
            RingConsumer,
            RingStopper,
            Script,
            SendDescriptor,
            Sender,
            Sim, //
        },
        FromDevice,
        Mapper,
        Scatter,
        ScatterBox,
        ScatterMap,
        Session,
        StopOutcome,
        ToDevice, //
    },
    platform,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

const LEN: u32 = 16;

type Posted<'a> = Gathered<'a, KVec<u8>, Parts>;

/// A ring, and the device that works it off.
struct Rig<'r, 'a, Q: RingRegisters<Direction = ToDevice>> {
    dma: Mapper<'a>,
    sim: &'r Arc<Sim>,
    session: &'r Session<'a, ()>,
    nic: Arc<RingConsumer>,
    tx: Ring<'a, Q, Posted<'a>>,
}

fn on_bus<'a, Q>(
    pdev: &platform::Device<Core<'a>>,
    sim: &Arc<Sim>,
    queue: fn(Arc<RingConsumer>) -> Q,
    body: &mut dyn FnMut(&mut Rig<'_, 'a, Q>) -> Result,
) -> Result
where
    Q: RingRegisters<Direction = ToDevice, Descriptor: Descriptor<Options = ()>>,
{
    let dma = Mapper::get(pdev.as_ref().bound())?;
    let nic = RingConsumer::new(sim)?;
    let session: Session<'a, ()> = Session::new(
        pdev.as_ref(),
        RingStopper([nic.clone()]),
        Ok::<_, Error>(()),
    )?;
    let mut rig = Rig {
        dma,
        sim,
        session: &session,
        tx: Ring::new(dma, queue(nic.clone()), LEN)?,
        nic,
    };

    session.start()?;
    rig.tx.start(drop)?;

    let outcome = body(&mut rig);
    let stopped = session.stop();

    outcome?;
    ensure!(stopped == StopOutcome::Stopped);
    Ok(())
}

/// Runs a test on each model, with tail registers and with own bits.
macro_rules! on_each {
    ($fate:expr, |$rig:ident| $body:block) => {
        for model in Model::ALL {
            let script = Script::new(model).fate($fate).weak_order(true);

            sim::run(script, |pdev, sim| {
                on_bus(pdev, sim, Sender, &mut |$rig| $body)
            })?;
            sim::run(script, |pdev, sim| {
                on_bus(pdev, sim, OwnedSender, &mut |$rig| $body)
            })?;
        }
    };
}

/// A list of `count` segments of 64 bytes.
fn list<'a>(dma: Mapper<'a>, count: usize) -> Result<ScatterMap<'a, Parts, ToDevice>> {
    let mut memory = Parts::small(0, count)?;

    fill(&mut memory);
    Ok(ScatterMap::map(dma, memory, GFP_KERNEL)?)
}

/// Whether a frame has a head of 20 bytes, and a list as its body.
fn is_frame(frame: Option<KVec<u8>>, count: usize) -> bool {
    frame.is_some_and(|frame| {
        frame.len() == 20 + 64 * count
            && frame[..20].iter().all(|&b| b == 0xaa)
            && frame[20..].iter().enumerate().all(|(at, &b)| b == byte(at))
    })
}

fn head() -> Result<KVec<u8>> {
    let mut head = KVec::with_capacity(256, GFP_KERNEL)?;

    head.resize(20, 0xaa, GFP_KERNEL)?;
    Ok(head)
}

/// As [`SendDescriptor`], of a device whose length field is narrow, and that takes no segment
/// of 13 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Narrow(SendDescriptor);

// SAFETY: As for what is in it.
unsafe impl Descriptor for Narrow {
    type Options = ();
    const STATUS: usize = SendDescriptor::STATUS;
    const MAX_LEN: usize = 24;

    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        if info.len() == 13 {
            return Err(EMSGSIZE);
        }

        Ok(Self(SendDescriptor::new(info)?))
    }

    fn is_done(status: u32) -> bool {
        SendDescriptor::is_done(status)
    }
}

struct NarrowSender(Sender);

// SAFETY: As for what is in it.
unsafe impl RingRegisters for NarrowSender {
    type Descriptor = Narrow;
    type Direction = ToDevice;
    const PUBLISH: Publish = Sender::PUBLISH;

    fn device(&self) -> &device::Device {
        self.0.device()
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        self.0.start(ring)
    }

    fn doorbell(&mut self, tail: Tail) {
        self.0.doorbell(tail);
    }
}

#[kunit_tests(rust_dma_scatter_ring)]
mod cases {
    use super::*;

    /// What is dropped in flight is kept until a proof; what nobody was told of goes at once.
    #[test]
    fn dropped_in_flight() -> Result {
        on_each_bus(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let dropped = Arc::new(Atomic::new(0_u32), GFP_KERNEL)?;
            let memory = || Ok::<_, Error>(Parts::small(0, 10)?.counted(&dropped));
            let (kept, lost) = (quarantined(), leaked());

            drop(ScatterMap::<_, ToDevice>::map(dma, memory()?, GFP_KERNEL)?);
            drop(ScatterBox::<_, ToDevice>::map(dma, memory()?, GFP_KERNEL)?);
            ensure!(quarantined() == kept && dropped.load(Relaxed) == 2);

            let list = ScatterMap::<_, FromDevice>::map(dma, memory()?, GFP_KERNEL)?;

            ensure!(list.segments().count() > 0);

            // The device may have it.
            let Err(list) = list.take_back() else {
                return Err(EINVAL);
            };

            drop(list);
            ensure!(quarantined() == kept + 1);
            ensure!(dropped.load(Relaxed) == 2);

            // SAFETY: There is no device.
            unsafe { prove(dma) };
            ensure!(leaked() == lost + u64::from(dma.record().keeper().is_none()));
            ensure!(dropped.load(Relaxed) == 3 || leaked() > lost);
            Ok(())
        })
    }

    /// A list is sent in as many descriptors as it has segments, comes back as a whole, and can be
    /// sent again without being mapped anew.
    #[test]
    fn sends() -> Result {
        on_each!(Fate::after(2), |rig| {
            // More than one turn of the ring.
            for count in [1, 2, 5, 14, 3, 7, 9] {
                let mut body = list(rig.dma, count)?;
                let maps = rig.sim.counters().maps;

                for turn in 1..=2 {
                    let mut frame = rig.tx.producer.new_chain();

                    frame.push(Gathered::Segment(head()?), ())?;
                    frame.push_list(body, ())?;
                    ensure!(frame.len() as usize == count + 1);
                    frame.commit()?;
                    rig.tx.producer.kick()?;
                    ensure!(rig.tx.consumer.reap().is_none());
                    rig.sim.advance(40);
                    ensure!(is_frame(rig.nic.next_sent(), count));

                    let mut back = None;
                    let mut parts = 0;

                    for segment in rig.tx.consumer.reap().ok_or(EIO)? {
                        match segment {
                            Gathered::Segment(head) => ensure!(head.len() == 20),
                            Gathered::Part(part) => {
                                parts += 1;
                                // From the last part only.
                                ensure!(back.is_none());
                                back = part.into_list();
                            }
                        }
                    }

                    let back = back.ok_or(EIO)?;

                    ensure!(parts == count && back.defined() == 64 * count);
                    ensure!(back
                        .slices()
                        .flatten()
                        .enumerate()
                        .all(|(at, &b)| b == byte(at)));
                    // The heads.
                    ensure!(rig.sim.counters().maps == maps + turn);
                    body = back.submit();
                }

                ensure!(rig.tx.producer.refresh() == LEN - 1);
            }

            // The ring, and nothing else.
            ensure!(rig.sim.counters().live == 1);
            Ok(())
        });

        Ok(())
    }

    /// All of a list is posted, or nothing, and then it comes back, and the chain is as before.
    #[test]
    fn all_or_nothing() -> Result {
        on_each!(Fate::after(0), |rig| {
            let mut frame = rig.tx.producer.new_chain();

            frame.push(Gathered::Segment(head()?), ())?;

            // As long as the ring, and longer.
            for (count, error) in [(15, EBUSY), (16, EOVERFLOW), (30, EOVERFLOW)] {
                match frame.push_list(list(rig.dma, count)?, ()) {
                    Err(refused) => {
                        ensure!(refused.error == error);
                        ensure!(refused.value.take_back().is_ok());
                    }
                    Ok(()) => return Err(EINVAL),
                }
                ensure!(frame.len() == 1);
            }

            // One whose addresses somebody has.
            let shown = list(rig.dma, 2)?;
            let kept = quarantined();

            shown.segments();

            match frame.push_list(shown, ()) {
                Err(refused) => ensure!(refused.error == EINVAL),
                Ok(()) => return Err(EINVAL),
            }
            ensure!(frame.len() == 1 && quarantined() == kept + 1);

            frame.push_list(list(rig.dma, 14)?, ())?;
            ensure!(frame.push(Gathered::Segment(head()?), ()).is_err());
            frame.commit()?;
            rig.tx.producer.kick()?;
            rig.sim.advance(40);
            ensure!(is_frame(rig.nic.next_sent(), 14));
            ensure!(rig.tx.consumer.reap_each(drop) == 1);

            // Rolled back, dropped, or forgotten.
            let mut frame = rig.tx.producer.new_chain();
            let mut lists = 0;

            frame.push_list(list(rig.dma, 3)?, ())?;
            frame.push_list(list(rig.dma, 4)?, ())?;
            frame.rollback(|segment| {
                if let Gathered::Part(part) = segment {
                    lists += part.into_list().map_or(0, |list| list.unmap().count());
                }
            });
            ensure!(lists == 7);

            let mut frame = rig.tx.producer.new_chain();

            frame.push_list(list(rig.dma, 3)?, ())?;
            drop(frame);

            let mut frame = rig.tx.producer.new_chain();

            frame.push_list(list(rig.dma, 5)?, ())?;
            core::mem::forget(frame);

            // Over the first part of what was forgotten, which is there until its place is needed.
            let mut frame = rig.tx.producer.new_chain();

            frame.push_list(list(rig.dma, 2)?, ())?;
            frame.commit()?;
            rig.tx.producer.kick()?;
            rig.sim.advance(40);
            ensure!(rig.nic.next_sent().is_some_and(|frame| frame.len() == 128));
            ensure!(rig.tx.consumer.reap_each(drop) == 1);

            // Twice, so that all places were needed.
            for _ in 0..4 {
                let mut frame = rig.tx.producer.new_chain();

                frame.push_list(list(rig.dma, 10)?, ())?;
                frame.commit()?;
                rig.tx.producer.kick()?;
                rig.sim.advance(40);
                ensure!(rig.tx.consumer.reap_each(drop) == 1);
                rig.nic.next_sent();
            }

            // The ring, and the list that somebody had the addresses of.
            let left = rig.sim.counters().live;

            ensure!(rig.session.stop() == StopOutcome::Stopped);
            ensure!(left == 3 && rig.sim.counters().live == 1);
            rig.session.start()
        });

        Ok(())
    }

    /// A part that came back has no memory any more: it can't be posted.
    #[test]
    fn parts_are_spent() -> Result {
        on_each!(Fate::after(0), |rig| {
            let mut frame = rig.tx.producer.new_chain();

            frame.push_list(list(rig.dma, 2)?, ())?;
            frame.commit()?;
            rig.tx.producer.kick()?;
            rig.sim.advance(40);
            ensure!(rig.nic.next_sent().is_some());

            let mut parts = KVec::new();

            for part in rig.tx.consumer.reap().ok_or(EIO)? {
                parts.push(part, GFP_KERNEL)?;
            }

            while let Some(part) = parts.pop() {
                match rig.tx.producer.post(part, ()) {
                    Err(refused) => ensure!(refused.error == EINVAL),
                    Ok(()) => return Err(EINVAL),
                }
            }
            Ok(())
        });

        Ok(())
    }

    /// A ring that is dropped in flight keeps its lists until the device has stopped; what a stop
    /// cancels comes back.
    #[test]
    fn stopped_in_flight() -> Result {
        on_each!(Fate::after(99), |rig| {
            let dropped = Arc::new(Atomic::new(0_u32), GFP_KERNEL)?;
            let mut frame = rig.tx.producer.new_chain();
            let memory = Parts::small(0, 5)?.counted(&dropped);

            frame.push_list(ScatterMap::map(rig.dma, memory, GFP_KERNEL)?, ())?;
            frame.commit()?;
            rig.tx.producer.kick()?;
            rig.sim.advance(1);
            ensure!(rig.tx.drain(drop) == Err(EBUSY));
            ensure!(rig.session.stop() == StopOutcome::Stopped);

            let mut back = 0;

            rig.tx.drain(|segment| {
                if let Gathered::Part(part) = segment {
                    back += part.into_list().map_or(0, |list| list.unmap().count());
                }
            })?;
            ensure!(back == 5 && dropped.load(Relaxed) == 1);

            // Another ring, which goes while the device works on it.
            let (kept, live) = (quarantined(), rig.sim.counters().live);
            let nic = rig.nic.clone();
            let mut tx = Ring::<_, Posted<'_>>::new(rig.dma, Sender(nic), LEN)?;
            let mut frame = tx.producer.new_chain();
            let memory = Parts::small(0, 5)?.counted(&dropped);

            frame.push_list(ScatterMap::map(rig.dma, memory, GFP_KERNEL)?, ())?;
            core::mem::forget(frame);
            drop(tx);
            ensure!(dropped.load(Relaxed) == 2 && quarantined() == kept);

            rig.session.start()?;

            let nic = rig.nic.clone();
            let mut tx = Ring::<_, Posted<'_>>::new(rig.dma, Sender(nic), LEN)?;

            tx.start(drop)?;

            let mut frame = tx.producer.new_chain();
            let memory = Parts::small(0, 5)?.counted(&dropped);

            frame.push_list(ScatterMap::map(rig.dma, memory, GFP_KERNEL)?, ())?;
            frame.commit()?;
            tx.producer.kick()?;
            rig.sim.advance(1);
            drop(tx);
            ensure!(quarantined() == kept + 1 && dropped.load(Relaxed) == 2);
            ensure!(rig.session.stop() == StopOutcome::Stopped);
            ensure!(dropped.load(Relaxed) == 3 && rig.sim.counters().live == live);
            rig.session.start()
        });

        Ok(())
    }

    /// Segments that are too long for a descriptor are divided; what it refuses comes back.
    #[test]
    fn narrow() -> Result {
        fn on<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
            let narrow = |nic| NarrowSender(Sender(nic));

            on_bus(pdev, sim, narrow, &mut |rig| {
                let mut frame = rig.tx.producer.new_chain();

                frame.push(Gathered::Segment(head()?), ())?;
                frame.push_list(list(rig.dma, 2)?, ())?;
                // 24, 24 and 16 bytes each.
                ensure!(frame.len() == 1 + 2 * 3);
                frame.commit()?;
                rig.tx.producer.kick()?;
                rig.sim.advance(40);
                ensure!(is_frame(rig.nic.next_sent(), 2));
                ensure!(rig.tx.consumer.reap_each(drop) == 1);

                // The second part of the first segment is refused when the third is added, or the
                // whole frame is posted.
                let mut frame = rig.tx.producer.new_chain();

                frame.push(Gathered::Segment(head()?), ())?;

                for lens in [[37, 24], [24, 37]] {
                    let parts = Parts::new(
                        0,
                        lens.into_iter().enumerate().map(|(i, len)| (512 * i, len)),
                    )?;
                    let odd = ScatterMap::map(rig.dma, parts, GFP_KERNEL)?;

                    match (frame.push_list(odd, ()), lens[0]) {
                        (Err(refused), 37) => {
                            ensure!(refused.error == EMSGSIZE && frame.len() == 1);
                            ensure!(refused.value.take_back().is_ok());
                        }
                        (Ok(()), 24) => {}
                        _ => return Err(EINVAL),
                    }
                }

                let Err(refused) = frame.commit() else {
                    return Err(EINVAL);
                };
                let mut back = 0;

                ensure!(refused.error == EMSGSIZE);
                refused.value.rollback(|segment| {
                    if let Gathered::Part(part) = segment {
                        back += usize::from(part.into_list().is_some());
                    }
                });
                ensure!(back == 1 && rig.sim.counters().live == 1);
                Ok(())
            })
        }

        sim::run_on_each(Script::new(Model::Coherent), on)
    }
}
