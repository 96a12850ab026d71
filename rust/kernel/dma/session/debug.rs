// SPDX-License-Identifier: GPL-2.0

//! Files in debugfs that show the state of devices: `dma_session/<bus>-<device>`, and `total`.
//!
//! Only with `CONFIG_RUST_DMA_DEBUG`.

use super::{
    super::mapping::leaks,
    control::Control,
    quarantine,
    state::State, //
};
use crate::{
    debugfs,
    device::{
        Bound,
        Device, //
    },
    fmt,
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        SetOnce, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};
use core::ptr::NonNull;

/// What the file of a device shows.
pub(super) struct View(NonNull<Control>);

// SAFETY: Any thread may use a `Control`.
unsafe impl Send for View {}

// SAFETY: Any thread may use a `Control`.
unsafe impl Sync for View {}

impl View {
    /// Makes the file.
    ///
    /// # Safety
    ///
    /// `control` must outlive the file, and be initialised except for that field.
    pub(super) unsafe fn init<'a>(
        control: NonNull<Control>,
        dir: &'a debugfs::Dir,
        name: &'a CStr,
    ) -> impl PinInit<debugfs::File<Self>, Error> + 'a {
        dir.read_callback_file(
            name,
            Ok::<_, Error>(Self(control)),
            &|view: &Self, f: &mut fmt::Formatter<'_>| {
                // SAFETY: By the safety requirements of `init()`.
                show(unsafe { view.0.as_ref() }, f)
            },
        )
    }
}

fn show(control: &Control, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = match control.state() {
        State::Closed => "closed",
        State::Running => "running",
        State::Stopped => "stopped",
        State::Gone => "gone",
        State::Unproven => "unproven",
        State::Ended => "ended",
        State::Lost => "lost",
    };
    let (starts, stops) = control.turns();
    let (quarantined, reclaimed) = control.counts();

    writeln!(f, "state {name}")?;
    writeln!(f, "starts {starts}")?;

    for (name, count) in ["stopped", "gone", "unproven"].into_iter().zip(stops) {
        writeln!(f, "{name} {count}")?;
    }

    writeln!(f, "quarantined {quarantined}")?;
    writeln!(f, "reclaimed {reclaimed}")
}

fn show_total(_: &(), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    quarantine::show(f)?;
    leaks::show(f)
}

/// Returns `<bus>-<device>`, since names of devices are unique on their bus only.
pub(super) fn unique_name(dev: &Device<Bound>) -> Result<CString> {
    // SAFETY: `dev` is a valid `struct device`; its bus, if any, has a name and outlives it.
    let bus = unsafe {
        let bus = (*dev.as_raw()).bus;

        if bus.is_null() {
            c"none"
        } else {
            CStr::from_char_ptr((*bus).name)
        }
    };

    CString::try_from_fmt(fmt!("{bus}-{}", dev.name()))
}

/// The folder, which is never removed.
struct Root {
    dir: debugfs::Dir,
    _total: Pin<KBox<debugfs::File<()>>>,
}

/// Returns the folder, and makes it if it isn't there.
///
/// Context: may sleep.
pub(super) fn root() -> debugfs::Dir {
    static ROOT: SetOnce<Root> = SetOnce::new();
    static BUSY: Atomic<i32> = Atomic::new(0);

    if let Some(root) = ROOT.as_ref() {
        return root.dir.clone();
    }

    // One thread makes it: a second one would find the name taken.
    while BUSY.cmpxchg(0, 1, Full).is_err() {
        fsleep(Delta::from_millis(1));
    }

    if let Some(root) = ROOT.as_ref() {
        BUSY.store(0, Release);
        return root.dir.clone();
    }

    let dir = debugfs::Dir::new(c"dma_session");
    let total = KBox::pin_init(
        dir.read_callback_file(c"total", Ok::<_, Error>(()), &show_total),
        GFP_KERNEL,
    );

    if let Ok(total) = total {
        ROOT.populate(Root {
            dir: dir.clone(),
            _total: total,
        });
    }

    BUSY.store(0, Release);
    dir
}
