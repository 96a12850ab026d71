// SPDX-License-Identifier: GPL-2.0

//! A driver for a device with a ring of buffers that it fills, and its test on a simulated bus.
//!
//! See `Documentation/rust/dma/rings.rst`.

use kernel::{
    device::{Core, Device},
    dma::{
        fixture::ensure,
        ring::{Area, Descriptor, Part, Publish, Queue, ReceiveDescriptor, Received, Ring, Tail},
        sim::{self, Fate, Model, RingConsumer, RingStopper, Script},
        Configured, Enclosure, FromDevice, Untrusted,
    },
    new_mutex,
    prelude::*,
    sync::{aref::ARef, Arc, Mutex},
};

module! {
    type: Sample,
    name: "rust_dma_ring",
    authors: ["The dma-rs authors"],
    license: "GPL",
}

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
    address: u64,
    len: u32,
    flags: u32,
}

// SAFETY: The device writes up to `len` bytes to `address`, once. When it is done it writes how
// many they were to `len`, and sets `DONE`, which `new` doesn't.
unsafe impl Descriptor for RxDescriptor {
    type Options = ();
    const STATUS: usize = core::mem::offset_of!(RxDescriptor, flags);
    fn new(part: Part<'_, ()>) -> Self {
        Self {
            // SAFETY: The device uses it as said above.
            address: part.memory.map_or(0, |m| unsafe { m.to_bits() }).to_le(),
            len: part.memory.map_or(0, |m| m.len() as u32).to_le(),
            flags: RingConsumer::WRITE.to_le(),
        }
    }

    fn is_done(status: u32) -> bool {
        status & RingConsumer::DONE != 0
    }
}

impl ReceiveDescriptor for RxDescriptor {
    fn received(&self) -> Received {
        Received {
            len: Untrusted::new(u32::from_le(self.len) as usize),
            last: u32::from_le(self.flags) & RingConsumer::END != 0,
        }
    }
}

/// The registers of the queue: here, what the simulated device has instead.
struct RxQueue(ARef<Device>, Arc<RingConsumer>);

// SAFETY: The device fills the buffers in order, up to the one before the tail. The registers
// are those of the device; writing to them is ordered after what was written to memory.
unsafe impl Queue for RxQueue {
    type Descriptor = RxDescriptor;
    type Direction = FromDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        &self.0
    }

    fn start(&mut self, ring: Area<'_>) -> Result {
        // SAFETY: The device forgets it when it is stopped.
        self.1
            .set_ring(unsafe { ring.memory.to_bits() }, ring.len as usize)
    }

    fn doorbell(&mut self, tail: Tail) {
        let _ = self.1.doorbell(tail.index() as usize);
    }
}

/// From here on, all is safe: the driver.
struct Receiver<'a>(Enclosure<'a, Mutex<Ring<'a, RxQueue, KBox<[u8; 256]>>>>);

impl<'a> Receiver<'a> {
    fn bring_up(dev: &Device<Core<'a>>, nic: &Arc<RingConsumer>) -> Result<Self> {
        let queue = RxQueue(dev.into(), nic.clone());
        let ring = Ring::new(Configured::get(dev.bound())?, queue, 16)?;
        let stopper = RingStopper([nic.clone()]);
        let rx = Self(Enclosure::new(dev, stopper, new_mutex!(ring))?);

        // From here on the device can do DMA.
        rx.0.start()?;
        rx.0.lock().start(drop)?;
        rx.poll(|_| {})?;
        Ok(rx)
    }

    /// Calls `receive` with what has arrived, and lets the device use the buffers again.
    fn poll(&self, mut receive: impl FnMut(&[u8])) -> Result {
        let mut ring = self.0.lock();
        while let Some(frame) = ring.consumer.receive() {
            frame.pieces().for_each(&mut receive);
        }

        let alloc = || Ok(KBox::new([0; 256], GFP_KERNEL)?);
        ring.producer.refill((), alloc)?;
        ring.producer.kick()
    }
}

#[kunit_tests(rust_dma_ring_sample)]
mod tests {
    use super::*;

    #[test]
    fn receives() -> Result {
        let script = Script::new(Model::NonCoherent).fate(Fate::after(1));

        sim::run_on_each(script, |pdev, sim| {
            let nic = RingConsumer::new(sim)?;
            let rx = Receiver::bring_up(pdev.as_ref(), &nic)?;

            for _ in 0..100 {
                let mut frames = 0;
                nic.receive(b"hello, driver")?;
                sim.advance(2);
                rx.poll(|bytes| frames += usize::from(bytes == b"hello, driver"))?;
                ensure!(frames == 1 && sim.counters().maps <= 16);
            }

            Ok(())
        })
    }
}
