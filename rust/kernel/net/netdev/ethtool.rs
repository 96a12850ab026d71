// SPDX-License-Identifier: GPL-2.0

//! What administrators ask a device, and tell it, by ethtool.
//!
//! C header: [`include/linux/ethtool.h`](srctree/include/linux/ethtool.h)

use super::device::{
    Control,
    Core,
    Driver, //
};
use crate::{
    bindings,
    error::from_result,
    prelude::*,
    sync::atomic::Relaxed, //
};
use core::mem::MaybeUninit;

/// How a link is (C: `struct ethtool_link_ksettings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// In Mbit/s.
    pub speed: u32,
    /// Whether both ends may send at the same time.
    pub is_full_duplex: bool,
}

/// A set of kinds of links, over twisted pair (C: `ETHTOOL_LINK_MODE_..._BIT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkModes(c_ulong);

impl LinkModes {
    /// None.
    pub const NONE: Self = Self(0);
    /// 10 Mbit/s, one end at a time.
    pub const HALF_10: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_10baseT_Half_BIT);
    /// 10 Mbit/s, both ends at the same time.
    pub const FULL_10: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_10baseT_Full_BIT);
    /// 100 Mbit/s, one end at a time.
    pub const HALF_100: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_100baseT_Half_BIT);
    /// 100 Mbit/s, both ends at the same time.
    pub const FULL_100: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_100baseT_Full_BIT);
    /// 1000 Mbit/s, both ends at the same time.
    pub const FULL_1000: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_1000baseT_Full_BIT);

    const NEGOTIATION: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_Autoneg_BIT);
    const TWISTED_PAIR: Self =
        Self(1 << bindings::ethtool_link_mode_bit_indices_ETHTOOL_LINK_MODE_TP_BIT);

    /// Adds those of another set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of another set are in this one.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the kind of a link; none if there is no such kind.
    const fn of(link: Link) -> Self {
        match (link.speed, link.is_full_duplex) {
            (10, false) => Self::HALF_10,
            (10, true) => Self::FULL_10,
            (100, false) => Self::HALF_100,
            (100, true) => Self::FULL_100,
            (1000, true) => Self::FULL_1000,
            _ => Self::NONE,
        }
    }
}

/// Which link administrators want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChoice {
    /// The best of these that the partner has, too.
    Negotiated(LinkModes),
    /// This one, and the partner isn't asked. Links of 1000 Mbit/s take two ends that negotiate.
    Forced(Link),
}

/// How many descriptors each ring has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLengths {
    /// The one that sends.
    pub tx: u32,
    /// The one that receives.
    pub rx: u32,
}

/// Which messages are logged (C: `NETIF_MSG_...`). Administrators choose among them; a driver
/// [asks](Control::logs) before it logs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages(pub(super) u32);

impl Messages {
    /// The link came or went.
    pub const LINK: Self = Self(1 << 2);

    /// What is logged unless somebody says otherwise: as C's drivers have it, that the driver is
    /// there, what it finds, and the link.
    pub(super) const DEFAULT: u32 = 1 << 0 | 1 << 1 | Self::LINK.0;
}

/// `ETHTOOL_COALESCE_RX_USECS`, `ETHTOOL_OP_NEEDS_RTNL_GLINK`
const RX_USECS: u32 = 1 << 0;
const LINK_NEEDS_RTNL: u32 = 1 << 8;

/// `ETH_TEST_FL_OFFLINE`, `ETH_TEST_FL_FAILED`
const OFFLINE: u32 = 1 << 0;
const FAILED: u32 = 1 << 1;

impl<T: Driver> Core<T> {
    /// Whether there is something that the device counts: C warns if that is nothing.
    const COUNTS: bool = T::HAS_STATISTICS && !T::STATISTICS.is_empty();

    /// Whether there is something that it can test: likewise.
    const TESTS: bool = T::HAS_SELF_TEST && !T::SELF_TESTS.is_empty();

    /// The callbacks, of those methods that the driver has.
    pub(super) const ETHTOOL: &'static bindings::ethtool_ops = &bindings::ethtool_ops {
        supported_coalesce_params: if T::HAS_SET_COALESCING { RX_USECS } else { 0 },
        op_needs_rtnl: LINK_NEEDS_RTNL,
        get_link: Some(bindings::ethtool_op_get_link),
        get_msglevel: Some(Self::get_msglevel),
        set_msglevel: Some(Self::set_msglevel),
        get_link_ksettings: if T::HAS_LINK {
            Some(Self::get_link_ksettings)
        } else {
            None
        },
        set_link_ksettings: if T::HAS_SET_LINK {
            Some(Self::set_link_ksettings)
        } else {
            None
        },
        get_ringparam: if T::HAS_RINGS {
            Some(Self::get_ringparam)
        } else {
            None
        },
        set_ringparam: if T::HAS_SET_RINGS {
            Some(Self::set_ringparam)
        } else {
            None
        },
        get_coalesce: if T::HAS_COALESCING {
            Some(Self::get_coalesce)
        } else {
            None
        },
        set_coalesce: if T::HAS_SET_COALESCING {
            Some(Self::set_coalesce)
        } else {
            None
        },
        self_test: if Self::TESTS {
            Some(Self::self_test)
        } else {
            None
        },
        get_sset_count: if Self::COUNTS || Self::TESTS {
            Some(Self::get_sset_count)
        } else {
            None
        },
        get_strings: if Self::COUNTS || Self::TESTS {
            Some(Self::get_strings)
        } else {
            None
        },
        get_ethtool_stats: if Self::COUNTS {
            Some(Self::get_ethtool_stats)
        } else {
            None
        },
        // SAFETY: All of them may be null, or zero.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// # Safety
    ///
    /// Called by ethtool for a device that is registered for this `T`, with the instance lock, and
    /// settings that are valid for writing.
    unsafe extern "C" fn get_link_ksettings(
        dev: *mut bindings::net_device,
        settings: *mut bindings::ethtool_link_ksettings,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        let (driver, settings) = unsafe { (Self::of(dev).driver(), &mut *settings) };
        let base = &mut settings.base;

        // CAST: Small numbers.
        base.port = bindings::PORT_TP as u8;
        base.speed = bindings::SPEED_UNKNOWN as u32;
        base.duplex = bindings::DUPLEX_UNKNOWN as u8;
        base.autoneg = bindings::AUTONEG_ENABLE as u8;

        if let Some(link) = driver.link() {
            base.speed = link.speed;
            base.duplex = match link.is_full_duplex {
                true => bindings::DUPLEX_FULL as u8,
                false => bindings::DUPLEX_HALF as u8,
            };
        }

        if T::HAS_LINK_CHOICE {
            let (possible, choice) = driver.link_choice();
            let offered = match choice {
                LinkChoice::Negotiated(modes) => modes.with(LinkModes::NEGOTIATION),
                LinkChoice::Forced(_) => {
                    base.autoneg = bindings::AUTONEG_DISABLE as u8;
                    LinkModes::NONE
                }
            };
            let modes = &mut settings.link_modes;

            // All of them are in the first word.
            modes.supported[0] = possible
                .with(LinkModes::NEGOTIATION)
                .with(LinkModes::TWISTED_PAIR)
                .0;
            modes.advertising[0] = offered.with(LinkModes::TWISTED_PAIR).0;
        }

        0
    }

    /// # Safety
    ///
    /// As [`set_ringparam`](Self::set_ringparam).
    unsafe extern "C" fn set_link_ksettings(
        dev: *mut bindings::net_device,
        settings: *const bindings::ethtool_link_ksettings,
    ) -> c_int {
        // SAFETY: As in `set_ringparam()`.
        let mut control = unsafe { Control::<T>::new(dev) };

        // SAFETY: By the safety requirements.
        let (base, modes) = unsafe { (&(*settings).base, &(*settings).link_modes) };

        from_result(|| {
            let (possible, _) = control.driver().link_choice();
            let (choice, modes) = if u32::from(base.autoneg) == bindings::AUTONEG_ENABLE {
                let kinds = !LinkModes::NEGOTIATION.with(LinkModes::TWISTED_PAIR).0;
                let modes = LinkModes(modes.advertising[0] & kinds);

                (LinkChoice::Negotiated(modes), modes)
            } else {
                let link = Link {
                    speed: base.speed,
                    is_full_duplex: u32::from(base.duplex) == bindings::DUPLEX_FULL,
                };

                (LinkChoice::Forced(link), LinkModes::of(link))
            };

            if modes == LinkModes::NONE || !possible.contains(modes) {
                return Err(EINVAL);
            }

            control.driver().set_link(&mut control, choice)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings).
    unsafe extern "C" fn get_ringparam(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_ringparam,
        _kernel: *mut bindings::kernel_ethtool_ringparam,
        _extack: *mut bindings::netlink_ext_ack,
    ) {
        // SAFETY: By the safety requirements.
        let (this, param) = unsafe { (Self::of(dev), &mut *param) };
        let (now, most) = this.driver().rings();

        param.tx_pending = now.tx;
        param.rx_pending = now.rx;
        param.tx_max_pending = most.tx;
        param.rx_max_pending = most.rx;
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings), by one at a time.
    unsafe extern "C" fn set_ringparam(
        dev: *mut bindings::net_device,
        param: *mut bindings::ethtool_ringparam,
        _kernel: *mut bindings::kernel_ethtool_ringparam,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: ethtool calls us for a registered device, and holds the instance lock until we
        // return. Callbacks with that lock don't nest, so there is no other `Control`.
        let mut control = unsafe { Control::<T>::new(dev) };

        // SAFETY: By the safety requirements.
        let param = unsafe { &*param };
        let lengths = RingLengths {
            tx: param.tx_pending,
            rx: param.rx_pending,
        };

        from_result(|| {
            control.driver().set_rings(&mut control, lengths)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings).
    unsafe extern "C" fn get_coalesce(
        dev: *mut bindings::net_device,
        coalesce: *mut bindings::ethtool_coalesce,
        _kernel: *mut bindings::kernel_ethtool_coalesce,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: By the safety requirements.
        unsafe { (*coalesce).rx_coalesce_usecs = Self::of(dev).driver().coalescing() };
        0
    }

    /// # Safety
    ///
    /// As [`set_ringparam`](Self::set_ringparam).
    unsafe extern "C" fn set_coalesce(
        dev: *mut bindings::net_device,
        coalesce: *mut bindings::ethtool_coalesce,
        _kernel: *mut bindings::kernel_ethtool_coalesce,
        _extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        // SAFETY: As in `set_ringparam()`.
        let mut control = unsafe { Control::<T>::new(dev) };

        // SAFETY: By the safety requirements.
        let microseconds = unsafe { (*coalesce).rx_coalesce_usecs };

        from_result(|| {
            control
                .driver()
                .set_coalescing(&mut control, microseconds)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings).
    unsafe extern "C" fn get_msglevel(dev: *mut bindings::net_device) -> u32 {
        // SAFETY: By the safety requirements.
        unsafe { Self::of(dev) }.messages.load(Relaxed)
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings).
    unsafe extern "C" fn set_msglevel(dev: *mut bindings::net_device, messages: u32) {
        // SAFETY: By the safety requirements.
        unsafe { Self::of(dev) }.messages.store(messages, Relaxed);
    }

    /// # Safety
    ///
    /// As [`set_ringparam`](Self::set_ringparam), with room for as many numbers as
    /// [`get_sset_count`](Self::get_sset_count) has said.
    unsafe extern "C" fn self_test(
        dev: *mut bindings::net_device,
        test: *mut bindings::ethtool_test,
        results: *mut u64,
    ) {
        // SAFETY: As in `set_ringparam()`.
        let mut control = unsafe { Control::<T>::new(dev) };

        // SAFETY: By the safety requirements. The numbers were zeroed.
        let (flags, results) = unsafe {
            (
                &mut (*test).flags,
                core::slice::from_raw_parts_mut(results, T::SELF_TESTS.len()),
            )
        };

        control
            .driver()
            .self_test(&mut control, *flags & OFFLINE != 0, results);

        if results.iter().any(|result| *result != 0) {
            *flags |= FAILED;
        }
    }

    /// Returns the names of a set.
    fn names(set: u32) -> &'static [&'static CStr] {
        match set {
            bindings::ethtool_stringset_ETH_SS_STATS if Self::COUNTS => T::STATISTICS,
            bindings::ethtool_stringset_ETH_SS_TEST if Self::TESTS => T::SELF_TESTS,
            _ => &[],
        }
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings).
    unsafe extern "C" fn get_sset_count(_dev: *mut bindings::net_device, set: c_int) -> c_int {
        // CAST: A small number; a few.
        match Self::names(set as u32).len() {
            0 => EOPNOTSUPP.to_errno(),
            count => count as c_int,
        }
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings), with room for as many strings of
    /// `ETH_GSTRING_LEN` bytes as [`get_sset_count`](Self::get_sset_count) has said.
    unsafe extern "C" fn get_strings(_dev: *mut bindings::net_device, set: u32, strings: *mut u8) {
        const LEN: usize = bindings::ETH_GSTRING_LEN as usize;

        for (at, name) in Self::names(set).iter().enumerate() {
            let name = name.to_bytes_with_nul();
            let len = name.len().min(LEN);

            // SAFETY: By the safety requirements there is room for that many strings.
            unsafe {
                core::ptr::copy_nonoverlapping(name.as_ptr(), strings.add(at * LEN), len);
            }
        }
    }

    /// # Safety
    ///
    /// As [`get_link_ksettings`](Self::get_link_ksettings), with room for as many numbers as
    /// [`get_sset_count`](Self::get_sset_count) has said.
    unsafe extern "C" fn get_ethtool_stats(
        dev: *mut bindings::net_device,
        _stats: *mut bindings::ethtool_stats,
        values: *mut u64,
    ) {
        // SAFETY: By the safety requirements. The numbers were zeroed.
        let (this, values) = unsafe {
            (
                Self::of(dev),
                core::slice::from_raw_parts_mut(values, T::STATISTICS.len()),
            )
        };

        this.driver().statistics(values);
    }
}
