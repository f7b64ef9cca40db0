//! `Lines`: texts that no Python string is made of.

use crate::errors::to_py;
use bertfast_core::lines::{Source, count, json_texts, texts};
use bertfast_core::threads::Pool;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::borrow::Cow;

/// Whole lines of a file.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Lines {
    data: Py<PyBytes>,
    field: Option<String>,
    name: String,
    first_line: usize,
}

#[pymethods]
impl Lines {
    #[new]
    #[pyo3(signature = (data, *, field=None, name="<bytes>", first_line=1))]
    fn new(data: Py<PyBytes>, field: Option<String>, name: &str, first_line: usize) -> Self {
        Self { data, field, name: name.to_owned(), first_line }
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        let data = self.data.as_bytes(py);
        py.detach(|| count(data))
    }

    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.texts(py)?)
    }
}

impl Lines {
    /// Where they are from.
    pub fn source(&self) -> Source<'_> {
        Source { name: &self.name, first: self.first_line }
    }

    /// The texts: slices of the bytes, or what was escaped in JSON.
    pub fn texts(&self, py: Python<'_>) -> PyResult<Vec<Cow<'_, str>>> {
        let data = self.data.as_bytes(py);
        let source = self.source();
        let read = || match &self.field {
            Some(field) => json_texts(data, field, source, Pool::global().size()),
            None => Ok(texts(data, source)?.into_iter().map(Cow::Borrowed).collect()),
        };
        py.detach(read).map_err(to_py)
    }
}
