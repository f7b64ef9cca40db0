//! BertNormalizer: clean, isolate Chinese characters, strip accents, lower-case.
//!
//! Two ways to the same result. [`Normalizer::stream`] sends characters on as it reads, by table; it gives up
//! where neighbours decide. [`Normalizer::normalize_aligned`] is the definition, step by step over the whole
//! text: for those rare texts, and where the normalized text itself is searched or shown.

use super::characters::{
    CharacterTable, Class, Compat, FINAL_SIGMA, Kind, SIGMA, hangul, is_case_ignorable, is_cased, is_hangul,
};

/// The options of BertNormalizer, resolved (`strip_accents` is `lowercase` where a file leaves it open).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormalizerOptions {
    /// Whose characters and order of steps.
    pub compat: Compat,
    /// Delete control characters, make all whitespace a space.
    pub clean_text: bool,
    /// Make each Chinese character a word.
    pub handle_chinese_chars: bool,
    /// Decompose (NFD) and delete nonspacing marks.
    pub strip_accents: bool,
    /// Lower-case: with [`Compat::HuggingFace`] character by character and last, else word by word and before
    /// accents are stripped.
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

/// A character was met whose neighbours decide what it becomes.
#[derive(Debug, PartialEq, Eq)]
pub struct InContext;

/// A normalized text and, for each of its bytes, the number of the character that it came from.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Aligned {
    pub text: String,
    pub sources: Vec<u32>,
}

impl Normalizer {
    pub fn new(options: NormalizerOptions) -> Self {
        let table = CharacterTable::get(options.compat, options.strip_accents, options.lowercase);
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
    /// [`InContext`] if this cannot be done character by character; what was sent is to be forgotten.
    #[inline]
    pub fn stream(&self, text: &str, first: u32, sink: &mut impl Sink) -> Result<u32, InContext> {
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
    fn wide(&self, c: char, source: u32, sink: &mut impl Sink) -> Result<(), InContext> {
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
            Kind::InContext => return Err(InContext),
        }
        if alone {
            sink.space();
        }
        Ok(())
    }

    /// The normalized form of `text`, whose first character has the number `first`.
    pub fn normalize_aligned(&self, text: &str, first: u32) -> Aligned {
        let compat = self.options.compat;
        let mut characters: Vec<(char, u32)> = text.chars().zip(first..).collect();
        if self.options.clean_text {
            characters.retain(|&(c, _)| !compat.is_cleaned(c));
            characters.iter_mut().filter(|(c, _)| compat.is_whitespace(*c)).for_each(|(c, _)| *c = ' ');
        }
        if self.options.handle_chinese_chars {
            let spaced = |(c, source)| {
                let space = compat.is_chinese(c).then_some((' ', source));
                [space, Some((c, source)), space].into_iter().flatten()
            };
            characters = characters.into_iter().flat_map(spaced).collect();
        }
        if self.options.lowercase && compat.lowers_words() {
            finish_sigmas(&mut characters);
            characters = lowered(&characters, compat);
        }
        if self.options.strip_accents {
            characters = decompose(&characters, compat);
            characters.retain(|&(c, _)| !compat.is_nonspacing(c));
        }
        if self.options.lowercase && !compat.lowers_words() {
            characters = lowered(&characters, compat);
        }
        let mut aligned = Aligned::default();
        for (c, source) in characters {
            aligned.text.push(c);
            aligned.sources.resize(aligned.text.len(), source);
        }
        aligned
    }

    /// Sends an already normalized text to `sink`.
    pub fn send_aligned(&self, text: &str, sources: &[u32], sink: &mut impl Sink) {
        for (at, c) in text.char_indices() {
            send(sink, c, self.options.compat.class_of(c), sources[at]);
        }
    }
}

fn lowered(characters: &[(char, u32)], compat: Compat) -> Vec<(char, u32)> {
    let mut lowered = Vec::with_capacity(characters.len());
    for &(c, source) in characters {
        compat.lower(c, |c| lowered.push((c, source)));
    }
    lowered
}

/// Makes each capital sigma with a letter before it and none behind it in its word a final one.
///
/// Source: The Unicode Standard, section 3.13, `Final_Sigma`, as `str.lower` of Python has it. Words end at
/// spaces, which are no letters: nothing need be cut for it.
fn finish_sigmas(characters: &mut [(char, u32)]) {
    for at in 0..characters.len() {
        if characters[at].0 != SIGMA {
            continue;
        }
        let is_letter = |&(c, _): &(char, u32)| (!is_case_ignorable(c)).then(|| is_cased(c));
        let before = characters[..at].iter().rev().find_map(is_letter);
        let after = characters[at + 1..].iter().find_map(is_letter);
        if before == Some(true) && after != Some(true) {
            characters[at].0 = FINAL_SIGMA;
        }
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
fn decompose(characters: &[(char, u32)], compat: Compat) -> Vec<(char, u32)> {
    // (character, class, whether it is the first of a decomposition)
    let mut parts: Vec<(char, u8, bool)> = Vec::with_capacity(characters.len());
    for &(c, _) in characters {
        let start = parts.len();
        let mut push = |c| parts.push((c, compat.combining_class(c), parts.len() == start));
        if is_hangul(c) {
            let (leading, vowel, trailing) = hangul(c);
            [Some(leading), Some(vowel), trailing].into_iter().flatten().for_each(push);
        } else if let Some(decomposed) = compat.decomposition(c) {
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

    fn normalizer(compat: Compat, options: [bool; 4]) -> Normalizer {
        let [clean_text, handle_chinese_chars, strip_accents, lowercase] = options;
        Normalizer::new(NormalizerOptions {
            compat,
            clean_text,
            handle_chinese_chars,
            strip_accents,
            lowercase,
        })
    }

    fn assert_streams_by_the_definition(normalizer: &Normalizer, text: &str, first: u32) {
        let (mut streamed, mut defined) = (Told::default(), Told::default());
        let Ok(end) = normalizer.stream(text, first, &mut streamed) else { return };
        assert_eq!(end, first + text.chars().count() as u32);
        let aligned = normalizer.normalize_aligned(text, first);
        normalizer.send_aligned(&aligned.text, &aligned.sources, &mut defined);
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
            for compat in [Compat::HuggingFace, Compat::Google] {
                assert_streams_by_the_definition(&normalizer(compat, options), &text, first);
            }
        }
    }

    /// All that can be said without the reference about every code point.
    #[test]
    fn every_code_point_streams_by_the_definition() {
        let mut in_context = [0; 2];
        // Google's options come in these two sets only.
        let options = (0..16).map(|bits| (Compat::HuggingFace, bits));
        for (compat, bits) in options.chain([(Compat::Google, 0b0011), (Compat::Google, 0b1111)]) {
            let normalizer = normalizer(compat, [1, 2, 4, 8].map(|bit| bits & bit != 0));
            for c in ('\0'..=char::MAX).filter(|&c| bits < 2 || u32::from(c) < 0x3_0000) {
                let text = String::from_iter(['a', c, 'b']);
                assert_streams_by_the_definition(&normalizer, &text, 0);
                let mut told = Told::default();
                in_context[compat as usize] += usize::from(normalizer.stream(&text, 0, &mut told).is_err());
            }
        }
        // Few enough that the slow way does not matter, and not none.
        assert!((8 * 10..8 * 200).contains(&in_context[0]), "{in_context:?}");
        assert!((10..200).contains(&in_context[1]), "{in_context:?}");
    }

    #[test]
    fn a_sigma_ends_a_word_for_google_only() {
        let text = "\u{39f}\u{394}\u{39f}\u{3a3}' \u{3a3} \u{3a3}\u{3a3}\u{301}.\u{3a3}1";
        let normalized = |compat| normalizer(compat, [true; 4]).normalize_aligned(text, 0).text;
        assert_eq!(
            normalized(Compat::HuggingFace),
            "\u{3bf}\u{3b4}\u{3bf}\u{3c3}' \u{3c3} \u{3c3}\u{3c3}.\u{3c3}1"
        );
        // The mark and the full stop do not count: what is before the last sigma is the one before these.
        assert_eq!(
            normalized(Compat::Google),
            "\u{3bf}\u{3b4}\u{3bf}\u{3c2}' \u{3c3} \u{3c3}\u{3c3}.\u{3c2}1"
        );
    }

    #[test]
    fn marks_change_places_and_their_sources_do_not() {
        let normalizer = normalizer(Compat::HuggingFace, [true; 4]);
        assert_eq!(normalizer.stream("a\u{302e}", 0, &mut Told::default()), Err(InContext));
        // U+302E has class 224, U+1B44 class 9.
        let aligned = normalizer.normalize_aligned("a\u{302e}\u{1b44}b", 0);
        assert_eq!(aligned.text, "a\u{1b44}\u{302e}b");
        assert_eq!(aligned.sources, [0, 1, 1, 1, 2, 2, 2, 3]);
    }
}
