//! One sample, from its entry in the plan.

use super::pairs::Begun;
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
    /// Asks for what [`Self::begin`] reads.
    pub(super) fn prepare(&self, entry: Entry) {
        let store = &self.sampler.store;
        store.prefetch_document(entry.document());
        if self.sampler.config.format.is_pair() {
            store.prefetch_sentence(entry.start());
        }
    }

    /// Looks at the document of a sample: the pair as far as that says it, nothing for blocks.
    pub(super) fn begin(&self, entry: Entry) -> Option<Begun> {
        let pass = self.sampler.pass(self.epoch, entry.copy());
        let document = entry.document();
        let last = pass.store.sentences_of(document).end;
        if !self.sampler.config.format.is_pair() {
            pass.store.prefetch_sentence(last.saturating_sub(1));
            return None;
        }
        let target = pass.target(document);
        let begun = pass.begin_pair(document, entry.start(), last, entry.draw(), target);
        begun.other_document().into_iter().for_each(|other| pass.store.prefetch_document(other));
        Some(begun)
    }

    /// Looks at another document, if there is one.
    pub(super) fn go_on(&self, begun: &mut Begun) {
        let pass = self.sampler.pass(self.epoch, 0);
        pass.go_on(begun);
        begun.other_sentence().into_iter().for_each(|sentence| pass.store.prefetch_sentence(sentence));
    }

    /// Where the tokens of a sample are; they are asked for.
    pub(super) fn finish(&self, index: u64, entry: Entry, begun: Option<Begun>) -> Result<Place> {
        let sampler = &self.sampler;
        let pass = sampler.pass(self.epoch, entry.copy());
        let needs_starts = sampler.masker.needs_word_starts();
        let Some(begun) = begun else {
            let (start, document) = (entry.start(), entry.document());
            pass.store.prefetch_tokens(start..start + entry.length() as u64, needs_starts);
            return Ok(Place::Block { start, document });
        };
        let pair = pass.finish(begun).pair.ok_or_else(|| changed(index))?;
        let epoch = sampler.keyed_epoch(self.epoch);
        let stream = || Stream::new(sampler.seed, Purpose::Truncate, epoch, index).with_isa(sampler.isa);
        let (first, second) = truncate(pair.first, pair.second, sampler.config.room(), stream);
        if first.end - first.start + second.end - second.start + 3 != entry.length() as u64 {
            return Err(changed(index));
        }
        pass.store.prefetch_tokens(first.clone(), needs_starts);
        pass.store.prefetch_tokens(second.clone(), needs_starts);
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
