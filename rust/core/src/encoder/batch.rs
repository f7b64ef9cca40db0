//! What goes into a forward pass and what comes out.

use super::head::{HeadOutputs, Take};
use super::pooling::Pooled;
use super::structure::Head;
use crate::config::Config;
use crate::{Error, Result};

/// Sequences one behind the other, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `(T,)` token ids.
    pub input_ids: &'a [i32],
    /// `(B + 1,)` where each sequence begins, and the end of the last: starts at 0, strictly increasing, ends at T.
    pub cu_seqlens: &'a [i64],
    /// `(T,)`, 0 if not given.
    pub token_type_ids: Option<&'a [i32]>,
    /// `(T,)`, counting in each sequence from where the model's positions begin if not given.
    pub position_ids: Option<&'a [i32]>,
}

/// What is wanted, each row-major and of exactly the stated extent.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// `(T, D)`
    pub last_hidden_state: Option<&'a mut [f32]>,
    /// `(B, D)`; only for a model with a pooler.
    pub pooler_output: Option<&'a mut [f32]>,
    /// `(L + 1, T, D)`: the embeddings, then every layer.
    pub hidden_states: Option<&'a mut [f32]>,
    /// `(L, sum of N s^2)`: per layer, sequence and head the probabilities `(s, s)`.
    pub attentions: Option<&'a mut [f32]>,
    /// One vector per sequence.
    pub pooled: Option<Pooled<'a>>,
    /// What the head says; only for a model with one.
    pub head: Option<HeadOutputs<'a>>,
}

impl<'a> Batch<'a> {
    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// First token and number of tokens of a sequence.
    pub fn sequence(&self, i: usize) -> (usize, usize) {
        let (start, end) = (self.cu_seqlens[i] as usize, self.cu_seqlens[i + 1] as usize);
        (start, end - start)
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        (0..self.len()).map(|i| self.sequence(i).1).max().unwrap_or(0)
    }

    /// The positions of a model whose positions do not begin at 0, if none are given: behind the padding token's id, which
    /// is the position of padding tokens and does not count.
    pub fn own_position_ids(&self, config: &Config) -> Option<Vec<i32>> {
        let padding = config.first_position().checked_sub(1)? as i32;
        if self.position_ids.is_some() {
            return None;
        }
        let mut ids = Vec::with_capacity(self.tokens());
        for sequence in 0..self.len() {
            let (start, len) = self.sequence(sequence);
            let mut next = padding;
            ids.extend(self.input_ids[start..start + len].iter().map(|&token| {
                if token == padding {
                    return padding;
                }
                next += 1;
                next
            }));
        }
        Some(ids)
    }

    /// Everything that a forward pass relies on.
    ///
    /// # Errors
    /// [`Error::Shape`] for extents, [`Error::TokenId`] for ids outside their tables, with the first offender.
    pub fn check(&self, config: &Config) -> Result<()> {
        let shape = |message: String| Err(Error::Shape(message));
        let tokens = self.tokens();
        let (Some(&first), Some(&last)) = (self.cu_seqlens.first(), self.cu_seqlens.last()) else {
            return shape("cu_seqlens: expected at least one value, got none".into());
        };
        if first != 0 || last != tokens as i64 {
            return shape(format!("cu_seqlens: expected to run from 0 to {tokens}, got {first} to {last}"));
        }
        for (i, pair) in self.cu_seqlens.windows(2).enumerate() {
            if pair[0] >= pair[1] {
                let (a, b) = (pair[0], pair[1]);
                return shape(format!(
                    "cu_seqlens: expected strictly increasing values, got {a}, {b} at {i}"
                ));
            }
        }
        for (name, ids, rows) in [
            ("input_ids", Some(self.input_ids), config.vocab_size),
            ("token_type_ids", self.token_type_ids, config.type_vocab_size),
            ("position_ids", self.position_ids, config.max_position_embeddings),
        ] {
            let Some(ids) = ids else { continue };
            if ids.len() != tokens {
                return shape(format!("{name}: expected {tokens} values like input_ids, got {}", ids.len()));
            }
            if let Some(at) = ids.iter().position(|id| usize::try_from(*id).map_or(true, |id| id >= rows)) {
                let id = ids[at];
                return Err(Error::TokenId(format!(
                    "{name}: expected ids in 0..{rows}, got {id} at token {at}"
                )));
            }
        }
        let (longest, most) = (self.longest(), config.max_sequence_length());
        if self.position_ids.is_none() && longest > most {
            return shape(format!("input_ids: expected at most {most} tokens in a sequence, got {longest}"));
        }
        Ok(())
    }
}

impl HeadOutputs<'_> {
    /// # Errors
    /// [`Error::Value`] without a head or for what it does not do, [`Error::Shape`] for rows that do not rise or another
    /// extent than this batch gives, [`Error::TokenId`] for a row that is no token.
    fn check(&self, batch: &Batch<'_>, head: Option<&Head>) -> Result<()> {
        let Some(head) = head else {
            return Err(Error::Value("head: this model was opened without one".into()));
        };
        let (task, tokens) = (head.plan.head.task, batch.tokens());
        let of_tokens = task.is_of_tokens();
        if self.take != Take::All && !(of_tokens && self.rows.is_none()) {
            let task = task.name();
            return Err(Error::Value(format!(
                "head: expected one that reads all tokens, this model has {task}"
            )));
        }
        if let Some(rows) = self.rows {
            if !of_tokens {
                let task = task.name();
                return Err(Error::Value(format!(
                    "rows: expected none, {task} has one row for each sequence"
                )));
            }
            if let Some(row) =
                rows.iter().find(|row| usize::try_from(**row).map_or(true, |row| row >= tokens))
            {
                return Err(Error::TokenId(format!("rows: expected tokens in 0..{tokens}, got {row}")));
            }
            if let Some(at) = rows.windows(2).position(|pair| pair[0] >= pair[1]) {
                let (a, b) = (rows[at], rows[at + 1]);
                return Err(Error::Shape(format!(
                    "rows: expected strictly increasing values, got {a}, {b} at {at}"
                )));
            }
        }
        let rows = match self.rows {
            Some(rows) => rows.len(),
            None if of_tokens && self.take == Take::All => tokens,
            None => batch.len(),
        };
        let (want, got) = (rows * head.plan.outputs, self.out.len());
        if got != want {
            return Err(Error::Shape(format!("logits: expected {want} values, got {got}")));
        }
        Ok(())
    }
}

impl Outputs<'_> {
    /// # Errors
    /// [`Error::Shape`] for an output of another extent than this batch gives, and those of the head.
    pub fn check(&self, config: &Config, batch: &Batch<'_>, pooler: bool, head: Option<&Head>) -> Result<()> {
        if let Some(outputs) = &self.head {
            outputs.check(batch, head)?;
        }
        let (t, b, d) = (batch.tokens(), batch.len(), config.hidden_size);
        let squares: usize = (0..b).map(|i| batch.sequence(i).1.pow(2)).sum();
        let layers = config.num_hidden_layers;
        for (name, got, want) in [
            ("last_hidden_state", self.last_hidden_state.as_ref().map(|o| o.len()), t * d),
            ("pooler_output", self.pooler_output.as_ref().map(|o| o.len()), if pooler { b * d } else { 0 }),
            ("hidden_states", self.hidden_states.as_ref().map(|o| o.len()), (layers + 1) * t * d),
            (
                "attentions",
                self.attentions.as_ref().map(|o| o.len()),
                layers * config.num_attention_heads * squares,
            ),
            (
                "out",
                self.pooled.as_ref().map(|p| p.out.len()),
                b * d * self.pooled.as_ref().map_or(0, |p| p.modes.len()),
            ),
        ] {
            if got.is_some_and(|got| got != want) {
                return Err(Error::Shape(format!(
                    "{name}: expected {want} values, got {}",
                    got.unwrap_or(0)
                )));
            }
        }
        Ok(())
    }
}
