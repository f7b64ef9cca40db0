//! What the members of a team write together.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice that the members of a team write disjoint parts of.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a, T> {
    pub(super) data: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a pointer and its extent; all access goes through `slice` and its contract.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Borrow `slice` for a team.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { data: slice.as_mut_ptr(), len: slice.len(), _borrow: PhantomData }
    }

    /// A part of it. Panics beyond the end.
    ///
    /// # Safety
    /// No other thread holds a part that overlaps it, nor does the caller.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the borrowed slice; disjoint by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}
