// SPDX-License-Identifier: GPL-2.0

//! debugfs: what the demonstration uses.

use super::{
    exchange::{
        self,
        Ahead,
        Report, //
    },
    NvmeLt, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    devres::DevresSrcu,
    fmt,
    new_mutex,
    prelude::*,
    str::CString,
    sync::Mutex,
    uaccess::UserSliceReader, //
};

/// Leads to the device until it is unbound.
pub(crate) type Handle = DevresSrcu<NvmeLt>;

/// The files of one device, in `dma_rs_nvme-<device>/`.
#[pin_data]
pub(crate) struct Files {
    /// How many bytes each command is to have; reading gives what came of the commands. What was in
    /// the blocks is lost.
    #[pin]
    exchange: File<Exchange>,

    /// Writing submits reads, and doesn't wait; reading waits for them, and says what came of them.
    /// So they are in flight while nobody waits, for instance when the machine suspends.
    #[pin]
    ahead: File<Reads>,
}

impl Files {
    pub(crate) fn new(device: &CStr, nvme: Handle) -> impl PinInit<Self, Error> {
        let name = CString::try_from_fmt(fmt!("dma_rs_nvme-{device}"));
        let also = nvme.clone();

        pin_init::pin_init_scope(move || {
            let dir = Dir::new(&name?);

            Ok(try_pin_init!(Self {
                exchange <- dir.read_write_callback_file(
                    c"exchange",
                    try_pin_init!(Exchange {
                        nvme,
                        report <- new_mutex!(Report::default()),
                    }? Error),
                    &|exchange: &Exchange, f: &mut fmt::Formatter<'_>| {
                        exchange.report.lock().show(f)
                    },
                    &|exchange: &Exchange, reader: &mut UserSliceReader| exchange.run(reader),
                ),
                ahead <- dir.read_write_callback_file(
                    c"ahead",
                    try_pin_init!(Reads {
                        nvme: also,
                        ahead <- new_mutex!(Ahead::default()),
                    }? Error),
                    &|reads: &Reads, f: &mut fmt::Formatter<'_>| reads.show(f),
                    &|reads: &Reads, _reader: &mut UserSliceReader| reads.submit(),
                ),
            }? Error))
        })
    }
}

#[pin_data]
struct Exchange {
    nvme: Handle,
    #[pin]
    report: Mutex<Report>,
}

impl Exchange {
    fn run(&self, reader: &mut UserSliceReader) -> Result {
        let mut text = [0; 16];
        let text = text.get_mut(..reader.len()).ok_or(EINVAL)?;

        reader.read_slice(text)?;

        let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
        let len = text.trim().parse().map_err(|_| EINVAL)?;
        // One at a time.
        let mut report = self.report.lock();

        *report = self
            .nvme
            .try_access_with(|nvme| exchange::run(nvme, len))??;
        Ok(())
    }
}

#[pin_data]
struct Reads {
    nvme: Handle,
    #[pin]
    ahead: Mutex<Ahead>,
}

impl Reads {
    fn submit(&self) -> Result {
        let mut ahead = self.ahead.lock();

        self.nvme.try_access_with(|nvme| ahead.submit(nvme))?
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ahead = self.ahead.lock();
        let outcome = self.nvme.try_access_with(|nvme| ahead.wait(nvme));

        match outcome.and_then(|outcome| outcome) {
            Ok((done, cancelled)) => writeln!(f, "done {done}\ncancelled {cancelled}"),
            Err(e) => writeln!(f, "error {}", e.to_errno()),
        }
    }
}
