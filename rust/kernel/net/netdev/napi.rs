// SPDX-License-Identifier: GPL-2.0

//! Polling.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use super::device::{
    add,
    Counters,
    Device,
    Events, //
};
use crate::{
    bindings,
    prelude::*,
    types::Opaque, //
};
use core::{
    marker::PhantomData,
    num::NonZeroU32, //
};

/// The header of an Ethernet frame.
const HEADER: u32 = bindings::ETH_HLEN;

/// The longest frame that is received.
const LONGEST: usize = 1 << 16;

/// The handle by which an interrupt handler schedules polling (C: `struct napi_struct`).
///
/// A handler masks the device's interrupts and calls [`schedule`](Self::schedule). The driver's
/// [`poll`](super::Driver::poll) is called soon then, again and again, until it says that it is
/// done. [`rearm`](super::Driver::rearm) unmasks the interrupts.
///
/// It is lent for as long as the device is bound. Until a network device is opened, and when it is
/// closed, scheduling does nothing. So a late interrupt does no harm.
///
/// # Examples
///
/// ```
/// use kernel::{irq, net::netdev::Napi};
///
/// struct Handler<'a> {
///     napi: &'a Napi,
/// }
///
/// impl irq::Handler for Handler<'_> {
///     fn handle(&self) -> irq::IrqReturn {
///         // The device's interrupts are masked here.
///         self.napi.schedule();
///         irq::IrqReturn::Handled
///     }
/// }
/// ```
#[repr(transparent)]
pub struct Napi(Opaque<bindings::napi_struct>);

// SAFETY: It is reached by C functions that are made for several threads.
unsafe impl Sync for Napi {}
// SAFETY: As above.
unsafe impl Send for Napi {}

impl Napi {
    #[inline]
    pub(super) fn as_raw(&self) -> *mut bindings::napi_struct {
        self.0.get()
    }

    /// Has the device polled soon (C: `napi_schedule()`).
    ///
    /// Returns false if that is going to happen anyway, or if the device isn't open. In either case
    /// interrupts stay masked: [`rearm`](super::Driver::rearm) is called later.
    ///
    /// Context: an interrupt handler, or with softirqs off. In others, the poll may have to wait
    /// for the next interrupt.
    #[inline]
    pub fn schedule(&self) -> bool {
        // SAFETY: It was added to its device before anybody had a reference, and isn't freed while
        // there is one.
        unsafe { bindings::napi_schedule(self.as_raw()) }
    }
}

/// What [`poll`](super::Driver::poll) is called with. Nobody else polls meanwhile, and softirqs are
/// off.
pub struct Poll<'c> {
    napi: &'c Napi,
    device: &'c Device,
    counters: &'c Counters,
    budget: NonZeroU32,
    received: u32,
    _context: PhantomData<*mut ()>,
}

/// What a device says of a frame that it has received, besides its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Whether it has found the checksum of the outermost protocol with one, and of the one around
    /// that, to be right ([`Features::RX_CHECKSUM`](super::Features::RX_CHECKSUM)). The stack
    /// doesn't look again then.
    pub is_checked: bool,

    /// The VLAN tag that it has taken out
    /// ([`Features::VLAN_STRIP`](super::Features::VLAN_STRIP)).
    pub vlan_tag: Option<u16>,
}

/// What [`poll`](super::Driver::poll) has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All there was to do. Unless the budget is used up, interrupts are unmasked
    /// ([`rearm`](super::Driver::rearm)).
    Done,
    /// Not all: it is to be polled again.
    More,
}

impl<'c> Poll<'c> {
    /// # Safety
    ///
    /// The caller must be the poll function of `napi`, which is that of `device`, called with
    /// `budget`. The counters must be those of the device.
    #[inline(always)]
    pub(super) unsafe fn new(
        napi: &'c Napi,
        device: &'c Device,
        counters: &'c Counters,
        budget: NonZeroU32,
    ) -> Self {
        Self {
            napi,
            device,
            counters,
            budget,
            received: 0,
            _context: PhantomData,
        }
    }

    /// Returns how many frames may be [received](Self::receive) yet.
    #[inline]
    pub fn budget(&self) -> u32 {
        self.budget.get().saturating_sub(self.received)
    }

    /// Returns with how much the poll function was called.
    #[inline]
    pub(super) fn whole_budget(&self) -> c_int {
        // CAST: C has it as an `int`.
        self.budget.get() as c_int
    }

    /// Returns how many frames were received.
    #[inline]
    pub(super) fn received(&self) -> u32 {
        self.received
    }

    #[inline]
    pub(super) fn counters(&self) -> &'c Counters {
        self.counters
    }

    /// Schedules [`work`](super::Driver::work), for what may sleep: as
    /// [`Device::schedule_work`].
    pub fn schedule_work(&self, events: Events) {
        self.device.schedule_work(events);
    }

    /// Gives a copy of a received frame of `len` bytes to the stack (C: `napi_gro_receive()`). The
    /// segments are its bytes, one after the other, from the Ethernet header on; `reported` is what
    /// the device says of it.
    ///
    /// The frame counts for the budget. If there is no memory for the copy, or if the frame is
    /// shorter than an Ethernet header, it is dropped and counted as such.
    #[inline]
    pub fn receive<'s>(
        &mut self,
        len: usize,
        segments: impl IntoIterator<Item = &'s [u8]>,
        reported: Reported,
    ) {
        let counters = self.counters;

        self.received += 1;

        // CAST: Widening.
        if !(HEADER as usize..=LONGEST).contains(&len) {
            add(&counters.rx_length_errors, 1);
            return;
        }

        // CAST: At most `LONGEST`.
        let len = len as u32;

        // SAFETY: We are the poll function of this NAPI, and softirqs are off.
        let skb = unsafe { bindings::napi_alloc_skb(self.napi.as_raw(), len) };

        if skb.is_null() {
            add(&counters.rx_dropped, 1);
            return;
        }

        let mut left = len as usize;

        for segment in segments {
            let segment = segment.get(..left).unwrap_or(segment);

            left -= segment.len();

            // SAFETY: The skb is ours, and was allocated with room for `len` bytes, of which `left`
            // aren't taken. CAST: At most `len`.
            unsafe {
                bindings::skb_put_data(skb, segment.as_ptr().cast(), segment.len() as u32);
            }
        }

        if left != 0 {
            // There are fewer bytes than was said.
            //
            // SAFETY: The skb is ours, and is given up.
            unsafe {
                bindings::dev_kfree_skb_any_reason(
                    skb,
                    bindings::skb_drop_reason_SKB_DROP_REASON_DEV_HDR,
                )
            };
            add(&counters.rx_length_errors, 1);
            return;
        }

        add(&counters.rx_packets, 1);
        // CAST: Widening.
        add(&counters.rx_bytes, u64::from(len));

        // SAFETY: The skb is ours, is given up, and has an Ethernet header. We are the poll
        // function of this NAPI.
        unsafe {
            bindings::napi_gro_receive_eth(
                self.napi.as_raw(),
                skb,
                reported.is_checked,
                reported.vlan_tag.is_some(),
                reported.vlan_tag.unwrap_or(0),
            )
        };
    }
}
