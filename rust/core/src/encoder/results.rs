//! Where the results of a pass go, and what is derived from the last hidden state.

use super::block::{Block, Rows};
use super::forward::Pass;
use super::head::HeadSink;
use super::pooling::{Pooling, normalize, pool};
use crate::ops::gemm::{Gemm, Then};
use crate::ops::{Activation, PANEL, panels_of};
use crate::threads::{Member, Shared};

/// Where results go, shared by all threads; sequences are disjoint in each.
#[derive(Debug, Default)]
pub struct Sinks<'a> {
    /// `(T, D)`
    pub last_hidden_state: Option<Shared<'a, f32>>,
    /// `(B, D)`
    pub pooler_output: Option<Shared<'a, f32>>,
    /// `(L + 1, T, D)`
    pub hidden_states: Option<Shared<'a, f32>>,
    /// `(L, sum of N s^2)`, and the sum of `s^2` before each sequence (and in all).
    pub attentions: Option<(Shared<'a, f32>, &'a [usize])>,
    /// `(B, modes x D)`
    pub pooled: Option<(Shared<'a, f32>, &'a [Pooling], usize, bool)>,
    /// What the head says.
    pub head: Option<HeadSink<'a>>,
}

impl Pass<'_> {
    /// A hidden state, if they are asked for.
    ///
    /// # Safety
    /// The block's rows that are `mine` are this member's.
    pub(super) unsafe fn keep_hidden(&self, state: usize, block: &Block<'_>) {
        let Some(sink) = &self.sinks.hidden_states else { return };
        let (d, t) = (self.config.hidden_size, self.batch.tokens());
        for (at, token, _) in self.tokens(block.taken()) {
            let to = (state * t + token) * d;
            // SAFETY: each token once per state; the caller's contract.
            unsafe { self.views.hidden.read_row(at, sink.slice(to..to + d)) };
        }
    }

    /// The last hidden state and what is pooled from it, by sequences.
    ///
    /// # Safety
    /// Nobody writes the hidden state.
    pub(super) unsafe fn keep_last(&self, member: &Member<'_>, rows: Rows) {
        let d = self.config.hidden_size;
        for i in member.share(self.group.len()) {
            let (sequence, start) = (self.group[i], self.starts[i]);
            let (first, len) = self.batch.sequence(sequence);
            if let Some(sink) = &self.sinks.last_hidden_state {
                for row in 0..len {
                    let to = (first + row) * d;
                    // SAFETY: each token once; the caller's contract.
                    unsafe { self.views.hidden.read_row(start + row, sink.slice(to..to + d)) };
                }
            }
            if let Some((sink, modes, skip, unit)) = &self.sinks.pooled {
                let width = modes.len() * d;
                // SAFETY: each sequence once; the caller's contract.
                unsafe {
                    let out = sink.slice(sequence * width..(sequence + 1) * width);
                    let (first, count, skip) = if rows.one_each { (i, 1, 0) } else { (start, len, *skip) };
                    for (mode, out) in modes.iter().zip(out.chunks_exact_mut(d)) {
                        pool(*mode, self.views.hidden, first, count, skip, out);
                    }
                    if *unit {
                        normalize(sink.slice(sequence * width..(sequence + 1) * width));
                    }
                }
            }
        }
    }

    /// `tanh(w x + b)` of each sequence's first token.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    pub(super) unsafe fn pooler(&self, member: &Member<'_>, rows: Rows) {
        let (Some(sink), Some(pooler)) = (&self.sinks.pooler_output, &self.weights.pooler) else { return };
        let (d, panels) = (self.config.hidden_size, panels_of(self.config.hidden_size));
        let (first, out) = (self.views.qkv.slice(0..panels), self.views.qkv.slice(panels..2 * panels));
        let mine = member.share(self.group.len());
        // SAFETY: rows, then panels, then rows again are shared out, with barriers between.
        unsafe {
            let (_, row) = self.views.scratch(member.index, panels * PANEL);
            for i in mine.clone() {
                self.views.hidden.read_row(if rows.one_each { i } else { self.starts[i] }, row);
                first.write_row(i, row);
            }
            member.barrier();
            let weight = self.weights.linear(pooler);
            let (rows, share) = (0..self.group.len(), member.share(weight.panels()));
            Gemm::new(first, rows, weight, share, out, Then::Activate(Activation::Tanh)).run(self.isa);
            member.barrier();
            for i in mine {
                let to = self.group[i] * d;
                out.read_row(i, sink.slice(to..to + d));
            }
        }
    }
}
