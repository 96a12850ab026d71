// SPDX-License-Identifier: GPL-2.0

//! The CPU's barriers, as far as the bus that runs has to know of them.
//!
//! [`sync::barrier`](crate::sync::barrier) tells of each barrier that it executes, whoever asked
//! for it, by a call of the function here that has the barrier's C name.

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

/// Makes the functions, which tell the bus what a barrier has ordered.
macro_rules! executed {
    ($($barrier:ident($($order:ident),*);)*) => {$(
        #[inline]
        pub(crate) fn $barrier() {
            $(
                if WEAK.load(Relaxed) != 0 {
                    tell(Bus::$order);
                }
            )*
        }
    )*};
}

executed! {
    mb(order_loads, order_stores);
    rmb(order_loads);
    wmb(order_stores);
    dma_mb(order_loads, order_stores);
    dma_rmb(order_loads);
    dma_wmb(order_stores);
    // These order what CPUs see of each other. A device needn't care.
    smp_mb();
    smp_rmb();
    smp_wmb();
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
