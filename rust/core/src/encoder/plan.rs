//! Which sequences a thread takes together, and whether threads take groups apart or one group as a team.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use super::batch::Batch;
use crate::config::Config;

/// Tokens of a group: enough that the weights, streamed once per group, cost little beside the arithmetic, few
/// enough that a group's activations stay in the outer caches and an arena stays small.
pub const GROUP_TOKENS: usize = 256;

/// Below this many tokens for each thread, splitting every matrix beats splitting the texts: the weights would be
/// streamed once per thread for too little work.
const TEAM_TOKENS: usize = 96;

/// Groups that a thread takes between two looks at the signals.
const GROUPS_PER_STEP: usize = 8;

/// Below this many multiply-adds in a layer, one thread is faster than several: some 40 microseconds.
const SMALL_LAYER: f64 = 2.5e6;

/// Time lost at the barriers of a team, as a share.
const TEAM_LOSS: f64 = 0.06;

/// Sequences of a batch from which a plan's memory is not kept between calls: some 2 MB.
const MOST_KEPT: usize = 1 << 14;

/// Who works on the groups of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// The calling thread.
    #[default]
    Alone,
    /// Each thread takes the next group.
    Apart,
    /// All threads work on each group together, one group after the other.
    Together,
}

/// Sequences in groups, the most expensive group first. Made anew for every call, in the same memory.
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
    /// Who works on them.
    pub way: Way,
    /// The sum of `s^2` over the sequences before each, and over all, if it was asked for.
    squares_before: Vec<usize>,
    // Only used while planning.
    groups: Vec<Group>,
    lightest: BinaryHeap<Reverse<(u64, usize)>>,
    group_of: Vec<usize>,
    busy: Vec<f64>,
}

/// A group in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    cost: f64,
    /// Where its next sequence goes in `order`, and that sequence's row.
    at: usize,
    row: usize,
    len: usize,
    number: usize,
}

impl Plan {
    /// Make the best plan for a batch on so many threads, of which fewer may be able to work `together`. The results
    /// do not depend on it.
    pub fn make(&mut self, config: &Config, batch: &Batch<'_>, threads: usize, together: usize) {
        self.squares_before.clear();
        self.way = Way::Alone;
        if threads == 1 || is_small(config, batch) {
            self.group_up(config, batch, 1);
            return;
        }
        let (makespan, total) = self.group_up(config, batch, threads);
        let in_a_team = total / together as f64 * (1.0 + TEAM_LOSS);
        if together > 1 && (batch.tokens() < TEAM_TOKENS * threads || in_a_team < makespan) {
            self.group_up(config, batch, 1);
            self.way = Way::Together;
        } else if self.groups() > 1 {
            self.way = Way::Apart;
        }
    }

    /// Groups for `threads` threads that each take the next one; the time that takes and the total work.
    fn group_up(&mut self, config: &Config, batch: &Batch<'_>, threads: usize) -> (f64, f64) {
        let len = |i: usize| batch.sequence(i).1;
        // A multiple of the number of threads, filled evenly: the longest sequence goes to the lightest group.
        let count = batch.tokens().div_ceil(GROUP_TOKENS * threads).max(1) * threads;
        let count = count.min(batch.len());
        self.order.clear();
        self.order.extend(0..batch.len());
        self.order.sort_unstable_by_key(|i| (Reverse(len(*i)), *i));
        self.groups.clear();
        self.groups.extend((0..count).map(|number| Group { number, ..Group::default() }));
        self.lightest.clear();
        self.lightest.extend((0..count).map(|group| Reverse((0, group))));
        self.group_of.clear();
        self.group_of.resize(batch.len(), 0);
        for &i in &self.order {
            let Some(mut lightest) = self.lightest.peek_mut() else { break };
            let Reverse((cost, number)) = &mut *lightest;
            let group = &mut self.groups[*number];
            group.cost += sequence_cost(config, len(i));
            group.len += 1;
            (*cost, self.group_of[i]) = (group.cost as u64, *number);
        }
        self.groups.sort_unstable_by(|a, b| b.cost.total_cmp(&a.cost).then(a.number.cmp(&b.number)));
        self.busy.clear();
        self.busy.resize(threads, 0.0);
        self.ends.clear();
        let mut end = 0;
        for group in &mut self.groups {
            let first_free = self.busy.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("at least one thread");
            *first_free += group.cost;
            group.at = end;
            end += group.len;
            self.ends.push(end);
        }
        self.put_in_order(batch);
        let makespan = self.busy.iter().copied().fold(0.0, f64::max);
        (makespan, self.groups.iter().map(|group| group.cost).sum())
    }

    /// Sequences behind each other, group by group.
    fn put_in_order(&mut self, batch: &Batch<'_>) {
        // The groups again by number, to be found from their sequences.
        self.groups.sort_unstable_by_key(|group| group.number);
        self.starts.clear();
        self.starts.resize(batch.len(), 0);
        for (i, &number) in self.group_of.iter().enumerate() {
            let group = &mut self.groups[number];
            (self.order[group.at], self.starts[group.at]) = (i, group.row);
            group.at += 1;
            group.row += batch.sequence(i).1;
        }
        self.most_rows = self.groups.iter().map(|group| group.row).max().unwrap_or(0);
    }

    /// Sum up for [`Plan::squares_before`].
    pub fn sum_squares(&mut self, batch: &Batch<'_>) {
        let mut sum = 0;
        self.squares_before.push(0);
        self.squares_before.extend((0..batch.len()).map(|i| {
            sum += batch.sequence(i).1.pow(2);
            sum
        }));
    }

    /// The sum of `s^2` over the sequences before each, and over all.
    pub fn squares_before(&self) -> &[usize] {
        &self.squares_before
    }

    /// Whether its memory is of a size that may stay.
    pub fn is_worth_keeping(&self) -> bool {
        self.order.capacity() <= MOST_KEPT
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.ends.len()
    }

    /// From group `first` on, some seconds of work at most, and enough of it for all threads.
    pub fn step(&self, first: usize, threads: usize) -> Range<usize> {
        let size = if self.way == Way::Apart { GROUPS_PER_STEP * threads } else { GROUPS_PER_STEP };
        first..self.groups().min(first + size)
    }

    /// The sequences of group `i`, and the first row of each.
    pub fn group(&self, i: usize) -> (&[usize], &[usize]) {
        let range = if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i];
        (&self.order[range.clone()], &self.starts[range])
    }
}

/// Whether a batch is too small for more than one thread.
pub fn is_small(config: &Config, batch: &Batch<'_>) -> bool {
    layer_cost(config, batch) < SMALL_LAYER
}

/// What a batch takes one thread, to within a factor of some: an AVX-512 core in bf16.
pub fn expected_time(config: &Config, batch: &Batch<'_>) -> Duration {
    const PER_SECOND: f64 = 1e11;
    Duration::from_secs_f64(config.num_hidden_layers as f64 * layer_cost(config, batch) / PER_SECOND)
}

/// Multiply-adds of a batch in one layer.
fn layer_cost(config: &Config, batch: &Batch<'_>) -> f64 {
    (0..batch.len()).map(|i| sequence_cost(config, batch.sequence(i).1)).sum()
}

/// Multiply-adds of one sequence in one layer.
fn sequence_cost(config: &Config, tokens: usize) -> f64 {
    let (d, f, t) = (config.hidden_size as f64, config.intermediate_size as f64, tokens as f64);
    t * (4.0 * d * d + 2.0 * d * f) + 2.0 * t * t * d
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(hidden: usize) -> Config {
        let json = format!(
            r#"{{"model_type": "bert", "vocab_size": 9, "hidden_size": {hidden}, "num_hidden_layers": 1,
                "num_attention_heads": 1, "intermediate_size": {}, "hidden_act": "gelu",
                "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12}}"#,
            4 * hidden
        );
        Config::from_json(&json).unwrap()
    }

    fn plan_into(plan: &mut Plan, hidden: usize, lengths: &[usize], threads: usize, together: usize) {
        let mut cu_seqlens = vec![0];
        for len in lengths {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + *len as i64);
        }
        let input_ids = vec![0; lengths.iter().sum()];
        let (cu_seqlens, input_ids) = (&cu_seqlens, &input_ids);
        let batch = Batch { input_ids, cu_seqlens, token_type_ids: None, position_ids: None };
        plan.make(&config(hidden), &batch, threads, together);
    }

    fn plan(hidden: usize, lengths: &[usize], threads: usize, together: usize) -> Plan {
        let mut plan = Plan::default();
        plan_into(&mut plan, hidden, lengths, threads, together);
        plan
    }

    proptest! {
        #[test]
        fn every_sequence_has_its_rows_in_one_group(
            lengths in prop::collection::vec(1usize..513, 1..60), before in prop::collection::vec(1usize..513, 1..60),
            threads in 1usize..9, limit in 1usize..9,
        ) {
            // In the memory of another plan.
            let mut plan = plan(64, &before, threads, 1);
            plan_into(&mut plan, 64, &lengths, threads, limit.min(threads));
            let mut seen = vec![0; lengths.len()];
            let mut most = 0;
            for i in 0..plan.groups() {
                let (group, starts) = plan.group(i);
                let mut row = 0;
                for (&sequence, &start) in group.iter().zip(starts) {
                    prop_assert_eq!(start, row);
                    row += lengths[sequence];
                    seen[sequence] += 1;
                }
                prop_assert!(!group.is_empty() && row <= GROUP_TOKENS + 512);
                most = most.max(row);
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
            prop_assert_eq!(plan.most_rows, most);
            let mut next = 0;
            while next < plan.groups() {
                let step = plan.step(next, threads);
                prop_assert!(step.start == next && step.end > next);
                next = step.end;
            }
            prop_assert_eq!(next, plan.groups());
        }
    }

    #[test]
    fn who_works() {
        // One short text; the same for a tiny model; without a second thread; where there is no room for teams.
        assert_eq!(plan(384, &[16], 2, 2).way, Way::Together);
        assert_eq!(plan(32, &[16], 2, 2).way, Way::Alone);
        assert_eq!(plan(384, &[16], 1, 1).way, Way::Alone);
        assert_eq!(plan(384, &[16], 2, 1).way, Way::Alone);
        // A few texts, and many.
        assert_eq!(plan(384, &[16; 4], 2, 2).way, Way::Together);
        assert_eq!(plan(384, &[16; 4], 2, 1).way, Way::Apart);
        assert_eq!(plan(384, &[128; 32], 2, 2).way, Way::Apart);
        // One long text beside short ones keeps all threads busy only if they share it.
        assert_eq!(plan(384, &[512, 16, 16], 2, 2).way, Way::Together);
    }

    #[test]
    fn the_memory_of_a_huge_plan_is_not_kept() {
        assert!(plan(32, &[1; 1000], 2, 2).is_worth_keeping());
        assert!(!plan(32, &[1; MOST_KEPT + 1], 2, 2).is_worth_keeping());
    }
}
