//! Attention of ragged batches with its gradient, and dropout.

use bertfast_core::simd::Isa;
use bertfast_core::threads::thread_limit;
use bertfast_core::training as core;
use numpy::{
    Element, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyReadonlyArray3, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::arrays::{slice, slice_mut};
use crate::errors::to_py;

/// Three tensors: query, key and value, or their gradients.
type Three<'py> = [Bound<'py, PyAny>; 3];

/// How to attend, but for the shape of the heads: `(scale, dropout, seed)`.
type How = (f32, f32, u64);

/// Attention of each sequence with itself. Tensors are (T, N, H), contiguous, float32 or the bits of bfloat16; `out` and
/// `lse` (N, T) are written.
#[pyfunction]
#[pyo3(signature = (tensors, out, lse, cu_seqlens, how, num_threads=None))]
pub fn ragged_attention(
    tensors: Three<'_>,
    out: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyArray2<f32>>,
    cu_seqlens: PyReadonlyArray1<'_, i64>,
    how: How,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let run = if out.cast::<PyArray3<u16>>().is_ok() { forward::<u16> } else { forward::<f32> };
    run(tensors, out, lse, cu_seqlens, how, num_threads)
}

fn forward<E: core::Element + Element>(
    tensors: Three<'_>,
    out: &Bound<'_, PyAny>,
    lse: &Bound<'_, PyArray2<f32>>,
    cu_seqlens: PyReadonlyArray1<'_, i64>,
    how: How,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let (py, [q, k, v]) = (out.py(), read::<E>(&tensors)?);
    let qkv = [slice(&q)?, slice(&k)?, slice(&v)?];
    let ragged = ragged(&q, &cu_seqlens, how)?;
    let (isa, threads) = machine(num_threads)?;
    let (mut out, mut lse) = (out.cast::<PyArray3<E>>()?.try_readwrite()?, lse.try_readwrite()?);
    let (out, lse) = (slice_mut(&mut out)?, slice_mut(&mut lse)?);
    py.detach(|| core::ragged_attention(qkv, &ragged, out, lse, isa, threads)).map_err(to_py)
}

/// The gradients of query, key and value, written to `grads`, from `grad`, that of the output.
#[pyfunction]
#[pyo3(signature = (grad, tensors, lse, grads, cu_seqlens, how, num_threads=None))]
pub fn ragged_attention_backward(
    grad: &Bound<'_, PyAny>,
    tensors: Three<'_>,
    lse: PyReadonlyArray2<'_, f32>,
    grads: Three<'_>,
    cu_seqlens: PyReadonlyArray1<'_, i64>,
    how: How,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let run = if grad.cast::<PyArray3<u16>>().is_ok() { backward::<u16> } else { backward::<f32> };
    run(grad, tensors, lse, grads, cu_seqlens, how, num_threads)
}

fn backward<E: core::Element + Element>(
    grad: &Bound<'_, PyAny>,
    tensors: Three<'_>,
    lse: PyReadonlyArray2<'_, f32>,
    grads: Three<'_>,
    cu_seqlens: PyReadonlyArray1<'_, i64>,
    how: How,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let (py, [q, k, v], of_out) =
        (grad.py(), read::<E>(&tensors)?, grad.extract::<PyReadonlyArray3<'_, E>>()?);
    let (qkv, grad, lse) = ([slice(&q)?, slice(&k)?, slice(&v)?], slice(&of_out)?, slice(&lse)?);
    let ragged = ragged(&q, &cu_seqlens, how)?;
    let (isa, threads) = machine(num_threads)?;
    let [a, b, c] = &grads;
    let mut a = a.cast::<PyArray3<E>>()?.try_readwrite()?;
    let mut b = b.cast::<PyArray3<E>>()?.try_readwrite()?;
    let mut c = c.cast::<PyArray3<E>>()?.try_readwrite()?;
    let grads = [slice_mut(&mut a)?, slice_mut(&mut b)?, slice_mut(&mut c)?];
    py.detach(|| core::ragged_attention_backward(grad, qkv, lse, &ragged, grads, isa, threads)).map_err(to_py)
}

/// Values with some of them dropped: (n,) arrays, float32 or the bits of bfloat16.
#[pyfunction]
#[pyo3(signature = (x, out, probability, seed, num_threads=None))]
pub fn dropout(
    x: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    probability: f32,
    seed: u64,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let run = if out.cast::<PyArray1<u16>>().is_ok() { drop_some::<u16> } else { drop_some::<f32> };
    run(x, out, probability, seed, num_threads)
}

fn drop_some<E: core::Element + Element>(
    x: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
    probability: f32,
    seed: u64,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let (py, x) = (out.py(), x.extract::<PyReadonlyArray1<'_, E>>()?);
    let mut out = out.cast::<PyArray1<E>>()?.try_readwrite()?;
    let (x, out, (isa, threads)) = (x.as_slice()?, out.as_slice_mut()?, machine(num_threads)?);
    py.detach(|| core::dropout(x, probability, seed, out, isa, threads)).map_err(to_py)
}

fn read<'py, E: Element>(tensors: &Three<'py>) -> PyResult<[PyReadonlyArray3<'py, E>; 3]> {
    let [q, k, v] = tensors;
    Ok([q.extract()?, k.extract()?, v.extract()?])
}

fn ragged<'a, E: Element>(
    query: &PyReadonlyArray3<'_, E>,
    cu_seqlens: &'a PyReadonlyArray1<'_, i64>,
    (scale, dropout, seed): How,
) -> PyResult<core::Ragged<'a>> {
    let (cu_seqlens, shape) = (cu_seqlens.as_slice()?, query.shape());
    Ok(core::Ragged { cu_seqlens, heads: shape[1], head: shape[2], scale, dropout, seed })
}

fn machine(num_threads: Option<usize>) -> PyResult<(Isa, usize)> {
    let threads = thread_limit(num_threads).map_err(to_py)?.unwrap_or(usize::MAX);
    Ok((Isa::choose(None).map_err(to_py)?, threads))
}
