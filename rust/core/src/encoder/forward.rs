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

/// The rows that are computed, from the first one on, and how a team shares them.
#[derive(Clone, Copy, Debug)]
struct Rows {
    count: usize,
    split: Split,
    /// Whether there is one row for each sequence, and no longer one for each token.
    one_each: bool,
}

impl Rows {
    fn new(count: usize, one_each: bool, member: &Member<'_>) -> Self {
        Self { count, split: Split::new(count, member), one_each }
    }

    /// Those of a member, where it works by rows.
    fn of(self, member: &Member<'_>) -> Range<usize> {
        member.share(self.count)
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
        let mut rows = Rows::new(self.rows(), false, member);
        let x = views.hidden;
        // SAFETY: here and below, what a member writes between two barriers is its share of the rows, of the panels
        // or of the heads; what it reads was written before the last barrier or by itself.
        unsafe {
            self.embed(member, rows.of(member));
            self.norm(member, rows, &weights.embedding_norm, weights.layers.first().map(|l| &l.qkv));
            self.keep_hidden(0, rows.of(member));
        }
        let heads = config.num_attention_heads * panels_of(config.head_size());
        let qkv = views.wide.slice(0..3 * heads);
        let [q, k, v] = [0, 1, 2].map(|part| qkv.slice(part * heads..(part + 1) * heads));
        let inner = views.wide.slice(0..panels_of(config.intermediate_size));
        for (i, layer) in weights.layers.iter().enumerate() {
            let next = weights.layers.get(i + 1).map(|layer| &layer.qkv);
            // SAFETY: see above.
            unsafe {
                rows.split.meet(member);
                if let (None, Some(wanted)) = (next, self.one_row()) {
                    // Of the last layer only one row of each sequence is wanted: the others give keys and values.
                    self.gemm_part(member, rows, x, [&layer.qkv; 2], heads..3 * heads, qkv, Then::Store);
                    member.barrier();
                    if member.index == 0 {
                        self.gather(wanted, &layer.qkv);
                    }
                    member.barrier();
                    rows = Rows::new(self.group.len(), true, member);
                    let linears = [&layer.qkv, &layer.attention_output];
                    self.gemm_part(member, rows, x, linears, 0..heads, qkv, Then::Store);
                } else {
                    self.gemm(member, rows, x, [&layer.qkv, &layer.attention_output], qkv, Then::Store);
                }
                member.barrier();
                self.attention(member, rows, i, [q, k, v]);
                // All keys and values have been read: `inner` may take their place.
                member.barrier();
                self.convert(member, rows, q, &layer.attention_output);
                self.gemm(member, rows, q, [&layer.attention_output, &layer.intermediate], x, Then::Add);
                rows.split.meet(member);
                self.norm(member, rows, &layer.attention_norm, Some(&layer.intermediate));
                rows.split.meet(member);
                let then = Then::Activate(config.hidden_act);
                self.gemm(member, rows, x, [&layer.intermediate, &layer.output], inner, then);
                rows.split.meet(member);
                self.convert(member, rows, inner, &layer.output);
                self.gemm(member, rows, inner, [&layer.output, next.unwrap_or(&layer.output)], x, Then::Add);
                rows.split.meet(member);
                self.norm(member, rows, &layer.output_norm, next);
                self.keep_hidden(i + 1, rows.of(member));
            }
        }
        member.barrier();
        // SAFETY: see above.
        unsafe {
            self.keep_last(member, rows);
            self.pooler(member, rows);
        }
    }

    /// If of each sequence only one row of the last layer is wanted: by which pooling, after how many tokens.
    fn one_row(&self) -> Option<(Pooling, usize)> {
        let sinks = self.sinks;
        if sinks.last_hidden_state.is_some() || sinks.hidden_states.is_some() || sinks.attentions.is_some() {
            return None;
        }
        let of_pooler = (Pooling::Cls, 0);
        let wanted = match &sinks.pooled {
            Some((_, modes, skip, _)) => {
                let (first, others) = modes.split_first()?;
                first.only_row(*skip, 1)?;
                others.iter().all(|mode| mode == first).then_some((*first, *skip))?
            }
            None => of_pooler,
        };
        (sinks.pooler_output.is_none() || wanted == of_pooler).then_some(wanted)
    }

    /// Bring the wanted rows of the hidden state, and of what was made of them for `next`, to the front.
    ///
    /// # Safety
    /// No other thread touches them.
    unsafe fn gather(&self, (pooling, skip): (Pooling, usize), next: &Linear) {
        for (i, start) in self.starts.iter().enumerate() {
            let len = self.batch.sequence(self.group[i]).1;
            let from = start + pooling.only_row(skip, len).expect("a pooling of one row");
            // SAFETY: the caller's contract. Rows only move forward: nothing is overwritten that is still to come.
            unsafe {
                self.views.hidden.copy_row(from, i);
                if let Some(target) = self.target(next) {
                    target.words.copy_row(from, i);
                }
            }
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
    /// This member's rows of the hidden state and of the operand are its own.
    unsafe fn norm(&self, member: &Member<'_>, rows: Rows, norm: &Norm, next: Option<&Linear>) {
        let (gamma, beta) = (self.weights.get(&norm.gamma), self.weights.get(&norm.beta));
        let (x, eps) = (self.views.hidden, self.config.layer_norm_eps as f32);
        // SAFETY: the caller's contract; this member's own scratch.
        unsafe {
            let norm = LayerNorm::new(x, rows.of(member), self.config.hidden_size, gamma, beta, eps);
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
    unsafe fn convert(&self, member: &Member<'_>, rows: Rows, from: Panels<'_>, next: &Linear) {
        let Some(to) = self.target(next) else { return };
        // SAFETY: the caller's contract; this member's own scratch.
        unsafe {
            let (_, row) = self.views.scratch(member.index, from.panels() * PANEL);
            self.isa.run(Convert::new(from, rows.of(member), to, row));
        }
        rows.split.meet(member);
    }

    /// This member's part of a product, whose left operand is `a` or what was made of it. The second matrix is the one
    /// that is multiplied next.
    ///
    /// # Safety
    /// Nobody writes those rows of the operand or touches that part of `out`.
    unsafe fn gemm(
        &self,
        member: &Member<'_>,
        rows: Rows,
        a: Panels<'_>,
        linears: [&Linear; 2],
        out: Panels<'_>,
        then: Then,
    ) {
        let panels = 0..self.weights.linear(linears[0]).panels();
        // SAFETY: the caller's contract.
        unsafe { self.gemm_part(member, rows, a, linears, panels, out, then) };
    }

    /// The same for some panels of the weight only.
    ///
    /// # Safety
    /// As for [`Pass::gemm`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn gemm_part(
        &self,
        member: &Member<'_>,
        rows: Rows,
        a: Panels<'_>,
        [linear, next]: [&Linear; 2],
        panels: Range<usize>,
        out: Panels<'_>,
        then: Then,
    ) {
        let (weight, next) = (self.weights.linear(linear), self.weights.linear(next));
        let mut next_panel = 0;
        let (rows, panels) = match rows.split {
            Split::Rows => (rows.of(member), panels),
            Split::Panels => {
                next_panel = member.share(next.panels()).start;
                let share = member.share(panels.len());
                (0..rows.count, panels.start + share.start..panels.start + share.end)
            }
        };
        let a = self.target(linear).map_or(a, |target| target.words);
        // SAFETY: the caller's contract.
        let gemm = unsafe { Gemm::new(a, rows, weight, panels, out, then) };
        gemm.before(&next.data[next_panel * next.k * PANEL..]).run(self.isa);
    }

    /// This member's rows of all heads, or its heads of all rows; the output replaces the queries.
    ///
    /// # Safety
    /// Nobody writes keys and values or touches this member's queries.
    unsafe fn attention(&self, member: &Member<'_>, rows: Rows, layer: usize, [q, k, v]: [Panels<'_>; 3]) {
        let (heads, head) = (self.config.num_attention_heads, panels_of(self.config.head_size()));
        let width = panels_of(self.config.hidden_size) * PANEL;
        let (units, mine) = match rows.split {
            Split::Rows => (0..heads * self.group.len(), rows.of(member)),
            Split::Panels => (member.share(heads * self.group.len()), 0..rows.count),
        };
        for unit in units {
            let (h, i) = (unit / self.group.len(), unit % self.group.len());
            let (sequence, start) = (self.group[i], self.starts[i]);
            let len = self.batch.sequence(sequence).1;
            let queries = if rows.one_each { i..i + 1 } else { start..start + len };
            let queries = mine.start.max(queries.start)..mine.end.min(queries.end);
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
    unsafe fn keep_last(&self, member: &Member<'_>, rows: Rows) {
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
    unsafe fn pooler(&self, member: &Member<'_>, rows: Rows) {
        let (Some(sink), Some(pooler)) = (&self.sinks.pooler_output, &self.weights.pooler) else { return };
        let (d, panels) = (self.config.hidden_size, panels_of(self.config.hidden_size));
        let (first, out) = (self.views.wide.slice(0..panels), self.views.wide.slice(panels..2 * panels));
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
