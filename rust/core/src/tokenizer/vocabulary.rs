//! Ids to tokens and back, and the checks on a vocabulary that came from a file.

use super::characters::Compat;
use crate::error::{Error, Result};

/// Tokens of the model, each with its id; ids may have holes.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// Sorted by token: both a search and the order in which a trie is built.
    by_token: Vec<(String, u32)>,
    /// Sorted by id: (id, place in `by_token`).
    by_id: Vec<(u32, u32)>,
}

/// Ids are int32 in every array.
pub const MAX_ID: i64 = i32::MAX as i64 - 1;

impl Vocabulary {
    /// From (token, id) in the order of the file; of a repeated token the last id counts, as in the reference.
    ///
    /// # Errors
    /// `Error::Tokenizer` if it is empty, an id is out of range or two tokens have the same id.
    pub fn new(pairs: impl IntoIterator<Item = (String, i64)>) -> Result<Self> {
        let mut by_token = Vec::new();
        for (token, id) in pairs {
            if !(0..=MAX_ID).contains(&id) {
                return Err(Error::Tokenizer(format!(
                    "vocabulary: expected ids from 0 to {MAX_ID}, got {id} for {token:?}"
                )));
            }
            by_token.push((token, id as u32));
        }
        if by_token.is_empty() {
            return Err(Error::Tokenizer("vocabulary: expected at least one token, got none".into()));
        }
        // A stable sort keeps repeated tokens in the order of the file.
        by_token.sort_by(|(a, _), (b, _)| a.cmp(b));
        by_token.dedup_by(|later, earlier| {
            let repeated = later.0 == earlier.0;
            if repeated {
                earlier.1 = later.1;
            }
            repeated
        });
        let mut by_id: Vec<(u32, u32)> = by_token.iter().map(|&(_, id)| id).zip(0..).collect();
        by_id.sort_unstable();
        if let Some(pair) = by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let token = |place: u32| &by_token[place as usize].0;
            return Err(Error::Tokenizer(format!(
                "vocabulary: expected an id for each token, got {} for both {:?} and {:?}",
                pair[0].0,
                token(pair[0].1),
                token(pair[1].1)
            )));
        }
        Ok(Self { by_token, by_id })
    }

    /// From the lines of a `vocab.txt`, whitespace at their ends (by Google's rules at their starts too) removed:
    /// the id of a token is the number of its (last) line.
    ///
    /// # Errors
    /// `Error::Tokenizer` if there is no line.
    pub fn from_lines(text: &str, compat: Compat) -> Result<Self> {
        let token = |line: &str| match compat {
            Compat::HuggingFace => line.trim_end().to_owned(),
            Compat::Google => line.trim_matches(|c| compat.is_whitespace(c)).to_owned(),
        };
        Self::new(text.lines().map(token).zip(0..))
    }

    pub fn len(&self) -> usize {
        self.by_token.len()
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        let found = self.by_token.binary_search_by(|(known, _)| known.as_str().cmp(token)).ok()?;
        Some(self.by_token[found].1)
    }

    pub fn token(&self, id: u32) -> Option<&str> {
        let found = self.by_id.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(&self.by_token[self.by_id[found].1 as usize].0)
    }

    /// (token, id), sorted by the bytes of the token.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_token.iter().map(|(token, id)| (token.as_str(), *id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_repeated_lines_counts() {
        let lines = "a\nb\r\na\n c\u{3000}\n";
        let vocabulary = Vocabulary::from_lines(lines, Compat::HuggingFace).unwrap();
        assert_eq!(vocabulary.len(), 3);
        assert_eq!(
            (vocabulary.id("a"), vocabulary.id("b"), vocabulary.id(" c")),
            (Some(2), Some(1), Some(3))
        );
        assert_eq!((vocabulary.token(0), vocabulary.token(2)), (None, Some("a")));
        let stripped = Vocabulary::from_lines(lines, Compat::Google).unwrap();
        assert_eq!((stripped.id("a"), stripped.id("c"), stripped.id(" c")), (Some(2), Some(3), None));
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
