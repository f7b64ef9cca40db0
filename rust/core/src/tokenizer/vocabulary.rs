//! Ids to tokens and back, and the checks on a vocabulary that came from a file.

use crate::error::{Error, Result};
use std::collections::HashMap;

/// Tokens of the model, each with its id; ids may have holes.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    id_of: HashMap<String, u32>,
    /// Sorted by id.
    tokens: Vec<(u32, String)>,
}

/// Ids are int32 in every array.
pub const MAX_ID: i64 = i32::MAX as i64 - 1;

impl Vocabulary {
    /// From (token, id) in the order of the file; of a repeated token the last id counts, as in the reference.
    ///
    /// # Errors
    /// `Error::Tokenizer` if it is empty, an id is out of range or two tokens have the same id.
    pub fn new(pairs: impl IntoIterator<Item = (String, i64)>) -> Result<Self> {
        let mut id_of = HashMap::new();
        for (token, id) in pairs {
            if !(0..=MAX_ID).contains(&id) {
                return Err(Error::Tokenizer(format!(
                    "vocabulary: expected ids from 0 to {MAX_ID}, got {id} for {token:?}"
                )));
            }
            id_of.insert(token, id as u32);
        }
        if id_of.is_empty() {
            return Err(Error::Tokenizer("vocabulary: expected at least one token, got none".into()));
        }
        let mut tokens: Vec<_> = id_of.iter().map(|(token, &id)| (id, token.clone())).collect();
        tokens.sort_unstable();
        if let Some(pair) = tokens.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::Tokenizer(format!(
                "vocabulary: expected an id for each token, got {} for both {:?} and {:?}",
                pair[0].0, pair[0].1, pair[1].1
            )));
        }
        Ok(Self { id_of, tokens })
    }

    /// From the lines of a `vocab.txt`, whitespace at their ends removed: the id of a token is the number of
    /// its (last) line.
    ///
    /// # Errors
    /// `Error::Tokenizer` if there is no line.
    pub fn from_lines(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim_end).enumerate();
        Self::new(lines.map(|(id, token)| (token.to_owned(), id as i64)))
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.id_of.get(token).copied()
    }

    pub fn token(&self, id: u32) -> Option<&str> {
        let found = self.tokens.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(&self.tokens[found].1)
    }

    /// (id, token), sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        self.tokens.iter().map(|(id, token)| (*id, token.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_repeated_lines_counts() {
        let vocabulary = Vocabulary::from_lines("a\nb\r\na\n c\u{3000}\n").unwrap();
        assert_eq!(vocabulary.len(), 3);
        assert_eq!(
            (vocabulary.id("a"), vocabulary.id("b"), vocabulary.id(" c")),
            (Some(2), Some(1), Some(3))
        );
        assert_eq!((vocabulary.token(0), vocabulary.token(2)), (None, Some("a")));
    }

    #[test]
    fn bad_ids_are_named() {
        let bad = |pairs: &[(&str, i64)]| {
            Vocabulary::new(pairs.iter().map(|&(token, id)| (token.to_owned(), id))).unwrap_err().to_string()
        };
        assert!(bad(&[("a", -3)]).contains("got -3 for \"a\""));
        assert!(bad(&[("a", 1 << 40)]).contains("1099511627776"));
        assert!(bad(&[("a", 1), ("b", 1)]).contains("got 1 for both \"a\" and \"b\""));
        assert!(bad(&[]).contains("got none"));
    }
}
