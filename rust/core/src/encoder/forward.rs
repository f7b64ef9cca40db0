//! One forward pass over one group of sequences, as every member of the team runs it.
//!
//! Between two barriers each member writes its own part: rows of a LayerNorm, panels of a product, heads of an
//! attention. A team of one never waits.

use std::ops::Range;

use super::arena::Views;
use super::batch::Batch;
use super::block::{Block, Rows, Split};
use super::pooling::Pooling;
use super::results::Sinks;
use super::structure::{Layer, Linear, Norm};
use super::weights::Weights;
use crate::config::Config;
use crate::ops::attention::Attention;
use crate::ops::convert::Convert;
use crate::ops::gemm::{Gemm, Then};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::{Dtype, PANEL, Panels, panels_of};
use crate::simd::Isa;
use crate::threads::Member;

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
        let layers = self.weights.layers();
        let mut rows = Rows::new(self.rows(), false, member);
        for block in rows.blocks(self.views, member) {
            // SAFETY: here and below, what a member writes between two barriers is its share of the rows, of the
            // panels or of the heads; what it reads was written before the last barrier or by itself.
            unsafe {
                self.embeddings(member, &block);
                self.keep_hidden(0, &block);
                self.queries_keys_values(member, &block, 0);
            }
        }
        for layer in 0..layers {
            // SAFETY: see above.
            unsafe {
                if let (true, Some(wanted)) = (layer + 1 == layers, self.one_row()) {
                    // Of the last layer only one row of each sequence is wanted: the others gave keys and values.
                    member.barrier();
                    if member.index == 0 {
                        self.gather(wanted);
                    }
                    member.barrier();
                    rows = Rows::new(self.group.len(), true, member);
                    for block in rows.blocks(self.views, member) {
                        self.queries(member, &block, layer);
                    }
                }
                if rows.split == Split::Rows {
                    // Keys and values of all rows; the heads of a member that works by columns are its own.
                    member.barrier();
                }
                self.attention(member, rows, layer);
                member.barrier();
                for block in rows.blocks(self.views, member) {
                    self.feed_forward(member, &block, layer);
                }
            }
        }
        member.barrier();
        // SAFETY: see above.
        unsafe {
            self.keep_last(member, rows);
            self.pooler(member, rows);
            if self.sinks.pooler_output.is_some() && self.sinks.head.is_some() {
                // Both use the memory of queries and keys.
                member.barrier();
            }
            self.head(member, rows);
        }
    }

    /// What happens between the embeddings or the layer before and the attention of `layer`: its queries, keys and
    /// values, or, where only one row of each sequence goes on, keys and values.
    ///
    /// # Safety
    /// As for [`Pass::run`]; the block's rows are normalized.
    unsafe fn queries_keys_values(&self, member: &Member<'_>, block: &Block<'_>, layer: usize) {
        let last = layer + 1 == self.weights.layers();
        let parts = if last && self.one_row().is_some() { 1..3 } else { 0..3 };
        // SAFETY: the caller's contract.
        unsafe { self.parts(member, block, layer, parts) };
    }

    /// The queries of the one row of each sequence that goes on.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn queries(&self, member: &Member<'_>, block: &Block<'_>, layer: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            if let Some(Layer { qkv, .. }) = self.weights.layer(layer) {
                self.convert(member, block, block.x, qkv);
            }
            self.parts(member, block, layer, 0..1);
        }
    }

    /// Some of queries, keys and values. Who works by columns takes the heads whose attention it computes.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn parts(&self, member: &Member<'_>, block: &Block<'_>, layer: usize, parts: Range<usize>) {
        let Some(Layer { qkv, attention_output, .. }) = self.weights.layer(layer) else { return };
        block.split.meet(member);
        let heads = self.config.num_attention_heads * self.head_panels();
        let own = block.split.own_panels(member, heads, self.head_panels());
        let next = self.first_words(member, block, attention_output);
        if own == (0..heads) {
            let all = parts.start * heads..parts.end * heads;
            // SAFETY: the caller's contract.
            return unsafe { self.multiply(block, block.x, qkv, all, next, block.qkv, Then::Store) };
        }
        for part in parts.clone() {
            let panels = part * heads + own.start..part * heads + own.end;
            let next = if part + 1 == parts.end { next } else { self.words(qkv, panels.start + heads) };
            // SAFETY: the caller's contract.
            unsafe { self.multiply(block, block.x, qkv, panels, next, block.qkv, Then::Store) };
        }
    }

    /// From the output of the attention of `layer` to the queries, keys and values of the next one.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn feed_forward(&self, member: &Member<'_>, block: &Block<'_>, i: usize) {
        let Some(layer) = self.weights.layer(i) else { return };
        let (split, next) = (block.split, self.weights.layer(i + 1).map(|layer| &layer.qkv));
        let hidden = self.config.hidden_size;
        let heads = self.config.num_attention_heads * self.head_panels();
        let q = block.qkv.slice(0..heads);
        // SAFETY: the caller's contract.
        unsafe {
            self.convert(member, block, q, &layer.attention_output);
            let then_reads = |linear| self.first_words(member, block, linear);
            self.gemm(
                member,
                block,
                q,
                &layer.attention_output,
                then_reads(&layer.intermediate),
                block.x,
                Then::Add,
            );
            split.meet(member);
            self.norm(member, block, block.x, hidden, &layer.attention_norm, Some(&layer.intermediate));
            split.meet(member);
            let then = Then::Activate(self.config.hidden_act);
            self.gemm(
                member,
                block,
                block.x,
                &layer.intermediate,
                then_reads(&layer.output),
                block.inner,
                then,
            );
            split.meet(member);
            self.convert(member, block, block.inner, &layer.output);
            let own_queries = split.own_panels(member, heads, self.head_panels()).start;
            let qkv = next.map_or(&[][..], |qkv| self.words(qkv, own_queries));
            self.gemm(member, block, block.inner, &layer.output, qkv, block.x, Then::Add);
            split.meet(member);
            self.norm(member, block, block.x, hidden, &layer.output_norm, next);
            self.keep_hidden(i + 1, block);
            self.queries_keys_values(member, block, i + 1);
        }
    }

    /// If of each sequence only one row of the last layer is wanted: by which pooling, after how many tokens.
    fn one_row(&self) -> Option<(Pooling, usize)> {
        let sinks = self.sinks;
        if sinks.last_hidden_state.is_some() || sinks.hidden_states.is_some() || sinks.attentions.is_some() {
            return None;
        }
        let of_first = (Pooling::Cls, 0);
        let wanted = match &sinks.pooled {
            Some((_, modes, skip, _)) => {
                let (first, others) = modes.split_first()?;
                first.only_row(*skip, 1)?;
                others.iter().all(|mode| mode == first).then_some((*first, *skip))?
            }
            None => of_first,
        };
        if let (Some(_), Some(head)) = (&sinks.head, &self.weights.head) {
            let reads_first =
                !head.plan.head.task.is_of_tokens() && self.config.classifier_pooling == Pooling::Cls;
            reads_first.then_some(())?;
        }
        let reads_first = sinks.pooler_output.is_some() || sinks.head.is_some();
        (!reads_first || wanted == of_first).then_some(wanted)
    }

    /// Bring the wanted rows of the hidden state to the front.
    ///
    /// # Safety
    /// No other thread touches them.
    unsafe fn gather(&self, (pooling, skip): (Pooling, usize)) {
        for (i, start) in self.starts.iter().enumerate() {
            let len = self.batch.sequence(self.group[i]).1;
            let from = start + pooling.only_row(skip, len).expect("a pooling of one row");
            // SAFETY: the caller's contract. Rows only move forward: nothing is overwritten that is still to come.
            unsafe { self.views.hidden.copy_row(from, i) };
        }
    }

    fn rows(&self) -> usize {
        self.group.last().map_or(0, |last| self.starts[self.group.len() - 1] + self.batch.sequence(*last).1)
    }

    /// The rows of the arena that lie in `rows`, with their token's number in the batch, sequence by sequence.
    pub(super) fn tokens(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, usize, usize)> {
        self.group.iter().zip(self.starts).flat_map(move |(&sequence, &start)| {
            let (first, len) = self.batch.sequence(sequence);
            let (from, to) = (rows.start.max(start), rows.end.min(start + len));
            (from..to.max(from)).map(move |row| (row, first + row - start, row - start))
        })
    }

    /// From ids to the hidden state before the first layer.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn embeddings(&self, member: &Member<'_>, block: &Block<'_>) {
        let first = self.weights.layer(0).map(|layer| &layer.qkv);
        let (norm, width) = (&self.weights.embedding_norm, self.config.embedding_size);
        let Some(widening) = &self.weights.widening else {
            // SAFETY: the caller's contract.
            return unsafe {
                self.embed(member, block, block.x);
                self.norm(member, block, block.x, width, norm, first);
            };
        };
        // They are narrow yet: where queries, keys and values come later there is room.
        let narrow = block.qkv.slice(0..panels_of(width));
        // SAFETY: the caller's contract.
        unsafe {
            self.embed(member, block, narrow);
            self.norm(member, block, narrow, width, norm, None);
            block.split.meet(member);
            self.gemm(member, block, narrow, widening, &[], block.x, Then::Store);
            block.split.meet(member);
            if let Some(first) = first {
                self.convert(member, block, block.x, first);
            }
        }
    }

    /// Word, token type and position embeddings, added in the order of the original, to the block's rows of `out`.
    ///
    /// # Safety
    /// The block's rows that are `mine` are this member's.
    unsafe fn embed(&self, member: &Member<'_>, block: &Block<'_>, out: Panels<'_>) {
        let e = self.config.embedding_size;
        let width = panels_of(e) * PANEL;
        // SAFETY: this member's own scratch.
        let (_, row) = unsafe { self.views.scratch(member.index, width) };
        row.fill(0.0);
        let (positions, types) = (
            self.weights.get(&self.weights.positions),
            self.weights.token_types.as_ref().map(|types| self.weights.get(types)),
        );
        for (at, token, position) in self.tokens(block.taken()) {
            let id = |ids: Option<&[i32]>, default: usize| ids.map_or(default, |ids| ids[token] as usize);
            let position = &positions[id(self.batch.position_ids, position) * width..][..width];
            self.weights.words.row_to_f32(self.batch.input_ids[token] as usize, &mut row[..e]);
            if let Some(types) = types {
                let token_type = &types[id(self.batch.token_type_ids, 0) * width..][..width];
                row.iter_mut().zip(token_type).for_each(|(x, token_type)| *x += token_type);
            }
            row.iter_mut().zip(position).for_each(|(x, position)| *x += position);
            // SAFETY: the caller's contract.
            unsafe { out.write_row(at - block.rows.start, row) };
        }
    }

    /// Normalise rows of this width, the hidden state or what becomes it, and convert them for the product that reads
    /// them next.
    ///
    /// # Safety
    /// The block's rows that are `mine` are this member's.
    unsafe fn norm(
        &self,
        member: &Member<'_>,
        block: &Block<'_>,
        x: Panels<'_>,
        width: usize,
        norm: &Norm,
        next: Option<&Linear>,
    ) {
        let (gamma, beta) = (self.weights.get(&norm.gamma), self.weights.get(&norm.beta));
        let eps = self.config.layer_norm_eps as f32;
        // SAFETY: the caller's contract; this member's own scratch.
        unsafe {
            let norm = LayerNorm::new(x, block.mine.clone(), width, gamma, beta, eps);
            self.isa.run(match next.and_then(|linear| block.target(linear)) {
                Some(to) => norm.then(to, self.views.scratch(member.index, x.panels() * PANEL).1),
                None => norm,
            });
        }
    }

    /// Convert this member's rows for the product that reads them next, and wait where others read them.
    ///
    /// # Safety
    /// As for [`Pass::norm`]; nobody writes those rows of `from`.
    unsafe fn convert(&self, member: &Member<'_>, block: &Block<'_>, from: Panels<'_>, next: &Linear) {
        let Some(to) = block.target(next) else { return };
        // SAFETY: the caller's contract; this member's own scratch.
        unsafe {
            let (_, row) = self.views.scratch(member.index, from.panels() * PANEL);
            self.isa.run(Convert::new(from, block.mine.clone(), to, row));
        }
        block.split.meet(member);
    }

    /// This member's part of a product of the block's rows; `next` is what it reads after the matrix.
    ///
    /// # Safety
    /// Nobody writes those rows of the operand or touches that part of `out`.
    #[allow(clippy::too_many_arguments)]
    unsafe fn gemm(
        &self,
        member: &Member<'_>,
        block: &Block<'_>,
        a: Panels<'_>,
        linear: &Linear,
        next: &[f32],
        out: Panels<'_>,
        then: Then,
    ) {
        // SAFETY: the caller's contract.
        unsafe { self.multiply(block, a, linear, self.own_share(member, block, linear), next, out, then) };
    }

    /// The product of the block's rows, of `a` or what was made of it, with some panels of a matrix.
    ///
    /// # Safety
    /// As for [`Pass::gemm`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply(
        &self,
        block: &Block<'_>,
        a: Panels<'_>,
        linear: &Linear,
        panels: Range<usize>,
        next: &[f32],
        out: Panels<'_>,
        then: Then,
    ) {
        let (weight, rows) = (self.weights.linear(linear), 0..block.rows.len());
        let a = block.target(linear).map_or(a, |target| target.words);
        // SAFETY: the caller's contract.
        let gemm = unsafe { Gemm::new(a, rows, weight, panels, out, then) };
        gemm.before(next).run(self.isa);
    }

    /// Which panels of a matrix a member multiplies.
    fn own_share(&self, member: &Member<'_>, block: &Block<'_>, linear: &Linear) -> Range<usize> {
        block.split.own_panels(member, self.weights.linear(linear).panels(), 1)
    }

    /// What a member reads of a matrix first.
    fn first_words(&self, member: &Member<'_>, block: &Block<'_>, linear: &Linear) -> &[f32] {
        self.words(linear, self.own_share(member, block, linear).start)
    }

    /// The words of a matrix from a panel on.
    fn words(&self, linear: &Linear, panel: usize) -> &[f32] {
        &self.weights.linear(linear).data[panel * linear.k * PANEL..]
    }

    /// Panels of a head.
    fn head_panels(&self) -> usize {
        panels_of(self.config.head_size())
    }

    /// This member's rows of all heads, or its heads of all rows; the output replaces the queries.
    ///
    /// # Safety
    /// Nobody writes keys and values or touches this member's queries.
    unsafe fn attention(&self, member: &Member<'_>, rows: Rows, layer: usize) {
        let (heads, head) = (self.config.num_attention_heads, self.head_panels());
        let [q, k, v] =
            [0, 1, 2].map(|part| self.views.qkv.slice(part * heads * head..(part + 1) * heads * head));
        let width = panels_of(self.config.hidden_size) * PANEL;
        let (units, mine) = match rows.split {
            Split::Rows => (0..heads * self.group.len(), rows.of(member)),
            Split::Panels => {
                let share = member.share(heads);
                (share.start * self.group.len()..share.end * self.group.len(), 0..rows.count)
            }
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
            // SAFETY: this member's own scratch; the caller's contract; the arena has room behind the keys
            // of each panel.
            unsafe {
                let (scratch, _) = self.views.scratch(member.index, width);
                let keys = start..start + len;
                Attention::new(q, k, v, q, queries, keys, self.attention_dtype, scratch, probabilities)
                    .run(self.isa);
            }
        }
    }
}
