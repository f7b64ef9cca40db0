//! BertPreTokenizer and the model in one pass: words are collected and turned into pieces as they end.

use super::encoding::Pieces;
use super::normalizer::Sink;
use super::wordpiece::WordPiece;

/// The word being collected. Reused from text to text, so that no word costs an allocation.
#[derive(Debug, Default)]
pub struct Word {
    bytes: Vec<u8>,
    /// For each byte the number of the character it came from; kept only with `ALIGNED`.
    sources: Vec<u32>,
    /// Characters so far, also those that are too many to be kept.
    chars: usize,
    first: u32,
    last: u32,
}

/// Collects words into pieces. `ALIGNED`: offsets and word ids too.
pub struct Words<'a, const ALIGNED: bool> {
    model: &'a WordPiece,
    word: &'a mut Word,
    pieces: &'a mut Pieces,
    next_word: i32,
    /// No more tokens than this are of use.
    limit: usize,
}

impl<'a, const ALIGNED: bool> Words<'a, ALIGNED> {
    pub fn new(model: &'a WordPiece, word: &'a mut Word, pieces: &'a mut Pieces, limit: usize) -> Self {
        Self { model, word, pieces, next_word: 0, limit }
    }

    /// A token that is a word by itself: an added token.
    pub fn token(&mut self, id: i32, start: u32, end: u32) {
        self.pieces.ids.push(id);
        if ALIGNED {
            self.pieces.offsets.push([start as i32, end as i32]);
            self.pieces.words.push(self.next_word);
        }
        self.next_word += 1;
    }

    /// Where to return to with [`Self::forget_since`].
    pub fn mark(&self) -> (usize, i32) {
        (self.pieces.len(), self.next_word)
    }

    /// Drops everything after `mark`, the word being collected included.
    pub fn forget_since(&mut self, (len, next_word): (usize, i32)) {
        self.pieces.truncate(len);
        self.next_word = next_word;
        self.clear_word();
    }

    /// Ends the word being collected, if there is one.
    pub fn end_word(&mut self) {
        if self.word.chars == 0 {
            return;
        }
        let Self { model, word, pieces, next_word, .. } = self;
        let before = pieces.len();
        let known = word.chars <= model.max_chars()
            && model.pieces(&word.bytes, |id, start, end| {
                pieces.ids.push(id);
                if ALIGNED {
                    let offsets = [word.sources[start] as i32, word.sources[end - 1] as i32 + 1];
                    pieces.offsets.push(offsets);
                    pieces.words.push(*next_word);
                }
            });
        if !known {
            pieces.truncate(before);
            pieces.ids.push(model.unknown());
            if ALIGNED {
                pieces.offsets.push([word.first as i32, word.last as i32 + 1]);
                pieces.words.push(*next_word);
            }
        }
        *next_word += 1;
        self.clear_word();
    }

    fn clear_word(&mut self) {
        self.word.bytes.clear();
        self.word.sources.clear();
        self.word.chars = 0;
    }

    /// Notes `chars` more characters from `first..=last`; whether they are worth keeping.
    #[inline]
    fn grow(&mut self, chars: usize, first: u32, last: u32) -> bool {
        if self.word.chars == 0 {
            self.word.first = first;
        }
        self.word.last = last;
        self.word.chars += chars;
        // A word that is too long is unknown whatever it holds: an endless one costs no memory.
        self.word.chars <= self.model.max_chars()
    }
}

impl<const ALIGNED: bool> Sink for Words<'_, ALIGNED> {
    #[inline]
    fn ascii_run(&mut self, bytes: impl ExactSizeIterator<Item = u8>, source: u32) {
        let len = bytes.len() as u32;
        if self.grow(len as usize, source, source + len - 1) {
            self.word.bytes.extend(bytes);
            if ALIGNED {
                self.word.sources.extend(source..source + len);
            }
        }
    }

    #[inline]
    fn word(&mut self, c: char, source: u32) {
        if self.grow(1, source, source) {
            let mut utf8 = [0; 4];
            self.word.bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            if ALIGNED {
                self.word.sources.resize(self.word.bytes.len(), source);
            }
        }
    }

    #[inline]
    fn punctuation(&mut self, c: char, source: u32) {
        self.end_word();
        self.word(c, source);
        self.end_word();
    }

    #[inline]
    fn space(&mut self) {
        self.end_word();
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.pieces.len() > self.limit
    }
}
