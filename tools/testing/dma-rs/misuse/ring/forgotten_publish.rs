// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver doesn't say how its device learns that a descriptor is ready.
//!
//! C: The barrier and the order of two stores are in the driver, or not.
//! Shows: On arm64 and others with weak order; never on x86.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        ring::{
            Descriptor,
            RingMemory,
            RingRegisters,
            Tail, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub struct Sender<'a, T> {
    pub dev: &'a Device<Bound>,
    pub last: Option<T>,
}

// SAFETY: By the numbers of the contract: 1. the device is always `dev`; 2. to 7. no ring starts.
unsafe impl<T: Descriptor> RingRegisters for Sender<'_, T> {
    //~[bad]^ E0046
    type Descriptor = T;
    type Direction = ToDevice;
    #[cfg(ok)]
    const PUBLISH: kernel::dma::ring::Publish = kernel::dma::ring::Publish::Tail;

    fn device(&self) -> &Device {
        self.dev
    }

    fn start(&mut self, _ring: RingMemory<'_>) -> Result {
        Err(EIO)
    }

    fn doorbell(&mut self, _tail: Tail) {}
}
