//! A batch on several threads: each takes a range of the texts into arrays of its own.

use super::encode::{Scratch, Tokenizer};
use super::encoding::{EncodeOptions, Ragged};
use crate::error::Result;
use crate::threads::{Pool, Team};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of text for each thread, below which handing out the work costs more than it saves.
const BYTES_PER_THREAD: usize = 4096;

impl Tokenizer {
    /// [`Self::encode_range`] on up to `limit` threads of the process's pool; the same arrays, whatever the
    /// number of threads.
    ///
    /// # Errors
    /// As [`Self::encode_batch`]: the first one in the order of the texts. `out` is then as before.
    pub fn encode_range_on_threads(
        &self,
        texts: &[&str],
        pairs: Option<&[&str]>,
        range: Range<usize>,
        options: &EncodeOptions,
        limit: usize,
        out: &mut Ragged,
    ) -> Result<()> {
        let parts = cut(texts, range, limit);
        if let [range] = &parts[..] {
            return self.encode_range(texts, pairs, range.clone(), options, &mut Scratch::default(), out);
        }
        self.encode_parts(texts, pairs, &parts, options, &mut Pool::global().join(parts.len()), out)
    }

    /// The same on the threads of a team.
    ///
    /// # Errors
    /// As [`Self::encode_range_on_threads`].
    pub fn encode_range_in_team(
        &self,
        texts: &[&str],
        pairs: Option<&[&str]>,
        range: Range<usize>,
        options: &EncodeOptions,
        team: &mut Team<'_>,
        out: &mut Ragged,
    ) -> Result<()> {
        let parts = cut(texts, range, team.size());
        if let [range] = &parts[..] {
            return self.encode_range(texts, pairs, range.clone(), options, &mut Scratch::default(), out);
        }
        self.encode_parts(texts, pairs, &parts, options, team, out)
    }

    fn encode_parts(
        &self,
        texts: &[&str],
        pairs: Option<&[&str]>,
        parts: &[Range<usize>],
        options: &EncodeOptions,
        team: &mut Team<'_>,
        out: &mut Ragged,
    ) -> Result<()> {
        let results: Vec<_> = parts.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        team.draw(parts.len(), |_| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= parts.len() {
                    break;
                }
                let mut part = Ragged::new(options);
                let range = parts[index].clone();
                let done =
                    self.encode_range(texts, pairs, range, options, &mut Scratch::default(), &mut part);
                *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(done.map(|()| part));
            }
        });
        let results = results
            .into_iter()
            .filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        for part in results.collect::<Result<Vec<Ragged>>>()? {
            out.append(&part);
        }
        Ok(())
    }
}

/// Cuts `range` into at most `limit` ranges of about the same number of bytes.
fn cut(texts: &[&str], range: Range<usize>, limit: usize) -> Vec<Range<usize>> {
    let total: usize = texts[range.clone()].iter().map(|text| text.len()).sum();
    let count = limit.min(total / BYTES_PER_THREAD).clamp(1, range.len().max(1));
    let mut parts = Vec::with_capacity(count);
    let (mut start, mut bytes) = (range.start, 0);
    for index in range.clone() {
        bytes += texts[index].len();
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
