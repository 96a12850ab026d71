// SPDX-License-Identifier: GPL-2.0

//! Tests of rings whose halves run at the same time, each on a CPU of its own.
//!
//! What the halves share are two counters, and what is between these: slots, notes and descriptors.
//! Nothing but the order of their accesses keeps the halves apart. The device is a third thread,
//! which reads and writes descriptors and buffers where a device finds them. What it writes there
//! is ordered as by a device: all before the word that says that it is done.
//!
//! Each frame has a number, and bytes that no other one has. So a frame that is lost, comes twice
//! or too early, or with bytes of another one, is noticed by whoever gets it. Nobody waits for
//! time to pass: who has nothing to do gives its CPU away, and looks again.
//!
//! A machine that reorders little shows little. With `CONFIG_KCSAN` two accesses to one slot at the
//! same time are reported, even if they did no harm. The suite `rust_dma_race` shows that such
//! reports come. See `Documentation/rust/dma/testing.rst` for what nobody notices here.

use super::ensure;
#[cfg(CONFIG_KCSAN)]
use super::fixture::expect;
#[cfg(CONFIG_KCSAN)]
use crate::time::{
    delay::fsleep,
    Delta,
    Instant,
    Monotonic, //
};
use crate::{
    bindings,
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    cpumask::Cpumask,
    device::{
        Core,
        Device, //
    },
    dma::{
        fixture::on_platform_device,
        ring::{
            Consumer,
            Descriptor,
            DescriptorInfo,
            Length,
            Producer,
            Publish,
            ReceiveDescriptor,
            Received,
            Ring,
            RingMemory,
            RingRegisters,
            Segment,
            Tail,
            Verdict, //
        },
        Constraints,
        DmaAddress,
        DmaMask,
        FromDevice,
        Mapper,
        OneWay,
        Quiesce,
        Session,
        StopOutcome,
        ToDevice,
        Untrusted, //
    },
    error::{
        from_err_ptr,
        ErrorWith, //
    },
    kunit,
    platform,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Completion, //
    }, //
};
use core::marker::PhantomData;
#[cfg(CONFIG_KCSAN)]
use core::{
    cell::UnsafeCell,
    hint::black_box, //
};

/// Descriptors of a ring. It is full and empty again and again; if it were shorter, all would wait
/// for each other most of the time.
const LEN: u32 = 128;

/// The size of a buffer.
const BUF: usize = 128;

/// How many frames go through a ring. One in four has several descriptors.
const FRAMES: u32 = 5_000;

/// How often a device is stopped at work.
const STOPS: u32 = 20;

/// The most descriptors of a frame.
const MAX_SEGMENTS: u32 = 4;

type RxBuf = KBox<[u8; BUF]>;

/// What threads know of each other, besides what they are about.
///
/// Only to say that one has ended, or can't go on: what else they do isn't ordered by this.
pub(super) struct Together {
    failed: Atomic<u32>,
    ended: [Atomic<u32>; 3],
}

/// The threads of [`on_cpus`], in order.
const PRODUCER: usize = 0;
const CONSUMER: usize = 1;
const DEVICE: usize = 2;

impl Together {
    fn new() -> Self {
        Self {
            failed: Atomic::new(0),
            ended: [const { Atomic::new(0) }; 3],
        }
    }

    /// Whether that thread does nothing more. What it did before is to be seen then.
    fn has_ended(&self, who: usize) -> bool {
        self.ended[who].load(Acquire) != 0
    }

    /// Lets others have the CPU, for there is nothing to do.
    pub(super) fn pause(&self) -> Result {
        if self.failed.load(Relaxed) != 0 {
            return Err(ECANCELED);
        }

        // SAFETY: No requirements, in a context that may sleep.
        unsafe { bindings::yield_() };
        Ok(())
    }
}

/// What a thread is to do.
struct Job<'j> {
    run: &'j mut (dyn FnMut(&Together) -> Result + Send),
    together: &'j Together,
    who: usize,
    outcome: Result,
    done: Arc<Completion>,
}

impl Job<'_> {
    /// The body of the thread.
    ///
    /// # Safety
    ///
    /// `data` must point to a job that is there, and nobody else's, until its `done` is completed.
    unsafe extern "C" fn thread(data: *mut c_void) -> c_int {
        // SAFETY: By the safety requirements.
        let job = unsafe { &mut *data.cast::<Self>() };
        // The job may go when it is done.
        let done = job.done.clone();

        job.outcome = (job.run)(job.together);

        if job.outcome.is_err() {
            job.together.failed.store(1, Relaxed);
        }

        job.together.ended[job.who].store(1, Release);
        done.complete_all();
        0
    }
}

/// Returns the `n`-th CPU, counted round, and how many there are.
fn nth_cpu(n: usize) -> (Option<u32>, usize) {
    // SAFETY: The mask is always there; tests don't take CPUs away.
    let online = unsafe { Cpumask::from_raw(&raw const bindings::__cpu_online_mask) };
    let is_online = |&cpu: &u32| CpuId::from_u32(cpu).is_some_and(|cpu| online.test(cpu));
    let count = (0..nr_cpu_ids()).filter(is_online).count();

    // Not by a remainder, which panics where the divisor is 0.
    let n = n.checked_rem(count).unwrap_or(0);

    ((0..nr_cpu_ids()).filter(is_online).nth(n), count)
}

/// Whether there are two CPUs; the test is skipped if not.
pub(super) fn has_cpus() -> bool {
    let has = nth_cpu(0).1 > 1;

    if !has {
        kunit::skip("needs two CPUs");
    }

    has
}

/// Runs a producer, a consumer and a device in threads, of which the first two have CPUs of their
/// own, and does something `meanwhile`. Returns when all have ended: the first failure that isn't
/// due to another one.
pub(super) fn on_cpus(
    jobs: [&mut (dyn FnMut(&Together) -> Result + Send); 3],
    meanwhile: impl FnOnce(&Together) -> Result,
) -> Result {
    let together = Together::new();
    let mut tasks = [core::ptr::null_mut(); 3];
    let mut who = 0;
    let mut failed = Ok(());
    let done = [completion()?, completion()?, completion()?];
    let mut jobs = jobs.map(|run| {
        let job = Job {
            run,
            together: &together,
            who,
            outcome: Ok(()),
            done: done[who].clone(),
        };

        who += 1;
        job
    });

    for (i, (job, task)) in jobs.iter_mut().zip(&mut tasks).enumerate() {
        // SAFETY: The function takes a job, which is there until the thread has ended: see below.
        // It isn't a thread before it is woken.
        let created = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(Job::thread),
                (&raw mut *job).cast(),
                bindings::NUMA_NO_NODE,
                c"dma_ring_test".as_char_ptr(),
            )
        });

        match (created, nth_cpu(i).0) {
            (Ok(created), Some(cpu)) => {
                // SAFETY: It was just created, and doesn't run.
                unsafe { bindings::kthread_bind(created, cpu) };
                *task = created;
            }
            (Ok(created), None) => *task = created,
            (Err(e), _) => failed = Err(e),
        }
    }

    if failed.is_err() {
        for task in tasks.into_iter().filter(|task| !task.is_null()) {
            // SAFETY: It doesn't run yet, and now never will.
            unsafe { bindings::kthread_stop(task) };
        }

        return failed;
    }

    for task in tasks {
        // SAFETY: It is there until it was woken.
        unsafe { bindings::wake_up_process(task) };
    }

    let outcome = meanwhile(&together);

    if outcome.is_err() {
        together.failed.store(1, Relaxed);
    }

    // From here on the jobs are ours again.
    done.iter().for_each(|done| done.wait_for_completion());

    let mut first = outcome;

    for job in jobs {
        if first.is_ok() || (first == Err(ECANCELED) && job.outcome.is_err()) {
            first = job.outcome;
        }
    }

    first
}

fn completion() -> Result<Arc<Completion>> {
    Arc::pin_init(Completion::new(), GFP_KERNEL)
}

/// Numbers that look random, and are the same in each run.
pub(super) struct Random(pub(super) u32);

impl Random {
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16).checked_rem(end).unwrap_or(0)
    }
}

/// Which part of which frame something is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Name {
    frame: u32,
    segment: u32,
}

impl Name {
    const FIRST: Self = Self {
        frame: 0,
        segment: 0,
    };

    /// What comes next, if the frame ends here or not.
    fn next(self, ends: bool) -> Self {
        if ends {
            Self {
                frame: self.frame.wrapping_add(1),
                segment: 0,
            }
        } else {
            Self {
                segment: self.segment + 1,
                ..self
            }
        }
    }

    /// How many segments the frame has.
    fn segments(self) -> u32 {
        match self.frame % 8 {
            2 => 2,
            5 => 1 + self.frame / 8 % MAX_SEGMENTS,
            _ => 1,
        }
    }

    /// Whether the frame ends here.
    fn ends(self) -> bool {
        self.segment + 1 >= self.segments()
    }

    /// What the driver says for this segment.
    fn tag(self) -> u32 {
        self.frame
            .wrapping_mul(MAX_SEGMENTS)
            .wrapping_add(self.segment)
    }

    fn len(self) -> usize {
        // CAST: Widening.
        8 + (self.tag() % 89) as usize
    }

    fn byte(self, i: usize) -> u8 {
        match (self.frame.to_le_bytes(), self.segment.to_le_bytes()) {
            (frame, _) if i < 4 => frame[i],
            (_, segment) if i < 8 => segment[i - 4],
            // CAST: Cut on purpose.
            _ => (self.tag() as usize).wrapping_mul(31).wrapping_add(i * 7) as u8,
        }
    }

    fn bytes(self) -> Result<KVec<u8>> {
        let mut vec = KVec::with_capacity(BUF, GFP_KERNEL)?;

        for i in 0..self.len() {
            vec.push(self.byte(i), GFP_KERNEL)?;
        }

        Ok(vec)
    }

    fn is_in(self, bytes: &[u8]) -> bool {
        bytes.len() == self.len()
            && bytes
                .iter()
                .enumerate()
                .all(|(i, byte)| *byte == self.byte(i))
    }
}

/// A descriptor of the device: by an own bit, or by the tail, which leaves the bit to the device.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Command {
    address: u64,
    len: u32,
    tag: u32,
    _unused: u32,
    status: u32,
}

impl Command {
    const OWN: u32 = 1;
    const DONE: u32 = 1 << 1;
    const END: u32 = 1 << 2;
}

// SAFETY: The device (a thread of the test) accesses up to `len` bytes at `address`, in the
// direction of its port. When it is done with them it sets `DONE` and clears `OWN`, by one write.
unsafe impl Descriptor for Command {
    type Options = u32;
    const STATUS: usize = 20;
    const MAX_LEN: usize = BUF;

    fn new(info: DescriptorInfo<'_, u32>) -> Result<Self> {
        let end = if info.last { Self::END } else { 0 };

        Ok(Self {
            address: info.address().unwrap_or(0),
            // CAST: A buffer of the tests.
            len: info.len() as u32,
            tag: info.options,
            _unused: 0,
            status: (Self::OWN | end).to_le(),
        })
    }

    fn is_done(status: u32) -> bool {
        status & Self::DONE != 0
    }
}

impl ReceiveDescriptor for Command {
    fn received(&self) -> Received {
        Received {
            // CAST: Widening.
            len: Length::Segment(Untrusted::new(self.len as usize)),
            last: u32::from_le(self.status) & Self::END != 0,
            verdict: Verdict::Good,
        }
    }
}

/// A device, as far as it isn't a thread: its registers.
struct Registers {
    dev: ARef<Device>,
    base: Atomic<u64>,
    tail: Atomic<u32>,
    /// Whether it is to stop, and whether it is at work.
    halt: Atomic<u32>,
    works: Atomic<u32>,
}

impl Registers {
    fn new(dev: &Device) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                dev: dev.into(),
                base: Atomic::new(0),
                tail: Atomic::new(0),
                halt: Atomic::new(0),
                works: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }
}

/// How the device is stopped.
struct Stopper(Arc<Registers>);

// SAFETY: By the numbers of the contract:
// 1. There is one device, which is a thread of the test.
// 2. It works while `works` is set, for which `quiesce` waits, and what was started is quiesced
//    before it is disarmed. The next thread begins where it is told.
// 3. It releases its writes by `works`, which `quiesce` acquires.
// 4. It can't be pulled out.
// 5. As 2.
// 6. `quiesce` never says so.
// 7. `HEEDS_BUS` is false.
// 8. Addresses have 64 bits. It copies what a descriptor says.
// 9. The thread sees within a round that it is to halt. Neither knows the session.
unsafe impl Quiesce for Stopper {
    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<64>())
    }

    fn disarm(&mut self) -> Result {
        self.0.base.store(0, Relaxed);
        self.0.halt.store(0, Release);
        Ok(())
    }

    fn quiesce(&self) -> StopOutcome {
        self.0.halt.store(1, Release);

        while self.0.works.load(Acquire) != 0 {
            // SAFETY: No requirements, in a context that may sleep.
            unsafe { bindings::yield_() };
        }

        StopOutcome::Stopped
    }
}

/// The driver's side of the device.
struct Port<D, const OWN: bool>(Arc<Registers>, PhantomData<fn(D)>);

// SAFETY: The thread works descriptors off in order, those before the tail or with `OWN`, and
// accesses none with which it is done. It writes no own bits. The tail is stored with release
// semantics: after all other memory.
unsafe impl<D: OneWay, const OWN: bool> RingRegisters for Port<D, OWN> {
    type Descriptor = Command;
    type Direction = D;
    const PUBLISH: Publish = if OWN {
        Publish::OwnBit(Command::OWN)
    } else {
        Publish::Tail
    };

    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn start(&mut self, ring: RingMemory<'_>) -> Result {
        // SAFETY: The ring stays as long as the device may access it.
        let base = unsafe { ring.memory.to_bits(ring.running) };

        self.0.tail.store(0, Relaxed);
        self.0.base.store(base, Release);
        Ok(())
    }

    fn doorbell(&mut self, tail: Tail) {
        self.0.tail.store(tail.index(), Release);
    }
}

/// Returns where the CPU finds what the device finds at `addr`: the device is not behind an IOMMU,
/// and has the CPU's addresses. (If memory bounces, this is where it bounces to.)
fn at<T>(addr: DmaAddress) -> *mut T {
    // SAFETY: The address of memory that was mapped or allocated for the device.
    unsafe { bindings::phys_to_virt(addr) }.cast()
}

/// The device at work: a thread.
struct Engine<'r> {
    registers: &'r Registers,
    own: bool,
    index: u32,
}

impl<'r> Engine<'r> {
    fn new(registers: &'r Registers, own: bool) -> Self {
        Self {
            registers,
            own,
            index: 0,
        }
    }

    /// Returns the next descriptor, if there is one.
    fn look(&self) -> Option<*mut Command> {
        // CAST: Widening.
        let offset = u64::from(self.index) * size_of::<Command>() as u64;
        let base = self.registers.base.load(Acquire);

        if base == 0 || self.registers.halt.load(Acquire) != 0 {
            return None;
        }

        let command = at::<Command>(base.wrapping_add(offset));
        let is_ready = if self.own {
            // SAFETY: In the ring, which is there until we say that we have stopped. All who access
            // this word do so by such accesses.
            let status = unsafe { Atomic::from_ptr(&raw mut (*command).status) };

            u32::from_le(status.load(Acquire)) & Command::OWN != 0
        } else {
            self.registers.tail.load(Acquire) != self.index
        };

        is_ready.then_some(command)
    }

    /// Says that the device is done with the descriptor that [`look`](Self::look) has returned.
    fn done(&mut self, command: *mut Command, ends: bool) {
        let end = if ends { Command::END } else { 0 };

        // SAFETY: As in `look()`.
        unsafe { Atomic::from_ptr(&raw mut (*command).status) }
            .store((Command::DONE | end).to_le(), Release);
        self.index = (self.index + 1) % LEN;
    }

    /// Sends what it is told to; returns the first segment that it wasn't told of.
    fn send(&mut self, together: &Together) -> Result<Name> {
        let mut name = Name::FIRST;

        while self.goes_on(together)? {
            // Ready ones that were posted before somebody ended are to be seen.
            let is_last = together.has_ended(PRODUCER);

            let Some(command) = self.look() else {
                if is_last {
                    break;
                }

                together.pause()?;
                continue;
            };

            // Plain accesses: what races with them is reported, if anybody looks.
            let (address, len, tag) =
                // SAFETY: It is the device's, which nobody else writes to.
                unsafe { ((*command).address, (*command).len, (*command).tag) };
            // SAFETY: As above.
            let status = unsafe { (&raw const (*command).status).read_volatile() };
            let ends = u32::from_le(status) & Command::END != 0;

            // CAST: Widening.
            ensure!(tag == name.tag() && len as usize == name.len() && ends == name.ends());

            // SAFETY: Mapped for the device, which is to read that many bytes there.
            let bytes = unsafe { core::slice::from_raw_parts(at::<u8>(address), name.len()) };

            ensure!(name.is_in(bytes));
            self.done(command, ends);
            name = name.next(ends);
        }

        Ok(name)
    }

    /// Receives into the buffers that it is given, until the consumer has ended; returns the first
    /// segment that it didn't report.
    fn receive(&mut self, together: &Together) -> Result<Name> {
        let mut name = Name::FIRST;

        while self.goes_on(together)? && !together.has_ended(CONSUMER) {
            let Some(command) = self.look() else {
                together.pause()?;
                continue;
            };

            // SAFETY: As in `send()`.
            let (address, room) = unsafe { ((*command).address, (*command).len) };

            // CAST: Widening.
            ensure!(room as usize == BUF);

            let to = at::<u8>(address);

            for i in 0..name.len() {
                // SAFETY: Mapped for the device, which is to write up to `BUF` bytes there.
                unsafe { *to.add(i) = name.byte(i) };
            }

            // CAST: Not more than `BUF`.
            // SAFETY: As above.
            unsafe { (*command).len = name.len() as u32 };
            self.done(command, name.ends());
            name = name.next(name.ends());
        }

        Ok(name)
    }

    /// Whether the device wasn't told to stop.
    fn goes_on(&self, together: &Together) -> Result<bool> {
        if together.failed.load(Relaxed) != 0 {
            return Err(ECANCELED);
        }

        Ok(self.registers.halt.load(Acquire) == 0)
    }
}

/// Sends frames; returns how many were posted. Ends when there are so many, or the device stops.
fn post<'a, const OWN: bool>(
    tx: &mut Producer<'a, Port<ToDevice, OWN>, KVec<u8>>,
    frames: u32,
    together: &Together,
) -> Result<u32> {
    let mut random = Random(frames);
    let mut name = Name::FIRST;

    while name.frame < frames {
        let posted = if name.segments() > 1 {
            post_chain(tx, name)
        } else {
            // Refused ones come back: what isn't in the ring is dropped here.
            tx.post(name.bytes()?, name.tag()).map_err(|e| e.error)
        };

        match posted {
            Ok(()) => {
                name = Name {
                    frame: name.frame + 1,
                    segment: 0,
                }
            }
            Err(EBUSY) => {
                if stops(tx.kick())? {
                    break;
                }

                // Nobody makes room.
                if together.has_ended(CONSUMER) {
                    break;
                }

                together.pause()?;
                continue;
            }
            Err(ESHUTDOWN) => break,
            Err(e) => return Err(e),
        }

        if random.below(4) == 0 && stops(tx.kick())? {
            break;
        }
    }

    stops(tx.kick())?;
    Ok(name.frame)
}

fn post_chain<'a, const OWN: bool>(
    tx: &mut Producer<'a, Port<ToDevice, OWN>, KVec<u8>>,
    first: Name,
) -> Result {
    let mut name = first;
    let mut chain = tx.new_chain();

    for _ in 0..first.segments() {
        // Dropping the chain drops what is in it.
        chain.push(name.bytes()?, name.tag()).map_err(|e| e.error)?;
        name = name.next(false);
    }

    chain.commit().map_err(|ErrorWith { error, .. }| error)
}

/// Whether the device was stopped, as a kick says.
fn stops(kicked: Result) -> Result<bool> {
    match kicked {
        Err(ESHUTDOWN) => Ok(true),
        kicked => kicked.map(|()| false),
    }
}

/// Takes back what was sent, until there were so many frames, or the device has stopped. Returns
/// what comes next. `seen` says how far it is.
fn reap<'a, const OWN: bool>(
    tx: &mut Consumer<'a, Port<ToDevice, OWN>, KVec<u8>>,
    frames: u32,
    seen: &Atomic<u32>,
    together: &Together,
) -> Result<Name> {
    let mut random = Random(7);
    let mut name = Name::FIRST;
    // CAST: Widening.
    let mut back = KVec::with_capacity(LEN as usize, GFP_KERNEL)?;

    while name.frame < frames {
        // In this order: what was done before these is to be seen.
        let is_last = tx.is_stopped() || together.has_ended(DEVICE);
        let before = name;
        // They are freed later: the allocator has locks, which would put all in order.
        let mut keep = |bytes: KVec<u8>| drop(back.push_within_capacity(bytes));

        let count = if random.below(2) == 0 {
            tx.reap_each(keep)
        } else if let Some(segments) = tx.reap() {
            segments.for_each(&mut keep);
            1
        } else {
            0
        };

        for bytes in &back {
            ensure!(name.is_in(bytes));
            name = name.next(name.ends());
        }

        back.clear();
        ensure!(name.segment == 0 && name.frame - before.frame == count);
        seen.store(name.frame, Relaxed);

        if count == 0 {
            if is_last {
                break;
            }

            together.pause()?;
        }
    }

    Ok(name)
}

/// Receives until there were so many frames, or the device has stopped; returns what comes next.
fn receive<'a, const OWN: bool>(
    rx: &mut Consumer<'a, Port<FromDevice, OWN>, RxBuf>,
    frames: u32,
    seen: &Atomic<u32>,
    together: &Together,
) -> Result<Name> {
    let mut random = Random(11);
    let mut name = Name::FIRST;

    while name.frame < frames {
        // In this order: what was done before these is to be seen.
        let is_last = rx.is_stopped() || together.has_ended(DEVICE);
        let before = name.frame;
        let mut is_right = true;
        let budget = random.below(4) + 1;
        let count = rx.receive_each(budget.min(frames - before), |frame| {
            for bytes in frame.segments() {
                is_right &= name.is_in(bytes);
                name = name.next(name.ends());
            }

            // Its buffer stays, or another one takes its place, or none.
            match (name.frame % 16, frame.count()) {
                (0, 1) => drop(new_buf().map(|buf| frame.replace(buf))),
                (7, 1) => drop(frame.take_single()),
                (9, _) => frame.take().for_each(drop),
                _ => frame.recycle(),
            }
        });

        ensure!(is_right);
        ensure!(name.segment == 0 && name.frame - before == count);
        seen.store(name.frame, Relaxed);

        if count == 0 {
            if is_last {
                break;
            }

            together.pause()?;
        }
    }

    ensure!(rx.malformed() == 0 && rx.bad() == 0);
    Ok(name)
}

/// Gives buffers to the device, until the consumer has ended or the device was stopped.
fn refill<'a, const OWN: bool>(
    rx: &mut Producer<'a, Port<FromDevice, OWN>, RxBuf>,
    together: &Together,
) -> Result {
    while !together.has_ended(CONSUMER) {
        if stops(rx.refill(0, new_buf).and_then(|()| rx.kick()))? {
            break;
        }

        together.pause()?;
    }

    Ok(())
}

fn new_buf() -> Result<RxBuf> {
    Ok(KBox::new([0; BUF], GFP_KERNEL)?)
}

type Bare<'a> = Session<'a, ()>;
type PortRing<'a, D, P, const OWN: bool> = Ring<'a, Port<D, OWN>, P>;

/// Runs a test on a device that sees memory as the CPUs do, being one of them, and has its ring.
#[expect(clippy::type_complexity, reason = "a closure of three arguments")]
fn with_ring<D, P, const OWN: bool>(
    mut body: impl for<'a> FnMut(&Bare<'a>, &Registers, &mut PortRing<'a, D, P, OWN>) -> Result,
) -> Result
where
    D: OneWay,
    P: for<'a> Segment<'a, D>,
{
    fn on<'a, D, P, const OWN: bool>(
        pdev: &platform::Device<Core<'a>>,
        body: &mut dyn FnMut(
            &Session<'a, ()>,
            &Registers,
            &mut Ring<'a, Port<D, OWN>, P>,
        ) -> Result,
    ) -> Result
    where
        D: OneWay + 'a,
        P: Segment<'a, D>,
    {
        let dma = Mapper::get(pdev.as_ref().bound())?;
        let registers = Registers::new(pdev.as_ref())?;
        let stopper = Stopper(registers.clone());
        let session: Session<'a, ()> = Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
        let mut ring = Ring::new(dma, Port(registers.clone(), PhantomData), LEN)?;

        session.start()?;
        ring.start(drop)?;

        let outcome = body(&session, &registers, &mut ring);
        // Before the ring goes.
        let stopped = session.stop();

        outcome?;
        ensure!(stopped == StopOutcome::Stopped);
        Ok(())
    }

    on_platform_device(
        Some(Constraints::new(DmaMask::new::<64>())),
        // SAFETY: `dev` is a device that isn't bound yet.
        |dev| unsafe { bindings::dev_assign_dma_coherent(dev, true) },
        &mut |pdev| on(pdev, &mut body),
        |_| Ok(()),
    )
}

/// Has the engine at work, and says when it isn't any more.
fn at_work<T>(registers: &Registers, work: impl FnOnce() -> T) -> T {
    let result = work();

    registers.works.store(0, Release);
    result
}

/// Sends with all three at work. Returns how many frames were posted, and how many came back, if
/// they are stopped when that many did.
fn sends<'a, const OWN: bool>(
    session: &Session<'a, ()>,
    registers: &Registers,
    ring: &mut Ring<'a, Port<ToDevice, OWN>, KVec<u8>>,
    frames: u32,
    stop_after: Option<u32>,
) -> Result<(u32, u32)> {
    let Ring { producer, consumer } = ring;
    let (mut posted, mut reaped, mut sent) = (0, Name::FIRST, Name::FIRST);
    let seen = Atomic::new(0);

    registers.works.store(1, Release);
    on_cpus(
        [
            &mut |together| {
                posted = post(producer, frames, together)?;
                Ok(())
            },
            &mut |together| {
                reaped = reap(consumer, frames, &seen, together)?;
                Ok(())
            },
            &mut |together| {
                let mut engine = Engine::new(registers, OWN);

                sent = at_work(registers, || engine.send(together))?;
                Ok(())
            },
        ],
        |together| stop_when(session, &seen, stop_after, together),
    )
    .inspect_err(|_| registers.works.store(0, Release))?;

    // What was sent came back, but for a frame that the device has seen in part.
    ensure!(reaped.frame == sent.frame && posted >= reaped.frame);
    Ok((posted, reaped.frame))
}

/// As [`sends`], for a ring that receives.
fn receives<'a, const OWN: bool>(
    session: &Session<'a, ()>,
    registers: &Registers,
    ring: &mut Ring<'a, Port<FromDevice, OWN>, RxBuf>,
    frames: u32,
    stop_after: Option<u32>,
) -> Result {
    let Ring { producer, consumer } = ring;
    let (mut received, mut written) = (Name::FIRST, Name::FIRST);
    let seen = Atomic::new(0);

    registers.works.store(1, Release);
    on_cpus(
        [
            &mut |together| refill(producer, together),
            &mut |together| {
                received = receive(consumer, frames, &seen, together)?;
                Ok(())
            },
            &mut |together| {
                let mut engine = Engine::new(registers, OWN);

                written = at_work(registers, || engine.receive(together))?;
                Ok(())
            },
        ],
        |together| stop_when(session, &seen, stop_after, together),
    )
    .inspect_err(|_| registers.works.store(0, Release))?;

    // The device may have written more frames than were wanted.
    ensure!(received.frame == frames.min(written.frame));
    Ok(())
}

/// Stops the device when so many frames were seen, if it is to be stopped.
fn stop_when(
    session: &Session<'_, ()>,
    seen: &Atomic<u32>,
    after: Option<u32>,
    together: &Together,
) -> Result {
    let Some(after) = after else {
        return Ok(());
    };

    while seen.load(Relaxed) < after {
        together.pause()?;
    }

    ensure!(session.stop() == StopOutcome::Stopped);
    Ok(())
}

/// All frames are sent, and come back.
fn sends_all<const OWN: bool>() -> Result {
    if !has_cpus() {
        return Ok(());
    }

    with_ring::<ToDevice, KVec<u8>, OWN>(|session, registers, ring| {
        ensure!(sends(session, registers, ring, FRAMES, None)? == (FRAMES, FRAMES));
        Ok(())
    })
}

/// All frames are received.
fn receives_all<const OWN: bool>() -> Result {
    if !has_cpus() {
        return Ok(());
    }

    with_ring::<FromDevice, RxBuf, OWN>(|session, registers, ring| {
        receives(session, registers, ring, FRAMES, None)
    })
}

/// The device is stopped while all are at work, and started again: what didn't come back from it
/// does so then.
fn sends_with_stops<const OWN: bool>() -> Result {
    if !has_cpus() {
        return Ok(());
    }

    with_ring::<ToDevice, KVec<u8>, OWN>(|session, registers, ring| {
        for round in 0..STOPS {
            let after = Some(round * 100 % 317);
            let (posted, reaped) = sends(session, registers, ring, u32::MAX, after)?;
            let mut is_right = true;
            let mut name = Name {
                frame: reaped,
                segment: 0,
            };

            session.start()?;
            ring.start(|bytes| {
                is_right &= name.is_in(&bytes);
                name = name.next(name.ends());
            })?;
            ensure!(is_right && name.frame == posted && name.segment == 0);
        }

        Ok(())
    })
}

/// As [`sends_with_stops`], for what is received: frames with which the device was done are
/// received, and buffers stay in the ring.
fn receives_with_stops<const OWN: bool>() -> Result {
    if !has_cpus() {
        return Ok(());
    }

    with_ring::<FromDevice, RxBuf, OWN>(|session, registers, ring| {
        for round in 0..STOPS {
            let after = Some(round * 100 % 317);

            receives(session, registers, ring, u32::MAX, after)?;
            session.start()?;
            ring.start(drop)?;
        }

        Ok(())
    })
}

/// Words that two threads access, in order or not: controls, which show KCSAN a race.
///
/// The functions that race aren't inlined. So what the compiler may make of a race stays in them,
/// and each race is one between two instructions, which is reported once. Their names are in the
/// report.
#[cfg(CONFIG_KCSAN)]
struct Racy {
    data: UnsafeCell<u64>,
    flag: Atomic<u32>,
    ack: Atomic<u32>,
}

#[cfg(CONFIG_KCSAN)]
// SAFETY: The atomics may be shared. `data` may not, and in the controls that are to be reported
// two threads access it at the same time, on purpose: only in kernels that exist to report this.
// There each access is one aligned word, which the machine loads and stores as a whole, and for
// which each value is valid.
unsafe impl Sync for Racy {}

#[cfg(CONFIG_KCSAN)]
impl Racy {
    /// How often both threads store: KCSAN looks at one access of some hundred.
    const TIMES: u32 = 100_000;

    /// How many values are handed over, and how often each is loaded. KCSAN looks at one store of
    /// some hundred, and then again while the answer is waited for, after some hundred looks:
    /// values must be loaded for longer than that, on fast hosts, too.
    const VALUES: u32 = 1_500;
    const LOADS: u32 = 300;

    /// How often all of them are handed over where that is to be reported: of one time's stores
    /// KCSAN looks at some ten, and in a busy guest the other CPU may not run at any of these
    /// moments.
    const TURNS: u32 = 4;

    /// How often one looks for an answer before one sleeps: long enough that one that is awake
    /// answers before. Who sleeps does so for a tick, and then nothing happens at the same time.
    const PATIENCE: u32 = 100_000;

    /// How long all this may take. A host on which it takes longer doesn't run both CPUs at once.
    const LIMIT: Delta = Delta::from_secs(60);

    fn new() -> Self {
        Self {
            data: UnsafeCell::new(0),
            flag: Atomic::new(0),
            ack: Atomic::new(0),
        }
    }

    #[inline(never)]
    fn clashing_store(&self, value: u32) {
        // SAFETY: `data` is valid for writes, because `self` is borrowed. That nobody else accesses
        // it now does not hold where the control is to be reported: see the type.
        unsafe { *self.data.get() = u64::from(value) };
    }

    /// Stores a value and publishes it. KCSAN has the store come late up to the next barrier, but
    /// not later than the function returns, so the answer is waited for in here: some time. Before
    /// that is over, nothing may sleep: a report from within the scheduler can hang the machine.
    #[inline(never)]
    fn handed_store(&self, value: u32, publish: impl Fn(&Atomic<u32>, u32)) {
        // SAFETY: `data` is valid for writes, because `self` is borrowed. The other thread has said
        // by `ack` that it is done with the last value. Whether it learns of this store before it
        // looks depends on the control: see the type.
        unsafe { *self.data.get() = u64::from(value) };
        publish(&self.flag, value);

        for _ in 0..Self::PATIENCE {
            if self.ack.load(Acquire) == value {
                break;
            }
        }
    }

    #[inline(never)]
    fn handed_load(&self) -> u64 {
        // SAFETY: `data` is valid for reads, because `self` is borrowed. The other thread has said
        // by `flag` that it has stored a value. Whether that store came before depends on the
        // control: see the type.
        unsafe { *self.data.get() }
    }

    /// Two threads store to one word, for no reason.
    fn clash(&self) -> Result {
        let store = |together: &Together| {
            // Who begins early would be gone when the other one comes.
            self.flag.fetch_add(1, Relaxed);

            while self.flag.load(Relaxed) < 2 {
                together.pause()?;
            }

            for i in 0..Self::TIMES {
                self.clashing_store(i);
            }

            Ok(())
        };

        on_cpus(
            [&mut |t| store(t), &mut |t| store(t), &mut |_| Ok(())],
            |_| Ok(()),
        )
    }

    /// One thread hands a value to another one, again and again: `publish` stores the flag.
    ///
    /// Who has to wait sleeps after some time, so that a host with one CPU runs the other one.
    fn hand_over(&self, publish: impl Fn(&Atomic<u32>, u32) + Sync) -> Result {
        let begun = Instant::<Monotonic>::now();
        let rest = |together: &Together| {
            if begun.elapsed() > Self::LIMIT {
                return Err(ETIMEDOUT);
            }

            fsleep(Delta::from_micros(10));
            together.pause()
        };

        on_cpus(
            [
                &mut |together| {
                    for i in 1..=Self::VALUES {
                        self.handed_store(i, &publish);

                        while self.ack.load(Acquire) != i {
                            rest(together)?;
                        }
                    }

                    Ok(())
                },
                &mut |together| {
                    for i in 1..=Self::VALUES {
                        let mut looks = 0;

                        while self.flag.load(Acquire) != i {
                            looks += 1;

                            if looks % Self::PATIENCE == 0 {
                                rest(together)?;
                            }
                        }

                        // Each time anew, though nothing seems to change what is loaded.
                        for _ in 0..Self::LOADS {
                            ensure!(black_box(self).handed_load() == u64::from(i));
                        }

                        self.ack.store(i, Release);
                    }

                    Ok(())
                },
                &mut |_| Ok(()),
            ],
            |_| Ok(()),
        )
    }
}

#[kunit_tests(rust_dma_ring_parallel)]
mod cases {
    use super::*;

    /// What is posted on one CPU is reaped on another one, once, in order, as it was.
    #[test]
    fn sends_by_tail() -> Result {
        sends_all::<false>()
    }

    /// The same, with own bits.
    #[test]
    fn sends_by_own_bit() -> Result {
        sends_all::<true>()
    }

    /// Buffers that are refilled on one CPU are received on another one, with what the device
    /// wrote.
    #[test]
    fn receives_by_tail() -> Result {
        receives_all::<false>()
    }

    /// The same, with own bits.
    #[test]
    fn receives_by_own_bit() -> Result {
        receives_all::<true>()
    }

    /// Both halves learn that the device was stopped, and no buffer is lost.
    #[test]
    fn stops_sending_by_tail() -> Result {
        sends_with_stops::<false>()
    }

    /// The same, with own bits.
    #[test]
    fn stops_sending_by_own_bit() -> Result {
        sends_with_stops::<true>()
    }

    /// Frames that the device has written before it was stopped are received.
    #[test]
    fn stops_receiving_by_tail() -> Result {
        receives_with_stops::<false>()
    }

    /// The same, with own bits.
    #[test]
    fn stops_receiving_by_own_bit() -> Result {
        receives_with_stops::<true>()
    }
}

#[cfg(CONFIG_KCSAN)]
#[kunit_tests(rust_dma_race)]
mod controls {
    use super::*;

    /// KCSAN sees two CPUs store to one word.
    #[test]
    fn race() -> Result {
        if !has_cpus() {
            return Ok(());
        }

        expect("clashing_store / ");
        Racy::new().clash()
    }

    /// It has nothing to say if a flag was stored with release semantics. Before the next test:
    /// what is reported once isn't a second time.
    #[test]
    fn released() -> Result {
        if !has_cpus() {
            return Ok(());
        }

        Racy::new().hand_over(|flag, i| flag.store(i, Release))
    }

    /// It sees that a flag was stored without them, though no machine of ours stores late.
    #[test]
    fn relaxed() -> Result {
        if !has_cpus() {
            return Ok(());
        }

        expect("handed_load");

        for _ in 0..Racy::TURNS {
            Racy::new().hand_over(|flag, i| flag.store(i, Relaxed))?;
        }

        Ok(())
    }
}
