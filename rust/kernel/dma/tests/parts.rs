// SPDX-License-Identifier: GPL-2.0

//! Tests of rings that send memory that others have, too.

use super::ensure;
use crate::{
    device::Core,
    dma::{
        leaked,
        quarantined,
        ring::{
            Descriptor,
            Part,
            Readable,
            Ring,
            RingRegisters,
            Spare, //
        },
        sim::{
            self,
            Fate,
            Model,
            OwnedSender,
            RingConsumer,
            RingStopper,
            Script,
            Sender,
            Sim, //
        },
        Mapper,
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

/// Bytes in several places, which several frames have, and how many of these were dropped.
struct Message {
    parts: Arc<KVec<KVec<u8>>>,
    dropped: Arc<Atomic<u32>>,
}

// SAFETY: Nobody changes what is in an `Arc`, and its contents stay as long as there is one. The
// bytes of a `KVec` are initialised, and one kmalloc() allocation.
unsafe impl Readable for Message {
    fn count(&self) -> usize {
        self.parts.len()
    }

    fn part(&self, at: usize) -> (*const u8, usize) {
        self.parts
            .get(at)
            .map_or((core::ptr::null(), 0), |part| (part.as_ptr(), part.len()))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.dropped.add(1, Relaxed);
    }
}

/// A byte of the message.
fn byte(at: usize) -> u8 {
    // CAST: Cut on purpose.
    (7 * at + at / 251) as u8
}

/// Makes parts of these lengths.
fn parts(lens: &[usize]) -> Result<Arc<KVec<KVec<u8>>>> {
    let mut parts = KVec::new();
    let mut at = 0;

    for len in lens {
        let mut part = KVec::with_capacity(*len, GFP_KERNEL)?;

        for i in at..at + len {
            part.push(byte(i), GFP_KERNEL)?;
        }

        at += len;
        parts.push(part, GFP_KERNEL)?;
    }

    Ok(Arc::new(parts, GFP_KERNEL)?)
}

/// A ring, and the device that works it off.
struct Rig<'r, 'a, Q: RingRegisters<Direction = ToDevice>> {
    dma: Mapper<'a>,
    sim: &'r Arc<Sim>,
    session: &'r Session<'a, ()>,
    nic: Arc<RingConsumer>,
    dropped: Arc<Atomic<u32>>,
    tx: Ring<'a, Q, Part<Message>>,
}

impl<Q> Rig<'_, '_, Q>
where
    Q: RingRegisters<Direction = ToDevice, Descriptor: Descriptor<Options = ()>>,
{
    fn message(&self, lens: &[usize]) -> Result<Message> {
        Ok(Message {
            parts: parts(lens)?,
            dropped: self.dropped.clone(),
        })
    }

    fn dropped(&self) -> u32 {
        self.dropped.load(Relaxed)
    }

    /// Posts a message, and tells the device.
    fn send(&mut self, message: Message) -> Result {
        let mut frame = self.tx.producer.new_chain();

        frame.push_parts(message, ())?;
        frame.commit()?;
        self.tx.producer.kick()
    }

    /// Whether the device has sent a message of so many bytes.
    fn has_sent(&mut self, len: usize) -> bool {
        self.sim.advance(40);
        self.nic.next_sent().is_some_and(|frame| {
            frame.len() == len && frame.iter().enumerate().all(|(at, &b)| b == byte(at))
        })
    }
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
        dropped: Arc::new(Atomic::new(0), GFP_KERNEL)?,
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

#[kunit_tests(rust_dma_parts_sim)]
mod cases {
    use super::*;

    /// A message goes out in as many descriptors as it has parts, and comes back from the last of
    /// them, when the device is done with all. Others may have the same bytes.
    #[test]
    fn sends() -> Result {
        on_each!(Fate::after(2), |rig| {
            let mut sent = 0;

            // More than one turn of the ring.
            for lens in [
                &[64][..],
                &[1],
                &[20, 44],
                &[1, 1, 1],
                &[100, 28, 3, 1, 70],
                &[8; 15],
                &[64],
            ] {
                let message = rig.message(lens)?;
                let shared = message.parts.clone();
                let total = lens.iter().sum();

                rig.send(message)?;

                // The same bytes at the same time.
                if lens.len() < 8 {
                    rig.send(Message {
                        parts: shared.clone(),
                        dropped: rig.dropped.clone(),
                    })?;
                }

                ensure!(rig.tx.consumer.reap().is_none());

                for _ in 0..if lens.len() < 8 { 2 } else { 1 } {
                    ensure!(rig.has_sent(total));

                    let mut owners = 0;
                    let mut segments = 0;

                    for part in rig.tx.consumer.reap().ok_or(EIO)? {
                        // From the last part only.
                        ensure!(owners == 0);
                        segments += 1;
                        owners += usize::from(part.into_owner().is_some());
                    }

                    sent += 1;
                    ensure!(owners == 1 && segments == lens.len());
                    ensure!(rig.dropped() == sent);
                }
            }

            // The ring, and nothing else.
            ensure!(rig.tx.producer.refresh() == LEN - 1 && rig.sim.counters().live == 1);
            Ok(())
        });

        Ok(())
    }

    /// A message of one part is posted as it is; and once more when it came back.
    #[test]
    fn whole() -> Result {
        on_each!(Fate::after(0), |rig| {
            let mut part = Part::whole(rig.message(&[300])?);

            for _ in 0..3 {
                rig.tx.producer.post(part, ())?;
                rig.tx.producer.kick()?;
                ensure!(rig.has_sent(300));

                let mut back = None;

                ensure!(rig.tx.consumer.reap_each(|part| back = Some(part)) == 1);
                part = back.ok_or(EIO)?;
            }

            ensure!(rig.dropped() == 0);

            // What has several parts, or none, or an empty one, isn't posted that way.
            for lens in [&[20, 20][..], &[], &[0]] {
                match rig.tx.producer.post(Part::whole(rig.message(lens)?), ()) {
                    Err(refused) => {
                        ensure!(refused.error == EINVAL);
                        ensure!(refused.value.into_owner().is_some());
                    }
                    Ok(()) => return Err(EINVAL),
                }
            }

            // Nor is a part of a message that came back.
            rig.send(rig.message(&[20, 20])?)?;
            ensure!(rig.has_sent(40));

            let mut back = KVec::new();

            for part in rig.tx.consumer.reap().ok_or(EIO)? {
                back.push(part, GFP_KERNEL)?;
            }
            for part in back {
                ensure!(rig
                    .tx
                    .producer
                    .post(part, ())
                    .is_err_and(|e| e.error == EINVAL));
            }
            ensure!(rig.sim.counters().live == 1);
            Ok(())
        });

        Ok(())
    }

    /// All of a message is posted, or nothing: then it comes back, and the chain is as before.
    #[test]
    fn all_or_nothing() -> Result {
        on_each!(Fate::after(0), |rig| {
            let first = rig.message(&[10])?;
            let refusals = [
                (rig.message(&[])?, EINVAL),
                (rig.message(&[5, 0, 5])?, EINVAL),
                (rig.message(&[4; 15])?, EBUSY),
                (rig.message(&[4; 16])?, EOVERFLOW),
            ];
            let last = rig.message(&[4; 14])?;
            let mut frame = rig.tx.producer.new_chain();

            frame.push_parts(first, ())?;

            for (message, error) in refusals {
                let count = message.count();

                match frame.push_parts(message, ()) {
                    Err(refused) => {
                        ensure!(refused.error == error && refused.value.count() == count);
                    }
                    Ok(()) => return Err(EINVAL),
                }
                ensure!(frame.len() == 1);
            }

            // The ring, and the first part.
            ensure!(rig.sim.counters().live == 2);
            frame.push_parts(last, ())?;

            let mut owners = 0;

            frame.rollback(|part| owners += usize::from(part.into_owner().is_some()));
            ensure!(owners == 2 && rig.sim.counters().live == 1);

            // Forgotten: it stays until its places are needed.
            let message = rig.message(&[4; 5])?;
            let dropped = rig.dropped();
            let mut frame = rig.tx.producer.new_chain();

            frame.push_parts(message, ())?;
            core::mem::forget(frame);
            ensure!(rig.dropped() == dropped);

            for _ in 0..6 {
                let message = rig.message(&[30, 34])?;

                rig.send(message)?;
                ensure!(rig.has_sent(64));
                ensure!(rig.tx.consumer.reap_each(drop) == 1);
            }
            ensure!(rig.dropped() == dropped + 7 && rig.sim.counters().live == 1);
            Ok(())
        });

        Ok(())
    }

    /// A ring gets another length by memory that was allocated before. While the device may access
    /// it, and for another device, that comes back.
    #[test]
    fn resizes() -> Result {
        on_each!(Fate::after(60), |rig| {
            rig.send(rig.message(&[4; 5])?)?;
            rig.sim.advance(1);

            let spare = Spare::new(rig.dma, 4)?;
            let Err(refused) = rig.tx.resize_to(spare, drop) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == EBUSY && rig.tx.producer.len() == LEN);
            ensure!(rig.session.stop() == StopOutcome::Stopped);

            let mut owners = 0;

            rig.tx
                .resize_to(refused.value, |part| {
                    owners += usize::from(part.into_owner().is_some());
                })
                .map_err(|refused| refused.error)?;
            ensure!(owners == 1 && rig.tx.producer.len() == 4);
            // The ring that was, and is, and nothing else.
            ensure!(rig.sim.counters().live == 1);

            rig.session.start()?;
            rig.tx.start(drop)?;

            for _ in 0..3 {
                rig.send(rig.message(&[4; 3])?)?;
                rig.sim.advance(100);
                ensure!(rig.has_sent(12) && rig.tx.consumer.reap_each(drop) == 1);
            }
            Ok(())
        });

        Ok(())
    }

    /// What a stop cancels comes back; a ring that is dropped in flight keeps its messages until
    /// the device has stopped.
    #[test]
    fn stopped_in_flight() -> Result {
        on_each!(Fate::after(99), |rig| {
            rig.send(rig.message(&[4; 5])?)?;
            rig.sim.advance(1);
            ensure!(rig.tx.drain(drop) == Err(EBUSY) && rig.dropped() == 0);
            ensure!(rig.session.stop() == StopOutcome::Stopped);

            let (mut parts, mut owners) = (0, 0);

            rig.tx.drain(|part| {
                parts += 1;
                owners += usize::from(part.into_owner().is_some());
            })?;
            ensure!(parts == 5 && owners == 1 && rig.dropped() == 1);

            rig.session.start()?;

            // Another ring, which goes while the device works on it.
            let (kept, lost) = (quarantined(), leaked());
            let nic = rig.nic.clone();
            let mut tx = Ring::<_, Part<Message>>::new(rig.dma, Sender(nic), LEN)?;

            tx.start(drop)?;

            let message = rig.message(&[4; 5])?;
            let mut frame = tx.producer.new_chain();

            frame.push_parts(message, ())?;
            frame.commit()?;
            tx.producer.kick()?;
            rig.sim.advance(1);
            drop(tx);
            ensure!(quarantined() == kept + 1 && rig.dropped() == 1);
            ensure!(rig.session.stop() == StopOutcome::Stopped);
            ensure!(rig.dropped() == 2 && leaked() == lost);
            // The rings' own memory: one is left.
            ensure!(rig.sim.counters().live == 1);
            rig.session.start()
        });

        Ok(())
    }
}
