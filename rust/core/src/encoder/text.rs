//! Texts to sentence vectors in one call.

use super::{Batch, Encoder, Outputs, Pooled};
use crate::Result;
use crate::threads::{Pool, thread_limit};
use crate::tokenizer::{EncodeOptions, Ragged, Strategy, Tokenizer};

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
            want_token_type_ids: self.config.type_vocab_size > 0,
            ..EncodeOptions::default()
        };
        let limit = thread_limit(threads)?.unwrap_or(self.threads);
        // One team for both: its threads wake up while this one tokenizes.
        let mut team = Pool::global().join(limit);
        let mut ragged = Ragged::new(&options);
        tokenizer.encode_range_in_team(texts, None, 0..texts.len(), &options, &mut team, &mut ragged)?;
        let batch = Batch {
            input_ids: &ragged.input_ids,
            cu_seqlens: &ragged.cu_seqlens,
            token_type_ids: ragged.token_type_ids.as_deref(),
            position_ids: None,
        };
        let outputs = Outputs { pooled: Some(pooled), ..Outputs::default() };
        self.forward_in(&mut team, &batch, outputs, limit, interrupted)?;
        Ok(ragged.truncated)
    }
}
