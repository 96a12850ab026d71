// SPDX-License-Identifier: GPL-2.0

//! Directions in which a device moves data, and a place for buffers of both.

use super::{
    Buffer,
    Direction,
    FromDevice,
    Streaming,
    ToDevice, //
};

mod private {
    use super::*;

    /// A buffer that the device owns, for either direction. A protocol that moves data both ways
    /// keeps one.
    pub enum EitherWay<'a, B: Buffer> {
        ToDevice(Streaming<'a, B, ToDevice>),
        FromDevice(Streaming<'a, B, FromDevice>),
    }

    /// How to put a buffer away, and how to get it back.
    #[diagnostic::on_unimplemented(
        message = "no data is moved in the direction `{Self}`",
        note = "transfers and rings move data one way: `ToDevice` or `FromDevice`"
    )]
    pub trait Hold: Direction {
        fn hold<B: Buffer>(streaming: Streaming<'_, B, Self>) -> EitherWay<'_, B>
        where
            Self: Sized;

        fn release<B: Buffer>(
            held: EitherWay<'_, B>,
        ) -> Result<Streaming<'_, B, Self>, EitherWay<'_, B>>
        where
            Self: Sized;
    }
}
pub(in crate::dma) use private::EitherWay;
use private::Hold;

/// A direction in which a device moves data, one way: [`ToDevice`] or [`FromDevice`].
///
/// Each transfer and each ring has one. [`Bidirectional`](super::Bidirectional) is none: both sides
/// write such memory at any time, so no data is moved.
///
/// # Examples
///
/// ```
/// use kernel::dma::{FromDevice, OneWay, ToDevice};
///
/// fn name<D: OneWay>() -> &'static str {
///     if D::DEVICE_WRITES { "read" } else { "write" }
/// }
///
/// assert_eq!((name::<FromDevice>(), name::<ToDevice>()), ("read", "write"));
/// ```
#[diagnostic::on_unimplemented(
    message = "no data is moved in the direction `{Self}`",
    note = "transfers and rings move data one way: `ToDevice` or `FromDevice`"
)]
pub trait OneWay: Hold {}

impl OneWay for ToDevice {}
impl OneWay for FromDevice {}

impl Hold for ToDevice {
    #[inline]
    fn hold<B: Buffer>(streaming: Streaming<'_, B, Self>) -> EitherWay<'_, B> {
        EitherWay::ToDevice(streaming)
    }

    #[inline]
    fn release<B: Buffer>(
        held: EitherWay<'_, B>,
    ) -> Result<Streaming<'_, B, Self>, EitherWay<'_, B>> {
        match held {
            EitherWay::ToDevice(streaming) => Ok(streaming),
            other => Err(other),
        }
    }
}

impl Hold for FromDevice {
    #[inline]
    fn hold<B: Buffer>(streaming: Streaming<'_, B, Self>) -> EitherWay<'_, B> {
        EitherWay::FromDevice(streaming)
    }

    #[inline]
    fn release<B: Buffer>(
        held: EitherWay<'_, B>,
    ) -> Result<Streaming<'_, B, Self>, EitherWay<'_, B>> {
        match held {
            EitherWay::FromDevice(streaming) => Ok(streaming),
            other => Err(other),
        }
    }
}
