// SPDX-License-Identifier: GPL-2.0

//! A queue, both ends of which are cheap.

use crate::prelude::*;

/// First in, first out, in any context.
pub(super) struct Queue<T> {
    items: KVec<Option<T>>,
    /// Where the first one is; what is before it was taken.
    head: usize,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self {
            items: KVec::new(),
            head: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.head
    }

    pub(super) fn push(&mut self, item: T) -> Result {
        Ok(self.items.push(Some(item), GFP_ATOMIC)?)
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.items.get(self.head)?.as_ref()
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.items.get_mut(self.head)?.take();

        self.head += 1;

        // Not more often: so it costs a move or two for each item that was taken.
        if 2 * self.head >= self.items.len() {
            let left = self.len();

            self.items.rotate_left(self.head);
            self.items.truncate(left);
            self.head = 0;
        }

        item
    }
}
