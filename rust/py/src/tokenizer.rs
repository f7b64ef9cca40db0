//! `Tokenizer` and `Ragged`.

use crate::errors::to_py;
use bertfast_core::threads::Pool;
use bertfast_core::tokenizer::{self as core, Compat, EncodeOptions, Side, Strategy, Text};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PySequence, PyString};
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

    #[pyo3(signature = (texts, text_pairs=None, *, add_special_tokens=true, truncation=None,
        max_length=None, stride=0, truncation_side="right", return_token_type_ids=false,
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
        truncation_side: &str,
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
            truncation_side: side(truncation_side)?,
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
        let texts = strings("texts", texts)?;
        let pairs = text_pairs.map(|pairs| strings("text_pairs", pairs)).transpose()?;
        let texts = views("texts", &texts)?;
        let pairs = pairs.as_deref().map(|pairs| views("text_pairs", pairs)).transpose()?;
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
        Ok(self.core.normalize(view(|| "text".into(), text)?))
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
fn word_lists<'py>(name: &str, texts: &Bound<'py, PyAny>) -> PyResult<Vec<Vec<Bound<'py, PyString>>>> {
    check_list(name, texts, "lists of str")?;
    texts
        .try_iter()?
        .enumerate()
        .map(|(index, words)| strings(&format!("{name}[{index}]"), &words?))
        .collect()
}

fn word_views<'a>(name: &str, texts: &'a [Vec<Bound<'_, PyString>>]) -> PyResult<Vec<Vec<&'a str>>> {
    texts.iter().enumerate().map(|(index, words)| views(&format!("{name}[{index}]"), words)).collect()
}

/// The strings of a list or another sequence, kept alive while their UTF-8 is in use.
pub fn strings<'py>(name: &str, texts: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    check_list(name, texts, "str")?;
    let string = |(index, text): (usize, PyResult<Bound<'py, PyAny>>)| {
        text?.cast_into::<PyString>().map_err(|error| {
            let got = type_name(&error.into_inner());
            PyTypeError::new_err(format!("{name}[{index}]: expected str, got {got}"))
        })
    };
    texts.try_iter()?.enumerate().map(string).collect()
}

/// That it is a list or another sequence, and not one text.
fn check_list(name: &str, texts: &Bound<'_, PyAny>, of: &str) -> PyResult<()> {
    let is_one_text = texts.is_instance_of::<PyString>()
        || texts.is_instance_of::<PyBytes>()
        || texts.is_instance_of::<PyByteArray>();
    if is_one_text || texts.cast::<PySequence>().is_err() {
        let got = type_name(texts);
        return Err(PyTypeError::new_err(format!("{name}: expected a list of {of}, got {got}")));
    }
    Ok(())
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// The UTF-8 of each string, which Python makes once and keeps.
pub fn views<'a>(name: &str, texts: &'a [Bound<'_, PyString>]) -> PyResult<Vec<&'a str>> {
    texts.iter().enumerate().map(|(index, text)| view(|| format!("{name}[{index}]"), text)).collect()
}

fn view<'a>(place: impl Fn() -> String, text: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    text.to_str().map_err(|error| {
        if !error.is_instance_of::<PyUnicodeEncodeError>(text.py()) {
            return error;
        }
        let at =
            error.value(text.py()).getattr("start").and_then(|start| start.extract::<usize>()).unwrap_or(0);
        bad_value(format!(
            "{}: expected text that can be written as UTF-8, got a lone surrogate at character {at}",
            place()
        ))
    })
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
