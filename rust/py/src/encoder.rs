//! The encoder as a Python class.

use std::path::PathBuf;

use bertfast_core::Result;
use bertfast_core::checkpoint::Checkpoint;
use bertfast_core::config::Config;
use bertfast_core::encoder::{self as core, Batch, HeadOutputs, Outputs, Pooled, Pooling, Take, TopK};
use bertfast_core::head::Task;
use bertfast_core::memory::zeros;
use bertfast_core::ops::Dtype;
use bertfast_core::simd::Isa;
use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::slice_mut;
use crate::errors::{interrupted, to_py};
use crate::tokenizer::{Tokenizer, strings, views};

/// A BERT on the Rust engine.
#[pyclass(frozen, module = "bertfast._bertfast")]
pub struct Encoder(core::Encoder);

type Ids<'py> = PyReadonlyArray1<'py, i32>;
type Offsets<'py> = PyReadonlyArray1<'py, i64>;
type Matrix<'py, T> = Bound<'py, PyArray2<T>>;

/// The batch behind some arrays, checked.
fn batch<'a>(
    encoder: &core::Encoder,
    input_ids: &'a Ids<'_>,
    cu_seqlens: &'a Offsets<'_>,
    token_type_ids: Option<&'a Ids<'_>>,
    position_ids: Option<&'a Ids<'_>>,
) -> PyResult<Batch<'a>> {
    let batch = Batch {
        input_ids: input_ids.as_slice()?,
        cu_seqlens: cu_seqlens.as_slice()?,
        token_type_ids: token_type_ids.map(|ids| ids.as_slice()).transpose()?,
        position_ids: position_ids.map(|ids| ids.as_slice()).transpose()?,
    };
    batch.check(encoder.config()).map_err(to_py)?;
    Ok(batch)
}

fn modes(names: &[String]) -> Result<Vec<Pooling>> {
    names.iter().map(|name| Pooling::from_name(name)).collect()
}

fn task(name: Option<&str>) -> Result<Option<Task>> {
    name.map(Task::from_name).transpose()
}

fn dtypes(names: &[String]) -> Result<Vec<Dtype>> {
    names.iter().map(|name| Dtype::from_name(name)).collect()
}

/// Pack a model into one file for `Encoder.open_packed`, with one dtype for all layers or one for each, whether or not
/// this CPU multiplies it, and with the head of a name.
#[pyfunction]
#[pyo3(signature = (config_json, weight_files, layer_dtypes, output, num_threads=None, head=None))]
pub fn pack(
    py: Python<'_>,
    config_json: &str,
    weight_files: Vec<PathBuf>,
    layer_dtypes: Vec<String>,
    output: PathBuf,
    num_threads: Option<usize>,
    head: Option<&str>,
) -> PyResult<()> {
    py.detach(|| {
        let config = Config::from_json(config_json)?;
        let checkpoint = Checkpoint::open(&weight_files)?;
        let (dtypes, isa, head) = (dtypes(&layer_dtypes)?, Isa::choose(None)?, task(head)?);
        core::pack(&config, &checkpoint, &dtypes, &output, isa, num_threads, head)
    })
    .map_err(to_py)
}

#[pymethods]
impl Encoder {
    /// Open a model: the text of `config.json` and the safetensors files. `layer_dtypes`, one for each layer, take the
    /// place of `dtype`; `head` is the name of the head that it is opened with.
    #[staticmethod]
    #[pyo3(signature = (config_json, weight_files, dtype="float32", num_threads=None, isa=None, layer_dtypes=None,
                        head=None))]
    #[allow(clippy::too_many_arguments)]
    fn load(
        py: Python<'_>,
        config_json: &str,
        weight_files: Vec<PathBuf>,
        dtype: &str,
        num_threads: Option<usize>,
        isa: Option<&str>,
        layer_dtypes: Option<Vec<String>>,
        head: Option<&str>,
    ) -> PyResult<Self> {
        py.detach(|| {
            let names = layer_dtypes.unwrap_or_else(|| vec![dtype.to_owned()]);
            let config = Config::from_json(config_json)?;
            let checkpoint = Checkpoint::open(&weight_files)?;
            let (dtypes, isa, head) = (dtypes(&names)?, Isa::choose(isa)?, task(head)?);
            core::Encoder::new(config, &checkpoint, &dtypes, isa, num_threads, head)
        })
        .map(Self)
        .map_err(to_py)
    }

    /// Open a model that `pack` wrote: the text of `config.json` and the file. `wanted` are the dtypes of which it must
    /// be one; none means any.
    #[staticmethod]
    #[pyo3(signature = (config_json, file, wanted, num_threads=None, isa=None, head=None))]
    fn open_packed(
        py: Python<'_>,
        config_json: &str,
        file: PathBuf,
        wanted: Vec<String>,
        num_threads: Option<usize>,
        isa: Option<&str>,
        head: Option<&str>,
    ) -> PyResult<Self> {
        py.detach(|| {
            let config = Config::from_json(config_json)?;
            let file = Checkpoint::open(&[file])?;
            let (wanted, isa, head) = (dtypes(&wanted)?, Isa::choose(isa)?, task(head)?);
            core::Encoder::open(config, &file, &wanted, isa, num_threads, head)
        })
        .map(Self)
        .map_err(to_py)
    }

    /// Hidden states and what is derived from them; what is not asked for is None. `rows` are the only tokens of which
    /// a head of tokens gives logits.
    #[pyo3(signature = (input_ids, cu_seqlens, token_type_ids=None, position_ids=None, *, last_hidden_state=true,
                        pooler_output=true, hidden_states=false, attentions=false, logits=false, rows=None,
                        num_threads=None))]
    #[allow(clippy::too_many_arguments)]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        input_ids: Ids<'py>,
        cu_seqlens: Offsets<'py>,
        token_type_ids: Option<Ids<'py>>,
        position_ids: Option<Ids<'py>>,
        last_hidden_state: bool,
        pooler_output: bool,
        hidden_states: bool,
        attentions: bool,
        logits: bool,
        rows: Option<Offsets<'py>>,
        num_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let encoder = &self.0;
        let batch = batch(encoder, &input_ids, &cu_seqlens, token_type_ids.as_ref(), position_ids.as_ref())?;
        let (t, b, d) = (batch.tokens(), batch.len(), encoder.config().hidden_size);
        let (layers, heads) = (encoder.config().num_hidden_layers, encoder.config().num_attention_heads);
        let squares: usize = (0..b).map(|i| batch.sequence(i).1.pow(2)).sum();
        let zeros = |wanted: bool, len: usize| wanted.then(|| zeros::<f32>(len)).transpose().map_err(to_py);
        let mut last = zeros(last_hidden_state, t * d)?;
        let mut pooler = zeros(pooler_output && encoder.has_pooler(), b * d)?;
        let mut hidden = zeros(hidden_states, (layers + 1) * t * d)?;
        let mut probabilities = zeros(attentions, squares.saturating_mul(layers * heads))?;
        let rows = rows.as_ref().map(|rows| rows.as_slice()).transpose()?;
        let (count, labels) = match (encoder.head(), rows) {
            (Some((_, labels)), Some(rows)) => (rows.len(), labels),
            (Some((task, labels)), None) => (if task.is_of_tokens() { t } else { b }, labels),
            (None, _) => (0, 0),
        };
        let mut scores = zeros(logits, count * labels)?;
        let outputs = Outputs {
            last_hidden_state: last.as_deref_mut(),
            pooler_output: pooler.as_deref_mut(),
            hidden_states: hidden.as_deref_mut(),
            attentions: probabilities.as_deref_mut(),
            pooled: None,
            head: scores.as_deref_mut().map(|out| HeadOutputs { take: Take::All, rows, out }),
        };
        py.detach(|| encoder.forward_unless(&batch, outputs, num_threads, interrupted)).map_err(to_py)?;
        let array = |values: Option<Vec<f32>>, shape: &[usize]| {
            values.map(|values| values.into_pyarray(py).reshape(shape.to_vec())).transpose()
        };
        let results = PyDict::new(py);
        results.set_item("last_hidden_state", array(last, &[t, d])?)?;
        results.set_item("pooler_output", array(pooler, &[b, d])?)?;
        results.set_item("hidden_states", array(hidden, &[layers + 1, t, d])?)?;
        results.set_item("attentions", array(probabilities, &[layers, heads * squares])?)?;
        results.set_item("logits", array(scores, &[count, labels])?)?;
        Ok(results)
    }

    /// The `k` likeliest outputs of the head for the tokens `rows`: probabilities and places, (R, k).
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (input_ids, cu_seqlens, token_type_ids, rows, k, num_threads=None))]
    fn top_k<'py>(
        &self,
        py: Python<'py>,
        input_ids: Ids<'py>,
        cu_seqlens: Offsets<'py>,
        token_type_ids: Option<Ids<'py>>,
        rows: Offsets<'py>,
        k: usize,
        num_threads: Option<usize>,
    ) -> PyResult<(Matrix<'py, f32>, Matrix<'py, i32>)> {
        let encoder = &self.0;
        let batch = batch(encoder, &input_ids, &cu_seqlens, token_type_ids.as_ref(), None)?;
        let rows = rows.as_slice()?;
        // No more than there can be: what is wrong with `k` is said below.
        let count = rows.len() * k.min(encoder.head().map_or(0, |(_, labels)| labels));
        let (mut probabilities, mut places) =
            (zeros::<f32>(count).map_err(to_py)?, zeros::<i32>(count).map_err(to_py)?);
        py.detach(|| {
            let wanted = TopK { rows, k, probabilities: &mut probabilities, places: &mut places };
            encoder.top_k(&batch, wanted, num_threads, interrupted)
        })
        .map_err(to_py)?;
        let shape = [rows.len(), k];
        Ok((probabilities.into_pyarray(py).reshape(shape)?, places.into_pyarray(py).reshape(shape)?))
    }

    /// SPLADE: of `log1p(relu(logits))` the greatest or the sum over each sequence, into `out`, (B, V).
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (input_ids, cu_seqlens, token_type_ids, strategy, out, num_threads=None))]
    fn sparse<'py>(
        &self,
        py: Python<'py>,
        input_ids: Ids<'py>,
        cu_seqlens: Offsets<'py>,
        token_type_ids: Option<Ids<'py>>,
        strategy: &str,
        out: &Matrix<'py, f32>,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let encoder = &self.0;
        let batch = batch(encoder, &input_ids, &cu_seqlens, token_type_ids.as_ref(), None)?;
        let take = Take::from_name(strategy).map_err(to_py)?;
        let mut out = out.try_readwrite()?;
        let out = slice_mut(&mut out)?;
        py.detach(|| {
            let head = Some(HeadOutputs { take, rows: None, out });
            let outputs = Outputs { head, ..Outputs::default() };
            encoder.forward_unless(&batch, outputs, num_threads, interrupted)
        })
        .map_err(to_py)
    }

    /// One vector per sequence into `out`, (B, modes x D).
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (input_ids, cu_seqlens, token_type_ids, modes, skip, normalize, out, num_threads=None))]
    fn pool<'py>(
        &self,
        py: Python<'py>,
        input_ids: Ids<'py>,
        cu_seqlens: Offsets<'py>,
        token_type_ids: Option<Ids<'py>>,
        modes: Vec<String>,
        skip: usize,
        normalize: bool,
        out: &Matrix<'py, f32>,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let encoder = &self.0;
        let batch = batch(encoder, &input_ids, &cu_seqlens, token_type_ids.as_ref(), None)?;
        let modes = self::modes(&modes).map_err(to_py)?;
        let mut out = out.try_readwrite()?;
        let out = slice_mut(&mut out)?;
        py.detach(|| {
            let pooled = Some(Pooled { modes: &modes, skip, normalize, out });
            let outputs = Outputs { pooled, ..Outputs::default() };
            encoder.forward_unless(&batch, outputs, num_threads, interrupted)
        })
        .map_err(to_py)
    }

    /// Tokenize `prefix + text`, run and pool into `out`, without the GIL; how many texts were truncated.
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (tokenizer, texts, *, prefix, max_length, modes, skip, normalize, out, num_threads=None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        tokenizer: &Tokenizer,
        texts: &Bound<'py, PyAny>,
        prefix: &str,
        max_length: usize,
        modes: Vec<String>,
        skip: usize,
        normalize: bool,
        out: &Matrix<'py, f32>,
        num_threads: Option<usize>,
    ) -> PyResult<usize> {
        let texts = strings("texts", texts)?;
        let texts = views("texts", &texts)?;
        let modes = self::modes(&modes).map_err(to_py)?;
        let (encoder, tokenizer) = (&self.0, tokenizer.core());
        let mut out = out.try_readwrite()?;
        let out = slice_mut(&mut out)?;
        py.detach(|| {
            let pooled = Pooled { modes: &modes, skip, normalize, out };
            if prefix.is_empty() {
                return encoder.encode(tokenizer, &texts, max_length, pooled, num_threads, interrupted);
            }
            let texts: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            encoder.encode(tokenizer, &texts, max_length, pooled, num_threads, interrupted)
        })
        .map_err(to_py)
    }

    /// What runs: instruction set, threads, sizes, unused tensors and the configuration's numbers.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (encoder, config) = (&self.0, self.0.config());
        let info = PyDict::new(py);
        info.set_item("isa", encoder.isa().name())?;
        info.set_item("kernels", encoder.kernels())?;
        let mut one = encoder.dtypes().to_vec();
        one.dedup();
        info.set_item("dtype", if let [one] = one[..] { one.name() } else { "mixed" })?;
        info.set_item("layer_dtypes", encoder.dtypes().iter().map(|dtype| dtype.name()).collect::<Vec<_>>())?;
        let saved = encoder.saved_dtypes();
        let saved: Option<Vec<_>> = saved.map(|dtypes| dtypes.iter().map(|dtype| dtype.name()).collect());
        info.set_item("saved_layer_dtypes", saved)?;
        info.set_item("mapped", encoder.is_mapped())?;
        info.set_item("attention_dtype", encoder.attention_dtype().name())?;
        info.set_item("num_threads", encoder.threads())?;
        info.set_item("packed_bytes", encoder.packed_bytes())?;
        info.set_item("pooler", encoder.has_pooler())?;
        info.set_item("head", encoder.head().map(|(task, _)| task.name()))?;
        info.set_item("num_labels", encoder.head().map_or(0, |(_, labels)| labels))?;
        info.set_item("unused", encoder.unused())?;
        info.set_item("vocab_size", config.vocab_size)?;
        info.set_item("family", config.family.model_types[0])?;
        info.set_item("embedding_size", config.embedding_size)?;
        info.set_item("hidden_size", config.hidden_size)?;
        info.set_item("num_hidden_layers", config.num_hidden_layers)?;
        info.set_item("num_attention_heads", config.num_attention_heads)?;
        info.set_item("intermediate_size", config.intermediate_size)?;
        info.set_item("max_position_embeddings", config.max_position_embeddings)?;
        info.set_item("first_position", config.first_position())?;
        info.set_item("type_vocab_size", config.type_vocab_size)?;
        Ok(info)
    }
}
