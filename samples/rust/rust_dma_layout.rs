// SPDX-License-Identifier: GPL-2.0

//! A driver for descriptors of a device's own layout, tested against a device that the test plays.
//!
//! `Documentation/rust/dma/testing.rst` shows parts of it.

use core::mem::offset_of;
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
            Model,
            Script,
            Sim, //
        },
        Constraints,
        DmaAddress,
        DmaMask,
        FromDevice,
        Mapper,
        Quiesce,
        Session,
        StopOutcome,
        Untrusted, //
    },
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

module! {
    type: Sample,
    name: "rust_dma_layout",
    authors: ["The dma-rs authors"],
    description: "Descriptors of a device's own layout, and their test",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

/// A descriptor, as the data sheet has it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct RxDescriptor {
    /// Flags, and how long the buffer is.
    status: u32,
    /// Where a frame ends: how many bytes the device has written, to all of its buffers.
    received: u32,
    address: u64,
}

impl RxDescriptor {
    /// The descriptor is the device's.
    const OWN: u32 = 1 << 31;
    /// A frame ends here.
    const LAST: u32 = 1 << 30;
    /// The frame is damaged.
    const ERROR: u32 = 1 << 29;
    /// The length of the buffer.
    const LENGTH: u32 = 0xffff;
}

// SAFETY:
// 1. The device writes as many bytes to `address` as the length says, before it clears `OWN`.
// 2. `OWN` is in the first word, which is little endian, and `new` sets it.
// 3. `OWN` gives the descriptor to the device, which clears it in each that it is done with.
unsafe impl Descriptor for RxDescriptor {
    type Options = ();
    const STATUS: usize = offset_of!(RxDescriptor, status);
    // CAST: Widening.
    const MAX_LEN: usize = Self::LENGTH as usize;

    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        // CAST: Not more than `MAX_LEN`.
        let len = info.len() as u32;

        Ok(Self {
            status: (Self::OWN | len).to_le(),
            received: 0,
            address: info.address().unwrap_or(0).to_le(),
        })
    }

    fn is_done(status: u32) -> bool {
        status & Self::OWN == 0
    }
}

impl ReceiveDescriptor for RxDescriptor {
    fn received(&self) -> Received {
        let status = u32::from_le(self.status);

        Received {
            // CAST: Widening.
            len: Length::Frame(Untrusted::new(u32::from_le(self.received) as usize)),
            last: status & Self::LAST != 0,
            verdict: if status & Self::ERROR != 0 {
                Verdict::Bad
            } else {
                Verdict::Good
            },
        }
    }
}

/// The registers: here, what the test has instead.
struct RxQueue {
    dev: ARef<Device>,
    sim: Arc<Sim>,
    base: DmaAddress,
}

// SAFETY:
// 1. The device that the test plays is on the bus of `dev`.
// 2. It goes from one descriptor to the next, when `OWN` is set.
// 3. It touches none in which it has cleared `OWN`.
// 4. It never sets `OWN`.
// 5. Without memory it knows nothing of the ring.
// 6. There is no register.
// 7. There is one queue.
unsafe impl RingRegisters for RxQueue {
    type Descriptor = RxDescriptor;
    type Direction = FromDevice;
    const PUBLISH: Publish = Publish::OwnBit(RxDescriptor::OWN);

    fn device(&self) -> &Device {
        &self.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // SAFETY: The test forgets it before the ring goes.
        self.base = unsafe { ring.memory.to_bits(ring.running) };
        // What the driver stores there the device sees after a barrier.
        self.sim.hold_stores(self.base, ring.memory.len())
    }

    fn doorbell(&mut self, _tail: Tail) {}
}

/// What the device takes: 64 bits of address for buffers, and 32 for its ring. It counts bytes in
/// 16 bits, and doesn't carry from the lower 16 bits of an address into the others. A buffer that
/// is bounced has to begin where it does in its page.
const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>())
    .coherent_mask(DmaMask::new::<32>())
    .max_segment_size(0xffff)
    .segment_boundary(0xffff)
    .min_align_mask(0xfff);

/// How the device is stopped.
struct Stopper(ARef<Device>);

// SAFETY: By the numbers of the contract:
// 1. There is one device, which the test plays.
// 2. It does something only while the test calls it, which no test does after a stop before it has
//    read anew where the ring is.
// 3. It has written to memory when such a call returns.
// 4. It can't be pulled out.
// 5. As 2.
// 6. `quiesce` never says so.
// 7. `HEEDS_BUS` is false.
// 8. See `CONSTRAINTS`.
// 9. Both end at once. Neither knows the session.
unsafe impl Quiesce for Stopper {
    fn device(&self) -> &Device {
        &self.0
    }

    fn limits(&self) -> Constraints {
        CONSTRAINTS
    }

    fn disarm(&mut self) -> Result {
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        StopOutcome::Stopped
    }
}

// [start of a device]
/// The device, as the test plays it: the other side of the bus.
struct Wire {
    sim: Arc<Sim>,
    base: DmaAddress,
    entries: DmaAddress,
    /// The descriptor that is next.
    next: DmaAddress,
}

impl Wire {
    fn new(sim: &Arc<Sim>, rx: &Ring<'_, RxQueue, Buffer>) -> Self {
        Self {
            sim: sim.clone(),
            base: rx.producer.queue().base,
            entries: rx.producer.len().into(),
            next: 0,
        }
    }

    /// A frame arrives, and the device says that, and `flags`. Returns whether there was room.
    fn receive(&mut self, frame: &[u8], flags: u32) -> Result<bool> {
        let mut rest = frame;

        loop {
            let at = self.base + self.next * size_of::<RxDescriptor>() as DmaAddress;
            let (mut status, mut address) = ([0; 4], [0; 8]);

            // The device sees the word with `OWN` as it is now. It sees the others as they were
            // when the driver executed its last `dma_wmb()`.
            //
            // SAFETY: The driver stores nothing there meanwhile, for it is this thread.
            let read = unsafe {
                self.sim.device_read_now(at, &mut status)
                    && self.sim.device_read(at + 8, &mut address)
            };

            ensure!(read);

            let status = u32::from_le_bytes(status);

            if status & RxDescriptor::OWN == 0 {
                return Ok(false);
            }

            // CAST: Widening.
            let len = rest.len().min((status & RxDescriptor::LENGTH) as usize);
            let (segment, left) = rest.split_at(len);
            let end = if left.is_empty() {
                RxDescriptor::LAST
            } else {
                0
            };

            // The driver may see all but the status word late: after its next `dma_rmb()`. CAST: A
            // frame of the tests.
            //
            // SAFETY: As above, and the driver has no references to what is the device's.
            let written = unsafe {
                self.sim
                    .device_write_late(u64::from_le_bytes(address), segment)
                    && self
                        .sim
                        .device_write_late(at + 4, &(frame.len() as u32).to_le_bytes())
                    && self.sim.device_write(at, &(end | flags).to_le_bytes())
            };

            ensure!(written);
            self.next += 1;
            if self.next == self.entries {
                self.next = 0;
            }
            rest = left;

            if end != 0 {
                return Ok(true);
            }
        }
    }
}
// [end of a device]

type Buffer = KBox<[u8; 256]>;

/// The driver.
struct Receiver<'a>(Session<'a, Mutex<Ring<'a, RxQueue, Buffer>>>);

impl<'a> Receiver<'a> {
    fn bring_up(dev: &Device<Core<'a>>, sim: &Arc<Sim>) -> Result<Self> {
        let queue = RxQueue {
            dev: dev.into(),
            sim: sim.clone(),
            base: 0,
        };
        let ring = Ring::new(Mapper::get(dev.bound())?, queue, 16)?;
        let rx = Self(Session::new(dev, Stopper(dev.into()), new_mutex!(ring))?);

        rx.0.start()?;
        rx.0.lock().start(drop)?;
        rx.poll(|_, _| {})?;
        Ok(rx)
    }

    /// Calls `look` with the bytes of all frames that have arrived, buffer by buffer, and whether
    /// the frame is damaged; returns how many.
    fn poll(&self, mut look: impl FnMut(&[u8], bool)) -> Result<u32> {
        let mut ring = self.0.lock();
        let count = ring.consumer.receive_each(u32::MAX, |frame| {
            frame
                .segments()
                .for_each(|bytes| look(bytes, frame.is_bad()));
        });

        ring.producer
            .refill((), || Ok(KBox::new([0; 256], GFP_KERNEL)?))?;
        ring.producer.kick()?;
        Ok(count)
    }
}

#[kunit_tests(sample_rust_dma_layout)]
mod tests {
    use super::*;

    fn script() -> Script {
        Script::new(Model::NonCoherent).constraints(CONSTRAINTS)
    }

    // [start of its test]
    #[test]
    fn receives() -> Result {
        let script = Script::new(Model::NonCoherent)
            .constraints(CONSTRAINTS)
            .weak_order(true);

        sim::run_on_each(script, |pdev, sim| {
            let rx = Receiver::bring_up(pdev.as_ref(), sim)?;
            let mut wire = Wire::new(sim, &rx.0.lock());

            for turn in 0..100_usize {
                // CAST: Cut on purpose.
                let frame = [turn as u8; 600];
                let len = 1 + turn * 6;
                let mut all = 0;

                ensure!(wire.receive(&frame[..len], 0)?);

                let count = rx.poll(|bytes, _| {
                    all += bytes.iter().filter(|byte| **byte == frame[0]).count();
                })?;

                ensure!(count == 1 && all == len);
            }

            Ok(())
        })
    }
    // [end of its test]

    /// Damaged frames are counted, and only a driver that asks for them sees them.
    #[test]
    fn damaged() -> Result {
        sim::run_on_each(script(), |pdev, sim| {
            let rx = Receiver::bring_up(pdev.as_ref(), sim)?;
            let mut wire = Wire::new(sim, &rx.0.lock());

            for turn in 0..100 {
                let mut is_right = true;

                rx.0.lock().consumer.receive_bad(turn % 2 == 0);
                ensure!(wire.receive(&[1; 300], 0)?);
                ensure!(wire.receive(&[2; 600], RxDescriptor::ERROR)?);
                ensure!(wire.receive(&[1; 300], 0)?);

                let count = rx.poll(|bytes, is_bad| {
                    is_right &= bytes.first() == Some(if is_bad { &2 } else { &1 });
                })?;

                ensure!(is_right && count == if turn % 2 == 0 { 3 } else { 2 });
                ensure!(rx.0.lock().consumer.bad() == turn + 1);
            }

            Ok(())
        })
    }

    /// A device that has received, and keeps the descriptor, isn't believed.
    #[test]
    fn keeps() -> Result {
        sim::run_on_each(script(), |pdev, sim| {
            let rx = Receiver::bring_up(pdev.as_ref(), sim)?;
            let mut wire = Wire::new(sim, &rx.0.lock());

            ensure!(wire.receive(b"mine", RxDescriptor::OWN)?);
            ensure!(rx.poll(|_, _| {})? == 0);
            Ok(())
        })
    }
}
