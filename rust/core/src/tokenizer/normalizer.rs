//! BertNormalizer: clean, isolate Chinese characters, strip accents, lower-case.
//!
//! Two ways to the same result. [`Normalizer::stream`] sends characters on as it reads, by table; it gives up
//! where marks may change places. [`Normalizer::normalize_aligned`] is the definition, step by step over the
//! whole text: for those rare texts, and where the normalized text itself is searched or shown.

use super::characters::{
    CharacterTable, Class, Kind, class_of, combining_class, decomposition, hangul, is_chinese, is_cleaned,
    is_hangul, is_nonspacing, is_whitespace, lower,
};

/// The options of BertNormalizer, resolved (`strip_accents` is `lowercase` where a file leaves it open).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormalizerOptions {
    /// Delete control characters, make all whitespace a space.
    pub clean_text: bool,
    /// Make each Chinese character a word.
    pub handle_chinese_chars: bool,
    /// Decompose (NFD) and delete nonspacing marks.
    pub strip_accents: bool,
    /// Lower-case, character by character.
    pub lowercase: bool,
}

/// A normalizer with its tables.
#[derive(Debug, Clone)]
pub struct Normalizer {
    options: NormalizerOptions,
    table: &'static CharacterTable,
    /// For ASCII: what the byte becomes, or one of the codes below.
    ascii: [u8; 256],
}

const NOTHING: u8 = 0x80;
const SPACE: u8 = 0x81;
const PUNCTUATION: u8 = 0x82;
/// Not ASCII: see the table.
const WIDE: u8 = 0x83;

/// Receives normalized characters, each with the number of the character of the text that it came from.
pub trait Sink {
    /// A word may begin at byte `at`, the character `source`: takes what it can by itself, and tells where it stopped.
    fn take(&mut self, _text: &str, at: usize, source: u32) -> (usize, u32) {
        (at, source)
    }
    /// ASCII word characters that came from as many consecutive characters.
    fn ascii_run(&mut self, bytes: impl ExactSizeIterator<Item = u8>, source: u32);
    fn word(&mut self, c: char, source: u32);
    fn punctuation(&mut self, c: char, source: u32);
    /// The word ends here.
    fn space(&mut self);
    /// Whether anything more would be of no use.
    fn is_full(&self) -> bool;
}

/// A mark was met that may change places with its neighbours.
#[derive(Debug, PartialEq, Eq)]
pub struct Reordering;

/// A normalized text and, for each of its bytes, the number of the character that it came from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Aligned {
    pub text: String,
    pub sources: Vec<u32>,
}

impl Normalizer {
    pub fn new(options: NormalizerOptions) -> Self {
        let table = CharacterTable::get(options.strip_accents, options.lowercase);
        let mut ascii = [WIDE; 256];
        for byte in 0..128 {
            let entry = table.entry(char::from(byte));
            ascii[usize::from(byte)] = match entry.kind() {
                _ if entry.is_cleaned() && options.clean_text => NOTHING,
                Kind::Same(Class::Space) => SPACE,
                Kind::Same(Class::Punctuation) => PUNCTUATION,
                Kind::One(c, _) => c as u8,
                _ => byte,
            };
        }
        Self { options, table, ascii }
    }

    pub fn options(&self) -> NormalizerOptions {
        self.options
    }

    /// Sends `text`, whose first character has the number `first`, to `sink`; returns the number after the last.
    ///
    /// # Errors
    /// [`Reordering`] if this cannot be done character by character; what was sent is to be forgotten.
    #[inline]
    pub fn stream(&self, text: &str, first: u32, sink: &mut impl Sink) -> Result<u32, Reordering> {
        let bytes = text.as_bytes();
        let mut source = first;
        let mut at = 0;
        loop {
            (at, source) = sink.take(text, at, source);
            if at >= bytes.len() || sink.is_full() {
                break;
            }
            let byte = bytes[at];
            let code = self.ascii[usize::from(byte)];
            if code < 0x80 {
                let rest = bytes[at..].iter();
                let run = rest.take_while(|&&byte| self.ascii[usize::from(byte)] < 0x80).count();
                let lowered = bytes[at..at + run].iter().map(|&byte| self.ascii[usize::from(byte)]);
                sink.ascii_run(lowered, source);
                at += run;
                source += run as u32;
                continue;
            }
            if code == WIDE {
                // `at` only moves over whole characters.
                let Some(c) = text[at..].chars().next() else { break };
                self.wide(c, source, sink)?;
                at += c.len_utf8();
            } else {
                match code {
                    SPACE => sink.space(),
                    PUNCTUATION => sink.punctuation(char::from(byte), source),
                    _ => {}
                }
                at += 1;
            }
            source += 1;
        }
        Ok(source)
    }

    /// What becomes of a character, and whether it is a word by itself; nothing if it is deleted.
    pub fn character(&self, c: char) -> Option<(Kind, bool)> {
        let entry = self.table.entry(c);
        let is_deleted = entry.is_cleaned() && self.options.clean_text;
        (!is_deleted).then(|| (entry.kind(), entry.is_chinese() && self.options.handle_chinese_chars))
    }

    #[inline]
    fn wide(&self, c: char, source: u32, sink: &mut impl Sink) -> Result<(), Reordering> {
        let Some((kind, alone)) = self.character(c) else { return Ok(()) };
        if alone {
            sink.space();
        }
        match kind {
            Kind::Same(class) => send(sink, c, class, source),
            Kind::One(c, class) => send(sink, c, class, source),
            Kind::Several(index) => {
                self.table.several(index).iter().for_each(|&(c, class)| send(sink, c, class, source));
            }
            Kind::Nothing => {}
            Kind::Hangul => {
                let (leading, vowel, trailing) = hangul(c);
                [Some(leading), Some(vowel), trailing]
                    .into_iter()
                    .flatten()
                    .for_each(|c| sink.word(c, source));
            }
            Kind::Reorders => return Err(Reordering),
        }
        if alone {
            sink.space();
        }
        Ok(())
    }

    /// The normalized form of `text`, whose first character has the number `first`.
    pub fn normalize_aligned(&self, text: &str, first: u32) -> Aligned {
        let mut characters: Vec<(char, u32)> = text.chars().zip(first..).collect();
        if self.options.clean_text {
            characters.retain(|&(c, _)| !is_cleaned(c));
            characters.iter_mut().filter(|(c, _)| is_whitespace(*c)).for_each(|(c, _)| *c = ' ');
        }
        if self.options.handle_chinese_chars {
            let spaced = |(c, source)| {
                let space = is_chinese(c).then_some((' ', source));
                [space, Some((c, source)), space].into_iter().flatten()
            };
            characters = characters.into_iter().flat_map(spaced).collect();
        }
        if self.options.strip_accents {
            characters = decompose(&characters);
            characters.retain(|&(c, _)| !is_nonspacing(c));
        }
        let mut aligned = Aligned::default();
        for (c, source) in characters {
            let mut push = |c: char| {
                aligned.text.push(c);
                aligned.sources.resize(aligned.text.len(), source);
            };
            if self.options.lowercase { lower(c, push) } else { push(c) }
        }
        aligned
    }
}

#[inline]
fn send(sink: &mut impl Sink, c: char, class: Class, source: u32) {
    match class {
        Class::Word => sink.word(c, source),
        Class::Space => sink.space(),
        Class::Punctuation => sink.punctuation(c, source),
    }
}

/// Canonical decomposition with marks in canonical order.
///
/// Sources are the reference's: they are dealt out in the order of the text to the first characters of
/// decompositions, wherever sorting has put them, and the other characters repeat the one before them.
fn decompose(characters: &[(char, u32)]) -> Vec<(char, u32)> {
    // (character, class, whether it is the first of a decomposition)
    let mut parts: Vec<(char, u8, bool)> = Vec::with_capacity(characters.len());
    for &(c, _) in characters {
        let start = parts.len();
        let mut push = |c| parts.push((c, combining_class(c), parts.len() == start));
        if is_hangul(c) {
            let (leading, vowel, trailing) = hangul(c);
            [Some(leading), Some(vowel), trailing].into_iter().flatten().for_each(push);
        } else if let Some(decomposed) = decomposition(c) {
            decomposed.chars().for_each(push);
        } else {
            push(c);
        }
    }
    for marks in parts.chunk_by_mut(|a, b| (a.1 == 0) == (b.1 == 0)) {
        if marks[0].1 != 0 {
            marks.sort_by_key(|&(_, class, _)| class);
        }
    }
    let mut sources = characters.iter().map(|&(_, source)| source);
    let mut source = 0;
    parts
        .into_iter()
        .map(|(c, _, is_first)| {
            if is_first {
                source = sources.next().unwrap_or(source);
            }
            (c, source)
        })
        .collect()
}

/// Sends an already normalized text to `sink`.
pub fn send_aligned(text: &str, sources: &[u32], sink: &mut impl Sink) {
    for (at, c) in text.char_indices() {
        send(sink, c, class_of(c), sources[at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a sink is told, ASCII runs character by character.
    #[derive(Debug, Default, PartialEq)]
    struct Told(Vec<(char, Option<u32>)>);

    impl Sink for Told {
        fn ascii_run(&mut self, bytes: impl ExactSizeIterator<Item = u8>, source: u32) {
            bytes.zip(source..).for_each(|(byte, source)| self.word(char::from(byte), source));
        }
        fn word(&mut self, c: char, source: u32) {
            self.0.push((c, Some(source)));
        }
        fn punctuation(&mut self, c: char, source: u32) {
            self.space();
            self.word(c, source);
            self.space();
        }
        fn space(&mut self) {
            // One end of a word is as good as several.
            if self.0.last().is_none_or(|last| last.1.is_some()) {
                self.0.push((' ', None));
            }
        }
        fn is_full(&self) -> bool {
            false
        }
    }

    fn normalizer([clean_text, handle_chinese_chars, strip_accents, lowercase]: [bool; 4]) -> Normalizer {
        Normalizer::new(NormalizerOptions { clean_text, handle_chinese_chars, strip_accents, lowercase })
    }

    fn assert_streams_by_the_definition(normalizer: &Normalizer, text: &str, first: u32) {
        let (mut streamed, mut defined) = (Told::default(), Told::default());
        let Ok(end) = normalizer.stream(text, first, &mut streamed) else { return };
        assert_eq!(end, first + text.chars().count() as u32);
        let aligned = normalizer.normalize_aligned(text, first);
        send_aligned(&aligned.text, &aligned.sources, &mut defined);
        assert_eq!(streamed, defined, "{text:?} {:?}", normalizer.options());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_fast_way_equals_the_definition(
            text in prop_oneof![
                "[ -~\u{c0}-\u{17f}\u{300}-\u{345}\u{370}-\u{3ff}\u{4e00}-\u{4e20}\u{ac00}-\u{ac40}]{0,30}",
                "[\u{1b00}-\u{1b44}\u{302a}-\u{302f}\u{1d15e}-\u{1d16d}\u{f900}-\u{fa20}ab]{0,12}",
                prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter),
            ],
            first in 0u32..5,
            options in any::<[bool; 4]>(),
        ) {
            assert_streams_by_the_definition(&normalizer(options), &text, first);
        }
    }

    /// All that can be said without the reference about every code point.
    #[test]
    fn every_code_point_streams_by_the_definition() {
        let mut reordering = 0;
        for bits in 0..16 {
            let normalizer = normalizer([bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0]);
            for c in ('\0'..=char::MAX).filter(|&c| bits < 2 || u32::from(c) < 0x3_0000) {
                let text = String::from_iter(['a', c, 'b']);
                assert_streams_by_the_definition(&normalizer, &text, 0);
                let mut told = Told::default();
                reordering += usize::from(normalizer.stream(&text, 0, &mut told).is_err());
            }
        }
        // Few enough that the slow way does not matter, and not none.
        assert!((8 * 10..8 * 200).contains(&reordering), "{reordering}");
    }

    #[test]
    fn marks_change_places_and_their_sources_do_not() {
        let normalizer = normalizer([true; 4]);
        assert_eq!(normalizer.stream("a\u{302e}", 0, &mut Told::default()), Err(Reordering));
        // U+302E has class 224, U+1B44 class 9.
        let aligned = normalizer.normalize_aligned("a\u{302e}\u{1b44}b", 0);
        assert_eq!(aligned.text, "a\u{1b44}\u{302e}b");
        assert_eq!(aligned.sources, [0, 1, 1, 1, 2, 2, 2, 3]);
    }
}
