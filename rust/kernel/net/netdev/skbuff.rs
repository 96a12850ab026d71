// SPDX-License-Identifier: GPL-2.0

//! Socket buffers: frames on their way through the stack.
//!
//! C header: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h)

use crate::{
    bindings,
    dma::ring::Readable,
    error::to_result,
    prelude::*, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

/// Why a frame was dropped (C: `enum skb_drop_reason`).
///
/// Administrators see it in the tracepoint `skb:kfree_skb` and in drop monitors. There is none for
/// "not specified": whoever drops a frame knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropReason(bindings::skb_drop_reason);

impl DropReason {
    /// The device isn't ready: it is being stopped, or was.
    pub const DEV_READY: Self = Self(bindings::skb_drop_reason_SKB_DROP_REASON_DEV_READY);
    /// There is no memory, or no room to map it.
    pub const NOMEM: Self = Self(bindings::skb_drop_reason_SKB_DROP_REASON_NOMEM);
    /// What the driver needs of the frame's headers isn't there.
    pub const DEV_HDR: Self = Self(bindings::skb_drop_reason_SKB_DROP_REASON_DEV_HDR);
    /// The frame is longer than the device can send.
    pub const PKT_TOO_BIG: Self = Self(bindings::skb_drop_reason_SKB_DROP_REASON_PKT_TOO_BIG);
}

/// Somebody took care of a frame: freed it with a reason, or gave it to a device or to the stack.
///
/// A driver's [`start_xmit`](super::Driver::start_xmit) returns it, and only code that takes the
/// [`SkBuff`] makes one. So a frame can't be forgotten there.
#[must_use = "`start_xmit` returns it"]
pub struct Handled(pub(super) ());

/// A checksum that the device is to insert: over all bytes from `start` on.
///
/// Where it goes, there is what it begins with: the checksum of a pseudo header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// From where on, counted from the start of the frame.
    pub start: u16,
    /// Where it goes, counted from the start of the frame.
    pub offset: u16,
}

/// How the device is to divide a frame of TCP over IPv4: into frames with the same headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// How much payload goes into each, in bytes; the last one has the rest.
    pub size: u16,
    /// How long all headers are together, in bytes.
    pub headers: u16,
    /// Where the header of IP begins, counted from the start of the frame.
    pub network: u16,
    /// Where the header of TCP begins, counted from the start of the frame.
    pub transport: u16,
}

/// A socket buffer that is ours (C: `struct sk_buff`): a frame to be sent.
///
/// A driver gets one in [`start_xmit`](super::Driver::start_xmit) and either gives it to a
/// [`Sender`](super::Sender), or [frees](Self::free) it and says why.
///
/// # Dropping it doesn't build
///
/// The stack counts each frame that is lost, by its reason. So a frame isn't freed by going out of
/// scope: if the optimiser can't show that this never happens, the code isn't linked (undefined
/// symbol `rust_build_error`). Where that is allowed (`CONFIG_RUST_BUILD_ASSERT_ALLOW`) it is a
/// warning in the log. Forgetting it ([`core::mem::forget`]) leaks it, and does no other harm.
///
/// # Invariants
///
/// - We own a reference to a valid `struct sk_buff`. Nobody else changes its length or where its
///   bytes are: who has another reference, as `pktgen` has, only waits until it was sent. (Devices
///   don't have `IFF_TX_SKB_SHARING`, or it would be sent several times.)
/// - The bytes may be shared with clones of it. Nobody writes to those while they are.
///
/// # Examples
///
/// ```
/// use kernel::net::netdev::{DropReason, Handled, SkBuff};
///
/// /// Pads a frame for a device that sends no short ones, and drops what is too long for it.
/// fn prepare(skb: SkBuff) -> Result<SkBuff, Handled> {
///     if skb.len() > 1514 {
///         return Err(skb.free(DropReason::PKT_TOO_BIG));
///     }
///
///     skb.pad_to(60)
/// }
/// ```
#[repr(transparent)]
pub struct SkBuff(NonNull<bindings::sk_buff>);

// SAFETY: No thread is special to an skb, and by the type invariants it is ours.
unsafe impl Send for SkBuff {}

impl Drop for SkBuff {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(CONFIG_RUST_BUILD_ASSERT_ALLOW) {
            dropped(self.0);
        } else {
            build_error!("a frame is freed with a reason, sent, or given to the stack");
        }
    }
}

/// Complains of a frame that was dropped without a reason, and frees it.
#[cold]
fn dropped(skb: NonNull<bindings::sk_buff>) {
    crate::warn_on!(true);

    // SAFETY: By the type invariants of `SkBuff` the reference was that of who dropped it.
    unsafe {
        bindings::dev_kfree_skb_any_reason(
            skb.as_ptr(),
            bindings::skb_drop_reason_SKB_DROP_REASON_NOT_SPECIFIED,
        )
    };
}

impl SkBuff {
    /// # Safety
    ///
    /// `skb` must be valid. The caller gives up a reference to it, and nobody who has another one
    /// changes it.
    #[inline(always)]
    pub(super) unsafe fn from_raw(skb: *mut bindings::sk_buff) -> Self {
        // INVARIANT: By the safety requirements.
        // SAFETY: What is valid isn't null.
        Self(unsafe { NonNull::new_unchecked(skb) })
    }

    /// Makes a frame (C: `alloc_skb()`). Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], [`EINVAL`] if no frame is that long.
    pub(super) fn copy_of(bytes: &[u8]) -> Result<Self> {
        let len = u16::try_from(bytes.len()).map_err(|_| EINVAL)?.into();
        // SAFETY: No requirements.
        let skb = NonNull::new(unsafe { bindings::alloc_skb(len, GFP_KERNEL.as_raw()) });
        let skb = skb.ok_or(ENOMEM)?.as_ptr();

        // SAFETY: It is ours, and has room for that much. From here on it is an `SkBuff`.
        unsafe {
            bindings::skb_put_data(skb, bytes.as_ptr().cast(), len);
            Ok(Self::from_raw(skb))
        }
    }

    /// Returns the reference, which is the caller's then.
    #[inline(always)]
    pub(super) fn into_raw(self) -> *mut bindings::sk_buff {
        ManuallyDrop::new(self).0.as_ptr()
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.0.as_ptr()
    }

    /// Returns the number of bytes of the frame, from its Ethernet header on.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> u32 {
        // SAFETY: By the type invariants it is valid, and nobody else writes to it.
        unsafe { (*self.as_ptr()).len }
    }

    /// Returns whether all bytes are in one piece.
    #[inline]
    fn is_linear(&self) -> bool {
        // SAFETY: As in `len()`.
        unsafe { (*self.as_ptr()).data_len == 0 }
    }

    /// Returns a frame to which nobody else has a reference: this one, or a clone. C's functions
    /// that move the bytes of a frame end the kernel otherwise.
    ///
    /// # Errors
    ///
    /// The frame comes back if there is no memory.
    #[inline]
    fn unshared(self) -> Result<Self, Self> {
        // SAFETY: By the type invariants it is valid.
        if !unsafe { bindings::skb_shared(self.as_ptr()) } {
            return Ok(self);
        }

        self.cloned()
    }

    #[cold]
    fn cloned(self) -> Result<Self, Self> {
        // SAFETY: By the type invariants it is valid.
        let clone = unsafe { bindings::skb_clone(self.as_ptr(), GFP_ATOMIC.as_raw()) };

        if clone.is_null() {
            return Err(self);
        }

        // SAFETY: The reference was ours, and is given up. The new one is ours, and the only one.
        unsafe {
            bindings::dev_kfree_skb_any_reason(
                self.into_raw(),
                bindings::skb_drop_reason_SKB_CONSUMED,
            );
            Ok(Self::from_raw(clone))
        }
    }

    /// Adds zeros to a frame that is shorter than `len` (C: `skb_put_padto()`).
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// If there is no memory for them the frame is freed.
    // C would take what a `u32` has more for a negative length.
    #[inline]
    pub fn pad_to(self, len: u16) -> Result<Self, Handled> {
        let len = len.into();

        if self.len() >= len {
            return Ok(self);
        }

        let skb = match self.unshared() {
            Ok(skb) => skb.into_raw(),
            Err(skb) => return Err(skb.free(DropReason::NOMEM)),
        };

        // SAFETY: It was ours, and nobody else has a reference. If this fails, it was freed.
        if unsafe { bindings::skb_put_padto(skb, len) } != 0 {
            return Err(Handled(()));
        }

        // SAFETY: It is ours still.
        Ok(unsafe { Self::from_raw(skb) })
    }

    /// Puts all bytes into one piece (C: `skb_linearize()`). Context: any.
    ///
    /// # Errors
    ///
    /// The frame comes back, with the same bytes, if there is no memory.
    #[inline]
    pub(super) fn linearize(self) -> Result<Self, Self> {
        if self.is_linear() {
            return Ok(self);
        }

        let skb = self.unshared()?;

        // SAFETY: By the type invariants it is valid, and nobody else has a reference.
        if unsafe { bindings::skb_linearize(skb.as_ptr()) } == 0 {
            Ok(skb)
        } else {
            Err(skb)
        }
    }

    /// Returns whether the frame is in more than `most` pieces, or in some that a device can't
    /// find.
    #[inline]
    pub(super) fn is_scattered(&self, most: u32) -> bool {
        if self.is_linear() {
            return false;
        }

        // SAFETY: By the type invariants it is valid.
        unsafe {
            bindings::skb_pieces(self.as_ptr()) > most || bindings::skb_has_frag_list(self.as_ptr())
        }
    }

    /// Returns the checksum that the device is to insert, if it is
    /// ([`Features::CHECKSUM`](super::Features::CHECKSUM)). Context: any.
    #[inline]
    pub fn checksum(&self) -> Option<Checksum> {
        let mut checksum = Checksum {
            start: 0,
            offset: 0,
        };

        // SAFETY: By the type invariants it is valid; both are valid for writing.
        unsafe {
            bindings::skb_wants_csum(self.as_ptr(), &mut checksum.start, &mut checksum.offset)
        }
        .then_some(checksum)
    }

    /// Computes the checksum that was left to the device, and inserts it: for a frame of which the
    /// device can't (C: `skb_checksum_help()`). Context: any.
    ///
    /// # Errors
    ///
    /// The frame comes back if there is no memory for bytes that clones of it have, too, and if the
    /// device is to [divide](Self::is_segmented) it.
    pub fn compute_checksum(self) -> Result<Self, Self> {
        if self.is_segmented() {
            return Err(self);
        }

        if self.checksum().is_none() {
            return Ok(self);
        }

        let skb = self.unshared()?;

        // SAFETY: By the type invariants it is valid, and nobody else has a reference.
        if unsafe { bindings::skb_checksum_help(skb.as_ptr()) } == 0 {
            Ok(skb)
        } else {
            Err(skb)
        }
    }

    /// Returns the VLAN tag that the device is to insert, if it is
    /// ([`Features::VLAN_INSERT`](super::Features::VLAN_INSERT)). Context: any.
    #[inline]
    pub fn vlan_tag(&self) -> Option<u16> {
        let mut tag = 0;

        // SAFETY: By the type invariants it is valid; the tag is valid for writing.
        unsafe { bindings::skb_wants_vlan(self.as_ptr(), &mut tag) }.then_some(tag)
    }

    /// Returns whether the device is to divide the frame ([`Features::TSO`](super::Features::TSO)).
    /// Then [`prepare_segmentation`](Self::prepare_segmentation) says how. Context: any.
    #[inline]
    pub fn is_segmented(&self) -> bool {
        // SAFETY: By the type invariants it is valid.
        unsafe { bindings::skb_is_gso(self.as_ptr()) }
    }

    /// Prepares the headers of a frame that the device is to divide: they get no lengths, and the
    /// checksum of TCP's pseudo header without one. Returns how it is to be divided. Context: any.
    ///
    /// # Errors
    ///
    /// The frame comes back if it isn't to be divided, if it isn't TCP over IPv4 (the stack gives
    /// no other to a device with [`Features::TSO`](super::Features::TSO)), and if there is no
    /// memory for headers that clones of it have, too.
    pub fn prepare_segmentation(self) -> Result<(Self, Segmentation), Self> {
        let mut how = Segmentation {
            size: 0,
            headers: 0,
            network: 0,
            transport: 0,
        };

        if !self.is_segmented() {
            return Err(self);
        }

        let skb = self.unshared()?;

        // SAFETY: By the type invariants it is valid, and nobody else has a reference; what follows
        // is valid for writing.
        let prepared = to_result(unsafe {
            bindings::skb_prepare_tso(
                skb.as_ptr(),
                &mut how.size,
                &mut how.headers,
                &mut how.network,
                &mut how.transport,
            )
        });

        match prepared {
            Ok(()) => Ok((skb, how)),
            Err(_) => Err(skb),
        }
    }

    /// Frees the frame (C: `dev_kfree_skb_any_reason()`). Context: any.
    #[inline]
    pub fn free(self, reason: DropReason) -> Handled {
        // SAFETY: The reference was ours, and is given up.
        unsafe { bindings::dev_kfree_skb_any_reason(self.into_raw(), reason.0) };
        Handled(())
    }
}

/// A frame in a ring.
///
/// Unlike an [`SkBuff`] it may be dropped, in any context: that is what happens to frames in a ring
/// whose device was stopped. The reason says so.
///
/// # What it holds
///
/// The reference keeps the `struct sk_buff`; that keeps its `skb_shared_info`'s count, and with it
/// the bytes. So these stay until the frame is freed, whoever else has them. It doesn't hold the
/// device, nor a route, nor the state of a connection. It does hold its socket, whose limits it
/// counts for, and so the network namespace of that: until it was sent, or its device was proven to
/// have stopped.
///
/// # Invariants
///
/// As those of an [`SkBuff`]. All pieces are in the linear part, and in fragments; no other skb
/// hangs on it.
#[repr(transparent)]
pub(super) struct TxFrame(NonNull<bindings::sk_buff>);

// SAFETY: As `SkBuff`.
unsafe impl Send for TxFrame {}

impl TxFrame {
    /// Makes a frame of at most so many pieces.
    ///
    /// # Errors
    ///
    /// The frame comes back if there is no memory to put its pieces together.
    #[inline]
    pub(super) fn new(mut skb: SkBuff, most: u32) -> Result<Self, SkBuff> {
        if skb.is_scattered(most) {
            skb = skb.linearize()?;
        }

        let skb = ManuallyDrop::new(skb).0;

        // SAFETY: By the type invariants of `SkBuff` it is valid, and nobody else changes it.
        unsafe { bindings::skb_shed(skb.as_ptr()) };
        // INVARIANT: It was that of an `SkBuff`. If others hung on it, it was put together.
        Ok(Self(skb))
    }

    #[inline]
    pub(super) fn into_skb(self) -> SkBuff {
        // INVARIANT: As that of a frame.
        SkBuff(ManuallyDrop::new(self).0)
    }

    /// Returns the number of bytes.
    #[inline]
    pub(super) fn bytes(&self) -> u32 {
        // SAFETY: By the type invariants it is valid, and nobody else writes to it.
        unsafe { (*self.0.as_ptr()).len }
    }

    /// Returns how many frames it was on the wire, and how many bytes these had.
    #[inline]
    pub(super) fn on_wire(&self) -> (u32, u32) {
        let mut frames = 0;

        // SAFETY: By the type invariants it is valid; the number is valid for writing.
        let bytes = unsafe { bindings::skb_wire_bytes(self.0.as_ptr(), &mut frames) };

        (frames, bytes)
    }

    /// Frees a frame that was sent (C: `napi_consume_skb()`), in a poll function.
    ///
    /// # Safety
    ///
    /// The caller must be a poll function that was called with that budget, which isn't zero.
    #[inline]
    pub(super) unsafe fn consume(self, budget: c_int) {
        // SAFETY: The reference was ours, and is given up. By the safety requirements this is the
        // context that the budget says.
        unsafe { bindings::napi_consume_skb(self.into_skb().into_raw(), budget) };
    }
}

impl Drop for TxFrame {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: The reference is ours. The device may be gone, and whoever watches frames that
        // are dropped would look for it.
        unsafe {
            bindings::skb_forget_dev(self.0.as_ptr());
            bindings::dev_kfree_skb_any_reason(self.0.as_ptr(), DropReason::DEV_READY.0);
        }
    }
}

// SAFETY:
// 1. They are in the `struct sk_buff` and in its `skb_shared_info`, not in the bytes. By the type
//    invariants nobody changes them: of a frame that is shared, nobody may.
// 2. The bytes are those of the linear part, and of the pages of the fragments, which the reference
//    keeps: see `TxFrame`. The former are allocated by `kmalloc()`, or in a page fragment, so in
//    the linear map and contiguous. So are the latter: a device without `NETIF_F_HIGHDMA` gets no
//    others (C: `illegal_highdma()`), nor such that the CPU can't read. Whoever made the frame
//    wrote them.
unsafe impl Readable for TxFrame {
    #[inline]
    fn count(&self) -> usize {
        // CAST: Widening.
        //
        // SAFETY: By the type invariants it is valid.
        unsafe { bindings::skb_pieces(self.0.as_ptr()) as usize }
    }

    #[inline]
    fn part(&self, at: usize) -> (*const u8, usize) {
        let mut len = 0;

        if at != 0 && at >= self.count() {
            return (core::ptr::null(), 0);
        }

        // CAST: Less than the number of pieces.
        //
        // SAFETY: By the type invariants it is valid; the length is valid for writing. There is
        // such a piece.
        let start = unsafe { bindings::skb_piece(self.0.as_ptr(), at as c_uint, &mut len) };

        (start.cast(), len)
    }
}
