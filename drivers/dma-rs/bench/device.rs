// SPDX-License-Identifier: GPL-2.0

//! The device, and the way from Rust to C.
//!
//! Here is claimed what the device does, which is little; in `queue.rs`, what it does as one that
//! carries out commands. Else there is `unsafe` in the declarations in `table.rs` only.

#![allow(unsafe_code)]

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        self,
        ring::{
            Descriptor,
            DescriptorInfo,
            Length,
            Publish,
            ReceiveDescriptor,
            Received,
            RingMemory,
            RingRegisters,
            Tail,
            Verdict, //
        },
        Buffer,
        Constraints,
        Direction,
        DmaMask,
        FromDevice,
        Quiesce,
        StopOutcome,
        Streaming,
        StreamingBox,
        ToDevice,
        Untrusted, //
    },
    error::to_result,
    io::{
        Io,
        IoBase,
        Mmio,
        Region, //
    },
    pci,
    prelude::*, //
};

/// As in `bench.h`.
pub(crate) const FRAME: usize = 2048;
pub(crate) const LARGE: usize = 65536;
pub(crate) const COPIED: usize = 64;
pub(crate) const COHERENT: usize = 4096;
pub(crate) const PIECE: usize = 4096;
pub(crate) const BLOCK: usize = 64;
pub(crate) const BATCH: u32 = 32;
const DONE: u32 = 1 << 0;
const END: u32 = 1 << 1;
pub(crate) const TAIL: usize = 4;
pub(crate) const HEAD: usize = 8;

pub(crate) mod ffi {
    use kernel::prelude::*;

    /// `struct dma_bench`
    #[repr(C)]
    pub(crate) struct Bench([u8; 0]);

    /// `struct dma_bench_device`
    #[repr(C)]
    pub(crate) struct SoftDevice([u8; 0]);

    /// `struct dma_bench_controller`
    #[repr(C)]
    pub(crate) struct Controller([u8; 0]);

    unsafe extern "C" {
        pub(super) fn dma_bench_open(name: *const c_char) -> *mut Bench;
        pub(super) fn dma_bench_close(bench: *mut Bench);
        pub(super) fn dma_bench_prepare(
            bench: *mut Bench,
            batch: u32,
            ring: u32,
            queue: bool,
            copies: bool,
        ) -> c_int;
        pub(super) fn dma_bench_run(
            bench: *mut Bench,
            c: super::CLoop,
            buf: *mut c_void,
            len: usize,
            n: u32,
        ) -> c_int;
        pub(super) fn dma_bench_slot_size() -> u32;
        pub(super) fn dma_bench_device_new(name: *const c_char) -> *mut SoftDevice;
        pub(super) fn dma_bench_device_free(device: *mut SoftDevice);
        pub(super) fn dma_bench_device_set_batch(device: *mut SoftDevice, batch: u32);
        pub(super) fn dma_bench_device_attach(
            device: *mut SoftDevice,
            addr: dma::DmaAddress,
            len: u32,
        ) -> c_int;
        pub(super) fn dma_bench_device_run(device: *mut SoftDevice);
        pub(crate) fn dma_bench_controller_new(name: *const c_char) -> *mut Controller;
        pub(crate) fn dma_bench_controller_free(device: *mut Controller);
        pub(crate) fn dma_bench_controller_attach_commands(
            device: *mut Controller,
            addr: dma::DmaAddress,
            len: u32,
        ) -> c_int;
        pub(crate) fn dma_bench_controller_attach_completions(
            device: *mut Controller,
            addr: dma::DmaAddress,
            len: u32,
        ) -> c_int;
        pub(crate) fn dma_bench_controller_run(device: *mut Controller, tail: u32);
    }
    use super::dma;
}

/// A loop in C: does something that many times.
pub(crate) type CLoop = unsafe extern "C" fn(*mut ffi::Bench, u32) -> c_int;

/// The C half, for a device that is bound.
pub(crate) struct CHalf<'a>(NonNull<ffi::Bench>, PhantomData<&'a Device<Bound>>);

// SAFETY: It is C's memory, which any thread may use, one at a time.
unsafe impl Send for CHalf<'_> {}

impl<'a> CHalf<'a> {
    /// Opens it.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(crate) fn new(dev: &'a Device<Bound>) -> Result<Self> {
        // SAFETY: The name is a C string. The device stays bound until the close, by the lifetime.
        let raw = unsafe { ffi::dma_bench_open(dev.name().as_char_ptr()) };

        Ok(Self(NonNull::new(raw).ok_or(ENOMEM)?, PhantomData))
    }

    /// Prepares rings, unless `ring` is zero, queues of commands if `queue` says so, and a channel
    /// of a DMA engine if `copies` does.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`EINVAL`] if `batch` isn't one; [`ENODEV`] if no channel is left.
    pub(crate) fn prepare(&mut self, batch: u32, ring: u32, queue: bool, copies: bool) -> Result {
        // SAFETY: It is open.
        to_result(unsafe { ffi::dma_bench_prepare(self.0.as_ptr(), batch, ring, queue, copies) })
    }

    /// Runs a loop on a buffer.
    ///
    /// # Errors
    ///
    /// What mapping or allocating says; [`EINVAL`] if the loop needs a longer buffer, or rings that
    /// were not prepared.
    pub(crate) fn run<const N: usize>(
        &mut self,
        c: CLoop,
        buf: &mut KBox<[u8; N]>,
        n: u32,
    ) -> Result {
        let buf: *mut [u8; N] = &mut **buf;

        // SAFETY: It is open. The loops are those of the table, which look whether there is what
        // they need, and whose mappings end with them. The buffer is ours until then.
        to_result(unsafe { ffi::dma_bench_run(self.0.as_ptr(), c, buf.cast(), N, n) })
    }

    /// Runs a loop on a list of buffers.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) fn run_list(&mut self, c: CLoop, list: &mut [KBox<[u8; PIECE]>], n: u32) -> Result {
        let len = size_of_val(list);
        let buf: *mut KBox<[u8; PIECE]> = list.as_mut_ptr();

        // SAFETY: As in `run()`. A box is a pointer to what is in it.
        to_result(unsafe { ffi::dma_bench_run(self.0.as_ptr(), c, buf.cast(), len, n) })
    }

    /// Returns how many bytes a C driver needs for a descriptor, besides the descriptor.
    pub(crate) fn slot_size() -> usize {
        // CAST: Widening.
        // SAFETY: No requirements.
        unsafe { ffi::dma_bench_slot_size() as usize }
    }
}

impl Drop for CHalf<'_> {
    fn drop(&mut self) {
        // SAFETY: It is open, and not used afterwards.
        unsafe { ffi::dma_bench_close(self.0.as_ptr()) };
    }
}

/// Tells the compiler that somebody else has accessed memory: C's `barrier()`.
#[inline(always)]
pub(crate) fn barrier() {
    // SAFETY: The assembly is empty.
    unsafe { core::arch::asm!("", options(nostack, preserves_flags)) };
}

const _: () = assert!(size_of::<KBox<[u8; PIECE]>>() == size_of::<*const u8>());

/// Takes a buffer back from the device, which has accessed the first `len` bytes of it.
#[inline(always)]
pub(crate) fn take_back<'a, B: Buffer, D: Direction>(
    streaming: Streaming<'a, B, D>,
    len: usize,
) -> StreamingBox<'a, B, D> {
    let len = len.min(streaming.len());

    // SAFETY: The device does no DMA, and nobody in this crate tells it an address.
    unsafe { dma::bench::complete(streaming, 0..len) }
}

/// How the device is stopped: it does nothing.
pub(crate) struct Idle<'a>(pub(crate) &'a Device<Bound>);

// SAFETY: The device does no DMA, so all numbers of the contract hold. What marks descriptors as
// done is the CPU, when a doorbell is rung, and not afterwards.
unsafe impl Quiesce for Idle<'_> {
    fn device(&self) -> &Device {
        self.0
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        StopOutcome::Stopped
    }
}

/// A descriptor: `struct dma_bench_desc`.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct BenchDescriptor {
    addr: u64,
    len: u32,
    status: u32,
}

// SAFETY: Nobody accesses the buffer. `DONE` is set when a descriptor was worked off, in order.
unsafe impl Descriptor for BenchDescriptor {
    type Options = ();
    const STATUS: usize = 12;

    #[inline]
    fn new(info: DescriptorInfo<'_, ()>) -> Result<Self> {
        let addr = info.address().unwrap_or(0);
        // CAST: A frame.
        let len = info.len() as u32;

        Ok(Self {
            addr: addr.to_le(),
            len: len.to_le(),
            status: 0,
        })
    }

    #[inline]
    fn is_done(status: u32) -> bool {
        status & DONE != 0
    }
}

impl ReceiveDescriptor for BenchDescriptor {
    #[inline]
    fn received(&self) -> Received {
        Received {
            // CAST: Widening.
            len: Length::Segment(Untrusted::new(u32::from_le(self.len) as usize)),
            last: u32::from_le(self.status) & END != 0,
            verdict: Verdict::Good,
        }
    }
}

/// The registers, of which a write to one is ignored.
pub(crate) type Registers<'a> = pci::Bar<'a, 4096>;

/// What works off the descriptors of a ring.
struct SoftDevice(NonNull<ffi::SoftDevice>);

// SAFETY: It is C's memory, which any thread may use, one at a time.
unsafe impl Send for SoftDevice {}

impl SoftDevice {
    fn new(dev: &Device<Bound>) -> Result<Self> {
        // SAFETY: The name is a C string.
        let raw = unsafe { ffi::dma_bench_device_new(dev.name().as_char_ptr()) };

        Ok(Self(NonNull::new(raw).ok_or(ENOMEM)?))
    }
}

impl Drop for SoftDevice {
    fn drop(&mut self) {
        // SAFETY: It is not used afterwards.
        unsafe { ffi::dma_bench_device_free(self.0.as_ptr()) };
    }
}

/// A ring's place in the device.
struct Place<'a> {
    dev: &'a Device<Bound>,
    registers: Mmio<'a, Region<4096>>,
    soft: SoftDevice,
}

impl<'a> Place<'a> {
    fn new(pdev: &pci::Device<Core<'a>>, registers: &'a Registers<'a>) -> Result<Self> {
        let dev = pdev.bound().as_ref();

        Ok(Self {
            dev,
            registers: registers.as_view(),
            soft: SoftDevice::new(dev)?,
        })
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // SAFETY: The ring is accessed in `doorbell()` only, which a ring calls as long as it is
        // there.
        to_result(unsafe {
            ffi::dma_bench_device_attach(
                self.soft.0.as_ptr(),
                ring.memory.to_bits(ring.running),
                ring.len,
            )
        })
    }

    #[inline]
    fn doorbell(&mut self, tail: Tail) {
        self.registers.write32(tail.index(), TAIL);

        // SAFETY: The ring is there, as its producer calls this.
        unsafe { ffi::dma_bench_device_run(self.soft.0.as_ptr()) };
    }

    fn set_batch(&self, batch: u32) {
        // SAFETY: It may be changed at any time.
        unsafe { ffi::dma_bench_device_set_batch(self.soft.0.as_ptr(), batch) };
    }
}

/// Makes the two kinds of queues.
macro_rules! queue {
    ($(#[$doc:meta])* $name:ident, $direction:ident) => {
        $(#[$doc])*
        pub(crate) struct $name<'a>(Place<'a>);

        impl<'a> $name<'a> {
            /// Context: may sleep.
            ///
            /// # Errors
            ///
            /// [`ENOMEM`].
            pub(crate) fn new(
                pdev: &pci::Device<Core<'a>>,
                registers: &'a Registers<'a>,
            ) -> Result<Self> {
                Place::new(pdev, registers).map(Self)
            }

            /// Sets how many descriptors are worked off each time.
            pub(crate) fn set_batch(&self, batch: u32) {
                self.0.set_batch(batch);
            }
        }

        // SAFETY: Descriptors are worked off when the doorbell is rung, in order, by the CPU. A
        // loop that counts posts as many as are worked off.
        unsafe impl RingRegisters for $name<'_> {
            type Descriptor = BenchDescriptor;
            type Direction = $direction;
            const PUBLISH: Publish = Publish::Tail;

            fn device(&self) -> &Device {
                self.0.dev
            }

            fn start(&mut self, ring: RingMemory<'_>) -> Result {
                self.0.start(ring)
            }

            #[inline]
            fn doorbell(&mut self, tail: Tail) {
                self.0.doorbell(tail);
            }
        }
    };
}

queue!(
    /// The ring that sends.
    TxQueue,
    ToDevice
);

queue!(
    /// The ring that receives.
    RxQueue,
    FromDevice
);
