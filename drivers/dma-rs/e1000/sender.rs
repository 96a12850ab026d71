// SPDX-License-Identifier: GPL-2.0

//! The sending half of the transmit ring, and the half that gets the buffers back.
//!
//! What is sent lies in buffers of the caller. A header of its own lies in a block of a pool, so
//! that the payload need not be copied to make room for it.

use super::{
    eeprom::MacAddress,
    hardware::{
        Checksum,
        Context,
        Data,
        TxOptions,
        TxQueue, //
    }, //
};
use kernel::{
    dma::{
        ring::{
            Consumer,
            Fragment,
            Producer, //
        },
        Pool, //
    },
    error::ErrorWith,
    prelude::*, //
};

/// What is sent.
pub(crate) type TxSegment = KVec<u8>;

/// The header of a frame.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) destination: MacAddress,
    pub(crate) source: MacAddress,
    /// Big endian.
    pub(crate) ethertype: [u8; 2],
}

/// What is in the ring.
pub(super) type Posted<'a> = Fragment<'a, TxSegment, Header>;

/// Returns a refused buffer.
#[cold]
fn unwrap(refused: ErrorWith<Posted<'_>>) -> ErrorWith<TxSegment> {
    ErrorWith {
        error: refused.error,
        value: buffer(refused.value).unwrap_or_else(KVec::new),
    }
}

/// Returns what belongs to the caller.
#[inline]
pub(super) fn buffer(posted: Posted<'_>) -> Option<TxSegment> {
    match posted {
        Fragment::Buffer(buf) => Some(buf),
        Fragment::Block(_) => None,
    }
}

/// The shortest frame on the wire, without its checksum.
///
/// The device could lengthen shorter ones (`TCTL.PSP`). QEMU doesn't, and in a loopback some of its
/// versions read beyond the end.
pub(crate) const MIN_FRAME: usize = 60;

/// The longest frame that is sent: a little less than the device can store.
pub(crate) const MAX_FRAME: usize = 16_000;

/// What the device does with a frame before it sends it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Offload {
    /// Inserts the checksum of the IP header.
    pub(crate) ip: Option<Checksum>,
    /// Inserts the checksum of TCP or UDP; the pseudo header's is where it goes.
    pub(crate) transport: Option<Checksum>,
    /// Inserts a VLAN tag. Only if the device was told to handle them.
    pub(crate) vlan: Option<u16>,
}

impl Offload {
    /// Returns what the device must be told before the data, if anything.
    #[inline]
    pub(super) fn context(&self) -> Option<TxOptions> {
        if self.ip.is_none() && self.transport.is_none() {
            return None;
        }

        Some(TxOptions::Context(Context {
            ip: self.ip.unwrap_or_default(),
            transport: self.transport.unwrap_or_default(),
            segments: None,
        }))
    }

    #[inline]
    pub(super) fn data(&self) -> TxOptions {
        TxOptions::Data(Data {
            ip_checksum: self.ip.is_some(),
            transport_checksum: self.transport.is_some(),
            segmented: false,
            vlan: self.vlan,
        })
    }
}

/// Posts frames.
pub(crate) struct Sender<'a> {
    pub(super) ring: Producer<'a, TxQueue<'a>, Posted<'a>>,
    /// For headers.
    headers: &'a Pool<'a, Header>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// How often there was no room.
    pub(super) full: u64,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        ring: Producer<'a, TxQueue<'a>, Posted<'a>>,
        headers: &'a Pool<'a, Header>,
    ) -> Self {
        Self {
            ring,
            headers,
            frames: 0,
            bytes: 0,
            full: 0,
        }
    }

    /// Returns how many descriptors are free.
    #[inline]
    pub(crate) fn free(&mut self) -> u32 {
        self.ring.refresh()
    }

    #[inline]
    fn count(&mut self, len: usize) {
        self.frames += 1;
        // CAST: Widening.
        self.bytes += len as u64;
    }

    #[cold]
    fn count_failure(&mut self, error: Error) {
        if error == EBUSY {
            self.full += 1;
        }
    }

    /// Posts a frame, which [`flush`](Self::flush) sends. One that is too short is lengthened.
    ///
    /// Context: may sleep if the frame is too short; any else.
    ///
    /// # Errors
    ///
    /// The frame comes back, with
    ///
    /// - [`EBUSY`] if there is no room: get sent frames back, and try again;
    /// - [`EMSGSIZE`] if it is too long, [`EINVAL`] if there is nothing in it;
    /// - [`ENOMEM`], or what else mapping says.
    #[inline]
    pub(crate) fn post(
        &mut self,
        mut frame: TxSegment,
        offload: Offload,
    ) -> Result<(), ErrorWith<TxSegment>> {
        if frame.len() < MIN_FRAME || frame.len() > MAX_FRAME {
            if let Err(error) = pad(&mut frame, 0) {
                return Err(ErrorWith {
                    error,
                    value: frame,
                });
            }
        }

        let len = frame.len();
        let posted = match offload.context() {
            None => self
                .ring
                .post(Fragment::Buffer(frame), offload.data())
                .map_err(unwrap),
            Some(context) => self.post_after(context, frame, offload.data()),
        };

        match posted {
            Ok(()) => {
                self.count(len);
                Ok(())
            }
            Err(refused) => {
                self.count_failure(refused.error);
                Err(refused)
            }
        }
    }

    /// Posts a frame after what the device must be told before it.
    // Apart from `post()`, which has better things to do.
    #[inline(never)]
    fn post_after(
        &mut self,
        context: TxOptions,
        frame: TxSegment,
        data: TxOptions,
    ) -> Result<(), ErrorWith<TxSegment>> {
        let mut chain = self.ring.new_chain();

        if let Err(error) = chain.push_context(context) {
            return Err(ErrorWith {
                error,
                value: frame,
            });
        }

        chain.push(Fragment::Buffer(frame), data).map_err(unwrap)?;
        chain.commit().map_err(|ErrorWith { error, value }| {
            let mut frame = KVec::new();

            value.rollback(|segment| frame = buffer(segment).unwrap_or_else(KVec::new));
            ErrorWith {
                error,
                value: frame,
            }
        })
    }

    /// Posts a frame of several segments, which [`flush`](Self::flush) sends.
    ///
    /// Context: as [`post`](Self::post).
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post); all segments are given to `give`, in their order.
    pub(crate) fn post_segments(
        &mut self,
        segments: impl IntoIterator<Item = TxSegment>,
        offload: Offload,
        mut give: impl FnMut(TxSegment),
    ) -> Result {
        let mut segments = segments.into_iter();
        let mut next = segments.next();
        let mut total = 0;
        let mut chain = self.ring.new_chain();
        let mut outcome = match offload.context() {
            Some(context) => chain.push_context(context),
            None => Ok(()),
        };

        while let Some(mut segment) = next.take() {
            next = segments.next();

            if outcome.is_ok() && next.is_none() && total + segment.len() < MIN_FRAME {
                outcome = pad(&mut segment, total);
            }
            if outcome.is_ok() && total + segment.len() > MAX_FRAME {
                outcome = Err(EMSGSIZE);
            }

            let len = segment.len();
            let refused = match outcome {
                Err(error) => Err(ErrorWith {
                    error,
                    value: segment,
                }),
                Ok(()) => chain
                    .push(Fragment::Buffer(segment), offload.data())
                    .map_err(unwrap),
            };

            if let Err(ErrorWith { error, value }) = refused {
                chain.rollback(|segment| buffer(segment).into_iter().for_each(&mut give));
                give(value);
                next.into_iter().for_each(&mut give);
                segments.for_each(give);
                self.count_failure(error);
                return Err(error);
            }

            total += len;
        }

        if total == 0 {
            outcome = outcome.and(Err(EINVAL));
        }

        let committed = match outcome {
            Err(error) => {
                // There is no segment in it.
                drop(chain);
                Err(error)
            }
            Ok(()) => chain.commit().map_err(|ErrorWith { error, value }| {
                value.rollback(|segment| buffer(segment).into_iter().for_each(&mut give));
                error
            }),
        };

        match committed {
            Ok(()) => self.count(total),
            Err(error) => self.count_failure(error),
        }

        committed
    }

    /// Posts a payload with a header before it, which [`flush`](Self::flush) sends.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post), for the payload; [`EINVAL`] if the frame would be too short.
    pub(crate) fn post_payload(
        &mut self,
        header: Header,
        payload: TxSegment,
    ) -> Result<(), ErrorWith<TxSegment>> {
        let len = size_of::<Header>() + payload.len();
        let offload = Offload::default();
        let refuse = |error, value| Err(ErrorWith { error, value });

        if len < MIN_FRAME {
            return refuse(EINVAL, payload);
        }
        if len > MAX_FRAME {
            return refuse(EMSGSIZE, payload);
        }

        let mut block = match self.headers.alloc(GFP_KERNEL) {
            Ok(block) => block,
            Err(error) => return refuse(error, payload),
        };

        *block = header;

        let mut chain = self.ring.new_chain();

        if let Err(refused) = chain.push(Fragment::Block(block), offload.data()) {
            drop(chain);
            self.count_failure(refused.error);
            return refuse(refused.error, payload);
        }
        if let Err(refused) = chain.push(Fragment::Buffer(payload), offload.data()) {
            drop(chain);
            self.count_failure(refused.error);
            return Err(unwrap(refused));
        }
        if let Err(ErrorWith { error, value }) = chain.commit() {
            let mut payload = KVec::new();

            value.rollback(|segment| payload = buffer(segment).unwrap_or_else(KVec::new));
            return refuse(error, payload);
        }

        self.count(len);
        Ok(())
    }

    /// Tells the device of all that was posted: one doorbell.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped; what was posted comes back when it is started.
    #[inline]
    pub(crate) fn flush(&mut self) -> Result {
        self.ring.kick()
    }
}

/// Lengthens the last segment of a frame that is too short, and has `before` bytes before it.
///
/// # Errors
///
/// [`EINVAL`] if there is nothing in the segment, [`EMSGSIZE`] if the frame is too long;
/// [`ENOMEM`].
#[cold]
pub(super) fn pad(segment: &mut TxSegment, before: usize) -> Result {
    let len = before + segment.len();

    if segment.is_empty() {
        return Err(EINVAL);
    }
    if len > MAX_FRAME {
        return Err(EMSGSIZE);
    }
    if len < MIN_FRAME {
        segment.resize(MIN_FRAME - before, 0, GFP_KERNEL)?;
    }

    Ok(())
}

/// Gets sent frames back.
pub(crate) struct Reclaimer<'a> {
    pub(super) ring: Consumer<'a, TxQueue<'a>, Posted<'a>>,
    pub(super) frames: u64,
}

impl<'a> Reclaimer<'a> {
    pub(super) fn new(ring: Consumer<'a, TxQueue<'a>, Posted<'a>>) -> Self {
        Self { ring, frames: 0 }
    }

    /// Gives the segments of all frames that were sent to `give`; returns how many frames.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn reclaim(&mut self, mut give: impl FnMut(TxSegment)) -> u32 {
        let count = self
            .ring
            .reap_each(|segment| buffer(segment).into_iter().for_each(&mut give));

        self.frames += u64::from(count);
        count
    }
}
