// SPDX-License-Identifier: GPL-2.0

//! DMA engines: devices that move data for other drivers, on channels.
//!
//! Some machines have a device whose only work is to copy memory, or to carry data between memory
//! and the FIFO of a serial port, a sound chip or a disk controller. In C its driver is the
//! *provider*, and the driver that has data moved is the *client*. This is the client's side:
//!
//! 1. Request a [`Channel`], by name or by what it [can do](Capabilities).
//! 2. Map memory with the channel's [`mapper`](Channel::mapper). It is the engine that accesses the
//!    memory, so nothing that was mapped for the client's own device fits.
//! 3. Put the memory into a transfer, such as [`Memcpy`], and [`submit`](Channel::submit) that. The
//!    engine doesn't begin yet: several transfers can be submitted, and announced together by
//!    [`issue_pending`](Channel::issue_pending).
//! 4. [`Submitted::wait`] returns the memory when the engine is done with it.
//!
//! A channel moves what it was told in order. [`Cyclic`] is the transfer that doesn't end: the
//! engine goes round in a buffer until it is stopped.
//!
//! # Whose memory it is
//!
//! What is submitted belongs to a [`Submitted`]. The memory comes back when the engine is done, for
//! which there are two proofs: the provider called back (or, for
//! [`submit_polled`](Channel::submit_polled), answered that it is done), or all transfers of the
//! channel were terminated ([`Channel::terminate_sync`]). There is no third. After a time-out the
//! memory stays where it is. A `Submitted` that is dropped too early leaves its memory in the
//! channel's quarantine until the channel is terminated or released, and the log says so. One that
//! is forgotten leaks.
//!
//! This isn't a [`transfer::Engine`](super::transfer::Engine), though the idea is the same. An
//! `Engine` is the hardware of the driver's own device: it moves one buffer at a time, it is asked
//! by reading a register, and a session stops it together with the device. A channel belongs to
//! another driver, has two buffers to copy from and to, takes many transfers at a time, and is
//! terminated alone.
//!
//! # What is trusted
//!
//! The provider is a driver of this kernel. It is trusted to access what it was told, no more, and
//! to say truly when it is done. How much it moved, and how much is left, is the hardware's word,
//! and is checked. A provider that calls back twice, late, or never does no harm.
//!
//! # Unbinding
//!
//! The provider can't be unbound while the client is bound: a device link sees to it that the
//! driver core unbinds the client first. Neither can its module be unloaded. A channel is
//! terminated and released when it is dropped. [`Channel::lend`] makes the client's device do that,
//! and terminates the channel when the driver's `unbind()` is done.
//!
//! # What is left out
//!
//! - Interleaved transfers: their template describes gaps in memory, which the mapped types don't
//!   have. Nearly all providers that have them are for video.
//! - XOR, P+Q and memset: `async_tx` is their only client.
//! - Descriptors that are used again (`DMA_CTRL_REUSE`), and metadata: they make a provider's
//!   memory the client's, and few providers have them.
//! - Pause and resume: what is paused is in flight, so these can be added when there is a user.
//! - `DMA_DEV_TO_DEV`: no memory takes part.
//! - Filter functions: C keeps them for boards without a device tree. Names do the same.
//!
//! See `Documentation/rust/dma/dmaengine.rst`.
//!
//! C header: [`include/linux/dmaengine.h`](srctree/include/linux/dmaengine.h)

mod capabilities;
mod channel;
mod cyclic;
mod memcpy;
mod peripheral;
mod slot;
mod status;
mod submitted;

pub use self::{
    capabilities::Capabilities,
    channel::{
        Channel,
        Handler, //
    },
    cyclic::Cyclic,
    memcpy::Memcpy,
    peripheral::{
        Peripheral,
        Slave,
        SlaveList,
        Width, //
    },
    status::{
        Cookie,
        Status, //
    },
    submitted::{
        Submitted,
        Transfer, //
    },
};
