// SPDX-License-Identifier: GPL-2.0

//! Tests of the one-transfer protocol, with an engine that does as it is told.

use super::{
    ensure,
    fixture::{
        free_quarantined,
        with_platform_device, //
    }, //
};
use crate::{
    dma::{
        oneshot::{
            Engine,
            Progress,
            Request,
            Slot, //
        },
        quarantined,
        Buffer,
        Configured,
        Direction,
        FromDevice,
        Streaming,
        StreamingBox,
        ToDevice,
        Untrusted, //
    },
    prelude::*,
    sync::Completion,
    time::Delta, //
};

/// What the engine says when it is asked.
#[derive(Clone, Copy)]
enum Answer {
    /// Done after so many questions.
    After(u32),
    /// Never done.
    Never,
    /// Done, having moved so many bytes.
    Moved(usize),
    /// There is no telling.
    Gone,
    /// It doesn't even start.
    Refuses,
}

/// Touches no memory.
struct Puppet {
    answer: Answer,
    asked: u32,
    len: usize,
}

impl Puppet {
    fn new(answer: Answer) -> Self {
        Self {
            answer,
            asked: 0,
            len: 0,
        }
    }
}

// SAFETY: It never accesses the memory, so whatever it says is true enough.
unsafe impl Engine for Puppet {
    type Target = Answer;

    fn start(&mut self, request: Request<'_, Answer>) -> Result {
        self.answer = request.target;
        self.asked = 0;
        self.len = request.memory.len();

        match self.answer {
            Answer::Refuses => Err(EIO),
            _ => Ok(()),
        }
    }

    fn poll(&mut self) -> Result<Progress> {
        self.asked += 1;

        match self.answer {
            Answer::After(n) if self.asked > n => Ok(Progress::Done(Untrusted::new(self.len))),
            Answer::After(_) | Answer::Never => Ok(Progress::Busy),
            Answer::Moved(n) => Ok(Progress::Done(Untrusted::new(n))),
            Answer::Gone | Answer::Refuses => Err(ENODEV),
        }
    }
}

const SOON: Delta = Delta::from_millis(20);
const TICK: Delta = Delta::from_millis(1);

type TestSlot<'a> = Slot<'a, Puppet, KVec<u8>>;

fn buffer<'a, D: Direction>(dma: Configured<'a>) -> Result<Streaming<'a, KVec<u8>, D>> {
    Ok(buffer_at(dma)?.0)
}

/// Also says where the buffer is, for a test that has it quarantined.
fn buffer_at<'a, D: Direction>(
    dma: Configured<'a>,
) -> Result<(Streaming<'a, KVec<u8>, D>, *const u8)> {
    let buf = KVec::from_elem(0x11, 256, GFP_KERNEL)?;
    let ptr = Buffer::as_ptr(&buf);

    Ok((Streaming::map(dma, buf)?, ptr))
}

#[kunit_tests(rust_dma_oneshot)]
mod cases {
    use super::*;

    #[test]
    fn transfer_and_reuse() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));
            let mut buf = buffer::<ToDevice>(dma)?;

            for n in 0..3 {
                let done = slot
                    .start(buf, 0..256, Answer::After(n))?
                    .wait_polling(TICK, SOON)?;

                ensure!(done.bytes().len() == 256);
                buf = done.submit();
            }

            let done = slot.start(buf, 0..256, Answer::After(0))?;
            drop(done.wait_polling(TICK, SOON)?);
            Ok(())
        })
    }

    /// An interrupt only makes it look; one that never comes costs time, not the transfer.
    #[test]
    fn interrupts_are_hints() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let irq = KBox::pin_init(Completion::new(), GFP_KERNEL)?;
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));

            // Three too early, and the fourth look finds it done.
            for _ in 0..3 {
                irq.complete();
            }
            let buf = slot
                .start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(3))?
                .wait(&irq, Delta::from_secs(10))?;
            ensure!(slot.engine().asked == 4);
            drop(buf);

            // None at all.
            let buf = slot
                .start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(1))?
                .wait(&irq, SOON)?;
            drop(buf);
            Ok(())
        })
    }

    /// After a time-out the buffer is in the slot, until the device is done.
    #[test]
    fn time_out_keeps_the_buffer() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let before = quarantined();
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));
            let (buf, ptr) = buffer_at::<FromDevice>(dma)?;
            let transfer = slot.start(buf, 0..256, Answer::Never)?;

            ensure!(matches!(transfer.wait_polling(TICK, SOON), Err(e) if e == ETIMEDOUT));
            ensure!(slot.take::<FromDevice>()?.is_none());

            // It may not start another meanwhile, and gives that buffer back.
            match slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(0)) {
                Err(refused) => {
                    ensure!(refused.error == EBUSY);
                    ensure!(refused.value.unmap().len() == 256);
                }
                Ok(_) => return Err(EINVAL),
            }
            ensure!(slot.settle(TICK, SOON) == Err(ETIMEDOUT));

            // A device that never finishes keeps its memory.
            drop(slot);
            ensure!(quarantined() == before + 1);

            // SAFETY: It was quarantined, and the puppet accesses no memory.
            unsafe { free_quarantined(ptr) };
            Ok(())
        })
    }

    /// A lost handle loses neither the buffer nor the engine.
    #[test]
    fn forgotten_handle() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let before = quarantined();
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));

            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(2))?;
            ensure!(slot.take::<ToDevice>()?.is_none());
            ensure!(slot.take::<ToDevice>()?.is_none());
            // It went the other way.
            ensure!(slot.take::<FromDevice>()?.is_none());
            let taken: Option<StreamingBox<'_, _, ToDevice>> = slot.take()?;
            ensure!(taken.is_some());
            drop(taken);

            // Nobody comes for this one: the next start frees it.
            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(0))?;
            let next = slot.start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(0))?;
            drop(next.wait_polling(TICK, SOON)?);

            // Nor for this one, but the slot itself finds it done when it goes.
            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(1))?;
            slot.settle(TICK, SOON)?;
            drop(slot);

            let mut slot = TestSlot::new(Puppet::new(Answer::Never));
            let _ = slot.start(buffer::<ToDevice>(dma)?, 0..256, Answer::After(0))?;
            drop(slot);
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// What the device claims to have moved is checked against what it was asked to.
    #[test]
    fn lying_length() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));

            // Less is fine: only that much is defined.
            let buf = slot
                .start(buffer::<FromDevice>(dma)?, 128..256, Answer::Moved(100))?
                .wait_polling(TICK, SOON)?;
            ensure!(buf.bytes().len() == 100);

            // More is nonsense, and the buffer can be had back.
            for lie in [129, 256, usize::MAX] {
                let buf = slot
                    .start(buffer::<FromDevice>(dma)?, 128..256, Answer::Moved(lie))?
                    .wait_polling(TICK, SOON);
                ensure!(matches!(buf, Err(e) if e == EIO));

                let buf = slot.take::<FromDevice>()?.ok_or(EINVAL)?;
                ensure!(buf.bytes().is_empty());
                ensure!(buf.unmap().len() == 256);
            }
            Ok(())
        })
    }

    #[test]
    fn refusals() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));

            for (range, target, error) in [
                (0..0, Answer::After(0), EINVAL),
                (0..257, Answer::After(0), EINVAL),
                (0..256, Answer::Refuses, EIO),
            ] {
                match slot.start(buffer::<ToDevice>(dma)?, range, target) {
                    Err(refused) => {
                        ensure!(refused.error == error);
                        ensure!(refused.value.unmap().iter().all(|&byte| byte == 0x11));
                    }
                    Ok(_) => return Err(EINVAL),
                }
            }
            Ok(())
        })
    }

    /// A device that is gone: everybody gets told, nobody waits, the memory stays.
    #[test]
    fn vanished() -> Result {
        with_platform_device(|pdev| {
            let dma = Configured::get(pdev.as_ref())?;
            let before = quarantined();
            let mut slot = TestSlot::new(Puppet::new(Answer::Never));
            let (buf, ptr) = buffer_at::<FromDevice>(dma)?;
            let transfer = slot.start(buf, 0..256, Answer::Gone)?;

            ensure!(matches!(transfer.wait_polling(TICK, SOON), Err(e) if e == ENODEV));
            ensure!(slot.settle(TICK, SOON) == Err(ENODEV));
            ensure!(slot.take::<FromDevice>().is_err());

            match slot.start(buffer::<FromDevice>(dma)?, 0..256, Answer::After(0)) {
                Err(refused) => ensure!(refused.error == ENODEV),
                Ok(_) => return Err(EINVAL),
            }

            drop(slot);
            ensure!(quarantined() == before + 1);

            // SAFETY: It was quarantined, and the puppet accesses no memory.
            unsafe { free_quarantined(ptr) };
            Ok(())
        })
    }
}
