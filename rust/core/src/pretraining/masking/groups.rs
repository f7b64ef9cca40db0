//! One row: its units, the groups that they propose, and what becomes of their tokens.

use super::rule::{Count, Masker, Replacement, Unit};
use super::vocabulary::{PADDING, SPECIAL, WORD_START};
use super::{IGNORED, Id};
use crate::pretraining::philox::Stream;
use crate::{Error, Result};
use std::ops::Range;

/// Most words of an n-gram.
const MAX_NGRAM: usize = 3;
/// Most words of a span.
const MAX_SPAN: usize = 10;
/// Of the geometric distribution of a span's words.
const SPAN_P: f64 = 0.2;

/// Buffers that rows share: one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Where units begin: words, or tokens that may be masked.
    starts: Vec<u32>,
    /// Where words end.
    ends: Vec<u32>,
    /// Units, shuffled as far as they were drawn.
    order: Vec<u32>,
    /// The word of each token.
    words: Vec<u32>,
}

/// What a row is made of.
struct Found {
    /// Tokens, special ones with them, padding without.
    len: usize,
    /// Tokens that may be masked.
    ordinary: usize,
    /// Units.
    units: usize,
}

impl Masker {
    /// Masks a row in place: `ids` becomes the input, `labels` (as long) the original ids of what is masked, and
    /// [`IGNORED`] elsewhere. Returns how many tokens are masked.
    ///
    /// With `marks`, one for each token, word starts are what they say, not what the vocabulary says, and tokens that
    /// they mark as special or padding are that, too.
    ///
    /// # Errors
    /// `Error::TokenId` if an id is not in the vocabulary; the row is then unchanged.
    pub fn mask_row<T: Id>(
        &self,
        ids: &mut [T],
        labels: &mut [T],
        marks: Option<&[u8]>,
        stream: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<usize> {
        labels.fill(T::from_i32(IGNORED));
        self.mask_labelled(ids, labels, marks, stream, scratch)
    }

    /// The same where all labels are [`IGNORED`] already.
    pub(super) fn mask_labelled<T: Id>(
        &self,
        ids: &mut [T],
        labels: &mut [T],
        marks: Option<&[u8]>,
        stream: &mut Stream,
        scratch: &mut Scratch,
    ) -> Result<usize> {
        assert!(labels.len() == ids.len() && marks.is_none_or(|marks| marks.len() == ids.len()));
        let found = match (self.rule.unit, marks) {
            (Unit::Token, None) => self.tokens(ids, |_, kind| kind, scratch),
            (Unit::Token, Some(marks)) => self.tokens(ids, |at, kind| kind | marks[at], scratch),
            (_, None) => self.words(ids, |_, kind| kind, scratch),
            (_, Some(marks)) => self.words(ids, |at, kind| kind & !WORD_START | marks[at], scratch),
        }?;
        let mut row = Row { masker: self, ids, labels, stream, masked: 0 };
        if self.rule.count == Count::Bernoulli {
            row.each(scratch, found.units, self.rule.unit);
            return Ok(row.masked);
        }
        let quota = self.quota(found.len, found.ordinary, row.stream);
        match self.rule.unit {
            Unit::Token => row.some_tokens(scratch, found.units, quota),
            Unit::WholeWord => row.some_words(scratch, found.units, quota),
            Unit::NGram => row.ngrams(scratch, found.units, quota),
            Unit::Span => row.spans(scratch, found.units, found.ordinary, quota),
        }
        Ok(row.masked)
    }

    /// Units are the tokens that may be masked.
    #[inline(always)]
    fn tokens<T: Id>(
        &self,
        ids: &[T],
        kind_of: impl Fn(usize, u8) -> u8,
        scratch: &mut Scratch,
    ) -> Result<Found> {
        grow(&mut scratch.starts, ids.len());
        let starts = &mut scratch.starts[..ids.len()];
        let kinds = &self.vocabulary.kinds[..];
        let (mut ordinary, mut padding) = (0, 0);
        for (at, &id) in ids.iter().enumerate() {
            let Some(&kind) = kinds.get(id.index()) else { return Err(self.no_such_id(at, id)) };
            let kind = kind_of(at, kind);
            // Without a branch: where special tokens are is nothing that a CPU could guess.
            starts[ordinary] = at as u32;
            ordinary += usize::from(kind & (SPECIAL | PADDING) == 0);
            padding += usize::from(kind & PADDING != 0);
        }
        Ok(Found { len: ids.len() - padding, ordinary, units: ordinary })
    }

    /// Units are words: they begin at a word start or behind a special token, and end where another begins or a special
    /// token is.
    #[inline(always)]
    fn words<T: Id>(
        &self,
        ids: &[T],
        kind_of: impl Fn(usize, u8) -> u8,
        scratch: &mut Scratch,
    ) -> Result<Found> {
        grow(&mut scratch.starts, ids.len() + 1);
        grow(&mut scratch.ends, ids.len() + 1);
        let (starts, ends) = (&mut scratch.starts[..=ids.len()], &mut scratch.ends[..=ids.len()]);
        let kinds = &self.vocabulary.kinds[..];
        let (mut ordinary, mut padding, mut begun, mut ended, mut inside) = (0, 0, 0, 0, false);
        for (at, &id) in ids.iter().enumerate() {
            let Some(&kind) = kinds.get(id.index()) else { return Err(self.no_such_id(at, id)) };
            let kind = kind_of(at, kind);
            let is_ordinary = kind & (SPECIAL | PADDING) == 0;
            let begins = is_ordinary & (!inside | (kind & WORD_START != 0));
            ends[ended] = at as u32;
            ended += usize::from(inside & (begins | !is_ordinary));
            starts[begun] = at as u32;
            begun += usize::from(begins);
            inside = is_ordinary;
            ordinary += usize::from(is_ordinary);
            padding += usize::from(kind & PADDING != 0);
        }
        ends[ended] = ids.len() as u32;
        Ok(Found { len: ids.len() - padding, ordinary, units: begun })
    }

    #[cold]
    fn no_such_id<T: Id>(&self, at: usize, id: T) -> Error {
        let len = self.vocabulary.kinds.len();
        Error::TokenId(format!(
            "input_ids: expected ids in 0..{len}, got {} at position {at} of a row",
            id.as_i64()
        ))
    }
}

/// Makes a buffer at least this long; what it has does not matter.
fn grow(buffer: &mut Vec<u32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// A row while it is masked.
struct Row<'a, T> {
    masker: &'a Masker,
    ids: &'a mut [T],
    labels: &'a mut [T],
    stream: &'a mut Stream,
    masked: usize,
}

impl<T: Id> Row<'_, T> {
    /// Asks for a token.
    #[inline(always)]
    fn ask(&mut self, at: usize, replacement: Replacement) {
        self.labels[at] = self.ids[at];
        let random = match replacement {
            Replacement::Mask => self.masker.vocabulary.mask_id,
            Replacement::Random => self.masker.random_id(self.stream),
            Replacement::Keep => return self.masked += 1,
        };
        self.ids[at] = T::from_i32(random);
        self.masked += 1;
    }

    /// Asks for tokens, each of which has a lot of its own.
    #[inline(always)]
    fn ask_apart(&mut self, tokens: Range<usize>) {
        for at in tokens {
            let replacement = self.masker.replacement(self.stream);
            self.ask(at, replacement);
        }
    }

    fn is_masked(&self, at: usize) -> bool {
        self.labels[at].as_i64() != i64::from(IGNORED)
    }

    /// Bernoulli: every unit by itself.
    fn each(&mut self, scratch: &Scratch, units: usize, unit: Unit) {
        for index in 0..units {
            if u64::from(self.stream.next_u32()) < self.masker.masked_below {
                let start = scratch.starts[index] as usize;
                self.ask_apart(
                    start..if unit == Unit::Token { start + 1 } else { scratch.ends[index] as usize },
                );
            }
        }
    }

    #[inline(always)]
    fn some_tokens(&mut self, scratch: &mut Scratch, units: usize, quota: usize) {
        let positions = &mut scratch.starts[..units];
        for drawn in 0..quota.min(units) {
            let at = draw(positions, drawn, self.stream) as usize;
            self.ask_apart(at..at + 1);
        }
    }

    /// Words in random order; one that is longer than what may still be masked is left out.
    fn some_words(&mut self, scratch: &mut Scratch, units: usize, quota: usize) {
        let Scratch { starts, ends, order, .. } = scratch;
        let order = shuffled(order, units);
        for drawn in 0..units {
            if self.masked == quota {
                break;
            }
            let word = draw(order, drawn, self.stream) as usize;
            let tokens = starts[word] as usize..ends[word] as usize;
            if tokens.len() <= quota - self.masked {
                self.ask_apart(tokens);
            }
        }
    }

    /// Words in random order, each with up to two that follow it; fewer if they are more than may still be masked. None
    /// if any of them is masked already.
    fn ngrams(&mut self, scratch: &mut Scratch, units: usize, quota: usize) {
        let Scratch { starts, ends, order, .. } = scratch;
        let (starts, ends) = (&starts[..units], &ends[..units]);
        let order = shuffled(order, units);
        for drawn in 0..units {
            if self.masked == quota {
                break;
            }
            let first = draw(order, drawn, self.stream) as usize;
            let available = in_a_row(first, MAX_NGRAM, starts, ends);
            let total: f64 = (1..=available).map(|n| 1.0 / n as f64).sum();
            let mut rest = self.stream.unit() * total;
            let mut n = 1;
            while n < available && rest >= 1.0 / n as f64 {
                rest -= 1.0 / n as f64;
                n += 1;
            }
            let start = starts[first] as usize;
            let room = quota - self.masked;
            while n > 0 && ends[first + n - 1] as usize - start > room {
                n -= 1;
            }
            if n == 0 {
                continue;
            }
            let tokens = start..ends[first + n - 1] as usize;
            // Groups are whole words: it is enough to look at the first token of each.
            if (first..first + n).all(|word| !self.is_masked(starts[word] as usize)) {
                self.ask_apart(tokens);
            }
        }
    }

    /// Tokens in random order; where one is not masked yet, its word and those that follow it, as many as were drawn,
    /// until a special token or the quota ends the span. All of a span have one lot.
    fn spans(&mut self, scratch: &mut Scratch, units: usize, ordinary: usize, quota: usize) {
        let Scratch { starts, ends, order, words } = scratch;
        let (starts, ends) = (&starts[..units], &ends[..units]);
        grow(words, ordinary);
        let mut filled = 0;
        for (word, (start, end)) in (0..).zip(starts.iter().zip(ends)) {
            let len = (end - start) as usize;
            words[filled..filled + len].fill(word);
            filled += len;
        }
        let order = shuffled(order, ordinary);
        for drawn in 0..ordinary {
            if self.masked == quota {
                break;
            }
            let first = words[draw(order, drawn, self.stream) as usize] as usize;
            if self.is_masked(starts[first] as usize) {
                continue;
            }
            let drawn_words = self.span_words();
            let available = in_a_row(first, drawn_words, starts, ends);
            let mut lot = None;
            for word in first..first + available {
                let tokens = starts[word] as usize..ends[word] as usize;
                if self.is_masked(tokens.start) {
                    continue;
                }
                if tokens.len() > quota - self.masked {
                    break;
                }
                let replacement = *lot.get_or_insert_with(|| self.masker.replacement(self.stream));
                tokens.for_each(|at| self.ask(at, replacement));
            }
        }
    }

    /// Words of a span: P(n) in proportion to 0.2 * 0.8^(n - 1), n in 1..=10.
    fn span_words(&mut self) -> usize {
        let all = 1.0 - (1.0 - SPAN_P).powi(MAX_SPAN as i32);
        let mut rest = self.stream.unit() * all;
        let mut p = SPAN_P;
        let mut n = 1;
        while n < MAX_SPAN && rest >= p {
            rest -= p;
            p *= 1.0 - SPAN_P;
            n += 1;
        }
        n
    }
}

/// How many words from `first` on lie side by side, with no special token between them; at most `most`.
fn in_a_row(first: usize, most: usize, starts: &[u32], ends: &[u32]) -> usize {
    let mut n = 1;
    while n < most && first + n < starts.len() && starts[first + n] == ends[first + n - 1] {
        n += 1;
    }
    n
}

/// `0..len` in the buffer, to be drawn from.
fn shuffled(order: &mut Vec<u32>, len: usize) -> &mut [u32] {
    order.clear();
    order.extend(0..len as u32);
    order
}

/// One of those that are left: number `drawn` of a random order (Fisher and Yates, as far as it is needed).
#[inline(always)]
fn draw(left: &mut [u32], drawn: usize, stream: &mut Stream) -> u32 {
    let at = drawn + stream.below((left.len() - drawn) as u32) as usize;
    left.swap(drawn, at);
    left[drawn]
}
