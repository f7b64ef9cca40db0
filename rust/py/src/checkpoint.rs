//! Tensors of safetensors files as numpy arrays, for the small modules that Python applies (a Dense layer).

use std::path::PathBuf;

use bertfast_core::checkpoint::Checkpoint;
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;

use crate::errors::to_py;

/// The tensors of these names and shapes, as float32 arrays in this order.
#[pyfunction]
pub fn read_tensors<'py>(
    py: Python<'py>,
    files: Vec<PathBuf>,
    wanted: Vec<(String, Vec<usize>)>,
) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
    let tensors = py.detach(|| Checkpoint::open(&files)?.require(&wanted)).map_err(to_py)?;
    let arrays = tensors.iter().map(|tensor| {
        let mut values = vec![0.0; tensor.numel()];
        tensor.copy_to_f32(&mut values);
        PyArray1::from_vec(py, values).reshape(tensor.shape())
    });
    arrays.collect()
}
