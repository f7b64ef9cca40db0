//! Whether the machine has room for teams, or other programs take its cores away.
//!
//! A member whose core is taken away stops its whole team at the next barrier. Then smaller teams, or none, are faster:
//! a thread alone goes on whenever it has a core. So every team measures which share of its time its members computed,
//! and if that was little, teams are smaller for a while.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Share of a team's time in which its members have a core, below which the next teams are smaller. A team of two
/// at one half computes as much as one thread alone.
const ENOUGH: f64 = 0.7;

/// How long teams stay small after the first bad one, which may have been an accident, and at most, after bad ones only.
const PAUSES: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(256));

/// What recent teams have seen.
#[derive(Debug)]
pub struct Crowd {
    start: Instant,
    /// Largest team until then.
    most: AtomicUsize,
    /// When a larger one may try, in nanoseconds since the start.
    until: AtomicU64,
    /// How long to wait after the next bad team, in nanoseconds.
    pause: AtomicU64,
}

impl Crowd {
    /// None was seen yet.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            most: AtomicUsize::new(usize::MAX),
            until: AtomicU64::new(0),
            pause: AtomicU64::new(PAUSES.0.as_nanos() as u64),
        }
    }

    /// The largest team to try now.
    pub fn most(&self) -> usize {
        self.most_at(self.start.elapsed())
    }

    fn most_at(&self, now: Duration) -> usize {
        let most = self.most.load(Ordering::Relaxed);
        let trying = now.as_nanos() as u64 >= self.until.load(Ordering::Relaxed);
        if trying { most.saturating_mul(2) } else { most }
    }

    /// A team of `size`, more than one, has computed for so much `cpu` time in all, in so much time.
    pub fn report(&self, size: usize, cpu: Duration, time: Duration) {
        let good = cpu.as_secs_f64() >= ENOUGH * size as f64 * time.as_secs_f64();
        self.report_at(self.start.elapsed(), size, good);
    }

    /// A team of `size` was wanted, and not all members came.
    pub fn report_missing(&self, size: usize) {
        self.report_at(self.start.elapsed(), size, false);
    }

    // Threads that report at the same time may overwrite each other: any of their opinions will do.
    fn report_at(&self, now: Duration, size: usize, good: bool) {
        let (shortest, longest) = (PAUSES.0.as_nanos() as u64, PAUSES.1.as_nanos() as u64);
        let most = self.most.load(Ordering::Relaxed);
        if good {
            if size > most {
                self.most.store(size, Ordering::Relaxed);
                self.pause.store(shortest, Ordering::Relaxed);
            }
        } else {
            let pause = self.pause.load(Ordering::Relaxed);
            self.most.store(most.min(size / 2).max(1), Ordering::Relaxed);
            self.until.store(now.as_nanos() as u64 + pause, Ordering::Relaxed);
            self.pause.store((2 * pause).min(longest), Ordering::Relaxed);
        }
    }
}

/// Time that the calling thread has had a core, if the system tells.
pub fn cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0;
        (!failed).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_teams_shrink_the_next_ones_for_longer_and_longer() {
        let crowd = Crowd::new();
        let mut now = Duration::ZERO;
        assert_eq!(crowd.most_at(now), usize::MAX);
        crowd.report_at(now, 4, true);
        assert_eq!(crowd.most_at(now), usize::MAX);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            crowd.report_at(now, 4, false);
            crowd.report_at(now, 2, false);
            let from = now;
            while crowd.most_at(now) == 1 {
                now += Duration::from_millis(1);
            }
            assert_eq!(crowd.most_at(now), 2, "a try");
            pauses.push((now - from).as_millis());
        }
        assert!(pauses.is_sorted() && pauses[0] == 1 && pauses[9] == 256, "{pauses:?}");
        // Better now: larger and larger again, and patient again.
        crowd.report_at(now, 2, true);
        assert_eq!(crowd.most_at(now), 4);
        crowd.report_at(now, 4, true);
        assert_eq!(crowd.most_at(now), 8);
        crowd.report_at(now, 8, false);
        assert_eq!((crowd.most_at(now), crowd.most_at(now + PAUSES.0)), (4, 8));
    }

    #[test]
    fn computing_takes_a_threads_time_and_sleeping_does_not() {
        let Some(start) = cpu_time() else { return };
        while cpu_time().unwrap() < start + Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let crowd = Crowd::new();
        crowd.report(2, Duration::from_millis(15), Duration::from_millis(10));
        assert_eq!(crowd.most(), usize::MAX);
        crowd.report(2, Duration::from_millis(13), Duration::from_millis(10));
        assert_eq!(crowd.most_at(Duration::ZERO), 1);
    }
}
