//! WordPiece: a word to pieces, greedy longest match first.
//!
//! Source: Wu et al., "Google's Neural Machine Translation System" (2016), section 4.1, as in the reference:
//! a word with any part that is not in the vocabulary is one unknown token, not pieces and an unknown.

use super::trie::{State, Trie};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// The model: a trie over all tokens, in which continuing pieces start at the node of their prefix.
#[derive(Debug, Clone)]
pub struct WordPiece {
    trie: Trie,
    continuing: Option<State>,
    unknown: i32,
    max_chars: usize,
}

impl WordPiece {
    /// `prefix` marks continuing pieces (`##`); a word of more than `max_chars` characters is unknown.
    ///
    /// # Errors
    /// `Error::Tokenizer` if `unknown` is not in the vocabulary.
    pub fn new(vocabulary: &Vocabulary, unknown: &str, prefix: &str, max_chars: usize) -> Result<Self> {
        let unknown = vocabulary.id(unknown).ok_or_else(|| {
            Error::Tokenizer(format!("vocabulary: the unknown token {unknown:?} is missing from it"))
        })?;
        // No word reaches a token that is longer than words may be: they would only cost memory.
        let reachable = max_chars.saturating_add(prefix.chars().count());
        let reaches = |token: &str| {
            // Bytes bound characters: nearly every token is decided without counting.
            token.len() <= reachable || token.chars().take(reachable + 1).count() <= reachable
        };
        let keys: Vec<(&[u8], u32)> = vocabulary
            .iter()
            .filter(|(token, _)| !token.is_empty() && reaches(token))
            .map(|(token, id)| (token.as_bytes(), id))
            .collect();
        let trie = Trie::new(&keys)?;
        let continuing = trie.walk(prefix.as_bytes());
        Ok(Self { trie, continuing, unknown: unknown as i32, max_chars })
    }

    pub fn max_chars(&self) -> usize {
        self.max_chars
    }

    pub fn unknown(&self) -> i32 {
        self.unknown
    }

    /// The token of a word of one character, which cannot have several.
    pub fn character(&self, c: char) -> i32 {
        let mut token = self.unknown;
        let known = self.pieces(c.encode_utf8(&mut [0; 4]).as_bytes(), |id, _, _| token = id);
        if known { token } else { self.unknown }
    }

    /// Gives (id, start, end) of every piece of `word` to `push`, in bytes; `false` if no pieces make up the
    /// word, and then what was pushed is to be dropped.
    #[inline]
    pub fn pieces(&self, word: &[u8], mut push: impl FnMut(i32, usize, usize)) -> bool {
        let mut state = State::ROOT;
        let mut start = 0;
        while start < word.len() {
            let Some((length, id)) = self.trie.longest(state, &word[start..]) else { return false };
            push(id as i32, start, start + length);
            start += length;
            match self.continuing {
                Some(continuing) => state = continuing,
                None => return start == word.len(),
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn model(tokens: &[&str], prefix: &str) -> WordPiece {
        let vocabulary =
            Vocabulary::new(tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id as i64)));
        WordPiece::new(&vocabulary.unwrap(), "[UNK]", prefix, 100).unwrap()
    }

    fn pieces(model: &WordPiece, word: &str) -> Option<Vec<(i32, usize, usize)>> {
        let mut found = Vec::new();
        model.pieces(word.as_bytes(), |id, start, end| found.push((id, start, end))).then_some(found)
    }

    #[test]
    fn longest_match_first_or_nothing() {
        let model = model(&["[UNK]", "un", "##aff", "##able", "##a", "unab"], "##");
        assert_eq!(pieces(&model, "unaffable"), Some(vec![(1, 0, 2), (2, 2, 5), (3, 5, 9)]));
        // "unab" is the longest start although only "un" + "##able" would reach the end.
        assert_eq!(pieces(&model, "unable"), None);
        assert_eq!(pieces(&model, "aff"), None);
    }

    #[test]
    fn without_continuing_pieces_only_whole_words_match() {
        let model = model(&["[UNK]", "a", "ab"], "##");
        assert_eq!(pieces(&model, "ab"), Some(vec![(2, 0, 2)]));
        assert_eq!(pieces(&model, "aba"), None);
    }

    #[test]
    fn an_unusual_prefix() {
        assert_eq!(pieces(&model(&["[UNK]", "a", "b"], ""), "ab"), Some(vec![(1, 0, 1), (2, 1, 2)]));
        assert_eq!(pieces(&model(&["[UNK]", "xa", "xab"], "xa"), "xab"), Some(vec![(2, 0, 3)]));
        assert_eq!(pieces(&model(&["[UNK]", "xa", "xab"], "xa"), "xabb"), Some(vec![(2, 0, 3), (2, 3, 4)]));
        assert_eq!(pieces(&model(&["[UNK]", "c", "xab"], "xa"), "cb"), Some(vec![(1, 0, 1), (2, 1, 2)]));
    }

    #[test]
    fn a_missing_unknown_token_is_named() {
        let vocabulary = Vocabulary::new([("a".to_owned(), 0)]).unwrap();
        let error = WordPiece::new(&vocabulary, "[UNK]", "##", 100).unwrap_err().to_string();
        assert!(error.contains("\"[UNK]\""), "{error}");
    }

    proptest! {
        /// The definition, spelled out: try ends from the right over a set of strings.
        #[test]
        fn equals_the_definition(
            tokens in prop::collection::btree_set("(##)?[abé]{1,3}", 0..20),
            word in "[abcé]{1,8}",
        ) {
            let tokens: BTreeSet<String> = tokens.into_iter().chain(["[UNK]".to_owned()]).collect();
            let names: Vec<&str> = tokens.iter().map(String::as_str).collect();
            let mut expected = Some(Vec::new());
            let mut start = 0;
            while start < word.len() {
                let ends = (start + 1..=word.len()).rev().filter(|&end| word.is_char_boundary(end));
                let prefix = if start > 0 { "##" } else { "" };
                let found = ends.into_iter().find_map(|end| {
                    let piece = format!("{prefix}{}", &word[start..end]);
                    names.binary_search(&piece.as_str()).ok().map(|id| (id as i32, start, end))
                });
                match found {
                    Some(piece) => {
                        if let Some(list) = &mut expected { list.push(piece) }
                        start = piece.2;
                    }
                    None => { expected = None; break }
                }
            }
            prop_assert_eq!(pieces(&model(&names, "##"), &word), expected);
        }
    }
}
