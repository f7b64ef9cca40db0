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

mod abbreviations;
#[cfg(test)]
mod tests;

use abbreviations::is_abbreviation;

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

/// Whether one of these bytes begins a mark, and does not end a sentence for sure only by what is around it: most full stops
/// and most other characters are told apart by three bytes.
#[inline]
fn may_end(bytes: &[u8]) -> bool {
    match *bytes {
        [b'.' | b'!' | b'?', b' ', c, ..] => !c.is_ascii_lowercase(),
        [b'.' | b'!' | b'?', c, ..] => !c.is_ascii_alphanumeric(),
        [b'.' | b'!' | b'?'] => true,
        [0xd8, c, ..] => c == 0x9f,
        [0xdb, c, ..] => c == 0x94,
        [0xe0, b, c, ..] => b == 0xa5 && matches!(c, 0xa4 | 0xa5),
        [0xe2, b, c, ..] => matches!((b, c), (0x80, 0xa6 | 0xbc) | (0x81, 0x87..=0x89)),
        [0xe3, b, c, ..] => b == 0x80 && c == 0x82,
        [0xef, b, c, ..] => matches!((b, c), (0xbc, 0x81 | 0x8e | 0x9b | 0x9f) | (0xbd, 0xa1)),
        _ => false,
    }
}

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
    // Most of them first, and no table asked for them.
    matches!(c, '\u{4e00}'..='\u{9fff}') || (c.is_alphabetic() && !c.is_lowercase() && !c.is_uppercase())
}

/// Where the first sentence of a text that begins with one ends.
fn first_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&byte| FIRST_BYTES[usize::from(byte)]) {
        at += found;
        if !may_end(&bytes[at..]) {
            at += 1;
            continue;
        }
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
    // The bracket that closes is not searched for: a text with many that open would be read as often.
    while let Some(inside) = rest.strip_prefix('[')
        && let behind = inside.trim_start_matches(|c: char| c.is_ascii_digit())
        && behind.len() < inside.len()
        && let Some(behind) = behind.strip_prefix(']')
    {
        rest = behind;
    }
    text.len() - rest.len()
}
