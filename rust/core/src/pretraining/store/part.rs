//! Sentences on their way into a store: tokenized and packed by one thread.

use super::pieces::Piece;
use crate::pretraining::sentences::sentences;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// What a vocabulary tells about packing ids.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) token_bits: u32,
    /// Whether each id begins a word.
    pub(super) starts_word: Vec<bool>,
}

/// Sentences end to end, in the form of the files. It is used again and again.
#[derive(Debug, Default)]
pub(super) struct Part {
    ids: Vec<i32>,
    /// Where sentences end in the ids. There are none without tokens.
    pub(super) sentence_ends: Vec<u32>,
    /// How many of the sentences lie before each end of a document. What is not there yet ends at 0, and several ends may
    /// be at one place.
    pub(super) document_ends: Vec<u32>,
    /// The ids in 16 or 32 bits.
    pub(super) tokens: Vec<u8>,
    /// The word starts, from the first bit on.
    pub(super) word_starts: Vec<u8>,
}

impl Part {
    pub(super) fn num_tokens(&self) -> usize {
        self.ids.len()
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.sentence_ends.clear();
        self.document_ends.clear();
    }

    /// Tokenizes pieces of text, each of which is a sentence, or as many as it has.
    ///
    /// # Errors
    /// `Error::TokenId` if the tokenizer makes ids that the store has no room for.
    pub(super) fn fill(
        &mut self,
        pieces: &[Piece<'_>],
        tokenizer: &Tokenizer,
        split: bool,
        packing: &Packing,
    ) -> Result<()> {
        self.clear();
        tokenizer.with_scratch(|scratch| {
            for piece in pieces {
                if piece.begins_document {
                    self.document_ends.push(self.sentence_ends.len() as u32);
                }
                let mut add = |sentence: &str| {
                    let before = self.ids.len();
                    tokenizer.append_ids(sentence, scratch, &mut self.ids);
                    if self.ids.len() > before {
                        self.sentence_ends.push(self.ids.len() as u32);
                    }
                };
                for paragraph in paragraphs(piece.text) {
                    if split {
                        sentences(paragraph).for_each(&mut add);
                    } else {
                        add(paragraph);
                    }
                }
            }
        });
        self.pack(packing, None)
    }

    /// Takes sequences of ids that lie end to end: where each ends, whether a document does there, and where words begin.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub(super) fn fill_with(
        &mut self,
        ids: &[i32],
        ends: impl Iterator<Item = (usize, bool)>,
        starts: Option<&[bool]>,
        packing: &Packing,
    ) -> Result<()> {
        self.clear();
        self.ids.extend_from_slice(ids);
        let mut last = 0;
        for (end, document) in ends {
            if end > last {
                self.sentence_ends.push(end as u32);
                last = end;
            }
            if document {
                self.document_ends.push(self.sentence_ends.len() as u32);
            }
        }
        self.pack(packing, starts)
    }

    fn pack(&mut self, packing: &Packing, starts: Option<&[bool]>) -> Result<()> {
        let ids = &self.ids[..];
        packing.check(ids)?;
        self.tokens.resize(ids.len() * packing.token_bits as usize / 8, 0);
        if packing.token_bits == 16 {
            let to = self.tokens.as_chunks_mut().0;
            to.iter_mut().zip(ids).for_each(|(to, id)| *to = (*id as u16).to_le_bytes());
        } else {
            let to = self.tokens.as_chunks_mut().0;
            to.iter_mut().zip(ids).for_each(|(to, id)| *to = id.to_le_bytes());
        }
        match starts {
            Some(starts) => pack_bits(starts, |start| *start, &mut self.word_starts),
            None => pack_bits(ids, |id| packing.starts_word[*id as usize], &mut self.word_starts),
        }
        let begins = [0].into_iter().chain(self.sentence_ends.iter().copied()).map(|begin| begin as usize);
        for begin in begins.filter(|begin| *begin < ids.len()) {
            self.word_starts[begin / 8] |= 1 << (begin % 8);
        }
        Ok(())
    }
}

impl Packing {
    /// That ids are those of the table, which has no more than fit.
    pub(super) fn check(&self, ids: &[i32]) -> Result<()> {
        let size = self.starts_word.len();
        // Negative ones are large then.
        let largest = ids.iter().fold(0, |largest, id| (*id as u32).max(largest));
        if largest as usize >= size && !ids.is_empty() {
            return Err(Error::TokenId(format!(
                "input_ids: expected ids in 0..{size}, got {}",
                largest as i32
            )));
        }
        Ok(())
    }
}

/// What is between line breaks.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr::memchr(b'\n', text.as_bytes());
        rest = end.map(|end| &text[end + 1..]);
        Some(&text[..end.unwrap_or(text.len())])
    })
}

fn pack_bits<T>(values: &[T], bit: impl Fn(&T) -> bool, out: &mut Vec<u8>) {
    out.clear();
    let (whole, rest) = values.as_chunks::<8>();
    let byte = |values: &[T]| (0..).zip(values).fold(0, |byte, (i, value)| byte | u8::from(bit(value)) << i);
    out.extend(whole.iter().map(|values| byte(values)));
    if !rest.is_empty() {
        out.push(byte(rest));
    }
}
