//! The parts of a corpus to one store.

use super::bytes::Bytes;
use super::folder::check_folder;
use super::manifest::{Description, Manifest, difference, is_data_file};
use super::reader::Store;
use super::sink::{Bits, STEP, Sink, hex, replace, sync_folder};
use super::verify::different;
use super::{DOCUMENTS, MANIFEST, SENTENCES, TOKENIZER, TOKENS, WORD_STARTS};
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
    check_folder(folder)?;
    let existed = folder.exists();
    if existed && std::fs::read_dir(folder).map_err(Error::io(folder))?.next().is_some() {
        return Err(Error::Corpus(format!("{}: expected an empty folder", folder.display())));
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
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
    write(&shards, folder, &mut step).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = std::fs::remove_dir_all(folder.join(TOKENIZER));
        for name in [TOKENS, SENTENCES, DOCUMENTS, WORD_STARTS] {
            let _ = std::fs::remove_file(folder.join(name));
        }
        if !existed {
            let _ = std::fs::remove_dir(folder);
        }
    })
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

type Step<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

fn write(shards: &[Store], folder: &Path, step: Step<'_>) -> Result<()> {
    let create = |name: &str| Sink::create(folder.join(name));
    let (mut tokens, mut starts) = (create(TOKENS)?, create(WORD_STARTS)?);
    let (mut sentences, mut documents) = (create(SENTENCES)?, create(DOCUMENTS)?);
    sentences.write(&0u64.to_le_bytes())?;
    documents.write(&0u64.to_le_bytes())?;
    let mut bits = Bits::default();
    let mut counts = [0; 3];
    let mut buffer = Vec::new();
    for shard in shards {
        each_part(shard, TOKENS, &shard.tokens, step, |part| tokens.write(part))?;
        for (name, bytes, base, out) in [
            (SENTENCES, &shard.sentences, counts[0], &mut sentences),
            (DOCUMENTS, &shard.documents, counts[1], &mut documents),
        ] {
            let mut first = true;
            each_part(shard, name, bytes, step, |part| {
                buffer.clear();
                let offsets = part.as_chunks().0.iter().skip(usize::from(std::mem::take(&mut first)));
                // Damage that makes it overflow is found by the checksum.
                let moved = offsets.map(|offset| u64::from_le_bytes(*offset).wrapping_add(base));
                buffer.extend(moved.flat_map(u64::to_le_bytes));
                out.write(&buffer)
            })?;
        }
        let mut left = shard.num_tokens();
        each_part(shard, WORD_STARTS, &shard.word_starts, step, |part| {
            buffer.clear();
            let count = left.min(part.len() as u64 * 8);
            left -= count;
            bits.append(part, count, &mut buffer);
            starts.write(&buffer)
        })?;
        let more = [shard.num_tokens(), shard.num_sentences(), shard.num_documents()];
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
    }
    if bits.used > 0 {
        starts.write(&[bits.waiting])?;
    }
    let mut files = BTreeMap::new();
    for (name, sink) in
        [(TOKENS, tokens), (SENTENCES, sentences), (DOCUMENTS, documents), (WORD_STARTS, starts)]
    {
        sink.sync()?;
        files.insert(name.to_owned(), sink.record());
    }
    let first = &shards[0];
    let copied = copy_tokenizer(first, folder, step)?;
    files.extend(copied.into_iter().map(|name| (name.clone(), first.manifest.files[&name].clone())));
    let (tokenizer, options) = (first.manifest.tokenizer.clone(), first.manifest.options.clone());
    let description = Description { tokenizer, options, shard: None, inputs: None };
    let manifest = Manifest::new(first.manifest.token_bits, counts, files, description);
    replace(&folder.join(MANIFEST), manifest.to_json().as_bytes())
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

/// Copies the tokenizer's files; their names.
fn copy_tokenizer(shard: &Store, folder: &Path, step: Step<'_>) -> Result<Vec<String>> {
    let names: Vec<_> = shard.manifest.files.keys().filter(|name| !is_data_file(name)).cloned().collect();
    if names.is_empty() {
        return Ok(names);
    }
    let inside = folder.join(TOKENIZER);
    std::fs::create_dir(&inside).map_err(Error::io(&inside))?;
    for name in &names {
        let (path, expected) = (shard.folder.join(name), &shard.manifest.files[name]);
        let contents = std::fs::read(&path).map_err(Error::io(&path))?;
        let mut sink = Sink::create(folder.join(name))?;
        sink.write(&contents)?;
        sink.sync()?;
        let found = sink.record();
        if found != *expected {
            return Err(shard.damaged(name, &different(&expected.sha256, &found.sha256)));
        }
        step(found.bytes)?;
    }
    sync_folder(&inside)?;
    Ok(names)
}
