//! The one thread pool of the process, and what its threads share.
//!
//! The pool has as many slots as the machine gives this process cores. A call asks for up to `limit` of them and gets
//! what is free, at least one (its own thread), waiting if there is none: however many Python threads call at once,
//! no more threads compute than there are slots. One dispatch runs the same function on every member of the team;
//! between the phases of a forward pass they meet at a spinning barrier.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

/// Turns of a waiting loop before it gives its core away: some 50 microseconds.
const SPINS: u32 = 2000;

/// Take a lock that no panic can leave inconsistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fixed set of threads; see the module's text.
#[derive(Debug)]
pub struct Pool {
    pid: u32,
    idle: Mutex<Idle>,
    freed: Condvar,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Idle {
    slots: usize,
    workers: Vec<usize>,
}

#[derive(Debug)]
struct Worker {
    mailbox: Arc<AtomicPtr<Job>>,
    thread: Thread,
}

/// What a team runs.
type Work<'a> = *const (dyn Fn(Member<'_>) + Sync + 'a);

/// One dispatch, on the stack of the caller, who outlives it.
struct Job {
    /// Index of the next member to start.
    next: AtomicUsize,
    /// Workers that have not finished.
    running: AtomicUsize,
    size: usize,
    team: Team,
    /// Lifetime erased: valid until `running` is 0.
    work: Work<'static>,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

#[derive(Debug, Default)]
struct Team {
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
}

/// One thread of a team, as the work sees it.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its number, below `size`; 0 is the calling thread.
    pub index: usize,
    /// How many there are.
    pub size: usize,
    team: &'a Team,
}

impl Member<'_> {
    /// A team of one, for work that members do apart.
    pub fn alone(&self) -> Self {
        Self { index: 0, size: 1, team: self.team }
    }

    /// This member's part of `0..n`: contiguous, sizes differ by at most one.
    pub fn share(&self, n: usize) -> Range<usize> {
        n * self.index / self.size..n * (self.index + 1) / self.size
    }

    /// Wait until every member is here; all that was written before is visible to all after.
    ///
    /// Panics if another member has panicked, so that nobody waits forever.
    pub fn barrier(&self) {
        if self.size == 1 {
            return;
        }
        let generation = self.team.generation.load(Ordering::Acquire);
        if self.team.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.team.arrived.store(0, Ordering::Relaxed);
            self.team.generation.store(generation + 1, Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.team.generation.load(Ordering::Acquire) == generation {
            assert!(!self.team.broken.load(Ordering::Relaxed), "another thread of the team panicked");
            pause(&mut spins);
        }
    }
}

/// Spin for a while, then yield: the thread that is waited for may need this core.
fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

impl Pool {
    /// The pool of this process. After a `fork` the child gets a new one: threads do not survive a fork.
    pub fn global() -> &'static Self {
        static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());
        let pid = std::process::id();
        let current = POOL.load(Ordering::Acquire);
        // SAFETY: only ever null or a leaked pool.
        if let Some(pool) = unsafe { current.as_ref() }
            && pool.pid == pid
        {
            return pool;
        }
        let fresh = Box::into_raw(Box::new(Self::new(default_threads())));
        match POOL.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just leaked.
            Ok(_) => unsafe { &*fresh },
            Err(winner) => {
                // SAFETY: nobody has seen `fresh`; another thread's pool is leaked like ours would have been.
                unsafe {
                    drop(Box::from_raw(fresh));
                    &*winner
                }
            }
        }
    }

    /// A pool of `size` slots: the caller's own and `size - 1` threads.
    pub fn new(size: usize) -> Self {
        let size = size.max(1);
        let workers: Vec<Worker> = (1..size).filter_map(|_| Worker::spawn().ok()).collect();
        // Threads that could not be started (a limit of the system) are slots that do not exist.
        let idle = Idle { slots: workers.len() + 1, workers: (0..workers.len()).collect() };
        Self { pid: std::process::id(), idle: Mutex::new(idle), freed: Condvar::new(), workers }
    }

    /// How many threads compute at most.
    pub fn size(&self) -> usize {
        self.workers.len() + 1
    }

    /// Run `work` once on each member of a team of at most `limit` threads, the caller among them.
    ///
    /// Waits while all slots are taken. A panic of any member is passed on.
    pub fn run<F: Fn(Member<'_>) + Sync>(&self, limit: usize, work: F) {
        thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
        assert!(!INSIDE.get(), "a call into the pool from inside of it would wait for itself");
        let mut chosen = Vec::new();
        {
            let mut idle = lock(&self.idle);
            while idle.slots == 0 {
                idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
            }
            let helpers = limit.clamp(1, idle.slots) - 1;
            for _ in 0..helpers {
                chosen.extend(idle.workers.pop());
            }
            idle.slots -= chosen.len() + 1;
        }
        INSIDE.set(true);
        let outcome = self.dispatch(&chosen, &work);
        INSIDE.set(false);
        {
            let mut idle = lock(&self.idle);
            idle.slots += chosen.len() + 1;
            idle.workers.append(&mut chosen);
        }
        self.freed.notify_all();
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }

    fn dispatch(
        &self,
        chosen: &[usize],
        work: &(dyn Fn(Member<'_>) + Sync),
    ) -> Result<(), Box<dyn std::any::Any + Send>> {
        let job = Job {
            next: AtomicUsize::new(1),
            running: AtomicUsize::new(chosen.len()),
            size: chosen.len() + 1,
            team: Team::default(),
            // SAFETY: only the lifetime changes; this function returns after the last use.
            work: unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) },
            panic: Mutex::new(None),
        };
        for &worker in chosen {
            let worker = &self.workers[worker];
            worker.mailbox.store((&raw const job).cast_mut(), Ordering::Release);
            worker.thread.unpark();
        }
        job.take_part(0);
        let mut spins = 0;
        while job.running.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
        match job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }

    /// Call `work` with the number and the values of each chunk of `out`, in any order, on up to `limit` threads.
    pub fn for_each_chunk<T: Send>(
        &self,
        limit: usize,
        out: &mut [T],
        chunk: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let count = out.len().div_ceil(chunk);
        let (next, len) = (AtomicUsize::new(0), out.len());
        let out = Shared::new(out);
        self.run(limit.min(count), |_| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    break;
                }
                // SAFETY: each number is drawn once, and chunks are disjoint.
                work(i, unsafe { out.slice(i * chunk..len.min((i + 1) * chunk)) });
            }
        });
    }
}

impl Job {
    fn take_part(&self, index: usize) {
        let member = Member { index, size: self.size, team: &self.team };
        // SAFETY: `dispatch` keeps the closure alive until `running` is 0.
        let work = unsafe { &*self.work };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(member))) {
            // The first panic is the cause; the others are members that found the team broken.
            let mut first = lock(&self.panic);
            if !self.team.broken.swap(true, Ordering::AcqRel) {
                *first = Some(panic);
            }
        }
    }
}

impl Worker {
    fn spawn() -> std::io::Result<Self> {
        let mailbox = Arc::new(AtomicPtr::new(std::ptr::null_mut::<Job>()));
        let inbox = Arc::clone(&mailbox);
        let handle = std::thread::Builder::new().name("bertfast".into()).spawn(move || {
            loop {
                let mut spins = 0;
                let job = loop {
                    let job = inbox.swap(std::ptr::null_mut(), Ordering::Acquire);
                    if !job.is_null() {
                        break job;
                    }
                    spins += 1;
                    if spins < SPINS { std::hint::spin_loop() } else { std::thread::park() }
                };
                // SAFETY: `dispatch` keeps the job alive until `running` is 0, which this thread decrements last.
                let job = unsafe { &*job };
                job.take_part(job.next.fetch_add(1, Ordering::Relaxed));
                job.running.fetch_sub(1, Ordering::AcqRel);
            }
        })?;
        Ok(Self { mailbox, thread: handle.thread().clone() })
    }
}

/// A slice that the members of a team write disjoint parts of.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a, T> {
    data: *mut T,
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

/// The number of threads to use unless somebody says otherwise.
///
/// `BERTFAST_NUM_THREADS`, else `OMP_NUM_THREADS`, else the physical cores in the process's affinity mask, at most
/// its cgroup's CPU quota (rounded up). Values that are not positive numbers are ignored.
pub fn default_threads() -> usize {
    let from_environment = ["BERTFAST_NUM_THREADS", "OMP_NUM_THREADS"].into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        value.trim().parse::<usize>().ok().filter(|n| *n > 0)
    });
    from_environment.unwrap_or_else(|| {
        // Respects the affinity mask and the quotas of cgroups v1 and v2.
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(available, |cores| available.min(cores).max(1))
    })
}

/// Physical cores among the CPUs that this process may run on: hyperthreads of one core count once.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    // SAFETY: a zeroed set is an empty set; the call writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return None;
        }
        set
    };
    let mut cores = std::collections::BTreeSet::new();
    for cpu in 0..libc::CPU_SETSIZE as usize {
        // SAFETY: `cpu` is below the set's size.
        if unsafe { libc::CPU_ISSET(cpu, &set) } {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            cores.insert(std::fs::read_to_string(path).ok()?);
        }
    }
    Some(cores.len()).filter(|n| *n > 0)
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        let team = Team::default();
        for size in 1..6 {
            for n in 0..40 {
                let shares: Vec<_> =
                    (0..size).map(|index| Member { index, size, team: &team }.share(n)).collect();
                assert_eq!(
                    shares.iter().flat_map(Clone::clone).collect::<Vec<_>>(),
                    (0..n).collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn every_member_runs_once_and_barriers_order_their_writes() {
        let pool = Pool::new(4);
        for _ in 0..200 {
            let mut data = vec![0usize; 4];
            let shared = Shared::new(&mut data);
            pool.run(4, |m| {
                assert_eq!(m.size, 4);
                for round in 1..20 {
                    // SAFETY: each member writes its own place between barriers, and reads all after them.
                    unsafe { shared.slice(m.index..m.index + 1)[0] = round * (m.index + 1) };
                    m.barrier();
                    // SAFETY: nobody writes before the next barrier.
                    let all: Vec<usize> = (0..4).map(|i| unsafe { *shared.data.add(i) }).collect();
                    assert_eq!(all, [round, 2 * round, 3 * round, 4 * round]);
                    m.barrier();
                }
            });
        }
    }

    #[test]
    fn callers_share_the_slots_and_nobody_exceeds_them() {
        let pool = Pool::new(3);
        let (active, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for limit in 0..50 {
                        pool.run(limit % 5, |_| {
                            most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            active.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(lock(&pool.idle).slots, 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for guilty in 0..3 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(3, |m| {
                    assert!(m.index != guilty, "member {guilty} fails");
                    m.barrier();
                });
            }));
            let message = *caught.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("member {guilty} fails"));
            pool.run(3, |m| m.barrier());
        }
    }

    #[test]
    fn chunks_are_visited_once() {
        let mut data = vec![0usize; 1003];
        Pool::new(3).for_each_chunk(3, &mut data, 10, |i, chunk| chunk.iter_mut().for_each(|x| *x += i + 1));
        assert!(data.iter().enumerate().all(|(i, x)| *x == i / 10 + 1));
        Pool::new(2).for_each_chunk(2, &mut [0u8; 0], 10, |_, _| unreachable!());
    }
}
