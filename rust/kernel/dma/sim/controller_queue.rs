// SPDX-License-Identifier: GPL-2.0

//! The driver's side of a [`Controller`].

use super::Controller;
use crate::{
    device,
    dma::{
        queue::{
            Call,
            CompletionQueue,
            Entry,
            Head,
            Payload,
            QueueMemory,
            Segment,
            Submission,
            Tail,
            Turn, //
        },
        Constraints,
        DataDirection,
        DmaMask,
        Quiesce,
        StopOutcome,
        Untrusted, //
    },
    prelude::*,
    sync::Arc, //
};

/// A command, as a [`Controller`] reads it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Command {
    flags: u32,
    tag: u32,
    address: u64,
    len: u32,
    queue: u32,
    argument: u64,
}

/// An item of a list of segments.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Item {
    address: u64,
    len: u32,
    flags: u32,
}

/// A list of segments.
#[derive(FromBytes, IntoBytes)]
#[repr(transparent)]
pub struct List([Item; Self::LEN]);

impl List {
    /// How many segments it has room for.
    pub const LEN: usize = 4;
}

/// A completion, as a [`Controller`] writes it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub struct Completion {
    moved: u32,
    queue: u16,
    event: u16,
    tag: u32,
    word: u32,
}

impl Completion {
    /// The device says that the command has failed.
    pub fn has_failed(&self) -> bool {
        u32::from_le(self.word) & 2 != 0
    }
}

// SAFETY: By the numbers of the contract:
// 1. The device writes the word after the others.
// 2. Its phase is 1 in the first turn, and changes with each. Blank memory has phase 0.
// 3. The device echoes tag and queue. Events have no tag.
// 4. The device forgets a command when it writes its tag, and fetches it before.
unsafe impl Entry for Completion {
    const WORD: usize = 12;

    #[inline]
    fn is_new(word: u32, turn: Turn) -> bool {
        (word & 1 == 1) == turn.phase()
    }

    #[inline]
    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(u16::from_le(self.queue))
    }

    #[inline]
    fn tag(&self) -> Option<Untrusted<u32>> {
        (self.event == 0).then(|| Untrusted::new(u32::from_le(self.tag)))
    }

    #[inline]
    fn moved(&self) -> Option<Untrusted<usize>> {
        // CAST: Widening.
        Some(Untrusted::new(u32::from_le(self.moved) as usize))
    }
}

/// For a completion queue: which one.
pub struct Completes(pub Arc<Controller>, pub usize);

// SAFETY: By the numbers of the contract:
// 1. The device is on the bus of the run's device.
// 2. It writes completions one after the other. `set_completions()` checks before it believes.
// 3. It waits while only one entry is free.
// 4. A lock orders its accesses with the CPU's.
// 5. Its number is that of the device's queue. Tests make one for each.
unsafe impl CompletionQueue for Completes {
    type Entry = Completion;

    fn device(&self) -> &device::Device {
        self.0.device()
    }

    fn number(&self) -> u16 {
        // CAST: Small.
        self.1 as u16
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        // SAFETY: As long as the device is on the bus, and wasn't stopped, the queue is there.
        let base = unsafe { queue.memory.to_bits(queue.running) };

        // CAST: Widening.
        self.0.set_completions(self.1, base, queue.len as usize)
    }

    fn consumed(&mut self, head: Head) {
        // A device that is gone, or has stopped, takes no notice. CAST: Widening.
        let _ = self.0.consumed(self.1, head.index() as usize);
    }
}

/// For a submission queue whose tags have that many bits: which one, and in which completion queue
/// its commands complete.
///
/// A command is the argument. A payload of more than one segment takes a [`List`].
pub struct Submits<const TAG_BITS: u32>(pub Arc<Controller>, pub usize, pub usize);

fn flags(segment: &Segment<'_>) -> u32 {
    match segment.direction() {
        DataDirection::ToDevice => Controller::READ,
        DataDirection::FromDevice => Controller::WRITE,
        DataDirection::Bidirectional => Controller::READ | Controller::WRITE,
        DataDirection::None => 0,
    }
}

// SAFETY: By the numbers of the contract:
// 1. The device is on the bus of the run's device.
// 2. It fetches commands in order, up to the tail. `set_submissions()` checks before it believes.
// 3. A command names a segment, or the scratch block, in which the segments are. The flags are
//    those of their direction.
// 4. The device echoes all bits of the tag, and the number of the queue. It was told by
//    `set_submissions()` where that completes.
// 5. It fetches all commands up to one before it carries out that one.
// 6. A lock orders its accesses with the CPU's, and the doorbell says that what was stored is to be
//    seen.
// 7. Tests make one for each queue.
unsafe impl<const TAG_BITS: u32> Submission for Submits<TAG_BITS> {
    type Entry = Command;
    type Completion = Completion;
    type Command = u64;
    type Scratch = List;
    const TAG_BITS: u32 = TAG_BITS;

    fn device(&self) -> &device::Device {
        self.0.device()
    }

    fn number(&self) -> u16 {
        // CAST: Small.
        self.1 as u16
    }

    fn completes_in(&self) -> u16 {
        // CAST: Small.
        self.2 as u16
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        // SAFETY: As for `Completes`.
        let base = unsafe { queue.memory.to_bits(queue.running) };

        // CAST: Widening.
        self.0
            .set_submissions(self.1, base, queue.len as usize, self.2)
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        argument: &u64,
        mut call: Call<'_, 'a, P, List>,
    ) -> Result<Command> {
        let mut command = Command {
            flags: 0,
            tag: call.tag().to_le(),
            address: 0,
            len: 0,
            // CAST: Small.
            queue: (self.1 as u32).to_le(),
            argument: argument.to_le(),
        };
        let count = call.segments().count();

        if count > 1 {
            let segments = call.segments();
            let (list, address) = call.scratch()?;

            for (i, segment) in segments.enumerate() {
                *list.0.get_mut(i).ok_or(EINVAL)? = Item {
                    address: segment.address().to_le(),
                    len: u32::try_from(segment.len())?.to_le(),
                    flags: flags(&segment).to_le(),
                };
            }

            command.flags = Controller::LIST.to_le();
            command.address = address.to_le();
            command.len = u32::try_from(count)?.to_le();
        } else if let Some(segment) = call.segments().next() {
            command.flags = flags(&segment).to_le();
            command.address = segment.address().to_le();
            command.len = u32::try_from(segment.len())?.to_le();
        }

        Ok(command)
    }

    fn doorbell(&mut self, tail: Tail) {
        // A device that is gone, or has stopped, takes no notice. CAST: Widening.
        let _ = self.0.doorbell(self.1, tail.index() as usize);
    }
}

/// How a [`Controller`] is stopped.
pub struct ControllerStopper(pub Arc<Controller>);

// SAFETY: By the numbers of the contract, unless the test's script has the device break one: then
// the bus reports the access.
// 1. The device was put on the bus of `device()`.
// 2. `disarm` fails unless it has stopped. `restart()` then has it forget its queues.
// 3. It writes at once, under the lock that `is_stopped()` takes.
// 4. `is_stopped()` fails if it was pulled from the bus.
// 5. `is_stopped()` says so only if it isn't at work. After `stop()` it takes nothing more, until
//    `restart()`.
// 6. What was pulled from the bus doesn't come back.
// 7. `HEEDS_BUS` is false.
// 8. It takes addresses of 64 bits, and any length: it copies byte by byte.
// 9. Both look once at the device. Neither knows the session.
unsafe impl Quiesce for ControllerStopper {
    fn device(&self) -> &device::Device {
        self.0.device()
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        self.0.stop();

        if !self.0.is_stopped()? {
            return Err(ETIMEDOUT);
        }

        self.0.restart()
    }

    fn quiesce(&self) -> StopOutcome {
        self.0.stop();

        match self.0.is_stopped() {
            Ok(true) => StopOutcome::Stopped,
            Ok(false) => StopOutcome::Unproven,
            Err(_) => StopOutcome::Gone,
        }
    }
}
