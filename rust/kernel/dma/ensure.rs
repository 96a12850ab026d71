// SPDX-License-Identifier: GPL-2.0

//! What tests say instead of asserting.
//!
//! A failed KUnit assertion ends the thread without running destructors, which would leave buffers
//! mapped and devices at work. So tests return `Result`.

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

pub(super) use dma_ensure as ensure;
