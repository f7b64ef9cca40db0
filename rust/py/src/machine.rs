//! What this machine is and what it can do at most.

use std::time::Duration;

use bertfast_core::ops::peak;
use bertfast_core::simd::Isa;
use bertfast_core::threads::Pool;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::to_py;

/// Version, instruction sets and threads.
#[pyfunction]
pub fn info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("isa", Isa::choose(None).map_err(to_py)?.name())?;
    info.set_item("isas", Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>())?;
    info.set_item("kernels", [Isa::choose(None).map_err(to_py)?.kernel_id()])?;
    info.set_item("num_threads", Pool::global().size())?;
    Ok(info)
}

/// The seconds to measure and the threads to use, checked.
fn settings(seconds: f64, num_threads: Option<usize>) -> PyResult<(Duration, usize)> {
    let threads = bertfast_core::encoder::thread_limit(num_threads).map_err(to_py)?.unwrap_or(usize::MAX);
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|e| to_py(bertfast_core::Error::Value(format!("seconds: {e}, got {seconds}"))))?;
    Ok((duration, threads))
}

/// Floating-point operations a second of fused multiply-adds in registers, on all threads.
#[pyfunction]
#[pyo3(signature = (seconds, num_threads=None))]
pub fn measure_peak(py: Python<'_>, seconds: f64, num_threads: Option<usize>) -> PyResult<f64> {
    let (duration, threads) = settings(seconds, num_threads)?;
    let isa = Isa::choose(None).map_err(to_py)?;
    Ok(py.detach(|| peak::fma_peak(isa, duration, threads)))
}

/// Bytes a second that all threads read from memory.
#[pyfunction]
#[pyo3(signature = (seconds, num_threads=None))]
pub fn measure_bandwidth(py: Python<'_>, seconds: f64, num_threads: Option<usize>) -> PyResult<f64> {
    let (duration, threads) = settings(seconds, num_threads)?;
    let isa = Isa::choose(None).map_err(to_py)?;
    py.detach(|| peak::read_bandwidth(isa, duration, threads)).map_err(to_py)
}
