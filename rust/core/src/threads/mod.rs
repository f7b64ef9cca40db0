//! The one thread pool of the process, and what its threads share.
//!
//! The pool has as many slots as the machine gives this process cores. A call joins it with up to `limit` of them: all
//! if it is alone, its part if there are several, at least one (its own thread), waiting if there is none. So however
//! many Python threads call at once, no more threads compute than there are slots, and calls that compete run beside
//! each other and not one behind the other as teams. A team runs the same function on each of its members; between the
//! phases of a forward pass they meet at a barrier. All waiting spins for as long as it is usually short and then sleeps.

mod count;
mod queue;
mod wait;

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

pub use count::default_threads;

use queue::Queue;
use wait::{Barrier, lock, spin};

/// How long a member spins for the others of its team. Members that run at the same time rarely differ by more; one
/// whose core was taken away stays away for milliseconds, and this one's core is where it could go on.
const BARRIER_SPIN: Duration = Duration::from_micros(10);

/// How long a worker spins for its next job: across what a caller does between two calls.
const IDLE_SPIN: Duration = Duration::from_micros(50);

/// A fixed set of threads; see the module's text.
#[derive(Debug)]
pub struct Pool {
    pid: u32,
    queue: Queue,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// What it works on: null if it is idle. Whoever puts a job into an idle worker's desk has that worker.
    desk: Arc<AtomicPtr<Job<'static>>>,
    thread: Thread,
}

/// A call with its slots: its own thread and some workers. They are given back when it is dropped.
#[derive(Debug)]
pub struct Team<'p> {
    pool: &'p Pool,
    size: usize,
    /// It belongs to the thread that made it.
    _not_send: PhantomData<*const ()>,
}

/// One dispatch, on the stack of the caller, who stays until `running` is 0.
struct Job<'a> {
    /// Index of the next member to start.
    next: AtomicUsize,
    /// Workers that have not finished.
    running: AtomicUsize,
    /// Workers that finished and gave their slots to other calls.
    left: AtomicUsize,
    size: usize,
    barrier: Barrier,
    caller: Thread,
    queue: &'a Queue,
    work: &'a (dyn Fn(Member<'_>) + Sync),
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// One thread of a team, as the work sees it.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its number, below `size`; 0 is the calling thread.
    pub index: usize,
    /// How many there are.
    pub size: usize,
    barrier: &'a Barrier,
    queue: &'a Queue,
}

impl Member<'_> {
    /// A team of one, for work that members do apart.
    pub fn alone(&self) -> Self {
        Self { index: 0, size: 1, ..*self }
    }

    /// This member's part of `0..n`: contiguous, sizes differ by at most one.
    pub fn share(&self, n: usize) -> Range<usize> {
        n * self.index / self.size..n * (self.index + 1) / self.size
    }

    /// Wait until every member is here; all that was written before is visible to all after.
    ///
    /// Panics if another member has panicked, so that nobody waits forever.
    pub fn barrier(&self) {
        if self.size > 1 {
            self.barrier.wait(self.size, BARRIER_SPIN);
        }
    }

    /// Whether another call waits for a slot and this member is one that the team can do without: a worker that
    /// leaves unfinished work to the others and returns makes room at once.
    pub fn should_leave(&self) -> bool {
        self.index > 0 && self.queue.anyone_waits()
    }
}

thread_local! {
    /// Whether this thread computes for a pool: from inside, a call into the pool would wait for itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
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
        // The slots are counted when the threads are there: those that could not be started (a limit of the system)
        // are slots that do not exist.
        let workers: Vec<Worker> = (1..size).filter_map(|_| Worker::spawn().ok()).collect();
        Self { pid: std::process::id(), queue: Queue::new(workers.len() + 1), workers }
    }

    /// How many threads compute at most.
    pub fn size(&self) -> usize {
        self.queue.size()
    }

    /// Get slots, at most `limit`, and wake their threads. Waits while all slots are taken.
    pub fn join(&self, limit: usize) -> Team<'_> {
        assert!(!INSIDE.get(), "a call into the pool from inside of it would wait for itself");
        let mut team = Team { pool: self, size: 0, _not_send: PhantomData };
        team.enter(limit);
        team
    }

    /// Run `work` once on each member of a team of at most `limit` threads, the caller among them.
    ///
    /// Waits while all slots are taken. A panic of any member is passed on.
    pub fn run<F: Fn(Member<'_>) + Sync>(&self, limit: usize, work: F) {
        self.join(limit).run(work);
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
        self.run(limit.min(count), |member| {
            while !member.should_leave() {
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

impl Team<'_> {
    /// How many threads it has, the calling one included. May change after each [`Team::run`].
    pub fn size(&self) -> usize {
        self.size
    }

    /// Give all slots back, do something else, and get slots again, at most `limit`: to be called now and then in long
    /// work, so that others have their turn. `between` may wait for anything and call into the pool.
    pub fn pause<R>(&mut self, limit: usize, between: impl FnOnce() -> R) -> R {
        self.leave();
        let result = between();
        self.enter(limit);
        result
    }

    fn enter(&mut self, limit: usize) {
        self.size = self.pool.queue.take(limit);
        INSIDE.set(true);
        self.wake();
    }

    fn leave(&mut self) {
        INSIDE.set(false);
        self.pool.queue.leave(std::mem::take(&mut self.size));
    }

    /// Run `work` once on each member. A panic of any member is passed on.
    pub fn run<F: Fn(Member<'_>) + Sync>(&mut self, work: F) {
        let job = Job {
            next: AtomicUsize::new(1),
            running: AtomicUsize::new(self.size - 1),
            left: AtomicUsize::new(0),
            size: self.size,
            barrier: Barrier::default(),
            caller: thread::current(),
            queue: &self.pool.queue,
            work: &work,
            panic: Mutex::new(None),
        };
        self.dispatch(&job);
        job.take_part(0);
        let finished = || job.running.load(Ordering::Acquire) == 0;
        if !spin(BARRIER_SPIN, finished) {
            while !finished() {
                thread::park();
            }
        }
        self.size -= job.left.into_inner();
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// Hand the job to as many idle workers as there are slots besides the caller's. There are that many: a worker
    /// is only busy for a team that holds a slot for it.
    fn dispatch(&self, job: &Job<'_>) {
        let mut missing = self.size - 1;
        while missing > 0 {
            for worker in &self.pool.workers {
                if missing > 0 && worker.give(job) {
                    missing -= 1;
                }
            }
        }
    }

    /// Wake as many idle workers as the team will need: they spin by the time there is a job.
    fn wake(&self) {
        let idle = self.pool.workers.iter().filter(|worker| worker.desk.load(Ordering::Relaxed).is_null());
        idle.take(self.size - 1).for_each(|worker| worker.thread.unpark());
    }
}

impl Drop for Team<'_> {
    fn drop(&mut self) {
        // It has none if there was a panic in a pause.
        if self.size > 0 {
            self.leave();
        }
    }
}

impl Job<'_> {
    fn take_part(&self, index: usize) {
        let member = Member { index, size: self.size, barrier: &self.barrier, queue: self.queue };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(member))) {
            // The first panic is the cause; the others are members that found the barrier broken.
            let mut first = lock(&self.panic);
            if self.barrier.shatter() {
                *first = Some(panic);
            }
        }
    }
}

impl Worker {
    fn spawn() -> std::io::Result<Self> {
        let desk = Arc::new(AtomicPtr::<Job<'static>>::new(std::ptr::null_mut()));
        let mine = Arc::clone(&desk);
        let handle = thread::Builder::new().name("bertfast".into()).spawn(move || {
            INSIDE.set(true);
            loop {
                while !spin(IDLE_SPIN, || !mine.load(Ordering::Acquire).is_null()) {
                    thread::park();
                }
                // SAFETY: the team that put it there stays until this thread has decremented `running`.
                unsafe { Self::work_at(&mine) };
            }
        })?;
        Ok(Self { desk, thread: handle.thread().clone() })
    }

    /// Give it a job, if it is idle.
    fn give(&self, job: &Job<'_>) -> bool {
        let job = (&raw const *job).cast_mut().cast();
        let idle = std::ptr::null_mut();
        let given = self.desk.compare_exchange(idle, job, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if given {
            self.thread.unpark();
        }
        given
    }

    /// Do the job on the desk.
    ///
    /// # Safety
    /// There is one, and it lives until its `running` is decremented.
    unsafe fn work_at(desk: &AtomicPtr<Job<'static>>) {
        // SAFETY: the caller's contract.
        let job = unsafe { &*desk.load(Ordering::Acquire) };
        job.take_part(job.next.fetch_add(1, Ordering::Relaxed));
        // Idle before the slot is given back: who holds a slot finds a worker.
        desk.store(std::ptr::null_mut(), Ordering::Release);
        if job.queue.anyone_waits() {
            job.left.fetch_add(1, Ordering::Relaxed);
            job.queue.give_back(1);
        }
        let caller = job.caller.clone();
        // From here on there may be no job.
        job.running.fetch_sub(1, Ordering::AcqRel);
        caller.unpark();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        let (barrier, queue) = (Barrier::default(), Queue::new(1));
        for size in 1..6 {
            for n in 0..40 {
                let shares: Vec<_> = (0..size)
                    .map(|index| Member { index, size, barrier: &barrier, queue: &queue }.share(n))
                    .collect();
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
        assert_eq!(pool.join(9).size(), 3);
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

    #[test]
    fn who_waits_long_at_a_barrier_sleeps_and_is_woken() {
        let pool = Pool::new(2);
        for late in 0..2 {
            pool.run(2, |m| {
                if m.index == late {
                    // Never comes true if the other one goes on spinning.
                    while !m.barrier.anyone_sleeps() {
                        thread::yield_now();
                    }
                }
                m.barrier();
            });
        }
    }

    #[test]
    fn a_worker_leaves_when_another_call_waits() {
        let pool = Pool::new(2);
        let (started, stop) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut team = pool.join(2);
                team.run(|m| {
                    started.fetch_add(1, Ordering::SeqCst);
                    while stop.load(Ordering::SeqCst) == 0 && !m.should_leave() {
                        thread::yield_now();
                    }
                });
                assert_eq!(team.size(), 1);
            });
            while started.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            // Gets its slot while the other call goes on.
            pool.run(2, |m| assert_eq!(m.size, 1));
            stop.store(1, Ordering::SeqCst);
        });
        assert_eq!(pool.join(2).size(), 2);
    }

    #[test]
    fn in_a_pause_the_slots_are_free() {
        let pool = Pool::new(2);
        let mut team = pool.join(1);
        assert_eq!(team.size(), 1);
        assert_eq!(team.pause(2, || pool.join(9).size()), 2);
        assert_eq!(team.size(), 2);
        let inside = catch_unwind(AssertUnwindSafe(|| pool.join(1)));
        assert!(inside.is_err(), "a second team of the same thread would wait for the first");
        let caught = catch_unwind(AssertUnwindSafe(|| team.pause(2, || panic!("in a pause"))));
        assert!(caught.is_err());
        drop(team);
        assert_eq!(pool.join(2).size(), 2);
    }
}
