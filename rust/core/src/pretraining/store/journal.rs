//! `journal.json`: how far a store that is not finished has come.

use super::manifest::{Description, FileRecord, is_data_file};
use super::sink::replace;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const FORMAT: &str = "bertfast-corpus-journal";

/// The state at a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    format: String,
    pub(super) begun: Begun,
    pub(super) tokens: u64,
    pub(super) sentences: u64,
    pub(super) documents: u64,
    /// The word starts that do not fill a byte.
    pub(super) word_starts: u8,
    /// Of the data files that are not empty.
    pub(super) files: BTreeMap<String, FileRecord>,
    /// What the caller wanted to know again.
    pub(super) position: Option<String>,
}

/// What a writer is made with, which whoever goes on must have, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begun {
    pub(super) token_bits: u32,
    pub(super) description: Description,
    /// Of the table, a byte for each id.
    pub(super) word_starts_sha256: String,
}

impl Journal {
    /// Before anything was written.
    pub(super) fn new(begun: Begun) -> Self {
        let (files, format) = (BTreeMap::new(), FORMAT.to_owned());
        Self { format, begun, tokens: 0, sentences: 0, documents: 0, word_starts: 0, files, position: None }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io(path))?;
        let journal = serde_json::from_slice(&text).map_err(|error| error.to_string());
        journal
            .and_then(|journal: Self| journal.check().map(|()| journal))
            .map_err(|why| Error::Corpus(format!("{}: damaged: {why}", path.display())))
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format: expected {FORMAT:?}, got {:?}", self.format));
        }
        match self.files.keys().find(|name| !is_data_file(name)) {
            Some(name) => Err(format!("files: {name:?} is no file of a corpus")),
            None => Ok(()),
        }
    }

    /// Puts it into the place of the one before.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        replace(path, &serde_json::to_vec_pretty(self).expect("strings as keys"))
    }

    /// How long a file is, and its sum.
    pub(super) fn file(&self, name: &str) -> FileRecord {
        // The sum of nothing.
        const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        self.files.get(name).cloned().unwrap_or(FileRecord { bytes: 0, sha256: EMPTY.to_owned() })
    }
}
