// SPDX-License-Identifier: GPL-2.0

//! The admin queue: what the device is asked, and what it must have answered before it is told to
//! read or write.
//!
//! What other commands rely on is established here, so that no other code of the driver has to be
//! right for it: how long a block is, and under which number the device knows which queue.

use super::{
    AdminQueue,
    Completes,
    Completion,
    IoQueue,
    ADMIN_COMPLETIONS,
    ADMIN_TAGS,
    IDENTIFY, //
};
use kernel::{
    dma::{
        queue::{
            Commands,
            Completions,
            Payload,
            QueuePlace,
            Submitter,
            Ticket, //
        },
        FromDevice,
        Mapper,
        Streaming,
        StreamingBox, //
    },
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Release, //
    }, //
};

/// What Identify writes to.
pub(crate) type Page = KBox<[u8; IDENTIFY]>;

/// What goes with a command of the admin queue.
pub(crate) type AdminData<'a> = Option<Streaming<'a, Page, FromDevice>>;

/// What comes back of it.
pub(crate) type AdminBack<'a> = Option<StreamingBox<'a, Page, FromDevice>>;

/// How long a block of the first namespace is.
///
/// A read or a write says how many blocks it is about. So how much memory the device accesses
/// depends on the length of a block, and that is what the device itself has said, since it was
/// disarmed last.
///
/// The low byte is the length as a power of two, and 0 while it isn't known. The others count how
/// often it was forgotten.
pub(super) struct BlockLength(Atomic<u32>);

impl BlockLength {
    /// The bits of the power of two.
    const SHIFT: u32 = 0xff;

    pub(super) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Forgets it, when the device is disarmed. An answer to an earlier question counts no more.
    pub(super) fn forget(&self) {
        let now = self.0.load(Acquire);

        // What is learned in between is overwritten.
        self.0.store((now | Self::SHIFT).wrapping_add(1), Release);
    }

    /// Returns a mark for a question that is about to be asked.
    fn asking(&self) -> u32 {
        self.0.load(Acquire) & !Self::SHIFT
    }

    /// Notes what the device has answered to the question with that mark.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device was disarmed since, [`EIO`] if it has said something else
    /// before.
    fn learn(&self, mark: u32, shift: u8) -> Result {
        let known = mark | u32::from(shift);

        match self.0.cmpxchg(mark, known, Full) {
            Ok(_) => Ok(()),
            Err(now) if now == known => Ok(()),
            Err(now) if now & !Self::SHIFT == mark => Err(EIO),
            Err(_) => Err(ESHUTDOWN),
        }
    }

    /// Returns the length as a power of two.
    ///
    /// # Errors
    ///
    /// [`EAGAIN`] if the device wasn't asked since it was disarmed.
    #[inline]
    pub(super) fn shift(&self) -> Result<u32> {
        match self.0.load(Acquire) & Self::SHIFT {
            0 => Err(EAGAIN),
            shift => Ok(shift),
        }
    }
}

/// Tests what is noted of an answer, and when that counts: for the tests of the driver.
#[cfg(CONFIG_DMA_RS_NVME_KUNIT_TEST)]
pub(crate) fn check_block_length() -> Result {
    use kernel::dma::fixture::ensure;

    let block = BlockLength::new();

    ensure!(block.shift() == Err(EAGAIN));

    let mark = block.asking();

    block.learn(mark, 9)?;
    ensure!(block.shift() == Ok(9));

    // Said again, and changed.
    block.learn(block.asking(), 9)?;
    ensure!(block.learn(block.asking(), 12) == Err(EIO));
    ensure!(block.shift() == Ok(9));

    // An answer that was on its way when the device was disarmed.
    block.forget();
    ensure!(block.shift() == Err(EAGAIN));
    ensure!(block.learn(mark, 9) == Err(ESHUTDOWN));
    ensure!(block.shift() == Err(EAGAIN));
    block.learn(block.asking(), 12)?;
    ensure!(block.learn(mark, 12) == Err(ESHUTDOWN));
    ensure!(block.shift() == Ok(12));
    Ok(())
}

/// What the first namespace is, by the answer to Identify Namespace (5.15.2.1).
#[derive(Clone, Copy)]
pub(crate) struct Namespace {
    /// The number of blocks.
    pub(crate) blocks: u64,
    shift: u8,
}

impl Namespace {
    /// Reads what the device has written.
    ///
    /// # Errors
    ///
    /// [`EIO`] if that makes no sense, [`EOPNOTSUPP`] if blocks have metadata.
    fn new(page: &[u8]) -> Result<Self> {
        let part = |at: usize| page.get(at).copied().ok_or(EIO);
        let mut blocks = [0; 8];

        blocks.copy_from_slice(page.get(..8).ok_or(EIO)?);

        let format = 128 + 4 * usize::from(part(26)? & 0xf);

        if part(format)? != 0 || part(format + 1)? != 0 {
            return Err(EOPNOTSUPP);
        }

        match part(format + 2)? {
            shift @ 9..=12 => Ok(Self {
                blocks: u64::from_le_bytes(blocks),
                shift,
            }),
            _ => Err(EIO),
        }
    }

    /// Returns how many bytes a block has.
    pub(crate) fn block(self) -> usize {
        1 << self.shift
    }
}

/// What the admin queue is told.
#[derive(Clone, Copy)]
pub(super) enum What<'a> {
    /// Identify (5.15): the controller, or a namespace.
    Identify(Option<u32>),
    /// Set Features (5.21), Number of Queues: how many for reads and writes there are to be.
    SetQueues(u16),
    /// Asynchronous Event Request (5.2).
    AwaitEvent,
    /// Create I/O Completion Queue (5.3) of that number, with interrupts by that vector.
    CreateCompletions(u16, u16, QueuePlace<'a, Completion>),
    /// Create I/O Submission Queue (5.4).
    CreateSubmissions(u16, QueuePlace<'a, super::Command>),
}

/// A command of the admin queue.
///
/// A queue is created by the number that its doorbells have: if the device took it for another
/// one, it would fetch commands before they are written.
#[derive(Clone, Copy)]
pub(crate) struct AdminCommand<'a>(pub(super) What<'a>);

impl<'a> AdminCommand<'a> {
    /// Asks for what the controller is. It comes with a [`Page`].
    pub(crate) const IDENTIFY_CONTROLLER: Self = Self(What::Identify(None));

    /// Asks for what the first namespace is. It comes with a [`Page`].
    pub(crate) const IDENTIFY_NAMESPACE: Self = Self(What::Identify(Some(1)));

    /// Waits for an event. It is over when the device has one to report, which may be never.
    pub(crate) const AWAIT_EVENT: Self = Self(What::AwaitEvent);

    /// Says how many pairs of queues there are to be, before the first is created.
    pub(crate) const fn set_queues(count: u16) -> Self {
        Self(What::SetQueues(count))
    }

    /// Creates a completion queue, which was started.
    pub(crate) fn create_completions(queue: &Completions<'a, Completes<'a>>) -> Self {
        let Completes {
            queue: number,
            vector,
            ..
        } = *queue.queue();

        Self(What::CreateCompletions(number, vector, queue.place()))
    }

    /// Creates a submission queue, which was started. The one in which its commands complete, with
    /// the same number, must be there.
    pub(crate) fn create_submissions<P: Payload<'a>>(
        queue: &Submitter<'a, IoQueue<'a>, P>,
    ) -> Self {
        Self(What::CreateSubmissions(queue.queue().queue, queue.place()))
    }
}

/// A command of the admin queue that is over.
pub(crate) struct Answer<'a> {
    /// Which one it was.
    pub(crate) ticket: Ticket,
    /// What came back.
    pub(crate) back: AdminBack<'a>,
    /// What the device has said of it: the first word of the entry (4.6); [`EIO`] if it has failed.
    pub(crate) result: Result<u32>,
    /// For [Identify Namespace](AdminCommand::IDENTIFY_NAMESPACE) what it is, or why the answer
    /// can't be used.
    pub(crate) namespace: Result<Option<Namespace>>,
}

/// The admin queue, and the one in which it completes.
pub(crate) struct Admin<'a> {
    done: Completions<'a, Completes<'a>>,
    commands: Commands<'a, AdminQueue<'a>, AdminData<'a>>,
    /// The question for the namespace that was asked last, and its mark.
    asked: Option<(Ticket, u32)>,
}

impl<'a> Admin<'a> {
    pub(super) fn new(dma: Mapper<'a>, done: Completes<'a>, queue: AdminQueue<'a>) -> Result<Self> {
        let mut done = Completions::new(dma, done, ADMIN_COMPLETIONS)?;
        let port = done.port(0, ADMIN_TAGS)?;

        Ok(Self {
            commands: Commands::new(dma, queue, port, None)?,
            done,
            asked: None,
        })
    }

    /// Tells the device where the queues are, before it is enabled.
    ///
    /// # Errors
    ///
    /// As those of queues.
    pub(crate) fn start(&mut self) -> Result {
        self.asked = None;
        self.done.start()?;
        self.commands.start(|_, _| {})
    }

    /// Returns whether no more answers will come.
    pub(crate) fn is_stopped(&self) -> bool {
        self.done.is_stopped()
    }

    /// Submits a command, and tells the device.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if too many are in flight, [`ESHUTDOWN`] if the device is stopped.
    pub(crate) fn ask(&mut self, data: AdminData<'a>, command: AdminCommand<'a>) -> Result<Ticket> {
        let submitter = &mut self.commands.submitter;
        // Before the device can answer.
        let mark = submitter.queue().0.said.block.asking();
        let ticket = submitter.submit(data, command).map_err(|e| e.error)?;

        if let What::Identify(Some(_)) = command.0 {
            self.asked = Some((ticket, mark));
        }

        submitter.kick()?;
        Ok(ticket)
    }

    /// Looks which commands are over, and gives them to `give`.
    pub(crate) fn reap(&mut self, mut give: impl FnMut(Answer<'a>)) {
        let Self {
            done,
            commands,
            asked,
        } = self;

        done.reap(ADMIN_COMPLETIONS, |seen| {
            // A device that makes up completions is counted by `strays()`.
            let Ok(completed) = commands.completer.complete(seen) else {
                return;
            };
            // Any number will do: whoever asked compares it.
            let result = completed.entry.validate(|entry| match entry.status() {
                0 => Ok(u32::from_le(entry.result)),
                _ => Err(EIO),
            });
            let mark = asked
                .take_if(|(ticket, _)| *ticket == completed.ticket)
                .map(|(_, mark)| mark);
            let bytes = completed.payload.as_ref().map(|page| page.bytes());

            // The bytes are looked at before anybody else has them: they are the device's.
            let namespace = result.and_then(|_| {
                let (Some(mark), Some(bytes)) = (mark, bytes) else {
                    return Ok(None);
                };
                let namespace = Namespace::new(bytes)?;
                let block = &commands.submitter.queue().0.said.block;

                block.learn(mark, namespace.shift)?;
                Ok(Some(namespace))
            });

            give(Answer {
                ticket: completed.ticket,
                back: completed.payload,
                result,
                namespace,
            });
        });
    }
}
