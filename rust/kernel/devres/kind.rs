// SPDX-License-Identifier: GPL-2.0

//! Resources of a device that its code finds again.
//!
//! A subsystem often keeps a record of a bound device: whether its interrupt vectors are taken, for
//! instance. Where that record goes with the binding, the device's list of resources is the place
//! for it, and a [`Kind`] is how it is found there.
//!
//! In C, the address of a resource's release function says what the resource is. In Rust that
//! doesn't work, since the compiler may merge functions that do the same, or copy them into several
//! crates. The address of a static is unique. So these resources have one release function, and
//! each says of what kind it is.
//!
//! C header: [`include/linux/device/devres.h`](srctree/include/linux/device/devres.h)

use crate::{
    bindings,
    device::{
        Bound,
        Device, //
    },
    prelude::*,
    types::ForeignOwnable, //
};
/// A kind of resources. To be put into a static, whose address it is.
pub(crate) struct Kind {
    /// Something to have an address.
    _unique: u8,
}

#[allow(dead_code, reason = "some of it is for buses, which may be off")]
impl Kind {
    pub(crate) const fn new() -> Self {
        Self { _unique: 0 }
    }

    fn as_ptr(&'static self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// Adds a resource. The driver core drops it when the device is unbound, in its turn: what was
    /// added last goes first.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; the value is dropped then.
    ///
    /// # Safety
    ///
    /// The value must be valid until it is dropped, though it may borrow.
    pub(crate) unsafe fn add<P>(&'static self, dev: &Device<Bound>, value: P) -> Result
    where
        P: ForeignOwnable + Send,
    {
        // SAFETY: The value is valid until then, as the caller promises.
        unsafe { self.add_if(dev, value, false) }
    }

    /// As [`add`](Self::add), if the device has no resource of this kind. Of two threads that try
    /// at the same time, one succeeds.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if it has one, [`ENOMEM`]; the value is dropped then.
    pub(crate) fn add_only<P>(&'static self, dev: &Device<Bound>, value: P) -> Result
    where
        P: ForeignOwnable + Send + 'static,
    {
        // SAFETY: What borrows nothing is valid for as long as it is there.
        unsafe { self.add_if(dev, value, true) }
    }

    /// # Safety
    ///
    /// As for [`add`](Self::add).
    unsafe fn add_if<P>(&'static self, dev: &Device<Bound>, value: P, only: bool) -> Result
    where
        P: ForeignOwnable,
    {
        /// # Safety
        ///
        /// `data` must come from `P::into_foreign()`, and not be used afterwards.
        unsafe extern "C" fn drop_value<P: ForeignOwnable>(data: *mut c_void) {
            // SAFETY: `data` comes from there, and nobody else takes it back.
            drop(unsafe { P::from_foreign(data) });
        }

        let data = value.into_foreign();

        // SAFETY: `data` is what `drop_value::<P>()` takes, which the driver core calls once if
        // this succeeds.
        let added = unsafe { base::add(dev, self.as_ptr(), data, drop_value::<P>, only) };

        added.inspect_err(|_| {
            // SAFETY: Nothing was added, so the value is still ours.
            unsafe { drop_value::<P>(data) }
        })
    }

    /// Finds the resource that was added last.
    ///
    /// Context: any. Walks the device's list of resources.
    ///
    /// # Safety
    ///
    /// - All resources of this kind must be values of type `P`.
    /// - The resource must not be released as long as the result is used. That is so if it was
    ///   added before the device's driver was probed: it is then released after all that could
    ///   borrow the device for `'a`.
    pub(crate) unsafe fn find<'a, P>(
        &'static self,
        dev: &'a Device<Bound>,
    ) -> Option<P::Borrowed<'a>>
    where
        P: ForeignOwnable + 'a,
    {
        let data = base::find(dev, self.as_ptr());

        // SAFETY: As the caller promises, the pointer was made of a `P`, which isn't dropped as
        // long as the result is used.
        (!data.is_null()).then(|| unsafe { P::borrow(data) })
    }

    /// Drops the resource that was added last; returns whether there was one.
    ///
    /// Context: may sleep, if dropping the value does.
    pub(crate) fn release(&'static self, dev: &Device<Bound>) -> bool {
        base::release(dev, self.as_ptr())
    }
}

/// What the list of resources holds.
///
/// `kind` comes first, and `drop` last: whatever [`release`](Self::release) can be called for is
/// long enough to have a `kind`.
#[repr(C)]
struct Resource {
    kind: *const c_void,
    data: *mut c_void,
    drop: unsafe extern "C" fn(*mut c_void),
}

impl Resource {
    /// # Safety
    ///
    /// `res` must point to a `Resource`, which is not used afterwards.
    #[inline(never)]
    unsafe extern "C" fn release(_dev: *mut bindings::device, res: *mut c_void) {
        // SAFETY: The caller promises that it points to a `Resource`.
        let this = unsafe { &*res.cast::<Self>() };

        // SAFETY: `drop` fits `data`, as `add()` was promised; a resource is released once.
        unsafe { (this.drop)(this.data) };
    }

    /// Returns whether a resource that is released by [`release`](Self::release) is of that kind.
    ///
    /// # Safety
    ///
    /// `res` must point to a resource with that release function, or one that does the same.
    unsafe extern "C" fn is_of(
        _dev: *mut bindings::device,
        res: *mut c_void,
        kind: *mut c_void,
    ) -> c_int {
        // The compiler may have merged `release()` with a function of somebody else that does the
        // same. What that is called for has a function pointer where we have one, hence a word here
        // too, which was at least zeroed; and nobody else has the address of our static there.
        //
        // SAFETY: So the word can be read.
        let found = unsafe { res.cast::<*const c_void>().read() };

        (found == kind.cast_const()).into()
    }
}

/// Not generic, and not inlined, so that no other crate has a copy of the release function.
#[allow(dead_code, reason = "as for `Kind`")]
mod base {
    use super::*;

    /// # Safety
    ///
    /// `drop` must be safe to call once with `data`, at any time until the device is unbound.
    #[inline(never)]
    pub(super) unsafe fn add(
        dev: &Device<Bound>,
        kind: *mut c_void,
        data: *mut c_void,
        drop: unsafe extern "C" fn(*mut c_void),
        only: bool,
    ) -> Result {
        // The memory of a resource is aligned as `kmalloc()` aligns.
        const_assert!(align_of::<Resource>() <= bindings::ARCH_KMALLOC_MINALIGN);

        // SAFETY: No requirements; the name is a valid C string.
        let new = unsafe {
            bindings::__devres_alloc_node(
                Some(Resource::release),
                size_of::<Resource>(),
                GFP_KERNEL.as_raw(),
                bindings::NUMA_NO_NODE,
                c"devres::Kind".as_char_ptr(),
            )
        };

        if new.is_null() {
            return Err(ENOMEM);
        }

        // SAFETY: `new` is fresh memory of this size and alignment.
        unsafe { new.cast::<Resource>().write(Resource { kind, data, drop }) };

        if !only {
            // SAFETY: `dev` is a valid and bound `struct device`; `new` comes from
            // `__devres_alloc_node()`, and isn't on a list yet.
            unsafe { bindings::devres_add(dev.as_raw(), new) };
            return Ok(());
        }

        // Finds the resource that there is, or adds this one, under the lock of the list.
        //
        // SAFETY: As above; `new` is freed if there is another one.
        let found = unsafe { bindings::devres_get(dev.as_raw(), new, Some(Resource::is_of), kind) };

        if found == new {
            Ok(())
        } else {
            Err(EBUSY)
        }
    }

    /// Returns the data of the resource that was added last, or null.
    #[inline(never)]
    pub(super) fn find(dev: &Device<Bound>, kind: *mut c_void) -> *mut c_void {
        // SAFETY: `dev` is a valid and bound `struct device`.
        let found = unsafe {
            bindings::devres_find(
                dev.as_raw(),
                Some(Resource::release),
                Some(Resource::is_of),
                kind,
            )
        };

        if found.is_null() {
            return found;
        }

        // SAFETY: By its kind, it is a `Resource`.
        unsafe { (*found.cast::<Resource>()).data }
    }

    #[inline(never)]
    pub(super) fn release(dev: &Device<Bound>, kind: *mut c_void) -> bool {
        // SAFETY: `dev` is a valid and bound `struct device`.
        let ret = unsafe {
            bindings::devres_release(
                dev.as_raw(),
                Some(Resource::release),
                Some(Resource::is_of),
                kind,
            )
        };

        ret == 0
    }
}
