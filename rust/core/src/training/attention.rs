//! Attention of ragged batches with its gradient, every head of every sequence on its own.
//!
//! No result depends on what else is in the batch, nor on how many threads there are. (Which weights are dropped depends on
//! the number of the sequence in the batch.)

use super::dropout::{Dropout, check_probability};
use super::element::Element;
use super::head::{Backward, Forward, Place};
use crate::free_list::FreeList;
use crate::memory::Block;
use crate::simd::Isa;
use crate::threads::{Pool, Shared};
use crate::{Error, Result};

/// Memory of calls before.
static FREE: FreeList<Block> = FreeList::new();

/// Values that a call may leave behind: those of two threads and sequences of 512.
const KEPT: usize = 1 << 21;

/// What the attention of a batch is, but for its values.
#[derive(Clone, Copy, Debug)]
pub struct Ragged<'a> {
    /// (B + 1,): sequence `b` has the rows `cu_seqlens[b]..cu_seqlens[b + 1]`.
    pub cu_seqlens: &'a [i64],
    /// How many heads.
    pub heads: usize,
    /// Size of a head.
    pub head: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Probability of dropping an attention weight.
    pub dropout: f32,
    /// Says which ones are dropped.
    pub seed: u64,
}

/// `out = softmax(scale q k^T) v` of each sequence and head.
///
/// Shapes: `q`, `k`, `v`, `out` (T, N, H), `lse` (N, T): the logarithms of the denominators of softmax, to base 2, which
/// [`ragged_attention_backward`] takes.
///
/// Accuracy: as f32 arithmetic, see the tests; bf16 only rounds what is read and written.
///
/// # Errors
/// [`Error::Shape`] for shapes that do not fit one another, or boundaries that do not rise from 0 to T.
/// [`Error::Value`] for a probability outside 0 to 1. So for memory that there is not.
pub fn ragged_attention<E: Element>(
    [q, k, v]: [&[E]; 3],
    ragged: &Ragged<'_>,
    out: &mut [E],
    lse: &mut [f32],
    isa: Isa,
    threads: usize,
) -> Result<()> {
    let tokens = ragged.check(&[q.len(), k.len(), v.len(), out.len()], lse.len())?;
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    ragged.each(Place::forward_scratch, threads, |place, row, scratch| {
        // SAFETY: each head of each sequence is drawn once.
        let lse = unsafe { lse.slice(place.number * tokens + row..place.number * tokens + row + place.rows) };
        isa.run(Forward { place, q, k, v, out, lse, scratch });
    })
}

/// The gradients of `q`, `k` and `v` from `grad`, that of `out`.
///
/// Shapes: as for [`ragged_attention`], whose `lse` it takes.
///
/// # Errors
/// As for [`ragged_attention`].
pub fn ragged_attention_backward<E: Element>(
    grad: &[E],
    [q, k, v]: [&[E]; 3],
    lse: &[f32],
    ragged: &Ragged<'_>,
    grads: [&mut [E]; 3],
    isa: Isa,
    threads: usize,
) -> Result<()> {
    let [a, b, c] = grads.each_ref().map(|grad| grad.len());
    let tokens = ragged.check(&[grad.len(), q.len(), k.len(), v.len(), a, b, c], lse.len())?;
    let grads = grads.map(Shared::new);
    ragged.each(Place::backward_scratch, threads, |place, row, scratch| {
        let lse = &lse[place.number * tokens + row..][..place.rows];
        isa.run(Backward { place, grad, q, k, v, lse, grads, scratch });
    })
}

impl Ragged<'_> {
    /// T, after checking everything.
    fn check(&self, lengths: &[usize], lse: usize) -> Result<usize> {
        let ends = self.cu_seqlens;
        let rises = ends.first() == Some(&0) && ends.windows(2).all(|w| w[0] < w[1]);
        let tokens = ends.last().filter(|_| rises).and_then(|last| usize::try_from(*last).ok());
        let Some(tokens) = tokens else {
            return Err(Error::Shape("cu_seqlens: expected to rise strictly from 0".into()));
        };
        let values = tokens.checked_mul(self.heads).and_then(|n| n.checked_mul(self.head));
        if self.head == 0
            || lengths.iter().any(|length| Some(*length) != values)
            || lse != tokens * self.heads
        {
            return Err(Error::Shape(format!(
                "query: expected {tokens} tokens, {} heads of {} values in all tensors, got {lengths:?} values and \
                 {lse} logarithms",
                self.heads, self.head
            )));
        }
        check_probability(self.dropout)?;
        Ok(tokens)
    }

    /// Call `work` for each head of each sequence, with its first row and with scratch.
    fn each(
        &self,
        scratch: impl Fn(&Place) -> usize,
        threads: usize,
        work: impl Fn(Place, usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        let dropout = Dropout::new(self.dropout, self.seed);
        let place = |sequence: usize, number: usize| {
            let (row, end) = (self.cu_seqlens[sequence] as usize, self.cu_seqlens[sequence + 1] as usize);
            let stride = self.heads * self.head;
            Place {
                sequence,
                number,
                start: row * stride + number * self.head,
                stride,
                rows: end - row,
                head: self.head,
                scale: self.scale * std::f32::consts::LOG2_E,
                dropout,
            }
        };
        let count = (self.cu_seqlens.len() - 1) * self.heads;
        if count == 0 {
            return Ok(());
        }
        let memory = (0..self.cu_seqlens.len() - 1).map(|b| scratch(&place(b, 0))).max().unwrap_or(0);
        let mut team = Pool::global().join(threads.min(count));
        let members = team.size();
        let mut block = match FREE.take().filter(|block| block.as_slice().len() >= memory * members) {
            Some(block) => block,
            None => Block::zeroed(memory * members)?,
        };
        let blocks = Shared::new(block.as_mut_slice());
        let next = std::sync::atomic::AtomicUsize::new(0);
        team.draw(members, |member| {
            // SAFETY: each member its own part.
            let scratch = unsafe { blocks.slice(member.index * memory..(member.index + 1) * memory) };
            while !member.should_leave() {
                let unit = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if unit >= count {
                    break;
                }
                let place = place(unit / self.heads, unit % self.heads);
                work(place, self.cu_seqlens[unit / self.heads] as usize, scratch);
            }
        });
        if block.as_slice().len() <= KEPT {
            FREE.give_back(block);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
