//! One store to two: what is trained on, and what is held out of it.

use super::manifest::Description;
use super::output::Output;
use super::reader::Store;
use super::sink::STEP;
use crate::pretraining::philox::{Purpose, Stream};
use crate::{Error, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::Path;

/// Ids that are hashed at once.
const IDS: usize = 1 << 16;

/// Which documents are held out.
///
/// That is drawn for the tokens of each, wherever it is: equal documents are on one side, and their order is of no matter.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    /// The probability, between 0 and 1.
    pub held_out: f64,
    /// For another split.
    pub seed: u64,
}

impl Split {
    /// That the store can be split, and that both sides get documents; no more of them are looked at than that takes.
    ///
    /// `progress` is called now and then with the bytes that are done, and those that there are; what it returns ends it.
    ///
    /// # Errors
    /// `Error::Value` if the share is none or a side gets nothing; `Error::Corpus` for a shard; what `progress` returns.
    pub fn check(&self, store: &Store, progress: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            let got = self.held_out;
            return Err(Error::Value(format!("held_out: expected a share between 0 and 1, got {got}")));
        }
        if let Some((index, count)) = store.manifest.shard {
            return Err(Error::Corpus(format!(
                "{}: expected a whole corpus, got shard {index} of {count}: merge the shards first",
                store.folder.display()
            )));
        }
        let mut told = Told::new(store, progress);
        let (mut found, mut buffer) = ([false; 2], Vec::new());
        for document in 0..store.num_documents() {
            let sentences = store.sentences_of(document);
            found[usize::from(self.is_held_out(store, &sentences, &mut buffer))] = true;
            if found == [true; 2] {
                return Ok(());
            }
            let tokens = store.tokens_of_all(&sentences);
            told.step((tokens.end - tokens.start) * u64::from(store.manifest.token_bits / 8))?;
        }
        Err(Error::Value(format!(
            "held_out: expected a share that leaves documents on both sides, got {}, which holds out {} of {}",
            self.held_out,
            if found[1] { store.num_documents() } else { 0 },
            store.num_documents(),
        )))
    }

    /// Writes both sides to folders that are new or empty, each with its documents in order.
    ///
    /// The store has to be as its checksums say ([`Store::verify`]). `progress` as for [`check`](Self::check).
    ///
    /// # Errors
    /// As [`check`](Self::check); `Error::Corpus` if there is something in a folder; `Error::Io`. What was written is
    /// removed then.
    pub fn write(
        &self,
        store: &Store,
        train: &Path,
        held_out: &Path,
        mut progress: impl FnMut(u64, u64) -> Result<()>,
    ) -> Result<()> {
        self.check(store, |_, total| progress(0, total))?;
        let mut told = Told::new(store, progress);
        let step = &mut |bytes: u64| told.step(bytes);
        let create = |folder: &Path| Output::create(folder, &store.manifest);
        let mut sides = [create(train)?, create(held_out)?];
        let mut buffer = Vec::new();
        for document in 0..store.num_documents() {
            let sentences = store.sentences_of(document);
            let side = usize::from(self.is_held_out(store, &sentences, &mut buffer));
            sides[side].append(store, sentences, step)?;
        }
        for (side, name) in sides.iter_mut().zip(["train", "held_out"]) {
            side.finish(store, self.describe(store, name), &mut |_| Ok(()))?;
        }
        sides.iter().try_for_each(Output::publish)?;
        sides.into_iter().for_each(Output::keep);
        Ok(())
    }

    fn is_held_out(&self, store: &Store, sentences: &Range<u64>, buffer: &mut Vec<i32>) -> bool {
        let tokens = store.tokens_of_all(sentences);
        let mut hash = Sha256::new();
        let mut start = tokens.start;
        while start < tokens.end {
            let end = tokens.end.min(start + IDS as u64);
            buffer.resize((end - start) as usize, 0);
            store.copy_tokens(start..end, buffer);
            for ids in buffer.chunks(64) {
                let mut bytes = [[0; 4]; 64];
                bytes.iter_mut().zip(ids).for_each(|(bytes, id)| *bytes = id.to_le_bytes());
                hash.update(bytes[..ids.len()].as_flattened());
            }
            start = end;
        }
        let digest = hash.finalize();
        let contents = u64::from_le_bytes(std::array::from_fn(|byte| digest[byte]));
        Stream::new(self.seed, Purpose::Split, 0, contents).chance(self.held_out)
    }

    /// The store's own, and which part of it this is.
    fn describe(&self, store: &Store, side: &str) -> Description {
        let mut options = store.manifest.options.clone();
        let split = json!({ "held_out": self.held_out, "seed": self.seed, "side": side });
        match options.entry("splits").or_insert_with(|| json!([])) {
            Value::Array(splits) => splits.push(split),
            other => *other = json!([split]),
        }
        Description { tokenizer: store.manifest.tokenizer.clone(), options, shard: None, inputs: None }
    }
}

/// Tells how far it is, not for every document.
struct Told<P> {
    progress: P,
    done: u64,
    told: u64,
    total: u64,
}

impl<P: FnMut(u64, u64) -> Result<()>> Told<P> {
    fn new(store: &Store, progress: P) -> Self {
        Self { progress, done: 0, told: 0, total: store.tokens.len() as u64 }
    }

    fn step(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        if self.done - self.told < STEP as u64 && self.done < self.total {
            return Ok(());
        }
        self.told = self.done;
        (self.progress)(self.done, self.total)
    }
}
