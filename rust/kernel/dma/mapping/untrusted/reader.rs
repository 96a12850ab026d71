// SPDX-License-Identifier: GPL-2.0

//! Messages that a device wrote.

use super::Untrusted;
use crate::prelude::*;

/// Takes a message that a device wrote apart, from front to back.
///
/// Use it for what is in a buffer: the header of a frame, a completion with fields of varying
/// length. Reading past the end is an error, and never a panic. The numbers in the message are
/// [`Untrusted`] again. [`take`](Self::take) accepts such a number as a length, and compares it
/// with what is left.
///
/// Each method fails with [`EIO`] if the message has fewer bytes left than it takes; the position
/// stays as it was then.
///
/// # Examples
///
/// A frame with a length of its own:
///
/// ```
/// use kernel::dma::Reader;
///
/// fn payload(frame: &[u8]) -> Result<&[u8]> {
///     let mut reader = Reader::new(frame);
///
///     if reader.u16_be()? != 0x88b5 {
///         return Err(EPROTO);
///     }
///
///     let len = reader.u16_be()?;
///
///     reader.take(len)
/// }
///
/// assert_eq!(payload(b"\x88\xb5\x00\x02hi, and padding")?, b"hi");
/// assert_eq!(payload(b"\x88\xb5\xff\xffhi"), Err(EIO));
/// assert_eq!(payload(b"\x88"), Err(EIO));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the next `n` bytes. `n` may be a length field of the message itself.
    ///
    /// # Errors
    ///
    /// [`EIO`] if there are fewer.
    #[inline]
    pub fn take(&mut self, n: impl Into<Untrusted<usize>>) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n.into().0).ok_or(EIO)?;

        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EIO)?;

        self.0 = rest;
        Ok(*taken)
    }

    /// Returns the next byte.
    #[inline]
    pub fn u8(&mut self) -> Result<Untrusted<u8>> {
        self.array().map(u8::from_le_bytes).map(Untrusted)
    }

    /// Returns the next two bytes, as a little-endian number.
    #[inline]
    pub fn u16_le(&mut self) -> Result<Untrusted<u16>> {
        self.array().map(u16::from_le_bytes).map(Untrusted)
    }

    /// Returns the next two bytes, as a big-endian number.
    #[inline]
    pub fn u16_be(&mut self) -> Result<Untrusted<u16>> {
        self.array().map(u16::from_be_bytes).map(Untrusted)
    }

    /// Returns the next four bytes, as a little-endian number.
    #[inline]
    pub fn u32_le(&mut self) -> Result<Untrusted<u32>> {
        self.array().map(u32::from_le_bytes).map(Untrusted)
    }

    /// Returns the next four bytes, as a big-endian number.
    #[inline]
    pub fn u32_be(&mut self) -> Result<Untrusted<u32>> {
        self.array().map(u32::from_be_bytes).map(Untrusted)
    }

    /// Returns all bytes that are left.
    #[inline]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}
