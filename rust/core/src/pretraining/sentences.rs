//! Sentences of running text, Chinese and English.
//!
//! A sentence ends behind `。！？；…` or `. ! ?`, with the quotes and brackets that close there. Chinese marks end it whatever
//! follows, unless that goes on with a comma or the like. English ones need whitespace behind them, then something that is
//! not a small letter; and a single full stop does not end a sentence behind an abbreviation (`Dr.`, `e.g.`, `No. 5`), an
//! initial or the number of a list. What may be both (`Inc.`, `U.S.`, `J.`) ends it if the next word is one that sentences
//! often begin with, such as `The`.
//!
//! Where a sentence ends depends on nothing before its beginning: a text can be cut at an end, and its parts have the
//! sentences of the whole.

/// Behind these a full stop never ends a sentence.
const TITLES: [&str; 8] = ["Dr", "Messrs", "Mlle", "Mme", "Mr", "Mrs", "Ms", "Prof"];

/// Nor behind these, which are written small.
const IN_THE_MIDDLE: [&str; 8] = ["approx", "ca", "cf", "e.g", "i.e", "v", "viz", "vs"];

/// Behind these it does not if a number follows.
const BEFORE_NUMBERS: [&str; 40] = [
    "app", "apr", "art", "aug", "cap", "ch", "chap", "chaps", "col", "dec", "ed", "eq", "eqs", "feb", "ff",
    "fig", "figs", "fol", "jan", "jul", "jun", "ll", "mar", "no", "nos", "nov", "nr", "oct", "op", "p",
    "par", "pp", "pt", "sec", "sect", "sep", "sept", "ver", "vol", "vols",
];

/// Behind these it does not unless the next word is one of [`FIRST_WORDS`].
const PERHAPS: [&str; 48] = [
    "Adm", "Apr", "Assn", "Aug", "Ave", "Blvd", "Bros", "Brig", "Capt", "Cmdr", "Co", "Col", "Corp", "Cpl",
    "Dec", "Dept", "Esq", "Feb", "Fr", "Ft", "Gen", "Gov", "Hon", "Inc", "Jan", "Jr", "Lt", "Ltd", "Maj",
    "Mt", "Nov", "Oct", "Pres", "Pvt", "Rd", "Rep", "Rev", "Sen", "Sept", "Sgt", "Sr", "St", "Supt", "Univ",
    "al", "resp", "seq", "Vt",
];

/// Words that begin sentences more often than they are names.
const FIRST_WORDS: [&str; 66] = [
    "A",
    "After",
    "All",
    "Also",
    "Although",
    "An",
    "And",
    "Another",
    "As",
    "At",
    "Because",
    "Before",
    "Both",
    "But",
    "By",
    "Can",
    "Did",
    "Do",
    "Does",
    "During",
    "Each",
    "For",
    "From",
    "He",
    "Her",
    "His",
    "How",
    "However",
    "I",
    "If",
    "In",
    "Is",
    "It",
    "Its",
    "Many",
    "Most",
    "My",
    "Nevertheless",
    "No",
    "Not",
    "On",
    "Once",
    "One",
    "Or",
    "Our",
    "She",
    "Since",
    "So",
    "Some",
    "That",
    "The",
    "Their",
    "Then",
    "There",
    "Therefore",
    "These",
    "They",
    "This",
    "Those",
    "Thus",
    "To",
    "We",
    "What",
    "When",
    "While",
    "You",
];

/// The sentences of a text, without the whitespace around them.
///
/// ```
/// use bertfast_core::pretraining::sentences::split_sentences;
/// assert_eq!(split_sentences("Dr. Who came. “Why?” 他走了。再见！"), ["Dr. Who came.", "“Why?”", "他走了。", "再见！"]);
/// ```
pub fn split_sentences(text: &str) -> Vec<&str> {
    sentences(text).collect()
}

/// The same, one after the other.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        let (sentence, behind) = rest.split_at(first_end(rest));
        rest = behind.trim_start();
        (!sentence.is_empty()).then_some(sentence)
    })
}

/// Cuts a text behind a sentence, into parts of at least so many bytes, but for the last.
pub(super) fn cut(text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        let mut end = first_end(rest);
        while end < bytes && end < rest.len() {
            let behind = &rest[end..];
            let space = behind.len() - behind.trim_start().len();
            end += space + first_end(&behind[space..]);
        }
        let (part, behind) = rest.split_at(end);
        rest = behind.trim_start();
        (!part.is_empty()).then_some(part)
    })
}

/// What a mark says about the end of a sentence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// `.`, which has other uses.
    Stop,
    /// `…`, which may stand in the middle.
    Ellipsis,
    /// `!` and `?`.
    Strong,
    /// One of those that no space follows.
    Full,
}

fn mark(c: char) -> Option<Mark> {
    match c {
        '.' | '．' => Some(Mark::Stop),
        '!' | '?' => Some(Mark::Strong),
        '…' => Some(Mark::Ellipsis),
        '。' | '！' | '？' | '；' | '｡' | '‼' | '⁇' | '⁈' | '⁉' | '؟' | '۔' | '।' | '॥' => {
            Some(Mark::Full)
        }
        _ => None,
    }
}

/// Bytes that a mark may begin with.
const FIRST_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = [b'.', b'!', b'?', 0xd8, 0xdb, 0xe0, 0xe2, 0xe3, 0xef];
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] = true;
        i += 1;
    }
    table
};

/// Closes what the sentence opened.
fn closes(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | ')'
            | ']'
            | '}'
            | '”'
            | '’'
            | '»'
            | '›'
            | '」'
            | '』'
            | '）'
            | '】'
            | '〕'
            | '］'
            | '｝'
            | '＂'
            | '＇'
            | '》'
            | '〉'
            | '〗'
            | '﹂'
            | '﹄'
    )
}

/// Stands before the first word of a sentence.
fn opens(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | '('
            | '['
            | '{'
            | '“'
            | '‘'
            | '«'
            | '‹'
            | '「'
            | '『'
            | '（'
            | '【'
            | '〔'
            | '［'
            | '《'
            | '〈'
            | '„'
            | '-'
            | '–'
            | '—'
            | '¿'
            | '¡'
            | '*'
            | '_'
    )
}

/// Goes on with the sentence, whatever mark it follows.
fn continues(c: char) -> bool {
    matches!(c, '，' | '、' | '：' | ',' | ':' | ';' | '—' | '–' | '､')
}

/// A letter of a script without small and capital ones.
fn is_caseless(c: char) -> bool {
    c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase()
}

/// Where the first sentence of a text that begins with one ends.
fn first_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&byte| FIRST_BYTES[usize::from(byte)]) {
        at += found;
        let run = Run::at(text, at);
        if run.ends_sentence(text) {
            return run.end;
        }
        at = run.end;
    }
    bytes.len()
}

/// Marks and what closes behind them.
struct Run {
    start: usize,
    end: usize,
    /// The strongest; nothing if there is no mark after all.
    mark: Option<Mark>,
    marks: usize,
    /// What it ends with is the end of a title: `《走！》`.
    title: bool,
}

impl Run {
    /// At the beginning of a character.
    fn at(text: &str, start: usize) -> Self {
        let mut run = Self { start, end: start, mark: None, marks: 0, title: false };
        for c in text[start..].chars() {
            match mark(c) {
                Some(found) => {
                    (run.mark, run.marks, run.title) = (run.mark.max(Some(found)), run.marks + 1, false);
                }
                None if run.mark.is_none() => {
                    run.end += c.len_utf8();
                    break;
                }
                None if closes(c) => run.title = matches!(c, '》' | '〉'),
                None => {
                    run.end += references(&text[run.end..]);
                    break;
                }
            }
            run.end += c.len_utf8();
        }
        run
    }

    fn ends_sentence(&self, text: &str) -> bool {
        let Some(mark) = self.mark else { return false };
        let (before, behind) = (&text[..self.start], &text[self.end..]);
        let Some(next) = behind.chars().next() else { return true };
        if !next.is_whitespace() {
            return !self.title && !continues(next) && self.ends_before(mark, before, next);
        }
        let after = behind.trim_start_matches(|c: char| c.is_whitespace() || opens(c));
        let small = after.chars().next().is_some_and(char::is_lowercase);
        match mark {
            Mark::Full => true,
            _ if small => false,
            Mark::Stop if self.marks == 1 => !is_abbreviation(before, after),
            _ => true,
        }
    }

    /// Whether it does, with no space behind it.
    fn ends_before(&self, mark: Mark, before: &str, next: char) -> bool {
        let chinese = is_caseless(next) || (!next.is_ascii() && opens(next));
        match mark {
            Mark::Full => true,
            Mark::Strong | Mark::Ellipsis => chinese,
            Mark::Stop if self.marks > 1 => chinese,
            // `1.第一`, `A.苹果` are numbers of lists.
            Mark::Stop => {
                let mut last = before.chars().rev();
                match (last.next(), last.next()) {
                    (Some(last), _) if is_caseless(last) => chinese,
                    (Some(last), Some(other)) => chinese && last.is_alphabetic() && other.is_alphabetic(),
                    _ => false,
                }
            }
        }
    }
}

/// The length of marks of footnotes, as in `the end.[12][13]`.
fn references(text: &str) -> usize {
    let mut rest = text;
    while let Some((digits, behind)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'))
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = behind;
    }
    text.len() - rest.len()
}

/// Whether a full stop between these belongs to the word before it.
fn is_abbreviation(before: &str, after: &str) -> bool {
    let begins = |c: char| c.is_whitespace() || opens(c) || c == '/';
    let word = before.rsplit(begins).next().unwrap_or_default();
    let mut letters = word.chars();
    let (first, second) = (letters.next(), letters.next());
    let Some(first) = first else { return false };
    let alone = word.len() == before.len();
    let is_number = |digits: &str, longest| word.len() <= longest && word.chars().all(|c| digits.contains(c));
    if alone && (is_number("0123456789", 3) || is_number("IVXLC", 5)) {
        return true;
    }
    if IN_THE_MIDDLE.contains(&word) || TITLES.contains(&word) {
        return true;
    }
    let next = after.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    // `A. Smith` begins with an initial, not with an article.
    let first_word = FIRST_WORDS.contains(&next) && !(next.len() == 1 && after[1..].starts_with('.'));
    if second.is_none() && first.is_uppercase() {
        return alone || !first_word;
    }
    if after.starts_with(|c: char| c.is_ascii_digit())
        && BEFORE_NUMBERS.iter().any(|known| word.eq_ignore_ascii_case(known))
    {
        return true;
    }
    let acronym = word.contains('.')
        && word.split('.').all(|part| part.len() <= 2 && part.bytes().all(|b| b.is_ascii_alphabetic()));
    (acronym || PERHAPS.contains(&word)) && !first_word && !after.is_empty()
}

#[cfg(test)]
#[path = "sentences_tests.rs"]
mod tests;
