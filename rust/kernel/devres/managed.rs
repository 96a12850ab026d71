// SPDX-License-Identifier: GPL-2.0

//! Values that live until their device is unbound.
//!
//! A bus callback is generic over the lifetime `'a` of its [`Core<'a>`]. Safe code therefore can't
//! name anything that ends later than `'a` begins but before the device is unbound: a value with
//! `T: 'a` borrows nothing but the device ([`Device::bound`]), statics, and what the device lends.
//! Such a value can be given to the device, which drops it when it is unbound. There is nothing for
//! the driver to keep, hence nothing to forget.
//!
//! | | who uses the value | what it may be | when it is dropped |
//! |---|---|---|---|
//! | [`Device::give`] | nobody else: a guard | anything | first |
//! | [`Device::share`] | [`Shared::with`], from anywhere, while it is there | anything | first |
//! | [`Device::manage`] | all else of the driver, as `&'a T` | [`Managed`] | last |
//!
//! What comes first is dropped by [`release_all`], *before* all other resources of the device: the
//! bus calls it when the driver's `unbind()` is done, while the device still owns its DMA and its
//! power, and the driver core calls it in any case before it releases the first resource. Thus a
//! `&'a Device<Bound>` in such a value means what it says for as long as code can use it. Next goes
//! the driver's private data. What comes last is lent for all of `'a`, so it goes when nothing is
//! left that could use it.
//!
//! C header: [`include/linux/device/devres.h`](srctree/include/linux/device/devres.h)

use crate::{
    bindings,
    device::{
        Bound,
        Core,
        Device, //
    },
    new_mutex,
    new_srcu,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex,
        Srcu, //
    },
    types::{
        ForLt,
        ForeignOwnable,
        Opaque, //
    }, //
};
use core::ptr::NonNull;
use pin_init::Wrapper;

/// What the resource list holds of a value.
struct Given {
    data: *mut c_void,
    drop: unsafe fn(*mut c_void),
}

/// Says when a value is dropped.
type ReleaseFn = unsafe extern "C" fn(*mut bindings::device, *mut c_void);

impl Given {
    /// Drops the value.
    ///
    /// # Safety
    ///
    /// `res` must be a resource made by [`add`](Self::add).
    #[inline(never)]
    unsafe extern "C" fn release_last(_dev: *mut bindings::device, res: *mut c_void) {
        // SAFETY: By the safety requirements.
        unsafe { Self::release(res) };
    }

    /// Drops a value that goes before all other resources: the address of this function marks it.
    /// Not inlined, nor are its users, so that no other crate has a copy of it.
    ///
    /// # Safety
    ///
    /// As [`release_last`](Self::release_last).
    #[inline(never)]
    unsafe extern "C" fn release_first(_dev: *mut bindings::device, res: *mut c_void) {
        // The compiler may give functions of equal bodies one address. No other function reads
        // this static, so none can be taken for this one.
        static MARK: u8 = 0;

        // SAFETY: `MARK` is a valid, initialised static.
        unsafe { core::ptr::read_volatile(&raw const MARK) };

        // SAFETY: By the safety requirements.
        unsafe { Self::release(res) };
    }

    /// # Safety
    ///
    /// As [`release_last`](Self::release_last).
    unsafe fn release(res: *mut c_void) {
        // SAFETY: By the safety requirements.
        let this = unsafe { &*res.cast::<Self>() };

        // SAFETY: `drop` fits `data`, and a resource is released once.
        unsafe { (this.drop)(this.data) };
    }

    /// # Safety
    ///
    /// `drop` must be safe to call once with `data`, at any time until the device is unbound.
    #[inline(never)]
    unsafe fn add(
        dev: &Device<Bound>,
        release: ReleaseFn,
        data: *mut c_void,
        drop: unsafe fn(*mut c_void),
    ) -> Result {
        // SAFETY: No requirements; the name is a valid C string.
        let res = unsafe {
            bindings::__devres_alloc_node(
                Some(release),
                size_of::<Self>(),
                GFP_KERNEL.as_raw(),
                bindings::NUMA_NO_NODE,
                c"devres::Given".as_char_ptr(),
            )
        };
        let res = NonNull::new(res.cast::<Self>()).ok_or(ENOMEM)?;

        // The memory of a resource is aligned as `kmalloc()` aligns.
        const_assert!(align_of::<Self>() <= bindings::ARCH_KMALLOC_MINALIGN);

        // SAFETY: `res` is fresh memory of this size and alignment.
        unsafe { res.write(Self { data, drop }) };

        // SAFETY: `dev` is bound, `res` comes from `__devres_alloc_node()`.
        unsafe { bindings::devres_add(dev.as_raw(), res.as_ptr().cast()) };

        Ok(())
    }
}

/// Drops all values that a device was given, but those that it lends: the one that was added last
/// first.
///
/// Called by the buses when `unbind()` is done, and by the driver core before it releases the first
/// resource. Context: may sleep.
#[inline(never)]
pub(crate) fn release_all(dev: &Device<Bound>) {
    loop {
        // SAFETY: `dev` is a valid and bound `struct device`.
        let ret = unsafe {
            bindings::devres_release(
                dev.as_raw(),
                Some(Given::release_first),
                None,
                core::ptr::null_mut(),
            )
        };

        // None is left.
        if ret != 0 {
            return;
        }
    }
}

impl<'a> Device<Core<'a>> {
    /// Returns the device for as long as it stays bound.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{device::{Bound, Core, Device}, prelude::*};
    /// struct Goodbye<'a>(&'a Device<Bound>);
    ///
    /// impl Drop for Goodbye<'_> {
    ///     fn drop(&mut self) {
    ///         dev_info!(self.0, "still bound, but not for long\n");
    ///     }
    /// }
    ///
    /// fn probe<'a>(dev: &Device<Core<'a>>) -> Result {
    ///     dev.give(Ok::<_, Error>(Goodbye(dev.bound())))
    /// }
    /// ```
    #[inline]
    pub fn bound(&self) -> &'a Device<Bound> {
        // SAFETY: A bus callback is running, so the device is bound and valid. Being generic over
        // `'a`, the callback can store the reference only in its private data and in managed
        // values, both of which are dropped before the device is unbound, with no other resource
        // released before.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// Gives a value to the device, which drops it at unbind, or if the probe fails.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], or what the initialiser says.
    pub fn give<T: Send + 'a>(&self, data: impl PinInit<T, Error>) -> Result {
        self.add(Given::release_first, data).map(drop)
    }

    /// Gives a value to the device, which drops it after all else of the driver, and lends it until
    /// then.
    ///
    /// For what several objects share: a register window, the interrupt vectors. Which types may be
    /// lent, [`Managed`] says. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], or what the initialiser says.
    ///
    /// # Examples
    ///
    /// ```
    /// # #![cfg(CONFIG_PCI)]
    /// # use kernel::{device::{Core, Device}, pci, prelude::*};
    /// struct Engine<'a>(&'a pci::Bar<'a>);
    /// struct Handler<'a>(&'a pci::Bar<'a>);
    ///
    /// fn probe<'a>(pdev: &pci::Device<Core<'a>>) -> Result<(Engine<'a>, Handler<'a>)> {
    ///     let dev: &Device<Core<'a>> = pdev.as_ref();
    ///     let bar = pdev.bound().iomap_region(0, c"example")?;
    ///     let bar = dev.manage(Ok::<_, Error>(bar))?;
    ///
    ///     Ok((Engine(bar), Handler(bar)))
    /// }
    /// ```
    pub fn manage<T: Managed + 'a>(&self, data: impl PinInit<T, Error>) -> Result<&'a T> {
        let data = self.add(Given::release_last, data)?;

        // SAFETY: The value stays where it is until it is dropped. That happens after the driver's
        // private data, and all that was given to the device otherwise, are gone; and by the
        // contract of `Managed` other lent values don't use it when they are dropped.
        Ok(unsafe { data.as_ref() })
    }

    fn add<T: Send + 'a>(
        &self,
        release: ReleaseFn,
        data: impl PinInit<T, Error>,
    ) -> Result<NonNull<T>> {
        /// # Safety
        ///
        /// `data` must come from `into_foreign()` of a `Pin<KBox<T>>`, and not be used afterwards.
        unsafe fn drop_box<T>(data: *mut c_void) {
            // SAFETY: By the safety requirements.
            drop(unsafe { Pin::<KBox<T>>::from_foreign(data) });
        }

        let data = KBox::pin_init(data, GFP_KERNEL)?.into_foreign();

        // SAFETY: `data` is valid until it is dropped, and borrows nothing that ends before the
        // device is unbound. It may be dropped by any thread.
        unsafe { Given::add(self, release, data, drop_box::<T>) }.inspect_err(|_| {
            // SAFETY: It was not added, hence is still ours.
            unsafe { drop_box::<T>(data) }
        })?;

        NonNull::new(data.cast()).ok_or(ENOMEM)
    }

    /// Gives a value to the device, and returns a handle to it that may outlive the binding.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], or what the initialiser says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{device::{Bound, Core, Device}, devres::Shared, prelude::*, types::ForLt};
    /// struct Registers<'a> {
    ///     dev: &'a Device<Bound>,
    /// }
    ///
    /// type Handle = Shared<ForLt!(Registers<'_>)>;
    ///
    /// fn probe<'a>(dev: &Device<Core<'a>>) -> Result<Handle> {
    ///     dev.share(Ok::<_, Error>(Registers { dev: dev.bound() }))
    /// }
    ///
    /// /// Called from anywhere, at any time.
    /// fn poke(handle: &Handle) -> Result {
    ///     handle.with(|registers| dev_info!(registers.dev, "still bound\n"))
    /// }
    /// ```
    pub fn share<F: ForLt>(&self, data: impl PinInit<F::Of<'a>, Error>) -> Result<Shared<F>>
    where
        for<'x> F::Of<'x>: Send + Sync,
    {
        // SAFETY: Lifetimes don't affect layout. The value is used with lifetimes of callers of
        // `Shared::with()` only, and dropped before the device is unbound.
        let data = unsafe { pin_init::cast_pin_init::<_, F::Of<'static>, _>(data) };

        let inner = Arc::pin_init(
            try_pin_init!(Inner {
                users <- new_users(),
                closing <- new_closing(),
                data <- Opaque::pin_init(data),
                // INVARIANT: `data` was just initialised.
                open: Atomic::new(true),
            }? Error),
            GFP_KERNEL,
        )?;

        self.give::<Closer<_>>(Ok::<_, Error>(Closer(inner.clone())))?;

        Ok(Shared(inner))
    }
}

/// A type whose values a device can lend: see [`Device::manage`].
///
/// # Safety
///
/// Dropping a value must use nothing that it borrows but the device, whose other resources may have
/// been released. A type that is generic in what it drops can't promise that, unless the type
/// parameter is `'static`.
pub unsafe trait Managed: Send + Sync {}

// SAFETY: It borrows nothing.
unsafe impl<T: Send + Sync + 'static> Managed for KBox<T> {}

// SAFETY: It borrows nothing.
unsafe impl<T: Send + Sync + 'static> Managed for Arc<T> {}

/// What a [`Shared`] handle leads to.
///
/// # Invariants
///
/// `data` is initialised while `open` is true, and until all readers of `users` that saw that are
/// gone.
#[pin_data]
struct Inner<T> {
    open: Atomic<bool>,
    #[pin]
    users: Srcu,
    /// Held to close, so that whoever comes second returns only when the value is gone.
    #[pin]
    closing: Mutex<()>,
    #[pin]
    data: Opaque<T>,
}

// SAFETY: The value may be used from any thread, and is dropped in any.
unsafe impl<T: Send + Sync> Send for Inner<T> {}

// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for Inner<T> {}

impl<T> Inner<T> {
    fn close(&self) {
        let _closing = self.closing.lock();

        if !self.open.load(Relaxed) {
            return;
        }

        self.open.store(false, Release);
        self.users.synchronize();

        // SAFETY: By the type invariants the value is initialised; readers that saw `open` are
        // gone, and later ones see that it is closed. It is dropped once, as `open` is only set
        // once.
        unsafe { core::ptr::drop_in_place(self.data.get()) };
    }
}

// Lockdep wants one name for each class. In a generic function, each instance would bring its own.

#[inline(never)]
fn new_users() -> impl PinInit<Srcu, Error> {
    new_srcu!("devres::Shared::users")
}

#[inline(never)]
fn new_closing() -> impl PinInit<Mutex<()>> {
    new_mutex!((), "devres::Shared::closing")
}

/// Belongs to the device.
struct Closer<T>(Arc<Inner<T>>);

impl<T> Drop for Closer<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A handle to a value that lives until its device is unbound.
///
/// It needs no lifetime, so it may be put into files, work items and statics. Made by
/// [`Device::share`]. Dropping the last handle may sleep.
pub struct Shared<F: ForLt>(Arc<Inner<F::Of<'static>>>);

impl<F: ForLt> Clone for Shared<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F: ForLt> Shared<F> {
    /// Calls `f` with the value, unless the device is gone or going.
    ///
    /// Unbinding the device waits until `f` has returned, so `f` may sleep but must come to an end,
    /// and must not [`close`](Self::close) the handle.
    ///
    /// Context: may sleep if `f` does.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if the device was unbound.
    pub fn with<R>(&self, f: impl for<'x> FnOnce(&F::Of<'x>) -> R) -> Result<R> {
        let _user = self.0.users.read_lock();

        if !self.0.open.load(Acquire) {
            return Err(ENODEV);
        }

        // SAFETY: By the type invariants of `Inner`: we are a reader and saw `open`. `f` works for
        // any lifetimes, hence can't keep the reference, not even in the value itself.
        Ok(f(unsafe { &*self.0.data.get().cast::<F::Of<'_>>() }))
    }

    /// Drops the value now, after all callers of [`with`](Self::with) have left it.
    ///
    /// Closing twice does nothing. Must not be called by the value when it is dropped. Context: may
    /// sleep.
    pub fn close(&self) {
        self.0.close();
    }
}
