//! A batch on several threads: each takes a range of the texts into arrays of its own.

use super::encode::{Text, Tokenizer};
use super::encoding::{EncodeOptions, Ragged};
use crate::error::Result;
use crate::threads::{Pool, Team, lock};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of text for each thread, below which handing out the work costs more than it saves.
const BYTES_PER_THREAD: usize = 4096;

/// Bytes of text in a part, more or less: its tokens stay in the caches until they are put where they belong.
const PART_BYTES: usize = 256 << 10;

/// Parts for each thread in a round: one that is slow takes fewer.
const PARTS_PER_THREAD: usize = 4;

impl Tokenizer {
    /// [`Self::encode_range`] on up to `limit` threads of the process's pool; the same arrays, whatever the
    /// number of threads.
    ///
    /// # Errors
    /// As [`Self::encode_batch`]: the first one in the order of the texts. `out` is of no use then.
    pub fn encode_range_on_threads<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        range: Range<usize>,
        options: &EncodeOptions,
        limit: usize,
        out: &mut Ragged,
    ) -> Result<()> {
        let threads = limit.min(bytes_of(&texts[range.clone()]) / BYTES_PER_THREAD);
        if threads < 2 {
            return self
                .with_scratch(|scratch| self.encode_range(texts, pairs, range, options, scratch, out));
        }
        self.encode_range_in_team(texts, pairs, range, options, &mut Pool::global().join(threads), out)
    }

    /// The same on the threads of a team.
    ///
    /// # Errors
    /// As [`Self::encode_range_on_threads`].
    pub fn encode_range_in_team<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        range: Range<usize>,
        options: &EncodeOptions,
        team: &mut Team<'_>,
        out: &mut Ragged,
    ) -> Result<()> {
        let mut parts: Vec<Mutex<Ragged>> = Vec::new();
        for round in rounds(texts, range, PARTS_PER_THREAD * PART_BYTES * team.size()) {
            let bytes = bytes_of(&texts[round.clone()]);
            let threads = team.size().min(bytes / BYTES_PER_THREAD);
            if threads < 2 {
                self.with_scratch(|scratch| self.encode_range(texts, pairs, round, options, scratch, out))?;
                continue;
            }
            let ranges = cut(texts, round, threads.max(bytes / PART_BYTES));
            parts.resize_with(ranges.len().max(parts.len()), || Mutex::new(Ragged::new(options)));
            let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
            team.draw(threads, |_| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(range) = ranges.get(index) else { break };
                    let part = &mut *lock(&parts[index]);
                    part.clear();
                    let encode = |scratch: &mut _| {
                        self.encode_range(texts, pairs, range.clone(), options, scratch, part)
                    };
                    if let Err(error) = self.with_scratch(encode) {
                        let mut first = lock(&failed);
                        if first.as_ref().is_none_or(|(before, _)| index < *before) {
                            *first = Some((index, error));
                        }
                    }
                }
            });
            if let Some((_, error)) = lock(&failed).take() {
                return Err(error);
            }
            let parts: Vec<_> = parts[..ranges.len()].iter().map(lock).collect();
            out.append(&parts.iter().map(|part| &**part).collect::<Vec<_>>(), team);
        }
        Ok(())
    }
}

fn bytes_of<T: Text>(texts: &[T]) -> usize {
    texts.iter().map(Text::bytes).sum()
}

/// Cuts `range` into ranges of about so many bytes.
fn rounds<T: Text>(texts: &[T], range: Range<usize>, bytes: usize) -> Vec<Range<usize>> {
    let count = bytes_of(&texts[range.clone()]).div_ceil(bytes);
    cut(texts, range, count)
}

/// Cuts `range` into at most `limit` ranges of about the same number of bytes.
fn cut<T: Text>(texts: &[T], range: Range<usize>, limit: usize) -> Vec<Range<usize>> {
    let total = bytes_of(&texts[range.clone()]);
    let count = limit.clamp(1, range.len().max(1));
    let mut parts = Vec::with_capacity(count);
    let (mut start, mut bytes) = (range.start, 0);
    for index in range.clone() {
        bytes += texts[index].bytes();
        if bytes * count >= total * (parts.len() + 1) && parts.len() + 1 < count {
            parts.push(start..index + 1);
            start = index + 1;
        }
    }
    parts.push(start..range.end);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_range_in_order(
            lengths in prop::collection::vec(0usize..30_000, 0..20), limit in 0usize..9, from in 0usize..20,
        ) {
            let text = "x".repeat(30_000);
            let texts: Vec<&str> = lengths.iter().map(|&length| &text[..length]).collect();
            let range = from.min(texts.len())..texts.len();
            let parts = cut(&texts, range.clone(), limit);
            prop_assert!(!parts.is_empty() && parts.len() <= limit.max(1));
            prop_assert_eq!(parts[0].start, range.start);
            prop_assert_eq!(parts[parts.len() - 1].end, range.end);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn one_long_text_does_not_starve_the_others() {
        let long = "x".repeat(40_000);
        let texts = ["a", &long, "b", &long, "c"];
        assert_eq!(cut(&texts, 0..5, 2), [0..3, 3..5]);
    }
}
