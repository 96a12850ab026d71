// SPDX-License-Identifier: GPL-2.0

//! Tests of a channel's memory that user space maps.

use super::{
    super::{
        dmaengine::{
            Capabilities,
            Channel, //
        },
        SharedBox,
        UserShared, //
    },
    ensure,
    fixture::{
        self,
        engine::{
            Engine,
            Features, //
        }, //
    },
    mmap::{
        allow,
        map,
        Request, //
    }, //
};
use crate::{
    page::PAGE_SIZE,
    prelude::*, //
};

#[kunit_tests(rust_dmaengine_mmap)]
mod cases {
    use super::*;

    /// User space loses the memory when the channel's user is unbound, even if that has forgotten
    /// the channel: the engine may be gone next.
    #[test]
    fn forgotten() -> Result {
        let engine = Engine::new(Features::ALL)?;
        let mut forgotten = None;

        fixture::with_platform_device(|pdev| {
            let channel = Channel::request_by_mask(pdev.as_ref(), Capabilities::MEMCPY)?;
            let channel = KBox::into_raw(KBox::new(channel, GFP_KERNEL)?);
            // SAFETY: It was just made, and is freed below, when nobody borrows it any more.
            let mapper = unsafe { &*channel }.mapper();
            let memory = SharedBox::<[u8]>::slice(mapper, PAGE_SIZE, GFP_KERNEL)?;
            let memory = allow(memory.submit())?;
            let area = map(Request::new(PAGE_SIZE), &|vma| memory.mmap(vma))?;

            area.poke(7, 0x77)?;
            ensure!(area.peek(7)? == 0x77);

            let memory = KBox::into_raw(KBox::new(memory, GFP_KERNEL)?);

            forgotten = Some((
                channel.cast::<Channel<'static>>(),
                memory.cast::<UserShared<'static, [u8]>>(),
                area,
            ));
            Ok(())
        })?;

        let (channel, memory, area) = forgotten.ok_or(EINVAL)?;
        let is_dead = area.is_dead();

        // SAFETY: It was made above, and nobody else frees it. The engine is there.
        drop(unsafe { KBox::from_raw(memory) });
        // SAFETY: As above. What borrowed it is gone.
        drop(unsafe { KBox::from_raw(channel) });
        ensure!(is_dead);
        ensure!(engine.released() == (1, 0));
        Ok(())
    }
}
