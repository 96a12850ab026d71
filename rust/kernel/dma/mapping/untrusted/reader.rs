// SPDX-License-Identifier: GPL-2.0

//! Messages that a device wrote.

use super::Untrusted;
use crate::prelude::*;

/// Takes a message apart, from front to back, without trusting a word of it.
///
/// For what a device wrote into a buffer: the header of a frame, a completion with a text of its
/// own. What isn't there is an error and never a panic, and the numbers in it are [`Untrusted`], so
/// that a length can be used, but not before it was compared with what is left.
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

    /// Returns the next `n` bytes, of which the message itself may say how many there are.
    ///
    /// # Errors
    ///
    /// [`EIO`] if there are fewer; none is taken then. So for all other methods.
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

    /// Returns the next two bytes, as a number whose low byte comes first.
    #[inline]
    pub fn u16_le(&mut self) -> Result<Untrusted<u16>> {
        self.array().map(u16::from_le_bytes).map(Untrusted)
    }

    /// Returns the next two bytes, as a number whose high byte comes first.
    #[inline]
    pub fn u16_be(&mut self) -> Result<Untrusted<u16>> {
        self.array().map(u16::from_be_bytes).map(Untrusted)
    }

    /// Returns the next four bytes, as a number whose low byte comes first.
    #[inline]
    pub fn u32_le(&mut self) -> Result<Untrusted<u32>> {
        self.array().map(u32::from_le_bytes).map(Untrusted)
    }

    /// Returns the next four bytes, as a number whose high byte comes first.
    #[inline]
    pub fn u32_be(&mut self) -> Result<Untrusted<u32>> {
        self.array().map(u32::from_be_bytes).map(Untrusted)
    }

    /// Returns all that is left.
    #[inline]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}
