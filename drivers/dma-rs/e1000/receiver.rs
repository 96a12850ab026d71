// SPDX-License-Identifier: GPL-2.0

//! The receive ring.

use super::hardware::{
    RxDescriptor,
    RxQueue,
    Verdict,
    BUFFER_SIZE, //
};
use kernel::{
    dma::ring::{
        Frame,
        Ring, //
    },
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// What is received into. Mapped once, used again and again.
pub(crate) type RxBuffer = KBox<[u8; BUFFER_SIZE]>;

/// For how long QEMU receives nothing after the receiver was told to.
const DEAF: Delta = Delta::from_millis(1000);

fn new_buffer() -> Result<RxBuffer> {
    KBox::init(pin_init::init_zeroed(), GFP_KERNEL)
}

/// Receives frames.
pub(crate) struct Receiver<'a> {
    pub(super) ring: Ring<'a, RxQueue<'a>, RxBuffer>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// How often there were no buffers for all descriptors.
    pub(super) unfilled: u64,
    started: Instant<Monotonic>,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(ring: Ring<'a, RxQueue<'a>, RxBuffer>) -> Self {
        Self {
            ring,
            frames: 0,
            bytes: 0,
            unfilled: 0,
            started: Instant::now(),
        }
    }

    /// Begins to receive, when the device was started.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`Ring::start`], and as [`refill`](Self::refill).
    pub(super) fn start(&mut self) -> Result {
        self.ring.start(drop)?;
        self.started = Instant::now();
        self.refill()
    }

    /// Returns for how long nothing will be received yet.
    pub(super) fn deaf_for(&self) -> Delta {
        let left = DEAF - self.started.elapsed();

        if left.is_negative() {
            Delta::ZERO
        } else {
            left
        }
    }

    /// Returns how many frames of `len` bytes there is room for.
    pub(crate) fn room(&mut self, len: usize) -> u32 {
        let buffers = len.div_ceil(BUFFER_SIZE).max(1);

        // CAST: Widening; not more than there are.
        (self.ring.consumer.posted() as usize / buffers) as u32
    }

    /// Gives the device all buffers that there are, and new ones where there are none.
    ///
    /// Context: may sleep, if buffers are missing; any else.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], or what else mapping says: the device has what there is then, and the failure is
    /// counted. [`ESHUTDOWN`] if it is stopped.
    #[inline]
    pub(crate) fn refill(&mut self) -> Result {
        let filled = self.ring.producer.refill((), new_buffer);

        if filled.is_err() {
            self.unfilled += 1;
        }

        self.ring.producer.kick()?;
        filled
    }

    /// Shows up to `budget` received frames to `f`, and gives their buffers to the device again;
    /// returns how many.
    ///
    /// Context: as `f`, and as [`refill`](Self::refill).
    ///
    /// # Errors
    ///
    /// As [`refill`](Self::refill), if there was no frame. Frames that were shown are returned,
    /// also if the buffers can't be given to the device: the next call tries again, and says why
    /// not.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        budget: u32,
        mut f: impl FnMut(&ReceivedFrame<'_, 'a>),
    ) -> Result<u32> {
        let count = self.ring.consumer.receive_each(budget, |frame| {
            let frame = ReceivedFrame(frame);

            self.frames += 1;
            // CAST: Widening.
            self.bytes += frame.len() as u64;
            f(&frame);
        });

        match self.refill() {
            Err(error) if count == 0 => Err(error),
            _ => Ok(count),
        }
    }
}

/// A frame that was received.
pub(crate) struct ReceivedFrame<'c, 'a>(Frame<'c, 'a, RxQueue<'a>, RxBuffer>);

impl<'c, 'a> ReceivedFrame<'c, 'a> {
    /// Returns the number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of descriptors that it took.
    pub(crate) fn count(&self) -> u32 {
        self.0.count()
    }

    /// Returns the bytes, if they are in one buffer.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.0.bytes()
    }

    /// Returns the bytes in the first buffer.
    #[inline]
    pub(crate) fn head(&self) -> &[u8] {
        self.bytes()
            .or_else(|| self.segments().next())
            .unwrap_or_default()
    }

    /// Returns the bytes, buffer by buffer.
    #[inline]
    pub(crate) fn segments<'s>(&'s self) -> impl Iterator<Item = &'s [u8]> + use<'s, 'c, 'a> {
        self.0.segments()
    }

    /// Returns whether the bytes are these.
    #[inline]
    pub(crate) fn is(&self, expected: &[u8]) -> bool {
        match self.bytes() {
            Some(bytes) => bytes == expected,
            None => self.is_long(expected),
        }
    }

    /// As [`is`](Self::is), for frames in several buffers.
    fn is_long(&self, expected: &[u8]) -> bool {
        let mut left = expected;

        for segment in self.segments() {
            match left.split_at_checked(segment.len()) {
                Some((head, tail)) if head == segment => left = tail,
                _ => return false,
            }
        }

        left.is_empty()
    }

    /// Returns a copy of the bytes. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn to_vec(&self) -> Result<KVec<u8>> {
        let mut copy = KVec::with_capacity(self.len(), GFP_KERNEL)?;

        for segment in self.segments() {
            copy.extend_from_slice(segment, GFP_KERNEL)?;
        }

        Ok(copy)
    }

    /// Looks at the last descriptor. All values are possible, and none does harm.
    #[inline]
    fn last<T>(&self, look: impl FnOnce(RxDescriptor) -> T) -> Option<T> {
        self.0.descriptor().validate(|last| Ok(look(last))).ok()
    }

    /// Returns the VLAN tag that the device took out.
    pub(crate) fn vlan(&self) -> Option<u16> {
        self.last(|last| last.vlan()).flatten()
    }

    /// Returns what the device says of the checksums of IP, and of TCP or UDP.
    pub(crate) fn checksums(&self) -> (Verdict, Verdict) {
        self.last(|last| last.checksums())
            .unwrap_or((Verdict::Unknown, Verdict::Unknown))
    }
}
