// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The proof that a device runs goes to another thread, where it proves nothing.
//!
//! C: There is none.
//! Shows: When a stop comes at that moment.

use kernel::dma::{
    DmaAddr,
    Running, //
};

fn run_on_another_cpu<T: Send>(work: T) {
    drop(work);
}

pub fn later(address: DmaAddr<'_>, running: Running<'_>) {
    let _ = (address, &running);
    #[cfg(ok)]
    run_on_another_cpu(address);
    #[cfg(bad)]
    run_on_another_cpu(running); //~[bad] E0277
}
