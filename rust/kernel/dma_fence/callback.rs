// SPDX-License-Identifier: GPL-2.0

//! Callbacks, for those who can't sleep.

use super::{
    outcome,
    Fence, //
};
use crate::{
    bindings,
    error::{
        to_result,
        ErrorWith, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Release, //
        }, //
    },
    task::Task,
    types::Opaque, //
};
use core::ptr::NonNull;

/// The callback has not been called.
const PENDING: usize = 0;
/// It has returned. Anything else is the thread in which it is being called.
const OVER: usize = 1;

/// What C calls, whatever is behind it.
#[repr(C)]
struct Header {
    /// The first thing, since C finds the header by it.
    node: Opaque<bindings::dma_fence_cb>,
    call: unsafe fn(NonNull<Header>, Result),
    state: Atomic<usize>,
    /// The module that `call` is in, which is pinned as long as C may call it. Null for the kernel.
    module: *mut bindings::module,
    fence: ARef<Fence>,
}

#[repr(C)]
pub(super) struct Registered<F> {
    /// The first thing, since `call` finds the rest by it.
    header: Header,
    callback: F,
}

/// A function that is called when a fence is signalled.
///
/// Made by [`Fence::add_callback`]. When it is dropped, the function will not be called any more,
/// and isn't being called. What the function captures is dropped then, and not in the callback.
///
/// A callback that is forgotten stays, and is called. It keeps its module from being unloaded until
/// then, as one that is there does.
///
/// Context of dropping it: any in which an `F` may be dropped, but for a callback of the same
/// fence. There it would wait for itself. If it is the callback's own, it is leaked instead, and
/// that is logged.
///
/// # Invariants
///
/// It points to a `KBox<Registered<F>>` which this owns, and which C knows until it was called or
/// removed.
#[must_use = "the callback is removed when this is dropped"]
pub struct FenceCallback<F: FnMut(Result) + Send + 'static> {
    pub(super) registered: NonNull<Registered<F>>,
}

// SAFETY: Any thread may remove a callback from a fence. An `F` is `Send`.
unsafe impl<F: FnMut(Result) + Send + 'static> Send for FenceCallback<F> {}

// SAFETY: There is nothing that can be done with a shared one.
unsafe impl<F: FnMut(Result) + Send + 'static> Sync for FenceCallback<F> {}

impl Fence {
    /// Has `callback` called, once, when the fence is signalled, with how the job ended.
    ///
    /// It is called in whatever context the fence is signalled, under the lock of the fence, with
    /// interrupts off. So it must not sleep, nor do what takes the lock of a fence: signal one, add
    /// a callback or drop one. It should do little, as to queue work, or to wake a thread.
    ///
    /// C: `dma_fence_add_callback()`. Context: may sleep.
    ///
    /// # Errors
    ///
    /// `callback` comes back, and is not called, with
    ///
    /// - [`ENOENT`] if the fence is signalled already: there is nothing to wait for;
    /// - [`ENOMEM`];
    /// - [`ENODEV`] if the module of `callback` is being unloaded.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     dma_fence::{FenceAllocation, FenceContext},
    ///     new_wait_queue,
    ///     sync::{Arc, WaitQueue},
    /// };
    ///
    /// let context = FenceContext::new(c"example", c"queue 0")?;
    /// let job = context.fence(FenceAllocation::new(GFP_KERNEL)?);
    /// let fence = job.fence();
    /// let queue = Arc::pin_init(new_wait_queue!("example::jobs"), GFP_KERNEL)?;
    /// let waker = queue.clone();
    /// let callback = fence.add_callback(move |_| waker.wake_all())?;
    ///
    /// job.signal();
    /// drop(callback);
    /// assert!(fence.add_callback(|_| {}).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add_callback<F: FnMut(Result) + Send + 'static>(
        &self,
        callback: F,
    ) -> Result<FenceCallback<F>, ErrorWith<F>> {
        let refused = |error, value| Err(ErrorWith { error, value });

        let Ok(memory) = KBox::<Registered<F>>::new_uninit(GFP_KERNEL) else {
            return refused(ENOMEM, callback);
        };
        let module = match pin_module(call::<F>) {
            Ok(module) => module,
            Err(error) => return refused(error, callback),
        };
        let registered = KBox::into_raw(memory.write(Registered {
            header: Header {
                node: Opaque::uninit(),
                call: call::<F>,
                state: Atomic::new(PENDING),
                module,
                fence: self.into(),
            },
            callback,
        }));
        // SAFETY: A box isn't null.
        let registered = unsafe { NonNull::new_unchecked(registered) };

        // SAFETY: The header is the first thing in the box, as `call::<F>` requires. The box is
        // freed by a `FenceCallback` only, after the callback was called or removed; or below, if C
        // doesn't know it.
        match unsafe { add(self, registered.cast()) } {
            // INVARIANT: It points to the box from above.
            Ok(()) => Ok(FenceCallback { registered }),
            Err(error) => {
                // SAFETY: `pin_module()` has pinned it, for this, and C will not call the callback.
                unsafe { unpin_module(module) };

                // SAFETY: This is the box from above, which nobody else knows.
                let registered = unsafe { KBox::from_raw(registered.as_ptr()) };

                refused(error, KBox::into_inner(registered).callback)
            }
        }
    }
}

impl<F: FnMut(Result) + Send + 'static> Drop for FenceCallback<F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, this is the header of a box that `self` owns.
        if unsafe { remove(self.registered.cast()) } {
            // SAFETY: By the type invariants, `self` owns the box; C doesn't know it any more.
            drop(unsafe { KBox::from_raw(self.registered.as_ptr()) });
        }
    }
}

/// Calls a callback.
///
/// # Safety
///
/// `header` must be that of a `Registered<F>`, which is there until this returns, and whose
/// callback nobody else uses.
unsafe fn call<F: FnMut(Result)>(header: NonNull<Header>, outcome: Result) {
    // SAFETY: By the safety requirements. The reference is to the callback only: the owner may look
    // at the state meanwhile.
    let callback = unsafe { &mut (*header.cast::<Registered<F>>().as_ptr()).callback };

    callback(outcome);
}

// What follows isn't inlined into modules: it runs when they aren't pinned any more.

/// Adds a callback to a fence.
///
/// # Safety
///
/// `header` must be that of a `Registered<F>` for the `F` of its `call`, and be there until the
/// callback was called or removed, unless this fails.
#[inline(never)]
unsafe fn add(fence: &Fence, header: NonNull<Header>) -> Result {
    // SAFETY: By the type invariants of `Fence` it is initialised, and there is a reference to it.
    // By the safety requirements the header is there as long as C needs it. Its node is the first
    // thing in it, as `signalled` requires.
    to_result(unsafe {
        bindings::dma_fence_add_callback(fence.as_raw(), header.cast().as_ptr(), Some(signalled))
    })
}

/// What C calls when a fence is signalled.
///
/// # Safety
///
/// - `fence` must be signalled.
/// - `node` must be that of a header which was given to [`add`], and is called once.
#[inline(never)]
unsafe extern "C" fn signalled(fence: *mut bindings::dma_fence, node: *mut bindings::dma_fence_cb) {
    // SAFETY: By the safety requirements the fence is signalled.
    let outcome = outcome(unsafe { bindings::dma_fence_status(fence) }).unwrap_or(Ok(()));

    // SAFETY: By the safety requirements this is the address of a header. Nobody frees it before it
    // is in state `OVER`, or before the lock of the fence is free, which C holds.
    let (header, state, module) = unsafe {
        let header = node.cast::<Header>();

        (
            NonNull::new_unchecked(header),
            &(*header).state,
            (*header).module,
        )
    };

    state.store(Task::current_raw().addr(), Release);

    // SAFETY: By the requirements of `add()` this is the header of a `Registered<F>` for the `F` of
    // its `call`. C calls this once, and its owner doesn't use the callback.
    unsafe { (header.as_ref().call)(header, outcome) };

    // From here on the owner may free it.
    state.store(OVER, Release);

    // SAFETY: `add_callback()` has pinned it for the call, which is over.
    unsafe { unpin_module(module) };
}

/// Removes a callback from its fence. Returns whether it may be freed.
///
/// # Safety
///
/// `header` must be that of a `Registered<F>` which was given to [`add`], and which only its owner
/// frees, who calls this once.
#[inline(never)]
unsafe fn remove(header: NonNull<Header>) -> bool {
    // SAFETY: By the safety requirements the header is there. While the callback is called, others
    // only store its state, which is atomic.
    let found = unsafe { header.as_ref() };
    let Header {
        state,
        module,
        fence,
        ..
    } = found;
    let state = state.load(Acquire);

    // Without the lock: C has done with a node when its function has returned.
    if state == OVER {
        return true;
    }

    if state == Task::current_raw().addr() {
        pr_warn!("dma_fence: a callback drops itself: it is leaked\n");
        return false;
    }

    // If it is being called, this waits for the lock of the fence, hence for the end of the call.
    //
    // SAFETY: The fence is initialised, and the callback was added to it.
    if unsafe { bindings::dma_fence_remove_callback(fence.as_raw(), header.cast().as_ptr()) } {
        // SAFETY: `add_callback()` has pinned it for the call, which will not come. The caller is
        // code of the module, or was called by it.
        unsafe { unpin_module(*module) };
    }

    true
}

/// Keeps the module of a function from being unloaded. Returns null for a function of the kernel.
///
/// # Errors
///
/// [`ENODEV`] if the module is being unloaded.
#[inline(never)]
fn pin_module(function: unsafe fn(NonNull<Header>, Result)) -> Result<*mut bindings::module> {
    let mut module = core::ptr::null_mut();

    // CAST: The address of the function's code.
    // SAFETY: `module` is valid for writing.
    if unsafe { bindings::dma_fence_pin_code(function as usize, &mut module) } {
        Ok(module)
    } else {
        Err(ENODEV)
    }
}

/// Undoes [`pin_module`].
///
/// # Safety
///
/// `module` must come from there, and its code must not be relied on any more.
#[inline(never)]
unsafe fn unpin_module(module: *mut bindings::module) {
    // SAFETY: By the safety requirements; null is for nothing.
    unsafe { bindings::dma_fence_unpin_code(module) };
}
