// SPDX-License-Identifier: GPL-2.0

//! Values that a device wrote.

use crate::prelude::*;

mod reader;
pub use self::reader::Reader;

/// A value that a device chose, and that may be anything.
///
/// A device obeys (it accesses only memory that it was given), but every length, index and status
/// that it reports may be wrong. The only ways to the value are checks, so a driver can't forget
/// one, and what passed is an ordinary value again:
///
/// | the device says | use |
/// |---|---|
/// | which entry of a table | [`index_into`](Self::index_into) |
/// | how much of a buffer it has written | [`at_most`](Self::at_most) |
/// | how long a part of its message is | [`Reader::take`] |
/// | a version, a magic number | `==`, which tells no more than whether it is that |
/// | something else | [`validate`](Self::validate), with a check of the driver's |
///
/// None of them panics, whatever the device wrote. An index that passed `at_most` may still be one
/// too many, so prefer `index_into` where there is a table.
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
///
/// let queue = Untrusted::new(2_u16);
///
/// assert_eq!(*queue.index_into(&["admin", "read", "write"])?, "write");
/// assert!(queue.index_into(&["admin", "read"]).is_err());
/// assert!(queue == 2);
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

impl<T: PartialEq> PartialEq<T> for Untrusted<T> {
    #[inline]
    fn eq(&self, other: &T) -> bool {
        self.0 == *other
    }
}

impl<I> Untrusted<I>
where
    Untrusted<usize>: From<Untrusted<I>>,
{
    /// Returns the entry of a table that the value is the index of.
    ///
    /// # Errors
    ///
    /// [`EIO`]: there is no such entry.
    #[inline]
    pub fn index_into<T>(self, table: &[T]) -> Result<&T> {
        table.get(Untrusted::<usize>::from(self).0).ok_or(EIO)
    }
}

impl From<usize> for Untrusted<usize> {
    #[inline]
    fn from(value: usize) -> Self {
        Self(value)
    }
}

macro_rules! impl_from_smaller {
    ($($number:ty),*) => {
        $(
            impl From<Untrusted<$number>> for Untrusted<usize> {
                #[inline]
                fn from(value: Untrusted<$number>) -> Self {
                    // What is too large for the machine stays too large for any memory.
                    Self(usize::try_from(value.0).unwrap_or(usize::MAX))
                }
            }
        )*
    };
}

impl_from_smaller!(u8, u16, u32);
