//! The likeliest outputs of a head for some tokens.

use super::head::{HeadOutputs, Take};
use super::{Batch, Encoder, Outputs};
use crate::memory::Block;
use crate::ops::top_k::top_k;
use crate::threads::{Pool, Shared, thread_limit};
use crate::{Error, Result};

/// The likeliest outputs of some tokens, `k` of each, in falling order.
#[derive(Debug)]
pub struct TopK<'a> {
    /// `(R,)` which tokens, in rising order.
    pub rows: &'a [i64],
    /// How many (at most as many as there are outputs).
    pub k: usize,
    /// `(R, k)` softmax over all outputs.
    pub probabilities: &'a mut [f32],
    /// `(R, k)` which outputs.
    pub places: &'a mut [i32],
}

impl Encoder {
    /// Run the model and find the likeliest outputs of its head.
    ///
    /// # Errors
    /// As [`Encoder::forward_unless`], [`Error::Value`] for a `k` that is none, [`Error::Shape`] for outputs of another
    /// extent.
    pub fn top_k(
        &self,
        batch: &Batch<'_>,
        wanted: TopK<'_>,
        threads: Option<usize>,
        interrupted: impl Fn() -> bool,
    ) -> Result<()> {
        let TopK { rows, k, probabilities, places } = wanted;
        let outputs = self.head().map_or(0, |(_, outputs)| outputs);
        if !(1..=outputs.max(1)).contains(&k) {
            return Err(Error::Value(format!("k: expected 1 to {outputs}, got {k}")));
        }
        if probabilities.len() != rows.len() * k || places.len() != rows.len() * k {
            let (want, got) = (rows.len() * k, probabilities.len().min(places.len()));
            return Err(Error::Shape(format!("top_k: expected {want} values, got {got}")));
        }
        let mut logits = Block::zeroed(rows.len() * outputs)?;
        let out = &mut logits.as_mut_slice()[..rows.len() * outputs];
        let head = Some(HeadOutputs { take: Take::All, rows: Some(rows), out });
        self.forward_unless(batch, Outputs { head, ..Outputs::default() }, threads, interrupted)?;
        let limit = thread_limit(threads)?.unwrap_or(self.threads());
        let (logits, places) = (logits.as_slice(), Shared::new(places));
        Pool::global().for_each_chunk(limit, probabilities, k, |row, probabilities| {
            // SAFETY: each row once.
            let places = unsafe { places.slice(row * k..(row + 1) * k) };
            top_k(self.isa(), &logits[row * outputs..(row + 1) * outputs], probabilities, places);
        });
        Ok(())
    }
}
