// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is used after it was submitted with a command.
//!
//! C: The pointer is still there.
//! Shows: As data that change under way.

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

pub fn write<'a, Q>(io: &mut Submitter<'a, Q, Data<'a>>, data: Data<'a>) -> Result<usize>
where
    Q: Submission<Command = u64>,
{
    #[cfg(ok)]
    let len = data.len();

    io.submit(data, 0)?;
    io.kick()?;

    #[cfg(bad)]
    let len = data.len(); //~[bad] E0382

    Ok(len)
}
