//! The fused attention by itself, on arrays of any strides: what the torch module calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{ArrayView1, ArrayView2, ArrayView4, Axis};

use crate::free_list::FreeList;
use crate::memory::Block;
use crate::ops::attention::Attention;
use crate::ops::{Dtype, PANEL, Panels, panels_of};
use crate::simd::Isa;
use crate::threads::{Pool, Shared};
use crate::{Error, Result};

/// Memory of calls before.
static FREE: FreeList<Block> = FreeList::new();

/// Values per thread that a call may leave behind: those of a head of 64 and 2,048 keys.
const KEPT: usize = 1 << 19;

/// `softmax(scale q k^T) v` per batch row and head.
///
/// Shapes: `q` (B, N, S, H), `k` and `v` (B, N, T, H), `key_mask` (B, T) with true for the keys that count, `out`
/// (B, N, S, H) row-major. A batch row without any valid key gives zeros.
///
/// # Errors
/// [`Error::Shape`] for shapes that do not fit one another.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    q: ArrayView4<'_, f32>,
    k: ArrayView4<'_, f32>,
    v: ArrayView4<'_, f32>,
    key_mask: Option<ArrayView2<'_, bool>>,
    scale: f32,
    out: &mut [f32],
    isa: Isa,
    threads: usize,
) -> Result<()> {
    let (batch, heads, queries, head) = q.dim();
    let keys = k.dim().2;
    for (name, shape) in [("key", k.shape()), ("value", v.shape())] {
        let want = [batch, heads, keys, head];
        if shape != want {
            return Err(Error::Shape(format!("{name}: expected shape {want:?} like query, got {shape:?}")));
        }
    }
    if let Some(mask) = key_mask.filter(|mask| mask.dim() != (batch, keys)) {
        let got = mask.shape();
        return Err(Error::Shape(format!("key_mask: expected shape {:?}, got {got:?}", [batch, keys])));
    }
    if out.len() != q.len() {
        return Err(Error::Shape(format!("out: expected {} values, got {}", q.len(), out.len())));
    }
    if out.is_empty() {
        return Ok(());
    }
    let panels = panels_of(head);
    let (q_stride, k_stride) = (queries | 1, keys | 1);
    let one = |stride: usize| (stride * panels + PANEL) * PANEL;
    let scratch = Attention::scratch_len(keys, panels);
    let memory = 2 * one(k_stride) + one(q_stride) + scratch;
    let mut team = Pool::global().join(threads.min(batch * heads));
    let members = team.size();
    let mut block = match FREE.take().filter(|block| block.as_slice().len() >= memory * members) {
        Some(block) => block,
        None => Block::zeroed(memory * members)?,
    };
    let (blocks, results, next) = (Shared::new(block.as_mut_slice()), Shared::new(out), AtomicUsize::new(0));
    team.draw(members, |member| {
        // SAFETY: each member its own part.
        let mine = unsafe { blocks.slice(member.index * memory..(member.index + 1) * memory) };
        let (k_block, rest) = mine.split_at_mut(one(k_stride));
        let (v_block, rest) = rest.split_at_mut(one(k_stride));
        let (q_block, scratch) = rest.split_at_mut(one(q_stride));
        let mut row = vec![0.0; head];
        while !member.should_leave() {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            if unit >= batch * heads {
                break;
            }
            let (b, n) = (unit / heads, unit % heads);
            let (q, k, v) = (head_of(q, b, n), head_of(k, b, n), head_of(v, b, n));
            let valid = |key: &usize| key_mask.is_none_or(|mask| mask[[b, *key]]);
            let qp = Panels::new(q_block, q_stride, panels);
            let kp = Panels::new(k_block, k_stride, panels);
            let vp = Panels::new(v_block, k_stride, panels);
            let mut count = 0;
            let mut copy = |from: ArrayView1<'_, f32>, to: Panels<'_>, at: usize, by: f32| {
                // A slice is read by vectors, anything else value by value.
                match from.to_slice() {
                    Some(from) => row.iter_mut().zip(from).for_each(|(row, x)| *row = x * by),
                    None => row.iter_mut().zip(from).for_each(|(row, x)| *row = x * by),
                }
                // SAFETY: this member's own memory.
                unsafe { to.write_row(at, &row) };
            };
            for key in (0..keys).filter(valid) {
                copy(k.row(key), kp, count, 1.0);
                copy(v.row(key), vp, count, 1.0);
                count += 1;
            }
            // SAFETY: each unit is drawn once.
            let out = unsafe { results.slice(unit * queries * head..(unit + 1) * queries * head) };
            if count == 0 {
                out.fill(0.0);
                continue;
            }
            for query in 0..queries {
                copy(q.row(query), qp, query, scale * std::f32::consts::LOG2_E);
            }
            // SAFETY: this member's own memory, with slack behind the keys.
            unsafe {
                Attention::new(qp, kp, vp, qp, 0..queries, 0..count, Dtype::Float32, scratch, None).run(isa);
                for (query, out) in out.chunks_exact_mut(head).enumerate() {
                    qp.read_row(query, out);
                }
            }
        }
    });
    if memory <= KEPT {
        FREE.give_back(block);
    }
    Ok(())
}

/// The (S, H) matrix of one head.
fn head_of<'a>(x: ArrayView4<'a, f32>, batch: usize, head: usize) -> ArrayView2<'a, f32> {
    x.index_axis_move(Axis(0), batch).index_axis_move(Axis(0), head)
}
