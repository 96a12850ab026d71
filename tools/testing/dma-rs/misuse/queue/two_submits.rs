// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! One buffer goes with two commands.
//!
//! C: Two commands may name one buffer.
//! Shows: As a double unmap, when both complete.

use kernel::{
    dma::{
        queue::{
            Submission,
            Submitter, //
        },
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

type Data<'a> = Streaming<'a, KVec<u8>, ToDevice>;

pub fn write<'a, Q>(io: &mut Submitter<'a, Q, Data<'a>>, data: Data<'a>) -> Result
where
    Q: Submission<Command = u64>,
{
    io.submit(data, 0)?;
    #[cfg(bad)]
    io.submit(data, 8)?; //~[bad] E0382
    io.kick()
}
