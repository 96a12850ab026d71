// SPDX-License-Identifier: GPL-2.0

//! Rings of descriptors, as network and storage controllers have them.
//!
//! A ring is an array of descriptors in coherent memory, each of which names a buffer. The driver
//! fills descriptors and tells the device up to where; the device works them off in order, and
//! writes into each that it is done. [`Queue`] and [`Descriptor`] say how a device does that; all
//! else, which is the same for all devices and where drivers go wrong, is here:
//!
//! ```text
//!                         +-------------------------------------------+
//!      Producer           |  free  |  posted, not kicked  |   posted  |  free ...
//!                         +-------------------------------------------+
//!      Consumer                                            ^ head       ^ tail
//! ```
//!
//! - The ring owns the buffers. What it knows of them lies in a shadow that the device can't
//!   reach: a slot for each descriptor, with the buffer and its address. A buffer leaves its slot
//!   when its descriptor is done, or when the device was proven to have stopped; a ring that is
//!   dropped before is quarantined as a whole (see [`Streaming`](super::Streaming)).
//! - A ring has two halves, [`Producer`] and [`Consumer`], for two contexts without a lock between
//!   them. What they share are two counters, each written by one of them.
//! - A frame may have several segments: [`Producer::new_chain`] posts all of them or none, and
//!   [`Consumer::reap`] and [`Consumer::receive`] hand them out together.
//! - Received frames stay mapped: the driver looks at the bytes, and then leaves the buffer in its
//!   slot, from where [`Producer::refill`] posts it again, or takes it against another one
//!   ([`Frame::replace`]). So in steady state nothing is allocated, mapped or unmapped, and a ring
//!   doesn't run out of buffers when memory is short.
//! - What the device writes is checked: a length over that of the buffer, or a frame without an
//!   end, is counted ([`Consumer::malformed`]), and its buffers are used again. So are frames that
//!   the device itself calls bad ([`Consumer::bad`]), unless the driver asks for them.
//!
//! # What the device is trusted with
//!
//! A device may lie in all that it writes, but for this: it is done when it says so in the agreed
//! place, and it never gives a descriptor to itself (points 3 and 4 of [`Queue`]). Where an own bit
//! says whose a descriptor is, the agreed place includes that bit. A device that writes "done" and
//! leaves the bit set is not done, for it would obey the bit when it comes round. Its frame stays
//! in the ring, and those behind it, until the device clears the bit or is stopped. Of a frame with
//! several descriptors each must have come back.
//!
//! Descriptors that came back keep their address and status until they are posted again. To clear
//! them would cost two stores for each, in a cache line that the device has just written, and gain
//! nothing: a device that breaks point 4 writes an address as easily as a bit. All are cleared when
//! a ring begins anew ([`Producer::start`], [`drain`](Producer::drain),
//! [`resize`](Producer::resize)).
//!
//! # Ordering
//!
//! In terms of `Documentation/memory-barriers.txt`. Descriptors are in coherent memory, to which
//! accesses are not synced, but must be ordered.
//!
//! 1. *Descriptor before doorbell* ([`Publish::Tail`]). [`Producer::kick`] tells the device by a
//!    write to a register, which the contract of [`Queue::doorbell`] wants to be one that is
//!    ordered after all earlier writes to memory (`writel()`, `Io::write32()`). So a batch needs no
//!    other barrier.
//! 2. *Descriptor before own bit* ([`Publish::OwnBit`]). The device may look at any time. The word
//!    with the own bit of a descriptor is written after all others, with a `dma_wmb()` between, and
//!    not before the whole frame is described: what is never posted never looks as if it were. Of a
//!    frame of several descriptors the first own bit comes last, after another `dma_wmb()`, so that
//!    the device doesn't begin with half a frame.
//! 3. *Done before the rest.* [`Consumer`] loads the word that says whether a descriptor is done by
//!    itself. If it is, a `dma_rmb()` orders that load before those of the descriptor's words, and
//!    of the payload. For buffers that the device only read, it orders the load before all that the
//!    driver does with the buffer: writes are ordered by the branch alone, reads are not.
//! 4. *Slot before tail.* The producer stores `tail` with release semantics, after it has filled
//!    slot and descriptor; the consumer loads it with acquire semantics, and looks at nothing from
//!    there on. With an own bit, the store comes after that of the bit: until then the descriptor
//!    may look done, from the time before. The device may be done before the store: who sleeps
//!    until an interrupt must not rely on one that came before [`Producer::kick`] returned.
//! 5. *Slot before head.* The consumer stores `head` with release semantics, after it has emptied
//!    the slot and read the descriptor; the producer loads it with acquire semantics before it
//!    fills them.
//!
//! Each of these has a litmus test, and one without its barriers, in
//! `tools/testing/dma-rs/litmus/`. The suite `rust_dma_ring_parallel` has both halves at work on
//! two CPUs. The counters begin one turn before they wrap, so that each ring shows that it can
//! bear it.
//!
//! # Examples
//!
//! A device with a ring of buffers that it sends, and registers for the ring and its tail. All that
//! is `unsafe` in its driver is what the device is claimed to do:
//!
//! ```
//! # use kernel::{device::{Bound, Device}, io::{Io, Mmio, Region}, prelude::*};
//! use kernel::dma::{
//!     ring::{RingMemory, Descriptor, DescriptorInfo, Publish, Queue, Ring, Tail},
//!     ToDevice,
//! };
//!
//! /// As the device has it; little endian.
//! #[derive(Clone, Copy, FromBytes, IntoBytes)]
//! #[repr(C)]
//! struct Command {
//!     address: u64,
//!     len: u32,
//!     status: u32,
//! }
//!
//! // SAFETY: The device reads `len` bytes from `address`, once, and sets bit 0 of `status` then.
//! unsafe impl Descriptor for Command {
//!     type Options = ();
//!     const STATUS: usize = 12;
//!
//!     fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
//!         let address = info.address().unwrap_or(0);
//!         let len = u32::try_from(info.len())?;
//!
//!         Ok(Self { address: address.to_le(), len: len.to_le(), status: 0 })
//!     }
//!
//!     fn is_done(status: u32) -> bool {
//!         status & 1 != 0
//!     }
//! }
//!
//! struct Sender<'a> {
//!     dev: &'a Device<Bound>,
//!     registers: Mmio<'a, Region<16>>,
//! }
//!
//! // SAFETY: The device works the descriptors off in order, up to the tail, and touches nothing
//! // else. The registers are those of `dev`.
//! unsafe impl Queue for Sender<'_> {
//!     type Descriptor = Command;
//!     type Direction = ToDevice;
//!     const PUBLISH: Publish = Publish::Tail;
//!
//!     fn device(&self) -> &Device {
//!         self.dev
//!     }
//!
//!     fn start(&mut self, ring: RingMemory<'_>) -> Result {
//!         // SAFETY: The ring stays as long as the device may access it.
//!         let base = u32::try_from(unsafe { ring.memory.to_bits(ring.running) })?;
//!
//!         self.registers.write32(0, 8);
//!         self.registers.write32(base, 0);
//!         self.registers.write32(ring.len, 4);
//!         Ok(())
//!     }
//!
//!     fn doorbell(&mut self, tail: Tail) {
//!         self.registers.write32(tail.index(), 8);
//!     }
//! }
//!
//! /// Sends messages, and gives back those that were sent.
//! fn send<'a>(
//!     ring: &mut Ring<'a, Sender<'a>, KVec<u8>>,
//!     messages: impl Iterator<Item = KVec<u8>>,
//!     mut sent: impl FnMut(KVec<u8>),
//! ) -> Result {
//!     for message in messages {
//!         ring.producer.post(message, ())?;
//!     }
//!     // One doorbell for all of them.
//!     ring.producer.kick()?;
//!
//!     while let Some(segments) = ring.consumer.reap() {
//!         segments.for_each(&mut sent);
//!     }
//!     Ok(())
//! }
//! ```

mod consumer;
mod memory;
mod producer;
mod segment;

pub use self::{
    consumer::{
        Consumer,
        Frame,
        Segments, //
    },
    producer::{
        Chain,
        Producer, //
    },
    segment::{
        Fragment,
        Segment, //
    },
};

use self::memory::Memory;
use super::{
    mapping::mapper::is_same,
    transfer::OneWay,
    DmaAddr,
    Mapper,
    Running,
    Untrusted, //
};
use crate::{
    device::Device,
    prelude::*, //
};

/// The fewest and the most descriptors that a ring may have.
const MIN_LEN: u32 = 2;
const MAX_LEN: u32 = 1 << 15;

/// How a device learns that descriptors are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// By a register with the index of the first descriptor that is not ready. The device looks at
    /// none before it is told.
    Tail,
    /// By a bit in the status word of the descriptor: this one. (If there are several, by any of
    /// them.) The device may look at any time; the register only wakes it.
    ///
    /// The device clears the bits when it is done. A descriptor in which one of them is set isn't
    /// done, whatever else the device has written there.
    OwnBit(u32),
}

impl Publish {
    /// Returns the bits that say that a descriptor is the device's.
    const fn own_bits(self) -> u32 {
        match self {
            Publish::Tail => 0,
            Publish::OwnBit(bits) => bits,
        }
    }
}

/// What a descriptor is made of.
///
/// Made by a [`Producer`], for [`Descriptor::new`].
#[non_exhaustive]
pub struct DescriptorInfo<'r, O> {
    memory: Option<DmaAddr<'r>>,

    /// What the driver said.
    pub options: O,

    /// Whether a frame begins here.
    pub first: bool,

    /// Whether a frame ends here.
    pub last: bool,
}

impl<O> DescriptorInfo<'_, O> {
    /// Returns the bus address of the memory that the device is to access, for the descriptor and
    /// nothing else; [`None`] if the descriptor only tells the device something.
    ///
    /// It may be read though the device may be stopped, since the device looks at no descriptor
    /// before the ring gives it to the device.
    #[inline]
    pub fn address(&self) -> Option<u64> {
        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        self.memory.map(|memory| u64::from(memory.bits()))
    }

    /// Returns the length in bytes of that memory; 0 if there is none.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "`address()` says whether there is memory"
    )]
    pub fn len(&self) -> usize {
        self.memory.map_or(0, DmaAddr::len)
    }
}

/// A descriptor as a device has it.
///
/// # Safety
///
/// 1. [`new`](Self::new) names no other memory than [`DescriptorInfo::address`] and
///    [`len`](DescriptorInfo::len), not more of it, and keeps the address nowhere else. The device
///    accesses that memory in the [direction](Queue::Direction) of the queue, which is the same for
///    all queues that use this type.
/// 2. [`STATUS`](Self::STATUS) is the offset in bytes of a 32-bit little-endian word in the
///    descriptor, for which [`is_done`](Self::is_done) returns true when the device has written it,
///    and false as made by `new`. By that write the device is done with the descriptor and its
///    memory, and with those before it in the same frame.
/// 3. With [`Publish::OwnBit`], the word that `new` makes has one of the own bits, by which it
///    gives the descriptor to the device. The write by which the device is done with a descriptor
///    clears all of them, in each descriptor of a frame.
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait Descriptor: FromBytes + IntoBytes + Copy + Send {
    /// What the driver says for each segment: flags, offsets, a checksum to be inserted.
    type Options: Copy;

    /// Where the status word is.
    const STATUS: usize;

    /// The most bytes that a descriptor can name. A ring refuses longer segments, so that
    /// [`new`](Self::new) gets none.
    const MAX_LEN: usize = usize::MAX;

    /// Makes a descriptor. Must not sleep. Context: any.
    ///
    /// # Errors
    ///
    /// If the hardware can't take that memory, or those options: what was to be posted comes back.
    fn new(info: DescriptorInfo<'_, Self::Options>) -> Result<Self>;

    /// Returns whether a status word says that the device is done. Context: any.
    fn is_done(status: u32) -> bool;
}

/// How many bytes a device has received, and what it counts.
#[derive(Clone, Copy)]
pub enum Length {
    /// The bytes in this buffer, from its start.
    Segment(Untrusted<usize>),

    /// The bytes in the whole frame, which the device says where it ends: all buffers before that
    /// one are full. Nobody looks at the number in descriptors where no frame ends.
    Frame(Untrusted<usize>),
}

/// What a device says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing that speaks against it.
    Good,

    /// It is damaged, as it was received. The ring counts it ([`Consumer::bad`]) and uses its
    /// buffers again, unless the driver wants it ([`Consumer::receive_bad`]).
    Bad,

    /// What the descriptor says can't be. The ring counts it ([`Consumer::malformed`]) and uses its
    /// buffers again, as with lengths that can't be, for which the ring looks itself.
    Malformed,
}

/// What a device says of a buffer that it has written.
#[derive(Clone, Copy)]
pub struct Received {
    /// How many bytes.
    pub len: Length,

    /// Whether the frame ends here.
    pub last: bool,

    /// Whether it is any good. Of several buffers, the worst decides. Devices that say so where the
    /// frame ends say [`Verdict::Good`] before.
    pub verdict: Verdict,
}

/// A descriptor of a buffer that the device writes.
///
/// # Examples
///
/// ```
/// # use kernel::prelude::*;
/// use kernel::dma::{
///     ring::{Descriptor, Length, DescriptorInfo, ReceiveDescriptor, Received, Verdict},
///     Untrusted,
/// };
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Slice {
///     address: u64,
///     len: u32,
///     status: u32,
/// }
///
/// // SAFETY: The device writes up to `len` bytes to `address`, once; and then how many to `len`,
/// // and bit 0 of `status`.
/// unsafe impl Descriptor for Slice {
///     type Options = ();
///     const STATUS: usize = 12;
///
///     fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
///         let address = info.address().unwrap_or(0);
///         let len = u32::try_from(info.len())?;
///
///         Ok(Self { address: address.to_le(), len: len.to_le(), status: 0 })
///     }
///
///     fn is_done(status: u32) -> bool {
///         status & 1 != 0
///     }
/// }
///
/// impl ReceiveDescriptor for Slice {
///     fn received(&self) -> Received {
///         let status = u32::from_le(self.status);
///
///         Received {
///             len: Length::Segment(Untrusted::new(u32::from_le(self.len) as usize)),
///             // Bit 1: the frame ends here. Bit 2: its checksum is wrong.
///             last: status & 2 != 0,
///             verdict: if status & 4 != 0 { Verdict::Bad } else { Verdict::Good },
///         }
///     }
/// }
/// ```
pub trait ReceiveDescriptor: Descriptor {
    /// Reads what the device wrote. Context: any.
    fn received(&self) -> Received;
}

/// Where the descriptors of a ring are: only a ring makes one.
#[non_exhaustive]
pub struct RingMemory<'r> {
    /// The memory; the device can reach it until the ring is gone. Its address is aligned to a
    /// page, or more: to the smallest power of two of pages that has room for the ring.
    pub memory: DmaAddr<'r>,

    /// The number of descriptors in it.
    pub len: u32,

    /// That the device runs: it takes this to show the address, by [`DmaAddr::to_bits`].
    pub running: &'r Running<'r>,
}

/// The index of the first descriptor that is not ready: only a ring makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail(u32);

impl Tail {
    /// Returns the index.
    #[inline]
    pub fn index(self) -> u32 {
        self.0
    }
}

/// A device's side of a ring.
///
/// # Safety
///
/// The implementation establishes how the hardware behaves:
///
/// 1. The ring is accessed by the device that [`device`](Self::device) returns, which is always the
///    same.
/// 2. After [`start`](Self::start) returned `Ok`, the device accesses the descriptors in `ring` as
///    a ring, beginning with the first, and the memory that they name. It does so in order, and
///    works no descriptor off before it is ready: with [`Publish::Tail`], before
///    [`doorbell`](Self::doorbell) was called with a tail beyond it; with [`Publish::OwnBit`],
///    before its status word has one of the own bits.
/// 3. It accesses neither a descriptor nor its memory after it has reported to be done with it,
///    until it is ready again. It has reported that when [`Descriptor::is_done`] is true for the
///    status word and, with [`Publish::OwnBit`], none of the own bits is set there.
/// 4. It never gives a descriptor to itself: it sets own bits in none that it is done with, or that
///    the driver hasn't given to it.
/// 5. After `start` returned an error, the device knows nothing of the ring.
/// 6. `doorbell` accesses the device in order with memory (`Io::write32()`, not `Io::relaxed()`):
///    there is no other barrier. So does `start`.
/// 7. No two values drive the same queue of a device.
///
/// Nothing else that the device writes has to be true. A ring calls neither `start` nor `doorbell`
/// while the device is stopped.
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait Queue: Send {
    /// What is in the ring.
    type Descriptor: Descriptor;

    /// What the device does with the memory.
    type Direction: OneWay;

    /// How the device learns that descriptors are ready.
    ///
    /// There is no default, because a wrong answer is unsound and most machines forgive it: the
    /// data sheet says whether the device waits for its tail register, or looks at a bit in each
    /// descriptor.
    const PUBLISH: Publish;

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Tells the device where its ring is; no descriptor is ready.
    ///
    /// Must not sleep: the device isn't stopped meanwhile. Context: any.
    ///
    /// # Errors
    ///
    /// If this doesn't suit the device.
    fn start(&mut self, ring: RingMemory<'_>) -> Result;

    /// Tells the device that all descriptors before `tail` are ready.
    ///
    /// Must not sleep: the device isn't stopped meanwhile. Context: any.
    fn doorbell(&mut self, tail: Tail);
}

/// The two halves of a ring.
///
/// For use in one context, or to be taken apart. They belong into the device's
/// [`Session`](super::Session), which stops the device before they are dropped.
///
/// Context of dropping a half: process context.
///
/// # Examples
///
/// See the [module documentation](self).
pub struct Ring<'a, Q: Queue, P: Segment<'a, Q::Direction>> {
    /// Posts buffers.
    pub producer: Producer<'a, Q, P>,

    /// Gets them back.
    pub consumer: Consumer<'a, Q, P>,
}

impl<'a, Q: Queue, P: Segment<'a, Q::Direction>> Ring<'a, Q, P> {
    /// Makes a ring of `len` descriptors, one less of which can be used, and of which the device
    /// isn't told before [`start`](Self::start).
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `len` isn't a power of two from 2 to 32768, if the queue is one of another
    ///   device, or if the ring doesn't meet the device's [`Constraints`](super::Constraints);
    /// - [`ENOMEM`].
    pub fn new(dma: Mapper<'a>, queue: Q, len: u32) -> Result<Self> {
        if !is_same(queue.device(), dma.device()) {
            return Err(EINVAL);
        }

        let memory = Memory::new(dma, len)?;

        Ok(Self {
            consumer: Consumer::new(memory.clone()),
            producer: Producer::new(memory, queue),
        })
    }

    /// As [`Producer::start`].
    #[inline]
    pub fn start(&mut self, cancelled: impl FnMut(P)) -> Result {
        self.producer.start(&mut self.consumer, cancelled)
    }

    /// As [`Producer::drain`].
    #[inline]
    pub fn drain(&mut self, give: impl FnMut(P)) -> Result {
        self.producer.drain(&mut self.consumer, give)
    }

    /// As [`Producer::resize`].
    #[inline]
    pub fn resize(&mut self, len: u32, cancelled: impl FnMut(P)) -> Result {
        self.producer.resize(&mut self.consumer, len, cancelled)
    }
}
