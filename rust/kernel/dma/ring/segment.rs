// SPDX-License-Identifier: GPL-2.0

//! What a descriptor names: owned memory that can be put into a slot.

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

    /// Memory that can lie in a slot while the device accesses it.
    ///
    /// # Safety
    ///
    /// - After [`map`](Self::map) returned an address, the device can access [`len`](Self::len)
    ///   bytes there, in the direction `D`, and until [`unmap`](Self::unmap) nothing but the
    ///   methods of this trait is needed to keep it so. The value may be moved.
    /// - As long as it is mapped, `len` and [`as_ptr`](Self::as_ptr) don't access the memory, and
    ///   return the same each time; there are `len` initialised bytes.
    pub unsafe trait Held<'a, D: Direction>: Send + Sized {
        /// Lets the device access the memory, which is its own from here on. What the CPU wrote, it
        /// sees.
        ///
        /// # Safety
        ///
        /// It must not be mapped. If this returns an address, it must be unmapped before it is
        /// dropped, or accessed in other ways than by this trait; and the address must be shown to
        /// the device of `dma` only.
        unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress>;

        /// Gives the memory back to the CPU, which sees the first `synced` bytes already.
        ///
        /// # Safety
        ///
        /// It must be mapped for `dma`, at `addr`, and the device be done with it. `synced` must
        /// not be over `self.len()`.
        unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, synced: usize);

        /// Lets the CPU see what the device wrote to the first `len` bytes; returns where they are.
        ///
        /// # Safety
        ///
        /// As [`unmap`](Self::unmap); `len` must not be over `self.len()`.
        unsafe fn sync_for_cpu(
            &mut self,
            dma: Mapper<'a>,
            addr: DmaAddress,
            len: usize,
        ) -> *const u8;

        /// Gives memory that the CPU only read back to the device.
        fn hand_over(&mut self);

        fn len(&self) -> usize;

        fn as_ptr(&self) -> *const u8;
    }
}
pub(super) use private::Held;

/// What can be posted: a [`Buffer`], which is mapped when it is posted and unmapped when it is
/// taken, or a [`Fragment`].
pub trait Segment<'a, D: Direction>: private::Held<'a, D> {}

impl<'a, D: Direction, T: private::Held<'a, D>> Segment<'a, D> for T {}

// SAFETY: By the contract of `Buffer`, and of mapping.
unsafe impl<'a, D: Direction, B: Buffer> Held<'a, D> for B {
    #[inline]
    unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress> {
        streaming::hand_over(Buffer::as_mut_ptr(self));
        streaming::map::<B, D>(dma, self, MapAttrs::NONE)
    }

    #[inline]
    unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, synced: usize) {
        let len = Buffer::len(self);

        if D::DEVICE_WRITES && synced == 0 {
            // SAFETY: By the safety requirements.
            unsafe { streaming::unmap::<D>(dma, addr, len, MapAttrs::NONE) };
        } else {
            // What the CPU sees already isn't copied again.
            //
            // SAFETY: By the safety requirements.
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

        // SAFETY: By the safety requirements.
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

/// A buffer, or a block of a [`Pool`](super::super::Pool), which is never mapped: for frames whose
/// heads are made by the driver.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{ring::{Descriptor, Producer, Queue}, ToDevice}, prelude::*};
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
///     Q: Queue<Direction = ToDevice>,
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
    /// A buffer.
    Buffer(B),
    /// A block.
    Block(PoolBox<'a, T>),
}

// SAFETY: A block can be accessed by its device, in both directions, as long as it isn't freed; who
// has the `PoolBox` decides about that. It is never empty. The rest is as for `B`.
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
            // SAFETY: By the safety requirements.
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
            // SAFETY: By the safety requirements.
            Self::Buffer(buf) => unsafe { Held::<D>::unmap(buf, dma, addr, synced) },
            Self::Block(block) => streaming::hand_over(block.as_ptr().cast()),
        }
    }

    #[inline]
    unsafe fn sync_for_cpu(&mut self, dma: Mapper<'a>, addr: DmaAddress, len: usize) -> *const u8 {
        match self {
            // SAFETY: By the safety requirements.
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
