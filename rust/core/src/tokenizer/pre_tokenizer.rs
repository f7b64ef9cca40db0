//! BertPreTokenizer and the model in one pass: words are collected and turned into pieces as they end.

use super::encoding::Piece;
use super::fast_path::{FastPath, WordSink};
use super::normalizer::Sink;
use super::word_cache::{Entry, Found, PIECES, ShortWord, WordCache};
use super::wordpiece::WordPiece;

/// The word being collected. Reused from text to text, so that no word costs an allocation.
#[derive(Debug, Default)]
pub struct Word {
    bytes: Vec<u8>,
    /// For each byte the number of the character it came from; kept only for pieces that know their place.
    sources: Vec<u32>,
    /// Characters so far, also those that are too many to be kept.
    chars: usize,
    first: u32,
    last: u32,
}

/// Collects words into pieces.
pub struct Words<'a, P> {
    model: &'a WordPiece,
    fast_path: &'a FastPath,
    word: &'a mut Word,
    cache: &'a mut WordCache,
    pieces: &'a mut Vec<P>,
    next_word: i32,
    /// No more tokens than this are of use.
    limit: usize,
}

impl<'a, P: Piece> Words<'a, P> {
    /// `limit`: no more tokens than this are of use.
    pub fn new(
        model: &'a WordPiece,
        fast_path: &'a FastPath,
        word: &'a mut Word,
        cache: &'a mut WordCache,
        pieces: &'a mut Vec<P>,
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
                let (start, end) = if P::PLACED {
                    (word.sources[start] as i32, word.sources[end - 1] as i32 + 1)
                } else {
                    (0, 0)
                };
                pieces.push(P::new(id, start, end, *next_word));
            });
        if !known {
            pieces.truncate(before);
            pieces.push(P::new(model.unknown(), word.first as i32, word.last as i32 + 1, *next_word));
        }
        *next_word += 1;
        self.clear_word();
    }

    /// An ASCII word by the model; where its first pieces end.
    #[inline(never)]
    fn look_up(&mut self, word: &[u8], source: u32) -> [usize; PIECES] {
        let Self { model, pieces, next_word, .. } = self;
        let (mut ends, mut count) = ([0; PIECES], 0);
        let known = model.pieces(word, |id, start, end| {
            pieces.push(P::new(id, source as i32 + start as i32, source as i32 + end as i32, *next_word));
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
        let ids = self.pieces[before..].iter().map(|piece| piece.id());
        if let Some(entry) = Entry::new(word, ids, ends) {
            self.cache.put(word, entry);
        }
    }

    /// A word that it has.
    #[inline]
    fn known(&mut self, entry: Entry, source: u32) {
        // All that there is room for, and then as many as there are: no branch on their number.
        let len = self.pieces.len() + entry.count();
        let mut start = source as i32;
        let ends = if P::PLACED { entry.ends() } else { [0; PIECES] };
        let pieces: [P; PIECES] = std::array::from_fn(|index| {
            let end = source as i32 + i32::from(ends[index]);
            P::new(entry.ids()[index], std::mem::replace(&mut start, end), end, self.next_word)
        });
        self.pieces.extend_from_slice(&pieces);
        self.pieces.truncate(len);
        self.next_word += 1;
    }

    /// A piece of the current word.
    #[inline]
    fn push(&mut self, id: i32, start: u32, end: u32) {
        self.pieces.push(P::new(id, start as i32, end as i32, self.next_word));
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

impl<P: Piece> WordSink for Words<'_, P> {
    #[inline]
    fn characters(&mut self, tokens: &[i32], source: u32) {
        let (source, word) = (source as i32, self.next_word);
        self.pieces.extend(
            (0..)
                .zip(tokens)
                .map(|(index, token)| P::new(*token, source + index, source + index + 1, word + index)),
        );
        self.next_word += tokens.len() as i32;
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

    #[inline]
    fn prefetch(&self, place: u32) {
        self.cache.prefetch(place);
    }

    fn long(&mut self, word: &[u8], source: u32) {
        self.look_up(word, source);
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.pieces.len() > self.limit
    }
}

impl<P: Piece> Sink for Words<'_, P> {
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
            if P::PLACED {
                self.word.sources.extend(source..source + len);
            }
        }
    }

    #[inline]
    fn word(&mut self, c: char, source: u32) {
        if self.grow(1, source, source) {
            let mut utf8 = [0; 4];
            self.word.bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            if P::PLACED {
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
