//! What this machine is and what it can do at most.

use std::time::Duration;

use bertfast_core::ops::Dtype;
use bertfast_core::ops::measure::Op;
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
    let isa = Isa::choose(None).map_err(to_py)?;
    let kernels: Vec<_> = dtypes(None)?.into_iter().map(|dtype| isa.kernel_id(dtype)).collect();
    info.set_item("isa", isa.name())?;
    info.set_item("isas", Isa::available().into_iter().map(Isa::name).collect::<Vec<_>>())?;
    info.set_item("kernels", kernels)?;
    info.set_item("num_threads", Pool::global().size())?;
    Ok(info)
}

/// The types that an instruction set (this CPU's best by default) multiplies natively.
#[pyfunction]
#[pyo3(signature = (isa=None))]
pub fn dtypes(isa: Option<&str>) -> PyResult<Vec<&'static str>> {
    let isa = Isa::choose(isa).map_err(to_py)?;
    Ok(Dtype::ALL.into_iter().filter(|dtype| dtype.runs_on(isa)).map(Dtype::name).collect())
}

/// The seconds to measure and the threads to use, checked.
fn settings(seconds: f64, num_threads: Option<usize>) -> PyResult<(Duration, usize)> {
    let threads = bertfast_core::threads::thread_limit(num_threads).map_err(to_py)?.unwrap_or(usize::MAX);
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|e| to_py(bertfast_core::Error::Value(format!("seconds: {e}, got {seconds}"))))?;
    Ok((duration, threads))
}

/// Operations a second of multiply-adds in registers, on all threads.
#[pyfunction]
#[pyo3(signature = (seconds, num_threads=None, dtype="float32", isa=None))]
pub fn measure_peak(
    py: Python<'_>,
    seconds: f64,
    num_threads: Option<usize>,
    dtype: &str,
    isa: Option<&str>,
) -> PyResult<f64> {
    let (duration, threads) = settings(seconds, num_threads)?;
    let isa = Isa::choose(isa).map_err(to_py)?;
    let dtype = Dtype::from_name(dtype).map_err(to_py)?;
    py.detach(|| peak::compute_peak(isa, dtype, duration, threads)).map_err(to_py)
}

/// Bytes a second that all threads read from memory, or out of `bytes` that lie in a cache if they are few.
#[pyfunction]
#[pyo3(signature = (seconds, num_threads=None, bytes=None))]
pub fn measure_bandwidth(
    py: Python<'_>,
    seconds: f64,
    num_threads: Option<usize>,
    bytes: Option<usize>,
) -> PyResult<f64> {
    let (duration, threads) = settings(seconds, num_threads)?;
    let isa = Isa::choose(None).map_err(to_py)?;
    py.detach(|| peak::read_bandwidth(isa, bytes.unwrap_or(peak::MEMORY), duration, threads)).map_err(to_py)
}

/// Seconds of one run of an operation on this thread, its operands in the caches.
#[pyfunction]
#[pyo3(signature = (name, sizes, seconds, dtype="float32", isa=None))]
pub fn measure_op(
    py: Python<'_>,
    name: &str,
    sizes: Vec<usize>,
    seconds: f64,
    dtype: &str,
    isa: Option<&str>,
) -> PyResult<f64> {
    let (duration, _) = settings(seconds, None)?;
    let isa = Isa::choose(isa).map_err(to_py)?;
    let op = Op::new(name, &sizes).map_err(to_py)?;
    py.detach(|| op.seconds(dtype, isa, duration)).map_err(to_py)
}
