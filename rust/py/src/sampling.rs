//! `Samples`: the samples of an epoch.

use crate::errors::{interrupted, to_py};
use crate::masking::{Masking, one_of};
use bertfast_core::pretraining::sampling::{self as core, Config, Format, Padding, Sampler};
use bertfast_core::pretraining::store::{Store, TOKENS};
use bertfast_core::simd::Isa;
use bertfast_core::threads::thread_limit;
use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;
use std::sync::Arc;

/// The samples of an epoch of a store.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Samples(core::Samples);

/// `bertfast.pretraining.PretrainingConfig`.
#[derive(FromPyObject)]
struct Arguments {
    format: String,
    masking: Masking,
    max_seq_length: usize,
    short_seq_prob: f64,
    dupe_factor: u32,
    #[pyo3(attribute("static"))]
    is_static: bool,
}

const FORMATS: [(&str, Format); 4] = [
    ("nsp", Format::NextSentence),
    ("sop", Format::SentenceOrder),
    ("full_sentences", Format::FullSentences),
    ("doc_sentences", Format::DocSentences),
];

impl Arguments {
    fn config(&self) -> PyResult<Config> {
        Ok(Config {
            format: one_of("format", &self.format, &FORMATS)?,
            max_seq_length: self.max_seq_length,
            short_seq_prob: self.short_seq_prob,
            dupe_factor: self.dupe_factor,
            is_static: self.is_static,
        })
    }
}

fn limit(threads: Option<usize>) -> PyResult<usize> {
    Ok(thread_limit(threads).map_err(to_py)?.unwrap_or(usize::MAX))
}

#[pymethods]
impl Samples {
    /// Opens a store and plans an epoch.
    #[new]
    #[pyo3(signature = (folder, config, *, seed, epoch, plan_folder, num_threads=None))]
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        config: Arguments,
        seed: u64,
        epoch: u32,
        plan_folder: PathBuf,
        num_threads: Option<usize>,
    ) -> PyResult<Self> {
        let (rule, config, threads) = (config.masking.rule()?, config.config()?, limit(num_threads)?);
        let isa = Isa::choose(None).map_err(to_py)?;
        let plan = || {
            let store = Arc::new(Store::open(&folder)?);
            let sampler = Arc::new(Sampler::new(store, rule, config, seed, isa)?);
            sampler.samples(epoch, threads, &plan_folder, interrupted)
        };
        py.detach(plan).map(Self).map_err(to_py)
    }

    /// The samples of another epoch.
    #[pyo3(signature = (epoch, *, plan_folder, num_threads=None))]
    fn of_epoch(
        &self,
        py: Python<'_>,
        epoch: u32,
        plan_folder: PathBuf,
        num_threads: Option<usize>,
    ) -> PyResult<Self> {
        let threads = limit(num_threads)?;
        let plan = || self.0.of_epoch(epoch, threads, &plan_folder, interrupted);
        py.detach(plan).map(Self).map_err(to_py)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Of the store's tokens.
    #[getter]
    fn tokens_sha256(&self) -> &str {
        &self.0.sampler().store().manifest().files[TOKENS].sha256
    }

    /// How many tokens each of these samples has.
    fn lengths<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, i64>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let indices = indices.as_slice()?;
        let lengths = py.detach(|| self.0.lengths(indices)).map_err(to_py)?;
        Ok(lengths.into_pyarray(py))
    }

    /// A part of a random order.
    fn order<'py>(&self, py: Python<'py>, start: u64, count: u64) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let order = py.detach(|| self.0.order(start, count)).map_err(to_py)?;
        Ok(order.into_pyarray(py))
    }

    /// A random order of a window's batches.
    fn batch_order<'py>(
        &self,
        py: Python<'py>,
        window: u64,
        batches: u64,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let order = self.0.batch_order(window, batches).map_err(to_py)?;
        Ok(order.into_pyarray(py))
    }

    /// A padded batch: arrays of (B, S).
    #[pyo3(signature = (indices, *, max_length, num_threads=None))]
    fn padded<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, i64>,
        max_length: bool,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (indices, threads) = (indices.as_slice()?, limit(num_threads)?);
        let padding = if max_length { Padding::MaxLength } else { Padding::Longest };
        let batch = py.detach(|| self.0.padded(indices, padding, threads)).map_err(to_py)?;
        let shape = [indices.len(), batch.width];
        let out = PyDict::new(py);
        for (name, values) in [
            ("input_ids", Some(batch.input_ids)),
            ("token_type_ids", batch.token_type_ids),
            ("attention_mask", Some(batch.attention_mask)),
            ("labels", Some(batch.labels)),
        ] {
            if let Some(values) = values {
                out.set_item(name, values.into_pyarray(py).reshape(shape)?)?;
            }
        }
        self.set_pair_labels(&out, batch.pair_labels)?;
        Ok(out)
    }

    /// A ragged batch: arrays of (T,).
    #[pyo3(signature = (indices, *, num_threads=None))]
    fn ragged<'py>(
        &self,
        py: Python<'py>,
        indices: PyReadonlyArray1<'py, i64>,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (indices, threads) = (indices.as_slice()?, limit(num_threads)?);
        let batch = py.detach(|| self.0.ragged(indices, threads)).map_err(to_py)?;
        let out = PyDict::new(py);
        out.set_item("input_ids", batch.input_ids.into_pyarray(py))?;
        out.set_item("cu_seqlens", batch.cu_seqlens.into_pyarray(py))?;
        if let Some(types) = batch.token_type_ids {
            out.set_item("token_type_ids", types.into_pyarray(py))?;
        }
        out.set_item("labels", batch.labels.into_pyarray(py))?;
        out.set_item("masked_positions", batch.masked_positions.into_pyarray(py))?;
        self.set_pair_labels(&out, batch.pair_labels)?;
        Ok(out)
    }
}

impl Samples {
    fn set_pair_labels(&self, out: &Bound<'_, PyDict>, labels: Option<Vec<i64>>) -> PyResult<()> {
        let name = match self.0.sampler().config().format {
            Format::SentenceOrder => "sentence_order_label",
            _ => "next_sentence_label",
        };
        labels.map_or(Ok(()), |labels| out.set_item(name, labels.into_pyarray(out.py())))
    }
}
