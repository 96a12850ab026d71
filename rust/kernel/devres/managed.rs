// SPDX-License-Identifier: GPL-2.0

//! Resources that borrow their device.
//!
//! [`Devres`](super::Devres) and [`register`](super::register()) take values that borrow nothing
//! (`'static`). A value may also borrow what stays until the device is unbound. A bus callback is
//! generic over the lifetime `'a` of its [`Core<'a>`]. So a value with `T: 'a` can borrow only the
//! device ([`Device::bound`]), statics, and what the device lends. Such a value can belong to the
//! device, too. The driver has nothing to keep, hence nothing to forget.
//!
//! | | who uses the value | what it may be | when it is dropped |
//! |---|---|---|---|
//! | [`register_early`] | nobody else: a guard | anything | early |
//! | [`DevresSrcu`] | holders of a handle, from anywhere, while it is there | anything | early |
//! | [`register_lent`] | all else of the driver, as `&'a T` | [`Lendable`] | in its turn |
//!
//! # Early
//!
//! The driver core releases resources (`devres_release_all()`) when the bus has taken away the
//! device's DMA ownership (`dma_cleanup()`) and its power, and when the driver's private data is
//! gone. That is too late to stop a device, to free an interrupt whose handler leads to its
//! buffers, or to unmap those. It is also too late for a `&'a Device<Bound>`, which
//! [`Devres::access`](super::Devres::access) takes as a proof that nothing was released yet: a
//! value that is dropped between others could use one that is gone.
//!
//! So an *early* resource is released before all other resources of the device, and before the
//! driver's private data. The bus calls [`release_early`] when the driver's `unbind()` is done. The
//! driver core calls it in any case before it releases the first resource. A lent resource is
//! released in its turn, like those of `register()`, on which it is built: when nothing is left
//! that could use it.
//!
//! # Why a handle isn't a `DevresLt`
//!
//! [`DevresLt`](super::DevresLt) is the handle for values that borrow, and [`DevresSrcu`] is used
//! like it. It isn't made of one, since
//!
//! - a [`DevresLt`](super::DevresLt) is accessed under RCU, where one must not sleep. Files that
//!   wait for a transfer, or that map memory, do sleep. Sleepable RCU costs more: see the commit
//!   that added this for figures;
//! - it is revoked when the driver core releases resources, which is late, as said;
//! - [`DevresLt::new`](super::DevresLt::new) is unsafe, since a `&Device<Bound>` may live for
//!   less than the binding. [`Core<'a>`] tells how long that is.
//!
//! C header: [`include/linux/device/devres.h`](srctree/include/linux/device/devres.h)

use super::{
    register_foreign,
    Kind, //
};
use crate::{
    alloc::Flags,
    device::{
        Bound,
        Core,
        Device, //
    },
    new_srcu,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        Srcu, //
    },
    types::{
        ForLt,
        Opaque, //
    }, //
};
use core::ptr::NonNull;
use pin_init::Wrapper;

/// Marks what is released early.
static EARLY: Kind = Kind::new();

/// Drops all early resources of a device: the one that was added last first.
///
/// Called by the buses when `unbind()` is done, and by the driver core before it releases the first
/// resource. Context: may sleep.
pub(crate) fn release_early(dev: &Device<Bound>) {
    while EARLY.release(dev) {}
}

impl<'a> Device<Core<'a>> {
    /// Returns the device for as long as it stays bound.
    ///
    /// The reference that a callback gets is for that call only. Where the compiler wants it to
    /// live longer, keep this one instead.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{device::{Bound, Core, Device}, devres, prelude::*};
    /// struct Goodbye<'a>(&'a Device<Bound>);
    ///
    /// impl Drop for Goodbye<'_> {
    ///     fn drop(&mut self) {
    ///         dev_info!(self.0, "still bound, but not for long\n");
    ///     }
    /// }
    ///
    /// fn probe<'a>(dev: &Device<Core<'a>>) -> Result {
    ///     devres::register_early(dev, Ok::<_, Error>(Goodbye(dev.bound())), GFP_KERNEL)
    /// }
    /// ```
    #[inline]
    pub fn bound(&self) -> &'a Device<Bound> {
        // SAFETY: A bus callback is running, so the device is bound and valid. Being generic over
        // `'a`, the callback can store the reference only in its private data and in resources of
        // this module: the former and the early ones are dropped before the device is unbound, with
        // no other resource released before; those that are lent don't use it, by the contract of
        // `Lendable`.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

/// Encapsulates `data` in a [`KBox`] and drops it when the device is unbound, or if the probe
/// fails: before all other resources of the device.
///
/// As [`register`](super::register()), for values that borrow the device. Context: may sleep.
///
/// # Errors
///
/// [`ENOMEM`], or what the initialiser says.
pub fn register_early<'a, T: Send + 'a>(
    dev: &Device<Core<'a>>,
    data: impl PinInit<T, Error>,
    flags: Flags,
) -> Result {
    let data = KBox::pin_init(data, flags)?;

    // SAFETY: The value borrows nothing that ends before the device is unbound, as said in
    // `Device::bound()`.
    unsafe { EARLY.add(dev, data) }
}

/// Encapsulates `data` in a [`KBox`], drops it when the device is unbound, and lends it until then.
///
/// As [`register`](super::register()), for what several objects of a driver share: a register
/// window, the interrupt vectors. Which types may be lent, [`Lendable`] says. Context: may sleep.
///
/// # Errors
///
/// [`ENOMEM`], or what the initialiser says.
///
/// # Examples
///
/// ```
/// # #![cfg(CONFIG_PCI)]
/// # use kernel::{device::{Core, Device}, devres, pci, prelude::*};
/// struct Engine<'a>(&'a pci::Bar<'a>);
/// struct Handler<'a>(&'a pci::Bar<'a>);
///
/// fn probe<'a>(pdev: &pci::Device<Core<'a>>) -> Result<(Engine<'a>, Handler<'a>)> {
///     let bar = pdev.bound().iomap_region(0, c"example")?;
///     let bar = devres::register_lent(pdev.as_ref(), Ok::<_, Error>(bar), GFP_KERNEL)?;
///
///     Ok((Engine(bar), Handler(bar)))
/// }
/// ```
pub fn register_lent<'a, T: Lendable + 'a>(
    dev: &Device<Core<'a>>,
    data: impl PinInit<T, Error>,
    flags: Flags,
) -> Result<&'a T> {
    let data = KBox::pin_init(data, flags)?;
    let lent = NonNull::from(&*data);

    // SAFETY: The value borrows nothing that ends before the device is unbound, as said in
    // `Device::bound()`.
    unsafe { register_foreign(dev, data) }?;

    // SAFETY: The value stays where it is until it is dropped. That happens after the driver's
    // private data, and all early resources, are gone; and by the contract of `Lendable`, other
    // lent values don't use it when they are dropped.
    Ok(unsafe { lent.as_ref() })
}

/// A type whose values a device can lend: see [`register_lent`].
///
/// # Safety
///
/// Dropping a value must use nothing that it borrows but the device, whose other resources may have
/// been released. A type that is generic in what it drops can't promise that, unless the type
/// parameter is `'static`.
#[diagnostic::on_unimplemented(
    message = "a device can't lend a `{Self}`",
    note = "what it borrows may be gone when it is dropped; if that is the device only, implement \
            `Lendable` for it",
    note = "what only has to be dropped in time goes to `devres::register_early()`"
)]
pub unsafe trait Lendable: Send + Sync {}

// SAFETY: It borrows nothing.
unsafe impl<T: Send + Sync + 'static> Lendable for KBox<T> {}

// SAFETY: It borrows nothing.
unsafe impl<T: Send + Sync + 'static> Lendable for Arc<T> {}

/// What a [`DevresSrcu`] leads to.
///
/// # Invariants
///
/// `data` is initialised while `open` is true, and until all readers of `users` that saw that are
/// gone. `open` becomes false once.
#[pin_data]
struct Inner<T> {
    open: Atomic<bool>,
    #[pin]
    users: Srcu,
    #[pin]
    data: Opaque<T>,
}

// SAFETY: The value may be used from any thread, and is dropped in any.
unsafe impl<T: Send + Sync> Send for Inner<T> {}

// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Inner<T> {}

// Lockdep wants one name for each class. In a generic function, each instance would bring its own.
#[inline(never)]
fn new_users() -> impl PinInit<Srcu, Error> {
    new_srcu!("devres::DevresSrcu::users")
}

/// Belongs to the device, and ends the use of the value. There is one for each value.
struct Revoker<T>(Arc<Inner<T>>);

impl<T> Drop for Revoker<T> {
    fn drop(&mut self) {
        let inner = &self.0;

        inner.open.store(false, Release);
        inner.users.synchronize();

        // SAFETY: By the type invariants the value is initialised; readers that saw `open` are
        // gone, and later ones see that it is not. It is dropped once, as there is one `Revoker`.
        unsafe { core::ptr::drop_in_place(inner.data.get()) };
    }
}

/// A handle to a value that belongs to a device, and is dropped early when that is unbound.
///
/// It is used like [`DevresLt`](super::DevresLt), but its users may sleep; why it isn't one, the
/// module documentation says. It needs no lifetime, so it may be put into files, work items
/// and statics, and may be cloned. The value stays until unbind, whether there is a handle or not.
/// Dropping the last handle may sleep.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Bound, Core, Device}, devres::DevresSrcu, prelude::*, types::ForLt};
/// struct Registers<'a> {
///     dev: &'a Device<Bound>,
/// }
///
/// type Handle = DevresSrcu<ForLt!(Registers<'_>)>;
///
/// fn probe<'a>(dev: &Device<Core<'a>>) -> Result<Handle> {
///     Handle::new(dev, Ok::<_, Error>(Registers { dev: dev.bound() }))
/// }
///
/// /// Called from anywhere, at any time.
/// fn poke(handle: &Handle) -> Result {
///     handle.try_access_with(|registers| dev_info!(registers.dev, "still bound\n"))
/// }
/// ```
pub struct DevresSrcu<F: ForLt>(Arc<Inner<F::Of<'static>>>);

impl<F: ForLt> Clone for DevresSrcu<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: ForLt> DevresSrcu<F>
where
    for<'x> F::Of<'x>: Send + Sync,
{
    /// Gives `data` to the device, and returns a handle to it.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], or what the initialiser says.
    pub fn new<'a>(dev: &Device<Core<'a>>, data: impl PinInit<F::Of<'a>, Error>) -> Result<Self> {
        // SAFETY: Lifetimes don't affect layout. The value is used with lifetimes of callers of
        // `try_access_with()` only, and dropped before the device is unbound.
        let data = unsafe { pin_init::cast_pin_init::<_, F::Of<'static>, _>(data) };

        let inner = Arc::pin_init(
            try_pin_init!(Inner {
                users <- new_users(),
                data <- Opaque::pin_init(data),
                // INVARIANT: `data` was just initialised.
                open: Atomic::new(true),
            }? Error),
            GFP_KERNEL,
        )?;
        let revoker = Revoker(inner.clone());

        register_early(dev, Ok::<_, Error>(revoker), GFP_KERNEL)?;
        Ok(Self(inner))
    }

    /// Calls `f` with the value, while it is there.
    ///
    /// Unbinding the device waits until `f` has returned, so `f` may sleep but must come to an end.
    /// Context: may sleep if `f` does.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if the device is being unbound, or was.
    pub fn try_access_with<R>(&self, f: impl for<'x> FnOnce(&F::Of<'x>) -> R) -> Result<R> {
        let _user = self.0.users.read_lock();

        if !self.0.open.load(Acquire) {
            return Err(ENODEV);
        }

        // SAFETY: By the type invariants of `Inner`: we are a reader and saw `open`. `f` works for
        // any lifetimes, hence can't keep the reference, not even in the value itself.
        Ok(f(unsafe { &*self.0.data.get().cast::<F::Of<'_>>() }))
    }
}
