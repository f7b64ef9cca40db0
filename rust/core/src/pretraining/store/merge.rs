//! The parts of a corpus to one store.

use super::bytes::Bytes;
use super::manifest::{Description, Manifest, difference, is_data_file};
use super::output::{Output, Step};
use super::reader::Store;
use super::sink::{STEP, hex};
use super::verify::different;
use super::{DOCUMENTS, MANIFEST, SENTENCES, TOKENS, WORD_STARTS};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Puts all shards of a corpus into one store: the same bytes as if it had been built at once.
///
/// `progress` is called now and then with the bytes that are done, and those that there are; what it returns ends it.
///
/// # Errors
/// `Error::Value` without shards; `Error::Corpus` if they are not all shards of one corpus in order, were not made alike,
/// or are damaged, or if there is something in `folder`; `Error::Io`. What was written is removed then.
pub fn merge(
    shards: &[PathBuf],
    folder: &Path,
    mut progress: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let shards = open_all(shards)?;
    let files = |index: usize, shard: &Store| {
        let read = shard.manifest.files.iter().filter(|(name, _)| index == 0 || is_data_file(name));
        read.map(|(_, file)| file.bytes).sum::<u64>()
    };
    let total = shards.iter().enumerate().map(|(index, shard)| files(index, shard)).sum();
    let mut done = 0;
    let mut step = |bytes: u64| {
        done += bytes;
        progress(done, total)
    };
    write(&shards, folder, &mut step)
}

fn open_all(folders: &[PathBuf]) -> Result<Vec<Store>> {
    if folders.is_empty() {
        return Err(Error::Value("shards: expected at least one, got none".to_owned()));
    }
    let shards = folders.iter().map(|folder| Store::open(folder)).collect::<Result<Vec<_>>>()?;
    let count = shards.len();
    for (index, shard) in shards.iter().enumerate() {
        let error =
            |why: String| Error::Corpus(format!("{}: {why}", folders[index].join(MANIFEST).display()));
        let (got, expected) = (shard.manifest.shard, (index, count));
        if got.map(|(index, count)| (index as usize, count as usize)) != Some(expected) {
            let got =
                got.map_or("no part of a corpus".to_owned(), |(index, count)| format!("[{index}, {count}]"));
            return Err(error(format!("shard: expected [{index}, {count}], got {got}")));
        }
        if let Some(difference) = difference(&alike(&shards[0].manifest), &alike(&shard.manifest)) {
            return Err(error(format!("{difference}, unlike shard 0")));
        }
    }
    Ok(shards)
}

/// What all shards have in common.
fn alike(manifest: &Manifest) -> serde_json::Value {
    let tokenizer_files: BTreeMap<_, _> =
        manifest.files.iter().filter(|(name, _)| !is_data_file(name)).collect();
    serde_json::json!({
        "token_bits": manifest.token_bits,
        "tokenizer": manifest.tokenizer,
        "options": manifest.options,
        "inputs": manifest.inputs,
        "files": tokenizer_files,
    })
}

fn write(shards: &[Store], folder: &Path, step: Step<'_>) -> Result<()> {
    let first = &shards[0];
    let mut output = Output::create(folder, &first.manifest)?;
    let Output { tokens, sentences, documents, word_starts, bits, counts, buffer, .. } = &mut output;
    for shard in shards {
        each_part(shard, TOKENS, &shard.tokens, step, |part| tokens.write(part))?;
        for (name, bytes, base, out) in [
            (SENTENCES, &shard.sentences, counts[0], &mut *sentences),
            (DOCUMENTS, &shard.documents, counts[1], &mut *documents),
        ] {
            let mut first = true;
            each_part(shard, name, bytes, step, |part| {
                buffer.clear();
                let offsets = part.as_chunks().0.iter().skip(usize::from(std::mem::take(&mut first)));
                // Damage that makes it overflow is found by the checksum.
                let moved = offsets.map(|offset| u64::from_le_bytes(*offset).wrapping_add(base));
                buffer.extend(moved.flat_map(u64::to_le_bytes));
                out.write(buffer)
            })?;
        }
        let mut left = shard.num_tokens();
        each_part(shard, WORD_STARTS, &shard.word_starts, step, |part| {
            buffer.clear();
            let count = left.min(part.len() as u64 * 8);
            left -= count;
            bits.append(part, count, buffer);
            word_starts.write(buffer)
        })?;
        let more = [shard.num_tokens(), shard.num_sentences(), shard.num_documents()];
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
    }
    let (tokenizer, options) = (first.manifest.tokenizer.clone(), first.manifest.options.clone());
    output.finish(first, Description { tokenizer, options, shard: None, inputs: None }, step)?;
    output.publish()?;
    output.keep();
    Ok(())
}

/// Hands over a file step by step, and compares its checksum in the end.
fn each_part(
    shard: &Store,
    name: &str,
    bytes: &Bytes,
    step: Step<'_>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut hash = Sha256::new();
    for part in bytes.chunks(STEP) {
        hash.update(part);
        take(part)?;
        step(part.len() as u64)?;
    }
    let (expected, found) = (&shard.manifest.files[name].sha256, hex(hash));
    if *expected == found { Ok(()) } else { Err(shard.damaged(name, &different(expected, &found))) }
}
