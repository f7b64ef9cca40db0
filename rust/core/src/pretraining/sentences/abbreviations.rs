//! Full stops that do not end a sentence, because they belong to a word.

use super::opens;

/// What stands before a full stop.
enum Word {
    /// It never ends a sentence.
    Title,
    /// It does not if a number follows.
    BeforeNumber,
    /// It does not unless a word follows that sentences often begin with.
    Perhaps,
    /// Both of these.
    Month,
}

/// The longest of [`known`], or as long as an acronym may be.
const LONGEST: usize = 8;

fn known(word: &str) -> Option<Word> {
    Some(match word {
        "Dr" | "Messrs" | "Mlle" | "Mme" | "Mr" | "Mrs" | "Ms" | "Prof" => Word::Title,
        "Cf" | "approx" | "ca" | "cf" | "esp" | "e.g" | "i.e" | "v" | "viz" | "vs" => Word::Title,
        "Apr" | "Aug" | "Dec" | "Feb" | "Jan" | "Nov" | "Oct" | "Sep" | "Sept" => Word::Month,
        "App" | "Art" | "Ch" | "Chap" | "Ed" | "Eq" | "Fig" | "Figs" | "Jul" | "Jun" | "Mar" | "No"
        | "Nos" => Word::BeforeNumber,
        "Op" | "Par" | "Pp" | "Pt" | "Sec" | "Sect" | "Ver" | "Vol" | "Vols" => Word::BeforeNumber,
        "app" | "art" | "cap" | "ch" | "chap" | "chaps" | "col" | "ed" | "eq" | "eqs" | "ff" | "fig"
        | "figs" => Word::BeforeNumber,
        "fol" | "ll" | "no" | "nos" | "nr" | "op" | "p" | "par" | "pp" | "pt" | "sec" | "sect" | "ver"
        | "vol" | "vols" => Word::BeforeNumber,
        "Adm" | "Assn" | "Ave" | "Blvd" | "Bros" | "Brig" | "Capt" | "Cmdr" | "Co" | "Col" | "Corp"
        | "Cpl" | "Dept" | "Esq" | "Fr" | "Ft" | "Gen" | "Gov" | "Hon" | "Inc" | "Jr" | "Lt" | "Ltd"
        | "Maj" | "Mt" | "Pres" | "Pvt" | "Rd" | "Rep" | "Rev" | "Sen" | "Sgt" | "Sr" | "St" | "Supt"
        | "Univ" | "Vt" | "al" | "resp" | "seq" => Word::Perhaps,
        _ => return None,
    })
}

/// Whether a word begins sentences more often than it is a name.
fn is_first_word(word: &str) -> bool {
    matches!(
        word,
        "A" | "After"
            | "All"
            | "Also"
            | "Although"
            | "An"
            | "And"
            | "Another"
            | "As"
            | "At"
            | "Because"
            | "Before"
            | "Both"
            | "But"
            | "By"
            | "Can"
            | "Did"
            | "Do"
            | "Does"
            | "During"
            | "Each"
            | "For"
            | "From"
            | "He"
            | "Her"
            | "His"
            | "How"
            | "However"
            | "I"
            | "If"
            | "In"
            | "Is"
            | "It"
            | "Its"
            | "Many"
            | "Most"
            | "My"
            | "Nevertheless"
            | "No"
            | "Not"
            | "On"
            | "Once"
            | "One"
            | "Or"
            | "Our"
            | "She"
            | "Since"
            | "So"
            | "Some"
            | "That"
            | "The"
            | "Their"
            | "Then"
            | "There"
            | "Therefore"
            | "These"
            | "They"
            | "This"
            | "Those"
            | "Thus"
            | "To"
            | "We"
            | "What"
            | "When"
            | "While"
            | "You"
    )
}

/// Whether a full stop between these belongs to the word before it. `before` is the sentence so far, `after` begins with what
/// follows the space and what opens behind it.
pub(super) fn is_abbreviation(before: &str, after: &str) -> bool {
    let Some(word) = last_word(before) else { return false };
    let bytes = word.as_bytes();
    let is_alone = word.len() == before.len();
    let consists_of =
        |longest, digits: &[u8]| bytes.len() <= longest && bytes.iter().all(|byte| digits.contains(byte));
    // The number of a list.
    if is_alone && (consists_of(3, b"0123456789") || consists_of(5, b"IVXLC")) {
        return true;
    }
    if word.chars().nth(1).is_none() && word.chars().all(char::is_uppercase) {
        return is_alone || !begins_sentence(after);
    }
    let number = || after.as_bytes().first().is_some_and(u8::is_ascii_digit);
    match known(word) {
        Some(Word::Title) => true,
        Some(Word::BeforeNumber) => number(),
        Some(Word::Month) => number() || !begins_sentence(after),
        Some(Word::Perhaps) => !begins_sentence(after),
        None => is_acronym(bytes) && !begins_sentence(after),
    }
}

/// The word that a text ends with, if it may be one of those above.
fn last_word(text: &str) -> Option<&str> {
    let in_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'.';
    let len = text.bytes().rev().take(LONGEST + 1).take_while(|byte| in_word(&byte)).count();
    if len > LONGEST {
        return None;
    }
    let (before, word) = text.split_at(text.len() - len);
    let mut rest = before.chars();
    match rest.next_back() {
        // `É. Zola`
        Some(letter) if len == 0 && letter.is_uppercase() && rest.next_back().is_none_or(separates) => {
            Some(&text[text.len() - letter.len_utf8()..])
        }
        _ if len == 0 => None,
        Some(c) if !separates(c) => None,
        _ => Some(word),
    }
}

fn separates(c: char) -> bool {
    c == ' ' || c == '/' || opens(c) || c.is_whitespace()
}

/// `U.S`, `Ph.D`, `p.m`.
fn is_acronym(word: &[u8]) -> bool {
    word.contains(&b'.')
        && word
            .split(|byte| *byte == b'.')
            .all(|part| part.len() <= 2 && part.iter().all(u8::is_ascii_alphabetic))
}

/// Whether a text is one that begins as sentences often do.
fn begins_sentence(text: &str) -> bool {
    let len = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    // `A. Smith` begins with an initial, not with an article.
    text.is_empty() || (is_first_word(&text[..len]) && !(len == 1 && text.as_bytes().get(1) == Some(&b'.')))
}
