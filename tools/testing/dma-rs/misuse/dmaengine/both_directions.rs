// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver sends a buffer to a peripheral that is mapped for both directions.
//!
//! C: A mapping and a descriptor have a direction each.
//! Shows: As a cost, in syncs that nobody needs; or with the descriptor of the wrong direction, as
//!   an IOMMU fault.

use kernel::{
    dma::{
        dmaengine::{
            Channel,
            Peripheral,
            Slave, //
        },
        Streaming, //
    },
    prelude::*,
    time::Delta, //
};

#[cfg(bad)]
use kernel::dma::Bidirectional as Direction;
#[cfg(ok)]
use kernel::dma::ToDevice as Direction;

pub fn send(channel: &Channel<'_>, fifo: Peripheral, data: KVec<u8>) -> Result<KVec<u8>> {
    let data = Streaming::<_, Direction>::map(channel.mapper(), data)?;
    let data = Slave::new(data, fifo); //~[bad] E0277

    let _patience = Delta::from_secs(1);

    #[cfg(ok)]
    return Ok(channel.submit(data)?.wait(_patience)?.unmap());
    #[cfg(bad)]
    return Err(EINVAL);
}
