//! One sample, from its entry in the plan.

use super::plan_file::Entry;
use super::truncation::truncate;
use super::{Pass, Samples};
use crate::pretraining::masking::{Scratch, WORD_START};
use crate::pretraining::philox::{Purpose, Stream};
use crate::{Error, Result};
use std::ops::Range;

/// Buffers that samples share: one per thread.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// Whether words begin at tokens, and the same as marks of the masker.
    starts: Vec<bool>,
    marks: Vec<u8>,
    scratch: Scratch,
}

/// Where the tokens of a sample are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Of both segments, as much as is left of them; the label.
    Pair(Range<u64>, Range<u64>, bool),
    /// From a token of a document on.
    Block { start: u64, document: u64 },
}

/// What a sample says beside its tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    /// Tokens of the first segment, special ones with them.
    pub(super) first: usize,
    /// Whether the second segment is from another document, or the two are swapped.
    pub(super) label: bool,
    /// Tokens that are masked.
    pub(super) masked: usize,
}

impl Samples {
    /// Looks for the tokens of a sample.
    pub(super) fn place(&self, index: u64, entry: Entry) -> Result<Place> {
        let sampler = &self.sampler;
        let pass = sampler.pass(self.epoch, entry.copy());
        let (start, document) = (entry.start(), entry.document());
        if !sampler.config.format.is_pair() {
            return Ok(Place::Block { start, document });
        }
        let last = pass.store.sentences_of(document).end;
        let drawn = pass.next_pair(document, start, last, entry.draw(), pass.target(document));
        let pair = drawn.pair.ok_or_else(|| changed(index))?;
        let epoch = sampler.keyed_epoch(self.epoch);
        let stream = || Stream::new(sampler.seed, Purpose::Truncate, epoch, index).with_isa(sampler.isa);
        let (first, second) = truncate(pair.first, pair.second, sampler.config.room(), stream);
        if first.end - first.start + second.end - second.start + 3 != entry.length() as u64 {
            return Err(changed(index));
        }
        Ok(Place::Pair(first, second, pair.label))
    }

    /// Makes a sample: `ids` and `labels` are as long as the plan says.
    pub(super) fn make(
        &self,
        index: u64,
        place: &Place,
        ids: &mut [i32],
        labels: &mut [i32],
        workspace: &mut Workspace,
    ) -> Result<Made> {
        let sampler = &self.sampler;
        let pass = sampler.pass(self.epoch, 0);
        let needs_starts = sampler.masker.needs_word_starts();
        if needs_starts {
            workspace.starts.clear();
            workspace.starts.resize(ids.len(), false);
        }
        let starts = &mut workspace.starts[..];
        let mut row = Row { pass: &pass, ids: &mut *ids, starts, filled: 0 };
        row.special(sampler.cls);
        let (first, label) = match place {
            Place::Pair(first, second, label) => {
                row.tokens(first.clone());
                row.special(sampler.sep);
                let end = row.filled;
                row.tokens(second.clone());
                (end, *label)
            }
            Place::Block { start, document } => {
                row.block(*start, *document, sampler.sep).ok_or_else(|| changed(index))?;
                (ids.len(), false)
            }
        };
        *ids.last_mut().ok_or_else(|| changed(index))? = sampler.sep;
        let marks = needs_starts.then(|| {
            workspace.marks.clear();
            workspace.marks.extend(workspace.starts.iter().map(|&start| u8::from(start) * WORD_START));
            &workspace.marks[..]
        });
        let mut stream = Stream::new(sampler.seed, Purpose::Mask, sampler.keyed_epoch(self.epoch), index)
            .with_isa(sampler.isa);
        let masked = sampler.masker.mask_row(ids, labels, marks, &mut stream, &mut workspace.scratch);
        let masked = masked.map_err(|error| Error::Corpus(format!("sample {index}: {error}")))?;
        Ok(Made { first, label, masked })
    }
}

/// The plan and the store do not fit together any more.
#[cold]
fn changed(index: u64) -> Error {
    Error::Corpus(format!("sample {index}: the store is damaged, or was changed after the epoch was planned"))
}

/// A sample while it is filled.
struct Row<'a> {
    pass: &'a Pass<'a>,
    ids: &'a mut [i32],
    /// Empty if nobody needs them.
    starts: &'a mut [bool],
    filled: usize,
}

impl Row<'_> {
    #[inline(always)]
    fn special(&mut self, id: i32) {
        self.ids[self.filled] = id;
        self.filled += 1;
    }

    #[inline(always)]
    fn tokens(&mut self, tokens: Range<u64>) {
        let place = self.filled..self.filled + (tokens.end - tokens.start) as usize;
        self.filled = place.end;
        if !self.starts.is_empty() {
            self.pass.store.copy_word_starts(tokens.clone(), &mut self.starts[place.clone()]);
        }
        self.pass.store.copy_tokens(tokens, &mut self.ids[place]);
    }

    /// Tokens of one document after the other, with a separator between them, until there is place for one more special
    /// token. None if the store ends before.
    fn block(&mut self, mut start: u64, mut document: u64, separator: i32) -> Option<()> {
        let store = self.pass.store;
        let room = self.ids.len().checked_sub(1)?;
        loop {
            let last = store.sentences_of(document).end.checked_sub(1)?;
            let end = store.tokens_of(last).end.max(start).min(start + (room - self.filled) as u64);
            self.tokens(start..end);
            if self.filled == room {
                return Some(());
            }
            document += 1;
            if document == store.num_documents() {
                return None;
            }
            self.special(separator);
            if self.filled == room {
                return Some(());
            }
            start = end;
        }
    }
}
