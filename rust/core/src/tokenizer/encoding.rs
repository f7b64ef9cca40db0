//! The result: ragged arrays, and what the caller asks of them.

use super::truncation::{Side, Strategy};
use crate::threads::{Team, lock};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What to make of each text. The defaults are the reference's: special tokens, no truncation, ids only.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// Put the template's tokens (`[CLS]`, `[SEP]`) around the text.
    pub add_special_tokens: bool,
    /// How a text is shortened to `max_length`.
    pub truncation: Strategy,
    /// Tokens a sequence may have, the special ones included; used if `truncation` is not `Strategy::None`.
    pub max_length: Option<usize>,
    /// Tokens that neighbouring overflow windows share.
    pub stride: usize,
    /// The side on which tokens are cut off.
    pub truncation_side: Side,
    /// Fill `Ragged::token_type_ids`.
    pub want_token_type_ids: bool,
    /// Fill `Ragged::offset_mapping`.
    pub want_offsets: bool,
    /// Fill `Ragged::word_ids`.
    pub want_word_ids: bool,
    /// Fill `Ragged::sequence_ids`.
    pub want_sequence_ids: bool,
    /// Keep what truncation cuts off, as sequences of their own, and fill `Ragged::overflow_to_sample`.
    pub want_overflow: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            add_special_tokens: true,
            truncation: Strategy::None,
            max_length: None,
            stride: 0,
            truncation_side: Side::Right,
            want_token_type_ids: false,
            want_offsets: false,
            want_word_ids: false,
            want_sequence_ids: false,
            want_overflow: false,
        }
    }
}

/// Sequences of tokens laid end to end: sequence `i` is `cu_seqlens[i]..cu_seqlens[i + 1]` of every array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ragged {
    /// (T,)
    pub input_ids: Vec<i32>,
    /// (B + 1,), from 0 to T.
    pub cu_seqlens: Vec<i64>,
    /// (T,): 0 for the first text of a pair, 1 for the second, as the template says.
    pub token_type_ids: Option<Vec<i32>>,
    /// (T, 2): start and end in the original text, in characters; 0, 0 for special tokens.
    pub offset_mapping: Option<Vec<[i32; 2]>>,
    /// (B,): the text that each sequence came from.
    pub overflow_to_sample: Option<Vec<i64>>,
    /// (T,): the number of the word in its text, -1 for special tokens.
    pub word_ids: Option<Vec<i32>>,
    /// (T,): 0 for tokens of the first text of a pair, 1 for those of the second, -1 for special tokens around them.
    pub sequence_ids: Option<Vec<i32>>,
    /// How many texts lost tokens to truncation (with overflow: were split).
    pub truncated: usize,
}

impl Ragged {
    /// No sequences yet, with the arrays that `options` asks for.
    pub fn new(options: &EncodeOptions) -> Self {
        Self {
            input_ids: Vec::new(),
            cu_seqlens: vec![0],
            token_type_ids: options.want_token_type_ids.then(Vec::new),
            offset_mapping: options.want_offsets.then(Vec::new),
            overflow_to_sample: options.want_overflow.then(Vec::new),
            word_ids: options.want_word_ids.then(Vec::new),
            sequence_ids: options.want_sequence_ids.then(Vec::new),
            truncated: 0,
        }
    }

    /// Drops all sequences and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.input_ids.clear();
        self.cu_seqlens.truncate(1);
        self.token_type_ids.as_mut().map(Vec::clear);
        self.offset_mapping.as_mut().map(Vec::clear);
        self.overflow_to_sample.as_mut().map(Vec::clear);
        self.word_ids.as_mut().map(Vec::clear);
        self.sequence_ids.as_mut().map(Vec::clear);
        self.truncated = 0;
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of sequence `index`.
    pub fn ids(&self, index: usize) -> &[i32] {
        &self.input_ids[self.cu_seqlens[index] as usize..self.cu_seqlens[index + 1] as usize]
    }

    /// Puts the sequences of `parts`, made with the same options, behind these: batches are tokenized in ranges of
    /// texts, each on its own thread with its own `Ragged`. The threads of `team` share the copying.
    pub(super) fn append(&mut self, parts: &[&Self], team: &mut Team<'_>) {
        for part in parts {
            let shift = self.cu_seqlens.last().copied().unwrap_or(0);
            self.cu_seqlens.extend(part.cu_seqlens[1..].iter().map(|end| end + shift));
            self.truncated += part.truncated;
        }
        gather(&mut self.input_ids, parts.iter().map(|part| &part.input_ids), team);
        gather_some(&mut self.token_type_ids, parts, |part| &part.token_type_ids, team);
        gather_some(&mut self.offset_mapping, parts, |part| &part.offset_mapping, team);
        gather_some(&mut self.overflow_to_sample, parts, |part| &part.overflow_to_sample, team);
        gather_some(&mut self.word_ids, parts, |part| &part.word_ids, team);
        gather_some(&mut self.sequence_ids, parts, |part| &part.sequence_ids, team);
    }

    /// Ends the sequence being written.
    pub(super) fn end_sequence(&mut self, sample: usize) {
        self.cu_seqlens.push(self.input_ids.len() as i64);
        if let Some(samples) = &mut self.overflow_to_sample {
            samples.push(sample as i64);
        }
    }
}

fn gather_some<T: Copy + Send + Sync>(
    array: &mut Option<Vec<T>>,
    parts: &[&Ragged],
    of: impl Fn(&Ragged) -> &Option<Vec<T>>,
    team: &mut Team<'_>,
) {
    if let Some(array) = array {
        gather(array, parts.iter().filter_map(|part| of(part).as_ref()), team);
    }
}

/// Puts `parts` behind `array`. It is mostly the system that takes time, to find memory: all threads ask for it.
fn gather<'a, T: Copy + Send + Sync + 'a>(
    array: &mut Vec<T>,
    parts: impl Iterator<Item = &'a Vec<T>> + Clone,
    team: &mut Team<'_>,
) {
    let total = parts.clone().map(Vec::len).sum();
    array.reserve(total);
    let mut rest = &mut array.spare_capacity_mut()[..total];
    let mut copies = Vec::new();
    for part in parts {
        let (to, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
        rest = behind;
        copies.push(Mutex::new((to, part)));
    }
    let next = AtomicUsize::new(0);
    team.draw(copies.len(), |_| {
        while let Some(copy) = copies.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (to, part) = &mut *lock(copy);
            to.write_copy_of_slice(part);
        }
    });
    let len = array.len() + total;
    // SAFETY: reserved above, and the copies have written all of it: they cover `total` values, and `draw` returns when
    // every one of them was drawn and done.
    unsafe { array.set_len(len) };
}

/// The tokens of one text before truncation. `offsets` and `words` stay empty unless they are asked for.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub ids: Vec<i32>,
    pub offsets: Vec<[i32; 2]>,
    pub words: Vec<i32>,
}

impl Pieces {
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.offsets.truncate(len);
        self.words.truncate(len);
    }
}
