// SPDX-License-Identifier: GPL-2.0

//! Rings of descriptors, as network and storage controllers have them.
//!
//! A ring is an array of descriptors in coherent memory. Each descriptor names a piece of memory, a
//! *segment*. One or more segments are a *frame*. The driver *posts* frames: it maps their segments
//! and fills descriptors. Then it *kicks* the device: a write to a register, the *doorbell*, tells
//! it up to where descriptors are ready. The device processes them in order, and writes to each
//! that it is done. The driver implements [`Descriptor`] and [`RingRegisters`] for that, once.
//! Everything else is the same for all devices, and is here:
//!
//! ```text
//!                head              kicked               tail
//!                 v                  v                    v
//!    ----+--------+------------------+--------------------+--------+----
//!        | free   | with the device, | posted, not kicked | free   |
//!        |        | or done          |                    |        |
//!    ----+--------+------------------+--------------------+--------+----
//!                 Consumer takes                          Producer posts
//!                 from here                               here
//! ```
//!
//! - The ring owns the segments. It keeps them in *slots*, one for each descriptor, in memory that
//!   the device can't access. A segment leaves its slot when its descriptor is done, or when the
//!   device was proven to have stopped. A ring that is dropped before is quarantined as a whole
//!   (see [`Streaming`](super::Streaming)).
//! - A ring has two halves, [`Producer`] and [`Consumer`], for two contexts without a lock between
//!   them. They share two counters, each of which is written by one half.
//! - A frame may have several segments. [`Producer::new_chain`] posts all of them or none.
//!   [`Consumer::reap`] and [`Consumer::receive`] hand them out together. [`Chain::push_list`] adds
//!   all segments of a [`ScatterMap`](super::ScatterMap), which comes back as a whole.
//! - A received frame stays mapped. The driver looks at the bytes, and leaves the buffer in its
//!   slot, from where [`Producer::refill`] posts it again; or it exchanges the buffer for another
//!   one ([`Frame::replace`]). So in steady state nothing is allocated, and a ring doesn't run out
//!   of buffers when memory is short.
//! - What the device writes is checked. A frame that is longer than its buffers, or has no end, is
//!   counted ([`Consumer::malformed`]), and its buffers are used again. So is a frame that the
//!   device itself calls damaged ([`Consumer::bad`]), unless the driver asks for it.
//!
//! `Documentation/rust/dma/rings.rst` says how to write a driver with rings.
//!
//! # What the device is trusted with
//!
//! A device may lie in everything that it writes, with two exceptions (points 3 and 4 of
//! [`RingRegisters`]): it doesn't report a descriptor as done too early, and it makes none ready by
//! itself.
//!
//! Some devices look at a bit in each descriptor, the *own bit*, to see whether it is ready
//! ([`Publish::OwnBit`]). There a descriptor is done only if the device has also cleared that bit.
//! A device that reports "done" and leaves the bit set is not done: it would take the descriptor
//! for a new one when it gets there again. The frame stays in the ring, and those behind it, until
//! the device clears the bit or is stopped. Of a frame with several descriptors, each must have its
//! bit cleared.
//!
//! Descriptors that came back keep their address and status until they are posted again. Clearing
//! them would cost two stores for each, in a cache line that the device has just written. It would
//! gain nothing, since a device that breaks point 4 can write an address as easily as a bit. All
//! descriptors are cleared by [`Producer::start`], [`drain`](Producer::drain) and
//! [`resize`](Producer::resize).
//!
//! # Ordering
//!
//! A driver needs no barriers for a ring. This section is for reviewers. It is in terms of
//! `Documentation/memory-barriers.txt`. Accesses to coherent memory need no sync, but an order.
//!
//! 1. *Descriptor before doorbell* ([`Publish::Tail`]). [`Producer::kick`] calls
//!    [`RingRegisters::doorbell`], which by its contract writes a register in order after all
//!    earlier writes to memory, as `writel()` and `Io::write32()` do. So a batch needs no other
//!    barrier.
//! 2. *Descriptor before own bit* ([`Publish::OwnBit`]). The device may look at any time. So the
//!    status word, which has the own bit, is written after all other words, with a `dma_wmb()`
//!    between, and not before the whole frame is described. Of a frame of several descriptors, the
//!    first own bit is written last, after another `dma_wmb()`, so that the device doesn't begin
//!    with half a frame.
//! 3. *Done before the rest.* [`Consumer`] loads the status word on its own. If the descriptor is
//!    done, a `dma_rmb()` orders that load before those of the other words and of the payload. It
//!    is also needed for buffers that the device only read: the branch orders later writes of the
//!    driver, but not later reads.
//! 4. *Slot before tail.* The producer fills slot and descriptor, and then stores `tail` with
//!    release semantics. The consumer loads it with acquire semantics, and looks only at
//!    descriptors before it. With an own bit, `tail` is stored after the bit: before that, the
//!    descriptor may still look done from its last use. The device may be done before `tail` is
//!    stored. So a thread must not go to sleep relying on an interrupt that came before
//!    [`Producer::kick`] returned.
//! 5. *Slot before head.* The consumer empties the slot, reads the descriptor, and then stores
//!    `head` with release semantics. The producer loads it with acquire semantics before it fills
//!    them.
//!
//! Each of these has a litmus test in `tools/testing/dma-rs/litmus/`, and one without its barriers.
//! The suite `rust_dma_ring_parallel` runs both halves on two CPUs. The counters begin one turn
//! before they wrap, so that each ring shows that it can bear that.
//!
//! # Examples
//!
//! A device that sends the buffers in a ring, with registers for the ring and its tail. The
//! `unsafe` parts of its driver state how the device behaves:
//!
//! ```
//! # use kernel::{device::{Bound, Device}, io::{Io, Mmio, Region}, prelude::*};
//! use kernel::dma::{
//!     ring::{RingMemory, Descriptor, DescriptorInfo, Publish, Ring, RingRegisters, Tail},
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
//! // SAFETY: By the numbers of the contract:
//! // 1. The device reads `len` bytes from `address`, once.
//! // 2. It sets bit 0 of `status` after that; `new` leaves the bit clear.
//! // 3. There are no own bits.
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
//! // SAFETY: By the numbers of the contract:
//! // 1. The registers are those of `dev`.
//! // 2. The device processes the descriptors in order, up to the tail.
//! // 3. It doesn't go back to one before it comes round.
//! // 4. There are no own bits.
//! // 5. `start` fails before it writes a register.
//! // 6. `write32()` is ordered.
//! // 7. The driver makes one `Sender` for a device.
//! unsafe impl RingRegisters for Sender<'_> {
//!     type Descriptor = Command;
//!     type Direction = ToDevice;
//!     const PUBLISH: Publish = Publish::Tail;
//!
//!     fn device(&self) -> &Device {
//!         self.dev
//!     }
//!
//!     fn start(&mut self, ring: RingMemory<'_>) -> Result {
//!         // SAFETY: The ring and `running` are those of `dev`. The device accesses descriptors
//!         // only, until it is stopped.
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
//!     // If one can't be posted, for instance since the ring is full, the others are.
//!     let posted = messages.into_iter().try_for_each(|message| {
//!         ring.producer.post(message, ())?;
//!         Ok(())
//!     });
//!
//!     // One doorbell for all of them.
//!     ring.producer.kick()?;
//!
//!     while let Some(segments) = ring.consumer.reap() {
//!         segments.for_each(&mut sent);
//!     }
//!     posted
//! }
//! ```

mod consumer;
mod list;
mod memory;
mod parts;
mod producer;
mod segment;

pub use self::{
    consumer::{
        Consumer,
        Frame,
        Segments, //
    },
    list::{
        Gathered,
        ListPart, //
    },
    parts::{
        Part,
        Readable, //
    },
    producer::{
        Chain,
        Producer,
        Spare, //
    },
    segment::{
        Fragment,
        Segment, //
    },
};

use self::memory::Memory;
use super::{
    mapping::mapper::is_same,
    DmaAddr,
    Mapper,
    OneWay,
    Running,
    Untrusted, //
};
use crate::{
    device::Device,
    error::ErrorWith,
    prelude::*, //
};

/// The fewest and the most descriptors that a ring may have.
const MIN_LEN: u32 = 2;
const MAX_LEN: u32 = 1 << 15;

/// How a device learns that a descriptor is ready, by [`RingRegisters::PUBLISH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// By a register with the index of the first descriptor that is not ready. The device doesn't
    /// process a descriptor before the register says so, nor by what it has read of it before.
    Tail,
    /// By a bit in the status word of the descriptor, which this is the mask of. The device may
    /// look at any time; the doorbell, if there is one, only wakes it.
    ///
    /// The device clears the bit when it is done. A descriptor in which it is set isn't done,
    /// whatever else the device has written there. If the mask has several bits, each of them makes
    /// a descriptor ready, and all must be clear when it is done.
    OwnBit(u32),
}

impl Publish {
    /// Returns the mask of the own bits; 0 without any.
    const fn own_bits(self) -> u32 {
        match self {
            Publish::Tail => 0,
            Publish::OwnBit(bits) => bits,
        }
    }
}

/// The memory and the options of which [`Descriptor::new`] makes a descriptor. Only a [`Producer`]
/// makes one.
#[non_exhaustive]
pub struct DescriptorInfo<'r, O> {
    memory: Option<DmaAddr<'r>>,

    /// What the driver gave for this segment, for instance to [`Producer::post`].
    pub options: O,

    /// Whether a frame begins here.
    pub first: bool,

    /// Whether a frame ends here.
    pub last: bool,
}

impl<O> DescriptorInfo<'_, O> {
    /// Returns the bus address of the segment; [`None`] for a descriptor without memory
    /// ([`Chain::push_context`]).
    ///
    /// Use it for the descriptor and nothing else. It takes no [`Running`], since the device
    /// doesn't look at the descriptor yet.
    #[inline]
    pub fn address(&self) -> Option<u64> {
        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        self.memory.map(|memory| u64::from(memory.bits()))
    }

    /// Returns the length in bytes of the segment; 0 for a descriptor without memory.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "`address()` says whether there is memory"
    )]
    pub fn len(&self) -> usize {
        self.memory.map_or(0, DmaAddr::len)
    }
}

/// The layout of a descriptor, as the data sheet has it.
///
/// Implement it for a `#[repr(C)]` struct of the descriptor's bytes, in the device's byte order.
/// Check each point of the contract against the data sheet, and answer it number by number.
///
/// # Safety
///
/// 1. The descriptor that [`new`](Self::new) makes names the memory of its [`DescriptorInfo`], or a
///    part of it, and no other. `new` keeps the address nowhere else. The device accesses that
///    memory in the [direction](RingRegisters::Direction) of the queue, which is the same for all
///    queues that use this type.
/// 2. [`STATUS`](Self::STATUS) is the offset in bytes of a 32-bit little-endian word, the *status
///    word*. [`is_done`](Self::is_done) returns false for the word that `new` makes, and true for
///    the word that the device writes when it is done with the descriptor, its memory, and the
///    descriptors before it in the same frame. (In the data sheet: does the device write the
///    length, or other words, after that word?)
/// 3. With [`Publish::OwnBit`], the status word that `new` makes has an own bit set, which makes
///    the descriptor ready. The device clears all own bits with the write by which it is done, in
///    each descriptor of a frame.
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait Descriptor: FromBytes + IntoBytes + Copy + Send {
    /// What the driver gives for each segment that it posts: flags, offsets, a checksum to be
    /// inserted.
    type Options: Copy;

    /// The offset of the status word in bytes.
    const STATUS: usize;

    /// The most bytes that a descriptor can name: the width of its length field. A ring refuses
    /// longer segments, so [`new`](Self::new) gets none.
    const MAX_LEN: usize = usize::MAX;

    /// Makes a descriptor that is ready.
    ///
    /// It must not sleep. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the hardware can't take that memory, or those options. The segment comes back to
    /// the caller that posts it.
    fn new(info: DescriptorInfo<'_, Self::Options>) -> Result<Self>;

    /// Returns whether a status word, in the CPU's byte order, reports that the device is done.
    /// Context: any.
    fn is_done(status: u32) -> bool;
}

/// How many bytes a device reports to have received, and in what.
#[derive(Clone, Copy)]
pub enum Length {
    /// The bytes in this buffer, from its start.
    Segment(Untrusted<usize>),

    /// The bytes in the whole frame, for a device that reports them only where the frame ends. All
    /// buffers of the frame before the last are full. The number is ignored where no frame ends.
    Frame(Untrusted<usize>),
}

/// Whether a device calls a frame good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The device reports no error.
    Good,

    /// The device reports that the frame is damaged, for instance that its checksum is wrong. The
    /// ring counts it ([`Consumer::bad`]) and uses its buffers again, unless the driver asks for
    /// such frames ([`Consumer::receive_bad`]).
    Bad,

    /// The descriptor makes no sense. The ring counts the frame ([`Consumer::malformed`]) and uses
    /// its buffers again. Impossible lengths needn't be looked for: the ring does that itself.
    Malformed,
}

/// What a device reports about a buffer that it has written.
#[derive(Clone, Copy)]
pub struct Received {
    /// How many bytes were received.
    pub len: Length,

    /// Whether the frame ends here.
    pub last: bool,

    /// Whether the frame is good. Of several buffers, the worst verdict counts. For a device that
    /// reports errors only where the frame ends, it is [`Verdict::Good`] in the buffers before.
    pub verdict: Verdict,
}

/// A [`Descriptor`] of a ring that receives: reads what the device reports.
///
/// It is safe to implement, since the ring checks all of it.
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
/// // SAFETY: By the numbers of the contract:
/// // 1. The device writes up to `len` bytes to `address`, once.
/// // 2. Then it writes how many to `len`, and sets bit 0 of `status` last; `new` leaves it clear.
/// // 3. There are no own bits.
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
#[diagnostic::on_unimplemented(
    message = "a ring can't receive by descriptors of the type `{Self}`",
    note = "`ReceiveDescriptor` says how many bytes the device has written: implement it"
)]
pub trait ReceiveDescriptor: Descriptor {
    /// Reads what the device reports in the descriptor. Context: any.
    fn received(&self) -> Received;
}

/// Where the descriptors of a ring are, for [`RingRegisters::start`]. Only a ring makes one.
#[non_exhaustive]
pub struct RingMemory<'r> {
    /// The memory of the descriptors, which are zero. Its bus address is a multiple of the smallest
    /// power of two of pages that has room for the ring.
    pub memory: DmaAddr<'r>,

    /// The number of descriptors.
    pub len: u32,

    /// The permission to show the address: [`DmaAddr::to_bits`] takes it.
    pub running: &'r Running<'r>,
}

/// The index of the first descriptor that is not ready, for [`RingRegisters::doorbell`]. Only a
/// ring makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail(u32);

impl Tail {
    /// Returns the index.
    #[inline]
    pub fn index(self) -> u32 {
        self.0
    }
}

/// The registers of a ring.
///
/// Implement it once for each kind of ring that a device has, in the one file of its driver that
/// says `unsafe`. Check each point of the contract against the data sheet, and answer it number by
/// number.
///
/// # Safety
///
/// 1. The ring is accessed by the device that [`device`](Self::device) returns, which is always the
///    same.
/// 2. After [`start`](Self::start) returned `Ok`, the device processes the descriptors in `ring` as
///    a ring, in order, beginning with the first. For this ring it accesses these descriptors and
///    the memory that they name, and nothing else. It doesn't process a descriptor before it is
///    ready, nor by what it has read of it before: with [`Publish::Tail`], before
///    [`doorbell`](Self::doorbell) was called with a tail beyond it; with [`Publish::OwnBit`],
///    before its status word has an own bit set. (In the data sheet: when does the device fetch
///    descriptors, how many ahead, and does it fetch them again?)
/// 3. After the device has reported a descriptor as done, it accesses neither the descriptor nor
///    its memory, until it is ready again. It has reported that when [`Descriptor::is_done`] is
///    true for the status word and, with [`Publish::OwnBit`], all own bits there are clear.
/// 4. The device never makes a descriptor ready by itself. It sets an own bit neither in a
///    descriptor that it is done with, nor in one that the driver hasn't made ready.
/// 5. After `start` returned an error, the device was shown nothing of the ring.
/// 6. `start` and `doorbell` write registers in order with memory, by `Io::write32()` and not by
///    `Io::relaxed()`. There is no other barrier.
/// 7. No two values drive the same queue of a device.
///
/// Everything else that the device writes may be false. A ring calls neither `start` nor `doorbell`
/// while the device is stopped.
///
/// # Examples
///
/// See the [module documentation](self).
pub unsafe trait RingRegisters: Send {
    /// The layout of the descriptors.
    type Descriptor: Descriptor;

    /// Whether the device reads the segments ([`ToDevice`](super::ToDevice)) or writes them
    /// ([`FromDevice`](super::FromDevice)).
    type Direction: OneWay;

    /// How the device learns that descriptors are ready.
    ///
    /// The data sheet says whether the device waits for its tail register, or looks at a bit in
    /// each descriptor. There is no default, since with a wrong answer the device reads
    /// half-written descriptors, and most machines hide that.
    const PUBLISH: Publish;

    /// Returns the device that accesses memory.
    fn device(&self) -> &Device;

    /// Tells the device where its ring is, with head and tail at 0: no descriptor is ready.
    ///
    /// It must not sleep, since it runs in an RCU read-side section. Context: any.
    ///
    /// # Errors
    ///
    /// Any, if the device can't take such a ring.
    fn start(&mut self, ring: RingMemory<'_>) -> Result;

    /// Tells the device that all descriptors before `tail` are ready.
    ///
    /// With [`Publish::OwnBit`] it wakes the device, or does nothing. It must not sleep, since it
    /// runs in an RCU read-side section. Context: any.
    fn doorbell(&mut self, tail: Tail);
}

/// A ring: its two halves.
///
/// Use it as it is in one context, for instance in a lock, or move each half to a context of its
/// own. Keep the halves in the device's [`Session`](super::Session), whose contents are freed after
/// a stop only.
///
/// Dropping both halves frees the ring and its segments, or quarantines them if the device may
/// access them. Context of dropping a half: process context.
///
/// # Examples
///
/// See the [module documentation](self).
pub struct Ring<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> {
    /// The half that posts segments.
    pub producer: Producer<'a, Q, P>,

    /// The half that gets them back.
    pub consumer: Consumer<'a, Q, P>,
}

impl<'a, Q: RingRegisters, P: Segment<'a, Q::Direction>> Ring<'a, Q, P> {
    /// Makes a ring of `len` descriptors, of which `len - 1` can be in use.
    ///
    /// The device isn't told: call [`start`](Self::start), after the session was started. Context:
    /// may sleep. (C: `dma_alloc_coherent()`.)
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

    /// As [`Producer::resize_to`].
    #[inline]
    pub fn resize_to(
        &mut self,
        spare: Spare<'a, Q, P>,
        cancelled: impl FnMut(P),
    ) -> Result<(), ErrorWith<Spare<'a, Q, P>>> {
        self.producer
            .resize_to(&mut self.consumer, spare, cancelled)
    }
}
