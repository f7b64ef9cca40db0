//! `manifest.json`: what a store is.

use super::{DOCUMENTS, SENTENCES, TOKENIZER, TOKENS, WORD_STARTS};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

const FORMAT: &str = "bertfast-corpus";
const VERSION: u32 = 1;

/// A manifest is small; a file that is not is something else.
const LONGEST: u64 = 16 << 20;

/// What `manifest.json` says.
///
/// It has no times, no paths and no names of files of text: the same corpus gives the same manifest anywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// Bits of a token: 16 or 32.
    pub token_bits: u32,
    /// How many tokens there are.
    pub tokens: u64,
    /// How many sentences.
    pub sentences: u64,
    /// How many documents.
    pub documents: u64,
    /// The files, by their paths in the folder.
    pub files: BTreeMap<String, FileRecord>,
    /// What tokenized the texts.
    pub tokenizer: TokenizerRecord,
    /// What the builder was asked for, as far as it changes what is in the files.
    pub options: Map<String, Value>,
    /// Of a store that is a part of a corpus until it is merged: which part, of how many.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<(u32, u32)>,
    /// Of such a part: what the builder calls that which all parts are made from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inputs: Option<String>,
}

/// What a builder says of the corpus that it builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What tokenizes the texts.
    pub tokenizer: TokenizerRecord,
    /// What changes the contents: see [`Manifest::options`].
    #[serde(default)]
    pub options: Map<String, Value>,
    /// See [`Manifest::shard`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<(u32, u32)>,
    /// See [`Manifest::inputs`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inputs: Option<String>,
}

/// A file of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its contents, as 64 hexadecimal digits.
    pub sha256: String,
}

/// What a store says about its tokenizer: enough to tell two vocabularies apart, and to make samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TokenizerRecord {
    /// SHA-256 over all tokens in the order of their ids.
    pub vocabulary_sha256: String,
    /// Ids are below this.
    pub vocab_size: u32,
    pub cls_token_id: Option<u32>,
    pub sep_token_id: Option<u32>,
    pub mask_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
    pub unk_token_id: Option<u32>,
    /// All special tokens, those above included.
    pub special_token_ids: Vec<u32>,
    /// `"wordpiece"`, or what else makes its tokens.
    pub kind: String,
}

impl Manifest {
    /// A manifest of this version.
    pub(super) fn new(
        token_bits: u32,
        [tokens, sentences, documents]: [u64; 3],
        files: BTreeMap<String, FileRecord>,
        description: Description,
    ) -> Self {
        let Description { tokenizer, options, shard, inputs } = description;
        let (format, version) = (FORMAT.to_owned(), VERSION);
        Self {
            format,
            version,
            token_bits,
            tokens,
            sentences,
            documents,
            files,
            tokenizer,
            options,
            shard,
            inputs,
        }
    }

    /// Reads and checks it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let error = |why: String| Error::Corpus(format!("{}: {why}", path.display()));
        let status = std::fs::metadata(path).map_err(Error::io(path))?;
        if !status.is_file() || status.len() > LONGEST {
            return Err(error("not the manifest of a corpus".to_owned()));
        }
        let text = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(&text).map_err(error)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        let (format, version) = (value.get("format"), value.get("version"));
        if format.and_then(Value::as_str) != Some(FORMAT) {
            return Err(format!("format: expected {FORMAT:?}, got {}", format.unwrap_or(&Value::Null)));
        }
        if version.and_then(Value::as_u64) != Some(VERSION.into()) {
            return Err(format!("version: expected {VERSION}, got {}", version.unwrap_or(&Value::Null)));
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        self.tokenizer.check(self.token_bits)?;
        check_shard(self.shard)?;
        for (name, file) in &self.files {
            if !is_file_of_store(name) {
                return Err(format!("files: {name:?} is no file of a corpus"));
            }
            if file.sha256.len() != 64 || !file.sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(format!(
                    "files: {name}: sha256: expected 64 hexadecimal digits, got {:?}",
                    file.sha256
                ));
            }
        }
        for (name, expected) in self.sizes().ok_or("tokens, sentences, documents: too many for any file")? {
            match self.files.get(name) {
                Some(file) if file.bytes == expected => {}
                Some(file) => {
                    return Err(format!(
                        "files: {name}: expected {expected} bytes for the counts, got {}",
                        file.bytes
                    ));
                }
                None => return Err(format!("files: {name} is missing")),
            }
        }
        Ok(())
    }

    /// How long the data files are for the counts; nothing, if no file can be.
    fn sizes(&self) -> Option<[(&'static str, u64); 4]> {
        let offsets = |count: u64| count.checked_add(1)?.checked_mul(8);
        Some([
            (TOKENS, self.tokens.checked_mul((self.token_bits / 8).into())?),
            (SENTENCES, offsets(self.sentences)?),
            (DOCUMENTS, offsets(self.documents)?),
            (WORD_STARTS, self.tokens.div_ceil(8)),
        ])
    }

    /// As it is written.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings as keys");
        text.push('\n');
        text
    }
}

impl Description {
    /// From JSON.
    ///
    /// # Errors
    /// `Error::Value` if it is no description, or if ids do not fit into so many bits.
    pub fn parse(json: &str, token_bits: u32) -> Result<Self> {
        let described: Result<Self, _> = serde_json::from_str(json).map_err(|error| error.to_string());
        let checked = described.and_then(|description| {
            description.tokenizer.check(token_bits)?;
            check_shard(description.shard)?;
            Ok(description)
        });
        checked.map_err(|why| Error::Value(format!("description: {why}")))
    }
}

fn check_shard(shard: Option<(u32, u32)>) -> Result<(), String> {
    match shard {
        Some((index, count)) if index >= count => {
            Err(format!("shard: expected [i, n] with i < n, got [{index}, {count}]"))
        }
        _ => Ok(()),
    }
}

impl TokenizerRecord {
    /// That ids fit.
    pub(super) fn check(&self, token_bits: u32) -> Result<(), String> {
        if !matches!(token_bits, 16 | 32) {
            return Err(format!("token_bits: expected 16 or 32, got {token_bits}"));
        }
        let size = self.vocab_size;
        if size == 0 || i32::try_from(size).is_err() || (token_bits == 16 && size > 1 << 16) {
            let most = if token_bits == 16 { 1 << 16 } else { i32::MAX };
            return Err(format!("tokenizer: vocab_size: expected a number in 1..={most}, got {size}"));
        }
        let named =
            [self.cls_token_id, self.sep_token_id, self.mask_token_id, self.pad_token_id, self.unk_token_id];
        match named.into_iter().flatten().chain(self.special_token_ids.iter().copied()).find(|&id| id >= size)
        {
            Some(id) => Err(format!("tokenizer: expected special tokens in 0..{size}, got {id}")),
            None => Ok(()),
        }
    }
}

/// Whether it is one of the four that hold the corpus.
pub(super) fn is_data_file(name: &str) -> bool {
    [TOKENS, SENTENCES, DOCUMENTS, WORD_STARTS].contains(&name)
}

/// Whether a manifest may name it: a name that leaves the folder never is.
fn is_file_of_store(name: &str) -> bool {
    match name.split_once('/') {
        None => is_data_file(name),
        Some((folder, name)) => {
            folder == TOKENIZER && !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
        }
    }
}

/// The first place where two values differ, with both.
pub(super) fn difference(expected: &impl Serialize, found: &impl Serialize) -> Option<String> {
    fn differ(place: String, expected: &Value, found: &Value) -> Option<String> {
        match (expected, found) {
            (Value::Object(expected), Value::Object(found)) => {
                let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
                keys.into_iter().find_map(|key| {
                    let value = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                    let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                    differ(place, &value(expected), &value(found))
                })
            }
            _ if expected == found => None,
            _ => Some(format!("{place}: expected {expected}, got {found}")),
        }
    }
    let value = |of: serde_json::Result<Value>| of.unwrap_or_default();
    differ(String::new(), &value(serde_json::to_value(expected)), &value(serde_json::to_value(found)))
}
