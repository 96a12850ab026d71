// SPDX-License-Identifier: GPL-2.0

//! Tests of fences.

use super::{
    outcome,
    DriverFence,
    Fence,
    FenceAllocation,
    FenceCallback,
    FenceContext,
    Fenced,
    Signalling, //
};
use crate::{
    bindings,
    dma::{
        fixture::{
            self,
            ensure, //
        },
        Buffer, //
    },
    error::ErrorWith,
    ffi::c_char,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        rcu,
        Arc,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    }, //
};
use core::mem;

mod in_flight;
#[cfg(CONFIG_RUST_DMA_SIM)]
mod protocols;

const TICK: Delta = Delta::from_millis(1);
/// For what doesn't come.
const SOON: Delta = Delta::from_millis(20);
/// For what does, however busy the host.
const LONG: Delta = Delta::from_secs(20);
/// How often two threads race.
const RACES: usize = 300;

fn context() -> Result<FenceContext> {
    FenceContext::new(c"a driver", c"a timeline")
}

fn memory() -> Result<FenceAllocation> {
    FenceAllocation::new(GFP_KERNEL)
}

/// A job, and its fence as others have it.
fn job() -> Result<(DriverFence, ARef<Fence>)> {
    let job = context()?.fence(memory()?);
    let fence = job.fence();

    Ok((job, fence))
}

/// How many references there are.
fn references(fence: &Fence) -> i32 {
    // SAFETY: The fence is initialised; its count is an atomic integer.
    unsafe { (*(&raw mut (*fence.as_raw()).refcount).cast::<Atomic<i32>>()).load(Acquire) }
}

fn seqno(fence: &Fence) -> (u64, u64) {
    // SAFETY: The fence is initialised, and these don't change.
    unsafe { ((*fence.as_raw()).context, (*fence.as_raw()).seqno) }
}

/// Whether C says that the driver and the timeline have these names.
fn is_named(fence: &Fence, driver: &CStr, timeline: &CStr) -> bool {
    let _rcu = rcu::read_lock();
    // SAFETY: C gives a string that is there until the end of the RCU read-side section.
    let is = |name: *const c_char, expected| unsafe { CStr::from_char_ptr(name) } == expected;

    // SAFETY: The fence is initialised, and this is in an RCU read-side section.
    unsafe {
        is(
            bindings::dma_fence_driver_name(fence.as_raw()).cast(),
            driver,
        ) && is(
            bindings::dma_fence_timeline_name(fence.as_raw()).cast(),
            timeline,
        )
    }
}

/// What a callback was told, and how often.
struct Calls {
    count: Atomic<usize>,
    outcome: Atomic<i32>,
}

impl Calls {
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                count: Atomic::new(0),
                outcome: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Has a callback added that notes how it is called.
    fn of(
        self: &Arc<Self>,
        fence: &Fence,
    ) -> Result<FenceCallback<impl FnMut(Result) + Send + 'static>> {
        let calls = self.clone();

        Ok(fence.add_callback(move |outcome| {
            let outcome = outcome.map_or_else(Error::to_errno, |()| 1);

            calls.outcome.store(outcome, Release);
            calls.count.fetch_add(1, Full);
        })?)
    }

    fn count(&self) -> usize {
        self.count.load(Acquire)
    }

    /// What the last call was told.
    fn outcome(&self) -> Option<Result> {
        outcome(self.outcome.load(Acquire))
    }
}

/// Where two threads wait for each other.
struct Meeting(Atomic<i32>);

impl Meeting {
    fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(0)), GFP_KERNEL)?)
    }

    fn arrive(&self) {
        self.0.fetch_add(1, Full);
        while self.0.load(Acquire) < 2 {
            core::hint::spin_loop();
        }
    }
}

/// Returns the time by the clock that tells when a wait is over. A machine that was held up catches
/// up on it, so for a while it goes faster than others.
fn jiffies() -> Jiffies {
    // SAFETY: It is a word, which is always there.
    unsafe { core::ptr::read_volatile(&raw const bindings::jiffies) }
}

/// Returns how much of that a wait takes at least.
fn least(wait: Delta) -> Jiffies {
    if wait <= Delta::ZERO {
        return 0;
    }

    // CAST: Small.
    msecs_to_jiffies(wait.as_millis().max(1) as u32)
}

#[kunit_tests(rust_dma_fence)]
mod cases {
    use super::*;

    /// Signalled before anybody waits.
    #[test]
    fn signalled() -> Result {
        let (job, fence) = job()?;

        ensure!(fence.status().is_none());
        job.signal();
        ensure!(fence.status() == Some(Ok(())));
        ensure!(fence.wait(Delta::ZERO) == Some(Ok(())));
        ensure!(fence.wait(LONG) == Some(Ok(())));
        ensure!(fence.wait_interruptible(LONG)? == Some(Ok(())));
        Ok(())
    }

    /// Several wait, each in its own way, before it is signalled.
    #[test]
    fn several_wait() -> Result {
        let (job, fence) = job()?;
        let (first, second, third) = (fence.clone(), fence.clone(), fence.clone());
        let waiting = (
            fixture::spawn(move || first.wait(LONG))?,
            fixture::spawn(move || second.wait_interruptible(LONG).ok().flatten())?,
            fixture::spawn(move || third.wait(LONG))?,
        );

        fsleep(SOON);
        ensure!(fence.status().is_none());
        job.signal_with_error(EIO);

        ensure!(waiting.0.join(|ended| *ended == Some(Err(EIO)))?);
        ensure!(waiting.1.join(|ended| *ended == Some(Err(EIO)))?);
        ensure!(waiting.2.join(|ended| *ended == Some(Err(EIO)))?);
        Ok(())
    }

    /// Nobody signals: the wait takes its time, and no more. The fence can be signalled afterwards.
    #[test]
    fn times_out() -> Result {
        let (job, fence) = job()?;

        for wait in [
            SOON,
            TICK,
            Delta::from_micros(100),
            Delta::ZERO,
            Delta::from_millis(-20),
        ] {
            let (start, ticks) = (Instant::<Monotonic>::now(), jiffies());

            ensure!(fence.wait(wait).is_none());
            ensure!(jiffies().wrapping_sub(ticks) >= least(wait) && start.elapsed() < LONG);
            ensure!(fence.wait_interruptible(wait)?.is_none());
        }

        job.signal();
        ensure!(fence.wait(TICK) == Some(Ok(())));
        Ok(())
    }

    /// A signal ends a wait that asks for it, and no other. It doesn't end the job.
    #[test]
    fn interrupted() -> Result {
        let (job, fence) = job()?;

        // SAFETY: KUnit runs tests in threads of the kernel, which take no signals otherwise.
        unsafe { bindings::dma_fence_test_signal(true) };

        let outcome = fence.wait_interruptible(LONG);
        let start = jiffies();
        let patient = fence.wait(SOON);
        let waited = jiffies().wrapping_sub(start);

        // SAFETY: As above.
        unsafe { bindings::dma_fence_test_signal(false) };

        ensure!(outcome == Err(ERESTARTSYS));
        ensure!(patient.is_none() && waited >= least(SOON));
        job.signal();
        ensure!(fence.wait_interruptible(LONG)? == Some(Ok(())));
        Ok(())
    }

    /// A job that fails: the error is there when the fence is signalled.
    #[test]
    fn error() -> Result {
        for error in [EIO, ETIME, ENODATA, ESHUTDOWN] {
            let (job, fence) = job()?;
            let calls = Calls::new()?;
            let _callback = calls.of(&fence)?;

            job.signal_with_error(error);
            ensure!(fence.status() == Some(Err(error)));
            ensure!(fence.wait(LONG) == Some(Err(error)));
            ensure!(fence.wait_interruptible(LONG)? == Some(Err(error)));
            ensure!(calls.count() == 1 && calls.outcome() == Some(Err(error)));
        }

        Ok(())
    }

    /// The driver gives a job up: those who wait don't hang.
    #[test]
    fn dropped() -> Result {
        let (job, fence) = job()?;
        let calls = Calls::new()?;
        let _callback = calls.of(&fence)?;
        let theirs = fence.clone();
        let waiting = fixture::spawn(move || theirs.wait(LONG))?;

        fsleep(TICK);
        drop(job);
        ensure!(waiting.join(|ended| *ended == Some(Err(ECANCELED)))?);
        ensure!(calls.outcome() == Some(Err(ECANCELED)));
        Ok(())
    }

    /// One thread signals when another one begins to wait: no wake-up is lost, and the outcome is
    /// there.
    #[test]
    fn race_of_signal_and_wait() -> Result {
        for turn in 0..RACES {
            let (job, fence) = job()?;
            let fails = turn % 2 == 0;
            let meeting = Meeting::new()?;
            let theirs = meeting.clone();

            let other = fixture::spawn(move || {
                theirs.arrive();

                if fails {
                    job.signal_with_error(EIO);
                } else {
                    job.signal();
                }
            })?;

            meeting.arrive();

            let outcome = fence.wait(LONG);

            other.join(|()| ())?;
            ensure!(outcome == Some(if fails { Err(EIO) } else { Ok(()) }));
        }

        Ok(())
    }

    /// A callback is called once, when the fence is signalled.
    #[test]
    fn callback() -> Result {
        let (job, fence) = job()?;
        let calls = (Calls::new()?, Calls::new()?);
        let callbacks = (calls.0.of(&fence)?, calls.1.of(&fence)?);

        ensure!(calls.0.count() == 0 && calls.1.count() == 0);
        job.signal();
        ensure!(calls.0.count() == 1 && calls.0.outcome() == Some(Ok(())));
        ensure!(calls.1.count() == 1 && calls.1.outcome() == Some(Ok(())));

        drop(callbacks);
        ensure!(calls.0.count() == 1 && calls.1.count() == 1);
        Ok(())
    }

    /// A callback finds the fence as it is: signalled.
    #[test]
    fn callback_asks() -> Result {
        let (job, fence) = job()?;
        let seen = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let (theirs, note) = (fence.clone(), seen.clone());
        let _callback = fence.add_callback(move |outcome| {
            note.store(1 + i32::from(theirs.status() == Some(outcome)), Release);
        })?;

        job.signal_with_error(EIO);
        ensure!(seen.load(Acquire) == 2);
        Ok(())
    }

    /// To a fence that is signalled none can be added, and it comes back.
    #[test]
    fn callback_too_late() -> Result {
        let (job, fence) = job()?;
        let calls = Calls::new()?;
        let theirs = calls.clone();

        job.signal();

        let before = references(&fence);
        let ErrorWith { error, mut value } = fence
            .add_callback(move |_| {
                theirs.count.fetch_add(1, Full);
            })
            .err()
            .ok_or(EINVAL)?;

        ensure!(error == ENOENT && calls.count() == 0);
        ensure!(references(&fence) == before);
        value(Ok(()));
        ensure!(calls.count() == 1);
        Ok(())
    }

    /// A callback that is dropped is not called, and what it captured is gone. Others are called.
    #[test]
    fn callback_removed() -> Result {
        let (job, fence) = job()?;
        let calls = (Calls::new()?, Calls::new()?);
        let before = references(&fence);
        let removed = calls.0.of(&fence)?;
        let other = calls.1.of(&fence)?;

        ensure!(references(&fence) == before + 2);
        drop(removed);
        ensure!(references(&fence) == before + 1);
        ensure!(Arc::into_unique_or_drop(calls.0.clone()).is_none());

        job.signal();
        ensure!(calls.0.count() == 0 && calls.1.count() == 1);
        drop(other);

        // What was captured is gone: this is the only one.
        ensure!(Arc::into_unique_or_drop(calls.0).is_some());
        ensure!(Arc::into_unique_or_drop(calls.1).is_some());
        ensure!(references(&fence) == 1);
        Ok(())
    }

    /// One thread drops a callback when another one signals the fence: the callback isn't being
    /// called any more when it is gone.
    #[test]
    fn race_of_signal_and_removal() -> Result {
        let mut called = 0;

        for turn in 0..RACES {
            let (job, fence) = job()?;
            let calls = Arc::new((Atomic::new(0), Atomic::new(0)), GFP_KERNEL)?;
            let counts = calls.clone();
            let callback = fence.add_callback(move |_| {
                counts.0.fetch_add(1, Full);
                for _ in 0..100 {
                    core::hint::spin_loop();
                }
                counts.1.fetch_add(1, Full);
            })?;
            let meeting = Meeting::new()?;
            let theirs = meeting.clone();

            let other = fixture::spawn(move || {
                theirs.arrive();
                job.signal();
            })?;

            meeting.arrive();
            // It begins earlier or later.
            for _ in 0..turn {
                core::hint::spin_loop();
            }
            drop(callback);

            let (begun, ended) = (calls.0.load(Acquire), calls.1.load(Acquire));

            other.join(|()| ())?;
            ensure!(begun == ended && begun <= 1);
            ensure!((calls.0.load(Acquire), calls.1.load(Acquire)) == (begun, ended));
            called += begun;
            ensure!(Arc::into_unique_or_drop(calls).is_some());
        }

        pr_info!("{called} of {RACES} callbacks were called\n");
        Ok(())
    }

    /// A callback that is forgotten stays, and is called.
    #[test]
    fn callback_forgotten() -> Result {
        let (job, fence) = job()?;
        let calls = Calls::new()?;
        let callback = calls.of(&fence)?;
        let registered = callback.registered;

        mem::forget(callback);
        job.signal();
        ensure!(calls.count() == 1);

        // So that it isn't leaked.
        drop(FenceCallback { registered });
        ensure!(Arc::into_unique_or_drop(calls).is_some());
        Ok(())
    }

    /// A callback that drops itself goes on to its end, and is leaked. One that is dropped by
    /// another callback, after it was called, is gone.
    #[test]
    fn callback_drops() -> Result {
        trait Anything: Send {}
        impl<T: Send> Anything for T {}

        type Place = Arc<SpinLock<Option<KBox<dyn Anything>>>>;

        fn place() -> Result<Place> {
            Arc::pin_init(new_spinlock!(None), GFP_KERNEL)
        }

        let (job, fence) = job()?;
        let calls = (Calls::new()?, Calls::new()?);
        let places = (place()?, place()?);

        // The first one drops nothing, but is dropped by the second one.
        let first = calls.0.of(&fence)?;
        let (before, own, count) = (places.0.clone(), places.1.clone(), calls.1.clone());
        let second = fence.add_callback(move |outcome| {
            drop(before.lock().take());
            drop(own.lock().take());
            count.count.fetch_add(1, Full);
            count.outcome.store(i32::from(outcome.is_ok()), Release);
        })?;
        let registered = second.registered;

        *places.0.lock() = Some(KBox::new(first, GFP_KERNEL)?);
        *places.1.lock() = Some(KBox::new(second, GFP_KERNEL)?);

        let before = references(&fence);

        job.signal();
        ensure!(calls.0.count() == 1 && calls.1.count() == 1);
        ensure!(calls.1.outcome() == Some(Ok(())));
        ensure!(places.0.lock().is_none() && places.1.lock().is_none());
        // The driver's reference and the first one's.
        ensure!(references(&fence) == before - 2);
        ensure!(Arc::into_unique_or_drop(calls.0).is_some());

        // So that it isn't leaked for good.
        drop(FenceCallback { registered });
        ensure!(references(&fence) == before - 3);
        ensure!(Arc::into_unique_or_drop(calls.1).is_some());
        Ok(())
    }

    /// Fences outlive their context, and so do names, as long as a fence is pending.
    #[test]
    fn outlives_its_context() -> Result {
        let context = FenceContext::new(c"gone", c"by now")?;
        let jobs = (context.fence(memory()?), context.fence(memory()?));
        let fences = (jobs.0.fence(), jobs.1.fence());

        drop(context);
        ensure!(is_named(&fences.0, c"gone", c"by now"));

        jobs.0.signal();
        rcu::synchronize_rcu();
        rcu::rcu_barrier();
        ensure!(is_named(
            &fences.0,
            c"detached-driver",
            c"signaled-timeline"
        ));
        ensure!(is_named(&fences.1, c"gone", c"by now"));

        drop(jobs.1);
        rcu::synchronize_rcu();
        rcu::rcu_barrier();
        ensure!(is_named(
            &fences.1,
            c"detached-driver",
            c"signaled-timeline"
        ));
        ensure!(fences.0.status() == Some(Ok(())) && fences.1.status() == Some(Err(ECANCELED)));
        Ok(())
    }

    /// Who has asked for the names may use them for a grace period, whatever happens meanwhile.
    #[test]
    fn names_outlive_their_fence() -> Result {
        let (job, fence) = job()?;
        let rcu = rcu::read_lock();
        // SAFETY: The fence is initialised, and this is in an RCU read-side section.
        let (driver, timeline) = unsafe {
            (
                bindings::dma_fence_driver_name(fence.as_raw()),
                bindings::dma_fence_timeline_name(fence.as_raw()),
            )
        };

        // Its context is gone already.
        job.signal();

        // SAFETY: C has given strings that are there until the end of the section.
        let (driver, timeline) = unsafe {
            (
                CStr::from_char_ptr(driver.cast()) == c"a driver",
                CStr::from_char_ptr(timeline.cast()) == c"a timeline",
            )
        };

        drop(rcu);
        ensure!(driver && timeline);
        Ok(())
    }

    /// A fence that is forgotten is pending for ever, and its names are there for ever.
    #[test]
    fn forgotten() -> Result {
        let context = FenceContext::new(c"lost", c"not found")?;
        let job = context.fence(memory()?);
        let (memory, fence) = (job.memory, job.fence());

        mem::forget(job);
        drop(context);
        rcu::synchronize_rcu();
        rcu::rcu_barrier();
        ensure!(fence.wait(TICK).is_none());
        ensure!(is_named(&fence, c"lost", c"not found"));

        // So that it isn't leaked.
        drop(DriverFence {
            memory,
            outcome: Ok(()),
        });
        ensure!(fence.status() == Some(Ok(())));
        Ok(())
    }

    /// References are given back, whoever is the last.
    #[test]
    fn references_are_counted() -> Result {
        let (job, fence) = job()?;

        ensure!(references(&fence) == 2);

        let other = fence.clone();

        ensure!(references(&fence) == 3);
        drop(other);
        ensure!(references(&fence) == 2);
        job.signal();
        ensure!(references(&fence) == 1);

        let (job, fence) = super::job()?;

        drop(fence);
        ensure!(references(&job.fence()) == 2);
        drop(job);
        Ok(())
    }

    /// The fences of a context are numbered in their order, and no two contexts are the same.
    #[test]
    fn numbers() -> Result {
        let contexts = (context()?, context()?);
        let mut id = None;

        for number in 1..10 {
            let job = contexts.0.fence(memory()?);
            let (context, seqno) = seqno(&job.fence());

            ensure!(seqno == number && *id.get_or_insert(context) == context);
            job.signal();
        }

        let other = contexts.1.fence(memory()?);

        ensure!(seqno(&other.fence()).1 == 1 && Some(seqno(&other.fence()).0) != id);

        // Numbers of 64 bits are compared as such.
        // SAFETY: The fence is initialised, and its flags are a word.
        let flags = unsafe { (*other.fence().as_raw()).flags };

        ensure!(flags & (1 << bindings::dma_fence_flag_bits_DMA_FENCE_FLAG_SEQNO64_BIT) != 0);
        Ok(())
    }

    /// A fence that is signalled after a later one is noticed, if others know of both.
    #[test]
    fn disorder() -> Result {
        let context = context()?;
        let mut jobs = KVec::new();

        for _ in 0..4 {
            jobs.push(context.fence(memory()?), GFP_KERNEL)?;
        }

        let mut jobs = jobs.into_iter();
        let mut next = || jobs.next().ok_or(EINVAL);
        let (first, second, unseen, fourth) = (next()?, next()?, next()?, next()?);
        let (_fences, last) = ((first.fence(), second.fence()), fourth.fence());

        unseen.signal();
        second.signal();
        ensure!(context.disorder() == 0);
        first.signal();
        ensure!(context.disorder() == 1);
        fourth.signal();
        ensure!(context.disorder() == 1 && last.status() == Some(Ok(())));
        Ok(())
    }

    /// Guards tell lockdep, where it is there: once, whatever is nested, and not in atomic context.
    #[test]
    fn guards() -> Result {
        let can_be_told = cfg!(CONFIG_LOCKDEP);

        for _ in 0..2 {
            // Before, since no memory may be had in between: whoever frees it may wait for a fence.
            let (job, fence) = job()?;
            let outer = Signalling::begin();
            let inner = Signalling::begin();

            ensure!(outer.is_told() == can_be_told && !inner.is_told());
            job.signal();
            ensure!(fence.status() == Some(Ok(())));
            drop(inner);
            ensure!(!Signalling::begin().is_told());
        }

        let lock = Arc::pin_init(new_spinlock!(()), GFP_KERNEL)?;
        let _atomic = lock.lock();

        // With PREEMPT_RT it is not: who has a spinlock may sleep.
        ensure!(Signalling::begin().is_told() == (can_be_told && cfg!(CONFIG_PREEMPT_RT)));
        Ok(())
    }

    /// Memory with a fence is mapped as the memory is, and is given to a device with it.
    #[test]
    fn fenced() -> Result {
        let buf = KVec::from_elem(3_u8, 60, GFP_KERNEL)?;
        let (address, allocation) = (buf.as_ptr(), buf.allocation());
        let (job, fence) = job()?;
        let mut buf = Fenced::new(buf, job);

        ensure!(Buffer::as_ptr(&buf) == address && buf.as_mut_ptr().cast_const() == address);
        ensure!(allocation > 60 && Buffer::len(&buf) == 60 && buf.allocation() == allocation);
        ensure!(core::ptr::eq(&raw const *buf.fence(), &raw const *fence));
        ensure!(fence.status().is_none());
        ensure!(buf.signal() == KVec::from_elem(3_u8, 60, GFP_KERNEL)?);
        ensure!(fence.status() == Some(Ok(())));

        let (job, fence) = super::job()?;
        let buf = Fenced::new(KVec::from_elem(4_u8, 64, GFP_KERNEL)?, job);

        ensure!(buf.signal_with_error(ENODATA).len() == 64);
        ensure!(fence.status() == Some(Err(ENODATA)));
        Ok(())
    }
}
