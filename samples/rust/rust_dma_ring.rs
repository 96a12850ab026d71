// SPDX-License-Identifier: GPL-2.0

//! A driver for a device with two rings, one of frames that it sends and one of buffers that it
//! fills, and its test on a simulated bus.
//!
//! `Documentation/rust/dma/rings.rst` shows parts of it.

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        fixture::ensure,
        ring::{
            Descriptor,
            DescriptorInfo,
            Frame,
            Length,
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
            Clock,
            Fate,
            Model,
            RingConsumer,
            RingStopper,
            Script, //
        },
        FromDevice,
        Mapper,
        Session,
        StopOutcome,
        ToDevice,
        Untrusted, //
    },
    irq,
    new_mutex,
    new_wait_queue,
    pr_warn_once,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        WaitQueue, //
    },
    time::Delta, //
};

module! {
    type: Sample,
    name: "rust_dma_ring",
    authors: ["The dma-rs authors"],
    description: "A driver with descriptor rings, and its test",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// A descriptor of a buffer to receive into, as the data sheet has it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct RxDescriptor {
    address: u64,
    len: u32,
    flags: u32,
}

// SAFETY:
// 1. The device writes up to `len` bytes to `address`, once, before it sets `DONE`.
// 2. `DONE` is in the last word, which is little endian. `new` doesn't set it.
// 3. There are no own bits.
unsafe impl Descriptor for RxDescriptor {
    type Options = ();
    const STATUS: usize = core::mem::offset_of!(RxDescriptor, flags);

    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        Ok(Self {
            address: info.address().unwrap_or(0).to_le(),
            // CAST: A buffer has fewer bytes.
            len: (info.len() as u32).to_le(),
            flags: RingConsumer::WRITE.to_le(),
        })
    }

    fn is_done(status: u32) -> bool {
        status & RingConsumer::DONE != 0
    }
}

impl ReceiveDescriptor for RxDescriptor {
    fn received(&self) -> Received {
        let flags = u32::from_le(self.flags);

        Received {
            // CAST: Widening.
            len: Length::Segment(Untrusted::new(u32::from_le(self.len) as usize)),
            last: flags & RingConsumer::END != 0,
            verdict: if flags & RingConsumer::BAD != 0 {
                Verdict::Bad
            } else {
                Verdict::Good
            },
        }
    }
}

/// The registers of the queue: here, what the simulated device has instead.
struct RxQueue(ARef<Device>, Arc<RingConsumer>);

// SAFETY:
// 1. The registers are those of the device.
// 2. It fills the buffers in order, up to the one before the tail.
// 3. It touches none that it has reported.
// 4. There are no own bits.
// 5. It keeps no ring that it refuses.
// 6. Writing to its registers is ordered after what was written to memory.
// 7. The driver makes one for each queue.
unsafe impl RingRegisters for RxQueue {
    type Descriptor = RxDescriptor;
    type Direction = FromDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        &self.0
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // CAST: Widening.
        // SAFETY: The device forgets it when it is stopped.
        self.1.set_ring(
            unsafe { ring.memory.to_bits(ring.running) },
            ring.len as usize,
        )
    }

    fn doorbell(&mut self, tail: Tail) {
        // A device that is gone takes no notice. CAST: Widening.
        let _ = self.1.doorbell(tail.index() as usize);
    }
}

/// A descriptor of a segment of a frame that is to be sent.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct TxDescriptor {
    address: u64,
    len: u32,
    flags: u32,
}

impl TxDescriptor {
    /// Returns whether the device couldn't send the frame that ends here.
    fn has_failed(&self) -> bool {
        u32::from_le(self.flags) & RingConsumer::BAD != 0
    }
}

// SAFETY: As for `RxDescriptor`, but that the device reads.
unsafe impl Descriptor for TxDescriptor {
    type Options = ();
    const STATUS: usize = core::mem::offset_of!(TxDescriptor, flags);

    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        let end = if info.last { RingConsumer::END } else { 0 };

        Ok(Self {
            address: info.address().unwrap_or(0).to_le(),
            // CAST: A frame has fewer bytes.
            len: (info.len() as u32).to_le(),
            flags: end.to_le(),
        })
    }

    fn is_done(status: u32) -> bool {
        status & RingConsumer::DONE != 0
    }
}

/// As [`RxQueue`], for the other queue.
struct TxQueue(ARef<Device>, Arc<RingConsumer>);

// SAFETY: As for `RxQueue`.
unsafe impl RingRegisters for TxQueue {
    type Descriptor = TxDescriptor;
    type Direction = ToDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        &self.0
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // CAST: Widening.
        // SAFETY: The device forgets it when it is stopped.
        self.1.set_ring(
            unsafe { ring.memory.to_bits(ring.running) },
            ring.len as usize,
        )
    }

    fn doorbell(&mut self, tail: Tail) {
        // A device that is gone takes no notice. CAST: Widening.
        let _ = self.1.doorbell(tail.index() as usize);
    }
}

// From here on, all is safe: the driver.

/// A buffer to receive into.
type Buffer = KBox<[u8; 2048]>;

/// Shorter frames are copied, so that their buffers stay in the ring.
const COPYBREAK: usize = 256;

/// What the device may access.
#[pin_data]
struct Rings<'a> {
    #[pin]
    tx: Mutex<Ring<'a, TxQueue, KVec<u8>>>,
    #[pin]
    rx: Mutex<Ring<'a, RxQueue, Buffer>>,
}

/// The interrupt handler: an interrupt only says that it is worth looking.
struct IrqHandler(Arc<WaitQueue>);

impl irq::Handler for IrqHandler {
    fn handle(&self) -> irq::IrqReturn {
        self.0.wake_all();
        irq::IrqReturn::Handled
    }
}

struct Nic<'a> {
    rings: Session<'a, Rings<'a>>,
    waiters: Arc<WaitQueue>,
}

fn new_buffer() -> Result<Buffer> {
    Ok(KBox::new([0; 2048], GFP_KERNEL)?)
}

impl<'a> Nic<'a> {
    // [start of bringing up]
    fn bring_up(
        dev: &Device<Core<'a>>,
        stopper: RingStopper<2>,
        tx: TxQueue,
        rx: RxQueue,
    ) -> Result<Self> {
        let dma = Mapper::get(dev.bound())?;
        let tx = Ring::new(dma, tx, 64)?;
        let rx = Ring::new(dma, rx, 64)?;
        let nic = Self {
            rings: Session::new(
                dev,
                stopper,
                pin_init!(Rings {
                    tx <- new_mutex!(tx),
                    rx <- new_mutex!(rx),
                }),
            )?,
            waiters: Arc::pin_init(new_wait_queue!("rust_dma_ring"), GFP_KERNEL)?,
        };

        // The device is disarmed here, and then may do DMA.
        nic.rings.start()?;

        // It is told where its rings are.
        nic.rings.tx.lock().start(drop)?;
        nic.rings.rx.lock().start(drop)?;

        // Buffers to receive into.
        nic.refill()?;
        Ok(nic)
    }
    // [end of bringing up]

    // [start of sending]
    /// Sends frames; gives those that were sent before to `sent`.
    fn send(
        &self,
        frames: impl IntoIterator<Item = KVec<u8>>,
        sent: impl FnMut(KVec<u8>),
    ) -> Result {
        let mut tx = self.rings.tx.lock();

        let posted = frames.into_iter().try_for_each(|frame| {
            // Mapped. If that fails, or the ring is full, the error has the frame.
            tx.producer.post(frame, ())?;
            Ok(())
        });

        // One doorbell for all that was posted, even if a later frame wasn't.
        tx.producer.kick()?;

        // Unmapped, and the driver's again.
        tx.consumer.reap_each(sent);
        posted
    }

    /// Sends a frame of two segments.
    fn send_segments(&self, head: KVec<u8>, body: KVec<u8>) -> Result {
        let mut tx = self.rings.tx.lock();
        let mut frame = tx.producer.new_chain();

        // If one of them can't be mapped, none is posted.
        frame.push(head, ())?;
        frame.push(body, ())?;
        frame.commit()?;
        tx.producer.kick()
    }

    /// Gives sent frames to `sent`, one by one; returns how many the device couldn't send.
    fn reclaim(&self, mut sent: impl FnMut(KVec<u8>)) -> u32 {
        let mut tx = self.rings.tx.lock();
        let mut failed = 0;

        while let Some(segments) = tx.consumer.reap() {
            // All that the device says is `Untrusted`; here any value will do.
            let has_failed = segments.descriptor().validate(|last| Ok(last.has_failed()));

            failed += u32::from(has_failed == Ok(true));
            segments.for_each(&mut sent);
        }

        failed
    }
    // [end of sending]

    // [start of receiving]
    /// Gives each frame that has arrived to `copy` if it is short. Otherwise gives its buffers to
    /// `keep`, with how many bytes are in each. Returns how many frames there were.
    fn poll(
        &self,
        budget: u32,
        mut copy: impl FnMut(&[u8]),
        mut keep: impl FnMut(Buffer, usize),
    ) -> u32 {
        let mut lost = 0;
        let count = self.rings.rx.lock().consumer.receive_each(budget, |frame| {
            if frame.len() <= COPYBREAK {
                // Its buffers stay mapped, and are used again.
                frame.segments().for_each(&mut copy);
            } else if frame.replace_each(new_buffer, &mut keep).is_err() {
                // Without memory these stay, too, and the frame is lost.
                lost += 1;
            }
        });

        if self.refill().is_err() || lost > 0 {
            pr_warn_once!("no memory to receive into\n");
        }
        count
    }

    /// Posts a buffer in each free descriptor: those that are in the ring, else new ones.
    fn refill(&self) -> Result {
        let mut rx = self.rings.rx.lock();
        let filled = rx.producer.refill((), new_buffer);

        // Without memory, the device gets what there is.
        rx.producer.kick()?;
        filled
    }
    // [end of receiving]

    // [start of waiting]
    /// Waits for a frame, and looks at it.
    fn wait<T>(
        &self,
        timeout: Delta,
        look: impl Fn(Frame<'_, 'a, RxQueue, Buffer>) -> T,
    ) -> Result<T> {
        let found = self.rings.wait_until(&self.waiters, timeout, || {
            let mut rx = self.rings.rx.lock();

            if let Some(frame) = rx.consumer.receive() {
                return Some(Ok(look(frame)));
            }

            // Nothing more comes from a device that was stopped.
            rx.consumer.is_stopped().then_some(Err(ESHUTDOWN))
        });

        found.unwrap_or(Err(ETIMEDOUT))
    }

    /// Waits for a frame, and keeps its buffer; returns how many bytes were received, too.
    fn wait_and_keep(&self, timeout: Delta) -> Result<(Buffer, usize)> {
        self.wait(timeout, |frame| {
            let len = frame.len();

            // Mapped before the other one is taken out of the ring.
            Ok((frame.replace(new_buffer()?)?, len))
        })?
    }
    // [end of waiting]
}

#[kunit_tests(sample_rust_dma_ring)]
mod tests {
    use super::*;

    fn bytes(from: &[u8]) -> Result<KVec<u8>> {
        // So that a buffer is alone in its cache lines.
        let mut vec = KVec::with_capacity(from.len().max(256), GFP_KERNEL)?;

        vec.extend_from_slice(from, GFP_KERNEL)?;
        Ok(vec)
    }

    /// Runs a test on each kind of bus, with a device that takes its time and memory that is weakly
    /// ordered.
    fn with_nic(
        body: fn(&Nic<'_>, &Arc<sim::Sim>, &RingConsumer, &RingConsumer) -> Result,
    ) -> Result {
        let script = Script::new(Model::NonCoherent)
            .fate(Fate::after(1))
            .weak_order(true);

        sim::run_on_each(script, |pdev, sim| {
            let (out, into) = (RingConsumer::new(sim)?, RingConsumer::new(sim)?);
            let nic = Nic::bring_up(
                pdev.as_ref(),
                RingStopper([out.clone(), into.clone()]),
                TxQueue(pdev.as_ref().into(), out.clone()),
                RxQueue(pdev.as_ref().into(), into.clone()),
            )?;

            body(&nic, sim, &out, &into)
        })
    }

    #[test]
    fn sends() -> Result {
        with_nic(|nic, sim, out, _| {
            let mut back = 0;

            for turn in 0..100 {
                nic.send([bytes(&[turn as u8; 100])?, bytes(b"hello")?], |_| {
                    back += 1
                })?;
                nic.send_segments(bytes(b"hello, ")?, bytes(b"device")?)?;
                sim.advance(3);
                ensure!(out.next_sent() == Some(bytes(&[turn as u8; 100])?));
                ensure!(out.next_sent() == Some(bytes(b"hello")?));
                ensure!(out.next_sent() == Some(bytes(b"hello, device")?));
            }

            out.then(Fate::after(1).bad())?;
            nic.send_segments(bytes(b"hello, ")?, bytes(b"device")?)?;
            out.then(Fate::after(1).bad())?;
            nic.send([bytes(b"hello")?], |_| back += 1)?;
            sim.advance(3);
            // Of the first, only where it doesn't end.
            ensure!(nic.reclaim(|_| back += 1) == 1);
            ensure!(back == 4 * 100 + 3);
            Ok(())
        })
    }

    #[test]
    fn receives() -> Result {
        with_nic(|nic, sim, _, into| {
            for turn in 0..100 {
                let mut long = KVec::new();
                let (mut right, mut kept) = (true, true);

                into.receive(b"hello, driver")?;
                into.receive(&[turn as u8; 3000])?;
                sim.advance(3);

                let count = nic.poll(
                    64,
                    |bytes| right &= bytes == b"hello, driver",
                    |buf, len| {
                        kept &= buf
                            .get(..len)
                            .is_some_and(|b| b.iter().all(|b| *b == turn as u8));
                        kept &= long.push(len, GFP_KERNEL).is_ok();
                    },
                );

                ensure!(count == 2 && right && kept && long[..] == [2048, 952]);
            }

            // What is only looked at costs no mapping.
            let maps = sim.counters().maps;

            for _ in 0..100 {
                into.receive(b"hello, driver")?;
                sim.advance(2);
                ensure!(nic.poll(64, |_| {}, |_, _| {}) == 1);
            }
            // In the first turn, the descriptor that was left free gets its buffer.
            ensure!(sim.counters().maps <= maps + 1);
            Ok(())
        })
    }

    /// A frame wakes the thread that waits, and so does a stop.
    #[test]
    fn waits() -> Result {
        with_nic(|nic, sim, _, into| {
            let waker = Arc::new(IrqHandler(nic.waiters.clone()), GFP_KERNEL)?;
            let _connection = sim.connect(waker, Clock::Timer)?;

            into.receive(b"hello, driver")?;
            ensure!(nic.wait(Delta::from_secs(10), |frame| frame.len())? == 13);

            into.receive(b"hello again")?;

            let (buf, len) = nic.wait_and_keep(Delta::from_secs(10))?;

            ensure!(buf.get(..len) == Some(&b"hello again"[..]));
            ensure!(nic.wait(Delta::from_millis(5), |frame| frame.len()) == Err(ETIMEDOUT));

            ensure!(nic.rings.stop() == StopOutcome::Stopped);
            ensure!(nic.wait(Delta::from_secs(10), |frame| frame.len()) == Err(ESHUTDOWN));
            Ok(())
        })
    }
}
