// SPDX-License-Identifier: GPL-2.0

//! Tests of rings, on a device that works them off as its script says.

use super::ensure;
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        leaked,
        quarantined,
        ring::{
            Consumer,
            Descriptor,
            DescriptorInfo,
            Fragment,
            Frame,
            Length,
            Producer,
            Publish,
            ReceiveDescriptor,
            Received,
            Ring,
            RingMemory,
            RingRegisters,
            Tail,
            Verdict, //
        },
        sim::{
            self,
            Fate,
            Model,
            OwnedReceiver,
            OwnedSender,
            Receiver,
            ReceiverDescriptor,
            RingConsumer,
            RingStopper,
            Script,
            Sender,
            Sim, //
        },
        DmaAddress,
        FromDevice,
        Mapper,
        Pool,
        Session,
        StopOutcome,
        ToDevice, //
    },
    error::ErrorWith,
    faux,
    platform,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// The size of a buffer to receive into.
const BUF: usize = 256;

/// Descriptors of a ring.
const LEN: u32 = 8;

type RxBuf = KBox<[u8; BUF]>;

/// How the device learns of descriptors.
trait Kind {
    type Tx: RingRegisters<Direction = ToDevice, Descriptor: Descriptor<Options = ()>>;
    type Rx: RingRegisters<Direction = FromDevice, Descriptor: ReceiveDescriptor<Options = ()>>;

    const NAME: &'static str;

    fn sender(nic: Arc<RingConsumer>) -> Self::Tx;
    fn receiver(nic: Arc<RingConsumer>) -> Self::Rx;
}

struct ByTail;
struct ByOwnBit;

impl Kind for ByTail {
    type Tx = Sender;
    type Rx = Receiver;

    const NAME: &'static str = "tail";

    fn sender(nic: Arc<RingConsumer>) -> Sender {
        Sender(nic)
    }

    fn receiver(nic: Arc<RingConsumer>) -> Receiver {
        Receiver(nic)
    }
}

impl Kind for ByOwnBit {
    type Tx = OwnedSender;
    type Rx = OwnedReceiver;

    const NAME: &'static str = "own bit";

    fn sender(nic: Arc<RingConsumer>) -> OwnedSender {
        OwnedSender(nic)
    }

    fn receiver(nic: Arc<RingConsumer>) -> OwnedReceiver {
        OwnedReceiver(nic)
    }
}

/// As [`ReceiverDescriptor`], of a device that reports a frame's length where it ends. No frame has
/// 13 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Whole(ReceiverDescriptor);

// SAFETY: As for what is in it. No longer buffers are needed.
unsafe impl Descriptor for Whole {
    type Options = ();
    const STATUS: usize = ReceiverDescriptor::STATUS;
    const MAX_LEN: usize = BUF;

    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        Ok(Self(ReceiverDescriptor::new(info)?))
    }

    fn is_done(status: u32) -> bool {
        ReceiverDescriptor::is_done(status)
    }
}

impl ReceiveDescriptor for Whole {
    fn received(&self) -> Received {
        let received = self.0.received();

        match received.len {
            Length::Segment(len) | Length::Frame(len) => Received {
                len: Length::Frame(len),
                verdict: match len.validate(|len| Ok(len == 13)) {
                    Ok(true) => Verdict::Malformed,
                    _ => received.verdict,
                },
                ..received
            },
        }
    }
}

/// As [`Receiver`], with those.
struct WholeReceiver(Receiver);

// SAFETY: As for what is in it.
unsafe impl RingRegisters for WholeReceiver {
    type Descriptor = Whole;
    type Direction = FromDevice;
    const PUBLISH: Publish = Receiver::PUBLISH;

    fn device(&self) -> &Device {
        self.0.device()
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        self.0.start(ring)
    }

    fn doorbell(&mut self, tail: Tail) {
        self.0.doorbell(tail);
    }
}

struct ByWhole;

impl Kind for ByWhole {
    type Tx = Sender;
    type Rx = WholeReceiver;

    const NAME: &'static str = "tail, whole lengths";

    fn sender(nic: Arc<RingConsumer>) -> Sender {
        Sender(nic)
    }

    fn receiver(nic: Arc<RingConsumer>) -> WholeReceiver {
        nic.whole_lengths(true);
        WholeReceiver(Receiver(nic))
    }
}

/// What a [`Watched`] device is told of memory, and what the driver says of it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, PartialEq)]
#[repr(C)]
struct Told {
    address: u64,
    len: u32,
    flags: u32,
}

impl Told {
    const DONE: u32 = 1;
    const FIRST: u32 = 1 << 1;
    const LAST: u32 = 1 << 2;
}

// SAFETY: There is no device.
unsafe impl Descriptor for Told {
    type Options = u32;
    const STATUS: usize = 12;
    const MAX_LEN: usize = 3000;

    fn new(info: DescriptorInfo<'_, u32>) -> Result<Self> {
        let first = if info.first { Self::FIRST } else { 0 };
        let last = if info.last { Self::LAST } else { 0 };

        Ok(Self {
            address: info.address().unwrap_or(0),
            // CAST: A buffer of the tests.
            len: info.len() as u32,
            flags: info.options | first | last,
        })
    }

    fn is_done(status: u32) -> bool {
        status & Self::DONE != 0
    }
}

/// What a ring does to its device, which does nothing.
struct Watched {
    dev: ARef<Device>,
    /// How often it is still to refuse a ring.
    refusals: u32,
    /// How often it was given one, and where the last one is.
    starts: u32,
    base: DmaAddress,
}

impl Watched {
    fn new(dev: &Device) -> Self {
        Self {
            dev: dev.into(),
            refusals: 0,
            starts: 0,
            base: 0,
        }
    }
}

// SAFETY: It accesses nothing.
unsafe impl RingRegisters for Watched {
    type Descriptor = Told;
    type Direction = ToDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        &self.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        self.starts += 1;

        if let Some(left) = self.refusals.checked_sub(1) {
            self.refusals = left;
            return Err(EIO);
        }

        // SAFETY: The test reads it as long as the ring is there.
        self.base = unsafe { ring.memory.to_bits(ring.running) };
        Ok(())
    }

    fn doorbell(&mut self, _tail: Tail) {}
}

/// A descriptor that is the device's by one of two bits, and has another one that says that it is
/// done.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, PartialEq)]
#[repr(C)]
struct Lent {
    address: u64,
    len: u32,
    status: u32,
}

impl Lent {
    const OWN: u32 = 1;
    const BUSY: u32 = 1 << 1;
    const DONE: u32 = 1 << 2;
}

// SAFETY: The device (the test) reads `len` bytes from `address`, and sets `DONE` then. `OWN` gives
// a descriptor to it; it is done when neither that nor `BUSY` is set.
unsafe impl Descriptor for Lent {
    type Options = ();
    const STATUS: usize = 12;

    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        Ok(Self {
            address: info.address().unwrap_or(0),
            // CAST: A buffer of the tests.
            len: info.len() as u32,
            status: Self::OWN,
        })
    }

    fn is_done(status: u32) -> bool {
        status & Self::DONE != 0
    }
}

/// A device whose part the test plays.
struct Lender {
    dev: ARef<Device>,
    base: DmaAddress,
}

// SAFETY: The test works descriptors off in order, beginning with the first, each when its status
// word says that it may, and touches none with which it is done.
unsafe impl RingRegisters for Lender {
    type Descriptor = Lent;
    type Direction = ToDevice;
    const PUBLISH: Publish = Publish::OwnBit(Lent::OWN | Lent::BUSY);

    fn device(&self) -> &Device {
        &self.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // SAFETY: The test uses it as long as the ring is there.
        self.base = unsafe { ring.memory.to_bits(ring.running) };
        Ok(())
    }

    fn doorbell(&mut self, _tail: Tail) {}
}

impl Lender {
    /// The device comes to a descriptor, and writes that status when it has read the buffer.
    /// Returns whether it could; it doesn't if the descriptor isn't its own.
    fn come_to(&self, sim: &Sim, at: u64, status: u32) -> bool {
        let mut lent = Lent::default();
        let mut frame = [0; 40];
        let place = self.base + 16 * at;

        // SAFETY: The CPU writes nothing there, here and below.
        if !unsafe { sim.device_read(place, lent.as_mut_bytes()) } || lent.status & Lent::OWN == 0 {
            return false;
        }

        // SAFETY: As above.
        let read = unsafe { sim.device_read(lent.address, &mut frame) };

        // SAFETY: As above, and the ring has no references to descriptors.
        unsafe { sim.device_write(place + 12, &status.to_le_bytes()) && read }
    }
}

/// Two rings, and the devices that work them off.
struct Rig<'r, 'a, K: Kind> {
    sim: &'r Arc<Sim>,
    session: &'r Session<'a, ()>,
    /// Sends.
    out: Arc<RingConsumer>,
    /// Receives.
    into: Arc<RingConsumer>,
    tx: Ring<'a, K::Tx, KVec<u8>>,
    rx: Ring<'a, K::Rx, RxBuf>,
}

fn rx_buf() -> Result<RxBuf> {
    Ok(KBox::new([0; BUF], GFP_KERNEL)?)
}

impl<K: Kind> Rig<'_, '_, K> {
    fn start(&mut self, cancelled: impl FnMut(KVec<u8>)) -> Result {
        self.tx.start(cancelled)?;
        self.rx.start(drop)?;
        self.fill()
    }

    fn fill(&mut self) -> Result {
        self.rx.producer.refill((), rx_buf)?;
        self.rx.producer.kick()
    }

    fn by_own_bit(&self) -> bool {
        matches!(K::Tx::PUBLISH, Publish::OwnBit(_))
    }

    fn post(&mut self, frame: &[u8]) -> Result {
        Ok(self.tx.producer.post(bytes(frame)?, ())?)
    }

    /// Receives frames until the device has no descriptors.
    fn use_up(&mut self) -> Result {
        while self.rx.consumer.posted() > 0 {
            self.into.receive(&[1])?;
            self.wait(4);
            ensure!(self.receive()?.is_some());
        }

        Ok(())
    }

    /// Time passes for the devices.
    fn wait(&self, ticks: u32) {
        self.sim.advance(ticks);
    }

    /// Stops the devices, and starts them with the same rings.
    fn restart(&mut self) -> Result {
        ensure!(self.session.stop() == StopOutcome::Stopped);
        self.session.start()?;
        self.start(drop)
    }

    /// Takes back the segments of the next frame, put together.
    fn reap(&mut self) -> Result<Option<KVec<u8>>> {
        let Some(segments) = self.tx.consumer.reap() else {
            return Ok(None);
        };
        let mut all = KVec::new();

        for segment in segments {
            all.extend_from_slice(&segment, GFP_KERNEL)?;
        }

        Ok(Some(all))
    }

    /// Returns the bytes of the next frame that was received.
    fn receive(&mut self) -> Result<Option<KVec<u8>>> {
        let Some(frame) = self.rx.consumer.receive() else {
            return Ok(None);
        };
        let mut all = KVec::new();

        for segment in frame.segments() {
            all.extend_from_slice(segment, GFP_KERNEL)?;
        }

        ensure!(frame.len() == all.len());
        ensure!(frame.bytes() == (frame.count() == 1).then_some(&all[..]));
        // The last descriptor is the one that it has.
        ensure!(frame
            .descriptor()
            .validate(|descriptor| Ok(descriptor.received().last))?);
        frame.recycle();
        Ok(Some(all))
    }
}

/// Runs a test with two rings of `len` descriptors on one bus; the devices are stopped afterwards.
fn with_rig<K: Kind>(
    script: Script,
    len: u32,
    mut body: impl FnMut(&mut Rig<'_, '_, K>) -> Result,
) -> Result {
    sim::run(script, |pdev, sim| on_bus::<K>(pdev, sim, len, &mut body))
}

fn on_bus<'a, K: Kind>(
    pdev: &platform::Device<Core<'a>>,
    sim: &Arc<Sim>,
    len: u32,
    body: &mut dyn FnMut(&mut Rig<'_, 'a, K>) -> Result,
) -> Result {
    let dma = Mapper::get(pdev.as_ref().bound())?;
    let out = RingConsumer::new(sim)?;
    let into = RingConsumer::new(sim)?;
    let stopper = RingStopper([out.clone(), into.clone()]);
    let session: Session<'a, ()> = Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;

    let mut rig = Rig::<K> {
        sim,
        session: &session,
        tx: Ring::new(dma, K::sender(out.clone()), len)?,
        rx: Ring::new(dma, K::receiver(into.clone()), len)?,
        out,
        into,
    };

    session.start()?;
    rig.start(drop)?;

    let outcome = body(&mut rig);

    // Before the rings go.
    let stopped = session.stop();

    outcome?;
    ensure!(stopped == StopOutcome::Stopped);
    Ok(())
}

/// Runs a test on each model, with both kinds of rings. Memory is as weakly ordered as can be.
macro_rules! on_each {
    ($fate:expr, |$rig:ident| $body:block) => {
        for model in Model::ALL {
            let script = Script::new(model).fate($fate).weak_order(true);

            with_rig::<ByTail>(script, LEN, |$rig| $body)?;
            with_rig::<ByOwnBit>(script, LEN, |$rig| $body)?;
        }
    };
}

fn bytes(from: &[u8]) -> Result<KVec<u8>> {
    // So that a buffer is alone in its cache lines.
    let mut vec = KVec::with_capacity(from.len().max(BUF), GFP_KERNEL)?;

    vec.extend_from_slice(from, GFP_KERNEL)?;
    Ok(vec)
}

/// Whether a frame has these bytes.
fn holds<Q>(frame: &Frame<'_, '_, Q, RxBuf>, bytes: &[u8]) -> bool
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    let mut rest = bytes;

    for segment in frame.segments() {
        match rest.strip_prefix(segment) {
            Some(others) => rest = others,
            None => return false,
        }
    }

    rest.is_empty() && frame.len() == bytes.len()
}

/// Bytes that tell one frame from others.
fn pattern(seed: usize, len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len.max(BUF), GFP_KERNEL)?;

    vec.resize(len, 0, GFP_KERNEL)?;

    for (i, byte) in vec.iter_mut().enumerate() {
        // CAST: Cut on purpose.
        *byte = (seed * 31 + i * 7 + i / 200 + 1) as u8;
    }

    Ok(vec)
}

#[kunit_tests(rust_dma_ring_sim)]
mod cases {
    use super::*;
    use core::mem::forget;

    /// What is posted is sent, in order, and comes back; at once or late.
    #[test]
    fn sends() -> Result {
        for fate in [Fate::after(0), Fate::after(3)] {
            on_each!(fate, |rig| {
                for seed in 0..4 {
                    rig.post(&pattern(seed, 60 + seed)?)?;
                }
                rig.tx.producer.kick()?;
                rig.wait(20);

                for seed in 0..4 {
                    ensure!(rig.out.next_sent() == Some(pattern(seed, 60 + seed)?));
                    ensure!(rig.reap()? == Some(pattern(seed, 60 + seed)?));
                }

                ensure!(rig.reap()?.is_none());
                Ok(())
            });
        }

        Ok(())
    }

    /// What arrives is received, and the buffers are used again: for ten turns of the ring nothing
    /// is mapped or unmapped.
    #[test]
    fn receives() -> Result {
        on_each!(Fate::after(0), |rig| {
            let mut before = rig.sim.counters();

            for seed in 0..11 * LEN as usize {
                // In the first turn the slot that was left free gets its buffer.
                if seed == LEN as usize {
                    before = rig.sim.counters();
                }

                rig.into.receive(&pattern(seed, 1 + seed)?)?;
                rig.wait(2);
                ensure!(rig.receive()? == Some(pattern(seed, 1 + seed)?));
                rig.fill()?;
            }

            let after = rig.sim.counters();

            ensure!(after.maps == before.maps && after.unmaps == before.unmaps);
            ensure!(rig.receive()?.is_none());
            ensure!(rig.rx.consumer.malformed() == 0);
            Ok(())
        });

        Ok(())
    }

    /// One less than all descriptors can be used; what is too much comes back, and has its place
    /// when there is room.
    #[test]
    #[slow]
    fn full_and_empty() -> Result {
        on_each!(Fate::after(0), |rig| {
            for turn in 0..10 {
                for i in 0..LEN as usize - 1 {
                    ensure!(rig.tx.producer.refresh() == LEN - 1 - i as u32);
                    rig.post(&pattern(turn + i, 80)?)?;
                }

                ensure!(rig.tx.producer.refresh() == 0);

                let refused = rig.tx.producer.post(pattern(99, 33)?, ());
                ensure!(matches!(&refused, Err(e) if e.error == EBUSY));
                ensure!(refused.err().map(|e| e.value) == Some(pattern(99, 33)?));

                rig.tx.producer.kick()?;
                rig.wait(20);

                for i in 0..LEN as usize - 1 {
                    ensure!(rig.reap()? == Some(pattern(turn + i, 80)?));
                }
                ensure!(rig.reap()?.is_none());
                ensure!(rig.tx.producer.refresh() == LEN - 1);
            }

            Ok(())
        });

        Ok(())
    }

    /// A batch costs one doorbell; without one the device knows nothing, and nothing is reaped.
    #[test]
    fn one_doorbell() -> Result {
        for model in Model::ALL {
            with_rig::<ByTail>(Script::new(model), LEN, |rig| {
                let before = rig.tx.producer.doorbells();

                for seed in 0..5 {
                    rig.post(&pattern(seed, 64)?)?;
                }
                rig.wait(20);
                ensure!(rig.out.next_sent().is_none());
                ensure!(rig.tx.consumer.posted() == 0);
                ensure!(rig.reap()?.is_none());

                rig.tx.producer.kick()?;
                rig.tx.producer.kick()?;
                rig.wait(20);
                ensure!(rig.tx.producer.doorbells() == before + 1);
                ensure!(rig.tx.consumer.posted() == 5);

                for seed in 0..5 {
                    ensure!(rig.reap()? == Some(pattern(seed, 64)?));
                }

                Ok(())
            })?;
        }

        Ok(())
    }

    /// The segments of a frame are sent as one, and come back together, not before all are done.
    #[test]
    fn chains() -> Result {
        on_each!(Fate::after(2), |rig| {
            for turn in 0..20_usize {
                let count = 1 + turn % 4;
                let mut chain = rig.tx.producer.new_chain();

                if turn % 3 == 0 {
                    chain.push_context(())?;
                }
                for i in 0..count {
                    chain.push(pattern(turn + i, 10 + i)?, ())?;
                }
                ensure!(chain.len() as usize == count + usize::from(turn % 3 == 0));
                chain.commit()?;
                ensure!(rig.reap()?.is_none());
                rig.tx.producer.kick()?;
                ensure!(rig.reap()?.is_none());
                rig.wait(20);

                let mut all = KVec::new();
                for i in 0..count {
                    all.extend_from_slice(&pattern(turn + i, 10 + i)?, GFP_KERNEL)?;
                }

                ensure!(rig.out.next_sent() == Some(bytes(&all)?));
                ensure!(rig.reap()? == Some(all));
                ensure!(rig.tx.producer.refresh() == LEN - 1);
            }

            // The first is done long before the last.
            let mut chain = rig.tx.producer.new_chain();

            rig.out.then(Fate::after(0))?;
            rig.out.then(Fate::after(9))?;
            chain.push(pattern(1, 10)?, ())?;
            chain.push(pattern(2, 10)?, ())?;
            chain.commit()?;
            rig.tx.producer.kick()?;
            rig.wait(5);
            ensure!(rig.reap()?.is_none());
            rig.wait(5);
            ensure!(rig.reap()?.is_some());
            Ok(())
        });

        Ok(())
    }

    /// What was sent comes back together, segment by segment; what isn't done stays.
    #[test]
    fn reaps_each() -> Result {
        on_each!(Fate::after(2), |rig| {
            for turn in 0..20_usize {
                let mut chain = rig.tx.producer.new_chain();

                chain.push_context(())?;
                chain.push(pattern(turn, 10)?, ())?;
                chain.push(pattern(turn + 1, 11)?, ())?;
                chain.commit()?;
                rig.post(&pattern(turn + 2, 12)?)?;
                rig.tx.producer.kick()?;
                ensure!(rig.tx.consumer.reap_each(drop) == 0);
                ensure!(rig.tx.producer.refresh() == LEN - 1 - 4);
                rig.wait(20);

                let mut next = turn;
                let mut right = true;
                let frames = rig.tx.consumer.reap_each(|segment| {
                    right &=
                        pattern(next, 10 + next - turn).is_ok_and(|expected| expected == segment);
                    next += 1;
                });

                ensure!(right && frames == 2 && next == turn + 3);
                ensure!(rig.tx.producer.refresh() == LEN - 1);
                ensure!(rig.tx.consumer.reap_each(drop) == 0);
            }

            // The first is done long before the second.
            rig.out.then(Fate::after(0))?;
            rig.out.then(Fate::after(9))?;
            rig.post(&pattern(1, 10)?)?;
            rig.post(&pattern(2, 10)?)?;
            rig.tx.producer.kick()?;
            rig.wait(5);
            ensure!(rig.tx.consumer.reap_each(drop) == 1);
            rig.wait(5);
            ensure!(rig.tx.consumer.reap_each(drop) == 1);

            // The first segment is, of a frame; meanwhile another is posted.
            let mut chain = rig.tx.producer.new_chain();

            rig.out.then(Fate::after(0))?;
            rig.out.then(Fate::after(9))?;
            chain.push(pattern(3, 10)?, ())?;
            chain.push(pattern(4, 10)?, ())?;
            chain.commit()?;
            rig.tx.producer.kick()?;
            rig.wait(5);
            ensure!(rig.tx.consumer.reap_each(drop) == 0);
            rig.wait(5);

            let Ring { producer, consumer } = &mut rig.tx;
            let mut posted = 0;
            let frames = consumer.reap_each(|segment| {
                posted += usize::from(producer.post(segment, ()).is_ok());
            });

            ensure!(frames == 1 && posted == 2);
            rig.tx.producer.kick()?;
            rig.wait(20);
            ensure!(rig.reap()? == Some(pattern(3, 10)?));
            ensure!(rig.reap()? == Some(pattern(4, 10)?));

            // A frame that takes the whole ring: no slot is free before all were emptied.
            let mut chain = rig.tx.producer.new_chain();

            for i in 0..LEN as usize - 1 {
                chain.push(pattern(i, 10)?, ())?;
            }
            chain.commit()?;
            rig.tx.producer.kick()?;
            rig.wait(20);

            let Ring { producer, consumer } = &mut rig.tx;
            let mut back = 0;
            let mut refused = 0;
            let frames = consumer.reap_each(|segment| {
                back += usize::from(pattern(back, 10).is_ok_and(|expected| expected == segment));
                refused += usize::from(producer.post(segment, ()).is_err_and(|e| e.error == EBUSY));
            });

            ensure!(frames == 1 && back == LEN as usize - 1 && refused == back);
            Ok(())
        });

        Ok(())
    }

    /// A chain that isn't committed leaves nothing: given back, dropped, forgotten, too long, or
    /// with a segment that can't be mapped.
    #[test]
    fn chains_undone() -> Result {
        on_each!(Fate::after(0), |rig| {
            let live = rig.sim.counters().live;
            let mut back = KVec::new();
            let mut chain = rig.tx.producer.new_chain();

            chain.push(pattern(1, 40)?, ())?;
            chain.push_context(())?;
            chain.push(pattern(2, 41)?, ())?;
            chain.rollback(|segment| back.push(segment, GFP_KERNEL).unwrap_or(()));
            ensure!(back.len() == 2 && back[0] == pattern(1, 40)? && back[1] == pattern(2, 41)?);

            let mut chain = rig.tx.producer.new_chain();

            chain.push(pattern(3, 42)?, ())?;
            drop(chain);
            ensure!(rig.sim.counters().live == live);

            let empty = rig.tx.producer.new_chain().commit();

            ensure!(matches!(&empty, Err(e) if e.error == EINVAL));
            drop(empty);

            let mut chain = rig.tx.producer.new_chain();

            for seed in 0..LEN as usize - 1 {
                chain.push(pattern(seed, 42)?, ())?;
            }

            let refused = chain.push(pattern(50, 42)?, ());

            ensure!(matches!(refused, Err(e) if e.error == EBUSY && e.value == pattern(50, 42)?));
            ensure!(chain.push_context(()) == Err(EBUSY));
            drop(chain);
            ensure!(rig.sim.counters().live == live);

            let mut chain = rig.tx.producer.new_chain();

            chain.push(pattern(1, 40)?, ())?;
            rig.sim.fail_map(1);

            let refused = chain.push(pattern(2, 41)?, ());

            ensure!(matches!(refused, Err(e) if e.error == ENOMEM && e.value == pattern(2, 41)?));
            chain.push(pattern(3, 41)?, ())?;
            forget(chain);

            // What was forgotten goes when its place is taken, also by what needs no memory.
            rig.post(&pattern(6, 44)?)?;
            let mut chain = rig.tx.producer.new_chain();
            chain.push_context(())?;
            chain.push(pattern(7, 45)?, ())?;
            chain.commit()?;
            rig.tx.producer.kick()?;
            rig.wait(20);
            ensure!(rig.out.next_sent() == Some(pattern(6, 44)?));
            ensure!(rig.out.next_sent() == Some(pattern(7, 45)?));
            ensure!(rig.reap()? == Some(pattern(6, 44)?));
            ensure!(rig.reap()? == Some(pattern(7, 45)?));
            ensure!(rig.sim.counters().live == live);
            Ok(())
        });

        Ok(())
    }

    /// A frame that is longer than a buffer comes in several; it isn't there before its end is.
    #[test]
    fn long_frames() -> Result {
        on_each!(Fate::after(0), |rig| {
            for turn in 0..24_usize {
                let len = 1 + (turn * 97) % ((LEN as usize - 1) * BUF);

                rig.into.receive(&pattern(turn, len)?)?;
                rig.into.receive(&pattern(turn + 1, 5)?)?;
                rig.wait(20);
                ensure!(rig.receive()? == Some(pattern(turn, len)?));
                rig.fill()?;
                rig.wait(20);
                ensure!(rig.receive()? == Some(pattern(turn + 1, 5)?));
                rig.fill()?;
            }

            // There are not enough descriptors before they are posted again.
            for _ in 0..3 {
                rig.into.receive(&[1])?;
                rig.wait(4);
                ensure!(rig.receive()?.is_some());
            }
            rig.into.receive(&pattern(1, 6 * BUF)?)?;
            rig.wait(20);
            ensure!(rig.receive()?.is_none());
            rig.fill()?;
            rig.wait(20);
            ensure!(rig.receive()? == Some(pattern(1, 6 * BUF)?));
            ensure!(rig.rx.consumer.malformed() == 0);
            Ok(())
        });

        Ok(())
    }

    /// What has arrived is given together, up to the budget, in whatever number of buffers; what
    /// isn't taken out stays mapped.
    #[test]
    #[slow]
    fn receives_each() -> Result {
        on_each!(Fate::after(0), |rig| {
            // Of frames that are half there, the first half.
            rig.into.receive(&pattern(0, 6 * BUF)?)?;
            rig.into.receive(&pattern(1, 3 * BUF)?)?;
            rig.wait(20);
            ensure!(rig.rx.consumer.receive_each(9, |_| {}) == 1);
            ensure!(rig.rx.consumer.receive_each(9, |_| {}) == 0);
            rig.fill()?;
            rig.wait(20);
            let mut len = 0;
            ensure!(rig.rx.consumer.receive_each(9, |frame| len = frame.len()) == 1);
            ensure!(len == 3 * BUF);
            rig.fill()?;

            for turn in 0..20_usize {
                let lens = [10, 20, 2 * BUF, 30, 40];

                for (i, len) in lens.into_iter().enumerate() {
                    rig.into.receive(&pattern(turn + i, len + turn)?)?;
                }
                rig.wait(20);

                let mut at = 0;
                let mut right = true;
                let mut look = |holds: &dyn Fn(&[u8]) -> bool| {
                    right &= pattern(turn + at, lens[at] + turn).is_ok_and(|bytes| holds(&bytes));
                    at += 1;
                };

                let Ring { producer, consumer } = &mut rig.rx;
                let mut free = 0;

                ensure!(consumer.receive_each(0, |_| {}) == 0);
                ensure!(consumer.receive_each(1, |frame| look(&|bytes| holds(&frame, bytes))) == 1);
                ensure!(producer.refresh() == 1);

                let count = consumer.receive_each(3, |frame| {
                    look(&|bytes| holds(&frame, bytes));
                    free += producer.refresh();

                    match turn % 3 {
                        0 => frame.recycle(),
                        1 => forget(frame),
                        _ => frame.take().for_each(drop),
                    }
                });

                // The slot of the short one came back before the long one, and its with the last.
                ensure!(count == 3 && free == 1 + 2 + 2);
                ensure!(producer.refresh() == if turn == 0 { 5 } else { 6 });

                let count =
                    consumer.receive_each(u32::MAX, |frame| look(&|bytes| holds(&frame, bytes)));

                ensure!(count == 1 && right && at == lens.len());
                ensure!(consumer.receive_each(u32::MAX, |_| {}) == 0);

                rig.fill()?;
                ensure!(rig.rx.consumer.posted() == LEN - 1);
                ensure!(rig.rx.consumer.malformed() == 0);
            }

            // What is posted and arrives meanwhile.
            for i in 0..LEN as usize - 1 {
                rig.into.receive(&pattern(i, 10)?)?;
            }
            rig.wait(20);
            ensure!(rig.rx.consumer.receive_each(1, |_| {}) == 1);

            let Ring { producer, consumer } = &mut rig.rx;
            let mut more: Result = Ok(());
            let mut next = 1;
            let count = consumer.receive_each(u32::MAX, |frame| {
                if next == 1 {
                    more = producer.refill((), rx_buf).and_then(|()| {
                        producer.kick()?;
                        rig.into.receive(&pattern(LEN as usize - 1, 10)?)
                    });
                    rig.sim.advance(20);
                }
                more = more.and_then(|()| {
                    ensure!(holds(&frame, &pattern(next, 10)?));
                    next += 1;
                    Ok(())
                });
            });

            more?;
            ensure!(count == LEN - 1);
            rig.fill()?;

            // Frames in one buffer that follow each other.
            for turn in 0..20_usize {
                for i in 0..3 {
                    rig.into.receive(&pattern(turn + i, 10 + 10 * i)?)?;
                }
                rig.wait(20);

                let Ring { producer, consumer } = &mut rig.rx;
                let mut next = 0;
                let mut right = true;

                let count = consumer.receive_each(9, |frame| {
                    let expected = pattern(turn + next, 10 + 10 * next).unwrap_or_default();

                    right &= producer.refresh() == 0;
                    right &= frame.bytes() == Some(&expected[..]) && holds(&frame, &expected);

                    if turn % 2 == 0 {
                        right &= frame
                            .take()
                            .all(|(buf, len)| buf.get(..len) == Some(&expected[..]));
                        right &= producer.refresh() == 0;
                    }
                    next += 1;
                });

                ensure!(count == 3 && next == 3 && right);
                ensure!(producer.refresh() == 3);
                rig.fill()?;
            }

            Ok(())
        });

        Ok(())
    }

    /// A frame has 64 buffers at most.
    #[test]
    fn too_many_segments() -> Result {
        for model in Model::ALL {
            with_rig::<ByTail>(Script::new(model), 128, |rig| {
                rig.into.receive(&pattern(1, 64 * BUF)?)?;
                rig.wait(200);
                ensure!(rig.receive()? == Some(pattern(1, 64 * BUF)?));
                rig.fill()?;

                rig.into.receive(&pattern(2, 64 * BUF + 1)?)?;
                rig.into.receive(&pattern(3, 10)?)?;
                rig.wait(200);
                ensure!(rig.receive()? == Some(pattern(3, 10)?));
                ensure!(rig.rx.consumer.malformed() == 1);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Buffers can be taken; others take their places.
    #[test]
    fn takes() -> Result {
        on_each!(Fate::after(0), |rig| {
            for seed in 0..3 * LEN as usize {
                rig.into.receive(&pattern(seed, 100)?)?;
                rig.wait(2);

                let frame = rig.rx.consumer.receive().ok_or(EIO)?;
                let (buf, len) = frame.take().next().ok_or(EIO)?;

                ensure!(buf[..len] == pattern(seed, 100)?[..]);
                // What the device didn't write is what was there.
                ensure!(buf[len..].iter().all(|byte| *byte == 0));
                rig.fill()?;
            }

            // Of a long one, some, and the rest is dropped.
            rig.into.receive(&pattern(1, 3 * BUF)?)?;
            rig.wait(8);
            let live = rig.sim.counters().live;
            ensure!(rig
                .rx
                .consumer
                .receive()
                .ok_or(EIO)?
                .take()
                .next()
                .is_some());
            ensure!(rig.sim.counters().live == live - 3);
            Ok(())
        });

        Ok(())
    }

    /// A buffer is taken against another one: if that can't be had or mapped, the frame is as it
    /// was, and the ring has all its buffers.
    #[test]
    fn replaces() -> Result {
        on_each!(Fate::after(0), |rig| {
            for turn in 0..3 * LEN as usize {
                let sent = pattern(turn, 100)?;

                rig.into.receive(&sent)?;
                rig.wait(2);

                let live = rig.sim.counters().live;
                let mut frame = rig.rx.consumer.receive().ok_or(EIO)?;
                let mut spare = rx_buf()?;

                spare[0] = 0xa5;

                if turn % 2 == 0 {
                    ensure!(holds(&frame, &sent));
                }
                if turn % 3 == 0 {
                    rig.sim.fail_map(1);

                    let Err(ErrorWith { error, value }) = frame.replace(spare) else {
                        return Err(EINVAL);
                    };

                    ensure!(error == ENOMEM && value.1[0] == 0xa5);
                    (frame, spare) = value;
                    ensure!(holds(&frame, &sent));
                }

                let Ok(buf) = frame.replace(spare) else {
                    return Err(EIO);
                };

                ensure!(buf[..100] == sent[..] && buf[100..].iter().all(|byte| *byte == 0));
                ensure!(rig.sim.counters().live == live);

                // Only the descriptor that was left free at first has no buffer.
                let filled = rig.rx.producer.refill((), || Err(ENOMEM));

                ensure!(filled == Err(ENOMEM));
                rig.rx.producer.kick()?;
                ensure!(rig.rx.consumer.posted() == LEN - 1);
            }

            // Of several segments: all, or the first two.
            for failing in [0, 3] {
                let sent = pattern(failing, 2 * BUF + 10)?;
                let mut all = KVec::new();
                let mut kept: Result = Ok(());
                let mut allocs = 0;

                rig.into.receive(&sent)?;
                rig.wait(8);

                let live = rig.sim.counters().live;
                let frame = rig.rx.consumer.receive().ok_or(EIO)?;
                let Err(ErrorWith {
                    error,
                    value: (frame, spare),
                }) = frame.replace(rx_buf()?)
                else {
                    return Err(EINVAL);
                };

                ensure!(error == EINVAL && spare[..] == [0; BUF]);
                ensure!(failing == 0 || holds(&frame, &sent));

                let replaced = frame.replace_each(
                    || {
                        allocs += 1;

                        if allocs == failing {
                            return Err(ENOMEM);
                        }
                        rx_buf()
                    },
                    |buf, len| {
                        kept =
                            kept.and_then(|()| Ok(all.extend_from_slice(&buf[..len], GFP_KERNEL)?));
                    },
                );

                kept?;
                ensure!(rig.sim.counters().live == live);

                if failing == 0 {
                    ensure!(replaced.is_ok() && all == sent);
                } else {
                    ensure!(replaced == Err(ENOMEM) && all[..] == sent[..2 * BUF]);
                }

                let _ = rig.rx.producer.refill((), || Err(ENOMEM));
                rig.rx.producer.kick()?;
                ensure!(rig.rx.consumer.posted() == LEN - 1);
            }

            // What has taken their places is received into.
            for seed in 0..LEN as usize {
                rig.into.receive(&pattern(seed, 70)?)?;
                rig.wait(2);
                ensure!(rig.receive()? == Some(pattern(seed, 70)?));
                rig.fill()?;
            }

            ensure!(rig.rx.consumer.malformed() == 0);
            Ok(())
        });

        Ok(())
    }

    /// Without memory a ring goes on with the buffers that it has, down to the last one, wherever
    /// they are.
    #[test]
    fn receives_without_memory() -> Result {
        on_each!(Fate::after(0), |rig| {
            let mut left = LEN - 1;
            let mut seed = 0;

            // All that are posted arrive; in each round one of them is taken, always another one.
            while left > 0 {
                let taken = (LEN - 1 - left) % left;
                let live = rig.sim.counters().live;

                for i in 0..left as usize {
                    rig.into.receive(&pattern(seed + i, 80)?)?;
                }
                rig.wait(20);

                for i in 0..left {
                    let frame = rig.rx.consumer.receive().ok_or(EIO)?;

                    ensure!(holds(&frame, &pattern(seed, 80)?));
                    seed += 1;

                    if i == taken && left > 1 {
                        frame.take().for_each(drop);
                    }
                }
                ensure!(rig.rx.consumer.posted() == 0);

                // Neither an allocation that fails, nor a mapping, costs more than itself.
                let filled = if left % 2 == 0 {
                    rig.rx.producer.refill((), || Err(ENOMEM))
                } else {
                    rig.sim.fail_map(1);
                    rig.rx.producer.refill((), rx_buf)
                };

                ensure!(filled == Err(ENOMEM));
                rig.rx.producer.kick()?;

                if left == 1 {
                    break;
                }

                left -= 1;
                ensure!(rig.sim.counters().live == live - 1);
                ensure!(rig.rx.consumer.posted() == left);
            }

            // With the last one, for three turns.
            for seed in 0..3 * LEN as usize {
                ensure!(rig.rx.consumer.posted() == 1);
                rig.into.receive(&pattern(seed, 90)?)?;
                rig.wait(2);
                ensure!(rig.receive()? == Some(pattern(seed, 90)?));
                ensure!(rig.rx.producer.refill((), || Err(ENOMEM)) == Err(ENOMEM));
                rig.rx.producer.kick()?;
            }

            // When there is memory again, all is as before.
            rig.fill()?;
            ensure!(rig.rx.consumer.posted() == LEN - 1);
            for seed in 0..2 * LEN as usize {
                rig.into.receive(&pattern(seed, 70)?)?;
                rig.wait(2);
                ensure!(rig.receive()? == Some(pattern(seed, 70)?));
                rig.fill()?;
            }

            ensure!(rig.rx.consumer.malformed() == 0);
            Ok(())
        });

        Ok(())
    }

    /// The first look syncs, each segment once; what nobody looked at is not synced, and what is
    /// taken is there as a whole, seen before or not.
    #[test]
    fn looks() -> Result {
        on_each!(Fate::after(0), |rig| {
            let sim = rig.sim;
            let before = sim.counters().syncs_for_cpu;
            let syncs = || sim.counters().syncs_for_cpu - before;

            for seed in 0..7 {
                rig.into.receive(&pattern(seed, 100)?)?;
            }
            rig.wait(20);

            drop(rig.rx.consumer.receive());
            ensure!(rig.rx.consumer.receive_each(1, |_| {}) == 1);
            ensure!(syncs() == 0);

            let frame = rig.rx.consumer.receive().ok_or(EIO)?;
            ensure!(frame.bytes() == Some(&pattern(2, 100)?));
            ensure!(holds(&frame, &pattern(2, 100)?));
            drop(frame);
            ensure!(syncs() == 1);

            for (seed, look) in [(3, true), (4, false)] {
                let frame = rig.rx.consumer.receive().ok_or(EIO)?;
                ensure!(!look || holds(&frame, &pattern(seed, 100)?));
                let Ok(buf) = frame.take_single() else {
                    return Err(EIO);
                };
                ensure!(buf[..100] == pattern(seed, 100)?[..]);
                ensure!(buf[100..].iter().all(|byte| *byte == 0));
            }

            // Where slots aren't given back one by one, each frame is found in its own.
            let mut right = true;
            let mut seed = 5;

            rig.rx.consumer.receive_each(2, |frame| {
                let sent = pattern(seed, 100).unwrap_or_default();

                // A second look isn't the first.
                if seed == 6 {
                    right &= frame.bytes() == Some(&sent) && frame.bytes() == Some(&sent);
                }
                right &= frame.take_single().is_ok_and(|buf| buf[..100] == sent[..]);
                seed += 1;
            });
            ensure!(right && seed == 7);

            rig.fill()?;
            rig.into.receive(&pattern(7, 2 * BUF)?)?;
            rig.wait(8);

            let seen = syncs();
            let frame = rig.rx.consumer.receive().ok_or(EIO)?;
            let Err(frame) = frame.take_single() else {
                return Err(EIO);
            };
            ensure!(syncs() == seen);
            ensure!(holds(&frame, &pattern(7, 2 * BUF)?));
            ensure!(syncs() == seen + 2);

            let mut all = KVec::new();
            for (buf, len) in frame.take() {
                all.extend_from_slice(&buf[..len], GFP_KERNEL)?;
            }
            ensure!(all == pattern(7, 2 * BUF)?);
            ensure!(rig.rx.consumer.malformed() == 0);
            Ok(())
        });

        Ok(())
    }

    /// Whatever is forgotten, nothing is freed too early and nothing is handed out twice.
    #[test]
    fn forgets() -> Result {
        on_each!(Fate::after(0), |rig| {
            rig.into.receive(&pattern(1, 10)?)?;
            rig.into.receive(&pattern(2, 20)?)?;
            rig.into.receive(&pattern(3, 2 * BUF)?)?;
            rig.post(&pattern(4, 40)?)?;
            rig.post(&pattern(5, 50)?)?;
            rig.tx.producer.kick()?;
            rig.wait(20);

            // A frame that was forgotten is still there.
            forget(rig.rx.consumer.receive());
            ensure!(rig.receive()? == Some(pattern(1, 10)?));

            // Of one that was being taken, what is left: nothing.
            let mut taken = rig.rx.consumer.receive().ok_or(EIO)?.take();
            ensure!(taken.next().is_some());
            forget(taken);
            ensure!(rig.receive()? == Some(pattern(3, 2 * BUF)?));
            ensure!(rig.rx.consumer.malformed() == 1);
            rig.fill()?;

            forget(rig.tx.consumer.reap());
            ensure!(rig.reap()? == Some(pattern(4, 40)?));
            let mut taken = rig.tx.consumer.reap().ok_or(EIO)?;
            ensure!(taken.next() == Some(pattern(5, 50)?));
            forget(taken);
            ensure!(rig.reap()? == Some(KVec::new()));
            ensure!(rig.reap()?.is_none());
            ensure!(rig.tx.producer.refresh() == LEN - 1);

            rig.post(&pattern(6, 60)?)?;
            rig.tx.producer.kick()?;
            rig.wait(20);
            let mut taken = rig.tx.consumer.reap().ok_or(EIO)?;
            ensure!(taken.next() == Some(pattern(6, 60)?));
            forget(taken);
            let mut twice = 0;
            ensure!(rig.tx.consumer.reap_each(|_| twice += 1) == 1 && twice == 0);
            ensure!(rig.tx.producer.refresh() == LEN - 1);
            Ok(())
        });

        Ok(())
    }

    /// A stopped device gets nothing new; when it starts again it is given the ring anew, and what
    /// it didn't send comes back.
    #[test]
    #[slow]
    fn stops_and_starts() -> Result {
        on_each!(Fate::after(5), |rig| {
            rig.post(&pattern(1, 40)?)?;
            rig.tx.producer.kick()?;

            // The device may still access it.
            ensure!(rig.tx.start(drop) == Err(EBUSY));
            ensure!(rig.tx.drain(drop) == Err(EBUSY));
            ensure!(rig.tx.resize(16, drop) == Err(EBUSY));
            ensure!(rig.tx.producer.len() == LEN);

            ensure!(rig.session.stop() == StopOutcome::Stopped);

            let refuses = |rig: &mut Rig<'_, '_, _>| -> Result {
                let posted = rig.tx.producer.post(pattern(2, 41)?, ());

                ensure!(posted.is_ok() != rig.by_own_bit());

                match posted {
                    // By the tail: it is kept, but not shown.
                    Ok(()) => ensure!(rig.tx.producer.kick() == Err(ESHUTDOWN)),
                    Err(e) => ensure!(e.error == ESHUTDOWN && e.value == pattern(2, 41)?),
                }
                Ok(())
            };

            refuses(rig)?;
            ensure!(rig.tx.consumer.is_stopped());
            ensure!(rig.tx.start(drop) == Err(ESHUTDOWN));
            rig.session.start()?;

            // It has forgotten the ring.
            ensure!(rig.tx.consumer.is_stopped());
            refuses(rig)?;

            let mut back = 0;
            rig.start(|_| back += 1)?;
            ensure!(back > 0 && !rig.tx.consumer.is_stopped());
            ensure!(rig.out.next_sent().is_none());

            for seed in 0..30 {
                rig.post(&pattern(seed, 40)?)?;
                rig.tx.producer.kick()?;
                rig.into.receive(&pattern(seed, 41)?)?;
                rig.wait(20);
                ensure!(rig.out.next_sent() == Some(pattern(seed, 40)?));
                ensure!(rig.reap()? == Some(pattern(seed, 40)?));
                ensure!(rig.receive()? == Some(pattern(seed, 41)?));
                rig.fill()?;
            }

            Ok(())
        });

        Ok(())
    }

    /// A ring changes its size when the device has stopped; what is in it comes back.
    #[test]
    #[slow]
    fn resizes() -> Result {
        on_each!(Fate::after(5), |rig| {
            for len in [2, 64, 8] {
                while rig.tx.producer.refresh() > 0 {
                    rig.post(&pattern(1, 40)?)?;
                }
                rig.tx.producer.kick()?;
                let posted = rig.tx.producer.len() - 1;

                ensure!(rig.session.stop() == StopOutcome::Stopped);
                ensure!(rig.tx.resize(len + 1, drop) == Err(EINVAL));

                let (mut sent, mut received) = (0, 0);
                rig.tx.resize(len, |_| sent += 1)?;
                rig.rx.resize(len, |_| received += 1)?;
                // One more if the free slot had its turn.
                ensure!(sent == posted && (posted..=posted + 1).contains(&received));
                ensure!(rig.tx.producer.len() == len);

                rig.session.start()?;
                rig.start(drop)?;
                rig.post(&pattern(9, 40)?)?;
                rig.tx.producer.kick()?;
                rig.into.receive(&pattern(8, 41)?)?;
                rig.wait(30);
                ensure!(rig.out.next_sent() == Some(pattern(9, 40)?));
                ensure!(rig.reap()? == Some(pattern(9, 40)?));
                ensure!(rig.receive()? == Some(pattern(8, 41)?));
                rig.fill()?;
            }

            Ok(())
        });

        Ok(())
    }

    /// When a device starts again, the buffers that it is to write are where they were; what had
    /// arrived of a frame is not.
    #[test]
    fn keeps_buffers() -> Result {
        on_each!(Fate::after(0), |rig| {
            let before = rig.sim.counters();

            rig.restart()?;

            let after = rig.sim.counters();

            ensure!(after.maps == before.maps && after.unmaps == before.unmaps);
            rig.into.receive(&pattern(1, 50)?)?;
            rig.wait(2);
            ensure!(rig.receive()? == Some(pattern(1, 50)?));
            Ok(())
        });

        for model in Model::ALL {
            with_rig::<ByTail>(Script::new(model), LEN, |rig| {
                rig.use_up()?;
                rig.into.then(Fate::after(0).ends(false))?;
                rig.fill()?;
                rig.into.receive(&pattern(1, 50)?)?;
                rig.wait(2);
                ensure!(rig.receive()?.is_none());

                rig.restart()?;
                rig.into.receive(&pattern(2, 60)?)?;
                rig.wait(2);
                ensure!(rig.receive()? == Some(pattern(2, 60)?));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Descriptors aren't used again as long as somebody looks at the frame that was in them.
    #[test]
    fn slots_in_use() -> Result {
        on_each!(Fate::after(0), |rig| {
            for seed in 0..LEN as usize - 1 {
                rig.post(&pattern(seed, 40)?)?;
            }
            rig.tx.producer.kick()?;
            rig.into.receive(&pattern(1, 40)?)?;
            rig.wait(20);

            let mut taken = rig.tx.consumer.reap().ok_or(EIO)?;
            ensure!(rig.tx.producer.refresh() == 0);
            ensure!(taken.next() == Some(pattern(0, 40)?));
            ensure!(rig.tx.producer.refresh() == 0);
            drop(taken);
            ensure!(rig.tx.producer.refresh() == 1);

            let frame = rig.rx.consumer.receive().ok_or(EIO)?;
            ensure!(rig.rx.producer.refresh() == 0);
            ensure!(frame.bytes() == Some(&pattern(1, 40)?[..]));
            frame.recycle();
            ensure!(rig.rx.producer.refresh() == 1);
            Ok(())
        });

        Ok(())
    }

    /// A descriptor is made of what it is said to be.
    #[test]
    fn parts() -> Result {
        fn on<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
            let dma = Mapper::get(pdev.as_ref().bound())?;
            let stopper = RingStopper([RingConsumer::new(sim)?]);
            let session: Session<'a, ()> =
                Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
            let mut ring = Ring::<_, KVec<u8>>::new(dma, Watched::new(pdev.as_ref()), LEN)?;

            session.start()?;
            ring.start(drop)?;
            ring.producer.post(pattern(1, 40)?, 0x10)?;

            let mut chain = ring.producer.new_chain();

            chain.push(pattern(2, 41)?, 0x20)?;
            chain.push_context(0x30)?;
            chain.push(pattern(3, 42)?, 0x40)?;
            chain.commit()?;
            ring.producer.kick()?;

            for (i, (seed, len, flags)) in [
                (1, 40, 0x10 | Told::FIRST | Told::LAST),
                (2, 41, 0x20 | Told::FIRST),
                (0, 0, 0x30),
                (3, 42, 0x40 | Told::LAST),
            ]
            .into_iter()
            .enumerate()
            {
                let mut told = Told::default();
                // CAST: Small.
                let at = ring.producer.queue().base + 16 * i as DmaAddress;

                // SAFETY: The CPU writes nothing there.
                ensure!(unsafe { sim.device_read(at, told.as_mut_bytes()) });
                // CAST: Small.
                ensure!(told.len == len as u32 && told.flags == flags);

                let mut bytes = pattern(0, len)?;

                // SAFETY: As above.
                ensure!(len == 0 || unsafe { sim.device_read(told.address, &mut bytes) });
                ensure!((told.address == 0) == (len == 0) && bytes == pattern(seed, len)?);
            }

            ensure!(session.stop() == StopOutcome::Stopped);
            Ok(())
        }

        sim::run_on_each(Script::new(Model::Coherent), on)
    }

    /// A device that is stopped isn't given a ring; one that refuses it knows nothing of it.
    #[test]
    fn refused() -> Result {
        fn on<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
            let dma = Mapper::get(pdev.as_ref().bound())?;
            let stopper = RingStopper([RingConsumer::new(sim)?]);
            let session: Session<'a, ()> =
                Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
            let (live, kept) = (sim.counters().live, quarantined());
            let queue = || Watched {
                refusals: 1,
                ..Watched::new(pdev.as_ref())
            };
            let mut ring = Ring::<_, KVec<u8>>::new(dma, queue(), LEN)?;

            session.start()?;
            ensure!(session.stop() == StopOutcome::Stopped);
            ensure!(ring.start(drop) == Err(ESHUTDOWN));
            ensure!(ring.producer.queue().starts == 0);

            session.start()?;
            ensure!(ring.start(drop) == Err(EIO));
            ring.producer.post(pattern(1, 40)?, 0)?;
            ensure!(ring.producer.kick() == Err(ESHUTDOWN));

            let mut back = 0;
            ring.start(|_| back += 1)?;
            ensure!(back == 1 && ring.producer.queue().starts == 2);

            // What was refused, and not started then, is freed at once.
            let mut other = Ring::<_, KVec<u8>>::new(dma, queue(), LEN)?;

            ensure!(other.start(drop) == Err(EIO));
            other.producer.post(pattern(1, 40)?, 0)?;
            drop(other);
            ensure!(quarantined() == kept);

            ensure!(session.stop() == StopOutcome::Stopped);
            drop(ring);
            ensure!(sim.counters().live == live && quarantined() == kept);
            Ok(())
        }

        sim::run_on_each(Script::new(Model::Coherent), on)
    }

    /// Blocks of a pool and buffers go together, both ways.
    #[test]
    fn fragments() -> Result {
        type Head = [u8; 16];
        type Small = [u8; 64];

        fn on<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
            let dma = Mapper::get(pdev.as_ref().bound())?;
            let heads = Pool::<Head>::new(pdev.as_ref(), c"heads")?;
            let smalls = Pool::<Small>::new(pdev.as_ref(), c"smalls")?;
            let out = RingConsumer::new(sim)?;
            let into = RingConsumer::new(sim)?;
            let stopper = RingStopper([out.clone(), into.clone()]);
            let session: Session<'a, ()> =
                Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;

            session.start()?;
            // So that there are pages for all of them.
            drop((heads.alloc(GFP_KERNEL)?, smalls.alloc(GFP_KERNEL)?));

            let live = sim.counters().live;
            let mut tx = Ring::<_, Fragment<'a, _, Head>>::new(dma, Sender(out.clone()), LEN)?;

            tx.start(drop)?;

            // More than one turn.
            for seed in 0..LEN as usize {
                let mut head = heads.alloc(GFP_KERNEL)?;
                let mut frame = tx.producer.new_chain();
                let mut all = KVec::new();

                head.copy_from_slice(&pattern(seed, 16)?);
                all.extend_from_slice(&*head, GFP_KERNEL)?;
                all.extend_from_slice(&pattern(seed + 1, 70)?, GFP_KERNEL)?;
                frame.push(Fragment::Block(head), ())?;
                frame.push(Fragment::Buffer(pattern(seed + 1, 70)?), ())?;
                frame.commit()?;
                tx.producer.kick()?;
                sim.advance(4);
                ensure!(out.next_sent() == Some(bytes(&all)?));

                let mut segments = tx.consumer.reap().ok_or(EIO)?;

                ensure!(matches!(
                    segments.next(),
                    Some(Fragment::Block(head)) if head[..] == pattern(seed, 16)?[..]
                ));
                ensure!(matches!(
                    segments.next(),
                    Some(Fragment::Buffer(body)) if body == pattern(seed + 1, 70)?
                ));
                ensure!(segments.next().is_none());
                drop(segments);
                // The ring itself.
                ensure!(sim.counters().live == live + 1);
            }

            let queue = Receiver(into.clone());
            let mut rx = Ring::<_, Fragment<'a, RxBuf, Small>>::new(dma, queue, 4)?;
            let mut filled = 0;
            let mut fill = |rx: &mut Ring<'a, Receiver, Fragment<'a, RxBuf, Small>>| {
                rx.producer.refill((), || {
                    filled += 1;

                    if filled % 2 == 1 {
                        Ok(Fragment::Block(smalls.alloc(GFP_KERNEL)?))
                    } else {
                        Ok(Fragment::Buffer(rx_buf()?))
                    }
                })?;
                rx.producer.kick()
            };

            rx.start(drop)?;
            fill(&mut rx)?;

            // A block, a buffer, and a block: by turns they are taken, and left.
            for turn in 0..8_usize {
                let sent = pattern(turn, 1 + 64 + BUF)?;
                let mut all = KVec::with_capacity(sent.len(), GFP_KERNEL)?;

                into.receive(&sent)?;
                sim.advance(8);

                let frame = rx.consumer.receive().ok_or(EIO)?;

                for segment in frame.segments() {
                    all.extend_from_slice(segment, GFP_KERNEL)?;
                }
                ensure!(all == sent && frame.len() == sent.len());

                let mapped = sim.counters().live;

                if turn % 2 == 0 {
                    let mut buffers = 0;

                    for segment in frame.take() {
                        match segment.0 {
                            Fragment::Block(_) => {}
                            Fragment::Buffer(_) => buffers += 1,
                        }
                    }
                    ensure!(buffers > 0 && sim.counters().live == mapped - buffers);
                } else {
                    frame.recycle();
                    ensure!(sim.counters().live == mapped);
                }
                fill(&mut rx)?;
            }

            ensure!(session.stop() == StopOutcome::Stopped);
            drop((tx, rx));
            ensure!(sim.counters().live == live);
            Ok(())
        }

        sim::run_on_each(Script::new(Model::Coherent).weak_order(true), on)
    }

    /// A ring that is dropped while the device may access it is kept until the device has stopped.
    #[test]
    fn dropped_in_flight() -> Result {
        for model in Model::ALL {
            sim::run(Script::new(model).fate(Fate::after(9)), |pdev, sim| {
                let dma = Mapper::get(pdev.as_ref().bound())?;
                let nic = RingConsumer::new(sim)?;
                let stopper = RingStopper([nic.clone()]);
                let session: Session<'_, ()> =
                    Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
                let live = sim.counters().live;
                let (kept, lost) = (quarantined(), leaked());

                // One that the device wasn't told of goes at once.
                let mut tx = Ring::new(dma, Sender(nic.clone()), LEN)?;
                tx.producer.post(pattern(1, 40)?, ())?;
                drop(tx);
                ensure!(sim.counters().live == live && quarantined() == kept);

                session.start()?;

                let mut tx = Ring::new(dma, Sender(nic.clone()), LEN)?;
                tx.start(drop)?;
                tx.producer.post(pattern(1, 40)?, ())?;
                tx.producer.kick()?;

                let Ring { producer, consumer } = tx;

                drop(consumer);
                ensure!(quarantined() == kept);
                drop(producer);
                ensure!(quarantined() == kept + 1);
                ensure!(sim.counters().live == live + 2);

                // The device works on.
                sim.advance(20);
                ensure!(nic.next_sent() == Some(pattern(1, 40)?));
                ensure!(sim.counters().live == live + 2);

                ensure!(session.stop() == StopOutcome::Stopped);
                ensure!(sim.counters().live == live && leaked() == lost);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Halves of different rings don't go together; and a ring has a power of two of descriptors.
    #[test]
    fn strangers() -> Result {
        sim::run(Script::new(Model::Coherent), |pdev, sim| {
            let dma = crate::dma::fixture::open(pdev.as_ref().bound())?;
            let nic = RingConsumer::new(sim)?;
            let mut one = Ring::<_, KVec<u8>>::new(dma, Sender(nic.clone()), LEN)?;
            let mut other = Ring::<_, KVec<u8>>::new(dma, Sender(nic), LEN)?;

            ensure!(one.producer.start(&mut other.consumer, drop) == Err(EINVAL));
            ensure!(other.producer.resize(&mut one.consumer, 4, drop) == Err(EINVAL));

            // Nor does the queue of another device.
            let another = faux::Registration::new(c"dma_test_other", None)?;
            let another: &faux::Device<_> = another.as_ref();
            let another: &Device<Bound> = another.as_ref();
            let ring = Ring::<_, KVec<u8>>::new(dma, Watched::new(another), LEN);

            ensure!(matches!(ring, Err(e) if e == EINVAL));
            Ok(())
        })?;

        for len in [0, 1, 3, 12, 1 << 16, u32::MAX] {
            sim::run(Script::new(Model::Coherent), |pdev, sim| {
                let dma = Mapper::get(pdev.as_ref().bound())?;
                let ring = Ring::<_, KVec<u8>>::new(dma, Sender(RingConsumer::new(sim)?), len);

                ensure!(matches!(ring, Err(e) if e == EINVAL));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// What the device says of lengths and ends is checked; the buffers are used again.
    #[test]
    fn malformed() -> Result {
        for model in Model::ALL {
            with_rig::<ByTail>(Script::new(model), LEN, |rig| {
                // A descriptor has its fate when the device is told of it.
                rig.use_up()?;
                rig.into.then(Fate::after(0).reports(BUF + 1))?;
                rig.into.then(Fate::after(0).reports(usize::MAX))?;
                rig.into.then(Fate::after(0).reports(BUF))?;
                rig.fill()?;

                for seed in 1..5 {
                    rig.into.receive(&pattern(seed, 50)?)?;
                }
                rig.wait(20);
                ensure!(rig.receive()?.ok_or(EIO)?.len() == BUF);
                ensure!(rig.receive()? == Some(pattern(4, 50)?));
                ensure!(rig.rx.consumer.malformed() == 2);
                rig.fill()?;

                // Those after it are found where they are, together, too.
                rig.use_up()?;
                rig.into.then(Fate::after(0).reports(BUF + 1))?;
                rig.fill()?;
                for seed in 1..4 {
                    rig.into.receive(&pattern(seed, 50)?)?;
                }
                rig.wait(20);

                let mut next = 2;
                let mut right = true;
                let count = rig.rx.consumer.receive_each(9, |frame| {
                    right &= pattern(next, 50).is_ok_and(|sent| holds(&frame, &sent));
                    next += 1;
                });

                ensure!(count == 2 && right);
                ensure!(rig.rx.consumer.malformed() == 3);
                rig.fill()?;

                // Frames without an end: when all descriptors are used up, they go.
                rig.use_up()?;
                for _ in 0..LEN - 1 {
                    rig.into.then(Fate::after(0).ends(false))?;
                }
                rig.fill()?;
                for seed in 0..LEN as usize - 1 {
                    rig.into.receive(&pattern(seed, 50)?)?;
                }
                rig.wait(20);
                ensure!(rig.receive()?.is_none());
                ensure!(rig.rx.consumer.malformed() == 4);
                ensure!(rig.rx.producer.refresh() == LEN - 1);
                rig.fill()?;

                rig.into.receive(&pattern(7, 50)?)?;
                rig.wait(20);
                ensure!(rig.receive()? == Some(pattern(7, 50)?));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// A device that says that it is done, and leaves an own bit set, isn't believed: when it comes
    /// round it obeys the bit, and finds what it was given.
    #[test]
    fn done_and_its_own() -> Result {
        fn on<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
            let dma = Mapper::get(pdev.as_ref().bound())?;
            let stopper = RingStopper([RingConsumer::new(sim)?]);
            let session: Session<'a, ()> =
                Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;

            for own in [Lent::OWN, Lent::BUSY] {
                let queue = Lender {
                    dev: pdev.as_ref().into(),
                    base: 0,
                };
                let mut ring = Ring::<_, KVec<u8>>::new(dma, queue, 4)?;

                session.start()?;
                ring.start(drop)?;

                ring.producer.post(pattern(1, 40)?, ())?;
                ring.producer.post(pattern(2, 40)?, ())?;
                ensure!(ring.producer.queue().come_to(sim, 0, Lent::DONE | own));
                ensure!(ring.producer.queue().come_to(sim, 1, Lent::DONE));
                ensure!(ring.consumer.reap().is_none());
                ensure!(ring.consumer.reap_each(drop) == 0);

                // Nor does it come round through the descriptor that is never used.
                ring.producer.post(pattern(3, 40)?, ())?;
                ensure!(ring.producer.queue().come_to(sim, 2, Lent::DONE));
                ensure!(ring.producer.refresh() == 0);
                ensure!(!ring.producer.queue().come_to(sim, 3, Lent::DONE));

                let again = ring.producer.queue().come_to(sim, 0, Lent::DONE);

                ensure!(again == (own == Lent::OWN) && sim.take_faults()?.is_empty());
                ensure!(ring.consumer.reap_each(drop) == if again { 3 } else { 0 });

                ensure!(session.stop() == StopOutcome::Stopped);
                // Nobody reads what came back: all words are cleared.
                ring.drain(drop)?;
                for at in 0..4 {
                    let mut lent = Lent::default();
                    let place = ring.producer.queue().base + 16 * at;

                    // SAFETY: The CPU writes nothing there.
                    ensure!(unsafe { sim.device_read(place, lent.as_mut_bytes()) });
                    ensure!(lent == Lent::default());
                }
            }

            Ok(())
        }

        sim::run_on_each(Script::new(Model::Coherent), on)
    }

    /// The same of frames in several descriptors, sent and received: until the device is stopped.
    #[test]
    fn kept_by_the_device() -> Result {
        for model in Model::ALL {
            let script = Script::new(model).fate(Fate::after(0)).weak_order(true);

            with_rig::<ByOwnBit>(script, LEN, |rig| {
                for kept in 0..4 {
                    for i in 0..3 {
                        rig.out.then(if i == kept {
                            Fate::after(0).keeps()
                        } else {
                            Fate::after(0)
                        })?;
                    }

                    let mut chain = rig.tx.producer.new_chain();

                    chain.push(pattern(1, 10)?, ())?;
                    chain.push(pattern(2, 11)?, ())?;
                    chain.push(pattern(3, 12)?, ())?;
                    chain.commit()?;
                    rig.tx.producer.kick()?;
                    rig.wait(20);
                    ensure!(rig.out.next_sent().ok_or(EIO)?.len() == 33);
                    ensure!(rig.out.next_sent().is_none());

                    let mut back = 0;

                    if kept < 3 {
                        ensure!(rig.reap()?.is_none());
                        ensure!(rig.tx.consumer.reap_each(drop) == 0);
                    } else {
                        ensure!(rig.tx.consumer.reap_each(|_| back += 1) == 1);
                    }

                    ensure!(rig.session.stop() == StopOutcome::Stopped);
                    rig.session.start()?;
                    rig.start(|_| back += 1)?;
                    ensure!(back == 3);
                }

                // It is in the second of three.
                rig.use_up()?;
                rig.into.then(Fate::after(0))?;
                rig.into.then(Fate::after(0).keeps())?;
                rig.fill()?;
                rig.into.receive(&pattern(1, 3 * BUF)?)?;
                rig.into.receive(&pattern(2, 20)?)?;
                rig.wait(20);
                ensure!(rig.receive()?.is_none());
                ensure!(rig.rx.consumer.receive_each(9, |_| {}) == 0);
                ensure!(rig.rx.consumer.malformed() == 0);

                rig.restart()?;
                rig.into.receive(&pattern(3, 30)?)?;
                rig.wait(4);
                ensure!(rig.receive()? == Some(pattern(3, 30)?));
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Where the length of a frame is that of all its buffers, those before the last are full.
    #[test]
    fn whole_lengths() -> Result {
        for model in Model::ALL {
            let script = Script::new(model).fate(Fate::after(0)).weak_order(true);

            with_rig::<ByWhole>(script, LEN, |rig| {
                for turn in 0..24_usize {
                    let len = 1 + (turn * 97) % ((LEN as usize - 1) * BUF);

                    rig.into.receive(&pattern(turn, len)?)?;
                    rig.into.receive(&pattern(turn + 1, 5)?)?;
                    rig.wait(20);
                    ensure!(rig.receive()? == Some(pattern(turn, len)?));
                    rig.fill()?;
                    rig.wait(20);

                    let mut right = false;
                    let sent = pattern(turn + 1, 5)?;

                    ensure!(
                        rig.rx
                            .consumer
                            .receive_each(9, |f| right = holds(&f, &sent))
                            == 1
                    );
                    ensure!(right);
                    rig.fill()?;
                }
                ensure!(rig.rx.consumer.malformed() == 0);

                // Of a frame in three buffers, what there can be; and of one in a single buffer.
                let mut malformed = 0;

                for (said, segments) in [
                    (0, 3),
                    (1, 3),
                    (2 * BUF - 1, 3),
                    (2 * BUF, 3),
                    (2 * BUF + 1, 3),
                    (3 * BUF, 3),
                    (3 * BUF + 1, 3),
                    (usize::MAX, 3),
                    (0, 1),
                    (13, 1),
                    (BUF, 1),
                    (BUF + 1, 1),
                    (usize::MAX, 1),
                ] {
                    rig.use_up()?;

                    for _ in 1..segments {
                        rig.into.then(Fate::after(0))?;
                    }
                    rig.into.then(Fate::after(0).reports(said))?;
                    rig.fill()?;
                    rig.into.receive(&pattern(1, (segments - 1) * BUF + 20)?)?;
                    rig.into.receive(&pattern(2, 30)?)?;
                    rig.wait(20);

                    if said >= (segments - 1) * BUF && said <= segments * BUF && said != 13 {
                        let frame = rig.rx.consumer.receive().ok_or(EIO)?;

                        ensure!(frame.len() == said && frame.count() as usize == segments);
                        ensure!(frame.segments().map(<[u8]>::len).sum::<usize>() == said);
                        ensure!(frame
                            .segments()
                            .take(segments - 1)
                            .all(|segment| segment.len() == BUF));
                    } else {
                        malformed += 1;
                    }
                    ensure!(rig.receive()? == Some(pattern(2, 30)?));
                    ensure!(rig.rx.consumer.malformed() == malformed);
                    rig.fill()?;
                }

                Ok(())
            })?;
        }

        Ok(())
    }

    /// What the device calls bad is counted, and handed out if the driver asks for it; by itself,
    /// and if the device says so of one buffer of several.
    #[test]
    fn bad_frames() -> Result {
        on_each!(Fate::after(0), |rig| {
            let mut bad = 0;

            for asked in [false, true, false] {
                rig.rx.consumer.receive_bad(asked);

                for (len, at) in [(50, 0), (3 * BUF, 0), (3 * BUF, 1), (3 * BUF, 2)] {
                    for each in [false, true] {
                        let sent = pattern(at, len)?;

                        rig.use_up()?;

                        for i in 0..len.div_ceil(BUF) {
                            rig.into.then(if i == at {
                                Fate::after(0).bad()
                            } else {
                                Fate::after(0)
                            })?;
                        }
                        rig.fill()?;
                        rig.into.receive(&sent)?;
                        rig.into.receive(&pattern(9, 60)?)?;
                        rig.wait(20);
                        bad += 1;

                        let mut frames = 0;
                        let mut right = true;
                        let mut look = |is_bad: bool, holds: &dyn Fn(&[u8]) -> bool| {
                            frames += 1;
                            right &= if asked && frames == 1 {
                                is_bad && holds(&sent)
                            } else {
                                !is_bad && pattern(9, 60).is_ok_and(|good| holds(&good))
                            };
                        };

                        if each {
                            rig.rx.consumer.receive_each(9, |frame| {
                                look(frame.is_bad(), &|bytes| holds(&frame, bytes));
                            });
                        } else {
                            while let Some(frame) = rig.rx.consumer.receive() {
                                look(frame.is_bad(), &|bytes| holds(&frame, bytes));
                            }
                        }

                        ensure!(right && frames == 1 + i32::from(asked));
                        ensure!(rig.rx.consumer.bad() == bad);
                        rig.fill()?;
                    }
                }
            }

            // One that can't be isn't handed out, and is bad.
            rig.rx.consumer.receive_bad(true);
            rig.use_up()?;
            rig.into.then(Fate::after(0).bad().reports(BUF + 1))?;
            rig.fill()?;
            rig.into.receive(&pattern(1, 50)?)?;
            rig.into.receive(&pattern(2, 60)?)?;
            rig.wait(20);
            ensure!(rig.receive()? == Some(pattern(2, 60)?));
            ensure!(rig.rx.consumer.bad() == bad + 1 && rig.rx.consumer.malformed() == 0);
            Ok(())
        });

        Ok(())
    }

    /// Sent descriptors can be looked at, as long as what was in them is there.
    #[test]
    fn sent_descriptors() -> Result {
        for model in Model::ALL {
            let script = Script::new(model).fate(Fate::after(0)).weak_order(true);

            with_rig::<ByTail>(script, LEN, |rig| {
                for turn in 0..2 * LEN {
                    for len in [10, 77, 12] {
                        rig.out.then(Fate::after(0).reports(len))?;
                    }
                    rig.out.then(Fate::after(0).bad())?;

                    let mut chain = rig.tx.producer.new_chain();

                    chain.push(pattern(1, 10)?, ())?;
                    chain.push_context(())?;
                    chain.push(pattern(2, 11)?, ())?;
                    chain.commit()?;
                    rig.post(&pattern(3, 14)?)?;
                    rig.tx.producer.kick()?;
                    rig.wait(4);

                    let len = |said: Received| match said.len {
                        Length::Segment(len) | Length::Frame(len) => len.validate(Ok),
                    };
                    let mut segments = rig.tx.consumer.reap().ok_or(EIO)?;

                    for i in 0..3 {
                        let last = segments.descriptor().validate(|last| Ok(last.received()))?;

                        ensure!(len(last)? == 12 && last.verdict == Verdict::Good && last.last);
                        ensure!(segments.next().is_some() == (i < 2));
                    }
                    drop(segments);

                    let segments = rig.tx.consumer.reap().ok_or(EIO)?;
                    let last = segments.descriptor().validate(|last| Ok(last.received()))?;

                    ensure!(len(last)? == 14 && last.verdict == Verdict::Bad);
                    drop(segments);
                    ensure!(rig.reap()?.is_none() && turn < 2 * LEN);
                }

                Ok(())
            })?;
        }

        Ok(())
    }

    /// What a descriptor can't name comes back, and isn't mapped.
    #[test]
    fn too_long_segments() -> Result {
        fn on<'a>(pdev: &platform::Device<Core<'a>>, sim: &Arc<Sim>) -> Result {
            let dma = Mapper::get(pdev.as_ref().bound())?;
            let stopper = RingStopper([RingConsumer::new(sim)?]);
            let session: Session<'a, ()> =
                Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;

            session.start()?;

            let live = sim.counters().live;
            let mut tx = Ring::<_, KVec<u8>>::new(dma, Watched::new(pdev.as_ref()), LEN)?;

            tx.start(drop)?;

            let refused = tx.producer.post(pattern(1, Told::MAX_LEN + 1)?, 0);

            ensure!(matches!(refused, Err(e) if e.error == EOVERFLOW
                && e.value == pattern(1, Told::MAX_LEN + 1)?));

            let mut chain = tx.producer.new_chain();

            chain.push(pattern(2, Told::MAX_LEN)?, 0)?;

            let refused = chain.push(pattern(3, Told::MAX_LEN + 1)?, 0);

            ensure!(matches!(refused, Err(e) if e.error == EOVERFLOW));
            ensure!(chain.len() == 1);
            drop(chain);
            // The ring itself.
            ensure!(sim.counters().live == live + 1);
            ensure!(session.stop() == StopOutcome::Stopped);
            Ok(())
        }

        sim::run_on_each(Script::new(Model::Coherent), on)?;

        for model in Model::ALL {
            sim::run(Script::new(model), |pdev, sim| {
                let dma = Mapper::get(pdev.as_ref().bound())?;
                let nic = RingConsumer::new(sim)?;
                let stopper = RingStopper([nic.clone()]);
                let session: Session<'_, ()> =
                    Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
                let queue = WholeReceiver(Receiver(nic.clone()));
                let mut rx = Ring::<_, KVec<u8>>::new(dma, queue, 4)?;
                let buf = |len: usize| pattern(0, len);

                session.start()?;
                rx.start(drop)?;

                let mut lens = [BUF, BUF + 1].into_iter();
                let filled = rx.producer.refill((), || buf(lens.next().ok_or(ENOMEM)?));

                ensure!(filled == Err(EOVERFLOW));
                rx.producer.kick()?;
                ensure!(rx.consumer.posted() == 1);

                nic.receive(&pattern(1, 50)?)?;
                sim.advance(2);

                let live = sim.counters().live;
                let frame = rx.consumer.receive().ok_or(EIO)?;
                let Err(ErrorWith {
                    error,
                    value: (frame, spare),
                }) = frame.replace(buf(BUF + 1)?)
                else {
                    return Err(EINVAL);
                };

                ensure!(error == EOVERFLOW && spare.len() == BUF + 1);
                ensure!(frame.bytes() == Some(&pattern(1, 50)?[..]));
                frame.recycle();
                ensure!(sim.counters().live == live);
                ensure!(session.stop() == StopOutcome::Stopped);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// A device that says more of a frame after it was received isn't believed.
    #[test]
    fn says_more_later() -> Result {
        for model in Model::ALL {
            with_rig::<ByTail>(Script::new(model), LEN, |rig| {
                // The next descriptors are the last of the ring, and the first.
                rig.use_up()?;
                rig.into.then(Fate::after(0))?;
                rig.into
                    .then(Fate::after(0).reports(BUF).reports_at(LEN as usize - 1))?;
                rig.fill()?;
                rig.into.receive(&pattern(1, 50)?)?;
                rig.wait(2);

                let frame = rig.rx.consumer.receive().ok_or(EIO)?;

                rig.into.receive(&pattern(2, 60)?)?;
                rig.sim.advance(2);
                ensure!(frame.len() == 50);
                ensure!(frame.segments().map(<[u8]>::len).sum::<usize>() <= 50);
                ensure!(frame.bytes() == Some(&pattern(1, 50)?[..]));
                Ok(())
            })?;

            // Now the first is the part of a frame, and said to be its end when the next comes.
            with_rig::<ByTail>(Script::new(model), LEN, |rig| {
                rig.use_up()?;
                rig.into.then(Fate::after(0).ends(false))?;
                rig.into
                    .then(Fate::after(0).reports(BUF).reports_at(LEN as usize - 1))?;
                rig.fill()?;
                rig.into.receive(&pattern(1, 50)?)?;
                rig.wait(2);
                ensure!(rig.rx.consumer.receive_each(9, |_| {}) == 0);

                rig.into.receive(&pattern(2, 60)?)?;
                rig.wait(2);
                ensure!(rig.rx.consumer.receive_each(9, |_| {}) == 0);
                ensure!(rig.rx.producer.refresh() == 0);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Each allocation and each mapping that making and filling a ring takes fails once.
    #[test]
    #[slow]
    fn failures() -> Result {
        for model in Model::ALL {
            for k in 1..40 {
                with_rig::<ByTail>(Script::new(model), LEN, |rig| {
                    ensure!(rig.session.stop() == StopOutcome::Stopped);
                    rig.sim.fail_alloc(k);

                    let resized = rig.rx.resize(16, drop);

                    rig.session.start()?;
                    rig.start(drop)?;
                    ensure!(rig.rx.producer.len() == if resized.is_ok() { 16 } else { LEN });
                    rig.sim.fail_alloc(0);

                    // Make all go, and all but the k-th come back.
                    ensure!(rig.session.stop() == StopOutcome::Stopped);
                    rig.rx.drain(drop)?;
                    rig.session.start()?;
                    rig.rx.start(drop)?;
                    rig.sim.fail_map(k);

                    let filled = rig.rx.producer.refill((), rx_buf);
                    let posted = rig.rx.producer.len() - 1 - rig.rx.producer.free();

                    ensure!(match filled {
                        Ok(()) => posted == rig.rx.producer.len() - 1,
                        Err(e) => e == ENOMEM && posted == k - 1,
                    });
                    rig.sim.fail_map(0);
                    rig.fill()?;
                    ensure!(rig.rx.producer.free() == 0);
                    rig.into.receive(&pattern(1, 50)?)?;
                    rig.wait(20);
                    ensure!(rig.receive()? == Some(pattern(1, 50)?));
                    Ok(())
                })?;

                if k > 16 {
                    break;
                }
            }
        }

        Ok(())
    }

    /// A slot is as small as the C driver's buffer info, and halves don't share cache lines.
    #[test]
    fn sizes() -> Result {
        ensure!(Consumer::<'_, Receiver, RxBuf>::SLOT_SIZE == 16);
        ensure!(align_of::<Consumer<'_, Receiver, RxBuf>>() >= 64);
        ensure!(align_of::<Producer<'_, Receiver, RxBuf>>() >= 64);
        Ok(())
    }

    /// Random calls, against a queue that says what should come of them.
    #[test]
    #[slow]
    fn model() -> Result {
        // CAST: Cut on purpose.
        let seed = Instant::<Monotonic>::now().as_nanos() as u64;

        for (i, model) in Model::ALL.into_iter().enumerate() {
            // CAST: Widening.
            let seed = seed.wrapping_add(2 * i as u64);

            Walk::<ByTail>::run(model, seed, MODEL_STEPS)?;
            Walk::<ByOwnBit>::run(model, seed + 1, MODEL_STEPS)?;
        }

        Ok(())
    }

    /// A device that lies about lengths and ends, reports twice, elsewhere or not at all.
    #[test]
    #[slow]
    fn lies() -> Result {
        // CAST: Cut on purpose.
        let seed = Instant::<Monotonic>::now().as_nanos() as u64;

        for (i, model) in Model::ALL.into_iter().enumerate() {
            // CAST: Widening.
            let seed = seed.wrapping_add(2 * i as u64);

            bear_lies::<ByTail>(model, seed, LIES)?;
            bear_lies::<ByOwnBit>(model, seed + 1, LIES)?;
            bear_lies::<ByWhole>(model, seed, LIES / 8)?;
        }

        Ok(())
    }
}

/// How many steps a walk has. There are six in each boot, with other seeds, and seven boots in a
/// run of all tests on x86_64: 100,800 steps.
const MODEL_STEPS: usize = 2_400;

/// How many frames a device moves that lies about every other one. There are as many such devices,
/// and some that move fewer: more than 100,800 lies.
const LIES: usize = 4_800;

/// Numbers that look random, and are the same for the same seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;

        // CAST: Cut on purpose; then less than `n`.
        (self.0 >> 11) as usize % n
    }
}

/// What is expected to come back, or out: frames by their segments' lengths and the seed of their
/// bytes.
#[derive(Clone, Copy, Default)]
struct Expected {
    seed: usize,
    segments: [usize; 4],
    count: usize,
    /// A descriptor without memory is part of it.
    context: bool,
}

impl Expected {
    fn descriptors(&self) -> u32 {
        // CAST: A few.
        (self.count + usize::from(self.context)) as u32
    }

    fn len(&self) -> usize {
        self.segments[..self.count].iter().sum()
    }

    fn segment(&self, i: usize) -> Result<KVec<u8>> {
        pattern(self.seed + i, self.segments[i])
    }

    /// Whether `bytes` are those of all segments.
    fn is(&self, bytes: &[u8]) -> Result<bool> {
        let mut at = 0;

        for i in 0..self.count {
            let segment = self.segment(i)?;

            if bytes.get(at..at + segment.len()) != Some(&segment[..]) {
                return Ok(false);
            }
            at += segment.len();
        }

        Ok(at == bytes.len())
    }
}

/// A first-in, first-out queue.
struct Queued {
    frames: KVec<Expected>,
    first: usize,
}

impl Queued {
    fn new() -> Self {
        Self {
            frames: KVec::new(),
            first: 0,
        }
    }

    fn left(&self) -> &[Expected] {
        &self.frames[self.first..]
    }

    fn push(&mut self, frame: Expected) -> Result {
        if self.first == self.frames.len() {
            self.clear();
        }

        Ok(self.frames.push(frame, GFP_KERNEL)?)
    }

    fn pop(&mut self) -> Option<Expected> {
        let frame = self.left().first().copied();

        self.first += usize::from(frame.is_some());
        frame
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.first = 0;
    }
}

/// A random walk.
struct Walk<'w, 'r, 'a, K: Kind> {
    rig: &'w mut Rig<'r, 'a, K>,
    random: Random,
    seed: usize,
    /// Posted, and not back.
    posted: Queued,
    /// Posted, and not out.
    sent: Queued,
    /// Arrived at the device, and not received.
    arrived: Queued,
}

impl<K: Kind> Walk<'_, '_, '_, K> {
    fn run(model: Model, seed: u64, steps: usize) -> Result {
        let script = Script::new(model)
            .fate(Fate::after(2))
            .seed(seed)
            .weak_order(seed / 2 % 2 == 0);

        with_rig::<K>(script, 16, |rig| {
            let mut walk = Walk {
                rig,
                random: Random(seed | 1),
                seed: 0,
                posted: Queued::new(),
                sent: Queued::new(),
                arrived: Queued::new(),
            };

            for step in 0..steps {
                walk.step().and_then(|()| walk.check()).inspect_err(|e| {
                    pr_err!(
                        "ring walk by {}, {model:?}, seed {seed}: step {step}: {e:?}\n",
                        K::NAME
                    )
                })?;
            }

            pr_info!(
                "ring walk by {}, {model:?}, seed {seed}: {steps} steps\n",
                K::NAME
            );
            Ok(())
        })
    }

    fn step(&mut self) -> Result {
        match self.random.below(100) {
            0..28 => self.post(),
            28..38 => {
                self.rig.tx.producer.kick()?;
                Ok(())
            }
            38..58 => {
                // CAST: Less than four.
                self.rig.wait(self.random.below(4) as u32);
                self.look_at_wire()
            }
            58..66 => self.reap(),
            66..70 => self.reap_each(),
            70..80 => self.arrive(),
            80..87 => self.receive(),
            87..90 => self.receive_each(),
            90..99 => self.rig.fill(),
            _ => match self.random.below(4) {
                0 => self.restart(true),
                _ => self.restart(false),
            },
        }
    }

    /// owned + posted + free == N
    fn check(&mut self) -> Result {
        let posted: u32 = self.posted.left().iter().map(Expected::descriptors).sum();
        let len = self.rig.tx.producer.len();

        ensure!(posted + self.rig.tx.producer.refresh() + 1 == len);
        ensure!(self.rig.tx.consumer.posted() <= posted);

        let len = self.rig.rx.producer.len();

        ensure!(self.rig.rx.consumer.posted() + self.rig.rx.producer.refresh() + 1 == len);
        ensure!(self.rig.rx.consumer.malformed() == 0);

        // All that is mapped is in a slot; and there is the memory of two rings.
        let segments: usize = self.posted.left().iter().map(|frame| frame.count).sum();
        let live = self.rig.sim.counters().live;

        // CAST: Widening.
        ensure!((segments + 2..=segments + 2 + len as usize).contains(&live));
        Ok(())
    }

    fn post(&mut self) -> Result {
        let mut frame = Expected {
            seed: self.seed,
            count: 1 + self.random.below(8).saturating_sub(4),
            context: self.random.below(8) == 0,
            ..Expected::default()
        };

        for len in &mut frame.segments {
            *len = 1 + self.random.below(120);
        }
        self.seed += frame.count;

        let single = frame.count == 1 && !frame.context;
        let room = self.rig.tx.producer.refresh() >= frame.descriptors();

        if single {
            match self.rig.tx.producer.post(frame.segment(0)?, ()) {
                Ok(()) => ensure!(room),
                Err(e) => {
                    ensure!(!room && e.error == EBUSY && e.value == frame.segment(0)?);
                    return Ok(());
                }
            }
        } else {
            let mut chain = self.rig.tx.producer.new_chain();
            let mut fits = true;

            if frame.context {
                fits = chain.push_context(()).is_ok();
            }

            for i in 0..frame.count {
                match chain.push(frame.segment(i)?, ()) {
                    Ok(()) => {}
                    Err(e) => {
                        ensure!(e.error == EBUSY && e.value == frame.segment(i)?);
                        fits = false;
                    }
                }
            }
            ensure!(fits == room);

            if !fits || self.random.below(4) == 0 {
                let mut back = 0;

                if self.random.below(2) == 0 {
                    chain.rollback(|segment| back += usize::from(!segment.is_empty()));
                    ensure!(!fits || back == frame.count);
                }
                return Ok(());
            }

            chain.commit()?;
        }

        self.posted.push(frame)?;
        self.sent.push(frame)
    }

    /// What the device has sent is what was posted, in order.
    fn look_at_wire(&mut self) -> Result {
        while let Some(bytes) = self.rig.out.next_sent() {
            ensure!(self.sent.pop().ok_or(EIO)?.is(&bytes)?);
        }

        Ok(())
    }

    fn reap(&mut self) -> Result {
        for _ in 0..self.random.below(6) {
            let Some(bytes) = self.rig.reap()? else {
                break;
            };

            // It was sent before it came back.
            self.look_at_wire()?;
            ensure!(self.posted.left().len() > self.sent.left().len());
            ensure!(self.posted.pop().ok_or(EIO)?.is(&bytes)?);
        }

        Ok(())
    }

    fn reap_each(&mut self) -> Result {
        let mut all = KVec::new();
        let mut kept: Result = Ok(());
        let frames = self.rig.tx.consumer.reap_each(|segment| {
            kept = kept.and_then(|()| Ok(all.extend_from_slice(&segment, GFP_KERNEL)?));
        });

        kept?;
        self.look_at_wire()?;

        let mut rest = &all[..];

        for _ in 0..frames {
            let frame = self.posted.pop().ok_or(EIO)?;
            let (bytes, others) = rest.split_at_checked(frame.len()).ok_or(EIO)?;

            ensure!(frame.is(bytes)?);
            rest = others;
        }

        ensure!(rest.is_empty());
        ensure!(self.posted.left().len() >= self.sent.left().len());
        Ok(())
    }

    fn arrive(&mut self) -> Result {
        if self.arrived.left().len() >= 12 {
            return Ok(());
        }

        let mut frame = Expected {
            seed: self.seed,
            count: 1,
            ..Expected::default()
        };

        frame.segments[0] = 1 + match self.random.below(4) {
            0 => self.random.below(4 * BUF),
            _ => self.random.below(100),
        };
        self.seed += 1;
        self.rig.into.receive(&frame.segment(0)?)?;
        self.arrived.push(frame)
    }

    fn receive(&mut self) -> Result {
        for _ in 0..self.random.below(6) {
            let take = self.random.below(4) == 0;
            let Some(frame) = self.rig.rx.consumer.receive() else {
                break;
            };
            let expected = self.arrived.pop().ok_or(EIO)?;
            let len = frame.len();
            let mut all = KVec::with_capacity(len.max(BUF), GFP_KERNEL)?;

            if take {
                for (buf, len) in frame.take() {
                    all.extend_from_slice(&buf[..len], GFP_KERNEL)?;
                }
            } else {
                for segment in frame.segments() {
                    all.extend_from_slice(segment, GFP_KERNEL)?;
                }
                frame.recycle();
            }

            ensure!(expected.is(&all)?);
        }

        Ok(())
    }

    fn receive_each(&mut self) -> Result {
        let Self {
            rig,
            random,
            arrived,
            ..
        } = self;
        // CAST: A few.
        let budget = random.below(6) as u32;
        let mut right: Result = Ok(());
        let mut calls = 0;

        let count = rig.rx.consumer.receive_each(budget, |frame| {
            calls += 1;
            right = right.and_then(|()| {
                let mut all = KVec::new();

                if random.below(4) == 0 {
                    for (buf, len) in frame.take() {
                        all.extend_from_slice(&buf[..len], GFP_KERNEL)?;
                    }
                } else {
                    for segment in frame.segments() {
                        all.extend_from_slice(segment, GFP_KERNEL)?;
                    }
                }

                ensure!(arrived.pop().ok_or(EIO)?.is(&all)?);
                Ok(())
            });
        });

        ensure!(count == calls && count <= budget);
        right
    }

    /// Stops the devices and starts them again, with other rings if `resize` says so.
    fn restart(&mut self, resize: bool) -> Result {
        ensure!(self.rig.session.stop() == StopOutcome::Stopped);
        self.look_at_wire()?;

        let mut back = KVec::new();
        let mut keep = |segment: KVec<u8>| back.push(segment, GFP_KERNEL).unwrap_or(());

        if resize {
            // CAST: A few.
            let len = 8 << self.random.below(4) as u32;

            self.rig.tx.resize(len, &mut keep)?;
            self.rig.rx.resize(len, drop)?;
        }

        self.rig.session.start()?;
        self.rig.start(keep)?;

        // All that was posted came back, in order.
        let mut back = back.iter();

        while let Some(frame) = self.posted.pop() {
            for i in 0..frame.count {
                ensure!(back.next() == Some(&frame.segment(i)?));
            }
        }
        ensure!(back.next().is_none());
        self.sent.clear();

        // What has not been received is lost.
        self.rig.into.forget_received();
        self.arrived.clear();
        Ok(())
    }
}

/// Whether a frame is no longer than its buffers, all of which can be read.
fn is_possible<Q>(frame: &Frame<'_, '_, Q, RxBuf>) -> bool
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    let len: usize = frame
        .segments()
        .inspect(|segment| {
            core::hint::black_box(segment.iter().fold(0, |a, b| a ^ b));
        })
        .map(<[u8]>::len)
        .sum();

    len == frame.len() && frame.segments().all(|segment| segment.len() <= BUF)
}

/// Whatever the device says, no buffer is lost and the rings go on.
fn bear_lies<K: Kind>(model: Model, seed: u64, frames: usize) -> Result {
    let script = Script::new(model).fate(Fate::within(4).lies(2)).seed(seed);

    with_rig::<K>(script, 16, |rig| {
        let mut random = Random(seed | 1);
        let (mut sent, mut received, mut restarts) = (0, 0, 0);
        let mut idle = 0;
        let mut possible = true;

        while sent + received < frames {
            while rig.tx.producer.refresh() > 0 {
                // CAST: Small.
                rig.post(&pattern(sent, 1 + random.below(90))?)?;
            }
            rig.tx.producer.kick()?;
            rig.into
                .receive(&pattern(received, 1 + random.below(2 * BUF))?)?;
            // CAST: Small.
            rig.wait(random.below(5) as u32);

            let before = sent + received;

            while rig.out.next_sent().is_some() {}
            while rig.reap()?.is_some() {
                sent += 1;
            }
            // CAST: Widening.
            received += rig
                .rx
                .consumer
                .receive_each(random.below(4) as u32, |frame| {
                    possible &= is_possible(&frame);

                    if frame.len() % 4 == 0 {
                        possible &= frame.take().all(|(_, len)| len <= BUF);
                    }
                }) as usize;
            while let Some(frame) = rig.rx.consumer.receive() {
                possible &= is_possible(&frame);
                drop(frame);
                received += 1;
            }
            ensure!(possible);
            rig.fill()?;

            ensure!(rig.tx.consumer.posted() + rig.tx.producer.refresh() < rig.tx.producer.len());
            ensure!(rig.rx.consumer.posted() + rig.rx.producer.refresh() < rig.rx.producer.len());

            // Of some it never says that it is done with them.
            idle = if sent + received == before {
                idle + 1
            } else {
                0
            };

            if idle > 20 {
                ensure!(rig.session.stop() == StopOutcome::Stopped);
                rig.session.start()?;
                rig.start(drop)?;
                rig.into.forget_received();
                idle = 0;
                restarts += 1;
            }
        }

        pr_info!(
            "ring lies by {}, {model:?}, seed {seed}: {sent} sent, {received} received, \
             {} malformed, {restarts} restarts\n",
            K::NAME,
            rig.rx.consumer.malformed()
        );
        ensure!(rig.rx.consumer.malformed() > 0);
        // Few of the frames are: in a short run there may be none.
        ensure!(rig.rx.consumer.bad() > 0 || received < 1000);
        Ok(())
    })
}
