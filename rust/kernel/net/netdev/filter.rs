// SPDX-License-Identifier: GPL-2.0

//! Which frames a device is to receive.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

use crate::bindings;
use core::marker::PhantomData;

/// Which frames a device is to receive, besides those to its own address and to all.
///
/// [`Driver::set_rx_mode`](super::Driver::set_rx_mode) gets one. A device may receive more than
/// that: the stack looks for itself.
///
/// # Invariants
///
/// Both lists are valid for `'c`, and nobody changes them meanwhile.
pub struct RxMode<'c> {
    flags: u32,
    unicast: *mut bindings::netdev_hw_addr_list,
    multicast: *mut bindings::netdev_hw_addr_list,
    _lists: PhantomData<&'c ()>,
}

impl<'c> RxMode<'c> {
    /// # Safety
    ///
    /// Both lists must be valid for `'c`, and nobody may change them meanwhile.
    pub(super) unsafe fn new(
        flags: u32,
        unicast: *mut bindings::netdev_hw_addr_list,
        multicast: *mut bindings::netdev_hw_addr_list,
    ) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            flags,
            unicast,
            multicast,
            _lists: PhantomData,
        }
    }

    /// Returns whether it is to receive all frames (C: `IFF_PROMISC`).
    pub fn is_promiscuous(&self) -> bool {
        self.flags & bindings::net_device_flags_IFF_PROMISC != 0
    }

    /// Returns whether it is to receive all frames to groups (C: `IFF_ALLMULTI`).
    pub fn wants_all_multicast(&self) -> bool {
        self.flags & bindings::net_device_flags_IFF_ALLMULTI != 0
    }

    /// Returns the addresses of which it is to receive the frames, besides its own.
    pub fn unicast(&self) -> Addresses<'c> {
        // INVARIANT: That of this type.
        Addresses {
            list: self.unicast,
            last: core::ptr::null_mut(),
            _list: PhantomData,
        }
    }

    /// Returns the groups of which it is to receive the frames.
    pub fn multicast(&self) -> Addresses<'c> {
        // INVARIANT: That of this type.
        Addresses {
            list: self.multicast,
            last: core::ptr::null_mut(),
            _list: PhantomData,
        }
    }
}

/// Addresses of a list: an iterator.
///
/// # Invariants
///
/// The list is valid for `'c`, and nobody changes it meanwhile. `last` is null or in the list.
#[derive(Clone)]
pub struct Addresses<'c> {
    list: *mut bindings::netdev_hw_addr_list,
    last: *mut bindings::netdev_hw_addr,
    _list: PhantomData<&'c ()>,
}

impl Iterator for Addresses<'_> {
    type Item = [u8; 6];

    fn next(&mut self) -> Option<[u8; 6]> {
        // SAFETY: By the type invariants.
        let next = unsafe { bindings::netdev_hw_addr_next(self.list, self.last) };

        if next.is_null() {
            return None;
        }

        // INVARIANT: It is in the list.
        self.last = next;
        // SAFETY: By the type invariants it is valid.
        unsafe { (*next).addr }.first_chunk().copied()
    }
}
