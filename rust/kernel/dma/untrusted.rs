// SPDX-License-Identifier: GPL-2.0

//! Values that a device wrote.

use crate::prelude::*;

/// A value that a device chose, and that may be anything.
///
/// A device obeys (it accesses only memory that it was given), but every length, index and status
/// that it reports may be wrong. The only ways to the value are checks, so a driver can't forget
/// one, and what passed is an ordinary value again.
///
/// # Examples
///
/// ```
/// use kernel::dma::Untrusted;
///
/// let len = Untrusted::new(1514_usize);
///
/// assert_eq!(len.at_most(2048)?, 1514);
/// assert!(len.at_most(1024).is_err());
/// assert!(len.validate(|len| if len % 2 == 1 { Ok(len) } else { Err(EINVAL) }).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Untrusted<T>(T);

impl<T> Untrusted<T> {
    /// Marks a value as chosen by a device.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns what `check` makes of the value.
    #[inline]
    pub fn validate<V>(self, check: impl FnOnce(T) -> Result<V>) -> Result<V> {
        check(self.0)
    }
}

impl<T: PartialOrd> Untrusted<T> {
    /// Returns a value that is not over `max`.
    ///
    /// # Errors
    ///
    /// [`EIO`]: the device reported nonsense.
    #[inline]
    pub fn at_most(self, max: T) -> Result<T> {
        if self.0 > max {
            return Err(EIO);
        }

        Ok(self.0)
    }
}
