//! Samples for pretraining from a token store: pairs of segments, or blocks of sentences, with their masks.
//!
//! What is in a sample is a function of keys, in two steps. A *plan* says once per epoch where each sample begins and how
//! long it is (`plan`): that takes one pass over the sentences, because how many a sample uses up is drawn. A sample
//! (`sample`) is then made from its entry alone, by the same function that the plan was made with (`pairs`), so that any of
//! them, in any order, on any thread, has the same bytes.
//!
//! Numbers are drawn from streams of their own ([`super::philox`]): the target length of a document by (seed, pass,
//! document), what decides which sentences a pair takes by (seed, pass, document and number of the draw in it), truncation
//! and masks by (seed, epoch, number of the sample). A pass is a time that the corpus is gone through: `dupe_factor` of
//! them are an epoch.
//!
//! docs/pretraining.md states the rules and where they come from.

mod batch;
mod blocks;
mod pairs;
mod plan;
mod plan_file;
#[cfg(test)]
mod rule_tests;
mod sample;
#[cfg(test)]
mod tests;
mod truncation;

pub use batch::{Padded, Padding, Ragged};
pub use plan::Samples;

use super::masking::{Masker, PADDING, Rule, SPECIAL, Vocabulary};
use super::philox::{MAX_EPOCH, Purpose, Stream};
use super::store::{Store, TokenizerRecord};
use crate::simd::Isa;
use crate::{Error, Result};
use std::sync::Arc;

/// What a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Two segments, the second from another document or the one that follows. Source: BERT.
    NextSentence,
    /// Two segments that follow each other, in this order or swapped. Source: ALBERT.
    SentenceOrder,
    /// Sentences that follow each other, across the ends of documents. Source: RoBERTa, FULL-SENTENCES.
    FullSentences,
    /// Sentences of one document. Source: RoBERTa, DOC-SENTENCES.
    DocSentences,
}

impl Format {
    /// Whether a sample has two segments.
    pub fn is_pair(self) -> bool {
        matches!(self, Self::NextSentence | Self::SentenceOrder)
    }

    /// Tokens that are added to a sample's own.
    fn added(self) -> usize {
        if self.is_pair() { 3 } else { 2 }
    }
}

/// How samples are made.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// What a sample is.
    pub format: Format,
    /// Most tokens of a sample, special ones with them.
    pub max_seq_length: usize,
    /// Share of the documents whose samples are made shorter.
    pub short_seq_prob: f64,
    /// How often an epoch goes through the corpus.
    pub dupe_factor: u32,
    /// Whether all epochs are the same.
    pub is_static: bool,
}

/// Longest sample: a plan has 16 bits for its length.
pub const MAX_SEQ_LENGTH: usize = u16::MAX as usize;
/// Most passes of an epoch: a plan has 8 bits for their number.
pub const MAX_DUPE_FACTOR: u32 = 1 << 8;

impl Config {
    fn check(&self) -> Result<()> {
        let least = self.format.added() + if self.format.is_pair() { 2 } else { 1 };
        if !(least..=MAX_SEQ_LENGTH).contains(&self.max_seq_length) {
            return Err(Error::Value(format!(
                "max_seq_length: expected a number in {least}..={MAX_SEQ_LENGTH}, got {}",
                self.max_seq_length
            )));
        }
        if !(0.0..=1.0).contains(&self.short_seq_prob) {
            return Err(Error::Value(format!(
                "short_seq_prob: expected a probability in [0, 1], got {}",
                self.short_seq_prob
            )));
        }
        if !(1..=MAX_DUPE_FACTOR).contains(&self.dupe_factor) {
            return Err(Error::Value(format!(
                "dupe_factor: expected a number in 1..={MAX_DUPE_FACTOR}, got {}",
                self.dupe_factor
            )));
        }
        Ok(())
    }

    /// Most tokens of a sample without the special ones.
    fn room(&self) -> u64 {
        (self.max_seq_length - self.format.added()) as u64
    }
}

/// What makes samples of a store.
#[derive(Debug)]
pub struct Sampler {
    store: Arc<Store>,
    masker: Masker,
    config: Config,
    seed: u64,
    isa: Isa,
    cls: i32,
    sep: i32,
    pad: i32,
    /// Always the same, but in tests.
    chunk_tokens: u64,
}

impl Sampler {
    /// Samples of a store, masked by a rule. What is masked as a word is what the store says.
    ///
    /// # Errors
    /// `Error::Value` if a value of the configuration or of the rule is not allowed, if the store is a shard, has no
    /// documents or just one for next sentences, more than a plan can number, or a tokenizer without `[CLS]`, `[SEP]` or
    /// `[MASK]`.
    pub fn new(store: Arc<Store>, rule: Rule, config: Config, seed: u64, isa: Isa) -> Result<Self> {
        config.check()?;
        check_store(&store, config.format)?;
        let tokenizer = &store.manifest().tokenizer;
        let needed = |name: &str, id: Option<u32>| {
            // Below 2^31, as the store has checked.
            id.map(|id| id as i32).ok_or_else(|| {
                Error::Value(format!("store: expected a tokenizer with a {name} token, got one without"))
            })
        };
        let (cls, sep) = (needed("[CLS]", tokenizer.cls_token_id)?, needed("[SEP]", tokenizer.sep_token_id)?);
        let mask = needed("[MASK]", tokenizer.mask_token_id)?;
        let vocabulary = Vocabulary::new(kinds(tokenizer), mask.into())?;
        let masker = Masker::new(vocabulary, rule, isa)?;
        let pad = tokenizer.pad_token_id.map_or(0, |id| id as i32);
        Ok(Self { store, masker, config, seed, isa, cls, sep, pad, chunk_tokens: plan::CHUNK_TOKENS })
    }

    /// What they are made of.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How samples are made.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The epoch that numbers are drawn for.
    fn keyed_epoch(&self, epoch: u32) -> u32 {
        if self.config.is_static { 0 } else { epoch }
    }

    fn check_epoch(&self, epoch: u32) -> Result<()> {
        let most = (MAX_EPOCH + 1) / self.config.dupe_factor - 1;
        if epoch > most {
            return Err(Error::Value(format!("epoch: expected a number in 0..={most}, got {epoch}")));
        }
        Ok(())
    }

    /// A time that the corpus is gone through.
    fn pass(&self, epoch: u32, copy: u32) -> Pass<'_> {
        let number = self.keyed_epoch(epoch) * self.config.dupe_factor + copy;
        Pass { store: &self.store, config: &self.config, seed: self.seed, isa: self.isa, number, copy }
    }

    /// Whether another epoch may have another plan.
    fn plans_differ(&self) -> bool {
        !self.config.is_static && (self.config.format.is_pair() || self.config.short_seq_prob > 0.0)
    }
}

/// What each id is to the masker. The unknown token stands for a word, and is masked as one.
fn kinds(tokenizer: &TokenizerRecord) -> Vec<u8> {
    let mut kinds = vec![0; tokenizer.vocab_size as usize];
    for &id in &tokenizer.special_token_ids {
        if Some(id) != tokenizer.unk_token_id {
            kinds[id as usize] |= SPECIAL;
        }
    }
    if let Some(id) = tokenizer.pad_token_id {
        kinds[id as usize] |= PADDING;
    }
    kinds
}

fn check_store(store: &Store, format: Format) -> Result<()> {
    if let Some((index, count)) = store.manifest().shard {
        return Err(Error::Value(format!(
            "store: expected a whole corpus, got shard {index} of {count}: merge the shards first"
        )));
    }
    let least = if format == Format::NextSentence { 2 } else { 1 };
    if store.num_documents() < least {
        return Err(Error::Value(match store.num_documents() {
            0 => "store: expected documents, got an empty corpus".into(),
            _ => "store: expected at least two documents for next sentences, of which half are from \
                  another document, got one"
                .into(),
        }));
    }
    for (name, count, most) in [
        ("documents", store.num_documents(), 1 << 32),
        ("sentences", store.num_sentences(), 1 << 48),
        ("tokens", store.num_tokens(), 1 << 48),
    ] {
        if count > most {
            return Err(Error::Value(format!("store: expected at most {most} {name}, got {count}")));
        }
    }
    Ok(())
}

/// A time that the corpus is gone through, with what it draws from.
#[derive(Debug, Clone, Copy)]
struct Pass<'a> {
    store: &'a Store,
    config: &'a Config,
    seed: u64,
    isa: Isa,
    /// Among all passes of all epochs.
    number: u32,
    /// Among those of its epoch.
    copy: u32,
}

impl Pass<'_> {
    /// How many tokens samples of a document are to have, special ones not counted: as many as fit or, with
    /// `short_seq_prob`, a number from 2 on that is drawn.
    fn target(&self, document: u64) -> u64 {
        let room = self.config.room();
        if self.config.short_seq_prob == 0.0 || room < 2 {
            return room;
        }
        let mut stream = Stream::new(self.seed, Purpose::Document, self.number, document).with_isa(self.isa);
        if stream.chance(self.config.short_seq_prob) { 2 + stream.below_u64(room - 1) } else { room }
    }
}
