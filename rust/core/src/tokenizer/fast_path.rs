//! The fast path: what nearly all text consists of, without going character by character.
//!
//! ASCII is read in blocks of 64 bytes, in which masks say what is a word; each is looked up whole in a cache of words.
//! Other characters that are words by themselves, above all Chinese ones, are looked up in a table. Everything else is
//! left to the normalizer: this path stops in front of it, and may go on behind it.

use super::characters::{Class, Kind};
use super::normalizer::Normalizer;
use super::word_cache::{Found, ShortWord, WordCache};
use super::wordpiece::WordPiece;
use crate::simd::Ascii;

/// What a character is to the fast path: the token of one that is a word by itself, or one of these.
type Code = i32;
/// Ends a word and is nothing else.
const SPACE: Code = -1;
/// For blocks: a letter, digit or punctuation of ASCII, or the space.
const ASCII: Code = -2;
/// For the normalizer.
const OTHER: Code = -3;

/// How many code points the table has: all that take at most three bytes.
const CODES: usize = 0x1_0000;

/// The tables for a model and a choice of options.
#[derive(Debug, Clone)]
pub struct FastPath {
    codes: Box<[Code]>,
    lowercase: bool,
}

/// Receives the words that the fast path has read.
pub trait WordSink {
    /// Words of one character each, one behind the other, whose tokens are known.
    fn characters(&mut self, tokens: &[i32], source: u32);
    /// ASCII words, lower-cased if that is asked for.
    fn short(&mut self, words: &[Found]);
    /// One that is too long for a [`ShortWord`].
    fn long(&mut self, word: &[u8], source: u32);
    /// A word is about to come that has this place in the cache.
    fn prefetch(&self, place: u32);
    /// Whether anything more would be of no use.
    fn is_full(&self) -> bool;
}

impl FastPath {
    pub fn new(normalizer: &Normalizer, model: &WordPiece) -> Self {
        let token = |c: char| if model.max_chars() > 0 { model.character(c) } else { model.unknown() };
        let code = |code: u32| {
            let Some(c) = char::from_u32(code) else { return OTHER };
            match normalizer.character(c) {
                _ if matches!(c, ' '..='~') && model.max_chars() >= BLOCK => ASCII,
                Some((Kind::Same(Class::Space) | Kind::One(_, Class::Space), _)) => SPACE,
                Some((Kind::Same(Class::Punctuation), _) | (Kind::Same(_), true)) => token(c),
                Some((Kind::One(c, Class::Punctuation), _) | (Kind::One(c, _), true)) => token(c),
                _ => OTHER,
            }
        };
        Self { codes: (0..CODES as u32).map(code).collect(), lowercase: normalizer.options().lowercase }
    }

    /// Gives the words of `text` to `words`, from byte `at` on, where a word may begin; `source` is the number of the
    /// character there. Returns both for where it stopped: at something that is not for it, at the end, or because
    /// `words` is full.
    #[inline]
    pub fn run(&self, text: &str, mut at: usize, mut source: u32, words: &mut impl WordSink) -> (usize, u32) {
        let bytes = text.as_bytes();
        let mut batch = [Found::default(); BLOCK];
        while at < bytes.len() && !words.is_full() {
            let (code, size) = self.code(bytes, at);
            let (read, chars) = match code {
                ASCII => {
                    let read = self.ascii(&bytes[at..], source, &mut batch, words);
                    (read, read as u32)
                }
                SPACE => (size, 1),
                OTHER => break,
                _ => self.characters(bytes, at, source, words),
            };
            if read == 0 {
                break;
            }
            at += read;
            source += chars;
        }
        (at, source)
    }

    /// The first place from byte `from` on where a word ends whatever follows: behind a space, or behind a character that is
    /// not ASCII and a word by itself.
    pub fn word_end(&self, text: &str, from: usize) -> Option<usize> {
        let bytes = text.as_bytes();
        let mut at = (from..bytes.len()).find(|&at| text.is_char_boundary(at))?;
        while at < bytes.len() {
            let (code, size) = self.code(bytes, at);
            at += size;
            if bytes[at - size] == b' ' || code == SPACE || code >= 0 && size > 1 {
                return Some(at);
            }
        }
        None
    }

    /// The characters from byte `at` on that are words by themselves, up to a few; how many bytes and how many characters.
    #[inline]
    fn characters(&self, bytes: &[u8], at: usize, source: u32, words: &mut impl WordSink) -> (usize, u32) {
        let mut tokens = [0; CHARACTERS];
        let (mut end, mut count) = (at, 0);
        while end < bytes.len() && count < CHARACTERS {
            let (code, size) = self.code(bytes, end);
            if code < 0 {
                break;
            }
            tokens[count] = code;
            count += 1;
            end += size;
        }
        words.characters(&tokens[..count], source);
        (end - at, count as u32)
    }

    /// The words of one block at the start of `bytes`; how much of it was read.
    #[inline]
    fn ascii(
        &self,
        bytes: &[u8],
        source: u32,
        batch: &mut [Found; BLOCK],
        words: &mut impl WordSink,
    ) -> usize {
        let block = Block::new(bytes, self.lowercase);
        let len = block.others.trailing_zeros() as usize;
        // A word at the end may go on behind the block, or with something that is not ASCII.
        let is_open = len < bytes.len() && (len == BLOCK || self.code(bytes, len).0 == OTHER);
        let open =
            if is_open && len > 0 { (block.words << (BLOCK - len)).leading_ones() as usize } else { 0 };
        let len = len - open;
        let first_of_words = block.words & !(block.words << 1);
        let mut starts =
            (first_of_words | block.marks) & u64::MAX.checked_shl(len as u32).map_or(u64::MAX, |mask| !mask);
        let mut count = 0;
        while starts != 0 {
            let start = starts.trailing_zeros();
            starts &= starts - 1;
            let len = (block.words >> start).trailing_ones().max(1) as usize;
            if let Some(word) = ShortWord::new(block.window(start as usize), len) {
                let place = WordCache::place(word);
                words.prefetch(place);
                batch[count % BLOCK] = Found { word, place, source: source + start };
                count += 1;
            } else {
                words.short(&batch[..count]);
                count = 0;
                words.long(&block.bytes[start as usize..][..len], source + start);
            }
        }
        words.short(&batch[..count]);
        len
    }

    /// Code and size in bytes of the character that begins at byte `at`.
    #[inline]
    fn code(&self, bytes: &[u8], at: usize) -> (Code, usize) {
        let tail = |index: usize| bytes.get(at + index).map_or(0, |byte| u32::from(byte & 0x3F));
        let lead = bytes[at];
        let (code, size) = match lead {
            ..0x80 => (u32::from(lead), 1),
            0x80..0xE0 => (u32::from(lead & 0x1F) << 6 | tail(1), 2),
            0xE0..0xF0 => (u32::from(lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
            _ => return (OTHER, 4),
        };
        (self.codes[code as usize], size)
    }
}

/// How many characters that are words by themselves are handed over together.
const CHARACTERS: usize = 32;

/// How many bytes are looked at together: as many as a mask has bits.
const BLOCK: usize = 64;

/// What is what in some bytes; bit `i` of a mask is byte `i`.
struct Block {
    /// Letters lower-cased if that is asked for; zeros behind the end.
    bytes: [u8; BLOCK + 16],
    /// Letters and digits.
    words: u64,
    /// Punctuation.
    marks: u64,
    /// Neither of these nor a space, and everything behind the end.
    others: u64,
}

impl Block {
    #[inline]
    fn new(text: &[u8], lowercase: bool) -> Self {
        let mut bytes = [0; BLOCK + 16];
        match text.first_chunk::<BLOCK>() {
            Some(text) => bytes[..BLOCK].copy_from_slice(text),
            None => bytes[..text.len()].copy_from_slice(text),
        }
        let (mut words, mut marks, mut others) = (0, 0, 0);
        for (index, chunk) in bytes.as_chunks_mut().0[..BLOCK / 16].iter_mut().enumerate() {
            let ascii = Ascii::new(*chunk);
            if lowercase {
                *chunk = ascii.lower;
            }
            words |= u64::from(ascii.words) << (16 * index);
            marks |= u64::from(ascii.printed & !ascii.words) << (16 * index);
            others |= u64::from(!ascii.plain) << (16 * index);
        }
        Self { bytes, words, marks, others }
    }

    /// 16 bytes from `start` on.
    #[inline]
    fn window(&self, start: usize) -> [u8; 16] {
        self.bytes[start..].first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{EncodeOptions, Ragged, Scratch, Settings, Tokenizer};
    use proptest::prelude::*;

    #[test]
    fn masks_say_what_every_byte_is() {
        let all: Vec<u8> = (0..=255).collect();
        for (bytes, lowercase) in
            all.chunks(BLOCK).chain(all.chunks(29)).flat_map(|bytes| [(bytes, true), (bytes, false)])
        {
            let block = Block::new(bytes, lowercase);
            for at in 0..BLOCK {
                let byte = bytes.get(at).copied().unwrap_or(0);
                let is = |mask: u64| mask >> at & 1 == 1;
                assert_eq!(is(block.words), byte.is_ascii_alphanumeric(), "{byte:#x}");
                assert_eq!(is(block.marks), byte.is_ascii_punctuation(), "{byte:#x}");
                assert_eq!(is(block.others), !matches!(byte, b' '..=b'~'), "{byte:#x}");
                assert_eq!(block.bytes[at], if lowercase { byte.to_ascii_lowercase() } else { byte });
            }
            assert_eq!(block.bytes[BLOCK..], [0; 16]);
        }
    }

    /// As it is, and with nothing left to the fast path.
    fn both(do_lower_case: bool) -> (Tokenizer, Tokenizer) {
        let open = || {
            let settings = Settings { do_lower_case, ..Settings::new(None, None, None).unwrap() };
            let words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nab\nabc\n##a\n##b\n##c\n##ab\nA\nAb\n##B\n7\n##7\n.\n,\n\
                         [\n]\nm\n##sk\n\u{4e2d}\n\u{ff0c}\n\u{3002}\n\u{2019}\n\u{e9}\n##\u{e9}\ne\n##e";
            Tokenizer::from_vocab(words, settings).unwrap()
        };
        let (fast, mut slow) = (open(), open());
        slow.fast_path.codes.fill(OTHER);
        (fast, slow)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn it_changes_nothing(
            texts in prop::collection::vec(prop_oneof![
                "[abcABe7]{1,14}([ .,]{1,2}[abcABe7]{1,14}){0,30}",
                "[abc7AB .,\\[\\]MASK\u{4e2d}\u{4e8c}\u{ff0c}\u{3002}\u{2019}\u{e9}\u{301}\u{302e}\t\n\u{1}\u{a0}\u{3000}\u{ad}\u{ac00}\u{1f600}]{0,90}",
                "[ab]{50,120} ?[ab\u{e9}\u{4e2d}]{0,3}",
                prop::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter),
            ], 1..5),
            lowercase: bool,
            aligned: bool,
        ) {
            let (fast, slow) = both(lowercase);
            let options =
                EncodeOptions { want_offsets: aligned, want_word_ids: aligned, ..EncodeOptions::default() };
            // With what was learned from the texts before.
            let (mut scratch, mut got) = (Scratch::default(), Ragged::new(&options));
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let all = 0..texts.len();
            fast.encode_range(&texts, None, all.clone(), &options, &mut scratch, &mut got).unwrap();
            fast.encode_range(&texts, None, all.clone(), &options, &mut scratch, &mut got).unwrap();
            let mut want = Ragged::new(&options);
            slow.encode_range(&texts, None, all.clone(), &options, &mut Scratch::default(), &mut want).unwrap();
            slow.encode_range(&texts, None, all, &options, &mut Scratch::default(), &mut want).unwrap();
            prop_assert_eq!(got, want);
        }
    }
}
