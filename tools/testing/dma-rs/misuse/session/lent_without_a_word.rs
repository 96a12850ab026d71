// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A device lends a value whose destructor may use what is gone by then.
//!
//! C: The order of devres callbacks is that of the calls, backwards.
//! Shows: At unbind; KASAN sees it.
//! Says: a device can't lend a `Engine<

use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    prelude::*, //
};

pub struct Engine<'a>(pub &'a Device<Bound>);

pub fn probe<'a>(dev: &Device<Core<'a>>) -> Result {
    let engine = Engine(dev.bound());

    #[cfg(ok)]
    devres::register_early(dev, Ok::<_, Error>(engine), GFP_KERNEL)?;
    #[cfg(bad)]
    devres::register_lent(dev, Ok::<_, Error>(engine), GFP_KERNEL)?; //~[bad] E0277
    Ok(())
}
