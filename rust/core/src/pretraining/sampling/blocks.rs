//! Blocks of sentences that follow each other: how many fit.

use super::plan_file::Entry;
use super::{Format, Pass};
use std::ops::Range;

/// Goes through documents, block by block.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The document at hand, and those behind it.
    documents: Range<u64>,
    /// Its sentences that are left.
    sentences: Range<u64>,
    /// The first token that is in no block yet.
    token: u64,
    is_begun: bool,
}

impl Blocks {
    pub(super) fn new(documents: Range<u64>) -> Self {
        Self { documents, sentences: 0..0, token: 0, is_begun: false }
    }

    /// Appends entries, until there are `limit` or no more documents; whether there are more.
    pub(super) fn plan(&mut self, pass: &Pass<'_>, entries: &mut Vec<Entry>, limit: usize) -> bool {
        if !self.is_begun {
            self.is_begun = true;
            self.enter(pass);
        }
        while entries.len() < limit {
            if self.documents.is_empty() {
                return false;
            }
            let (start, document) = (self.token, self.documents.start);
            let used = self.fill(pass, pass.target(document));
            if used > 0 {
                entries.push(Entry::new(start, used + 2, document, 0, pass.copy));
            }
        }
        true
    }

    /// Looks at the document at hand. One without sentences, which only a damaged store has, is passed over.
    fn enter(&mut self, pass: &Pass<'_>) {
        while !self.documents.is_empty() {
            self.sentences = pass.store.sentences_of(self.documents.start);
            if !self.sentences.is_empty() {
                self.token = pass.store.tokens_of(self.sentences.start).start;
                return;
            }
            self.documents.start += 1;
        }
    }

    /// Goes on by a block of at most `room` tokens; returns how many it has, separators with them.
    ///
    /// Only whole sentences go into a block. One that is longer than any block is cut, where a word begins if there is
    /// such a place; its last piece is treated like a sentence.
    fn fill(&mut self, pass: &Pass<'_>, room: u64) -> u64 {
        let mut used = 0;
        let mut separator = 0;
        loop {
            let end = pass.store.tokens_of(self.sentences.start).end;
            let rest = end.saturating_sub(self.token);
            if used + separator + rest > room {
                if used == 0 {
                    used = self.piece(pass, room);
                    self.token += used;
                }
                return used;
            }
            used += separator + rest;
            separator = 0;
            self.sentences.start += 1;
            self.token = self.token.max(end);
            if self.sentences.is_empty() {
                self.documents.start += 1;
                self.enter(pass);
                if self.documents.is_empty() || pass.config.format == Format::DocSentences {
                    return used;
                }
                separator = u64::from(used > 0);
            }
        }
    }

    /// How much of a sentence that is too long goes into a block by itself.
    fn piece(&self, pass: &Pass<'_>, room: u64) -> u64 {
        (1..=room).rev().find(|piece| pass.store.is_word_start(self.token + piece)).unwrap_or(room)
    }
}
