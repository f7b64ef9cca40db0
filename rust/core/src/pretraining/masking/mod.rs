//! Masks for language modelling: which tokens of a row are asked for, and what stands in their place.
//!
//! A row is masked in three steps. `units` are its tokens or its words; they are put into a random order, as far as it is
//! needed, and each proposes the tokens of a group (itself, an n-gram, a span) that are masked unless they are more than
//! the row may still lose; then 80 % of the groups become `[MASK]`, 10 % random tokens, and 10 % stay (`groups`).
//! Special tokens are never masked, and no group reaches across one.
//!
//! docs/pretraining.md states the rules and where they come from.

mod groups;
mod rows;
mod rule;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use groups::Scratch;
pub use rows::{Keys, Rows};
pub use rule::{Count, Masker, Rule, Unit};
pub use vocabulary::{PADDING, SPECIAL, Vocabulary, WORD_START};

/// The label of a token that is not asked for.
pub const IGNORED: i32 = -100;

/// A token id, as arrays have them.
pub trait Id: Copy + Send + Sync {
    /// As an index, if it is one.
    fn index(self) -> usize;
    /// From an id.
    fn from_i32(id: i32) -> Self;
    /// For messages.
    fn as_i64(self) -> i64;
}

impl Id for i32 {
    #[inline(always)]
    fn index(self) -> usize {
        self as u32 as usize
    }

    #[inline(always)]
    fn from_i32(id: i32) -> Self {
        id
    }

    fn as_i64(self) -> i64 {
        self.into()
    }
}

impl Id for i64 {
    #[inline(always)]
    fn index(self) -> usize {
        self as u64 as usize
    }

    #[inline(always)]
    fn from_i32(id: i32) -> Self {
        id.into()
    }

    fn as_i64(self) -> i64 {
        self
    }
}
