//! A store that is made of others: it appears when all of it is there.

use super::folder::check_folder;
use super::manifest::{Description, Manifest, is_data_file};
use super::reader::Store;
use super::sink::{Bits, STEP, Sink, prepare, prepared, put_in_place, sync_folder};
use super::verify::different;
use super::{DOCUMENTS, MANIFEST, SENTENCES, TOKENIZER, TOKENS, WORD_STARTS};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Told how many bytes were done; what it returns ends the work.
pub(super) type Step<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// How many word starts are copied in a step.
const WORD_STARTS_AT_ONCE: u64 = 1 << 20;

/// A store that is being written. What is not [kept](Self::keep) is removed again.
pub(super) struct Output {
    place: Place,
    pub(super) tokens: Buffered,
    pub(super) sentences: Buffered,
    pub(super) documents: Buffered,
    pub(super) word_starts: Buffered,
    pub(super) bits: Bits,
    /// Tokens, sentences, documents so far.
    pub(super) counts: [u64; 3],
    pub(super) buffer: Vec<u8>,
}

/// Where it is.
struct Place {
    folder: PathBuf,
    /// Whether the folder was there before.
    existed: bool,
    kept: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Whoever gave up has an error of its own to tell.
        let _ = std::fs::remove_file(self.folder.join(MANIFEST));
        let _ = std::fs::remove_dir_all(self.folder.join(TOKENIZER));
        for name in [TOKENS, SENTENCES, DOCUMENTS, WORD_STARTS] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        let _ = std::fs::remove_file(prepared(&self.folder.join(MANIFEST)));
        if !self.existed {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

impl Output {
    /// Begins in a folder that is new or empty. Until the end a manifest that is not in its place, such as `like`, says
    /// whose the files are.
    ///
    /// # Errors
    /// `Error::Corpus` if there is something in the folder; `Error::Io`.
    pub(super) fn create(folder: &Path, like: &Manifest) -> Result<Self> {
        check_folder(folder)?;
        let existed = folder.exists();
        if existed && std::fs::read_dir(folder).map_err(Error::io(folder))?.next().is_some() {
            return Err(Error::Corpus(format!("{}: expected an empty folder", folder.display())));
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut place = Place { folder: folder.to_owned(), existed, kept: false };
        prepare(&folder.join(MANIFEST), like.to_json().as_bytes())?;
        let create = |name: &str| Sink::create(folder.join(name)).map(Buffered::new);
        let tokens = create(TOKENS).inspect_err(|error| {
            // Another process was faster since the folder was looked at: what is there is not this one's to remove.
            let is_there = |source: &std::io::Error| source.kind() == std::io::ErrorKind::AlreadyExists;
            place.kept = matches!(error, Error::Io { source, .. } if is_there(source));
        })?;
        let mut output = Self {
            place,
            tokens,
            sentences: create(SENTENCES)?,
            documents: create(DOCUMENTS)?,
            word_starts: create(WORD_STARTS)?,
            bits: Bits::default(),
            counts: [0; 3],
            buffer: Vec::new(),
        };
        output.sentences.write(&0u64.to_le_bytes())?;
        output.documents.write(&0u64.to_le_bytes())?;
        Ok(output)
    }

    /// Appends a document of a store, which has these sentences.
    pub(super) fn append(&mut self, store: &Store, sentences: Range<u64>, step: Step<'_>) -> Result<()> {
        let tokens = store.tokens_of_all(&sentences);
        let width = store.manifest.token_bits as usize / 8;
        let bytes = &store.tokens[tokens.start as usize * width..tokens.end as usize * width];
        for part in bytes.chunks(STEP) {
            self.tokens.write(part)?;
            step(part.len() as u64)?;
        }
        let mut start = tokens.start;
        while start < tokens.end {
            let end = tokens.end.min(start + WORD_STARTS_AT_ONCE);
            self.buffer.clear();
            self.bits.append_from(&store.word_starts, start..end, &mut self.buffer);
            self.word_starts.write(&self.buffer)?;
            start = end;
        }
        let [before, ..] = self.counts;
        for sentence in sentences.clone() {
            // Damage that makes it overflow is for `verify` to find.
            let end = store.tokens_of(sentence).end.wrapping_sub(tokens.start).wrapping_add(before);
            self.sentences.write(&end.to_le_bytes())?;
        }
        let more = [tokens.end - tokens.start, sentences.end - sentences.start, 1];
        self.counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        self.documents.write(&self.counts[1].to_le_bytes())
    }

    /// Writes the rest: the tokenizer's files, which are those of `store`, and the manifest, which is not in its place yet.
    pub(super) fn finish(&mut self, store: &Store, description: Description, step: Step<'_>) -> Result<()> {
        if self.bits.used > 0 {
            self.word_starts.write(&[self.bits.waiting])?;
        }
        let mut files = BTreeMap::new();
        for (name, file) in [
            (TOKENS, &mut self.tokens),
            (SENTENCES, &mut self.sentences),
            (DOCUMENTS, &mut self.documents),
            (WORD_STARTS, &mut self.word_starts),
        ] {
            file.flush()?;
            file.sink.sync()?;
            files.insert(name.to_owned(), file.sink.record());
        }
        let copied = copy_tokenizer(store, &self.place.folder, step)?;
        files.extend(copied.into_iter().map(|name| (name.clone(), store.manifest.files[&name].clone())));
        let manifest = Manifest::new(store.manifest.token_bits, self.counts, files, description);
        prepare(&self.place.folder.join(MANIFEST), manifest.to_json().as_bytes())
    }

    /// Makes it a store.
    pub(super) fn publish(&self) -> Result<()> {
        put_in_place(&self.place.folder.join(MANIFEST))
    }

    /// Leaves it there.
    pub(super) fn keep(mut self) {
        self.place.kept = true;
    }
}

/// A file that small pieces are written to.
pub(super) struct Buffered {
    sink: Sink,
    waiting: Vec<u8>,
}

impl Buffered {
    /// Bytes that may wait.
    const MOST: usize = 1 << 18;

    fn new(sink: Sink) -> Self {
        Self { sink, waiting: Vec::new() }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.waiting.len() + bytes.len() > Self::MOST {
            self.flush()?;
            if bytes.len() > Self::MOST {
                return self.sink.write(bytes);
            }
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.sink.write(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }
}

/// Copies the tokenizer's files; their names.
fn copy_tokenizer(store: &Store, folder: &Path, step: Step<'_>) -> Result<Vec<String>> {
    let names: Vec<_> = store.manifest.files.keys().filter(|name| !is_data_file(name)).cloned().collect();
    if names.is_empty() {
        return Ok(names);
    }
    let inside = folder.join(TOKENIZER);
    std::fs::create_dir(&inside).map_err(Error::io(&inside))?;
    for name in &names {
        let (path, expected) = (store.folder.join(name), &store.manifest.files[name]);
        let contents = std::fs::read(&path).map_err(Error::io(&path))?;
        let mut sink = Sink::create(folder.join(name))?;
        sink.write(&contents)?;
        sink.sync()?;
        let found = sink.record();
        if found != *expected {
            return Err(store.damaged(name, &different(&expected.sha256, &found.sha256)));
        }
        step(found.bytes)?;
    }
    sync_folder(&inside)?;
    Ok(names)
}
