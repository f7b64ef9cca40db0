//! BertPreTokenizer and the model in one pass: words are collected and turned into pieces as they end.

use super::encoding::Pieces;
use super::fast_path::{FastPath, WordSink};
use super::normalizer::Sink;
use super::word_cache::{Entry, Found, PIECES, ShortWord, WordCache};
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
    fast_path: &'a FastPath,
    word: &'a mut Word,
    cache: &'a mut WordCache,
    pieces: &'a mut Pieces,
    next_word: i32,
    /// No more tokens than this are of use.
    limit: usize,
}

impl<'a, const ALIGNED: bool> Words<'a, ALIGNED> {
    /// `limit`: no more tokens than this are of use.
    pub fn new(
        model: &'a WordPiece,
        fast_path: &'a FastPath,
        word: &'a mut Word,
        cache: &'a mut WordCache,
        pieces: &'a mut Pieces,
        limit: usize,
    ) -> Self {
        Self { model, fast_path, word, cache, pieces, next_word: 0, limit }
    }

    /// A token that is a word by itself: an added token.
    #[inline]
    pub fn token(&mut self, id: i32, start: u32, end: u32) {
        self.push(id, start, end);
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

    /// An ASCII word by the model; where its first pieces end.
    #[inline(never)]
    fn look_up(&mut self, word: &[u8], source: u32) -> [usize; PIECES] {
        let Self { model, pieces, next_word, .. } = self;
        let mut push = |id, start: usize, end: usize| {
            pieces.ids.push(id);
            if ALIGNED {
                pieces.offsets.push([source as i32 + start as i32, source as i32 + end as i32]);
                pieces.words.push(*next_word);
            }
        };
        let (mut ends, mut count) = ([0; PIECES], 0);
        let known = model.pieces(word, |id, start, end| {
            push(id, start, end);
            if let Some(place) = ends.get_mut(count) {
                *place = end;
            }
            count += 1;
        });
        if !known {
            pieces.truncate(pieces.len() - count);
            self.push(self.model.unknown(), source, source + word.len() as u32);
            ends[0] = word.len();
        }
        self.next_word += 1;
        ends
    }

    /// A word that the cache does not have.
    fn learn(&mut self, word: ShortWord, source: u32) {
        let before = self.pieces.len();
        let ends = self.look_up(&word.bytes()[..word.len()], source);
        if let Some(entry) = Entry::new(word, &self.pieces.ids[before..], ends) {
            self.cache.put(word, entry);
        }
    }

    /// A word that it has.
    #[inline]
    fn known(&mut self, entry: Entry, source: u32) {
        // All that there is room for, and then as many as there are: no branch on their number.
        let len = self.pieces.len() + entry.count();
        self.pieces.ids.extend_from_slice(entry.ids());
        self.pieces.ids.truncate(len);
        if ALIGNED {
            let ends = entry.ends().map(|end| source as i32 + i32::from(end));
            self.pieces.offsets.extend_from_slice(&[
                [source as i32, ends[0]],
                [ends[0], ends[1]],
                [ends[1], ends[2]],
                [ends[2], ends[3]],
            ]);
            self.pieces.offsets.truncate(len);
            self.pieces.words.extend_from_slice(&[self.next_word; PIECES]);
            self.pieces.words.truncate(len);
        }
        self.next_word += 1;
    }

    /// A piece of the current word.
    #[inline]
    fn push(&mut self, id: i32, start: u32, end: u32) {
        self.pieces.ids.push(id);
        if ALIGNED {
            self.pieces.offsets.push([start as i32, end as i32]);
            self.pieces.words.push(self.next_word);
        }
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

impl<const ALIGNED: bool> WordSink for Words<'_, ALIGNED> {
    #[inline]
    fn one(&mut self, token: i32, source: u32) {
        self.token(token, source, source + 1);
    }

    #[inline]
    fn short(&mut self, words: &[Found]) {
        for Found { word, place, source } in words {
            match self.cache.get(*word, *place) {
                Some(entry) => self.known(*entry, *source),
                None => self.learn(*word, *source),
            }
        }
    }

    fn long(&mut self, word: &[u8], source: u32) {
        self.look_up(word, source);
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.pieces.len() > self.limit
    }
}

impl<const ALIGNED: bool> Sink for Words<'_, ALIGNED> {
    #[inline]
    fn take(&mut self, text: &str, at: usize, source: u32) -> (usize, u32) {
        let is_between = self.word.chars == 0;
        if is_between { self.fast_path.run(text, at, source, self) } else { (at, source) }
    }

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
        WordSink::is_full(self)
    }
}
