// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the streaming DMA API.
//!
//! They return `Result` instead of asserting: a failed KUnit assertion ends the thread without
//! running destructors, which would leave buffers mapped and devices at work.

mod buffer;
mod configured;
pub mod fixture;
mod managed;
mod oneshot;
mod streaming;

/// Fails the test, saying where, unless a condition holds.
#[macro_export]
#[doc(hidden)]
macro_rules! dma_ensure {
    ($condition:expr $(,)?) => {
        if !$condition {
            $crate::pr_err!(
                "{}:{}: does not hold: {}\n",
                ::core::file!(),
                ::core::line!(),
                ::core::stringify!($condition)
            );
            return Err($crate::error::code::EINVAL.into());
        }
    };
}

pub use dma_ensure as ensure;
