// SPDX-License-Identifier: GPL-2.0

//! The driver's side of a [`RingConsumer`].

use super::RingConsumer;
use crate::{
    device,
    dma::{
        ring::{
            Descriptor,
            DescriptorInfo,
            Length,
            Publish,
            ReceiveDescriptor,
            Received,
            RingMemory,
            RingRegisters,
            Tail,
            Verdict, //
        },
        Constraints,
        DmaMask,
        FromDevice,
        Quiesce,
        StopOutcome,
        ToDevice,
        Untrusted, //
    },
    prelude::*,
    sync::Arc, //
};

/// Makes the kinds of queues, which differ in little.
macro_rules! queue {
    (
        $(#[$queue_doc:meta])* $queue:ident,
        $(#[$descriptor_doc:meta])* $descriptor:ident,
        $direction:ident, $publish:expr, $flags:expr, $set_ring:ident,
        |$consumer:ident, $tail:ident| $doorbell:expr
    ) => {
        $(#[$descriptor_doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes)]
        #[repr(C)]
        pub struct $descriptor {
            // Not aligned as the ring is.
            address: [u32; 2],
            len: u32,
            flags: u32,
        }

        // SAFETY: By the numbers of the contract, unless the test's script has the device break
        // one: then the bus reports the access.
        // 1. `new` writes the address and the length of the memory into the descriptor. The device
        //    moves up to so many bytes, in the direction that `WRITE` in the flags says.
        // 2. The flags are at 12. `new` leaves `DONE` clear. The device sets it when it has
        //    accessed the memory of the whole frame, after all other words of the descriptor.
        // 3. The flags of the queues with `Publish::OwnBit` contain `OWN`. The device clears it
        //    with the write that sets `DONE`.
        unsafe impl Descriptor for $descriptor {
            type Options = ();
            const STATUS: usize = 12;

            #[inline]
            fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
                let Some(address) = info.address() else {
                    return Ok(Self {
                        address: [0; 2],
                        len: 0,
                        flags: flags($flags, info.last, RingConsumer::CONTEXT),
                    });
                };

                Ok(Self {
                    // CAST: The lower half; the upper half.
                    address: [address as u32, (address >> 32) as u32].map(u32::to_le),
                    // CAST: A buffer of the tests.
                    len: (info.len() as u32).to_le(),
                    flags: flags($flags, info.last, 0),
                })
            }

            #[inline]
            fn is_done(status: u32) -> bool {
                status & RingConsumer::DONE != 0
            }
        }

        impl ReceiveDescriptor for $descriptor {
            #[inline]
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

        $(#[$queue_doc])*
        pub struct $queue(pub Arc<RingConsumer>);

        // SAFETY: By the numbers of the contract, unless the test's script has the device break
        // one: then the bus reports the access.
        // 1. The device was put on the bus of `device()`, and reaches memory by that bus only.
        // 2. It takes descriptors in order, up to the tail that `doorbell()` was given, or those in
        //    which it reads `OWN`.
        // 3. It writes the status after it has accessed the memory. It takes a descriptor with
        //    `OWN` once, and is done with it before it takes that one again.
        // 4. It sets `OWN` nowhere.
        // 5. `set_ring()` and `set_ring_owned()` return an error before they note the address.
        // 6. A lock orders the device's accesses with the CPU's.
        // 7. A test makes one queue for each device.
        unsafe impl RingRegisters for $queue {
            type Descriptor = $descriptor;
            type Direction = $direction;
            const PUBLISH: Publish = $publish;

            fn device(&self) -> &device::Device {
                self.0.device()
            }

            fn start(&mut self, ring: RingMemory<'_>) -> Result {
                // SAFETY: As long as it is on the bus, the ring is there.
                let base = unsafe { ring.memory.to_bits(ring.running) };

                // CAST: Widening.
                self.0.$set_ring(base, ring.len as usize)
            }

            fn doorbell(&mut self, $tail: Tail) {
                let $consumer = &self.0;

                // A device that is gone, or has stopped, takes no notice.
                let _ = $doorbell;
            }
        }
    };
}

/// Returns the flags of a descriptor.
#[inline]
fn flags(usual: u32, last: bool, more: u32) -> u32 {
    let end = if last && usual & RingConsumer::WRITE == 0 {
        RingConsumer::END
    } else {
        0
    };

    (usual | end | more).to_le()
}

queue!(
    /// For a ring whose buffers the device sends.
    Sender,
    /// A descriptor of a [`Sender`].
    SendDescriptor,
    ToDevice, Publish::Tail, 0, set_ring,
    // CAST: Widening.
    |nic, tail| nic.doorbell(tail.index() as usize)
);

queue!(
    /// For a ring into whose buffers the device receives.
    Receiver,
    /// A descriptor of a [`Receiver`].
    ReceiverDescriptor,
    FromDevice, Publish::Tail, RingConsumer::WRITE, set_ring,
    // CAST: Widening.
    |nic, tail| nic.doorbell(tail.index() as usize)
);

queue!(
    /// As [`Sender`], with own bits.
    OwnedSender,
    /// A descriptor of an [`OwnedSender`].
    OwnedSendDescriptor,
    ToDevice, Publish::OwnBit(RingConsumer::OWN), RingConsumer::OWN, set_ring_owned,
    |nic, _tail| nic.poke()
);

queue!(
    /// As [`Receiver`], with own bits.
    OwnedReceiver,
    /// A descriptor of an [`OwnedReceiver`].
    OwnedReceiverDescriptor,
    FromDevice, Publish::OwnBit(RingConsumer::OWN), RingConsumer::WRITE | RingConsumer::OWN,
    set_ring_owned,
    |nic, _tail| nic.poke()
);

/// How a [`RingConsumer`], or more of them, are stopped.
pub struct RingStopper<const N: usize>(pub [Arc<RingConsumer>; N]);

// SAFETY: By the numbers of the contract, unless the test's script has a device break one: then the
// bus reports the access.
// 1. The devices were put on the bus of `device()`.
// 2. `disarm` fails unless each has stopped, and then has each forget its ring.
// 3. A device writes at once, under the lock that `is_stopped()` takes.
// 4. `is_stopped()` fails if the device was pulled from the bus.
// 5. `is_stopped()` says so only if the device isn't at work. After `stop()` it takes nothing more,
//    until `restart()`.
// 6. What was pulled from the bus doesn't come back. `Gone` is the outcome only if all of those
//    that don't answer were pulled, and the others have stopped.
// 7. `HEEDS_BUS` is false.
// 8. A device takes addresses of 64 bits, and any length: it copies byte by byte.
// 9. Both look once at each device. Neither knows the session.
unsafe impl<const N: usize> Quiesce for RingStopper<N> {
    fn device(&self) -> &device::Device {
        self.0[0].device()
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        self.0.iter().try_for_each(|nic| {
            nic.stop();

            if !nic.is_stopped()? {
                return Err(ETIMEDOUT);
            }

            nic.restart()
        })
    }

    fn quiesce(&self) -> StopOutcome {
        let mut outcome = StopOutcome::Stopped;

        for nic in &self.0 {
            nic.stop();

            match (nic.is_stopped(), outcome) {
                (Ok(true), _) => {}
                (Ok(false), _) => outcome = StopOutcome::Unproven,
                (Err(_), StopOutcome::Stopped) => outcome = StopOutcome::Gone,
                (Err(_), _) => {}
            }
        }

        outcome
    }
}
