//! Who may compute: the slots of a pool, handed from call to call in the order of arrival.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};

use super::wait::lock;

/// As many slots as threads may compute at once. Every call in flight gets its part of them, at least one; who finds
/// none waits, asleep, and gets the first ones that others give back.
#[derive(Debug)]
pub struct Queue {
    size: usize,
    state: Mutex<State>,
    /// How many wait, for those who only want to know that.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    /// Calls that have slots.
    calls: usize,
    waiting: VecDeque<Waiter>,
    /// What was handed to whom who has not woken up yet.
    granted: Vec<(u64, usize)>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    limit: usize,
    thread: Thread,
}

impl Queue {
    /// All slots free.
    pub fn new(size: usize) -> Self {
        // Room for more callers than there usually are: a call does not allocate.
        let (waiting, granted) = (VecDeque::with_capacity(64), Vec::with_capacity(64));
        let state = State { free: size, waiting, granted, ..State::default() };
        Self { size, state: Mutex::new(state), waiting: AtomicUsize::new(0) }
    }

    /// All slots.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether a call waits for slots.
    pub fn anyone_waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// At most `limit` slots, at least one; how many. Waits while there is none, and behind those who wait already.
    pub fn take(&self, limit: usize) -> usize {
        let mut state = lock(&self.state);
        if state.waiting.is_empty() && state.free > 0 {
            return state.give(limit, self.size, 1);
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(Waiter { ticket, limit, thread: thread::current() });
        self.waiting.store(state.waiting.len(), Ordering::Relaxed);
        loop {
            drop(state);
            thread::park();
            state = lock(&self.state);
            if let Some(at) = state.granted.iter().position(|granted| granted.0 == ticket) {
                return state.granted.swap_remove(at).1;
            }
        }
    }

    /// Give some of a call's slots back.
    pub fn give_back(&self, slots: usize) {
        self.release(slots, 0);
    }

    /// Give the last of a call's slots back.
    pub fn leave(&self, slots: usize) {
        self.release(slots, 1);
    }

    fn release(&self, slots: usize, calls: usize) {
        let mut state = lock(&self.state);
        state.free += slots;
        state.calls -= calls;
        while state.free > 0
            && let Some(Waiter { ticket, limit, thread }) = state.waiting.pop_front()
        {
            // A caller that leaves is likely to come back at once: room is kept for it, or two callers would take
            // turns with all slots instead of sharing them.
            let slots = state.give(limit, self.size, 1 + calls);
            state.granted.push((ticket, slots));
            thread.unpark();
        }
        self.waiting.store(state.waiting.len(), Ordering::Relaxed);
    }
}

impl State {
    /// Slots for one more call beside those that have some, those that wait, and so many `others`.
    fn give(&mut self, limit: usize, size: usize, others: usize) -> usize {
        let share = size / (self.calls + self.waiting.len() + others);
        let slots = limit.min(share).clamp(1, self.free);
        self.free -= slots;
        self.calls += 1;
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Wait until so many calls wait.
    fn until_waiting(queue: &Queue, count: usize) {
        while queue.waiting.load(Ordering::Relaxed) != count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_call_alone_gets_all_and_calls_in_flight_share() {
        let queue = Queue::new(8);
        assert_eq!(queue.take(64), 8);
        queue.leave(8);
        assert_eq!([queue.take(3), queue.take(64), queue.take(64)], [3, 4, 1]);
        queue.leave(4);
        // Two calls have 3 and 1, this is the third: a third of 8.
        assert_eq!(queue.take(64), 2);
        assert_eq!(queue.take(0), 1);
        [3, 1, 2, 1].into_iter().for_each(|slots| queue.leave(slots));
        assert_eq!(queue.take(64), 8);
    }

    #[test]
    fn slots_go_to_waiting_calls_in_the_order_of_arrival() {
        let queue = Queue::new(2);
        assert_eq!(queue.take(2), 2);
        let (order, seen) = mpsc::channel();
        thread::scope(|scope| {
            for i in 0..6 {
                let (queue, order) = (&queue, order.clone());
                scope.spawn(move || {
                    let slots = queue.take(2);
                    order.send((i, slots)).unwrap();
                });
                until_waiting(queue, i + 1);
            }
            queue.leave(2);
            until_waiting(&queue, 4);
            let mut first = [seen.recv().unwrap(), seen.recv().unwrap()];
            first.sort_unstable();
            assert_eq!(first, [(0, 1), (1, 1)]);
            for i in 2..6 {
                queue.leave(1);
                // The last one is alone with one that still computes, and with the one that just left.
                assert_eq!(seen.recv().unwrap(), (i, 1));
            }
            queue.leave(1);
            queue.leave(1);
        });
        assert_eq!((queue.anyone_waits(), queue.take(2)), (false, 2));
    }

    #[test]
    fn a_part_given_back_serves_a_waiting_call() {
        let queue = Queue::new(4);
        assert_eq!(queue.take(4), 4);
        thread::scope(|scope| {
            let other = scope.spawn(|| queue.take(4));
            until_waiting(&queue, 1);
            queue.give_back(1);
            assert_eq!(other.join().unwrap(), 1);
        });
        queue.leave(3);
        queue.leave(1);
        assert_eq!(queue.take(4), 4);
    }
}
