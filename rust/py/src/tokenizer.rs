//! `Tokenizer` and `Ragged`.

use crate::errors::{new_err, to_py};
use crate::lines::Lines;
use bertfast_core::threads::Pool;
use bertfast_core::tokenizer::{self as core, Compat, EncodeOptions, Side, Strategy, Text};
use numpy::{
    Element, PyArray, PyArray1, PyArray2, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray,
    PyUntypedArrayMethods, dtype, ndarray,
};
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PySequence, PyString, PyTuple};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of text between two looks at the signals.
const CHUNK_BYTES: usize = 16 << 20;

/// Sequences of tokens laid end to end in numpy arrays.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Ragged {
    #[pyo3(get)]
    input_ids: Py<PyArray1<i32>>,
    #[pyo3(get)]
    cu_seqlens: Py<PyArray1<i64>>,
    #[pyo3(get)]
    token_type_ids: Option<Py<PyArray1<i32>>>,
    #[pyo3(get)]
    offset_mapping: Option<Py<PyArray2<i32>>>,
    #[pyo3(get)]
    overflow_to_sample: Option<Py<PyArray1<i64>>>,
    #[pyo3(get)]
    word_ids: Option<Py<PyArray1<i32>>>,
    #[pyo3(get)]
    sequence_ids: Option<Py<PyArray1<i32>>>,
    #[pyo3(get)]
    truncated: usize,
    sequences: usize,
    tokens: usize,
}

#[pymethods]
impl Ragged {
    /// From arrays that another tokenizer filled. They are kept, not copied.
    #[new]
    #[pyo3(signature = (input_ids, cu_seqlens, *, token_type_ids=None, offset_mapping=None,
        overflow_to_sample=None, word_ids=None, sequence_ids=None, truncated=0))]
    #[allow(clippy::too_many_arguments)]
    fn from_arrays(
        input_ids: &Bound<'_, PyAny>,
        cu_seqlens: &Bound<'_, PyAny>,
        token_type_ids: Option<&Bound<'_, PyAny>>,
        offset_mapping: Option<&Bound<'_, PyAny>>,
        overflow_to_sample: Option<&Bound<'_, PyAny>>,
        word_ids: Option<&Bound<'_, PyAny>>,
        sequence_ids: Option<&Bound<'_, PyAny>>,
        truncated: usize,
    ) -> PyResult<Self> {
        let input_ids: Py<PyArray1<i32>> = array("input_ids", input_ids, [None])?;
        let py = cu_seqlens.py();
        let tokens = input_ids.bind(py).len();
        let cu_seqlens: Py<PyArray1<i64>> = array("cu_seqlens", cu_seqlens, [None])?;
        let sequences = check_boundaries(cu_seqlens.bind(py), tokens)?;
        let of_tokens = |name, value: Option<&Bound<'_, PyAny>>| -> PyResult<Option<Py<PyArray1<i32>>>> {
            value.map(|value| array(name, value, [Some(tokens)])).transpose()
        };
        Ok(Self {
            token_type_ids: of_tokens("token_type_ids", token_type_ids)?,
            offset_mapping: offset_mapping
                .map(|offsets| array("offset_mapping", offsets, [Some(tokens), Some(2)]))
                .transpose()?,
            overflow_to_sample: overflow_to_sample
                .map(|samples| array("overflow_to_sample", samples, [Some(sequences)]))
                .transpose()?,
            word_ids: of_tokens("word_ids", word_ids)?,
            sequence_ids: of_tokens("sequence_ids", sequence_ids)?,
            input_ids,
            cu_seqlens,
            truncated,
            sequences,
            tokens,
        })
    }

    fn __len__(&self) -> usize {
        self.sequences
    }

    fn __repr__(&self) -> String {
        format!("Ragged({} sequences, {} tokens)", self.sequences, self.tokens)
    }
}

impl Ragged {
    fn new(py: Python<'_>, ragged: core::Ragged) -> PyResult<Self> {
        let (sequences, tokens) = (ragged.len(), ragged.input_ids.len());
        let offset_mapping = ragged
            .offset_mapping
            .map(|offsets| PyArray1::from_vec(py, offsets.into_flattened()).reshape([tokens, 2]))
            .transpose()?;
        Ok(Self {
            input_ids: PyArray1::from_vec(py, ragged.input_ids).unbind(),
            cu_seqlens: PyArray1::from_vec(py, ragged.cu_seqlens).unbind(),
            token_type_ids: ragged.token_type_ids.map(|ids| PyArray1::from_vec(py, ids).unbind()),
            offset_mapping: offset_mapping.map(Bound::unbind),
            overflow_to_sample: ragged.overflow_to_sample.map(|list| PyArray1::from_vec(py, list).unbind()),
            word_ids: ragged.word_ids.map(|ids| PyArray1::from_vec(py, ids).unbind()),
            sequence_ids: ragged.sequence_ids.map(|ids| PyArray1::from_vec(py, ids).unbind()),
            truncated: ragged.truncated,
            sequences,
            tokens,
        })
    }
}

/// The WordPiece tokenizer of the core.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Tokenizer {
    core: Arc<core::Tokenizer>,
}

impl Tokenizer {
    /// For other bindings, which tokenize without the GIL.
    pub fn core(&self) -> &Arc<core::Tokenizer> {
        &self.core
    }
}

#[pymethods]
impl Tokenizer {
    /// Opens a folder.
    #[staticmethod]
    #[pyo3(signature = (folder, compat))]
    fn from_folder(py: Python<'_>, folder: PathBuf, compat: &Bound<'_, PyAny>) -> PyResult<Self> {
        let compat = rules(compat)?;
        let core = py.detach(|| core::Tokenizer::from_folder(&folder, compat)).map_err(to_py)?;
        Ok(Self { core: Arc::new(core) })
    }

    /// Opens a folder whose files have these contents.
    #[staticmethod]
    #[pyo3(signature = (files, compat))]
    fn from_files(
        py: Python<'_>,
        files: HashMap<String, Vec<u8>>,
        compat: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let compat = rules(compat)?;
        let core = py.detach(|| core::Tokenizer::from_files(&files, compat)).map_err(to_py)?;
        Ok(Self { core: Arc::new(core) })
    }

    #[pyo3(signature = (texts, text_pairs=None, *, add_special_tokens=true, truncation=None,
        max_length=None, stride=0, truncation_side=None, return_token_type_ids=false,
        return_offsets_mapping=false, return_word_ids=false, return_sequence_ids=false,
        return_overflowing_tokens=false, is_split_into_words=false))]
    #[allow(clippy::too_many_arguments)]
    fn encode_ragged(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        text_pairs: Option<&Bound<'_, PyAny>>,
        add_special_tokens: bool,
        truncation: Option<&Bound<'_, PyAny>>,
        max_length: Option<i64>,
        stride: i64,
        truncation_side: Option<&str>,
        return_token_type_ids: bool,
        return_offsets_mapping: bool,
        return_word_ids: bool,
        return_sequence_ids: bool,
        return_overflowing_tokens: bool,
        is_split_into_words: bool,
    ) -> PyResult<Ragged> {
        let options = EncodeOptions {
            add_special_tokens,
            truncation: strategy(truncation)?,
            max_length: max_length.map(|length| count("max_length", length)).transpose()?,
            stride: count("stride", stride)?,
            truncation_side: match truncation_side {
                Some(name) => side(name)?,
                None => self.core.settings().truncation_side,
            },
            want_token_type_ids: return_token_type_ids,
            want_offsets: return_offsets_mapping,
            want_word_ids: return_word_ids,
            want_sequence_ids: return_sequence_ids,
            want_overflow: return_overflowing_tokens,
        };
        if is_split_into_words {
            let texts = word_lists("texts", texts)?;
            let pairs = text_pairs.map(|pairs| word_lists("text_pairs", pairs)).transpose()?;
            let texts = word_views("texts", &texts)?;
            let pairs = pairs.as_deref().map(|pairs| word_views("text_pairs", pairs)).transpose()?;
            return Ragged::new(py, encode(py, &self.core, &texts, pairs.as_deref(), &options)?);
        }
        let pairs = text_pairs.map(|pairs| strings("text_pairs", pairs)).transpose()?;
        let pairs = pairs.as_ref().map(|pairs| views("text_pairs", pairs)).transpose()?;
        if let Ok(lines) = texts.cast::<Lines>() {
            let texts = lines.get().texts(py)?;
            let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
            return Ragged::new(py, encode(py, &self.core, &texts, pairs.as_deref(), &options)?);
        }
        let texts = strings("texts", texts)?;
        let texts = views("texts", &texts)?;
        Ragged::new(py, encode(py, &self.core, &texts, pairs.as_deref(), &options)?)
    }

    fn decode(&self, py: Python<'_>, ids: Vec<i64>, skip_special_tokens: bool) -> String {
        py.detach(|| self.core.decode(&ids, skip_special_tokens))
    }

    fn decode_tokens(&self, tokens: Vec<String>) -> String {
        self.core.decode_tokens(tokens.iter().map(String::as_str))
    }

    fn added_vocab<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let vocab = PyDict::new(py);
        self.core.added_vocab().try_for_each(|(id, token)| vocab.set_item(token, id))?;
        Ok(vocab)
    }

    fn normalize(&self, text: &Bound<'_, PyString>) -> PyResult<String> {
        Ok(self.core.normalize(text.to_str().map_err(|error| not_text("text", text, error))?))
    }

    fn vocab<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let vocab = PyDict::new(py);
        self.core.vocab().into_iter().try_for_each(|(id, token)| vocab.set_item(token, id))?;
        Ok(vocab)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.core.token_to_id(token)
    }

    fn id_to_token(&self, id: i64) -> Option<&str> {
        self.core.id_to_token(u32::try_from(id).ok()?)
    }

    fn num_special_tokens_to_add(&self, pair: bool) -> usize {
        self.core.num_special_tokens_to_add(pair)
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.core.vocab_size()
    }

    #[getter]
    fn all_special_ids(&self) -> Vec<u32> {
        self.core.all_special_ids()
    }

    /// What the folder says beside the vocabulary, by the names of `tokenizer_config.json`.
    #[getter]
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (settings, normalizer) = (self.core.settings(), self.core.normalizer_options());
        let special = &settings.special_tokens;
        let side = |side| if side == Side::Left { "left" } else { "right" };
        let dict = PyDict::new(py);
        let compat = if settings.compat == Compat::Google { "google" } else { "huggingface" };
        dict.set_item("compat", compat)?;
        dict.set_item("unk_token", &special.unk)?;
        dict.set_item("sep_token", &special.sep)?;
        dict.set_item("pad_token", &special.pad)?;
        dict.set_item("cls_token", &special.cls)?;
        dict.set_item("mask_token", &special.mask)?;
        dict.set_item("model_max_length", settings.model_max_length)?;
        dict.set_item("padding_side", side(settings.padding_side))?;
        dict.set_item("truncation_side", side(settings.truncation_side))?;
        dict.set_item("clean_up_tokenization_spaces", settings.clean_up_tokenization_spaces)?;
        dict.set_item("model_input_names", &settings.model_input_names)?;
        dict.set_item("clean_text", normalizer.clean_text)?;
        dict.set_item("handle_chinese_chars", normalizer.handle_chinese_chars)?;
        dict.set_item("strip_accents", normalizer.strip_accents)?;
        dict.set_item("lowercase", normalizer.lowercase)?;
        Ok(dict)
    }
}

/// Encodes without the GIL, coming back for Ctrl-C every few megabytes.
fn encode<T: Text>(
    py: Python<'_>,
    tokenizer: &core::Tokenizer,
    texts: &[T],
    pairs: Option<&[T]>,
    options: &EncodeOptions,
) -> PyResult<core::Ragged> {
    let mut out = core::Ragged::new(options);
    let threads = Pool::global().size();
    let mut start = 0;
    loop {
        let mut bytes = 0;
        let more = texts[start..].iter().take_while(|text| {
            let fits = bytes < CHUNK_BYTES;
            bytes += text.bytes();
            fits
        });
        let range = start..start + more.count();
        start = range.end;
        py.detach(|| tokenizer.encode_range_on_threads(texts, pairs, range, options, threads, &mut out))
            .map_err(to_py)?;
        if start == texts.len() {
            return Ok(out);
        }
        py.check_signals()?;
    }
}

/// The words of each text.
fn word_lists<'py>(name: &str, texts: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
    let texts = sequence(name, texts, "lists of str")?;
    let words = |(index, words): (usize, Bound<'py, PyAny>)| strings(&format!("{name}[{index}]"), &words);
    texts.iter().enumerate().map(words).collect()
}

fn word_views<'a>(name: &str, texts: &'a [Bound<'_, PyTuple>]) -> PyResult<Vec<Vec<&'a str>>> {
    texts.iter().enumerate().map(|(index, words)| views(&format!("{name}[{index}]"), words)).collect()
}

/// What is in a list or another sequence of str, kept alive while its UTF-8 is in use, whatever becomes of the list.
pub fn strings<'py>(name: &str, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    sequence(name, texts, "str")
}

/// What is in a list or another sequence that is not one text.
fn sequence<'py>(name: &str, texts: &Bound<'py, PyAny>, of: &str) -> PyResult<Bound<'py, PyTuple>> {
    let is_one_text = texts.is_instance_of::<PyString>()
        || texts.is_instance_of::<PyBytes>()
        || texts.is_instance_of::<PyByteArray>();
    match texts.cast::<PySequence>() {
        Ok(texts) if !is_one_text => texts.to_tuple(),
        _ => Err(PyTypeError::new_err(format!("{name}: expected a list of {of}, got {}", type_name(texts)))),
    }
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// The UTF-8 of each string, which Python makes once and keeps.
pub fn views<'a>(name: &str, texts: &'a Bound<'_, PyTuple>) -> PyResult<Vec<&'a str>> {
    let view = |(index, text): (usize, Borrowed<'a, '_, PyAny>)| {
        text.extract().map_err(|error| not_text(&format!("{name}[{index}]"), &text, error))
    };
    texts.iter_borrowed().enumerate().map(view).collect()
}

/// Why something could not be read as a text.
pub fn not_text(place: &str, text: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    if !text.is_instance_of::<PyString>() {
        return PyTypeError::new_err(format!("{place}: expected str, got {}", type_name(text)));
    }
    if !error.is_instance_of::<PyUnicodeEncodeError>(text.py()) {
        return error;
    }
    let at = error.value(text.py()).getattr("start").and_then(|start| start.extract::<usize>()).unwrap_or(0);
    bad_value(format!(
        "{place}: expected text that can be written as UTF-8, got a lone surrogate at character {at}"
    ))
}

/// `truncation=`: yes or no, or the name of a strategy.
fn strategy(truncation: Option<&Bound<'_, PyAny>>) -> PyResult<Strategy> {
    let Some(truncation) = truncation else { return Ok(Strategy::None) };
    if let Ok(flag) = truncation.extract::<bool>() {
        return Ok(if flag { Strategy::LongestFirst } else { Strategy::None });
    }
    let Ok(name) = truncation.extract::<String>() else {
        return Err(PyTypeError::new_err(format!(
            "truncation: expected a bool or a str, got {}",
            type_name(truncation)
        )));
    };
    match name.as_str() {
        "do_not_truncate" => Ok(Strategy::None),
        "longest_first" => Ok(Strategy::LongestFirst),
        "only_first" => Ok(Strategy::OnlyFirst),
        "only_second" => Ok(Strategy::OnlySecond),
        _ => Err(bad_value(format!(
            "truncation: expected a bool, \"longest_first\", \"only_first\", \"only_second\" or \
             \"do_not_truncate\", got {name:?}"
        ))),
    }
}

/// How many tokens are kept of a text, or of both of a pair, so that the sum is at most `budget`; with `stride`, that
/// the others fit into windows.
#[pyfunction]
#[pyo3(signature = (first, second, budget, strategy, stride=None, sample=0))]
pub fn kept_lengths(
    first: usize,
    second: Option<usize>,
    budget: usize,
    strategy: &Bound<'_, PyAny>,
    stride: Option<usize>,
    sample: usize,
) -> PyResult<(usize, Option<usize>)> {
    let kept = core::kept(first, second, budget, self::strategy(Some(strategy))?).map_err(to_py)?;
    if let Some(stride) = stride
        && kept != (first, second)
    {
        let texts = [(first, kept.0)].into_iter().chain(second.zip(kept.1));
        core::check_windows(texts, stride, sample).map_err(to_py)?;
    }
    Ok(kept)
}

/// A numpy array of this type; of `shape`, where it says a number.
fn array<T: Element, D: ndarray::Dimension, const N: usize>(
    name: &str,
    value: &Bound<'_, PyAny>,
    shape: [Option<usize>; N],
) -> PyResult<Py<PyArray<T, D>>> {
    let expected = dtype::<T>(value.py());
    let any = value.cast::<PyUntypedArray>().map_err(|_| {
        PyTypeError::new_err(format!("{name}: expected a numpy array, got {}", type_name(value)))
    })?;
    if !any.dtype().is_equiv_to(&expected) {
        return Err(new_err("DtypeError", format!("{name}: expected {expected}, got {}", any.dtype())));
    }
    let fits = |(&got, wanted): (&usize, Option<usize>)| wanted.is_none_or(|wanted| wanted == got);
    if any.ndim() != N || !any.shape().iter().zip(shape).all(fits) {
        let sizes = shape.map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string()));
        let message = format!("{name}: expected shape ({}), got {:?}", sizes.join(", "), any.shape());
        return Err(new_err("ShapeError", message));
    }
    Ok(value.cast::<PyArray<T, D>>()?.clone().unbind())
}

/// That boundaries rise from 0 to `tokens`; how many sequences they bound.
fn check_boundaries(cu_seqlens: &Bound<'_, PyArray1<i64>>, tokens: usize) -> PyResult<usize> {
    let ends = cu_seqlens.try_readonly()?;
    let ends = ends.as_array();
    let rises = ends.iter().zip(ends.iter().skip(1)).all(|(start, end)| start <= end);
    if !rises || ends.first() != Some(&0) || ends.last() != Some(&(tokens as i64)) {
        let message = format!("cu_seqlens: expected to rise from 0 to {tokens}, the length of input_ids");
        return Err(new_err("ShapeError", message));
    }
    Ok(ends.len() - 1)
}

/// `compat=`: whose rules.
fn rules(compat: &Bound<'_, PyAny>) -> PyResult<Compat> {
    match compat.extract::<String>().as_deref() {
        Ok("huggingface") => Ok(Compat::HuggingFace),
        Ok("google") => Ok(Compat::Google),
        _ => {
            Err(bad_value(format!("compat: expected \"huggingface\" or \"google\", got {}", compat.repr()?)))
        }
    }
}

fn count(name: &str, number: i64) -> PyResult<usize> {
    usize::try_from(number).map_err(|_| bad_value(format!("{name}: expected 0 or more, got {number}")))
}

fn bad_value(message: String) -> PyErr {
    to_py(bertfast_core::Error::Value(message))
}

fn side(name: &str) -> PyResult<Side> {
    match name {
        "left" => Ok(Side::Left),
        "right" => Ok(Side::Right),
        _ => Err(bad_value(format!("truncation_side: expected \"left\" or \"right\", got {name:?}"))),
    }
}
