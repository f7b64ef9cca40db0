//! Tokens that are cut out of a text before anything else looks at it: `[MASK]`, and what users add.

use super::characters::{Compat, is_word};
use super::normalizer::Normalizer;
use super::trie::{State, Trie};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// An added token, with the reference's names and meanings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct AddedToken {
    /// What the text must say.
    pub content: String,
    /// Not inside a word.
    #[serde(default)]
    pub single_word: bool,
    /// Takes the whitespace to its left with it.
    #[serde(default)]
    pub lstrip: bool,
    /// Takes the whitespace to its right with it.
    #[serde(default)]
    pub rstrip: bool,
    /// Is looked for, in its normalized form, in the normalized text.
    #[serde(default)]
    pub normalized: bool,
    /// Can be left out in decoding.
    #[serde(default)]
    pub special: bool,
}

/// A part of a text: an added token or what lies between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub id: Option<u32>,
    pub start: usize,
    pub end: usize,
}

/// All added tokens of a tokenizer.
#[derive(Debug, Clone)]
pub struct AddedTokens {
    /// Sorted by id.
    tokens: Vec<(u32, AddedToken)>,
    /// The form in which a token is decoded, where normalization changes it.
    normalized: HashMap<u32, String>,
    in_raw: Option<Matcher>,
    in_normalized: Option<Matcher>,
}

impl AddedTokens {
    /// A token that the vocabulary has keeps its id, others are numbered on from the vocabulary's size. By Google's
    /// rules none is looked for in texts.
    ///
    /// # Errors
    /// `Error::Tokenizer` if two normalize to the same text, or one to nothing.
    pub fn new(
        tokens: impl IntoIterator<Item = AddedToken>,
        vocabulary: &Vocabulary,
        normalizer: &Normalizer,
    ) -> Result<Self> {
        let mut by_id: HashMap<u32, AddedToken> = HashMap::new();
        let mut id_of: HashMap<String, u32> = HashMap::new();
        let mut next_id = vocabulary.len() as u32;
        for token in tokens {
            if token.content.is_empty() {
                continue;
            }
            let known = id_of.get(&token.content).copied().or_else(|| vocabulary.id(&token.content));
            let id = known.unwrap_or(next_id);
            next_id += u32::from(known.is_none());
            id_of.insert(token.content.clone(), id);
            by_id.insert(id, token);
        }
        let mut tokens: Vec<_> = by_id.into_iter().collect();
        tokens.sort_unstable_by_key(|&(id, _)| id);

        let mut normalized = HashMap::new();
        for (id, token) in tokens.iter().filter(|(_, token)| token.normalized) {
            let form = normalizer.normalize_aligned(&token.content, 0).text;
            if form != token.content {
                normalized.insert(*id, form);
            }
        }
        let is_looked_for = normalizer.options().compat == Compat::HuggingFace;
        let matcher = |in_normalized: bool| {
            let matched =
                tokens.iter().filter(|(_, token)| is_looked_for && token.normalized == in_normalized);
            Matcher::new(
                matched.map(|(id, token)| (*id, normalized.get(id).unwrap_or(&token.content), token)),
            )
        };
        let (in_raw, in_normalized) = (matcher(false)?, matcher(true)?);
        Ok(Self { tokens, normalized, in_raw, in_normalized })
    }

    /// Cuts a raw text into parts.
    pub fn split_raw(&self, text: &str, push: impl FnMut(Part)) {
        split(self.in_raw.as_ref(), text, push);
    }

    /// Whether all are plain: printed ASCII without spaces, matched in the raw text whatever is around them.
    pub fn are_plain(&self) -> bool {
        self.tokens.iter().all(|(_, token)| {
            let flags = token.single_word || token.lstrip || token.rstrip || token.normalized;
            !flags && token.content.bytes().all(|byte| byte.is_ascii_graphic())
        })
    }

    /// Whether some tokens are looked for in normalized text.
    pub fn has_normalized(&self) -> bool {
        self.in_normalized.is_some()
    }

    /// Cuts a normalized text into parts.
    pub fn split_normalized(&self, text: &str, push: impl FnMut(Part)) {
        split(self.in_normalized.as_ref(), text, push);
    }

    /// (id, token), sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        self.tokens.iter().map(|(id, token)| (*id, token))
    }

    pub fn get(&self, id: u32) -> Option<&AddedToken> {
        let found = self.tokens.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(&self.tokens[found].1)
    }

    pub fn id(&self, content: &str) -> Option<u32> {
        self.iter().find(|(_, token)| token.content == content).map(|(id, _)| id)
    }

    /// What decoding writes for the token.
    pub fn decoded(&self, id: u32) -> Option<&str> {
        let token = self.get(id)?;
        Some(self.normalized.get(&id).unwrap_or(&token.content))
    }
}

/// Finds the leftmost, then longest, of a set of tokens.
#[derive(Debug, Clone)]
struct Matcher {
    trie: Trie,
    tokens: HashMap<u32, AddedToken>,
    /// One byte that starts all tokens, if there is one: `[` in every plain BERT.
    first_byte: Option<u8>,
}

impl Matcher {
    fn new<'a>(tokens: impl Iterator<Item = (u32, &'a String, &'a AddedToken)>) -> Result<Option<Self>> {
        let mut keys: Vec<(&[u8], u32)> = Vec::new();
        let mut by_id = HashMap::new();
        for (id, form, token) in tokens {
            if form.is_empty() {
                return Err(Error::Tokenizer(format!(
                    "added token {:?}: nothing is left of it when it is normalized",
                    token.content
                )));
            }
            keys.push((form.as_bytes(), id));
            by_id.insert(id, token.clone());
        }
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (one, other) = (&by_id[&pair[0].1].content, &by_id[&pair[1].1].content);
            return Err(Error::Tokenizer(format!(
                "added tokens {one:?} and {other:?} are the same when they are normalized"
            )));
        }
        let Some(&(first, _)) = keys.first() else { return Ok(None) };
        let first_byte = keys.iter().all(|(key, _)| key[0] == first[0]).then_some(first[0]);
        Ok(Some(Self { trie: Trie::new(&keys)?, tokens: by_id, first_byte }))
    }

    fn find(&self, text: &[u8], mut from: usize) -> Option<(usize, usize, u32)> {
        while from < text.len() {
            if let Some(byte) = self.first_byte {
                from += memchr::memchr(byte, &text[from..])?;
            }
            if let Some((length, id)) = self.trie.longest(State::ROOT, &text[from..]) {
                return Some((from, from + length, id));
            }
            from += 1;
        }
        None
    }
}

fn split(matcher: Option<&Matcher>, text: &str, mut push: impl FnMut(Part)) {
    let is_whitespace = |c| Compat::HuggingFace.is_whitespace(c);
    let mut done = 0;
    let mut from = 0;
    while let Some((found, found_end, id)) = matcher.and_then(|matcher| matcher.find(text.as_bytes(), from)) {
        from = found_end;
        let (mut start, mut end) = (found, found_end);
        let token = matcher.and_then(|matcher| matcher.tokens.get(&id));
        let (before, after) = (&text[..start], &text[end..]);
        if token.is_some_and(|token| token.single_word)
            && (before.ends_with(is_word) || after.starts_with(is_word))
        {
            continue;
        }
        if token.is_some_and(|token| token.lstrip) {
            // Not into what the token before has taken; only looking back that far keeps this linear.
            start =
                text.get(done..start).map_or(done, |gap| done + gap.trim_end_matches(is_whitespace).len());
        }
        if token.is_some_and(|token| token.rstrip) {
            end = text.len() - after.trim_start_matches(is_whitespace).len();
        }
        if start >= end {
            continue;
        }
        if done < start {
            push(Part { id: None, start: done, end: start });
        }
        push(Part { id: Some(id), start, end });
        done = end;
    }
    if done < text.len() {
        push(Part { id: None, start: done, end: text.len() });
    }
}
