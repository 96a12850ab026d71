// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapped buffer gets the address of another one.
//!
//! C: `ring[i].dma = ring[j].dma` compiles, and nothing reminds the driver to undo it.
//! Shows: As frames in the wrong buffer, and as a double unmap.

use kernel::{
    dma::{
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

type Sent<'a> = Streaming<'a, KVec<u8>, ToDevice>;

pub fn exchange<'a>(one: &mut Sent<'a>, other: &mut Sent<'a>) {
    // Buffer and address go together.
    #[cfg(ok)]
    core::mem::swap(one, other);
    #[cfg(bad)]
    core::mem::swap(&mut one.mapping, &mut other.mapping); //~[bad] E0616
}
