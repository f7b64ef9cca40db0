//! `Masker`: masks for language modelling.

use crate::errors::to_py;
use bertfast_core::Error;
use bertfast_core::pretraining::masking::{self as core, Count, Id, Keys, Rows, Rule, Unit, Vocabulary};
use bertfast_core::simd::Isa;
use bertfast_core::threads::thread_limit;
use numpy::{Element, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

/// `bertfast.pretraining.Masking`.
#[derive(FromPyObject)]
pub struct Masking {
    unit: String,
    masked_lm_prob: f64,
    count: String,
    max_predictions_per_seq: Option<usize>,
    mask_replace_prob: f64,
    random_replace_prob: f64,
    random_special: bool,
}

impl Masking {
    pub fn rule(&self) -> PyResult<Rule> {
        Ok(Rule {
            unit: one_of("unit", &self.unit, &UNITS)?,
            prob: self.masked_lm_prob,
            count: one_of("count", &self.count, &COUNTS)?,
            max_predictions: self.max_predictions_per_seq,
            mask_replace_prob: self.mask_replace_prob,
            random_replace_prob: self.random_replace_prob,
            random_special: self.random_special,
        })
    }
}

/// A rule of masking for a vocabulary.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Masker(core::Masker);

#[pymethods]
impl Masker {
    #[new]
    fn new(kinds: PyReadonlyArray1<'_, u8>, mask_token_id: i64, masking: Masking) -> PyResult<Self> {
        let rule = masking.rule()?;
        let vocabulary = Vocabulary::new(kinds.as_slice()?.to_vec(), mask_token_id).map_err(to_py)?;
        let isa = Isa::choose(None).map_err(to_py)?;
        core::Masker::new(vocabulary, rule, isa).map(Self).map_err(to_py)
    }

    /// Masks rows that lie end to end: `(input_ids, labels)`, of the type of `input_ids`.
    #[pyo3(signature = (input_ids, boundaries, marks, seed, epoch, index, num_threads=None))]
    #[allow(clippy::too_many_arguments)]
    fn mask<'py>(
        &self,
        py: Python<'py>,
        input_ids: &Bound<'py, PyAny>,
        boundaries: Boundaries<'py>,
        marks: Option<PyReadonlyArray1<'py, u8>>,
        seed: u64,
        epoch: u32,
        index: Index<'py>,
        num_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let call = Call { boundaries, marks, seed, epoch, index, threads: num_threads };
        if let Ok(ids) = input_ids.extract::<PyReadonlyArray1<'py, i32>>() {
            return self.mask_as(py, &ids, &call);
        }
        self.mask_as(py, &input_ids.extract::<PyReadonlyArray1<'py, i64>>()?, &call)
    }
}

/// Rows of one length, or where each begins.
#[derive(FromPyObject)]
enum Boundaries<'py> {
    Length(usize),
    CuSeqlens(PyReadonlyArray1<'py, i64>),
}

/// Of the first row, or of each.
#[derive(FromPyObject)]
enum Index<'py> {
    First(u64),
    Each(PyReadonlyArray1<'py, u64>),
}

/// What is the same whatever the type of ids.
struct Call<'py> {
    boundaries: Boundaries<'py>,
    marks: Option<PyReadonlyArray1<'py, u8>>,
    seed: u64,
    epoch: u32,
    index: Index<'py>,
    threads: Option<usize>,
}

impl Masker {
    fn mask_as<'py, T: Element + Id>(
        &self,
        py: Python<'py>,
        ids: &PyReadonlyArray1<'py, T>,
        call: &Call<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let ids = ids.as_slice()?;
        let rows = match &call.boundaries {
            Boundaries::Length(len) => Rows::Equal(*len),
            Boundaries::CuSeqlens(ends) => Rows::Ragged(ends.as_slice()?),
        };
        let keys = match &call.index {
            Index::First(first) => Keys::From(*first),
            Index::Each(keys) => Keys::Each(keys.as_slice()?),
        };
        let marks = call.marks.as_ref().map(|marks| marks.as_slice()).transpose()?;
        let threads = thread_limit(call.threads).map_err(to_py)?.unwrap_or(usize::MAX);
        let (seed, epoch) = (call.seed, call.epoch);
        let mask = || self.0.mask_rows(ids, rows, marks, seed, epoch, keys, threads);
        let (inputs, labels) = py.detach(mask).map_err(to_py)?;
        Ok((PyArray1::from_vec(py, inputs).into_any(), PyArray1::from_vec(py, labels).into_any()))
    }
}

/// By the names of Python.
const UNITS: [(&str, Unit); 4] =
    [("token", Unit::Token), ("whole_word", Unit::WholeWord), ("ngram", Unit::NGram), ("span", Unit::Span)];

/// By the names of Python.
const COUNTS: [(&str, Count); 4] = [
    ("round", Count::Round),
    ("stochastic", Count::Stochastic),
    ("ceil", Count::Ceil),
    ("bernoulli", Count::Bernoulli),
];

/// What a name means.
pub fn one_of<T: Copy>(argument: &str, name: &str, all: &[(&str, T)]) -> PyResult<T> {
    all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| format!("{name:?}")).collect();
        to_py(Error::Value(format!("{argument}: expected one of {}, got {name:?}", names.join(", "))))
    })
}
