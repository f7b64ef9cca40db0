//! The one error type: what a caller can do wrong, with the values that say so.
//!
//! A mistake of the user is an [`Error`]; a bug is a panic. Each variant becomes one Python class
//! (`bertfast.errors`). A message names the argument, what was expected and what came.

use std::path::{Path, PathBuf};

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong through the caller's input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An array has the wrong rank or extent.
    #[error("{0}")]
    Shape(String),
    /// A token, token type or position id lies outside its table.
    #[error("{0}")]
    TokenId(String),
    /// There is nothing of this number.
    #[error("{0}")]
    Index(String),
    /// An argument has a value that is not allowed.
    #[error("{0}")]
    Value(String),
    /// `config.json` is not a configuration this crate can run.
    #[error("{0}")]
    Config(String),
    /// The weights are damaged, or tensors are missing or misshapen (all of them are listed).
    #[error("{0}")]
    Checkpoint(String),
    /// A corpus for pretraining is damaged, or is not what it should be.
    #[error("{0}")]
    Corpus(String),
    /// A vocabulary or `tokenizer.json` is damaged.
    #[error("{0}")]
    Tokenizer(String),
    /// A `tokenizer.json` is of another kind than BERT's: no reason to think that it is damaged.
    #[error("{0}")]
    TokenizerKind(String),
    /// The caller asked a long call to stop.
    #[error("interrupted")]
    Interrupted,
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err` on anything that touches `path`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.as_ref().to_path_buf(), source }
    }
}
