// SPDX-License-Identifier: GPL-2.0

//! Memory that a device only reads: frames whose bytes lie in several places, and have one owner.

use super::{
    super::{
        mapping::streaming,
        DmaAddress,
        MapAttrs,
        Mapper,
        ToDevice, //
    },
    segment::Held,
    Chain,
    Descriptor,
    RingRegisters, //
};
use crate::{
    error::ErrorWith,
    prelude::*, //
};

/// Memory in parts that a device may read, and that others may read, too.
///
/// A [`Buffer`](super::super::Buffer) belongs to its owner alone, so that a device may write to it.
/// What is only sent needn't: a socket buffer, for instance, shares its bytes with its clones, and
/// has them in several places. Implement this for such memory, and post it as [`Part`]s. A driver
/// hardly ever implements this trait.
///
/// # Safety
///
/// As long as the value isn't dropped, even if it is moved:
///
/// 1. [`count`](Self::count) returns the same each time. So does [`part`](Self::part) for each
///    number below that. Neither reads nor writes the contents.
/// 2. The bytes that `part` returns stay allocated. They are initialised, physically contiguous,
///    and in the kernel's linear map (not in its image).
///
/// # Examples
///
/// ```
/// # use kernel::dma::{ring::{Descriptor, Producer, RingRegisters}, ToDevice};
/// # use kernel::{prelude::*, sync::Arc};
/// use kernel::dma::ring::{Part, Readable};
///
/// /// A message that several devices send at the same time.
/// struct Message(Arc<[u8; 512]>);
///
/// // SAFETY: The contents of an `Arc` don't move, and stay as long as there is one. They are one
/// // kmalloc() allocation, which is in the linear map, and initialised.
/// unsafe impl Readable for Message {
///     fn count(&self) -> usize {
///         1
///     }
///
///     fn part(&self, _at: usize) -> (*const u8, usize) {
///         ((&raw const *self.0).cast(), 512)
///     }
/// }
///
/// fn send<'a, Q>(tx: &mut Producer<'a, Q, Part<Message>>, message: Arc<[u8; 512]>) -> Result
/// where
///     Q: RingRegisters<Direction = ToDevice>,
///     Q::Descriptor: Descriptor<Options = ()>,
/// {
///     tx.post(Part::whole(Message(message)), ())?;
///     tx.kick()
/// }
/// ```
pub unsafe trait Readable: Send + 'static {
    /// Returns the number of parts.
    fn count(&self) -> usize;

    /// Returns the address of the first byte of a part, and how many bytes it has.
    fn part(&self, at: usize) -> (*const u8, usize);
}

/// What a ring that sends keeps for a descriptor that names a part of [`Readable`] memory.
///
/// [`Chain::push_parts`] makes one for each part, and the last one owns the value.
/// [`whole`](Self::whole) makes one for a value of one part. When the frame comes back,
/// [`into_owner`](Self::into_owner) returns the value.
pub struct Part<P> {
    /// The value, if this is its last part.
    owner: Option<P>,
    len: u32,
}

impl<P: Readable> Part<P> {
    /// Makes the only part of a value. A value of several parts is refused when it is posted: see
    /// [`Chain::push_parts`]. Context: any.
    #[inline]
    pub fn whole(value: P) -> Self {
        let len = match value.count() {
            1 => value.part(0).1,
            _ => 0,
        };

        Self {
            // What is longer is refused, too.
            len: u32::try_from(len).unwrap_or(u32::MAX),
            owner: Some(value),
        }
    }
}

impl<P> Part<P> {
    /// Returns the value, if this is its last part. Context: any.
    #[inline]
    pub fn into_owner(self) -> Option<P> {
        self.owner
    }
}

// SAFETY:
// 1. `map()` and `Chain::push_parts()` map `len` bytes of memory that doesn't move, and that stays
//    as long as the value, by the contract of `Readable`. The value is in the last slot of those
//    with parts of it. That slot is emptied with the others, when the device is done with the
//    frame, or wasn't told of it. In which order they are emptied makes no difference: of memory
//    that was only read, unmapping touches nothing.
// 2. The length is in the value, and never changes. The device doesn't write.
unsafe impl<'a, P: Readable> Held<'a, ToDevice> for Part<P> {
    /// # Errors
    ///
    /// [`EINVAL`] for a part of a value that has several.
    #[inline]
    unsafe fn map(&mut self, dma: Mapper<'a>) -> Result<DmaAddress> {
        let value = self.owner.as_ref().ok_or(EINVAL)?;

        if value.count() != 1 {
            return Err(EINVAL);
        }

        let (start, len) = value.part(0);

        // CAST: Widening.
        if len != self.len as usize {
            return Err(EINVAL);
        }

        // SAFETY: By the contract of `Readable`.
        unsafe { map(dma, start, len) }
    }

    #[inline]
    unsafe fn unmap(&mut self, dma: Mapper<'a>, addr: DmaAddress, _synced: usize) {
        // CAST: Widening.
        //
        // SAFETY: By the safety requirements that many bytes are mapped at `addr`, in this
        // direction, and the device is done with them.
        unsafe { streaming::unmap::<ToDevice>(dma, addr, self.len as usize, MapAttrs::NONE) };
    }

    #[inline]
    unsafe fn sync_for_cpu(
        &mut self,
        _dma: Mapper<'a>,
        _addr: DmaAddress,
        _len: usize,
    ) -> *const u8 {
        // The device has written nothing.
        core::ptr::null()
    }

    #[inline]
    fn hand_over(&mut self) {}

    #[inline]
    fn len(&self) -> usize {
        // CAST: Widening.
        self.len as usize
    }

    #[inline]
    fn as_ptr(&self) -> *const u8 {
        core::ptr::null()
    }
}

/// Maps a part for the device to read.
///
/// # Safety
///
/// `len` bytes from `start` on must be initialised, contiguous and in the linear map.
#[inline]
unsafe fn map(dma: Mapper<'_>, start: *const u8, len: usize) -> Result<DmaAddress> {
    streaming::hand_over(start.cast_mut());
    // SAFETY: By the safety requirements.
    unsafe { streaming::map_to_read(dma, start, len) }
}

impl<'a, Q, P> Chain<'_, 'a, Q, Part<P>>
where
    Q: RingRegisters<Direction = ToDevice>,
    P: Readable,
{
    /// Maps all parts of a value, and adds a descriptor for each to the frame (C:
    /// `dma_map_single()`). `options` are those of each.
    ///
    /// When the device is done, the value comes back from the last of these segments, by
    /// [`Part::into_owner`]. Context: any.
    ///
    /// # Errors
    ///
    /// The value comes back, and the chain is as before, with
    ///
    /// - [`EINVAL`] if it has no parts, or an empty one;
    /// - [`EBUSY`] if there aren't enough free descriptors;
    /// - [`EOVERFLOW`] if a part is longer than [`Descriptor::MAX_LEN`], or the ring doesn't have
    ///   as many descriptors;
    /// - what [`Streaming::map`](super::super::Streaming::map) returned;
    /// - what [`Descriptor::new`] returned for one of them, or for the segment before.
    #[inline]
    pub fn push_parts(
        &mut self,
        value: P,
        options: <Q::Descriptor as Descriptor>::Options,
    ) -> Result<(), ErrorWith<P>> {
        let mark = self.mark();

        if let Err(error) = self.push_each(&value, options) {
            self.shorten(mark);
            return Err(ErrorWith { error, value });
        }

        match self.last_segment() {
            Some(part) => {
                part.owner = Some(value);
                Ok(())
            }
            // There is at least one, so this doesn't happen.
            None => Err(ErrorWith {
                error: EINVAL,
                value,
            }),
        }
    }

    /// Adds the parts of a value. The caller must give the value to the last of them, or remove
    /// them.
    #[inline]
    fn push_each(&mut self, value: &P, options: <Q::Descriptor as Descriptor>::Options) -> Result {
        let count = value.count();

        if count == 0 {
            return Err(EINVAL);
        }

        self.check_room(count)?;

        for at in 0..count {
            let (start, len) = value.part(at);
            let part = Part {
                owner: None,
                len: u32::try_from(len).map_err(|_| EOVERFLOW)?,
            };

            if len > Q::Descriptor::MAX_LEN {
                return Err(EOVERFLOW);
            }

            // SAFETY: By the contract of `Readable`, as long as the value isn't dropped. The caller
            // sees to it that it stays until all of this is unmapped.
            let addr = unsafe { map(self.dma(), start, len) }?;

            // SAFETY: It was just mapped for the device of the ring, and isn't longer than
            // `MAX_LEN`.
            let pushed = unsafe { self.push_mapped(part, addr, options) };

            pushed.inspect_err(|_| {
                // SAFETY: It was just mapped, and no device was told of it.
                unsafe { streaming::unmap::<ToDevice>(self.dma(), addr, len, MapAttrs::NONE) }
            })?;
        }

        Ok(())
    }
}
