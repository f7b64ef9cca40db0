//! What each character becomes, in one lookup: the observed tables composed for one set of options.
//!
//! Cleaning, decomposition, dropping of accents and lower-casing act on single characters (the reordering of
//! combining marks is the exception, see [`Kind::Reorders`]), so their composition is a table: stage one maps
//! a block of 128 code points to a row of `entries`, equal rows are shared.

use super::unicode_data::{
    CHINESE, CLEANED, COMBINING_CLASS, DECOMPOSITION, LOWERCASE, LOWERCASE_LONGER, NONSPACING, PUNCTUATION,
    WHITESPACE, WORD,
};
use std::sync::OnceLock;

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
    /// A mark that survives the stripping of accents but may change places with its neighbours: only
    /// [`super::normalizer::Normalizer::normalize_aligned`] can tell.
    Reorders,
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
            _ => Kind::Reorders,
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
                Kind::Reorders => 5 << KIND_SHIFT,
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

/// The composition for one choice of `strip_accents` and `lowercase`.
#[derive(Debug)]
pub struct CharacterTable {
    block_of: Vec<u16>,
    entries: Vec<Entry>,
    several: Vec<Vec<(char, Class)>>,
}

impl CharacterTable {
    /// The shared table for these options, composed at first use (well under a millisecond).
    pub fn get(strip_accents: bool, lowercase: bool) -> &'static Self {
        static TABLES: [OnceLock<CharacterTable>; 4] = [const { OnceLock::new() }; 4];
        let index = usize::from(strip_accents) * 2 + usize::from(lowercase);
        TABLES[index].get_or_init(|| Self::compose(strip_accents, lowercase))
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

    fn compose(strip_accents: bool, lowercase: bool) -> Self {
        // Block 0 is the row of characters that stay as they are.
        let mut table = Self {
            block_of: vec![0; 0x11_0000 >> BLOCK_BITS],
            entries: vec![Entry(0); BLOCK],
            several: Vec::new(),
        };
        for &(first, last) in CLEANED {
            (first..=last).for_each(|code| table.own(code).0 |= CLEANED_BIT);
        }
        for &(first, last) in CHINESE {
            (first..=last).for_each(|code| table.own(code).0 |= CHINESE_BIT);
        }
        for (ranges, class) in [(WHITESPACE, Class::Space), (PUNCTUATION, Class::Punctuation)] {
            for &(first, last) in ranges {
                (first..=last).for_each(|code| table.own(code).set_kind(Kind::Same(class)));
            }
        }
        if lowercase {
            let singles =
                LOWERCASE.iter().flat_map(|&(first, last, step, _)| (first..=last).step_by(step as usize));
            let longer = LOWERCASE_LONGER.iter().map(|&(code, _)| code);
            singles.chain(longer).for_each(|code| table.set_result(code, &[code], lowercase));
        }
        if strip_accents {
            (0xAC00..0xAC00 + 11172).for_each(|code| table.own(code).set_kind(Kind::Hangul));
            for &(first, last, _) in COMBINING_CLASS {
                (first..=last).for_each(|code| table.own(code).set_kind(Kind::Reorders));
            }
            for &(first, last) in NONSPACING {
                (first..=last).for_each(|code| table.own(code).set_kind(Kind::Nothing));
            }
            for &(code, decomposition) in DECOMPOSITION {
                let kept: Vec<u32> =
                    decomposition.chars().filter(|&c| !is_nonspacing(c)).map(u32::from).collect();
                if kept.iter().any(|&code| combining_class_of(code) != 0) {
                    table.own(code).set_kind(Kind::Reorders);
                } else {
                    table.set_result(code, &kept, lowercase);
                }
            }
        }
        table.share_equal_blocks();
        table
    }

    /// Writes what `code` becomes when `parts` have come out of decomposition.
    fn set_result(&mut self, code: u32, parts: &[u32], lowercase: bool) {
        let mut result = Vec::new();
        for c in parts.iter().filter_map(|&part| char::from_u32(part)) {
            if lowercase {
                lower(c, |lowered| result.push((lowered, class_of(lowered))));
            } else {
                result.push((c, class_of(c)));
            }
        }
        let kind = match result[..] {
            [] => Kind::Nothing,
            [(c, class)] => Kind::One(c, class),
            _ => {
                self.several.push(result);
                Kind::Several(self.several.len() - 1)
            }
        };
        self.own(code).set_kind(kind);
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

fn contains(ranges: &[(u32, u32)], c: char) -> bool {
    let code = u32::from(c);
    let after = ranges.partition_point(|&(first, _)| first <= code);
    after > 0 && code <= ranges[after - 1].1
}

pub fn is_cleaned(c: char) -> bool {
    contains(CLEANED, c)
}

pub fn is_chinese(c: char) -> bool {
    contains(CHINESE, c)
}

pub fn is_nonspacing(c: char) -> bool {
    contains(NONSPACING, c)
}

pub fn is_whitespace(c: char) -> bool {
    contains(WHITESPACE, c)
}

/// `\w` of the reference's regular expressions.
pub fn is_word(c: char) -> bool {
    contains(WORD, c)
}

pub fn class_of(c: char) -> Class {
    if is_whitespace(c) {
        Class::Space
    } else if contains(PUNCTUATION, c) {
        Class::Punctuation
    } else {
        Class::Word
    }
}

/// The canonical combining class, 0 for all but marks.
pub fn combining_class(c: char) -> u8 {
    combining_class_of(u32::from(c))
}

fn combining_class_of(code: u32) -> u8 {
    let after = COMBINING_CLASS.partition_point(|&(first, ..)| first <= code);
    match after.checked_sub(1).map(|index| COMBINING_CLASS[index]) {
        Some((_, last, class)) if code <= last => class,
        _ => 0,
    }
}

/// The full canonical decomposition of `c`, Hangul left out; `None` if it has none.
pub fn decomposition(c: char) -> Option<&'static str> {
    let found = DECOMPOSITION.binary_search_by_key(&u32::from(c), |&(code, _)| code).ok()?;
    Some(DECOMPOSITION[found].1)
}

/// Gives the characters of the lower-case form of `c` to `push`.
pub fn lower(c: char, mut push: impl FnMut(char)) {
    let code = u32::from(c);
    if let Ok(found) = LOWERCASE_LONGER.binary_search_by_key(&code, |&(code, _)| code) {
        LOWERCASE_LONGER[found].1.chars().for_each(push);
        return;
    }
    let after = LOWERCASE.partition_point(|&(first, ..)| first <= code);
    let lowered = match after.checked_sub(1).map(|index| LOWERCASE[index]) {
        Some((first, last, step, distance)) if code <= last && (code - first).is_multiple_of(step) => {
            code.checked_add_signed(distance).and_then(char::from_u32)
        }
        _ => None,
    };
    push(lowered.unwrap_or(c));
}
