//! What is appended to a store: lines of text, or tokens.

use super::pieces::{Documents, Pieces};
use super::writer::StoreWriter;
use crate::lines::Source;
use crate::threads::Pool;
use crate::tokenizer::{LONGEST, Tokenizer};
use crate::{Error, Result};
use std::sync::Arc;

/// Bytes of text below which no other thread is asked.
const ALONE: usize = 16 << 10;

/// Bytes of text between two looks at whether to stop.
const BETWEEN: usize = 16 << 20;

/// Tokens that are packed at once.
const SEQUENCES: usize = 256 << 10;

impl StoreWriter {
    /// Tokenizes texts on up to `threads` threads and appends them: the same store, whatever their number.
    ///
    /// `documents` says how they make documents. With `split`, what would be a sentence is a paragraph of them
    /// ([`sentences`](crate::pretraining::sentences)). `interrupted` is asked now and then.
    ///
    /// # Errors
    /// `Error::Value` if a text has 2^31 - 1 bytes or more: it is named by `source`, and nothing was appended. What
    /// follows leaves the writer useless: `Error::Io`; `Error::TokenId` if the tokenizer is not the store's;
    /// `Error::Interrupted`. `Error::Corpus` if it was before.
    #[allow(clippy::too_many_arguments)]
    pub fn append_lines<T: AsRef<str>>(
        &mut self,
        tokenizer: &Tokenizer,
        texts: &[T],
        source: Source<'_>,
        documents: Documents,
        split: bool,
        threads: usize,
        interrupted: impl FnMut() -> bool,
    ) -> Result<()> {
        self.check_open()?;
        if let Some(index) = texts.iter().position(|text| text.as_ref().len() > LONGEST) {
            let bytes = texts[index].as_ref().len();
            return Err(
                source.error(index, format!("expected less than 2^31 - 1 bytes of text, got {bytes}"))
            );
        }
        if documents == Documents::Line {
            self.end_document()?;
        }
        let mut pieces = Pieces::new(texts, documents, split);
        let done = self.append_pieces(tokenizer, &mut pieces, split, threads, interrupted);
        self.done(done)?;
        if pieces.ended() { self.end_document() } else { Ok(()) }
    }

    fn append_pieces<T: AsRef<str>>(
        &mut self,
        tokenizer: &Tokenizer,
        pieces: &mut Pieces<'_, T>,
        split: bool,
        threads: usize,
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<()> {
        let packing = Arc::clone(&self.packing);
        let (mut round, mut parts) = (Vec::new(), Vec::new());
        let mut team = None;
        let mut since = 0;
        loop {
            let bytes = pieces.round(threads.min(Pool::global().size()), &mut round, &mut parts);
            if bytes == 0 {
                return Ok(());
            }
            if bytes >= ALONE && team.is_none() {
                team = Some(Pool::global().join(threads));
            }
            since += bytes;
            if since >= BETWEEN {
                since = 0;
                let stop = match &mut team {
                    Some(team) => team.pause(threads, &mut interrupted),
                    None => interrupted(),
                };
                if stop {
                    return Err(Error::Interrupted);
                }
            }
            self.append(team.as_mut(), parts.len(), |part, out| {
                out.fill(&round[parts[part].clone()], tokenizer, split, &packing)
            })?;
        }
    }

    /// Appends sequences of tokens that lie end to end: sequence `i` is `cu_seqlens[i]..cu_seqlens[i + 1]` of `ids`, and
    /// a document ends behind it if `document_ends[i]` says so. Sequences without tokens are left out, but their ends
    /// count. `word_starts` says for each token whether it begins a word, in place of the table.
    ///
    /// # Errors
    /// `Error::Shape`, `Error::TokenId` if arrays do not go together or an id is outside of the vocabulary: nothing was
    /// appended. `Error::Io`, which leaves the writer useless; `Error::Corpus` if it was before.
    pub fn append_arrays(
        &mut self,
        ids: &[i32],
        cu_seqlens: &[i64],
        document_ends: &[bool],
        word_starts: Option<&[bool]>,
    ) -> Result<()> {
        self.check_open()?;
        let rises = cu_seqlens.windows(2).all(|pair| pair[0] <= pair[1]);
        if !rises || cu_seqlens.first() != Some(&0) || cu_seqlens.last() != Some(&(ids.len() as i64)) {
            return Err(Error::Shape(format!(
                "cu_seqlens: expected to rise from 0 to {}, the length of input_ids",
                ids.len()
            )));
        }
        if let Some(pair) = cu_seqlens.windows(2).find(|pair| pair[1] - pair[0] > i64::from(i32::MAX)) {
            let got = pair[1] - pair[0];
            return Err(Error::Shape(format!(
                "cu_seqlens: expected less than 2^31 tokens in each, got {got}"
            )));
        }
        let count = cu_seqlens.len() - 1;
        let word_starts_len = word_starts.map_or(ids.len(), <[bool]>::len);
        for (name, expected, got) in
            [("document_ends", count, document_ends.len()), ("word_starts", ids.len(), word_starts_len)]
        {
            if expected != got {
                return Err(Error::Shape(format!("{name}: expected shape ({expected},), got ({got},)")));
            }
        }
        let packing = Arc::clone(&self.packing);
        packing.check(ids)?;
        let mut first = 0;
        while first < count {
            let start = cu_seqlens[first] as usize;
            let after = cu_seqlens[first..].partition_point(|end| (*end as usize) <= start + SEQUENCES);
            let last = (first + after - 1).clamp(first + 1, count);
            let range = start..cu_seqlens[last] as usize;
            let ends = cu_seqlens[first + 1..=last].iter().map(|end| *end as usize - start);
            let ends = ends.zip(document_ends[first..last].iter().copied()).collect::<Vec<_>>();
            let starts = word_starts.map(|starts| &starts[range.clone()]);
            let done = self.append(None, 1, |_, part| {
                part.fill_with(&ids[range.clone()], ends.iter().copied(), starts, &packing)
            });
            self.done(done)?;
            first = last;
        }
        Ok(())
    }
}
