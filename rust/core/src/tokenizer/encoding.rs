//! The result: ragged arrays, and what the caller asks of them.

use super::truncation::{Side, Strategy};
use crate::memory::{reserve, try_reserve};
use crate::threads::{Team, lock};
use std::sync::Mutex;

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

impl EncodeOptions {
    /// Whether it matters where in its text a token is.
    pub(super) fn is_placed(&self) -> bool {
        self.want_offsets || self.want_word_ids
    }
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
        let mut ragged = Self::default();
        ragged.restart(options);
        ragged
    }

    /// Drops all sequences and keeps the memory: as [`Self::new`].
    pub(super) fn restart(&mut self, options: &EncodeOptions) {
        fn some<T>(array: &mut Option<Vec<T>>, wanted: bool) {
            *array = wanted.then(|| array.take().unwrap_or_default());
            array.as_mut().map(Vec::clear);
        }
        self.input_ids.clear();
        self.cu_seqlens.clear();
        self.cu_seqlens.push(0);
        some(&mut self.token_type_ids, options.want_token_type_ids);
        some(&mut self.offset_mapping, options.want_offsets);
        some(&mut self.overflow_to_sample, options.want_overflow);
        some(&mut self.word_ids, options.want_word_ids);
        some(&mut self.sequence_ids, options.want_sequence_ids);
        self.truncated = 0;
    }

    /// Whether it holds no more memory than for so many tokens.
    pub(super) fn has_room_for_at_most(&self, tokens: usize) -> bool {
        self.input_ids.capacity() <= tokens
    }

    /// Whether so many more tokens need no new memory.
    pub(super) fn has_room(&self, tokens: usize) -> bool {
        self.input_ids.capacity() - self.input_ids.len() >= tokens
    }

    /// Room for so many more tokens in so many more sequences; false if the system does not give that much.
    pub(super) fn try_reserve(&mut self, tokens: usize, sequences: usize) -> bool {
        fn some<T>(array: &mut Option<Vec<T>>, additional: usize) -> bool {
            array.as_mut().is_none_or(|array| try_reserve(array, additional))
        }
        try_reserve(&mut self.input_ids, tokens)
            && try_reserve(&mut self.cu_seqlens, sequences)
            && some(&mut self.token_type_ids, tokens)
            && some(&mut self.offset_mapping, tokens)
            && some(&mut self.overflow_to_sample, sequences)
            && some(&mut self.word_ids, tokens)
            && some(&mut self.sequence_ids, tokens)
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
pub(super) fn gather<'a, T: Copy + Send + Sync + 'a>(
    array: &mut Vec<T>,
    parts: impl Iterator<Item = &'a Vec<T>> + Clone,
    team: &mut Team<'_>,
) {
    let total = parts.clone().map(Vec::len).sum();
    reserve(array, total);
    let mut rest = &mut array.spare_capacity_mut()[..total];
    let mut copies = Vec::new();
    for part in parts {
        let (to, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
        rest = behind;
        copies.push(Mutex::new((to, part)));
    }
    team.each(copies.len(), copies.len(), |copy| {
        let (to, part) = &mut *lock(&copies[copy]);
        to.write_copy_of_slice(part);
    });
    let len = array.len() + total;
    // SAFETY: reserved above, and the copies have written all of it: they cover `total` values, and `each` returns when
    // every one of them was drawn and done.
    unsafe { array.set_len(len) };
}

/// What is known of a token before truncation: its id alone, or a [`Placed`] one.
pub(super) trait Piece: Copy + Send + Sync {
    /// Whether it knows its place.
    const PLACED: bool;
    /// A token of the characters `start..end` and of the text's word number `word`.
    fn new(id: i32, start: i32, end: i32, word: i32) -> Self;
    fn id(self) -> i32;
    /// The number of its word, if it knows.
    fn word(self) -> i32;
    /// Makes it one of the word with this number.
    fn set_word(&mut self, word: i32);
    /// Puts it behind so many characters and words.
    fn shift(&mut self, chars: i32, words: i32);
    /// Puts ids, and offsets and word ids if `out` wants them, behind those of `out`.
    fn write(pieces: &[Self], out: &mut Ragged);
}

impl Piece for i32 {
    const PLACED: bool = false;

    #[inline]
    fn new(id: i32, _: i32, _: i32, _: i32) -> Self {
        id
    }

    fn id(self) -> i32 {
        self
    }

    fn word(self) -> i32 {
        0
    }

    fn set_word(&mut self, _: i32) {}

    fn shift(&mut self, _: i32, _: i32) {}

    fn write(pieces: &[Self], out: &mut Ragged) {
        out.input_ids.extend_from_slice(pieces);
    }
}

/// A token and where it is in its text. One store of 16 bytes: three arrays would cost three times the bookkeeping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(16))]
pub(super) struct Placed {
    id: i32,
    start: i32,
    end: i32,
    word: i32,
}

impl Piece for Placed {
    const PLACED: bool = true;

    #[inline]
    fn new(id: i32, start: i32, end: i32, word: i32) -> Self {
        Self { id, start, end, word }
    }

    fn id(self) -> i32 {
        self.id
    }

    fn word(self) -> i32 {
        self.word
    }

    fn set_word(&mut self, word: i32) {
        self.word = word;
    }

    fn shift(&mut self, chars: i32, words: i32) {
        self.start += chars;
        self.end += chars;
        self.word += words;
    }

    fn write(pieces: &[Self], out: &mut Ragged) {
        out.input_ids.extend(pieces.iter().map(|piece| piece.id));
        if let Some(offsets) = &mut out.offset_mapping {
            offsets.extend(pieces.iter().map(|piece| [piece.start, piece.end]));
        }
        if let Some(words) = &mut out.word_ids {
            words.extend(pieces.iter().map(|piece| piece.word));
        }
    }
}
