//! Which sequences a thread takes together, and whether threads take groups apart or one group as a team.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::batch::Batch;
use crate::config::Config;

/// Tokens of a group: enough that the weights, streamed once per group, cost little beside the arithmetic, few
/// enough that a group's activations stay in the outer caches and an arena stays small.
const GROUP_TOKENS: usize = 384;

/// Below this many tokens for each thread, splitting every matrix beats splitting the texts: the weights would be
/// streamed once per thread for too little work.
const TEAM_TOKENS: usize = 96;

/// Groups that a thread takes between two looks at the signals.
const GROUPS_PER_STEP: usize = 8;

/// Time lost at the barriers of a team, as a share.
const TEAM_LOSS: f64 = 0.06;

/// Sequences in groups, the most expensive group first.
#[derive(Debug, Default)]
pub struct Plan {
    /// Sequence numbers, group after group.
    order: Vec<usize>,
    /// The first row of each in its group.
    starts: Vec<usize>,
    /// The end of each group in `order`.
    ends: Vec<usize>,
    /// Rows of the largest group.
    pub most_rows: usize,
    /// Whether all threads work on each group together, one group after the other.
    pub team: bool,
}

impl Plan {
    /// The best plan for a batch on so many threads. The results do not depend on it.
    pub fn new(config: &Config, batch: &Batch<'_>, threads: usize) -> Self {
        let tokens = batch.tokens();
        let apart = Self::grouped(config, batch, threads);
        if threads == 1 {
            return apart.0;
        }
        let (plan, makespan, total) = apart;
        let together = total / threads as f64 * (1.0 + TEAM_LOSS);
        if tokens < TEAM_TOKENS * threads || together < makespan {
            return Self { team: true, ..Self::grouped(config, batch, 1).0 };
        }
        plan
    }

    /// Groups for `threads` threads that each take the next one, with the time that takes and the total work.
    fn grouped(config: &Config, batch: &Batch<'_>, threads: usize) -> (Self, f64, f64) {
        let cost = |i: usize| sequence_cost(config, batch.sequence(i).1);
        let mut sequences: Vec<usize> = (0..batch.len()).collect();
        sequences.sort_by_key(|i| Reverse(batch.sequence(*i).1));
        // A multiple of the number of threads, filled evenly: the longest sequence goes to the lightest group.
        let count = batch.tokens().div_ceil(GROUP_TOKENS * threads).max(1) * threads;
        let count = count.min(batch.len());
        let mut groups: Vec<(f64, Vec<usize>)> = vec![(0.0, Vec::new()); count];
        let mut lightest: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|g| Reverse((0, g))).collect();
        for i in sequences {
            let Some(Reverse((_, g))) = lightest.pop() else { break };
            groups[g].0 += cost(i);
            groups[g].1.push(i);
            lightest.push(Reverse((groups[g].0 as u64, g)));
        }
        groups.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut busy = vec![0f64; threads];
        for (cost, _) in &groups {
            let first_free = busy.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("at least one thread");
            *first_free += cost;
        }
        let makespan = busy.into_iter().fold(0.0, f64::max);
        let total = groups.iter().map(|g| g.0).sum();
        let mut plan = Self::default();
        for (_, group) in groups {
            let mut rows = 0;
            for sequence in group {
                plan.order.push(sequence);
                plan.starts.push(rows);
                rows += batch.sequence(sequence).1;
            }
            plan.ends.push(plan.order.len());
            plan.most_rows = plan.most_rows.max(rows);
        }
        (plan, makespan, total)
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.ends.len()
    }

    /// Groups in steps of some seconds at most, each enough work for all threads.
    pub fn steps(&self, threads: usize) -> impl Iterator<Item = Range<usize>> {
        let size = if self.team { GROUPS_PER_STEP } else { GROUPS_PER_STEP * threads };
        (0..self.groups()).step_by(size).map(move |start| start..self.groups().min(start + size))
    }

    /// The sequences of group `i`, and the first row of each.
    pub fn group(&self, i: usize) -> (&[usize], &[usize]) {
        let range = if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i];
        (&self.order[range.clone()], &self.starts[range])
    }
}

/// Multiply-adds of one sequence in one layer.
fn sequence_cost(config: &Config, tokens: usize) -> f64 {
    let (d, f, t) = (config.hidden_size as f64, config.intermediate_size as f64, tokens as f64);
    t * (4.0 * d * d + 2.0 * d * f) + 2.0 * t * t * d
}
