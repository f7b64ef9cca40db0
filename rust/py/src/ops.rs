//! Operations of the engine by themselves.

use bertfast_core::encoder::{self as core, Dense};
use bertfast_core::memory::zeros;
use bertfast_core::simd::Isa;
use numpy::{
    IntoPyArray, PyArray2, PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray4,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::arrays::{slice, slice_mut};
use crate::errors::to_py;

/// A dense layer: `x w^T + bias`, whose bits per row do not depend on the other rows.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Linear(Dense);

#[pymethods]
impl Linear {
    #[new]
    #[pyo3(signature = (weight, bias=None))]
    fn new(
        py: Python<'_>,
        weight: PyReadonlyArray2<'_, f32>,
        bias: Option<PyReadonlyArray1<'_, f32>>,
    ) -> PyResult<Self> {
        let (outputs, inputs) = (weight.shape()[0], weight.shape()[1]);
        let bias = bias.as_ref().map(|bias| bias.as_slice()).transpose()?;
        let isa = Isa::choose(None).map_err(to_py)?;
        let weight = slice(&weight)?;
        py.detach(|| Dense::new(weight, inputs, outputs, bias, isa)).map(Self).map_err(to_py)
    }

    fn __call__<'py>(
        &self,
        py: Python<'py>,
        x: PyReadonlyArray2<'py, f32>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (rows, width) = (x.shape()[0], x.shape()[1]);
        if width != self.0.inputs {
            let message = format!("x: expected shape (B, {}), got ({rows}, {width})", self.0.inputs);
            return Err(to_py(bertfast_core::Error::Shape(message)));
        }
        let (x, mut out) = (slice(&x)?, zeros::<f32>(rows * self.0.outputs).map_err(to_py)?);
        let isa = Isa::choose(None).map_err(to_py)?;
        py.detach(|| self.0.apply(x, &mut out, isa)).map_err(to_py)?;
        out.into_pyarray(py).reshape([rows, self.0.outputs])
    }
}

/// Divide each row by its Euclidean length, in place.
#[pyfunction]
pub fn normalize(py: Python<'_>, x: &Bound<'_, PyArray2<f32>>) -> PyResult<()> {
    let width = x.shape()[1];
    let mut x = x.try_readwrite()?;
    let x = slice_mut(&mut x)?;
    py.detach(|| x.chunks_exact_mut(width.max(1)).for_each(core::normalize));
    Ok(())
}

/// Fused attention of (B, N, S, H) arrays of any strides.
#[pyfunction]
#[pyo3(signature = (query, key, value, key_mask, scale, num_threads=None))]
pub fn attention<'py>(
    py: Python<'py>,
    query: PyReadonlyArray4<'py, f32>,
    key: PyReadonlyArray4<'py, f32>,
    value: PyReadonlyArray4<'py, f32>,
    key_mask: Option<PyReadonlyArray2<'py, bool>>,
    scale: f32,
    num_threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let (q, k, v) = (query.as_array(), key.as_array(), value.as_array());
    let mask = key_mask.as_ref().map(|mask| mask.as_array());
    let threads = bertfast_core::threads::thread_limit(num_threads).map_err(to_py)?.unwrap_or(usize::MAX);
    let isa = Isa::choose(None).map_err(to_py)?;
    let mut out = zeros::<f32>(q.len()).map_err(to_py)?;
    py.detach(|| core::attention(q, k, v, mask, scale, &mut out, isa, threads)).map_err(to_py)?;
    let (b, n, s, h) = q.dim();
    out.into_pyarray(py).reshape([b, n, s, h])
}
