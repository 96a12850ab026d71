// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! User space gets memory from which a device may take addresses, and nobody has thought about it.
//!
//! C: `dma_mmap_coherent()` takes any memory, a ring of descriptors, too.
//! Shows: As corruption of any memory, when a process wants it.

use kernel::dma::{
    Shared,
    UserShared, //
};

pub fn share(samples: Shared<'_, [u16]>) -> Option<UserShared<'_, [u16]>> {
    #[cfg(ok)]
    // SAFETY:
    // 1. The device writes samples, and reads nothing.
    // 2. A register says how many there are.
    // 3. Who may open the file may have them.
    let shared = unsafe { samples.allow_mmap() };
    #[cfg(bad)]
    let shared = samples.allow_mmap(); //~[bad] E0133

    shared.ok()
}
