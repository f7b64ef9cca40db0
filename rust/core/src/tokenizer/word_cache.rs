//! Tokens of words that were seen before.

use crate::simd::prefetch;

/// Characters of the longest word that the cache holds.
const LONGEST: usize = 13;

/// Most pieces of a word that the cache holds.
pub const PIECES: usize = 4;

/// Number of places, which take two mebibytes: more than a core has near it, but a word is asked for before it is needed.
const PLACES: usize = 1 << 16;

/// Where a stored key has the number of pieces, and behind it where they end.
const COUNT_SHIFT: u32 = 8 * LONGEST as u32;
const ENDS_SHIFT: u32 = COUNT_SHIFT + 8;

/// A word of a text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found {
    pub word: ShortWord,
    /// Its place in the cache.
    pub place: u32,
    /// The number of its first character.
    pub source: u32,
}

/// An ASCII word of at most [`LONGEST`] characters: its bytes, then zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShortWord(u128);

impl ShortWord {
    /// The first `len` of some bytes, none of which is zero; `None` if they are too many.
    #[inline]
    pub fn new(bytes: [u8; 16], len: usize) -> Option<Self> {
        const MASKS: [u128; LONGEST + 1] = {
            let mut masks = [0; LONGEST + 1];
            let mut len = 0;
            while len <= LONGEST {
                masks[len] = (1 << (8 * len)) - 1;
                len += 1;
            }
            masks
        };
        Some(Self(u128::from_le_bytes(bytes) & MASKS.get(len)?))
    }

    /// Its bytes and zeros.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    pub fn len(self) -> usize {
        16 - self.0.leading_zeros() as usize / 8
    }
}

/// The pieces of a word.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
pub struct Entry {
    /// The word, then the number of pieces, then four bits each for where they end.
    key: u128,
    ids: [i32; PIECES],
}

impl Entry {
    /// For the pieces of `word`, which end at these characters; `None` if there is no room for so many.
    pub fn new(
        word: ShortWord,
        ids: impl ExactSizeIterator<Item = i32>,
        ends: [usize; PIECES],
    ) -> Option<Self> {
        let mut entry = Self { key: word.0 | (ids.len() as u128) << COUNT_SHIFT, ids: [0; PIECES] };
        entry.ids.get_mut(..ids.len())?.iter_mut().zip(ids).for_each(|(place, id)| *place = id);
        for (index, end) in ends.into_iter().enumerate() {
            entry.key |= (end as u128) << (ENDS_SHIFT as usize + 4 * index);
        }
        Some(entry)
    }

    /// How many pieces it has.
    #[inline]
    pub fn count(&self) -> usize {
        (self.key >> COUNT_SHIFT) as usize % 8
    }

    /// The token of each piece, and zeros.
    #[inline]
    pub fn ids(&self) -> &[i32; PIECES] {
        &self.ids
    }

    /// Where each piece ends, in characters of the word, and zeros.
    #[inline]
    pub fn ends(&self) -> [u8; PIECES] {
        let bits = (self.key >> ENDS_SHIFT) as u16;
        std::array::from_fn(|index| (bits >> (4 * index)) as u8 & 0xF)
    }
}

/// Words that were met, with their pieces. A word has one place, and the last one that was put there has it.
#[derive(Debug, Default)]
pub struct WordCache {
    /// None before the first word.
    entries: Vec<Entry>,
}

/// Words of one character, which is every second one, have places of their own, close together.
const SINGLE: usize = 128;

impl WordCache {
    /// Where the word is, or is to be.
    #[inline]
    pub fn place(word: ShortWord) -> u32 {
        // Multiplied with each other, all bits of both halves have a say.
        let (low, high) =
            (word.0 as u64 ^ 0x9E37_79B9_7F4A_7C15, (word.0 >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
        let product = u128::from(low) * u128::from(high);
        let place = SINGLE + (product ^ product >> 64) as usize % PLACES;
        // Every second word: a branch would be wrong as often.
        std::hint::select_unpredictable(word.0 < SINGLE as u128, word.0 as u32, place as u32)
    }

    /// Asks for what is in a place, so that it is near when it is needed.
    #[inline]
    pub fn prefetch(&self, place: u32) {
        if let Some(entry) = self.entries.get(place as usize) {
            prefetch(entry);
        }
    }

    /// What was put into its place for this word, if it is still there.
    #[inline]
    pub fn get(&self, word: ShortWord, place: u32) -> Option<&Entry> {
        let entry = self.entries.get(place as usize)?;
        ((entry.key ^ word.0) << (128 - COUNT_SHIFT) == 0).then_some(entry)
    }

    pub fn put(&mut self, word: ShortWord, entry: Entry) {
        if self.entries.is_empty() {
            self.entries.resize(SINGLE + PLACES, Entry::default());
        }
        self.entries[Self::place(word) as usize] = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> ShortWord {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        ShortWord::new(bytes, text.len()).unwrap()
    }

    #[test]
    fn an_entry_has_what_it_was_made_of() {
        let longest = word("abcdefghijklm");
        let entry = Entry::new(longest, [1, i32::MAX, 3, 4].into_iter(), [1, 2, 12, 13]).unwrap();
        assert_eq!((entry.count(), *entry.ids(), entry.ends()), (4, [1, i32::MAX, 3, 4], [1, 2, 12, 13]));
        let short = Entry::new(word("a"), [7].into_iter(), [1, 0, 0, 0]).unwrap();
        assert_eq!((short.count(), short.ids()[0], short.ends()[0]), (1, 7, 1));
        assert!(Entry::new(longest, [1; 5].into_iter(), [0; 4]).is_none());
        assert!(ShortWord::new(*b"abcdefghijklmnop", 14).is_none());
        assert_eq!((longest.len(), &longest.bytes()[..13]), (13, &b"abcdefghijklm"[..]));
        // What is behind the end does not count.
        assert_eq!(ShortWord::new(*b"abcdefghijklmnop", 3), Some(word("abc")));
    }

    #[test]
    fn the_last_one_has_the_place() {
        let mut cache = WordCache::default();
        let get = |cache: &WordCache, text| {
            cache.get(word(text), WordCache::place(word(text))).map(|entry| entry.ids()[0])
        };
        assert_eq!(get(&cache, "a"), None);
        let texts: Vec<String> = (0..3 * PLACES).map(|n| format!("w{n}")).collect();
        for (id, text) in texts.iter().enumerate() {
            let ends = [text.len(), 0, 0, 0];
            cache.put(word(text), Entry::new(word(text), [id as i32].into_iter(), ends).unwrap());
            assert_eq!(get(&cache, text), Some(id as i32));
        }
        let kept = texts.iter().enumerate().filter(|(id, text)| match get(&cache, text) {
            Some(found) => found == *id as i32 || panic!("{text} has the pieces of another word"),
            None => false,
        });
        // Words spread over the places: of three times as many, 0.95 of the places are taken.
        assert!((PLACES * 9 / 10..=PLACES).contains(&kept.count()));
    }
}
