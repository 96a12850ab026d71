// SPDX-License-Identifier: GPL-2.0

//! Network devices.
//!
//! A driver of a network card implements [`Driver`], and registers a device in its `probe()`:
//!
//! | type | what it is for |
//! |---|---|
//! | [`Unregistered`] | a device that is being set up |
//! | [`Driver`] | what the stack asks for: open, stop, send, poll |
//! | [`Control`] | the control path: the stack's instance lock is held |
//! | [`Xmit`], [`Sender`] | sending a frame: the lock of the transmit queue is held |
//! | [`Poll`], [`Cleaner`] | polling: nobody else does |
//! | [`SkBuff`] | a frame that is ours, and can't be forgotten |
//! | [`Features`] | what the device does itself: checksums, segmentation, VLAN tags |
//! | [`RxMode`] | which frames it is to receive |
//! | [`Link`], [`LinkChoice`], [`RingLengths`], [`Messages`] | what administrators ask, and set |
//! | [`Napi`] | the handle by which an interrupt handler schedules polling |
//! | [`Device`] | the handle by which the rest of the driver schedules work |
//!
//! # Who may touch what, and when
//!
//! C serialises the callbacks of a driver by locks that it has anyway. What these protect is lent
//! to the driver while they are held, so a driver needs no locks of its own in its hot paths:
//!
//! | callback | context | serialised by | what it lends |
//! |---|---|---|---|
//! | `open`, `stop`, `work`, `set_...`, `self_test` | may sleep | the instance lock | [`Control`] |
//! | `start_xmit`, `kick` | softirqs are off | the queue's lock | [`Driver::Tx`] |
//! | `poll` | softirqs are off | `NAPI_STATE_SCHED` | [`Driver::Poll`] |
//! | `rearm` | softirqs are off | nothing | |
//!
//! `open` returns both states, and `stop` gets them back. A ring has two halves for that: the one
//! that sends lies in the first, the one that gets sent frames back lies in the second.
//!
//! Between these the device is *running*. It is *halted* while [`restart`](Control::restart) is at
//! work, and closed otherwise. Frames that come to a device that is not running are dropped, with
//! [`DropReason::DEV_READY`].
//!
//! # Order of locks
//!
//! The device's (of the driver core), RTNL, the instance lock, that of the session
//! ([`Session`](crate::dma::Session)); and apart from these the lock of the transmit queue.
//!
//! # Order of release
//!
//! Three things belong to the bound device, and are undone backwards: the memory of the device and
//! its NAPI ([`Unregistered::new`]), the interrupt, and the registration. So what the interrupt
//! handler has, [`Napi`], is there for as long as it can be called; and after the registration is
//! undone, no callback comes. There is nothing for a driver to keep, hence nothing to forget.
//!
//! # What it can't do yet
//!
//! One transmit queue, one poll function. Received frames are copied. An MTU that is changed needs
//! no new buffers.
//!
//! C header: [`include/linux/netdevice.h`](srctree/include/linux/netdevice.h)

mod device;
mod ethtool;
mod features;
mod filter;
mod napi;
mod skbuff;
#[cfg(CONFIG_RUST_NETDEV_KUNIT_TEST)]
mod tests;
mod transmit;

pub use self::{
    device::{
        Control,
        Device,
        Driver,
        Events,
        Unregistered, //
    },
    ethtool::{
        Link,
        LinkChoice,
        LinkModes,
        Messages,
        RingLengths, //
    },
    features::Features,
    filter::{
        Addresses,
        RxMode, //
    },
    napi::{
        Napi,
        Poll,
        Progress,
        Reported, //
    },
    skbuff::{
        Checksum,
        DropReason,
        Handled,
        Segmentation,
        SkBuff, //
    },
    transmit::{
        Cleaner,
        Sender,
        SpareTx,
        Verdict,
        Xmit, //
    },
};
