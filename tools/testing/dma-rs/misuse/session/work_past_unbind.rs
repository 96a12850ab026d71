// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Work that is done later, and waits for nobody, maps for the device.
//!
//! C: `schedule_work()` compiles, and `cancel_work_sync()` in the remove function is forgotten.
//! Shows: When a device is unbound at that moment; KASAN sees it.

use kernel::{
    dma::Mapper,
    prelude::*,
    workqueue, //
};

#[cfg(ok)]
type Later<'a> = &'static str;
#[cfg(bad)]
type Later<'a> = Mapper<'a>;

fn use_it<T>(later: T) {
    let _ = later;
}

pub fn defer<'a>(dma: Mapper<'a>, later: Later<'a>) -> Result {
    use_it(dma);
    workqueue::system().try_spawn(GFP_KERNEL, move || use_it(later))?; //~[bad] E0521
    Ok(())
}
