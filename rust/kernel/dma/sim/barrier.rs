// SPDX-License-Identifier: GPL-2.0

//! The CPU's barriers, as far as the bus that runs has to know of them.

use super::{
    bus::Bus,
    Sim, //
};
use crate::{
    bindings,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        rcu, //
    }, //
};

/// The address of the bus that runs, if its memory is weakly ordered. Tests run one at a time.
///
/// Who reads it inside an RCU read-side critical section may use the bus until its end.
static WEAK: Atomic<usize> = Atomic::new(0);

/// The CPU has executed a read barrier.
#[inline]
pub(in crate::dma) fn read() {
    if WEAK.load(Relaxed) != 0 {
        tell(Bus::order_loads);
    }
}

/// The CPU has executed a write barrier.
#[inline]
pub(in crate::dma) fn write() {
    if WEAK.load(Relaxed) != 0 {
        tell(Bus::order_stores);
    }
}

#[cold]
fn tell(order: fn(&mut Bus)) {
    let _guard = rcu::read_lock();
    let sim = core::ptr::with_exposed_provenance::<Sim>(WEAK.load(Acquire));

    // SAFETY: It is null, or a bus that is there until `disconnect()` has waited for us.
    if let Some(sim) = unsafe { sim.as_ref() } {
        order(&mut sim.bus.lock());
    }
}

/// Tells the bus of barriers.
///
/// # Safety
///
/// The bus must be there until [`disconnect()`].
pub(super) unsafe fn connect(sim: &Sim) {
    WEAK.store((&raw const *sim).expose_provenance(), Release);
}

/// Tells nobody any more. Context: may sleep.
pub(super) fn disconnect() {
    WEAK.store(0, Release);

    // SAFETY: No requirements, where one may sleep.
    unsafe { bindings::synchronize_rcu() };
}
