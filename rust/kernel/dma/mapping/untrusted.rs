// SPDX-License-Identifier: GPL-2.0

//! Values that a device wrote.

use crate::prelude::*;

mod reader;
pub use self::reader::Reader;

/// A value that a device chose: it may be anything, and must be checked before it is used.
///
/// A device is trusted to access only memory that it was shown. It is not trusted in what it
/// writes: a length beyond the buffer or an index beyond the table would make the driver corrupt
/// memory by itself. The only ways to the value are checks, so a driver can't miss one. What has
/// passed a check is an ordinary value again:
///
/// | the device says | use |
/// |---|---|
/// | which entry of a table | [`index_into`](Self::index_into) |
/// | how much of a buffer it has written | [`at_most`](Self::at_most) |
/// | how long a part of its message is | [`Reader::take`] |
/// | a version, a magic number | `==` |
/// | something else | [`validate`](Self::validate), with a check of the driver's |
///
/// None of them panics, whatever the device wrote. Where there is a table, use `index_into`: with
/// `at_most(table.len())` the index may still be one too large.
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
    /// Marks a value as chosen by a device. A driver calls this where it reads a descriptor or a
    /// register.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Hands the value to `check`, and returns its result: the driver's own check.
    #[inline]
    pub fn validate<V>(self, check: impl FnOnce(T) -> Result<V>) -> Result<V> {
        check(self.0)
    }
}

impl<T: PartialOrd> Untrusted<T> {
    /// Returns the value if it is not greater than `max`.
    ///
    /// # Errors
    ///
    /// [`EIO`] if it is greater.
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
    /// Returns the entry of `table` at that index.
    ///
    /// # Errors
    ///
    /// [`EIO`] if there is no such entry.
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

macro_rules! impl_from_number {
    ($($number:ty),*) => {
        $(
            impl From<Untrusted<$number>> for Untrusted<usize> {
                #[inline]
                fn from(value: Untrusted<$number>) -> Self {
                    // A number that doesn't fit is beyond any memory, and so is this one.
                    Self(usize::try_from(value.0).unwrap_or(usize::MAX))
                }
            }
        )*
    };
}

impl_from_number!(u8, u16, u32, u64);
