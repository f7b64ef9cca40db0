//! What a head makes of the last hidden state: of each sequence, or of each token that is wanted.
//!
//! Its linear map may be the whole vocabulary's, so a row of outputs goes from the product to its place, or into a
//! maximum or a sum over its sequence, a few panels at a time.

use super::arena::BLOCK_ROWS;
use super::block::{Rows, Split};
use super::forward::Pass;
use super::pooling::pool;
use super::structure::Head;
use crate::ops::convert::{Convert, Target};
use crate::ops::gemm::{Gemm, Then};
use crate::ops::layer_norm::LayerNorm;
use crate::ops::tile::tiles;
use crate::ops::{Dtype, PANEL, Panels, panels_of};
use crate::threads::{Member, Shared};
use crate::{Error, Result};

/// Panels of a linear map that are multiplied at once, at most: their weights stay in the second-level cache.
const OUTPUT_PANELS: usize = 16;

/// What becomes of the outputs of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Each is kept.
    All,
    /// `ln(1 + max(x, 0))`, and of that the greatest of a sequence.
    Greatest,
    /// The sum of that over a sequence.
    Sum,
}

impl Take {
    /// The way of a name: how SPLADE pools.
    ///
    /// # Errors
    /// [`Error::Value`] listing the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "max" => Ok(Self::Greatest),
            "sum" => Ok(Self::Sum),
            _ => Err(Error::Value(format!("strategy: expected one of max, sum, got {name:?}"))),
        }
    }
}

/// The outputs of a head that are wanted (K of them in a row).
#[derive(Debug)]
pub struct HeadOutputs<'a> {
    /// What becomes of them.
    pub take: Take,
    /// `(R,)` the only tokens that are wanted, in rising order; only for heads of tokens.
    pub rows: Option<&'a [i64]>,
    /// `(B, K)` for heads of sequences and whatever is taken over a sequence, else `(T, K)` or `(R, K)`.
    pub out: &'a mut [f32],
}

/// The same, shared by all threads.
#[derive(Debug)]
pub struct HeadSink<'a> {
    take: Take,
    rows: Option<&'a [i64]>,
    out: Shared<'a, f32>,
}

impl<'a> HeadOutputs<'a> {
    /// For all threads.
    pub fn shared(self) -> HeadSink<'a> {
        HeadSink { take: self.take, rows: self.rows, out: Shared::new(self.out) }
    }
}

/// A row that a head reads, and the row that it writes.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: usize,
    to: usize,
}

impl Pass<'_> {
    /// The rows of this group that the head reads, and where each one's outputs go.
    fn ways(&self, head: &Head, sink: &HeadSink<'_>, rows: Rows) -> Vec<Way> {
        if !head.plan.head.task.is_of_tokens() {
            let sequences = self.group.iter().zip(self.starts).enumerate();
            let way = |(i, (&to, &start))| Way { from: if rows.one_each { i } else { start }, to };
            return sequences.map(way).collect();
        }
        let mut ways = Vec::new();
        for (&sequence, &start) in self.group.iter().zip(self.starts) {
            let (first, len) = self.batch.sequence(sequence);
            let to = |token: usize| if sink.take == Take::All { token } else { sequence };
            match sink.rows {
                None => ways.extend((0..len).map(|i| Way { from: start + i, to: to(first + i) })),
                Some(wanted) => {
                    let before = |token: usize| wanted.partition_point(|row| *row < token as i64);
                    let own = before(first)..before(first + len);
                    ways.extend(own.map(|to| Way { from: start + wanted[to] as usize - first, to }));
                }
            }
        }
        ways
    }

    /// The outputs of the head.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    pub(super) unsafe fn head(&self, member: &Member<'_>, rows: Rows) {
        let (Some(sink), Some(head)) = (&self.sinks.head, &self.weights.head) else { return };
        let ways = self.ways(head, sink, rows);
        if ways.is_empty() {
            // All members agree.
            return;
        }
        // What is taken over a sequence has one writer if each member takes columns.
        let split =
            if sink.take == Take::All { Rows::new(ways.len(), true, member).split } else { Split::Panels };
        // SAFETY: the caller's contract; a member's rows or panels are its own between the barriers.
        unsafe {
            let x = self.head_inputs(member, head, &ways, sink, rows);
            let x = self.head_layer(member, head, x, ways.len(), split);
            self.head_outputs(member, head, x, &ways, split, sink);
        }
    }

    /// The rows that the head reads, in the order of the ways: the hidden state itself if they are all of its rows.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn head_inputs(
        &self,
        member: &Member<'_>,
        head: &Head,
        ways: &[Way],
        sink: &HeadSink<'_>,
        rows: Rows,
    ) -> Panels<'_> {
        let of_tokens = head.plan.head.task.is_of_tokens();
        if of_tokens && sink.rows.is_none() {
            return self.views.hidden;
        }
        let d = self.config.hidden_size;
        let x = self.views.qkv.slice(0..panels_of(d));
        for i in member.share(ways.len()) {
            let from = ways[i].from;
            // SAFETY: each row once; nobody writes the hidden state; this member's own scratch.
            unsafe {
                let (_, row) = self.views.scratch(member.index, panels_of(d) * PANEL);
                if of_tokens || rows.one_each {
                    self.views.hidden.read_row(from, row);
                } else {
                    let len = self.batch.sequence(self.group[i]).1;
                    pool(self.config.classifier_pooling, self.views.hidden, from, len, 0, &mut row[..d]);
                }
                x.write_row(i, &row[..d]);
            }
        }
        member.barrier();
        x
    }

    /// The layer before the linear map, if there is one.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn head_layer<'a>(
        &'a self,
        member: &Member<'_>,
        head: &Head,
        x: Panels<'a>,
        count: usize,
        split: Split,
    ) -> Panels<'a> {
        let Some(layer) = &head.layer else { return x };
        let hidden = panels_of(self.config.hidden_size);
        let out = self.views.qkv.slice(hidden..hidden + panels_of(layer.width));
        let rows = match split {
            Split::Rows => member.share(count),
            Split::Panels => 0..count,
        };
        let weight = self.weights.linear(&layer.dense);
        let panels = split.own_panels(member, weight.panels(), 1);
        // SAFETY: the caller's contract; own rows or own panels, then own rows.
        unsafe {
            Gemm::new(x, rows, weight, panels, out, Then::Activate(layer.activation)).run(self.isa);
            split.meet(member);
            if let Some(norm) = &layer.norm {
                let (gamma, beta) = (self.weights.get(&norm.gamma), self.weights.get(&norm.beta));
                let (rows, eps) = (member.share(count), self.config.layer_norm_eps as f32);
                self.isa.run(LayerNorm::new(out, rows, layer.width, gamma, beta, eps));
                split.meet(member);
            }
        }
        out
    }

    /// The linear map, and what becomes of it.
    ///
    /// # Safety
    /// As for [`Pass::run`].
    unsafe fn head_outputs(
        &self,
        member: &Member<'_>,
        head: &Head,
        x: Panels<'_>,
        ways: &[Way],
        split: Split,
        sink: &HeadSink<'_>,
    ) {
        let (weight, outputs) = (self.weights.linear(&head.output), head.plan.outputs);
        let panels = split.own_panels(member, weight.panels(), 1);
        let columns = (panels.start * PANEL).min(outputs)..(panels.end * PANEL).min(outputs);
        let rows = match split {
            Split::Rows => member.share(ways.len()),
            Split::Panels => 0..ways.len(),
        };
        let [products, operand] = self.views.own_block(member.index);
        let target = Target { words: operand, dtype: head.output.dtype, rotation: head.output.rotation };
        let x = x.slice(0..weight.k_panels());
        let row_of = |to: usize| to * outputs + columns.start..to * outputs + columns.end;
        if sink.take != Take::All {
            for &to in self.group {
                // SAFETY: each sequence's columns of a member.
                unsafe { sink.out.slice(row_of(to)).fill(0.0) };
            }
        }
        let mut converted = None;
        for (from, count) in tiles(panels, OUTPUT_PANELS.min(products.panels())) {
            let part = weight.slice(from..from + count);
            let columns = from * PANEL..((from + count) * PANEL).min(outputs);
            for (start, height) in tiles(rows.clone(), BLOCK_ROWS) {
                let block = x.window(start..start + height);
                // SAFETY: this member's own memory; nobody writes `x`; each row of outputs, or of a sequence its
                // columns, has one writer.
                unsafe {
                    if head.output.dtype != Dtype::Float32 && converted != Some(start) {
                        let (_, row) = self.views.scratch(member.index, block.panels() * PANEL);
                        self.isa.run(Convert::new(block, 0..height, target, row));
                        converted = Some(start);
                    }
                    let a = if head.output.dtype == Dtype::Float32 { block } else { operand };
                    Gemm::new(a, 0..height, part, 0..count, products, Then::Store).run(self.isa);
                    let (_, row) = self.views.scratch(member.index, columns.len());
                    for (i, way) in ways[start..start + height].iter().enumerate() {
                        let at = way.to * outputs;
                        let out = sink.out.slice(at + columns.start..at + columns.end);
                        match sink.take {
                            Take::All => products.read_row(i, out),
                            Take::Greatest => {
                                products.read_row(i, row);
                                out.iter_mut().zip(&*row).for_each(|(out, x)| *out = out.max(*x));
                            }
                            Take::Sum => {
                                products.read_row(i, row);
                                out.iter_mut().zip(&*row).for_each(|(out, x)| *out += x.max(0.0).ln_1p());
                            }
                        }
                    }
                }
            }
        }
        if sink.take == Take::Greatest {
            for &to in self.group {
                // SAFETY: as above. The logarithm rises with its argument, so the greatest one's is the greatest.
                let out = unsafe { sink.out.slice(row_of(to)) };
                out.iter_mut().filter(|x| **x > 0.0).for_each(|x| *x = x.ln_1p());
            }
        }
    }
}
