// SPDX-License-Identifier: GPL-2.0

//! Payloads: what goes to the device with a command, and comes back when it is done.

use super::super::{
    mapping::mapper::is_same,
    Buffer,
    DataDirection,
    Direction,
    DmaAddr,
    Mapper,
    PoolBox,
    PoolEntry,
    Scatter,
    ScatterBox,
    ScatterMap,
    ScatterSegments,
    Streaming,
    StreamingBox, //
};
use crate::prelude::*;
use core::marker::PhantomData;

/// A piece of memory of a command, contiguous for the device.
#[derive(Clone, Copy)]
pub struct Segment<'m> {
    memory: DmaAddr<'m>,
    direction: DataDirection,
}

impl Segment<'_> {
    /// Returns the bus address.
    ///
    /// Use it for the entry, or for the scratch block, and nothing else. It takes no
    /// [`Running`](super::super::Running), since the device doesn't look at either yet. Context:
    /// any.
    #[inline]
    pub fn address(&self) -> u64 {
        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        u64::from(self.memory.bits())
    }

    /// Returns the length in bytes.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Returns in which direction the device may access the segment.
    #[inline]
    pub fn direction(&self) -> DataDirection {
        self.direction
    }
}

mod private {
    use super::*;

    /// Memory that can be in flight with a command.
    ///
    /// # Safety
    ///
    /// 1. The device can access the [`segments`](Self::segments) until
    ///    [`complete`](Self::complete) is called, or the value is dropped, even if it is moved.
    /// 2. The segments have [`len`](Self::len) bytes together, which never changes.
    /// 3. Unless [`check`](Self::check) fails, the device was shown none of the segments.
    pub unsafe trait Held<'a>: Send + Sized {
        /// What comes back.
        type Back: Send;

        /// An iterator over the segments.
        type Segments<'s>: Iterator<Item = Segment<'s>>
        where
            Self: 's;

        /// Whether the device may write memory of which a type of the CPU's side orders the loads
        /// before neither by a sync nor by a barrier.
        const IS_SHARED: bool;

        /// Checks that the memory is one of the device's, and nobody has shown it.
        ///
        /// # Errors
        ///
        /// - [`EINVAL`] for memory of another device;
        /// - [`EINVAL`] if somebody asked for an address.
        fn check(&mut self, dma: Mapper<'_>) -> Result;

        /// Returns the segments, of memory that a queue owns until the device is done.
        ///
        /// # Safety
        ///
        /// The caller must not let go of the memory before the device that is shown the addresses
        /// is done with it, and must show them to no other one.
        unsafe fn segments(&self) -> Self::Segments<'_>;

        fn len(&self) -> usize;

        /// Takes the memory back from the device, which has moved that many bytes, counted through
        /// the segments.
        ///
        /// # Safety
        ///
        /// The device must be done with the memory, and the caller have seen that, with a
        /// `dma_rmb()` after it. `moved` must not be greater than `self.len()`.
        unsafe fn complete(self, moved: usize) -> Self::Back;
    }
}
pub(super) use private::Held;

/// What a command takes along to the device, and what comes back when the command is done.
///
/// | payload | what comes back | for |
/// |---|---|---|
/// | `()` | `()` | commands without data |
/// | [`Streaming`] | [`StreamingBox`] | a buffer that the device reads or writes |
/// | [`ScatterMap`] | [`ScatterBox`] | memory in pieces |
/// | [`PoolEntry`] | [`PoolBox`] | a small block, for instance a header and a status |
/// | `(P, R)` | both | a block and a buffer |
/// | [`Private`] | the value | what the driver knows of the command |
/// | [`Option`] | the same | commands of which some have data |
/// | [`Either`] | the same | queues on which reads and writes go |
///
/// Of what the device reports to have moved, the first part of a pair gets as many bytes as it has
/// room for, and the second part the rest.
pub trait Payload<'a>: private::Held<'a> {}

impl<'a, P: private::Held<'a>> Payload<'a> for P {}

// SAFETY: There is no memory.
unsafe impl<'a> Held<'a> for () {
    type Back = ();
    type Segments<'s> = core::iter::Empty<Segment<'s>>;

    const IS_SHARED: bool = false;

    #[inline]
    fn check(&mut self, _dma: Mapper<'_>) -> Result {
        Ok(())
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        core::iter::empty()
    }

    #[inline]
    fn len(&self) -> usize {
        0
    }

    #[inline]
    unsafe fn complete(self, _moved: usize) {}
}

/// A value of the driver's own that goes along with a command: the request that it belongs to, or
/// where its outcome is to be put (C: `void *private`).
///
/// It comes back with the command; the device sees nothing of it. Put it into a pair with the
/// memory that the command is about. If the command is cancelled it comes back, too. Context of
/// dropping it: that of dropping what it is a part of, and process context.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{
///         queue::{Commands, Private, Submission, Ticket},
///         FromDevice, Streaming,
///     },
///     error::ErrorWith,
///     prelude::*,
///     sync::Arc,
/// };
///
/// /// What somebody has asked for.
/// struct Request {
///     // ...
/// }
///
/// type Data<'a> = (Streaming<'a, KVec<u8>, FromDevice>, Private<Arc<Request>>);
///
/// fn submit<'a, Q: Submission>(
///     commands: &mut Commands<'a, Q, Data<'a>>,
///     request: Arc<Request>,
///     buf: Streaming<'a, KVec<u8>, FromDevice>,
///     command: Q::Command,
/// ) -> Result<Ticket, ErrorWith<Data<'a>>> {
///     commands.submitter.submit((buf, Private(request)), command)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Private<T>(pub T);

// SAFETY: There is no memory. The value borrows nothing that could be gone when the command is
// dropped in the quarantine.
unsafe impl<'a, T: Send + 'static> Held<'a> for Private<T> {
    type Back = T;
    type Segments<'s> = core::iter::Empty<Segment<'s>>;

    const IS_SHARED: bool = false;

    #[inline]
    fn check(&mut self, _dma: Mapper<'_>) -> Result {
        Ok(())
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        core::iter::empty()
    }

    #[inline]
    fn len(&self) -> usize {
        0
    }

    #[inline]
    unsafe fn complete(self, _moved: usize) -> T {
        self.0
    }
}

// SAFETY:
// 1. The buffer stays mapped until it is completed or dropped.
// 2. There is one segment, the whole buffer.
// 3. A `Streaming` knows whether somebody asked for its address.
unsafe impl<'a, B: Buffer, D: Direction> Held<'a> for Streaming<'a, B, D> {
    type Back = StreamingBox<'a, B, D>;
    type Segments<'s>
        = core::iter::Once<Segment<'s>>
    where
        Self: 's;

    // `StreamingBox::submit()` has ordered the loads.
    const IS_SHARED: bool = false;

    #[inline]
    fn check(&mut self, dma: Mapper<'_>) -> Result {
        if !is_same(self.dma().device(), dma.device()) {
            return Err(EINVAL);
        }

        // Another protocol may have shown it to the device.
        if self.was_shown() {
            return Err(EINVAL);
        }

        Ok(())
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        core::iter::once(Segment {
            memory: self.address_unshown(),
            direction: D::DATA_DIRECTION,
        })
    }

    #[inline]
    fn len(&self) -> usize {
        Streaming::len(self)
    }

    #[inline]
    unsafe fn complete(self, moved: usize) -> StreamingBox<'a, B, D> {
        // SAFETY: By the safety requirements the device is done, and `moved` isn't greater than the
        // length of the buffer.
        unsafe { Streaming::complete(self, 0..moved) }
    }
}

/// The segments of a list, in the direction `D`.
pub struct ListSegments<'s, D>(ScatterSegments<'s>, PhantomData<D>);

impl<'s, D: Direction> Iterator for ListSegments<'s, D> {
    type Item = Segment<'s>;

    #[inline]
    fn next(&mut self) -> Option<Segment<'s>> {
        Some(Segment {
            memory: self.0.next()?,
            direction: D::DATA_DIRECTION,
        })
    }
}

// SAFETY: As for a `Streaming`, with more than one segment.
unsafe impl<'a, S: Scatter, D: Direction> Held<'a> for ScatterMap<'a, S, D> {
    type Back = ScatterBox<'a, S, D>;
    type Segments<'s>
        = ListSegments<'s, D>
    where
        Self: 's;

    // `ScatterBox::submit()` has ordered the loads.
    const IS_SHARED: bool = false;

    #[inline]
    fn check(&mut self, dma: Mapper<'_>) -> Result {
        if !is_same(self.dma().device(), dma.device()) {
            return Err(EINVAL);
        }

        if self.was_shown() {
            return Err(EINVAL);
        }

        Ok(())
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        ListSegments(self.segments_unshown(), PhantomData)
    }

    #[inline]
    fn len(&self) -> usize {
        ScatterMap::len(self)
    }

    #[inline]
    unsafe fn complete(self, moved: usize) -> ScatterBox<'a, S, D> {
        // SAFETY: By the safety requirements the device is done, and `moved` isn't greater than the
        // length of the list.
        unsafe { self.finish(moved) }
    }
}

// SAFETY: As for a `Streaming`; a block is allocated as long as that is mapped.
unsafe impl<'a, T: FromBytes + IntoBytes + Send + 'static> Held<'a> for PoolEntry<'a, T> {
    type Back = PoolBox<'a, T>;
    type Segments<'s>
        = core::iter::Once<Segment<'s>>
    where
        Self: 's;

    const IS_SHARED: bool = true;

    #[inline]
    fn check(&mut self, dma: Mapper<'_>) -> Result {
        if !is_same(self.dma().device(), dma.device()) {
            return Err(EINVAL);
        }

        if self.was_shown() {
            return Err(EINVAL);
        }

        Ok(())
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        core::iter::once(Segment {
            memory: self.address_unshown(),
            direction: DataDirection::Bidirectional,
        })
    }

    #[inline]
    fn len(&self) -> usize {
        size_of::<T>()
    }

    #[inline]
    unsafe fn complete(self, _moved: usize) -> PoolBox<'a, T> {
        // SAFETY: By the safety requirements the device is done, as the caller has seen.
        unsafe { PoolEntry::complete(self) }
    }
}

// SAFETY: By the contracts of the parts, one after the other.
unsafe impl<'a, P: Held<'a>, R: Held<'a>> Held<'a> for (P, R) {
    type Back = (P::Back, R::Back);
    type Segments<'s>
        = core::iter::Chain<P::Segments<'s>, R::Segments<'s>>
    where
        Self: 's;

    const IS_SHARED: bool = P::IS_SHARED || R::IS_SHARED;

    #[inline]
    fn check(&mut self, dma: Mapper<'_>) -> Result {
        self.0.check(dma)?;
        self.1.check(dma)
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        // SAFETY: By the safety requirements, which hold for both parts.
        unsafe { Iterator::chain(self.0.segments(), self.1.segments()) }
    }

    #[inline]
    fn len(&self) -> usize {
        // Both are mapped at the same time.
        self.0.len() + self.1.len()
    }

    #[inline]
    unsafe fn complete(self, moved: usize) -> Self::Back {
        let first = moved.min(self.0.len());

        // SAFETY: By the safety requirements the device is done with both parts. Neither gets more
        // bytes than it has, since both together have at least `moved`.
        unsafe { (self.0.complete(first), self.1.complete(moved - first)) }
    }
}

// SAFETY: By the contract of the part, if there is one, and as for `()` if not.
unsafe impl<'a, P: Held<'a>> Held<'a> for Option<P> {
    type Back = Option<P::Back>;
    type Segments<'s>
        = core::iter::Flatten<core::option::IntoIter<P::Segments<'s>>>
    where
        Self: 's;

    const IS_SHARED: bool = P::IS_SHARED;

    #[inline]
    fn check(&mut self, dma: Mapper<'_>) -> Result {
        self.as_mut().map_or(Ok(()), |part| part.check(dma))
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        let part = self.as_ref();

        // SAFETY: By the safety requirements.
        part.map(|part| unsafe { part.segments() })
            .into_iter()
            .flatten()
    }

    #[inline]
    fn len(&self) -> usize {
        self.as_ref().map_or(0, P::len)
    }

    #[inline]
    unsafe fn complete(self, moved: usize) -> Self::Back {
        // SAFETY: By the safety requirements; the part is as long as `self`.
        self.map(|part| unsafe { part.complete(moved) })
    }
}

/// One of two payloads: for a queue on which commands of two kinds go, such as reads and writes.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{queue::Either, FromDevice, Streaming, ToDevice},
///     prelude::*,
/// };
///
/// /// What goes with the commands of a disk: nothing, bytes to be written, or room to read into.
/// type Data<'a> = Option<
///     Either<Streaming<'a, KVec<u8>, ToDevice>, Streaming<'a, KVec<u8>, FromDevice>>,
/// >;
///
/// fn len(data: &Data<'_>) -> usize {
///     match data {
///         None => 0,
///         Some(Either::First(write)) => write.len(),
///         Some(Either::Second(read)) => read.len(),
///     }
/// }
/// ```
pub enum Either<P, R> {
    /// The one.
    First(P),
    /// The other.
    Second(R),
}

impl<I: Iterator, J: Iterator<Item = I::Item>> Iterator for Either<I, J> {
    type Item = I::Item;

    #[inline]
    fn next(&mut self) -> Option<I::Item> {
        match self {
            Self::First(part) => part.next(),
            Self::Second(part) => part.next(),
        }
    }
}

// SAFETY: By the contract of the part that there is.
unsafe impl<'a, P: Held<'a>, R: Held<'a>> Held<'a> for Either<P, R> {
    type Back = Either<P::Back, R::Back>;
    type Segments<'s>
        = Either<P::Segments<'s>, R::Segments<'s>>
    where
        Self: 's;

    const IS_SHARED: bool = P::IS_SHARED || R::IS_SHARED;

    #[inline]
    fn check(&mut self, dma: Mapper<'_>) -> Result {
        match self {
            Self::First(part) => part.check(dma),
            Self::Second(part) => part.check(dma),
        }
    }

    #[inline]
    unsafe fn segments(&self) -> Self::Segments<'_> {
        // SAFETY: By the safety requirements.
        unsafe {
            match self {
                Self::First(part) => Either::First(part.segments()),
                Self::Second(part) => Either::Second(part.segments()),
            }
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::First(part) => part.len(),
            Self::Second(part) => part.len(),
        }
    }

    #[inline]
    unsafe fn complete(self, moved: usize) -> Self::Back {
        // SAFETY: By the safety requirements; the part is as long as `self`.
        unsafe {
            match self {
                Self::First(part) => Either::First(part.complete(moved)),
                Self::Second(part) => Either::Second(part.complete(moved)),
            }
        }
    }
}
