//! Texts to sentence vectors in one call.

use std::sync::{Mutex, PoisonError};

use super::{Batch, Encoder, Outputs, Pooled};
use crate::Result;
use crate::threads::Pool;
use crate::tokenizer::{EncodeOptions, Ragged, Scratch, Strategy, Tokenizer};

/// Bytes of text for each thread, below which handing out the work costs more than it saves.
const BYTES_PER_THREAD: usize = 4096;

impl Encoder {
    /// Tokenize, run and pool. Texts longer than `max_length` tokens are cut; returns how many were.
    ///
    /// # Errors
    /// As the tokenizer and [`Encoder::forward_unless`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        texts: &[&str],
        max_length: usize,
        pooled: Pooled<'_>,
        threads: Option<usize>,
        interrupted: impl Fn() -> bool,
    ) -> Result<usize> {
        let options = EncodeOptions {
            truncation: Strategy::LongestFirst,
            max_length: Some(max_length),
            truncation_side: tokenizer.settings().truncation_side,
            want_token_type_ids: true,
            ..EncodeOptions::default()
        };
        let limit = super::thread_limit(threads)?.unwrap_or(self.threads);
        let ragged = tokenize(tokenizer, texts, &options, limit)?;
        let batch = Batch {
            input_ids: &ragged.input_ids,
            cu_seqlens: &ragged.cu_seqlens,
            token_type_ids: ragged.token_type_ids.as_deref(),
            position_ids: None,
        };
        let outputs = Outputs { pooled: Some(pooled), ..Outputs::default() };
        self.forward_unless(&batch, outputs, threads, interrupted)?;
        Ok(ragged.truncated)
    }
}

/// [`Tokenizer::encode_batch`] on up to `limit` threads.
///
/// # Errors
/// The first error in the order of the texts.
pub fn tokenize(
    tokenizer: &Tokenizer,
    texts: &[&str],
    options: &EncodeOptions,
    limit: usize,
) -> Result<Ragged> {
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let limit = limit.min(bytes / BYTES_PER_THREAD).min(texts.len());
    if limit < 2 {
        return tokenizer.encode_batch(texts, None, options);
    }
    let parts: Vec<_> = (0..limit).map(|_| Mutex::new(None)).collect();
    Pool::global().run(limit, |member| {
        for part in member.share(limit) {
            let range = texts.len() * part / limit..texts.len() * (part + 1) / limit;
            let mut out = Ragged::new(options);
            let done = tokenizer.encode_range(texts, None, range, options, &mut Scratch::default(), &mut out);
            *parts[part].lock().unwrap_or_else(PoisonError::into_inner) = Some(done.map(|()| out));
        }
    });
    let mut all = Ragged::new(options);
    for part in parts {
        let part = part.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.append(&part.expect("every part was tokenized")?);
    }
    Ok(all)
}
