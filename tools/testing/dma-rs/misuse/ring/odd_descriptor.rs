// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj
//@error-in-other-file: a descriptor has 64-bit words

//! A descriptor's size is no multiple of 8 bytes, so it can't be written word by word.
//!
//! C: Whatever the structure is, the compiler copies it somehow.
//! Shows: With the next compiler, as a descriptor that the device reads half written.
//! Says: a descriptor has 64-bit words

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        ring::{
            Descriptor,
            DescriptorInfo,
            Publish,
            Ring,
            RingMemory,
            RingRegisters,
            Tail, //
        },
        Mapper,
        ToDevice, //
    },
    prelude::*, //
};

#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Command {
    address: u32,
    len: u32,
    status: u32,
    #[cfg(ok)]
    reserved: u32,
}

// SAFETY: By the numbers of the contract: 1. it names no memory, as `new` fails; 2. bit 0 means
// done; 3. there are no own bits.
unsafe impl Descriptor for Command {
    type Options = ();
    const STATUS: usize = 8;

    fn new(_info: DescriptorInfo<'_, ()>) -> Result<Self> {
        Err(EIO)
    }

    fn is_done(status: u32) -> bool {
        status & 1 != 0
    }
}

pub struct Sender<'a>(pub &'a Device<Bound>);

// SAFETY: By the numbers of the contract: 1. the device is always `self.0`; 2. to 7. no ring is
// ever started.
unsafe impl RingRegisters for Sender<'_> {
    type Descriptor = Command;
    type Direction = ToDevice;
    const PUBLISH: Publish = Publish::Tail;

    fn device(&self) -> &Device {
        self.0
    }

    fn start(&mut self, _ring: RingMemory<'_>) -> Result {
        Err(EIO)
    }

    fn doorbell(&mut self, _tail: Tail) {}
}

pub fn ring<'a>(dma: Mapper<'a>, queue: Sender<'a>) -> Result<Ring<'a, Sender<'a>, KVec<u8>>> {
    Ring::new(dma, queue, 16)
}
