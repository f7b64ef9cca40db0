//! Reading a store: sentences and documents by number, in place.

use super::bytes::Bytes;
use super::manifest::{Description, FileRecord, Manifest, TokenizerRecord};
use super::{DOCUMENTS, MANIFEST, SENTENCES, TOKENS, WORD_STARTS};
use crate::{Error, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An open store; see the module's text.
///
/// Nothing is read before it is asked for. Where the files are damaged, ranges are cut off at the ends of what there is, so
/// that a range which a store gives can always be copied, and ids may be outside the vocabulary.
#[derive(Debug)]
pub struct Store {
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) tokens: Bytes,
    pub(super) sentences: Bytes,
    pub(super) documents: Bytes,
    pub(super) word_starts: Bytes,
}

impl Store {
    /// Opens a folder: maps its files, and compares their sizes with the manifest.
    ///
    /// # Errors
    /// `Error::Io` if one is missing; `Error::Corpus` if the manifest is damaged, of another format, or does not fit the
    /// files.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(&folder.join(MANIFEST))?;
        let map = |name: &str| Bytes::map(&folder.join(name), manifest.files[name].bytes);
        let (tokens, sentences, documents, word_starts) =
            (map(TOKENS)?, map(SENTENCES)?, map(DOCUMENTS)?, map(WORD_STARTS)?);
        let store = Self { folder: folder.to_owned(), manifest, tokens, sentences, documents, word_starts };
        store.check_ends()?;
        Ok(store)
    }

    /// A store in memory, for tests: the sentences of each document as ids, the ids that begin a word, and the tokenizer.
    ///
    /// # Errors
    /// `Error::Value` for an id outside of the vocabulary, a sentence without tokens, or a document without sentences.
    pub fn in_memory(
        documents: &[Vec<Vec<u32>>],
        starts_word: impl Fn(u32) -> bool,
        tokenizer: TokenizerRecord,
    ) -> Result<Self> {
        let bits = if tokenizer.vocab_size <= 1 << 16 { 16 } else { 32 };
        tokenizer.check(bits).map_err(Error::Value)?;
        let (mut tokens, mut starts, mut sentence_ends, mut document_ends) =
            (vec![], vec![], vec![0], vec![0]);
        for document in documents {
            for sentence in document {
                if let Some(id) = sentence.iter().find(|id| **id >= tokenizer.vocab_size) {
                    return Err(Error::Value(format!("ids: expected 0..{}, got {id}", tokenizer.vocab_size)));
                }
                if sentence.is_empty() {
                    return Err(Error::Value("sentences: expected tokens in each, got none".into()));
                }
                for (place, &id) in sentence.iter().enumerate() {
                    let place_in_byte = starts.len() % 8;
                    starts.push(u8::from(place == 0 || starts_word(id)) << place_in_byte);
                    tokens.extend_from_slice(&id.to_le_bytes()[..bits as usize / 8]);
                }
                sentence_ends.push(starts.len() as u64);
            }
            if document.is_empty() {
                return Err(Error::Value("documents: expected sentences in each, got none".into()));
            }
            document_ends.push(sentence_ends.len() as u64 - 1);
        }
        let counts =
            [starts.len(), sentence_ends.len() - 1, document_ends.len() - 1].map(|count| count as u64);
        let of = |ends: &[u64]| ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>();
        let word_starts = starts.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte | bit)).collect();
        let contents = [
            (TOKENS, tokens),
            (SENTENCES, of(&sentence_ends)),
            (DOCUMENTS, of(&document_ends)),
            (WORD_STARTS, word_starts),
        ];
        let record = |bytes: &Vec<u8>| FileRecord { bytes: bytes.len() as u64, sha256: String::new() };
        let files = contents.iter().map(|(name, bytes)| ((*name).to_owned(), record(bytes))).collect();
        let [tokens, sentences, documents, word_starts] = contents.map(|(_, bytes)| Bytes::Owned(bytes));
        let manifest = Manifest::new(
            bits,
            counts,
            files,
            Description { tokenizer, options: Default::default(), shard: None, inputs: None },
        );
        Ok(Self { folder: PathBuf::new(), manifest, tokens, sentences, documents, word_starts })
    }

    /// That offsets begin at 0 and end at what there is.
    fn check_ends(&self) -> Result<()> {
        let (sentences, documents) = (self.num_sentences() as usize, self.num_documents() as usize);
        for (name, found, expected) in [
            (SENTENCES, self.sentences.u64(0), 0),
            (SENTENCES, self.sentences.u64(sentences), self.num_tokens()),
            (DOCUMENTS, self.documents.u64(0), 0),
            (DOCUMENTS, self.documents.u64(documents), self.num_sentences()),
        ] {
            if found != expected {
                let path = self.folder.join(name);
                let which = if expected == 0 { "first" } else { "last" };
                return Err(Error::Corpus(format!(
                    "{}: damaged: expected {expected} as the {which} offset, got {found}",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many documents there are.
    #[inline]
    pub fn num_documents(&self) -> u64 {
        self.manifest.documents
    }

    /// How many sentences.
    #[inline]
    pub fn num_sentences(&self) -> u64 {
        self.manifest.sentences
    }

    /// How many tokens.
    #[inline]
    pub fn num_tokens(&self) -> u64 {
        self.manifest.tokens
    }

    /// The sentences of a document.
    ///
    /// # Panics
    /// If there is no document of this number.
    #[inline]
    pub fn sentences_of(&self, document: u64) -> Range<u64> {
        self.range(&self.documents, document, self.num_sentences())
    }

    /// The tokens of a sentence.
    ///
    /// # Panics
    /// If there is no sentence of this number.
    #[inline]
    pub fn tokens_of(&self, sentence: u64) -> Range<u64> {
        self.range(&self.sentences, sentence, self.num_tokens())
    }

    /// All tokens of sentences that follow each other.
    ///
    /// # Panics
    /// If there are no such sentences.
    pub fn tokens_of_all(&self, sentences: &Range<u64>) -> Range<u64> {
        if sentences.is_empty() {
            return 0..0;
        }
        let start = self.tokens_of(sentences.start).start;
        // Damaged offsets may fall.
        start..self.tokens_of(sentences.end - 1).end.max(start)
    }

    #[inline(always)]
    fn range(&self, offsets: &Bytes, index: u64, limit: u64) -> Range<u64> {
        let index = usize::try_from(index).expect("an index in memory");
        let start = offsets.u64(index).min(limit);
        start..offsets.u64(index + 1).clamp(start, limit)
    }

    /// Asks for what [`Self::sentences_of`] reads, if there is such a document: whoever looks for many in a random order
    /// does not wait for each.
    #[inline]
    pub fn prefetch_document(&self, document: u64) {
        let start = (document as usize).saturating_mul(8);
        self.documents.prefetch(start..start.saturating_add(16));
    }

    /// Asks for what [`Self::tokens_of`] reads, of a sentence and some that follow it.
    #[inline]
    pub fn prefetch_sentence(&self, sentence: u64) {
        let start = (sentence as usize).saturating_mul(8);
        self.sentences.prefetch(start..start.saturating_add(128));
    }

    /// Asks for tokens and, with `word_starts`, for where words begin among them.
    #[inline]
    pub fn prefetch_tokens(&self, tokens: Range<u64>, word_starts: bool) {
        let bytes = self.manifest.token_bits as usize / 8;
        let (start, end) = (tokens.start as usize, tokens.end as usize);
        self.tokens.prefetch(start.saturating_mul(bytes)..end.saturating_mul(bytes));
        if word_starts {
            self.word_starts.prefetch(start / 8..end / 8 + 1);
        }
    }

    /// Copies ids.
    ///
    /// # Panics
    /// If there are no such tokens, or `out` has another length.
    #[inline]
    pub fn copy_tokens(&self, tokens: Range<u64>, out: &mut [i32]) {
        let range = tokens.start as usize..tokens.end as usize;
        if self.manifest.token_bits == 16 {
            let ids = &self.tokens.as_chunks::<2>().0[range];
            assert_eq!(ids.len(), out.len());
            out.iter_mut().zip(ids).for_each(|(out, id)| *out = u16::from_le_bytes(*id).into());
        } else {
            let ids = &self.tokens.as_chunks::<4>().0[range];
            assert_eq!(ids.len(), out.len());
            out.iter_mut().zip(ids).for_each(|(out, id)| *out = i32::from_le_bytes(*id));
        }
    }

    /// Copies whether a word begins at each token.
    ///
    /// # Panics
    /// If there are no such tokens, or `out` has another length.
    #[inline]
    pub fn copy_word_starts(&self, tokens: Range<u64>, out: &mut [bool]) {
        assert!(tokens.end <= self.num_tokens() && tokens.end - tokens.start == out.len() as u64);
        let (byte, bit) = (tokens.start as usize / 8, tokens.start as usize % 8);
        let head = (out.len()).min((8 - bit) % 8);
        let (head, rest) = out.split_at_mut(head);
        let bytes = &self.word_starts[byte..];
        head.iter_mut().enumerate().for_each(|(i, out)| *out = bytes[0] >> (bit + i) & 1 != 0);
        let bytes = &bytes[usize::from(bit > 0).min(bytes.len())..];
        let (whole, tail) = rest.as_chunks_mut::<8>();
        for (out, byte) in whole.iter_mut().zip(bytes) {
            // Each byte of the product has the eight bits, of which it keeps one.
            let spread = (u64::from(*byte) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
            *out = spread.to_le_bytes().map(|bit| bit != 0);
        }
        let last = whole.len();
        tail.iter_mut().enumerate().for_each(|(i, out)| *out = bytes[last] >> i & 1 != 0);
    }

    /// Whether a word begins at a token.
    ///
    /// # Panics
    /// If there is no such token.
    #[inline]
    pub fn is_word_start(&self, token: u64) -> bool {
        self.word_starts[token as usize / 8] >> (token % 8) & 1 != 0
    }
}
