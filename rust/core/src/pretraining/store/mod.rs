//! A corpus as tokens: what samples for pretraining are made from, tokenized once.
//!
//! A store is a folder:
//!
//! | file | what |
//! | --- | --- |
//! | `tokens.bin` | the ids of all sentences end to end, without special tokens: 16 bits each, or 32 if the vocabulary is larger |
//! | `sentences.bin` | 64 bits each: where every sentence begins in the tokens, and where the last one ends |
//! | `documents.bin` | 64 bits each: where every document begins in the sentences, and where the last one ends |
//! | `word_starts.bin` | a bit for each token, bit `t % 8` of byte `t / 8`: whether a word begins there |
//! | `tokenizer/` | the tokenizer's own files |
//! | `manifest.json` | counts, sizes and checksums, the tokenizer, what the builder was asked for ([`Manifest`]) |
//!
//! All numbers are little endian. There are no sentences without tokens and no documents without sentences, and the first
//! token of a sentence begins a word. What is in the files depends on the text, the tokenizer and the options alone.
//!
//! # If another process changes a file
//! Files are mapped, not read: they must stay as they are while a [`Store`] is open. Truncating one ends the process at the
//! next read of a lost page (`SIGBUS` on Unix), as with every program that maps its data. Other damage gives wrong samples,
//! never a read outside of a file, and [`Store::verify`] finds it.

mod append;
mod bytes;
mod folder;
mod journal;
mod manifest;
mod merge;
mod output;
mod part;
mod pieces;
mod reader;
mod sink;
mod split;
#[cfg(test)]
mod tests;
mod verify;
mod writer;
#[cfg(test)]
mod writer_tests;

pub use manifest::{Description, FileRecord, Manifest, TokenizerRecord};
pub use merge::merge;
pub use pieces::Documents;
pub use reader::Store;
pub use split::Split;
pub use writer::StoreWriter;

/// The file that makes a folder a store.
pub const MANIFEST: &str = "manifest.json";
/// The ids.
pub const TOKENS: &str = "tokens.bin";
/// Where sentences begin.
pub const SENTENCES: &str = "sentences.bin";
/// Where documents begin.
pub const DOCUMENTS: &str = "documents.bin";
/// Where words begin.
pub const WORD_STARTS: &str = "word_starts.bin";
/// The folder of the tokenizer's files.
pub const TOKENIZER: &str = "tokenizer";
