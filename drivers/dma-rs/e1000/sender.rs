// SPDX-License-Identifier: GPL-2.0

//! The sending half of the transmit ring, and the half that gets the buffers back.

use super::hardware::{
    Checksum,
    Context,
    Data,
    TxOptions,
    TxQueue, //
};
use kernel::{
    dma::{
        ring::{
            Consumer,
            Producer, //
        },
        MapError, //
    },
    prelude::*, //
};

/// What is sent.
pub(crate) type TxPiece = KVec<u8>;

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
    fn context(&self) -> Option<TxOptions> {
        if self.ip.is_none() && self.transport.is_none() {
            return None;
        }

        Some(TxOptions::Context(Context {
            ip: self.ip.unwrap_or_default(),
            transport: self.transport.unwrap_or_default(),
        }))
    }

    #[inline]
    fn data(&self) -> TxOptions {
        TxOptions::Data(Data {
            ip_checksum: self.ip.is_some(),
            transport_checksum: self.transport.is_some(),
            vlan: self.vlan,
        })
    }
}

/// Posts frames.
pub(crate) struct Sender<'a> {
    pub(super) ring: Producer<'a, TxQueue<'a>, TxPiece>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// How often there was no room.
    pub(super) full: u64,
}

impl<'a> Sender<'a> {
    pub(super) fn new(ring: Producer<'a, TxQueue<'a>, TxPiece>) -> Self {
        Self {
            ring,
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
        mut frame: TxPiece,
        offload: Offload,
    ) -> Result<(), MapError<TxPiece>> {
        if frame.len() < MIN_FRAME || frame.len() > MAX_FRAME {
            if let Err(error) = pad(&mut frame, 0) {
                return Err(MapError {
                    error,
                    value: frame,
                });
            }
        }

        let len = frame.len();
        let posted = match offload.context() {
            None => self.ring.post(frame, offload.data()),
            Some(context) => {
                let mut chain = Producer::chain(&mut self.ring);

                match chain.push_context(context) {
                    Err(error) => Err(MapError {
                        error,
                        value: frame,
                    }),
                    Ok(()) => match chain.push(frame, offload.data()) {
                        Err(refused) => Err(refused),
                        Ok(()) => match chain.commit() {
                            Ok(()) => Ok(()),
                            Err(MapError { error, value }) => {
                                let mut frame = KVec::new();

                                value.rollback(|piece| frame = piece);
                                Err(MapError {
                                    error,
                                    value: frame,
                                })
                            }
                        },
                    },
                }
            }
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

    /// Posts a frame of several pieces, which [`flush`](Self::flush) sends.
    ///
    /// Context: as [`post`](Self::post).
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post); all pieces are given to `give`, in their order.
    pub(crate) fn post_pieces(
        &mut self,
        pieces: impl IntoIterator<Item = TxPiece>,
        offload: Offload,
        mut give: impl FnMut(TxPiece),
    ) -> Result {
        let mut pieces = pieces.into_iter();
        let mut next = pieces.next();
        let mut total = 0;
        let mut chain = Producer::chain(&mut self.ring);
        let mut outcome = match offload.context() {
            Some(context) => chain.push_context(context),
            None => Ok(()),
        };

        while let Some(mut piece) = next.take() {
            next = pieces.next();

            if outcome.is_ok() && next.is_none() && total + piece.len() < MIN_FRAME {
                outcome = pad(&mut piece, total);
            }
            if outcome.is_ok() && total + piece.len() > MAX_FRAME {
                outcome = Err(EMSGSIZE);
            }

            let len = piece.len();
            let refused = match outcome {
                Err(error) => Err(MapError {
                    error,
                    value: piece,
                }),
                Ok(()) => chain.push(piece, offload.data()),
            };

            if let Err(MapError { error, value }) = refused {
                chain.rollback(&mut give);
                give(value);
                next.into_iter().for_each(&mut give);
                pieces.for_each(give);
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
                // There is no piece in it.
                drop(chain);
                Err(error)
            }
            Ok(()) => chain.commit().map_err(|MapError { error, value }| {
                value.rollback(give);
                error
            }),
        };

        match committed {
            Ok(()) => self.count(total),
            Err(error) => self.count_failure(error),
        }

        committed
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

/// Lengthens the last piece of a frame that is too short, and has `before` bytes before it.
#[cold]
fn pad(piece: &mut TxPiece, before: usize) -> Result {
    let len = before + piece.len();

    if piece.is_empty() {
        return Err(EINVAL);
    }
    if len > MAX_FRAME {
        return Err(EMSGSIZE);
    }
    if len < MIN_FRAME {
        piece.resize(MIN_FRAME - before, 0, GFP_KERNEL)?;
    }

    Ok(())
}

/// Gets sent frames back.
pub(crate) struct Reclaimer<'a> {
    pub(super) ring: Consumer<'a, TxQueue<'a>, TxPiece>,
    pub(super) frames: u64,
}

impl<'a> Reclaimer<'a> {
    pub(super) fn new(ring: Consumer<'a, TxQueue<'a>, TxPiece>) -> Self {
        Self { ring, frames: 0 }
    }

    /// Gives the pieces of all frames that were sent to `give`; returns how many frames.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn reclaim(&mut self, mut give: impl FnMut(TxPiece)) -> u32 {
        let mut count = 0;

        while let Some(pieces) = self.ring.reap() {
            pieces.for_each(&mut give);
            count += 1;
        }

        self.frames += u64::from(count);
        count
    }
}
