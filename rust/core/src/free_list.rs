//! Memory that calls leave for the calls after them.

use std::sync::{Mutex, TryLockError};
use std::thread;

/// Things that nobody uses just now. It never holds more than were in use at a time: where only calls that hold slots of
/// the pool take from it, no more than the pool has slots, however many callers there have been.
#[derive(Debug)]
pub struct FreeList<T>(Mutex<Vec<T>>);

impl<T> Default for FreeList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FreeList<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The one that was used last, if any is free.
    pub fn take(&self) -> Option<T> {
        self.with(Vec::pop).flatten()
    }

    /// Keep one for the next call.
    pub fn give_back(&self, item: T) {
        self.with(|free| free.push(item));
    }

    /// The lock is held for nanoseconds; if it stays taken, it is one that a `fork` froze, and the child does
    /// without the memory of its parent.
    fn with<R>(&self, f: impl FnOnce(&mut Vec<T>) -> R) -> Option<R> {
        for _ in 0..1000 {
            match self.0.try_lock() {
                Ok(mut free) => return Some(f(&mut free)),
                Err(TryLockError::Poisoned(free)) => return Some(f(&mut free.into_inner())),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }
}
