// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A command takes along a reference, which may be gone when the command comes back.
//!
//! C: Any pointer will do.
//! Shows: When the queue was dropped in flight and its device is stopped later, as an access to
//! what was a stack frame.

use kernel::{
    dma::queue::{
        Payload,
        Private, //
    },
    sync::Arc, //
};

pub struct Request;

fn is_payload<'a, P: Payload<'a>>(payload: P) -> P {
    payload
}

#[cfg(ok)]
pub fn private(request: Arc<Request>) -> Private<Arc<Request>> {
    is_payload(Private(request))
}
#[cfg(bad)]
pub fn private(request: &Request) -> Private<&Request> {
    is_payload(Private(request)) //~[bad] E0521
}
