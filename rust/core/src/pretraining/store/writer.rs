//! Building a store.

use super::folder::{JOURNAL, check_folder, last_offset, remove_leftovers, tokenizer_files};
use super::journal::{Begun, Journal};
use super::manifest::{Description, FileRecord, Manifest, difference};
use super::part::{Packing, Part};
use super::sink::{Bits, Sink, hex, open_locked, replace, sync_folder};
use super::{DOCUMENTS, MANIFEST, SENTENCES, TOKENS, WORD_STARTS};
use crate::threads::{Team, lock};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that may wait to be written.
const WAITING: usize = 1 << 20;

/// Builds a store in a folder, in memory that does not grow with it.
///
/// What was appended waits until there is enough of it, and is written and hashed while the next texts are tokenized. A
/// [`checkpoint`](Self::checkpoint) is where a writer that is opened on the same folder goes on. The folder becomes a store
/// when it is [finished](Self::finish), and not before.
#[derive(Debug)]
pub struct StoreWriter {
    folder: PathBuf,
    begun: Begun,
    pub(super) packing: Arc<Packing>,
    token_file: Mutex<Sink>,
    sentence_file: Mutex<Offsets>,
    document_file: Mutex<Sink>,
    word_start_file: Mutex<WordStarts>,
    tokens: u64,
    sentences: u64,
    documents: u64,
    /// Where the last document that has ended does, in sentences.
    last_end: u64,
    /// What is not written yet, and the ends of its documents.
    waiting: Vec<Part>,
    waiting_documents: Vec<u64>,
    /// Parts to be used again.
    free: Vec<Part>,
    position: Option<String>,
    /// Why it is of no use any more.
    closed: Option<String>,
}

/// `sentences.bin`.
#[derive(Debug)]
struct Offsets {
    sink: Sink,
    /// Tokens before what comes next.
    tokens: u64,
    buffer: Vec<u8>,
}

/// `word_starts.bin`.
#[derive(Debug)]
struct WordStarts {
    sink: Sink,
    bits: Bits,
    buffer: Vec<u8>,
}

impl StoreWriter {
    /// Begins a store in a folder that is new, or empty but for `tokenizer/`; or goes on with one that was not finished,
    /// behind its last checkpoint.
    ///
    /// `starts_word` says of each id whether a word begins with it. `step` is called now and then with the bytes that were
    /// read of what is there already.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Shape` if `starts_word` is not as long as the vocabulary; `Error::Corpus` if the folder has a
    /// finished store or other files, if it was begun with another description, is damaged, or if another writer has it;
    /// what `step` returns.
    pub fn open(
        folder: &Path,
        token_bits: u32,
        starts_word: Vec<bool>,
        description: Description,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        description.tokenizer.check(token_bits).map_err(Error::Value)?;
        let size = description.tokenizer.vocab_size;
        if starts_word.len() != size as usize {
            return Err(Error::Shape(format!(
                "word_starts: expected shape ({size},) like the vocabulary, got ({},)",
                starts_word.len()
            )));
        }
        let table = starts_word.iter().map(|start| u8::from(*start)).collect::<Vec<_>>();
        let word_starts_sha256 = hex(Sha256::new_with_prefix(table));
        let begun = Begun { token_bits, description, word_starts_sha256 };
        let path = folder.join(JOURNAL);
        check_folder(folder)?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let tokens = open_locked(&folder.join(TOKENS))?;
        // Again: only what is there now stays.
        check_folder(folder)?;
        if !path.exists() {
            Journal::new(begun.clone()).write(&path)?;
        }
        let journal = Journal::read(&path)?;
        if let Some(difference) = difference(&journal.begun, &begun) {
            return Err(Error::Corpus(format!(
                "{}: was begun with other arguments: {difference}",
                path.display()
            )));
        }
        Self::resume(folder, journal, tokens, Packing { token_bits, starts_word }, step)
    }

    fn resume(
        folder: &Path,
        journal: Journal,
        tokens: File,
        packing: Packing,
        step: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Self> {
        let path = folder.join(JOURNAL);
        let damaged = |why: &str| Error::Corpus(format!("{}: damaged: {why}", path.display()));
        let mut open = |name: &str, locked: Option<File>| {
            Sink::resume(folder.join(name), &journal.file(name), locked, &mut *step)
        };
        let token_file = open(TOKENS, Some(tokens))?;
        let (mut sentence_file, mut document_file) = (open(SENTENCES, None)?, open(DOCUMENTS, None)?);
        let word_start_file = open(WORD_STARTS, None)?;
        for sink in [&mut sentence_file, &mut document_file] {
            if sink.record().bytes == 0 {
                sink.write(&0u64.to_le_bytes())?;
            }
        }
        remove_leftovers(folder)?;
        sync_folder(folder)?;
        let Journal { begun, tokens, sentences, documents, word_starts, position, .. } = journal;
        let offsets = |count: u64| count.checked_add(1).and_then(|count| count.checked_mul(8));
        for (sink, expected) in [
            (&token_file, tokens.checked_mul((packing.token_bits / 8).into())),
            (&sentence_file, offsets(sentences)),
            (&document_file, offsets(documents)),
            (&word_start_file, Some(tokens / 8)),
        ] {
            if Some(sink.record().bytes) != expected {
                return Err(damaged("counts and lengths of files differ"));
            }
        }
        let last_end = last_offset(document_file.path(), documents)?;
        if last_end > sentences || last_offset(sentence_file.path(), sentences)? != tokens {
            return Err(damaged("counts and offsets differ"));
        }
        let bits = Bits { waiting: word_starts, used: (tokens % 8) as u32 };
        Ok(Self {
            folder: folder.to_owned(),
            begun,
            packing: Arc::new(packing),
            token_file: Mutex::new(token_file),
            sentence_file: Mutex::new(Offsets { sink: sentence_file, tokens, buffer: Vec::new() }),
            document_file: Mutex::new(document_file),
            word_start_file: Mutex::new(WordStarts { sink: word_start_file, bits, buffer: Vec::new() }),
            tokens,
            sentences,
            documents,
            last_end,
            waiting: Vec::new(),
            waiting_documents: Vec::new(),
            free: Vec::new(),
            position,
            closed: None,
        })
    }

    /// How many documents have ended.
    pub fn num_documents(&self) -> u64 {
        self.documents
    }

    /// How many sentences there are.
    pub fn num_sentences(&self) -> u64 {
        self.sentences
    }

    /// How many tokens.
    pub fn num_tokens(&self) -> u64 {
        self.tokens
    }

    /// What the last checkpoint was called.
    pub fn position(&self) -> Option<&str> {
        self.position.as_deref()
    }

    /// Ends the document that was appended to, if it has sentences.
    ///
    /// # Errors
    /// `Error::Corpus` if the writer failed before or is finished.
    pub fn end_document(&mut self) -> Result<()> {
        self.check_open()?;
        self.end_document_at(self.sentences);
        Ok(())
    }

    fn end_document_at(&mut self, sentence: u64) {
        if sentence > self.last_end {
            self.last_end = sentence;
            self.documents += 1;
            self.waiting_documents.push(sentence);
        }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match &self.closed {
            Some(why) => Err(Error::Corpus(format!("{}: {why}", self.folder.display()))),
            None => Ok(()),
        }
    }

    /// What came of something that leaves the writer useless where it fails.
    pub(super) fn done<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            self.closed = Some(format!(
                "writing failed before ({error}): open the folder again, to go on from its last checkpoint"
            ));
        })
    }

    /// Fills parts, as many as `count`, and puts them behind the others. Those before are written meanwhile, if it is time.
    pub(super) fn append(
        &mut self,
        mut team: Option<&mut Team<'_>>,
        count: usize,
        fill: impl Fn(usize, &mut Part) -> Result<()> + Sync,
    ) -> Result<()> {
        let waiting: usize = self.waiting.iter().map(|part| part.tokens.len()).sum();
        let writes = if waiting >= WAITING { Self::FILES } else { 0 };
        let parts: Vec<_> = (0..count).map(|_| Mutex::new(self.free.pop().unwrap_or_default())).collect();
        let failed = Mutex::new(None);
        let this = &*self;
        let work = |task: usize| {
            let done = match task.checked_sub(writes) {
                None => this.write(task),
                Some(part) => fill(part, &mut lock(&parts[part])),
            };
            if let Err(error) = done {
                let mut first = lock(&failed);
                if first.as_ref().is_none_or(|(before, _)| task < *before) {
                    *first = Some((task, error));
                }
            }
        };
        match &mut team {
            Some(team) => team.each(team.size(), writes + count, work),
            None => (0..writes + count).for_each(work),
        }
        if let Some((_, error)) = lock(&failed).take() {
            return Err(error);
        }
        if writes > 0 {
            self.written();
        }
        for part in parts {
            let part = part.into_inner().unwrap_or_else(PoisonError::into_inner);
            for end in &part.document_ends {
                self.end_document_at(self.sentences + u64::from(*end));
            }
            self.sentences += part.sentence_ends.len() as u64;
            self.tokens += part.num_tokens() as u64;
            self.waiting.push(part);
        }
        Ok(())
    }

    /// How many files there are to write.
    const FILES: usize = 4;

    /// Writes what waits to one of the files.
    fn write(&self, file: usize) -> Result<()> {
        match file {
            0 => {
                let mut sink = lock(&self.token_file);
                self.waiting.iter().try_for_each(|part| sink.write(&part.tokens))
            }
            1 => {
                let Offsets { sink, tokens, buffer } = &mut *lock(&self.sentence_file);
                self.waiting.iter().try_for_each(|part| {
                    buffer.clear();
                    let ends = part.sentence_ends.iter().map(|end| (*tokens + u64::from(*end)).to_le_bytes());
                    buffer.extend(ends.flatten());
                    *tokens += part.num_tokens() as u64;
                    sink.write(buffer)
                })
            }
            2 => {
                let WordStarts { sink, bits, buffer } = &mut *lock(&self.word_start_file);
                self.waiting.iter().try_for_each(|part| {
                    buffer.clear();
                    bits.append(&part.word_starts, part.num_tokens() as u64, buffer);
                    sink.write(buffer)
                })
            }
            _ => {
                let ends =
                    self.waiting_documents.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<_>>();
                lock(&self.document_file).write(&ends)
            }
        }
    }

    fn written(&mut self) {
        self.waiting_documents.clear();
        self.free.append(&mut self.waiting);
    }

    fn write_all(&mut self) -> Result<()> {
        (0..Self::FILES).try_for_each(|file| self.write(file))?;
        self.written();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        lock(&self.token_file).sync()?;
        lock(&self.sentence_file).sink.sync()?;
        lock(&self.document_file).sync()?;
        lock(&self.word_start_file).sink.sync()
    }

    fn records(&self) -> BTreeMap<String, FileRecord> {
        let records = [
            (TOKENS, lock(&self.token_file).record()),
            (SENTENCES, lock(&self.sentence_file).sink.record()),
            (DOCUMENTS, lock(&self.document_file).record()),
            (WORD_STARTS, lock(&self.word_start_file).sink.record()),
        ];
        records.map(|(name, record)| (name.to_owned(), record)).into()
    }

    /// Makes what was appended outlast this process: a writer that is opened on the folder later goes on here.
    ///
    /// # Errors
    /// `Error::Io`, which leaves the checkpoint before as it was; `Error::Corpus` if the writer failed before or is
    /// finished.
    pub fn checkpoint(&mut self, position: String) -> Result<()> {
        self.check_open()?;
        let done = self.try_checkpoint(position);
        self.done(done)
    }

    fn try_checkpoint(&mut self, position: String) -> Result<()> {
        self.write_all()?;
        self.sync()?;
        let mut journal = Journal::new(self.begun.clone());
        (journal.tokens, journal.sentences, journal.documents) =
            (self.tokens, self.sentences, self.documents);
        journal.word_starts = lock(&self.word_start_file).bits.waiting;
        journal.files = self.records();
        journal.position = Some(position);
        journal.write(&self.folder.join(JOURNAL))?;
        self.position = journal.position;
        Ok(())
    }

    /// Ends the last document and makes the folder a store, with the files that are in `tokenizer/` by now.
    ///
    /// # Errors
    /// `Error::Corpus` if there is something else than files in `tokenizer/`, which leaves the writer as it was, or if it
    /// failed before or is finished; `Error::Io`.
    pub fn finish(&mut self) -> Result<()> {
        self.check_open()?;
        let tokenizer = tokenizer_files(&self.folder)?;
        self.end_document()?;
        let done = self.try_finish(tokenizer);
        self.done(done)?;
        self.closed = Some("is finished".to_owned());
        Ok(())
    }

    fn try_finish(&mut self, mut tokenizer: BTreeMap<String, FileRecord>) -> Result<()> {
        self.write_all()?;
        {
            let WordStarts { sink, bits, .. } = &mut *lock(&self.word_start_file);
            if bits.used > 0 {
                sink.write(&[std::mem::take(bits).waiting])?;
            }
        }
        self.sync()?;
        let mut files = self.records();
        files.append(&mut tokenizer);
        let counts = [self.tokens, self.sentences, self.documents];
        let manifest = Manifest::new(self.packing.token_bits, counts, files, self.begun.description.clone());
        replace(&self.folder.join(MANIFEST), manifest.to_json().as_bytes())?;
        let journal = self.folder.join(JOURNAL);
        std::fs::remove_file(&journal).map_err(Error::io(&journal))
    }
}
