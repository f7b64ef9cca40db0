//! What each character becomes, in one lookup: the observed tables composed for one set of options.
//!
//! Cleaning, decomposition, dropping of accents and lower-casing act on single characters (see
//! [`Kind::InContext`] for the exceptions), so their composition is a table: stage one maps a block of 128 code
//! points to a row of `entries`, equal rows are shared.

use super::unicode_data::{
    CASE_IGNORABLE, CASED, CHINESE, CLEANED, COMBINING_CLASS, DECOMPOSITION, GOOGLE_CHINESE, GOOGLE_CLEANED,
    GOOGLE_COMBINING_CLASS, GOOGLE_DECOMPOSITION, GOOGLE_LOWERCASE, GOOGLE_NONSPACING, GOOGLE_PUNCTUATION,
    GOOGLE_WHITESPACE, LOWERCASE, LOWERCASE_LONGER, NONSPACING, PUNCTUATION, WHITESPACE, WORD,
};
use std::sync::OnceLock;

/// Whose rules count where the two tokenizers that BERT has had differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compat {
    /// Hugging Face's fast tokenizer.
    #[default]
    HuggingFace,
    /// `tokenization.py` of google-research/bert, as Python 3.11 runs it.
    Google,
}

type Ranges = &'static [(u32, u32)];

/// Where rules differ from Hugging Face's, whose tables come first.
struct Changes {
    /// In these ranges it is the other way round.
    cleaned: Ranges,
    chinese: Ranges,
    nonspacing: Ranges,
    whitespace: Ranges,
    punctuation: Ranges,
    /// These count before the tables.
    combining_class: &'static [(u32, u32, u8)],
    decomposition: &'static [(u32, &'static str)],
    lowercase: &'static [(u32, &'static str)],
}

static NO_CHANGES: Changes = Changes {
    cleaned: &[],
    chinese: &[],
    nonspacing: &[],
    whitespace: &[],
    punctuation: &[],
    combining_class: &[],
    decomposition: &[],
    lowercase: &[],
};

static GOOGLE: Changes = Changes {
    cleaned: GOOGLE_CLEANED,
    chinese: GOOGLE_CHINESE,
    nonspacing: GOOGLE_NONSPACING,
    whitespace: GOOGLE_WHITESPACE,
    punctuation: GOOGLE_PUNCTUATION,
    combining_class: GOOGLE_COMBINING_CLASS,
    decomposition: GOOGLE_DECOMPOSITION,
    lowercase: GOOGLE_LOWERCASE,
};

/// How the pre-tokenizer sees a normalized character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Word,
    Space,
    Punctuation,
}

/// What normalization makes of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Itself.
    Same(Class),
    /// One other character.
    One(char, Class),
    /// Several: an index for [`CharacterTable::several`].
    Several(usize),
    /// Nothing: an accent.
    Nothing,
    /// Two or three jamo, see [`hangul`].
    Hangul,
    /// Its neighbours decide, only [`super::normalizer::Normalizer::normalize_aligned`] can tell: a mark that
    /// survives the stripping of accents but may change places, or a capital sigma that may be a final one.
    InContext,
}

/// One looked-up character: the options `clean_text` and `handle_chinese_chars` decide on the two flags.
#[derive(Debug, Clone, Copy)]
pub struct Entry(u32);

const BLOCK_BITS: u32 = 7;
const BLOCK: usize = 1 << BLOCK_BITS;
const PAYLOAD: u32 = (1 << 21) - 1;
const KIND_SHIFT: u32 = 21;
const CLEANED_BIT: u32 = 1 << 24;
const CHINESE_BIT: u32 = 1 << 25;
const CLASS_SHIFT: u32 = 26;

impl Entry {
    /// Deleted by `clean_text`.
    #[inline]
    pub fn is_cleaned(self) -> bool {
        self.0 & CLEANED_BIT != 0
    }

    /// Made a word of its own by `handle_chinese_chars`.
    #[inline]
    pub fn is_chinese(self) -> bool {
        self.0 & CHINESE_BIT != 0
    }

    #[inline]
    pub fn kind(self) -> Kind {
        match (self.0 >> KIND_SHIFT) & 7 {
            0 => Kind::Same(class_from_bits(self.0)),
            // Payloads are written from `char`s only; the replacement cannot be taken.
            1 => Kind::One(
                char::from_u32(self.0 & PAYLOAD).unwrap_or(char::REPLACEMENT_CHARACTER),
                class_from_bits(self.0),
            ),
            2 => Kind::Several((self.0 & PAYLOAD) as usize),
            3 => Kind::Nothing,
            4 => Kind::Hangul,
            _ => Kind::InContext,
        }
    }

    fn set_kind(&mut self, kind: Kind) {
        let flags = self.0 & (CLEANED_BIT | CHINESE_BIT);
        self.0 = flags
            | match kind {
                Kind::Same(class) => (class as u32) << CLASS_SHIFT,
                Kind::One(c, class) => u32::from(c) | 1 << KIND_SHIFT | (class as u32) << CLASS_SHIFT,
                Kind::Several(index) => index as u32 | 2 << KIND_SHIFT,
                Kind::Nothing => 3 << KIND_SHIFT,
                Kind::Hangul => 4 << KIND_SHIFT,
                Kind::InContext => 5 << KIND_SHIFT,
            };
    }
}

#[inline]
fn class_from_bits(bits: u32) -> Class {
    match bits >> CLASS_SHIFT {
        0 => Class::Word,
        1 => Class::Space,
        _ => Class::Punctuation,
    }
}

/// The composition for one choice of rules, `strip_accents` and `lowercase`.
#[derive(Debug)]
pub struct CharacterTable {
    block_of: Vec<u16>,
    entries: Vec<Entry>,
    several: Vec<Vec<(char, Class)>>,
}

impl CharacterTable {
    /// The shared table for these options, composed at first use (one to two milliseconds).
    pub fn get(compat: Compat, strip_accents: bool, lowercase: bool) -> &'static Self {
        static TABLES: [OnceLock<CharacterTable>; 8] = [const { OnceLock::new() }; 8];
        let index = compat as usize * 4 + usize::from(strip_accents) * 2 + usize::from(lowercase);
        TABLES[index].get_or_init(|| Self::compose(compat, strip_accents, lowercase))
    }

    #[inline]
    pub fn entry(&self, c: char) -> Entry {
        let code = u32::from(c);
        let block = usize::from(self.block_of[(code >> BLOCK_BITS) as usize]);
        self.entries[block * BLOCK + code as usize % BLOCK]
    }

    /// The characters of a [`Kind::Several`].
    pub fn several(&self, index: usize) -> &[(char, Class)] {
        &self.several[index]
    }

    fn compose(compat: Compat, strip_accents: bool, lowercase: bool) -> Self {
        // Block 0 is the row of characters that stay as they are.
        let mut table = Self {
            block_of: vec![0; 0x11_0000 >> BLOCK_BITS],
            entries: vec![Entry(0); BLOCK],
            several: Vec::new(),
        };
        let changes = compat.changes();
        for (ranges, bit) in [
            (CLEANED, CLEANED_BIT),
            (changes.cleaned, CLEANED_BIT),
            (CHINESE, CHINESE_BIT),
            (changes.chinese, CHINESE_BIT),
        ] {
            codes(ranges).for_each(|code| table.own(code).0 ^= bit);
        }
        // All others are letters that stay as they are.
        let mut listed = Vec::new();
        for ranges in [WHITESPACE, changes.whitespace, PUNCTUATION, changes.punctuation] {
            listed.extend(codes(ranges));
        }
        if lowercase {
            for &(first, last, step, _) in LOWERCASE {
                listed.extend((first..=last).step_by(step as usize));
            }
            listed.extend(LOWERCASE_LONGER.iter().chain(changes.lowercase).map(|&(code, _)| code));
        }
        if strip_accents {
            (0xAC00..0xAC00 + 11172).for_each(|code| table.own(code).set_kind(Kind::Hangul));
            for &(first, last, _) in COMBINING_CLASS.iter().chain(changes.combining_class) {
                listed.extend(first..=last);
            }
            listed.extend(codes(NONSPACING).chain(codes(changes.nonspacing)));
            listed.extend(DECOMPOSITION.iter().chain(changes.decomposition).map(|&(code, _)| code));
        }
        listed.sort_unstable();
        listed.dedup();
        for c in listed.into_iter().filter_map(char::from_u32) {
            let kind = table.kind_of(c, compat, strip_accents, lowercase);
            table.own(u32::from(c)).set_kind(kind);
        }
        table.share_equal_blocks();
        table
    }

    /// What becomes of `c`, by the definition.
    fn kind_of(&mut self, c: char, compat: Compat, strip_accents: bool, lowercase: bool) -> Kind {
        let lowered = |text: Vec<char>| {
            let mut lowered = Vec::with_capacity(text.len());
            text.into_iter().for_each(|c| compat.lower(c, |c| lowered.push(c)));
            lowered
        };
        let mut result = vec![c];
        if lowercase && compat.lowers_words() {
            if c == SIGMA {
                return Kind::InContext;
            }
            result = lowered(result);
        }
        if strip_accents {
            result = result
                .into_iter()
                .flat_map(|c| match compat.decomposition(c) {
                    Some(decomposed) => decomposed.chars().collect(),
                    None => vec![c],
                })
                .filter(|&c| !compat.is_nonspacing(c))
                .collect();
            if result.iter().any(|&c| compat.combining_class(c) != 0) {
                return Kind::InContext;
            }
        }
        if lowercase && !compat.lowers_words() {
            result = lowered(result);
        }
        match result[..] {
            [] => Kind::Nothing,
            [same] if same == c => Kind::Same(compat.class_of(c)),
            [other] => Kind::One(other, compat.class_of(other)),
            _ => {
                self.several.push(result.into_iter().map(|c| (c, compat.class_of(c))).collect());
                Kind::Several(self.several.len() - 1)
            }
        }
    }

    /// The entry of `code` in a block that is no longer the shared one.
    fn own(&mut self, code: u32) -> &mut Entry {
        let index = (code >> BLOCK_BITS) as usize;
        if self.block_of[index] == 0 {
            self.block_of[index] = (self.entries.len() / BLOCK) as u16;
            self.entries.extend_from_within(..BLOCK);
        }
        &mut self.entries[usize::from(self.block_of[index]) * BLOCK + code as usize % BLOCK]
    }

    /// Lets blocks share the row of the block before them if it is the same (ideographs, private use).
    fn share_equal_blocks(&mut self) {
        let old = std::mem::take(&mut self.entries);
        let row = |block: u16| &old[usize::from(block) * BLOCK..][..BLOCK];
        self.entries.extend_from_slice(row(0));
        let (mut previous, mut shared) = (0, 0);
        for block in &mut self.block_of {
            if *block == 0 {
                continue;
            }
            if !row(*block).iter().zip(row(previous)).all(|(a, b)| a.0 == b.0) {
                shared = (self.entries.len() / BLOCK) as u16;
                self.entries.extend_from_slice(row(*block));
            }
            previous = *block;
            *block = shared;
        }
    }
}

/// The jamo of a Hangul syllable, by arithmetic (The Unicode Standard, section 3.12); a trailing one or none.
pub fn hangul(syllable: char) -> (char, char, Option<char>) {
    let index = u32::from(syllable) - 0xAC00;
    let jamo = |code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    let trailing = index % 28;
    (
        jamo(0x1100 + index / (21 * 28)),
        jamo(0x1161 + index / 28 % 21),
        (trailing != 0).then(|| jamo(0x11A7 + trailing)),
    )
}

/// Whether `c` is one of the syllables that [`hangul`] takes apart.
pub fn is_hangul(c: char) -> bool {
    (0xAC00..0xAC00 + 11172).contains(&u32::from(c))
}

/// The character that Python lower-cases in two ways.
pub const SIGMA: char = '\u{3a3}';
/// What it becomes at the end of a word.
pub const FINAL_SIGMA: char = '\u{3c2}';

fn codes(ranges: Ranges) -> impl Iterator<Item = u32> {
    ranges.iter().flat_map(|&(first, last)| first..=last)
}

fn contains(ranges: &[(u32, u32)], c: char) -> bool {
    let code = u32::from(c);
    let after = ranges.partition_point(|&(first, _)| first <= code);
    after > 0 && code <= ranges[after - 1].1
}

fn text_of(texts: &[(u32, &'static str)], c: char) -> Option<&'static str> {
    let found = texts.binary_search_by_key(&u32::from(c), |&(code, _)| code).ok()?;
    Some(texts[found].1)
}

impl Compat {
    fn changes(self) -> &'static Changes {
        match self {
            Self::HuggingFace => &NO_CHANGES,
            Self::Google => &GOOGLE,
        }
    }

    /// Whether words are lower-cased whole, which a capital sigma notices, and before accents are stripped; else
    /// single characters, and after it.
    pub(super) fn lowers_words(self) -> bool {
        self == Self::Google
    }

    pub(super) fn is_cleaned(self, c: char) -> bool {
        contains(CLEANED, c) != contains(self.changes().cleaned, c)
    }

    pub(super) fn is_chinese(self, c: char) -> bool {
        contains(CHINESE, c) != contains(self.changes().chinese, c)
    }

    pub(super) fn is_nonspacing(self, c: char) -> bool {
        contains(NONSPACING, c) != contains(self.changes().nonspacing, c)
    }

    pub(super) fn is_whitespace(self, c: char) -> bool {
        contains(WHITESPACE, c) != contains(self.changes().whitespace, c)
    }

    pub(super) fn class_of(self, c: char) -> Class {
        if self.is_whitespace(c) {
            Class::Space
        } else if contains(PUNCTUATION, c) != contains(self.changes().punctuation, c) {
            Class::Punctuation
        } else {
            Class::Word
        }
    }

    /// The canonical combining class, 0 for all but marks.
    pub(super) fn combining_class(self, c: char) -> u8 {
        let code = u32::from(c);
        let class = |ranges: &[(u32, u32, u8)]| {
            let after = ranges.partition_point(|&(first, ..)| first <= code);
            let (_, last, class) = ranges[after.checked_sub(1)?];
            (code <= last).then_some(class)
        };
        class(self.changes().combining_class).or_else(|| class(COMBINING_CLASS)).unwrap_or(0)
    }

    /// The full canonical decomposition of `c`, Hangul left out; `None` if it has none.
    pub(super) fn decomposition(self, c: char) -> Option<&'static str> {
        text_of(self.changes().decomposition, c).or_else(|| text_of(DECOMPOSITION, c))
    }

    /// Gives the characters of the lower-case form of `c`, by itself, to `push`.
    pub(super) fn lower(self, c: char, mut push: impl FnMut(char)) {
        let longer = text_of(self.changes().lowercase, c).or_else(|| text_of(LOWERCASE_LONGER, c));
        if let Some(longer) = longer {
            longer.chars().for_each(push);
            return;
        }
        let code = u32::from(c);
        let after = LOWERCASE.partition_point(|&(first, ..)| first <= code);
        let lowered = match after.checked_sub(1).map(|index| LOWERCASE[index]) {
            Some((first, last, step, distance)) if code <= last && (code - first).is_multiple_of(step) => {
                code.checked_add_signed(distance).and_then(char::from_u32)
            }
            _ => None,
        };
        push(lowered.unwrap_or(c));
    }
}

/// `\w` of Hugging Face's regular expressions.
pub fn is_word(c: char) -> bool {
    contains(WORD, c)
}

/// Whether `c` is a letter to a capital sigma beside it.
pub fn is_cased(c: char) -> bool {
    contains(CASED, c)
}

/// Whether a capital sigma looks through `c` to what is behind it.
pub fn is_case_ignorable(c: char) -> bool {
    contains(CASE_IGNORABLE, c) || Compat::Google.is_nonspacing(c)
}
