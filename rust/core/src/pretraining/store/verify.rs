//! Whether a store is what its manifest says.

use super::bytes::Bytes;
use super::reader::Store;
use super::sink::{STEP, hex, record_of};
use super::{DOCUMENTS, SENTENCES, TOKENS, WORD_STARTS};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

impl Store {
    /// Reads everything: checksums of all files, that offsets rise, that ids are in the vocabulary, and that sentences
    /// begin with words.
    ///
    /// `progress` is called now and then with the bytes that are done, and those that there are; what it returns ends it.
    ///
    /// # Errors
    /// `Error::Corpus` names the file that is damaged and the place, where it is known; `Error::Io`.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let total = self.manifest.files.values().map(|file| file.bytes).sum();
        let mut done = 0;
        let mut step = |bytes: u64| {
            done += bytes;
            progress(done, total)
        };
        self.check_offsets(SENTENCES, &self.sentences, &mut step)?;
        self.check_offsets(DOCUMENTS, &self.documents, &mut step)?;
        self.check(TOKENS, &self.tokens, &mut step, |start, bytes| self.check_ids(start, bytes))?;
        self.check(WORD_STARTS, &self.word_starts, &mut step, |_, _| Ok(()))?;
        self.check_word_starts()?;
        for (name, expected) in &self.manifest.files {
            if super::manifest::is_data_file(name) {
                continue;
            }
            let path = self.folder.join(name);
            let found = record_of(&path, &mut step)?;
            if found != *expected {
                return Err(self.damaged(name, &different(&expected.sha256, &found.sha256)));
            }
        }
        Ok(())
    }

    /// Hashes a file step by step, each of which is looked at before the sum is known.
    fn check(
        &self,
        name: &str,
        bytes: &Bytes,
        step: &mut dyn FnMut(u64) -> Result<()>,
        look: impl Fn(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut hash = Sha256::new();
        for (index, part) in bytes.chunks(STEP).enumerate() {
            hash.update(part);
            look(index * STEP, part)?;
            step(part.len() as u64)?;
        }
        let (expected, found) = (&self.manifest.files[name].sha256, hex(hash));
        if *expected == found { Ok(()) } else { Err(self.damaged(name, &different(expected, &found))) }
    }

    fn check_offsets(
        &self,
        name: &str,
        bytes: &Bytes,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        self.check(name, bytes, step, |start, part| {
            let first = start / 8;
            for index in first..first + part.len() / 8 {
                let (before, offset) =
                    (index.checked_sub(1).map(|before| bytes.u64(before)), bytes.u64(index));
                if let Some(before) = before.filter(|before| *before >= offset) {
                    return Err(self.damaged(
                        name,
                        &format!("expected an offset above {before} at byte {}, got {offset}", index * 8),
                    ));
                }
            }
            Ok(())
        })
    }

    fn check_ids(&self, start: usize, bytes: &[u8]) -> Result<()> {
        let (size, width) = (self.manifest.tokenizer.vocab_size, self.manifest.token_bits as usize / 8);
        let id = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
        let wrong = if width == 2 {
            bytes.as_chunks::<2>().0.iter().position(|id| u32::from(u16::from_le_bytes(*id)) >= size)
        } else {
            bytes.as_chunks::<4>().0.iter().position(|id| u32::from_le_bytes(*id) >= size)
        };
        let Some(place) = wrong.map(|index| index * width) else { return Ok(()) };
        let (id, place) = (id(&bytes[place..place + width]), start + place);
        Err(self.damaged(TOKENS, &format!("expected ids in 0..{size}, got {id} at byte {place}")))
    }

    /// After offsets were looked at.
    fn check_word_starts(&self) -> Result<()> {
        for sentence in 0..self.num_sentences() {
            let token = self.tokens_of(sentence).start;
            if !self.is_word_start(token) {
                let place = format!("bit {} of byte {}", token % 8, token / 8);
                let why = format!("expected sentence {sentence} to begin a word, at {place}");
                return Err(self.damaged(WORD_STARTS, &why));
            }
        }
        let used = self.num_tokens() % 8;
        match self.word_starts.last() {
            Some(last) if used > 0 && last >> used != 0 => {
                Err(self.damaged(WORD_STARTS, "expected zeros behind the last token"))
            }
            _ => Ok(()),
        }
    }

    /// An error about a file.
    pub(super) fn damaged(&self, name: &str, why: &str) -> Error {
        let path: PathBuf = self.folder.join(name);
        Error::Corpus(format!("{}: damaged: {why}", path.display()))
    }
}

/// What is to be said of a checksum.
pub(super) fn different(expected: &str, found: &str) -> String {
    format!("expected the SHA-256 {expected}, got {found}")
}
