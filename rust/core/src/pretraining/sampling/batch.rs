//! Many samples at once: in arrays, on several threads.

use super::Samples;
use super::plan_file::Entry;
use super::sample::{Place, Workspace};
use crate::pretraining::masking::IGNORED;
use crate::threads::{Pool, lock};
use crate::{Error, Result};
use std::sync::Mutex;

/// Tokens for each thread, below which handing out the work costs more than it saves.
const TOKENS_PER_THREAD: usize = 32 << 10;
/// Tokens of a part that a thread draws: what it writes stays in its nearest caches.
const PART_TOKENS: usize = 8 << 10;
/// Samples that are looked for before any of them is made: what one waits for in memory, the others wait for meanwhile.
const GROUP: usize = 16;

/// How long the rows of a padded batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As its longest sample.
    Longest,
    /// As `max_seq_length`.
    MaxLength,
}

/// Samples in rows of one length: arrays of B x S, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Padded {
    pub input_ids: Vec<i64>,
    /// Of pairs: 1 for the second segment.
    pub token_type_ids: Option<Vec<i64>>,
    /// 0 for padding.
    pub attention_mask: Vec<i64>,
    /// The id that was masked, else -100.
    pub labels: Vec<i64>,
    /// Of pairs, one each: 1 for a second segment from another document, or for swapped segments.
    pub pair_labels: Option<Vec<i64>>,
    /// S.
    pub width: usize,
}

/// Samples end to end: arrays of T tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Ragged {
    pub input_ids: Vec<i32>,
    /// Where each begins, and T.
    pub cu_seqlens: Vec<i64>,
    /// Of pairs: 1 for the second segment.
    pub token_type_ids: Option<Vec<i32>>,
    /// The id that was masked, else -100.
    pub labels: Vec<i32>,
    /// Where something is masked.
    pub masked_positions: Vec<i64>,
    /// Of pairs, one each: 1 for a second segment from another document, or for swapped segments.
    pub pair_labels: Option<Vec<i64>>,
}

/// Samples that one thread makes.
struct Part<'a> {
    indices: &'a [i64],
    entries: &'a [Entry],
}

impl Samples {
    fn entries(&self, indices: &[i64]) -> Result<Vec<Entry>> {
        indices.iter().map(|&index| self.entry(index)).collect()
    }

    /// A padded batch of these samples, made on at most `threads` threads.
    ///
    /// # Errors
    /// `Error::Index` if there is no such sample; `Error::Corpus` if the store is damaged.
    pub fn padded(&self, indices: &[i64], padding: Padding, threads: usize) -> Result<Padded> {
        let entries = self.entries(indices)?;
        let config = &self.sampler.config;
        let width = match padding {
            Padding::Longest => entries.iter().map(|entry| entry.length()).max().unwrap_or(0),
            Padding::MaxLength => config.max_seq_length,
        };
        let pairs = config.format.is_pair();
        let size = indices.len() * width;
        let mut input_ids = vec![i64::from(self.sampler.pad); size];
        let mut token_type_ids = vec![0; if pairs { size } else { 0 }];
        let mut attention_mask = vec![0; size];
        let mut labels = vec![i64::from(IGNORED); size];
        let mut pair_labels = vec![0; if pairs { indices.len() } else { 0 }];
        let mut rest = (
            &mut input_ids[..],
            &mut token_type_ids[..],
            &mut attention_mask[..],
            &mut labels[..],
            &mut pair_labels[..],
        );
        let parts = parts(indices, &entries, |_| width);
        let parts = parts.into_iter().map(|part| {
            let (samples, tokens) = (part.indices.len(), part.indices.len() * width);
            let out = (
                rest.0.split_off_mut(..tokens).unwrap_or_default(),
                rest.1.split_off_mut(..if pairs { tokens } else { 0 }).unwrap_or_default(),
                rest.2.split_off_mut(..tokens).unwrap_or_default(),
                rest.3.split_off_mut(..tokens).unwrap_or_default(),
                rest.4.split_off_mut(..if pairs { samples } else { 0 }).unwrap_or_default(),
            );
            (part, out)
        });
        run(parts.collect(), size, threads, |(part, out), workspace| {
            let (input_ids, token_type_ids, attention_mask, labels, pair_labels) = out;
            let mut scratch = vec![0; 2 * config.max_seq_length];
            let (scratch_ids, scratch_labels) = scratch.split_at_mut(config.max_seq_length);
            self.each(part, |number, index, place, length| {
                let (ids, targets) = (&mut scratch_ids[..length], &mut scratch_labels[..length]);
                let made = self.make(index, place, ids, targets, workspace)?;
                let row = number * width..number * width + length;
                widen(ids, &mut input_ids[row.clone()]);
                widen(targets, &mut labels[row.clone()]);
                attention_mask[row.clone()].fill(1);
                if pairs {
                    token_type_ids[row][made.first..].fill(1);
                    pair_labels[number] = made.label.into();
                }
                Ok(())
            })
        })?;
        let token_type_ids = pairs.then_some(token_type_ids);
        let pair_labels = pairs.then_some(pair_labels);
        Ok(Padded { input_ids, token_type_ids, attention_mask, labels, pair_labels, width })
    }

    /// The same samples end to end.
    ///
    /// # Errors
    /// As [`Self::padded`].
    pub fn ragged(&self, indices: &[i64], threads: usize) -> Result<Ragged> {
        let entries = self.entries(indices)?;
        let mut cu_seqlens = Vec::with_capacity(indices.len() + 1);
        let mut size = 0;
        cu_seqlens.push(0);
        for entry in &entries {
            size += entry.length();
            cu_seqlens.push(size as i64);
        }
        let pairs = self.sampler.config.format.is_pair();
        let mut input_ids = vec![0; size];
        let mut token_type_ids = vec![0; if pairs { size } else { 0 }];
        let mut labels = vec![0; size];
        let mut pair_labels = vec![0; if pairs { indices.len() } else { 0 }];
        let mut rest = (&mut input_ids[..], &mut token_type_ids[..], &mut labels[..], &mut pair_labels[..]);
        let mut start = 0;
        let parts = parts(indices, &entries, |entry| entry.length());
        let parts = parts.into_iter().map(|part| {
            let (samples, tokens) =
                (part.indices.len(), part.entries.iter().map(|entry| entry.length()).sum::<usize>());
            let out = (
                rest.0.split_off_mut(..tokens).unwrap_or_default(),
                rest.1.split_off_mut(..if pairs { tokens } else { 0 }).unwrap_or_default(),
                rest.2.split_off_mut(..tokens).unwrap_or_default(),
                rest.3.split_off_mut(..if pairs { samples } else { 0 }).unwrap_or_default(),
            );
            start += tokens;
            (part, out, start - tokens, Vec::new())
        });
        let done = run(parts.collect(), size, threads, |(part, out, start, positions), workspace| {
            let (input_ids, token_type_ids, labels, pair_labels) = out;
            let mut filled = 0;
            self.each(part, |number, index, place, length| {
                let row = filled..filled + length;
                filled = row.end;
                let targets = &mut labels[row.clone()];
                let made = self.make(index, place, &mut input_ids[row.clone()], targets, workspace)?;
                append_positions(targets, *start + row.start, made.masked, positions);
                if pairs {
                    token_type_ids[row][made.first..].fill(1);
                    pair_labels[number] = made.label.into();
                }
                Ok(())
            })
        })?;
        let mut positions = done.into_iter().map(|(_, _, _, positions)| positions);
        let mut masked_positions = positions.next().unwrap_or_default();
        positions.for_each(|more| masked_positions.extend(more));
        let token_type_ids = pairs.then_some(token_type_ids);
        let pair_labels = pairs.then_some(pair_labels);
        Ok(Ragged { input_ids, cu_seqlens, token_type_ids, labels, masked_positions, pair_labels })
    }

    /// Calls `work` with each sample of a part: its number in the part, its index, its place and its length.
    fn each(
        &self,
        part: &Part<'_>,
        mut work: impl FnMut(usize, u64, &Place, usize) -> Result<()>,
    ) -> Result<()> {
        let (mut searches, mut places) = (Vec::with_capacity(GROUP), Vec::with_capacity(GROUP));
        let mut number = 0;
        for (indices, entries) in part.indices.chunks(GROUP).zip(part.entries.chunks(GROUP)) {
            entries.iter().for_each(|&entry| self.prepare(entry));
            searches.extend(entries.iter().map(|&entry| self.begin(entry)));
            searches.iter_mut().flatten().for_each(|begun| self.go_on(begun));
            places.clear();
            for ((&index, &entry), search) in indices.iter().zip(entries).zip(searches.drain(..)) {
                places.push(self.finish(index as u64, entry, search)?);
            }
            for ((&index, entry), place) in indices.iter().zip(entries).zip(&places) {
                work(number, index as u64, place, entry.length())?;
                number += 1;
            }
        }
        Ok(())
    }
}

/// Cuts samples into parts of about [`PART_TOKENS`].
fn parts<'a>(indices: &'a [i64], entries: &'a [Entry], tokens_of: impl Fn(&Entry) -> usize) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < indices.len() {
        let (mut end, mut tokens) = (start, 0);
        while end < indices.len() && (end == start || tokens < PART_TOKENS) {
            tokens += tokens_of(&entries[end]);
            end += 1;
        }
        parts.push(Part { indices: &indices[start..end], entries: &entries[start..end] });
        start = end;
    }
    parts
}

/// Works on parts, in any order, on as many threads as so many tokens are worth. The first error in the order of the
/// parts is returned.
fn run<P: Send>(
    mut parts: Vec<P>,
    tokens: usize,
    threads: usize,
    work: impl Fn(&mut P, &mut Workspace) -> Result<()> + Sync,
) -> Result<Vec<P>> {
    let threads = threads.min(tokens / TOKENS_PER_THREAD).max(1);
    if threads == 1 {
        let mut workspace = Workspace::default();
        for part in &mut parts {
            work(part, &mut workspace)?;
        }
        return Ok(parts);
    }
    let parts: Vec<_> = parts.into_iter().map(|part| Mutex::new((part, Ok(())))).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    Pool::global().join(threads).draw(threads, |member| {
        let mut workspace = Workspace::default();
        while !member.should_leave() {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(part) = parts.get(number) else { break };
            let (part, outcome) = &mut *lock(part);
            *outcome = work(part, &mut workspace);
        }
    });
    let parts = parts.into_iter().map(|part| {
        let (part, outcome): (P, Result<(), Error>) =
            part.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        outcome.map(|()| part)
    });
    parts.collect()
}

/// Copies numbers into wider ones.
fn widen(from: &[i32], to: &mut [i64]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = from.into());
}

/// Appends where the `masked` labels are that say something.
fn append_positions(labels: &[i32], start: usize, masked: usize, positions: &mut Vec<i64>) {
    let before = positions.len();
    // One more than needed: it is written before it is known whether it counts.
    positions.resize(before + masked + 1, 0);
    let out = &mut positions[before..];
    let mut found = 0;
    for (place, &label) in labels.iter().enumerate() {
        out[found.min(masked)] = (start + place) as i64;
        found += usize::from(label != IGNORED);
    }
    positions.truncate(before + masked);
}
