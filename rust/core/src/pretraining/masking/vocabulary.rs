//! What masking has to know of a vocabulary.

use crate::{Error, Result};

/// A token that is never masked: `[CLS]`, `[SEP]`, ...
pub const SPECIAL: u8 = 1;
/// A token that does not even count: it is special, too.
pub const PADDING: u8 = 2;
/// A token that begins a word.
pub const WORD_START: u8 = 4;

/// What each token is, and what masked ones become.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// [`SPECIAL`], [`PADDING`], [`WORD_START`] of each id.
    pub(super) kinds: Vec<u8>,
    pub(super) mask_id: i32,
    /// The ids that are not special, in order.
    pub(super) ordinary: Vec<i32>,
}

impl Vocabulary {
    /// From the kind of each id.
    ///
    /// # Errors
    /// `Error::Value` if the vocabulary has no ordinary token or does not fit into 31 bits; `Error::TokenId` if it does
    /// not have `mask_id`.
    pub fn new(mut kinds: Vec<u8>, mask_id: i64) -> Result<Self> {
        if i32::try_from(kinds.len()).is_err() {
            return Err(Error::Value(format!(
                "vocabulary: expected fewer than 2^31 ids, got {}",
                kinds.len()
            )));
        }
        let len = kinds.len();
        let mask_id = usize::try_from(mask_id).ok().filter(|&id| id < len).ok_or_else(|| {
            Error::TokenId(format!("mask_token_id: expected an id in 0..{len}, got {mask_id}"))
        })?;
        for kind in &mut kinds {
            if *kind & PADDING != 0 {
                *kind |= SPECIAL;
            }
        }
        let ordinary: Vec<_> =
            (0..).zip(&kinds).filter(|(_, kind)| **kind & SPECIAL == 0).map(|(id, _)| id).collect();
        if ordinary.is_empty() {
            return Err(Error::Value("special_token_ids: expected some ids that are not special".into()));
        }
        Ok(Self { kinds, mask_id: mask_id as i32, ordinary })
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Never: a vocabulary has ordinary tokens.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }
}
