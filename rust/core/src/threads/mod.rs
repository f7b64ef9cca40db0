//! The one thread pool of the process, and what its threads share.
//!
//! The pool has as many slots as the machine gives this process cores. A call joins it with up to `limit` of them: all
//! if it is alone, its part if there are several, at least one (its own thread), waiting if there is none. So however
//! many Python threads call at once, no more threads compute than there are slots, and calls that compete run beside
//! each other and not one behind the other as teams. A team runs the same function on each of its members; between the
//! phases of a forward pass they meet at a barrier. All waiting spins for as long as it is usually short and then sleeps.

mod cores;
mod count;
mod crowd;
mod queue;
mod shared;
#[cfg(test)]
mod tests;
mod wait;

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

pub use count::{default_threads, thread_limit};
pub use shared::Shared;
pub use wait::lock;

use cores::{Cores, Place};
use crowd::{Crowd, cpu_time};
use queue::Queue;
use wait::{Barrier, Event, spin};

/// How long a member spins for the others of its team. Members that run at the same time rarely differ by more; one
/// whose core was taken away stays away for milliseconds, and this one's core is where it could go on.
const BARRIER_SPIN: Duration = Duration::from_micros(50);

/// How long a worker spins for its next job: across what a caller does between two calls.
const IDLE_SPIN: Duration = Duration::from_micros(100);

/// How long a team waits for a member to turn up. An idle core wakes up within some tens of microseconds; a worker
/// that takes longer waits for its turn behind other programs. Long work waits for this share of what it takes.
const GATHER: (Duration, u32) = (Duration::from_micros(200), 20);

/// Work that takes longer than this is for all members, whatever became of teams just before: that tells too little
/// about so long a time.
const LONG: Duration = Duration::from_millis(50);

/// A fixed set of threads; see the module's text.
#[derive(Debug)]
pub struct Pool {
    pid: u32,
    queue: Queue,
    crowd: Crowd,
    cores: Cores,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// What it is to do: null if it is idle, [`Worker::BUSY`] once it has begun. Whoever puts a job on an idle worker's
    /// desk has that worker.
    desk: Arc<AtomicPtr<Job<'static>>>,
    thread: Thread,
    place: Place,
}

/// A call with its slots: its own thread and some workers. They are given back when it is dropped.
#[derive(Debug)]
pub struct Team<'p> {
    pool: &'p Pool,
    size: usize,
    /// Where its own thread computes.
    core: Option<usize>,
    /// What its next work takes one thread, more or less.
    expected: Duration,
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
    /// How many members there are, once that is known; 0 until then.
    size: AtomicUsize,
    settled: Event,
    /// Nanoseconds that members had a core, if that is asked for.
    cpu: Option<AtomicU64>,
    barrier: Barrier,
    caller: Thread,
    pool: &'a Pool,
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
        let workers: Vec<Worker> = (1..size).map_while(|_| Worker::spawn().ok()).collect();
        Self {
            pid: std::process::id(),
            queue: Queue::new(workers.len() + 1),
            crowd: Crowd::new(),
            cores: Cores::new(),
            workers,
        }
    }

    /// How many threads compute at most.
    pub fn size(&self) -> usize {
        self.queue.size()
    }

    /// Get slots, at most `limit`, and wake their threads. Waits while all slots are taken.
    pub fn join(&self, limit: usize) -> Team<'_> {
        assert!(!INSIDE.get(), "a call into the pool from inside of it would wait for itself");
        let mut team =
            Team { pool: self, size: 0, core: None, expected: Duration::ZERO, _not_send: PhantomData };
        team.enter(limit);
        team
    }

    /// [`Team::run`] in a team of at most `limit` threads. Waits while all slots are taken.
    pub fn run<F: Fn(Member<'_>) + Sync>(&self, limit: usize, work: F) {
        self.join(limit).run(limit, work);
    }

    /// Call `work` with the number and the values of each chunk of `out`, in any order, on up to `limit` threads.
    pub fn for_each_chunk<T: Send>(
        &self,
        limit: usize,
        out: &mut [T],
        chunk: usize,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let (count, len) = (out.len().div_ceil(chunk), out.len());
        let out = Shared::new(out);
        self.join(limit.min(count)).each(limit, count, |i| {
            // SAFETY: each number is drawn once, and chunks are disjoint.
            work(i, unsafe { out.slice(i * chunk..len.min((i + 1) * chunk)) });
        });
    }

    fn job<'a>(&'a self, work: &'a (dyn Fn(Member<'_>) + Sync), helpers: usize, gather: bool) -> Job<'a> {
        Job {
            next: AtomicUsize::new(1),
            running: AtomicUsize::new(helpers),
            left: AtomicUsize::new(0),
            size: AtomicUsize::new(if gather { 0 } else { helpers + 1 }),
            settled: Event::default(),
            cpu: gather.then(AtomicU64::default),
            barrier: Barrier::default(),
            caller: thread::current(),
            pool: self,
            work,
            panic: Mutex::new(None),
        }
    }

    /// Hand the job to so many idle workers. There are as many: a worker is only busy for a team that holds a slot for
    /// it.
    fn dispatch(&self, job: &Job<'_>, helpers: usize) {
        let mut missing = helpers;
        while missing > 0 {
            for worker in &self.workers {
                if missing > 0 && worker.give(job) {
                    missing -= 1;
                }
            }
        }
    }

    /// Take the job back from workers that have not begun; how many.
    fn recall(&self, job: &Job<'_>) -> usize {
        let count = self.workers.iter().filter(|worker| worker.take_back(job)).count();
        job.running.fetch_sub(count, Ordering::AcqRel);
        count
    }
}

impl Team<'_> {
    /// How many threads it may use, the calling one included: fewer after a run whose workers left.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many threads should work together, meeting at barriers: fewer where other programs take the cores away.
    pub fn together(&self) -> usize {
        if self.expected > LONG { self.size } else { self.size.min(self.pool.crowd.most()) }
    }

    /// What its next work takes one thread, more or less: longer work waits longer for members.
    pub fn expect(&mut self, work: Duration) {
        self.expected = work;
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
        self.core = self.pool.cores.enter();
        self.wake();
    }

    fn leave(&mut self) {
        INSIDE.set(false);
        self.pool.cores.leave(self.core.take());
        self.pool.queue.leave(std::mem::take(&mut self.size));
    }

    /// Run `work` once on each of at most `limit` members, which may meet at barriers and share by their numbers. How
    /// many they are is settled before they start: workers that do not turn up at once are not among them.
    ///
    /// A panic of any member is passed on.
    pub fn run<F: Fn(Member<'_>) + Sync>(&mut self, limit: usize, work: F) {
        let helpers = limit.clamp(1, self.size) - 1;
        if helpers == 0 {
            return self.draw(1, work);
        }
        let pool = self.pool;
        let job = pool.job(&work, helpers, true);
        pool.dispatch(&job, helpers);
        spin(GATHER.0.max(self.expected / GATHER.1), || job.next.load(Ordering::Relaxed) > helpers);
        let missing = pool.recall(&job);
        let size = helpers + 1 - missing;
        job.size.store(size, Ordering::SeqCst);
        job.settled.tell();
        let start = Instant::now();
        job.take_part(0);
        job.wait_for_workers();
        if missing > 0 {
            pool.crowd.report_missing(helpers + 1);
        } else if let Some(cpu) = &job.cpu {
            let cpu = Duration::from_nanos(cpu.load(Ordering::Relaxed));
            pool.crowd.report(size, cpu, start.elapsed());
        }
        self.finish(job);
    }

    /// Call `work` with each number below `count`, once, in any order, on at most `limit` members.
    ///
    /// A panic of any member is passed on.
    pub fn each(&mut self, limit: usize, count: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        self.draw(limit, |member| {
            while !member.should_leave() {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    break;
                }
                work(i);
            }
        });
    }

    /// Run `work` on at most `limit` members that draw their parts from a common counter and do not wait for each other.
    /// The caller starts at once, and nobody waits for workers that have not started when it has finished.
    ///
    /// A panic of any member is passed on.
    pub fn draw<F: Fn(Member<'_>) + Sync>(&mut self, limit: usize, work: F) {
        let helpers = limit.clamp(1, self.size) - 1;
        let pool = self.pool;
        let job = pool.job(&work, helpers, false);
        pool.dispatch(&job, helpers);
        job.take_part(0);
        if helpers > 0 {
            pool.recall(&job);
            job.wait_for_workers();
        }
        self.finish(job);
    }

    fn finish(&mut self, job: Job<'_>) {
        let (left, panic) = (job.left.into_inner(), job.panic.into_inner());
        self.size -= left;
        if let Some(panic) = panic.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// Wake as many idle workers as the team will need: they spin by the time there is a job.
    fn wake(&self) {
        let idle = self.pool.workers.iter().filter(|worker| worker.desk.load(Ordering::Relaxed).is_null());
        idle.take(self.size - 1).for_each(Worker::wake);
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
    /// As it lies on desks, which know no lifetimes.
    fn address(&self) -> *mut Job<'static> {
        (&raw const *self).cast_mut().cast()
    }

    fn take_part(&self, index: usize) {
        let size = || self.size.load(Ordering::SeqCst);
        self.settled.wait_until(BARRIER_SPIN, || size() > 0);
        let member = Member { index, size: size(), barrier: &self.barrier, queue: &self.pool.queue };
        let start = self.cpu.as_ref().and_then(|_| cpu_time());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(member))) {
            // The first panic is the cause; the others are members that found the barrier broken.
            let mut first = lock(&self.panic);
            if self.barrier.shatter() {
                *first = Some(panic);
            }
        }
        if let (Some(cpu), Some(start), Some(end)) = (&self.cpu, start, cpu_time()) {
            cpu.fetch_add((end.saturating_sub(start)).as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// Wait, as the caller, until no worker has the job any more.
    fn wait_for_workers(&self) {
        let finished = || self.running.load(Ordering::Acquire) == 0;
        if !spin(BARRIER_SPIN, finished) {
            while !finished() {
                thread::park();
            }
        }
    }
}

impl Worker {
    /// On the desk of a worker that has begun: no job lies there.
    const BUSY: *mut Job<'static> = std::ptr::without_provenance_mut(1);

    fn spawn() -> std::io::Result<Self> {
        let desk = Arc::new(AtomicPtr::<Job<'static>>::new(std::ptr::null_mut()));
        let mine = Arc::clone(&desk);
        let handle = thread::Builder::new().name("bertfast".into()).spawn(move || {
            INSIDE.set(true);
            loop {
                while !spin(IDLE_SPIN, || !mine.load(Ordering::Relaxed).is_null()) {
                    thread::park();
                }
                let job = mine.load(Ordering::Relaxed);
                if job.is_null() {
                    continue; // it was taken back
                }
                let begin = mine.compare_exchange(job, Self::BUSY, Ordering::Acquire, Ordering::Relaxed);
                if begin.is_ok() {
                    // SAFETY: it was on the desk, and a job that a worker has begun stays until the worker has
                    // decremented `running`.
                    unsafe { Self::work_on(job, &mine) };
                }
            }
        })?;
        Ok(Self { desk, thread: handle.thread().clone(), place: Place::of(&handle) })
    }

    /// Make it look at its desk.
    fn wake(&self) {
        self.place.avoid_current();
        self.thread.unpark();
    }

    /// Give it a job, if it is idle.
    fn give(&self, job: &Job<'_>) -> bool {
        let idle = std::ptr::null_mut();
        let given =
            self.desk.compare_exchange(idle, job.address(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if given {
            self.wake();
        }
        given
    }

    /// Take a job back, if it is on its desk and not begun.
    fn take_back(&self, job: &Job<'_>) -> bool {
        let idle = std::ptr::null_mut();
        self.desk.compare_exchange(job.address(), idle, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Do a job that it has begun.
    ///
    /// # Safety
    /// The job lives until its `running` is decremented.
    unsafe fn work_on(job: *const Job<'static>, desk: &AtomicPtr<Job<'static>>) {
        // SAFETY: the caller's contract.
        let job = unsafe { &*job };
        let index = job.next.fetch_add(1, Ordering::Relaxed);
        let core = job.pool.cores.enter();
        job.take_part(index);
        job.pool.cores.leave(core);
        // Idle before the slot is given back: who holds a slot finds a worker.
        desk.store(std::ptr::null_mut(), Ordering::Release);
        if job.pool.queue.anyone_waits() {
            job.left.fetch_add(1, Ordering::Relaxed);
            job.pool.queue.give_back(1);
        }
        let caller = job.caller.clone();
        // From here on there may be no job.
        job.running.fetch_sub(1, Ordering::AcqRel);
        caller.unpark();
    }
}
