//! The cores that threads may run on, and which of them a worker is to keep away from.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// The CPUs that the calling thread may run on, if the system tells.
#[cfg(target_os = "linux")]
pub fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: a zeroed set is an empty set; the call writes at most its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0).then_some(set)
    }
}

/// The CPU that the calling thread runs on at this moment, if the system tells.
fn current() -> Option<usize> {
    #[cfg(target_os = "linux")]
    // SAFETY: it only returns a number.
    return usize::try_from(unsafe { libc::sched_getcpu() })
        .ok()
        .filter(|cpu| *cpu < libc::CPU_SETSIZE as usize);
    #[cfg(not(target_os = "linux"))]
    None
}

/// Keeps a worker away from its caller's CPU.
///
/// A worker that wakes up where its caller computes is of no use, and some kernels prefer just that: those of virtual
/// machines that gather what runs on few CPUs so that the others can sleep. There it took 1.9 ms until both ran.
#[derive(Debug)]
pub struct Place {
    #[cfg(target_os = "linux")]
    worker: libc::pthread_t,
    avoided: AtomicUsize,
}

impl Place {
    /// Of a worker, which must not end before its place is dropped.
    pub fn of(worker: &JoinHandle<()>) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = worker;
        Self {
            #[cfg(target_os = "linux")]
            worker: std::os::unix::thread::JoinHandleExt::as_pthread_t(worker),
            avoided: AtomicUsize::new(usize::MAX),
        }
    }

    /// To be called before the worker is woken: from now on it runs on the caller's CPUs but for the current one, if
    /// there are others. Costs a look at a number where that is so already.
    pub fn avoid_current(&self) {
        if let Some(cpu) = current()
            && self.avoided.swap(cpu, Ordering::Relaxed) != cpu
        {
            self.avoid(cpu);
        }
    }

    #[cfg(target_os = "linux")]
    fn avoid(&self, cpu: usize) {
        let Some(mut set) = affinity() else { return };
        // SAFETY: `cpu` is the number of a CPU, and the thread has not ended (see `of`). If the call fails, the worker
        // runs where it did.
        unsafe {
            libc::CPU_CLR(cpu, &mut set);
            if libc::CPU_COUNT(&set) > 0 {
                libc::pthread_setaffinity_np(self.worker, size_of::<libc::cpu_set_t>(), &set);
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn avoid(&self, _: usize) {}
}

/// Where the threads of a pool compute, so that they do not share a CPU while others are free.
///
/// Systems see to that themselves, but in milliseconds, and a call takes no more than that.
#[derive(Debug)]
pub struct Cores {
    /// By the CPU's number, how many of the pool's threads compute there.
    busy: Box<[AtomicUsize]>,
}

impl Cores {
    pub fn new() -> Self {
        #[cfg(target_os = "linux")]
        let count = libc::CPU_SETSIZE as usize;
        #[cfg(not(target_os = "linux"))]
        let count = 0;
        Self { busy: std::iter::repeat_with(AtomicUsize::default).take(count).collect() }
    }

    /// The calling thread begins to compute: if another one does so on the same CPU and it may run on a free one, it
    /// goes there. The result is for [`Cores::leave`].
    pub fn enter(&self) -> Option<usize> {
        let mut cpu = current()?;
        if self.busy[cpu].load(Ordering::Relaxed) > 0 {
            cpu = self.move_away().unwrap_or(cpu);
        }
        self.busy[cpu].fetch_add(1, Ordering::Relaxed);
        Some(cpu)
    }

    /// It has finished.
    pub fn leave(&self, entered: Option<usize>) {
        if let Some(cpu) = entered {
            self.busy[cpu].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Go to a free CPU, if there is one; which.
    #[cfg(target_os = "linux")]
    fn move_away(&self) -> Option<usize> {
        let allowed = affinity()?;
        let mut free = allowed;
        // SAFETY: all numbers are below the sets' size, and a call that fails changes nothing.
        unsafe {
            for (cpu, _) in self.busy.iter().enumerate().filter(|(_, busy)| busy.load(Ordering::Relaxed) > 0)
            {
                libc::CPU_CLR(cpu, &mut free);
            }
            let set =
                |set: &libc::cpu_set_t| libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) == 0;
            // What it may run on is as before once it is there.
            let there = (libc::CPU_COUNT(&free) > 0 && set(&free)).then(current)?;
            set(&allowed);
            there
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn move_away(&self) -> Option<usize> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    fn cpus(set: &libc::cpu_set_t) -> Vec<usize> {
        // SAFETY: numbers below the set's size.
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, set) }).collect()
    }

    #[test]
    fn a_worker_gets_the_callers_cpus_without_the_callers_own() {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let (tell, told) = std::sync::mpsc::channel();
        let worker = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                thread::park();
            }
            tell.send(cpus(&affinity().unwrap())).unwrap();
        });
        let place = Place::of(&worker);
        place.avoid_current();
        let avoided = place.avoided.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        worker.thread().unpark();
        let own = cpus(&affinity().unwrap());
        let expected: Vec<_> = own.iter().copied().filter(|cpu| *cpu != avoided || own.len() == 1).collect();
        assert_eq!(told.recv().unwrap(), expected);
        worker.join().unwrap();
    }

    #[test]
    fn who_begins_on_a_taken_cpu_goes_to_a_free_one_and_may_still_run_anywhere() {
        let before = cpus(&affinity().unwrap());
        let (cores, free) = (Cores::new(), *before.last().unwrap());
        // All but one are taken, whichever this thread is on.
        let taken = || before.iter().filter(|cpu| **cpu != free);
        taken().for_each(|cpu| cores.busy[*cpu].store(1, Ordering::Relaxed));
        let entered = cores.enter();
        assert_eq!(entered, Some(free));
        assert_eq!(cpus(&affinity().unwrap()), before);
        // Now none is free: it stays where it is.
        let again = cores.enter();
        assert!(again.is_some());
        cores.leave(again);
        cores.leave(entered);
        let left = |cpu: &usize| cores.busy[*cpu].load(Ordering::Relaxed);
        assert_eq!((left(&free), taken().map(left).sum::<usize>()), (0, before.len() - 1));
    }
}
