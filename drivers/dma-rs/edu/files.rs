// SPDX-License-Identifier: GPL-2.0

//! debugfs: the device's memory as a file, a way to reset it, and what was moved.

use super::{
    edu::{
        Handle,
        Stats,
        TIMEOUT, //
    },
    regs::MEMORY_SIZE, //
};
use kernel::{
    debugfs::{
        BinaryReader,
        BinaryWriter,
        Dir,
        File, //
    },
    fmt,
    fs::file,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
    uaccess::{
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// The files of one device, in `dma_rs_edu-<device>/`.
#[pin_data]
pub(crate) struct Files {
    /// Each read and write is a transfer.
    #[pin]
    memory: File<Memory>,
    /// What is written is copied through the device; reading gives the copy.
    #[pin]
    copy: File<Copy>,
    /// Whatever is written stops the device and starts it again.
    #[pin]
    reset: File<Reset>,
    /// Whatever is written waits for the job that was started last, and fails if that has failed.
    #[pin]
    sync: File<Wait>,
    #[pin]
    stats: File<Arc<Stats>>,
}

impl Files {
    pub(crate) fn new(device: &CStr, edu: Handle, stats: Arc<Stats>) -> impl PinInit<Self, Error> {
        let name = CString::try_from_fmt(fmt!("dma_rs_edu-{device}"));

        pin_init::pin_init_scope(move || {
            let dir = Dir::new(&name?);

            Ok(try_pin_init!(Self {
                memory <- dir.read_write_binary_file(
                    c"memory",
                    Ok::<_, Error>(Memory(edu.clone())),
                ),
                sync <- dir.write_binary_file(c"sync", Ok::<_, Error>(Wait(edu.clone()))),
                reset <- dir.write_binary_file(c"reset", Ok::<_, Error>(Reset(edu.clone()))),
                copy <- dir.read_write_binary_file(c"copy", try_pin_init!(Copy {
                    edu,
                    result <- new_mutex!(KVec::new()),
                }? Error)),
                stats <- dir.read_callback_file(
                    c"stats",
                    Ok::<_, Error>(stats),
                    &|stats: &Arc<Stats>, f: &mut fmt::Formatter<'_>| stats.show(f),
                ),
            }? Error))
        })
    }
}

struct Memory(Handle);

/// Returns how much of `len` bytes at `offset` is there.
fn available(len: usize, offset: file::Offset) -> Result<(usize, usize)> {
    let offset = usize::try_from(offset)?;

    Ok((offset, len.min(MEMORY_SIZE.saturating_sub(offset))))
}

impl BinaryWriter for Memory {
    fn write_to_slice(
        &self,
        writer: &mut UserSliceWriter,
        offset: &mut file::Offset,
    ) -> Result<usize> {
        let (start, len) = available(writer.len(), *offset)?;
        if len == 0 {
            return Ok(0);
        }

        let buf = KVec::zeroed(len, GFP_KERNEL)?;
        let buf = self.0.try_access_with(|edu| edu.read(start, buf))??;

        writer.write_slice(&buf)?;
        // CAST: Not more than the device's memory.
        *offset += len as file::Offset;
        Ok(len)
    }
}

impl BinaryReader for Memory {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        offset: &mut file::Offset,
    ) -> Result<usize> {
        let (start, len) = available(reader.len(), *offset)?;
        if len == 0 {
            return Err(ENOSPC);
        }

        let mut buf = KVec::zeroed(len, GFP_KERNEL)?;

        reader.read_slice(&mut buf)?;
        self.0.try_access_with(|edu| edu.write(start, buf))??;
        // CAST: Not more than the device's memory.
        *offset += len as file::Offset;
        Ok(len)
    }
}

/// The longest copy, in bytes: it takes about three seconds.
const MAX_COPY: usize = 16 * MEMORY_SIZE;

#[pin_data]
struct Copy {
    edu: Handle,
    #[pin]
    result: Mutex<KVec<u8>>,
}

impl BinaryWriter for Copy {
    fn write_to_slice(
        &self,
        writer: &mut UserSliceWriter,
        offset: &mut file::Offset,
    ) -> Result<usize> {
        writer.write_slice_file(&self.result.lock(), offset)
    }
}

impl BinaryReader for Copy {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();

        // What is written is copied at once, so it must come at once; and a transfer takes its
        // time.
        if *offset != 0 {
            return Err(ESPIPE);
        }
        if len > MAX_COPY {
            return Err(EFBIG);
        }

        let mut source = KVec::zeroed(len, GFP_KERNEL)?;
        let destination = KVec::zeroed(len, GFP_KERNEL)?;

        reader.read_slice(&mut source)?;
        let (_, copy) = self
            .edu
            .try_access_with(|edu| edu.copy(source, destination))??;

        *self.result.lock() = copy;
        // CAST: The length of a buffer fits.
        *offset += len as file::Offset;
        Ok(len)
    }
}

struct Reset(Handle);

impl BinaryReader for Reset {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();

        self.0.try_access_with(|edu| edu.reset())??;
        reader.skip(len)?;
        Ok(len)
    }
}

struct Wait(Handle);

impl BinaryReader for Wait {
    fn read_from_slice(
        &self,
        reader: &mut UserSliceReader,
        _offset: &mut file::Offset,
    ) -> Result<usize> {
        let len = reader.len();

        // Without the device: it may be unbound meanwhile.
        if let Some(fence) = self.0.try_access_with(|edu| edu.latest())? {
            fence.wait_interruptible(TIMEOUT)?.ok_or(ETIMEDOUT)??;
        }

        reader.skip(len)?;
        Ok(len)
    }
}
