// SPDX-License-Identifier: GPL-2.0

//! What a device does itself, and not the stack.
//!
//! C header: [`include/linux/netdev_features.h`](srctree/include/linux/netdev_features.h)

use crate::bindings;

/// What a device does itself (C: `netdev_features_t`).
///
/// # Examples
///
/// ```
/// use kernel::net::netdev::Features;
///
/// const OURS: Features = Features::SG.with(Features::CHECKSUM);
///
/// assert!(OURS.contains(Features::SG) && !OURS.contains(Features::TSO));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub(super) u64);

impl Features {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// It sends frames from several pieces of memory (C: `NETIF_F_SG`). Without
    /// [`CHECKSUM`](Self::CHECKSUM) the stack doesn't use it.
    pub const SG: Self = Self::bit(bindings::NETIF_F_SG_BIT);

    /// It inserts checksums, of any protocol: see [`SkBuff::checksum`](super::SkBuff::checksum)
    /// (C: `NETIF_F_HW_CSUM`).
    pub const CHECKSUM: Self = Self::bit(bindings::NETIF_F_HW_CSUM_BIT);

    /// It divides frames of TCP over IPv4: see
    /// [`SkBuff::prepare_segmentation`](super::SkBuff::prepare_segmentation) (C: `NETIF_F_TSO`).
    /// Without [`SG`](Self::SG) the stack doesn't use it.
    pub const TSO: Self = Self::bit(bindings::NETIF_F_TSO_BIT);

    /// It inserts VLAN tags: see [`SkBuff::vlan_tag`](super::SkBuff::vlan_tag) (C:
    /// `NETIF_F_HW_VLAN_CTAG_TX`).
    pub const VLAN_INSERT: Self = Self::bit(bindings::NETIF_F_HW_VLAN_CTAG_TX_BIT);

    /// It takes VLAN tags out of frames that it receives: see
    /// [`Reported::vlan_tag`](super::Reported::vlan_tag) (C: `NETIF_F_HW_VLAN_CTAG_RX`).
    pub const VLAN_STRIP: Self = Self::bit(bindings::NETIF_F_HW_VLAN_CTAG_RX_BIT);

    /// It checks checksums of frames that it receives: see
    /// [`Reported::is_checked`](super::Reported::is_checked) (C: `NETIF_F_RXCSUM`).
    pub const RX_CHECKSUM: Self = Self::bit(bindings::NETIF_F_RXCSUM_BIT);

    const fn bit(number: u32) -> Self {
        Self(1 << number)
    }

    /// Returns these and others.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Returns whether all of these are among them.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}
