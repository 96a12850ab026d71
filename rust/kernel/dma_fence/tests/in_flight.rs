// SPDX-License-Identifier: GPL-2.0

//! Tests of fences whose memory a device has.

use super::{
    job,
    Fence,
    Fenced,
    SOON, //
};
use crate::{
    device::Device,
    dma::{
        fixture::{
            self,
            ensure,
            prove, //
        },
        quarantined,
        transfer::{
            Engine,
            Progress,
            Request,
            TransferSlot, //
        },
        FromDevice,
        Mapper,
        Streaming,
        ToDevice,
        Untrusted, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc, //
    }, //
};

/// An engine that touches no memory, and is done when it was told so.
struct Puppet<'a> {
    dma: Mapper<'a>,
    done: Arc<Atomic<i32>>,
    len: usize,
}

// SAFETY: It never accesses the memory, so whatever it says is true enough.
unsafe impl Engine for Puppet<'_> {
    type Target = ();

    fn device(&self) -> &Device {
        self.dma.device()
    }

    fn start(&mut self, request: Request<'_, ()>) -> Result {
        self.len = request.memory.len();
        Ok(())
    }

    fn poll(&mut self) -> Result<Progress> {
        Ok(match self.done.load(Acquire) {
            0 => Progress::Busy,
            _ => Progress::Done(Untrusted::new(self.len)),
        })
    }
}

#[kunit_tests(rust_dma_fence_in_flight)]
mod cases {
    use super::*;

    /// The fence of a transfer is pending until the driver has the memory back. If the driver gives
    /// up, that is when the device was proven to have stopped, and not when the memory is dropped.
    #[test]
    fn in_flight() -> Result {
        /// Starts a job.
        fn start<'a>(
            slot: &mut TransferSlot<'a, Puppet<'a>, Fenced<KVec<u8>>>,
            dma: Mapper<'a>,
        ) -> Result<ARef<Fence>> {
            let (job, fence) = job()?;
            let buf = Fenced::new(KVec::from_elem(1_u8, 256, GFP_KERNEL)?, job);
            let buf = Streaming::<_, FromDevice>::map(dma, buf)?;
            let _ = slot.start(buf, 0..256, ())?;

            Ok(fence)
        }

        let before = quarantined();

        fixture::with_platform_device(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let done = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            let engine = Puppet {
                dma,
                done: done.clone(),
                len: 0,
            };
            let mut slot = TransferSlot::new(dma, engine)?;

            let fence = start(&mut slot, dma)?;

            ensure!(slot.take::<FromDevice>()?.is_none() && fence.status().is_none());
            done.store(1, Release);

            let buf = slot.take::<FromDevice>()?.ok_or(EIO)?;

            ensure!(fence.status().is_none());
            ensure!(buf.unmap().signal().len() == 256);
            ensure!(fence.status() == Some(Ok(())));

            // Nobody takes it: with the next one the slot drops it, and has seen it done.
            let fence = start(&mut slot, dma)?;
            let next = start(&mut slot, dma)?;

            ensure!(fence.status() == Some(Err(ECANCELED)));

            // The driver gives up.
            done.store(0, Release);
            drop(slot);
            ensure!(quarantined() == before + 1);
            ensure!(next.wait(SOON).is_none());

            // SAFETY: The engine touches no memory.
            unsafe { prove(dma) };
            ensure!(next.status() == Some(Err(ECANCELED)));
            Ok(())
        })
    }

    /// What couldn't be mapped, or wasn't given to the device, comes back with its fence.
    #[test]
    fn never_in_flight() -> Result {
        fixture::with_platform_device(|pdev| {
            let dma = fixture::open(pdev.as_ref())?;
            let (job, fence) = job()?;
            let empty = Fenced::new(KVec::<u8>::new(), job);
            let refused = Streaming::<_, ToDevice>::map(dma, empty)
                .err()
                .ok_or(EINVAL)?;

            ensure!(refused.error == EINVAL && fence.status().is_none());
            ensure!(refused.value.signal_with_error(refused.error).is_empty());
            ensure!(fence.status() == Some(Err(EINVAL)));

            let (job, fence) = super::super::job()?;
            let buf = Fenced::new(KVec::from_elem(1_u8, 256, GFP_KERNEL)?, job);

            drop(Streaming::<_, ToDevice>::map(dma, buf)?);
            ensure!(fence.status() == Some(Err(ECANCELED)));
            Ok(())
        })
    }
}
