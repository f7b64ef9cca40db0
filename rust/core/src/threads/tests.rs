//! The pool: members, barriers, slots, panics.

use std::sync::atomic::AtomicBool;

use super::*;

#[test]
fn shares_cover_everything_once() {
    let (barrier, queue) = (Barrier::default(), Queue::new(1));
    for size in 1..6 {
        for n in 0..40 {
            let shares: Vec<_> = (0..size)
                .map(|index| Member { index, size, barrier: &barrier, queue: &queue }.share(n))
                .collect();
            assert_eq!(shares.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
        }
    }
}

/// Run until the whole team has turned up: on a busy machine some may be missing.
fn run_all(pool: &Pool, size: usize, work: impl Fn(Member<'_>) + Sync) {
    let mut team = pool.join(size);
    let complete = AtomicBool::new(false);
    while !complete.load(Ordering::SeqCst) {
        team.run(size, |m| {
            if m.size == size {
                complete.store(true, Ordering::SeqCst);
                work(m);
            }
        });
    }
}

#[test]
fn every_member_runs_once_and_barriers_order_their_writes() {
    let pool = Pool::new(4);
    for _ in 0..200 {
        let mut data = vec![0usize; 4];
        let shared = Shared::new(&mut data);
        pool.run(4, |m| {
            for round in 1..20 {
                // SAFETY: each member writes its own place between barriers, and reads all after them.
                unsafe { shared.slice(m.index..m.index + 1)[0] = round * (m.index + 1) };
                m.barrier();
                // SAFETY: nobody writes before the next barrier.
                let all: Vec<usize> = (0..m.size).map(|i| unsafe { *shared.data.add(i) }).collect();
                assert_eq!(all, [round, 2 * round, 3 * round, 4 * round][..m.size]);
                m.barrier();
            }
        });
    }
}

#[test]
fn nobody_waits_for_a_worker_that_does_not_come() {
    // Its only worker never looks at its desk.
    let desk = Arc::new(AtomicPtr::new(std::ptr::null_mut()));
    let other = thread::spawn(|| ());
    let absent = Worker { desk: Arc::clone(&desk), thread: thread::current(), place: Place::of(&other) };
    let (queue, crowd, cores) = (Queue::new(2), Crowd::new(), Cores::new());
    let pool = Pool { pid: 0, queue, crowd, cores, workers: vec![absent] };
    let mut team = pool.join(2);
    assert_eq!((team.size(), team.together()), (2, 2));
    let members = Mutex::new(Vec::new());
    team.run(2, |m| lock(&members).push((m.index, m.size)));
    assert_eq!(team.together(), 1, "the next team is smaller");
    team.draw(2, |m| lock(&members).push((m.index, m.size)));
    assert_eq!(*lock(&members), [(0, 1), (0, 2)]);
    assert!(desk.load(Ordering::SeqCst).is_null());
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
            run_all(&pool, 3, |m| {
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
        run_all(&pool, 2, |m| {
            if m.index == late {
                // Never comes true if the other one goes on spinning.
                while !m.barrier.event.anyone_sleeps() {
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
            team.draw(2, |m| {
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

#[test]
fn long_work_is_for_all_whatever_became_of_short_teams() {
    let pool = Pool::new(2);
    let mut team = pool.join(2);
    for _ in 0..20 {
        pool.crowd.report_missing(2);
    }
    assert_eq!(team.together(), 1);
    team.expect(Duration::from_secs(1));
    assert_eq!(team.together(), 2);
    team.expect(Duration::from_millis(1));
    assert_eq!(team.together(), 1);
}
