// SPDX-License-Identifier: GPL-2.0

//! The queues of commands and their device, as NVMe has them: see `queue.c`.

#![allow(unsafe_code)]

use super::device::{
    ffi,
    Registers,
    FRAME,
    HEAD,
    LARGE,
    TAIL, //
};
use core::{
    mem::offset_of,
    ptr::NonNull, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        queue::{
            Call,
            Commands,
            CompletionQueue,
            Completions,
            Entry,
            Head,
            Payload,
            QueueMemory,
            Submission,
            Tail,
            Turn, //
        },
        Mapper,
        Pool,
        Streaming,
        ToDevice,
        Untrusted, //
    },
    error::to_result,
    io::{
        Io as _,
        IoBase,
        Mmio,
        Region, //
    },
    pci,
    prelude::*,
    sync::Arc, //
};

/// As in `bench.h`.
const TAGS: u16 = 32;
const COMPLETIONS: u32 = 128;

/// `struct dma_bench_command`
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct Command {
    head: u32,
    namespace: u32,
    unused: [u64; 2],
    prp1: u64,
    prp2: u64,
    block: u64,
    blocks: u32,
    more: [u32; 3],
}

impl Command {
    /// Makes one of the call's tag and length, a block, and pages.
    #[inline]
    fn new<'a, P: Payload<'a>, S: FromBytes + IntoBytes + Send + 'static>(
        call: &Call<'_, 'a, P, S>,
        block: u64,
        prp1: u64,
        prp2: u64,
    ) -> Self {
        Self {
            head: (1 | call.tag() << 16).to_le(),
            namespace: 1u32.to_le(),
            unused: [0; 2],
            prp1: prp1.to_le(),
            prp2: prp2.to_le(),
            block: block.to_le(),
            // CAST: Some pages.
            blocks: (call.len() as u32 / 512 - 1).to_le(),
            more: [0; 3],
        }
    }
}

/// `struct dma_bench_completion`
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct Completion {
    result: u64,
    head: u16,
    queue: u16,
    id: u16,
    status: u16,
}

impl Completion {
    /// Whether the command has failed.
    #[inline]
    pub(crate) fn failed(&self) -> bool {
        u16::from_le(self.status) >> 1 != 0
    }
}

// SAFETY: By the numbers of the contract:
// 1. The device writes the last word when all others are written.
// 2. The phase is 1 in the first turn, and changes with each turn.
// 3. The device echoes what the command has. There is one submission queue.
// 4. It accesses no memory of a command.
unsafe impl Entry for Completion {
    const WORD: usize = offset_of!(Completion, id);

    #[inline]
    fn is_new(word: u32, turn: Turn) -> bool {
        (word >> 16 & 1 == 1) == turn.phase()
    }

    #[inline]
    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(u16::from_le(self.queue))
    }

    #[inline]
    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(u16::from_le(self.id).into()))
    }

    #[inline]
    fn moved(&self) -> Option<Untrusted<usize>> {
        None
    }
}

/// What completes commands.
struct Controller(NonNull<ffi::Controller>);

// SAFETY: It is C's memory, which any thread may use, one at a time: the submitter, which alone
// makes it run, or both queues while they are started.
unsafe impl Send for Controller {}

// SAFETY: As above.
unsafe impl Sync for Controller {}

impl Drop for Controller {
    fn drop(&mut self) {
        // SAFETY: It is not used afterwards.
        unsafe { ffi::dma_bench_controller_free(self.0.as_ptr()) };
    }
}

/// Where the queues are in the device.
#[derive(Clone)]
struct Place<'a> {
    dev: &'a Device<Bound>,
    registers: Mmio<'a, Region<4096>>,
    device: Arc<Controller>,
}

/// A completion queue.
pub(crate) struct Done<'a>(Place<'a>);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of the device, which takes no notice.
// 2. Completions are written one after the other.
// 3. There are fewer tags than entries, and all completions are reaped before the next commands.
// 4. Writing to a register is ordered.
// 5. `Queues::make()` makes one for each controller.
unsafe impl CompletionQueue for Done<'_> {
    type Entry = Completion;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        // SAFETY: The queue is accessed in `Place::doorbell()` only, which comes as long as both
        // queues are there.
        to_result(unsafe {
            ffi::dma_bench_controller_attach_completions(
                self.0.device.0.as_ptr(),
                queue.memory.to_bits(queue.running),
                queue.len,
            )
        })
    }

    #[inline]
    fn consumed(&mut self, head: Head) {
        self.0.registers.write32(head.index(), HEAD);
    }
}

impl Place<'_> {
    /// Tells the device where the queue of commands is.
    fn start(&self, queue: QueueMemory<'_>) -> Result {
        // SAFETY: As for `Done`.
        to_result(unsafe {
            ffi::dma_bench_controller_attach_commands(
                self.device.0.as_ptr(),
                queue.memory.to_bits(queue.running),
                queue.len,
            )
        })
    }

    #[inline]
    fn doorbell(&self, tail: Tail) {
        self.registers.write32(tail.index(), TAIL);

        // SAFETY: Both queues are there, as a submitter that runs calls this.
        unsafe { ffi::dma_bench_controller_run(self.device.0.as_ptr(), tail.index()) };
    }
}

/// A queue of commands with one page each.
pub(crate) struct Io<'a>(Place<'a>);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of the device, which takes no notice.
// 2. Commands are carried out in order, up to the tail.
// 3. The device accesses no memory of a command.
// 4. The command has the tag. There is one submission queue, which has the number 0.
// 5. They are fetched in order.
// 6. Writing to a register is ordered, and the CPU itself is the device.
// 7. `Queues::make()` makes one for each controller.
unsafe impl Submission for Io<'_> {
    type Entry = Command;
    type Completion = Completion;
    /// The first block.
    type Command = u64;
    type Scratch = ();
    const TAG_BITS: u32 = 16;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        self.0.start(queue)
    }

    #[inline]
    fn describe<'a, P: Payload<'a>>(
        &self,
        block: &u64,
        call: Call<'_, 'a, P, ()>,
    ) -> Result<Command> {
        let segment = call.segments().next().ok_or(EINVAL)?;

        Ok(Command::new(&call, *block, segment.address(), 0))
    }

    #[inline]
    fn doorbell(&mut self, tail: Tail) {
        self.0.doorbell(tail);
    }
}

/// The pages that the device knows.
const PAGE: usize = 4096;

/// The pages of a command but for the first, as the device reads them.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub(crate) struct PageList([u64; 32]);

/// A queue of commands with a list of pages each.
pub(crate) struct Lists<'a>(Place<'a>);

// SAFETY: As for `Io`, number by number. 3. also holds for the list: its pages are in the segment.
unsafe impl Submission for Lists<'_> {
    type Entry = Command;
    type Completion = Completion;
    /// The first block.
    type Command = u64;
    type Scratch = PageList;
    const TAG_BITS: u32 = 16;

    fn device(&self) -> &Device {
        self.0.dev
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        self.0.start(queue)
    }

    #[inline]
    fn describe<'a, P: Payload<'a>>(
        &self,
        block: &u64,
        mut call: Call<'_, 'a, P, PageList>,
    ) -> Result<Command> {
        let segment = call.segments().next().ok_or(EINVAL)?;
        let first = segment.address();
        // CAST: Widening.
        let (end, page) = (first + segment.len() as u64, PAGE as u64);
        let mut at = first + page - first % page;
        let (list, address) = call.scratch()?;

        for entry in &mut list.0 {
            if at >= end {
                break;
            }

            *entry = at.to_le();
            at += page;
        }

        // There are more pages than fit.
        if at < end {
            return Err(EINVAL);
        }

        Ok(Command::new(&call, *block, first, address))
    }

    #[inline]
    fn doorbell(&mut self, tail: Tail) {
        self.0.doorbell(tail);
    }
}

/// A queue of commands, and the one in which they complete.
pub(crate) struct Queues<'a, Q: Submission, P: Payload<'a>> {
    pub(crate) done: Completions<'a, Done<'a>>,
    pub(crate) commands: Commands<'a, Q, P>,
    /// How many commands have failed.
    pub(crate) failed: u32,
}

/// Queues of commands that have a frame each.
pub(crate) type FrameQueues<'a> = Queues<'a, Io<'a>, Streaming<'a, KBox<[u8; FRAME]>, ToDevice>>;

/// Queues of commands that have a list of pages each.
pub(crate) type ListQueues<'a> = Queues<'a, Lists<'a>, Streaming<'a, KBox<[u8; LARGE]>, ToDevice>>;

impl<'a> FrameQueues<'a> {
    /// As [`Queues::make`].
    pub(crate) fn new(pdev: &pci::Device<Core<'a>>, registers: &'a Registers<'a>) -> Result<Self> {
        Self::make(pdev, registers, Io, None)
    }
}

impl<'a> ListQueues<'a> {
    /// As [`Queues::make`].
    pub(crate) fn new(pdev: &pci::Device<Core<'a>>, registers: &'a Registers<'a>) -> Result<Self> {
        let lists = Pool::new(pdev.as_ref(), c"dma_rs_bench_lists")?;

        Self::make(pdev, registers, Lists, Some(lists))
    }
}

impl<'a, Q, P> Queues<'a, Q, P>
where
    Q: Submission<Completion = Completion>,
    P: Payload<'a>,
{
    /// Makes both, and a controller for them. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    fn make(
        pdev: &pci::Device<Core<'a>>,
        registers: &'a Registers<'a>,
        queue: impl FnOnce(Place<'a>) -> Q,
        scratch: Option<&'a Pool<'a, Q::Scratch>>,
    ) -> Result<Self> {
        let dev: &'a Device<Bound> = pdev.bound().as_ref();
        let dma = Mapper::get(dev)?;
        // SAFETY: The name is a C string.
        let device = unsafe { ffi::dma_bench_controller_new(dev.name().as_char_ptr()) };
        let device = Controller(NonNull::new(device).ok_or(ENOMEM)?);
        let place = Place {
            dev,
            registers: registers.as_view(),
            device: Arc::new(device, GFP_KERNEL)?,
        };
        let mut done = Completions::new(dma, Done(place.clone()), COMPLETIONS)?;
        let port = done.port(0, TAGS)?;

        Ok(Self {
            done,
            commands: Commands::new(dma, queue(place), port, scratch)?,
            failed: 0,
        })
    }

    /// Tells the device where they are. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if it is stopped.
    pub(crate) fn start(&mut self) -> Result {
        self.done.start()?;
        self.commands.start(|_, _| {})
    }
}
