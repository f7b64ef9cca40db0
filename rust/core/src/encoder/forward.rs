//! One forward pass over one group of sequences, as every member of the team runs it.
//!
//! Between two barriers each member writes its own part: rows of a LayerNorm, panels of a product, heads of an
//! attention. A team of one never waits.

use std::ops::Range;

use super::arena::Views;
use super::batch::Batch;
use super::pooling::{Pooling, normalize, pool};
use super::structure::{Linear, Norm};
use super::weights::Weights;
use crate::config::Config;
use crate::ops::attention::Attention;
use crate::ops::convert::{Convert, Target};
use crate::ops::gemm::{Gemm, Then};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::{Activation, Dtype, PANEL, Panels, panels_of};
use crate::simd::Isa;
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
}

/// How a team shares the work between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// Each member takes rows through everything but attention: what it writes stays in its own cache, and it waits
    /// only where attention needs the keys and values of all.
    Rows,
    /// Each member takes columns of every product, all rows: every weight is read by one core only, which is what
    /// counts where there are few rows.
    Panels,
}

impl Split {
    /// Rows of a member from which computing takes longer than reading all weights from memory does.
    const MIN_ROWS: usize = 32;

    fn new(rows: usize, member: &Member<'_>) -> Self {
        if rows >= Self::MIN_ROWS * member.size || member.size == 1 { Self::Rows } else { Self::Panels }
    }

    /// A barrier where one member reads what another has written, which with rows does not happen.
    fn meet(self, member: &Member<'_>) {
        if self == Self::Panels {
            member.barrier();
        }
    }
}

/// A group on its way through the model.
#[derive(Debug)]
pub struct Pass<'a> {
    /// The model's numbers.
    pub config: &'a Config,
    /// Its weights.
    pub weights: &'a Weights,
    /// Which kernels.
    pub isa: Isa,
    /// float32 or bfloat16.
    pub attention_dtype: Dtype,
    /// All sequences of the call.
    pub batch: &'a Batch<'a>,
    /// Those of this group.
    pub group: &'a [usize],
    /// The first row of each in the arena.
    pub starts: &'a [usize],
    /// The memory.
    pub views: Views<'a>,
    /// The results.
    pub sinks: &'a Sinks<'a>,
}

impl Pass<'_> {
    /// The whole model.
    ///
    /// # Safety
    /// All members of one team call it with the same pass, and nobody else uses its arena or its sequences' results.
    pub unsafe fn run(&self, member: &Member<'_>) {
        let Self { config, weights, views, .. } = self;
        let split = Split::new(self.rows(), member);
        let (mine, x) = (member.share(self.rows()), views.hidden);
        // SAFETY: here and below, what a member writes between two barriers is its share of the rows, of the panels
        // or of the heads; what it reads was written before the last barrier or by itself.
        unsafe {
            self.embed(member, mine.clone());
            self.norm(member, mine.clone(), &weights.embedding_norm, weights.layers.first().map(|l| &l.qkv));
            self.keep_hidden(0, mine.clone());
        }
        let heads = config.num_attention_heads * panels_of(config.head_size());
        let (q, k, v) = (0..heads, heads..2 * heads, 2 * heads..3 * heads);
        let qkv = views.wide.slice(0..3 * heads);
        let inner = views.wide.slice(0..panels_of(config.intermediate_size));
        for (i, layer) in weights.layers.iter().enumerate() {
            let next = weights.layers.get(i + 1).map(|layer| &layer.qkv);
            // SAFETY: see above.
            unsafe {
                split.meet(member);
                self.gemm(member, split, x, &layer.qkv, qkv, Then::Store);
                member.barrier();
                self.attention(
                    member,
                    split,
                    i,
                    [q.clone(), k.clone(), v.clone()].map(|part| qkv.slice(part)),
                );
                // All keys and values have been read: `inner` may take their place.
                member.barrier();
                self.convert(member, split, qkv.slice(q.clone()), &layer.attention_output);
                self.gemm(member, split, qkv.slice(q.clone()), &layer.attention_output, x, Then::Add);
                split.meet(member);
                self.norm(member, mine.clone(), &layer.attention_norm, Some(&layer.intermediate));
                split.meet(member);
                self.gemm(member, split, x, &layer.intermediate, inner, Then::Activate(config.hidden_act));
                split.meet(member);
                self.convert(member, split, inner, &layer.output);
                self.gemm(member, split, inner, &layer.output, x, Then::Add);
                split.meet(member);
                self.norm(member, mine.clone(), &layer.output_norm, next);
                self.keep_hidden(i + 1, mine.clone());
            }
        }
        member.barrier();
        // SAFETY: see above.
        unsafe {
            self.keep_last(member);
            self.pooler(member);
        }
    }

    fn rows(&self) -> usize {
        self.group.last().map_or(0, |last| self.starts[self.group.len() - 1] + self.batch.sequence(*last).1)
    }

    /// The rows of the arena that lie in `rows`, with their token's number in the batch, sequence by sequence.
    fn tokens(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
        self.group.iter().zip(self.starts).flat_map(move |(&sequence, &start)| {
            let (first, len) = self.batch.sequence(sequence);
            let (from, to) = (rows.start.max(start), rows.end.min(start + len));
            (from..to.max(from)).map(move |row| (row, first + row - start, row - start))
        })
    }

    /// Word, token type and position embeddings, added in the order of the original.
    ///
    /// # Safety
    /// `rows` of the hidden state are this member's.
    unsafe fn embed(&self, member: &Member<'_>, rows: Range<usize>) {
        let d = self.config.hidden_size;
        let width = panels_of(d) * PANEL;
        // SAFETY: this member's own scratch.
        let (_, row) = unsafe { self.views.scratch(member.index, width) };
        row.fill(0.0);
        let (positions, types) =
            (self.weights.get(&self.weights.positions), self.weights.get(&self.weights.token_types));
        for (at, token, position) in self.tokens(rows) {
            let id = |ids: Option<&[i32]>, default: usize| ids.map_or(default, |ids| ids[token] as usize);
            let token_type = &types[id(self.batch.token_type_ids, 0) * width..][..width];
            let position = &positions[id(self.batch.position_ids, position) * width..][..width];
            self.weights.words.row_to_f32(self.batch.input_ids[token] as usize, &mut row[..d]);
            for ((x, token_type), position) in row.iter_mut().zip(token_type).zip(position) {
                *x = (*x + token_type) + position;
            }
            // SAFETY: the caller's contract.
            unsafe { self.views.hidden.write_row(at, row) };
        }
    }

    /// Normalise the hidden state, and convert it for the product that reads it next.
    ///
    /// # Safety
    /// `rows` of the hidden state and of the operand are this member's.
    unsafe fn norm(&self, member: &Member<'_>, rows: Range<usize>, norm: &Norm, next: Option<&Linear>) {
        let (gamma, beta) = (self.weights.get(&norm.gamma), self.weights.get(&norm.beta));
        let (x, eps) = (self.views.hidden, self.config.layer_norm_eps as f32);
        // SAFETY: the caller's contract; this member's own scratch.
        unsafe {
            let norm = LayerNorm::new(x, rows, self.config.hidden_size, gamma, beta, eps);
            self.isa.run(match next.and_then(|linear| self.target(linear)) {
                Some(to) => norm.then(to, self.views.scratch(member.index, x.panels() * PANEL).1),
                None => norm,
            });
        }
    }

    /// Where the left operand of a product goes that does not read f32.
    fn target(&self, linear: &Linear) -> Option<Target<'_>> {
        let words = self.views.operand;
        (linear.dtype != Dtype::Float32).then_some(Target {
            words,
            dtype: linear.dtype,
            rotation: linear.rotation,
        })
    }

    /// Convert this member's rows for the product that reads them next, and wait where others read them.
    ///
    /// # Safety
    /// Those rows of the operand are this member's, and nobody writes those of `from`.
    unsafe fn convert(&self, member: &Member<'_>, split: Split, from: Panels<'_>, next: &Linear) {
        let Some(to) = self.target(next) else { return };
        // SAFETY: the caller's contract; this member's own scratch.
        unsafe {
            let (_, row) = self.views.scratch(member.index, from.panels() * PANEL);
            self.isa.run(Convert::new(from, member.share(self.rows()), to, row));
        }
        split.meet(member);
    }

    /// This member's part of a product, whose left operand is `a` or what was made of it.
    ///
    /// # Safety
    /// Nobody writes those rows of the operand or touches that part of `out`.
    unsafe fn gemm(
        &self,
        member: &Member<'_>,
        split: Split,
        a: Panels<'_>,
        linear: &Linear,
        out: Panels<'_>,
        then: Then,
    ) {
        let weight = self.weights.linear(linear);
        let (rows, panels) = match split {
            Split::Rows => (member.share(self.rows()), 0..weight.panels()),
            Split::Panels => (0..self.rows(), member.share(weight.panels())),
        };
        let a = self.target(linear).map_or(a, |target| target.words);
        // SAFETY: the caller's contract.
        unsafe { Gemm::new(a, rows, weight, panels, out, then) }.run(self.isa);
    }

    /// This member's rows of all heads, or its heads of all rows; the output replaces the queries.
    ///
    /// # Safety
    /// Nobody writes keys and values or touches this member's queries.
    unsafe fn attention(&self, member: &Member<'_>, split: Split, layer: usize, [q, k, v]: [Panels<'_>; 3]) {
        let (heads, head) = (self.config.num_attention_heads, panels_of(self.config.head_size()));
        let width = panels_of(self.config.hidden_size) * PANEL;
        let (units, rows) = match split {
            Split::Rows => (0..heads * self.group.len(), member.share(self.rows())),
            Split::Panels => (member.share(heads * self.group.len()), 0..self.rows()),
        };
        for unit in units {
            let (h, i) = (unit / self.group.len(), unit % self.group.len());
            let (sequence, start) = (self.group[i], self.starts[i]);
            let len = self.batch.sequence(sequence).1;
            let queries = rows.start.max(start)..rows.end.min(start + len);
            if queries.is_empty() {
                continue;
            }
            let panels = h * head..(h + 1) * head;
            let [q, k, v] = [q, k, v].map(|part| part.slice(panels.clone()));
            let probabilities = self.sinks.attentions.as_ref().map(|(sink, before)| {
                let all = before[before.len() - 1];
                let first =
                    heads * (layer * all + before[sequence]) + h * len * len + (queries.start - start) * len;
                // SAFETY: each query once per layer, sequence and head.
                unsafe { sink.slice(first..first + queries.len() * len) }
            });
            // SAFETY: this member's own scratch; the caller's contract; the arena has slack behind the keys.
            unsafe {
                let (scratch, _) = self.views.scratch(member.index, width);
                let keys = start..start + len;
                Attention::new(q, k, v, q, queries, keys, self.attention_dtype, scratch, probabilities)
                    .run(self.isa);
            }
        }
    }

    /// # Safety
    /// `rows` of the hidden state are this member's.
    unsafe fn keep_hidden(&self, state: usize, rows: Range<usize>) {
        let Some(sink) = &self.sinks.hidden_states else { return };
        let (d, t) = (self.config.hidden_size, self.batch.tokens());
        for (at, token, _) in self.tokens(rows) {
            let to = (state * t + token) * d;
            // SAFETY: each token once per state; the caller's contract.
            unsafe { self.views.hidden.read_row(at, sink.slice(to..to + d)) };
        }
    }

    /// The last hidden state and what is pooled from it, by sequences.
    ///
    /// # Safety
    /// Nobody writes the hidden state.
    unsafe fn keep_last(&self, member: &Member<'_>) {
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
                    for (mode, out) in modes.iter().zip(out.chunks_exact_mut(d)) {
                        pool(*mode, self.views.hidden, start, len, *skip, out);
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
    unsafe fn pooler(&self, member: &Member<'_>) {
        let (Some(sink), Some(pooler)) = (&self.sinks.pooler_output, &self.weights.pooler) else { return };
        let (d, panels) = (self.config.hidden_size, panels_of(self.config.hidden_size));
        let (first, out) = (self.views.wide.slice(0..panels), self.views.wide.slice(panels..2 * panels));
        let mine = member.share(self.group.len());
        // SAFETY: rows, then panels, then rows again are shared out, with barriers between.
        unsafe {
            let (_, row) = self.views.scratch(member.index, panels * PANEL);
            for i in mine.clone() {
                self.views.hidden.read_row(self.starts[i], row);
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
