// SPDX-License-Identifier: GPL-2.0

//! Segments: owned memory that a descriptor can name.

use super::super::{
    mapping::{
        address,
        mapper::is_same,
        streaming, //
    },
    Buffer,
    Direction,
    DmaAddress,
    MapAttrs,
    Mapper,
    PoolBox, //
};
use crate::prelude::*;

mod private {
    use super::*;

    /// Memory that can be in a slot while the device accesses it.
    ///
    /// # Safety
    ///
    /// 1. From the moment in which [`map`](Self::map) has returned an address until
    ///    [`unmap`](Self::unmap) is called, the device can access [`len`](Self::len) bytes there,
    ///    in the direction `D`, even if the value is moved.
    /// 2. Meanwhile `len` and [`as_ptr`](Self::as_ptr) don't read or write the memory, and return
    ///    the same each time. If the device writes, there are `len` initialised bytes at that
    ///    address.
    pub unsafe trait Held<'a, D: Direction>: Send + Sized {
        /// Gives the memory to the device, which sees what the CPU wrote. Returns the bus address.
        ///
        /// # Safety
        ///
        /// - The memory must not be mapped.
        /// - If this returns an address, the memory must be unmapped before it is dropped, or
        ///   accessed by methods that aren't those of this trait.
        /// - The address must be shown to the device of `dma` only.
        unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress>;

        /// Gives the memory back to the CPU, which sees the first `synced` bytes already.
        ///
        /// # Safety
        ///
        /// - The memory must be mapped for `dma`, at `addr`, and the device must be done with it.
        /// - `synced` must not be greater than `self.len()`.
        unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, synced: usize);

        /// Makes the CPU see what the device wrote to the first `len` bytes; returns where they
        /// are.
        ///
        /// # Safety
        ///
        /// - The memory must be mapped for `dma`, at `addr`, and the device must be done with it.
        /// - `len` must not be greater than `self.len()`.
        unsafe fn sync_for_cpu(
            &mut self,
            dma: Mapper<'a>,
            addr: DmaAddress,
            len: usize,
        ) -> *const u8;

        /// Gives memory that the CPU has only read back to the device: no sync is needed.
        fn hand_over(&mut self);

        fn len(&self) -> usize;

        fn as_ptr(&self) -> *const u8;
    }
}
pub(super) use private::Held;

/// A segment of a frame: what can be posted to a ring.
///
/// It is a [`Buffer`], which the ring maps when it is posted and unmaps when it comes back, or a
/// [`Fragment`]; in a ring that sends lists it is [`Gathered`](super::Gathered), and in one that
/// sends what others have, too, a [`Part`](super::Part).
pub trait Segment<'a, D: Direction>: private::Held<'a, D> {}

impl<'a, D: Direction, T: private::Held<'a, D>> Segment<'a, D> for T {}

// SAFETY:
// 1. `streaming::map()` maps the contents of the buffer, whose address doesn't change when the
//    buffer is moved.
// 2. By the contract of `Buffer`.
unsafe impl<'a, D: Direction, B: Buffer> Held<'a, D> for B {
    // As `streaming::map()`.
    #[inline(always)]
    unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress> {
        streaming::hand_over(Buffer::as_mut_ptr(self));
        streaming::map::<B, D>(dma, self, MapAttrs::NONE)
    }

    #[inline]
    unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, synced: usize) {
        let len = Buffer::len(self);

        if D::DEVICE_WRITES && synced == 0 {
            // SAFETY: By the safety requirements `len` bytes are mapped at `addr`, by `map()` in
            // the direction `D`, and the device is done with them.
            unsafe { streaming::unmap::<D>(dma, addr, len, MapAttrs::NONE) };
        } else {
            // What the CPU sees already isn't copied again.
            //
            // SAFETY: As above; the rest from `synced` on is inside the buffer.
            unsafe {
                streaming::sync_for_cpu::<D>(dma, address::within(addr, synced), len - synced);
                streaming::unmap::<D>(dma, addr, len, MapAttrs::NONE.skip_cpu_sync());
            }
        }
        streaming::hand_over(Buffer::as_mut_ptr(self));
    }

    #[inline]
    unsafe fn sync_for_cpu(&mut self, dma: Mapper<'a>, addr: DmaAddress, len: usize) -> *const u8 {
        let bytes = Buffer::as_mut_ptr(self);

        // SAFETY: By the safety requirements the buffer is mapped at `addr`, by `map()` in the
        // direction `D`, `len` isn't greater than its length, and the device is done with it.
        unsafe { streaming::sync_for_cpu::<D>(dma, addr, len) };
        streaming::hand_over(bytes);
        bytes
    }

    #[inline]
    fn hand_over(&mut self) {
        streaming::hand_over(Buffer::as_mut_ptr(self));
    }

    #[inline]
    fn len(&self) -> usize {
        Buffer::len(self)
    }

    #[inline]
    fn as_ptr(&self) -> *const u8 {
        Buffer::as_ptr(self)
    }
}

/// A segment that is either a buffer or a block of a [`Pool`](super::super::Pool).
///
/// Use it for frames whose headers the driver writes: the header goes into a block, which costs no
/// mapping, and the payload stays in its buffer.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{ring::{Descriptor, Producer, RingRegisters}, ToDevice}, prelude::*};
/// use kernel::dma::{ring::Fragment, Pool};
///
/// type Head = [u8; 16];
///
/// fn send<'a, Q>(
///     tx: &mut Producer<'a, Q, Fragment<'a, KVec<u8>, Head>>,
///     heads: &'a Pool<'a, Head>,
///     body: KVec<u8>,
/// ) -> Result
/// where
///     Q: RingRegisters<Direction = ToDevice>,
///     Q::Descriptor: Descriptor<Options = ()>,
/// {
///     let mut head = heads.alloc(GFP_KERNEL)?;
///     let mut frame = tx.new_chain();
///
///     head[0] = 0x45;
///     frame.push(Fragment::Block(head), ())?;
///     frame.push(Fragment::Buffer(body), ())?;
///     frame.commit()?;
///     tx.kick()
/// }
/// ```
pub enum Fragment<'a, B, T> {
    /// A buffer, which is mapped when it is posted.
    Buffer(B),
    /// A block of a pool, which the device can access as it is.
    Block(PoolBox<'a, T>),
}

// SAFETY: As for `B`, and for a block:
// 1. Its device can access it in both directions as long as it isn't freed, and `self` owns it.
// 2. Its length is that of the type, and its address never changes.
unsafe impl<'a, D, B, T> Held<'a, D> for Fragment<'a, B, T>
where
    D: Direction,
    B: Buffer,
    T: FromBytes + IntoBytes + Send + 'static,
{
    /// # Errors
    ///
    /// [`EINVAL`] for a block of another device.
    #[inline]
    unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress> {
        match self {
            // SAFETY: The requirements are those of this method.
            Self::Buffer(buf) => unsafe { Held::<D>::map(buf, dma) },
            Self::Block(block) => {
                if !is_same(block.dma().device(), dma.device()) {
                    return Err(EINVAL);
                }

                streaming::hand_over(block.as_ptr().cast());
                Ok(block.raw_address())
            }
        }
    }

    #[inline]
    unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, synced: usize) {
        match self {
            // SAFETY: The requirements are those of this method.
            Self::Buffer(buf) => unsafe { Held::<D>::unmap(buf, dma, addr, synced) },
            Self::Block(block) => streaming::hand_over(block.as_ptr().cast()),
        }
    }

    #[inline]
    unsafe fn sync_for_cpu(&mut self, dma: Mapper<'a>, addr: DmaAddress, len: usize) -> *const u8 {
        match self {
            // SAFETY: The requirements are those of this method.
            Self::Buffer(buf) => unsafe { Held::<D>::sync_for_cpu(buf, dma, addr, len) },
            Self::Block(block) => {
                let bytes = block.as_ptr().cast();

                streaming::hand_over(bytes);
                bytes
            }
        }
    }

    #[inline]
    fn hand_over(&mut self) {
        match self {
            Self::Buffer(buf) => Held::<D>::hand_over(buf),
            Self::Block(block) => streaming::hand_over(block.as_ptr().cast()),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Buffer(buf) => Held::<D>::len(buf),
            Self::Block(_) => size_of::<T>(),
        }
    }

    #[inline]
    fn as_ptr(&self) -> *const u8 {
        match self {
            Self::Buffer(buf) => Held::<D>::as_ptr(buf),
            Self::Block(block) => block.as_ptr().cast(),
        }
    }
}
