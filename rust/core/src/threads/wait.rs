//! Waiting: spin for as long as the wait is usually short, then give the core away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Take a lock that no panic can leave inconsistent.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Look for `done` again and again for at most `limit`; whether it came.
///
/// Bounded by time and not by turns: a pause takes 1 cycle on some processors and 140 on others.
pub fn spin(limit: Duration, done: impl Fn() -> bool) -> bool {
    const TURNS: usize = 64;
    let mut start = None;
    loop {
        for _ in 0..TURNS {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        // The clock is only read once a wait is no longer a short one.
        match start {
            None => start = Some(Instant::now()),
            Some(start) if start.elapsed() > limit => return done(),
            Some(_) => {}
        }
    }
}

/// Something that happens, for those who wait for it.
#[derive(Debug, Default)]
pub struct Event {
    /// Threads that stopped spinning.
    asleep: AtomicUsize,
    mutex: Mutex<()>,
    wake: Condvar,
}

impl Event {
    /// Wait until `done`, which must read with [`Ordering::SeqCst`]: spin for `limit`, then sleep.
    pub fn wait_until(&self, limit: Duration, done: impl Fn() -> bool) {
        if spin(limit, &done) {
            return;
        }
        // First counted as asleep, then a last look; the other side first makes it happen, then counts: one of the
        // two sees the other.
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let mut guard = lock(&self.mutex);
        while !done() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    /// It has happened, by a write with [`Ordering::SeqCst`].
    pub fn tell(&self) {
        if self.anyone_sleeps() {
            // With the lock, a sleeper is either before its last look or in its sleep.
            drop(lock(&self.mutex));
            self.wake.notify_all();
        }
    }

    /// Whether somebody stopped spinning.
    pub fn anyone_sleeps(&self) -> bool {
        self.asleep.load(Ordering::SeqCst) > 0
    }
}

/// Where the members of a team meet.
#[derive(Debug, Default)]
pub struct Barrier {
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
    pub(super) event: Event,
}

impl Barrier {
    /// Wait for `size` members; all that was written before is visible to all after.
    ///
    /// Panics if the barrier was broken, so that nobody waits forever.
    pub fn wait(&self, size: usize, spinning: Duration) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == size {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation + 1, Ordering::SeqCst);
            self.event.tell();
            return;
        }
        let gone_on = || self.generation.load(Ordering::SeqCst) != generation;
        self.event.wait_until(spinning, || gone_on() || self.broken.load(Ordering::SeqCst));
        assert!(gone_on(), "another thread of the team panicked");
    }

    /// Make everybody who waits, and who comes to wait, panic. Whether it was whole until now.
    pub fn shatter(&self) -> bool {
        let whole = !self.broken.swap(true, Ordering::SeqCst);
        self.event.tell();
        whole
    }
}
