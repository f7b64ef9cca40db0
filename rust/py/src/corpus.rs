//! `StoreWriter`, `Store`, `merge_stores`, `split_sentences`: corpora for pretraining.

use crate::errors::{interrupted, to_py};
use crate::lines::Lines;
use crate::masking::one_of;
use crate::tokenizer::{Tokenizer, not_text};
use bertfast_core::pretraining::sentences;
use bertfast_core::pretraining::store::{self as core, Description, Documents, Split};
use bertfast_core::threads::{lock, thread_limit};
use bertfast_core::{Error, Result};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyIndexError, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

const DOCUMENTS: [(&str, Documents); 3] =
    [("blank_line", Documents::Blank), ("line", Documents::Line), ("file", Documents::File)];

/// The sentences of a text.
#[pyfunction]
pub fn split_sentences<'a>(py: Python<'_>, text: &'a Bound<'_, PyString>) -> PyResult<Vec<&'a str>> {
    let text = text.to_str().map_err(|error| not_text("text", text, error))?;
    Ok(py.detach(|| sentences::split_sentences(text)))
}

/// Builds a store.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct StoreWriter(Mutex<core::StoreWriter>);

#[pymethods]
impl StoreWriter {
    #[new]
    #[pyo3(signature = (folder, *, token_bits, word_starts, description))]
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        token_bits: u32,
        word_starts: PyReadonlyArray1<'_, bool>,
        description: &str,
    ) -> PyResult<Self> {
        let starts = word_starts.as_slice()?.to_vec();
        let mut step = |_| if interrupted() { Err(Error::Interrupted) } else { Ok(()) };
        let open = || {
            let description = Description::parse(description, token_bits)?;
            core::StoreWriter::open(&folder, token_bits, starts, description, &mut step)
        };
        py.detach(open).map(|writer| Self(Mutex::new(writer))).map_err(to_py)
    }

    #[pyo3(signature = (tokenizer, lines, *, documents="blank_line", split_sentences=false, num_threads=None))]
    fn append_lines(
        &self,
        py: Python<'_>,
        tokenizer: &Tokenizer,
        lines: &Lines,
        documents: &str,
        split_sentences: bool,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let documents = one_of("documents", documents, &DOCUMENTS)?;
        let threads = thread_limit(num_threads).map_err(to_py)?.unwrap_or(usize::MAX);
        let (tokenizer, source, texts) = (tokenizer.core(), lines.source(), lines.texts(py)?);
        self.with(py, |writer| {
            writer.append_lines(tokenizer, &texts, source, documents, split_sentences, threads, interrupted)
        })
    }

    #[pyo3(signature = (input_ids, cu_seqlens, document_ends, word_starts=None))]
    fn append_arrays(
        &self,
        py: Python<'_>,
        input_ids: PyReadonlyArray1<'_, i32>,
        cu_seqlens: PyReadonlyArray1<'_, i64>,
        document_ends: PyReadonlyArray1<'_, bool>,
        word_starts: Option<PyReadonlyArray1<'_, bool>>,
    ) -> PyResult<()> {
        let (ids, cu_seqlens) = (input_ids.as_slice()?, cu_seqlens.as_slice()?);
        let ends = document_ends.as_slice()?;
        let starts = word_starts.as_ref().map(|starts| starts.as_slice()).transpose()?;
        self.with(py, |writer| writer.append_arrays(ids, cu_seqlens, ends, starts))
    }

    fn end_document(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, core::StoreWriter::end_document)
    }

    fn checkpoint(&self, py: Python<'_>, position: String) -> PyResult<()> {
        self.with(py, |writer| writer.checkpoint(position))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, core::StoreWriter::finish)
    }

    #[getter]
    fn position(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(py, |writer| Ok(writer.position().map(str::to_owned)))
    }

    #[getter]
    fn num_documents(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok(writer.num_documents()))
    }

    #[getter]
    fn num_sentences(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok(writer.num_sentences()))
    }

    #[getter]
    fn num_tokens(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |writer| Ok(writer.num_tokens()))
    }
}

impl StoreWriter {
    /// Waits, without the GIL, for other threads that write.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut core::StoreWriter) -> Result<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| work(&mut lock(&self.0))).map_err(to_py)
    }
}

/// An open store.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Store(core::Store);

impl Store {
    fn tokens_of(&self, sentence: &Bound<'_, PyAny>) -> PyResult<Range<u64>> {
        Ok(self.0.tokens_of(check("sentence", sentence, self.0.num_sentences())?))
    }
}

#[pymethods]
impl Store {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        py.detach(|| core::Store::open(&folder)).map(Self).map_err(to_py)
    }

    #[getter]
    fn num_documents(&self) -> u64 {
        self.0.num_documents()
    }

    #[getter]
    fn num_sentences(&self) -> u64 {
        self.0.num_sentences()
    }

    #[getter]
    fn num_tokens(&self) -> u64 {
        self.0.num_tokens()
    }

    #[getter]
    fn manifest(&self) -> String {
        self.0.manifest().to_json()
    }

    /// The numbers of its sentences: the first, and the one behind the last.
    fn document(&self, index: &Bound<'_, PyAny>) -> PyResult<(u64, u64)> {
        let sentences = self.0.sentences_of(check("document", index, self.0.num_documents())?);
        Ok((sentences.start, sentences.end))
    }

    fn sentence<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let tokens = self.tokens_of(index)?;
        let mut ids = vec![0; (tokens.end - tokens.start) as usize];
        self.0.copy_tokens(tokens, &mut ids);
        Ok(PyArray1::from_vec(py, ids))
    }

    fn word_starts_of<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<bool>>> {
        let tokens = self.tokens_of(index)?;
        let mut starts = vec![false; (tokens.end - tokens.start) as usize];
        self.0.copy_word_starts(tokens, &mut starts);
        Ok(PyArray1::from_vec(py, starts))
    }

    #[pyo3(signature = (progress=None))]
    fn verify(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        py.detach(|| self.0.verify(told(progress))).map_err(to_py)
    }

    #[pyo3(signature = (held_out, seed, progress=None))]
    fn check_split(
        &self,
        py: Python<'_>,
        held_out: f64,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let split = Split { held_out, seed };
        py.detach(|| split.check(&self.0, told(progress))).map_err(to_py)
    }

    #[pyo3(signature = (train, held_out_store, held_out, seed, progress=None))]
    fn split(
        &self,
        py: Python<'_>,
        train: PathBuf,
        held_out_store: PathBuf,
        held_out: f64,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let split = Split { held_out, seed };
        py.detach(|| split.write(&self.0, &train, &held_out_store, told(progress))).map_err(to_py)
    }
}

/// Puts shards together.
#[pyfunction]
#[pyo3(signature = (shards, folder, progress=None))]
pub fn merge_stores(
    py: Python<'_>,
    shards: Vec<PathBuf>,
    folder: PathBuf,
    progress: Option<Py<PyAny>>,
) -> PyResult<()> {
    py.detach(|| core::merge(&shards, &folder, told(progress))).map_err(to_py)
}

fn check(name: &str, index: &Bound<'_, PyAny>, len: u64) -> PyResult<u64> {
    let found = match index.extract::<u64>() {
        // Negative, or of more bits.
        Err(error) if error.is_instance_of::<PyOverflowError>(index.py()) => None,
        found => Some(found?),
    };
    found
        .filter(|index| *index < len)
        .ok_or_else(|| PyIndexError::new_err(format!("{name}: expected a number in 0..{len}, got {index}")))
}

/// Tells Python how far something is, and asks whether to go on.
fn told(callback: Option<Py<PyAny>>) -> impl FnMut(u64, u64) -> Result<()> {
    move |done, total| {
        let tell = |py: Python<'_>| {
            callback.as_ref().map(|callback| callback.call1(py, (done, total))).transpose()?;
            py.check_signals()
        };
        // The exception stays with the interpreter until `to_py` takes it.
        Python::attach(|py| {
            tell(py).map_err(|raised| {
                raised.restore(py);
                Error::Interrupted
            })
        })
    }
}
