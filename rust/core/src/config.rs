//! `config.json` of a checkpoint: the numbers that shape the encoder, each one checked.
//!
//! The keys and their defaults are those of Hugging Face's configuration classes, `BertConfig` and those of the other
//! families ([`crate::family`]); the sizes have no default here, because a model of guessed size is never what the
//! caller wants. Keys that do not change inference (dropout, initialisation) are ignored.

use serde_json::{Map, Value};

use crate::encoder::Pooling;
use crate::error::{Error, Result};
use crate::family::{EmbeddingSize, FAMILIES, Family, Positions};

/// The non-linearity of the feed-forward layer (`hidden_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x/2 * (1 + erf(x / sqrt 2)): `"gelu"`.
    Gelu,
    /// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))): `"gelu_new"` and its spellings.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x / (1 + exp(-x)).
    Silu,
    /// tanh(x).
    Tanh,
}

/// Every accepted `hidden_act`, as `transformers.activations.ACT2FN` names them.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// The ids are int32, so no table can be longer; it also keeps every later product inside `u128`.
const MAX_SIZE: u64 = i32::MAX as u64;

/// More weights than this (4 TB in f32) are a damaged file, not a model.
const MAX_WEIGHTS: u128 = 1 << 40;

/// The shape of an encoder. Field names are BERT's keys of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the files of such a model call things.
    pub family: &'static Family,
    /// Rows of the word embedding table (V).
    pub vocab_size: usize,
    /// Width of an embedding (E); a matrix widens them to D where [`Config::widens`] says so.
    pub embedding_size: usize,
    /// Width of a hidden state (D).
    pub hidden_size: usize,
    /// Layers (L), those that are computed several times counted as often.
    pub num_hidden_layers: usize,
    /// Layers that have weights of their own: as many as there are, or fewer, among which they are dealt out in order.
    pub num_hidden_groups: usize,
    /// Heads per layer (N); divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer (F).
    pub intermediate_size: usize,
    /// Non-linearity of the feed-forward layer.
    pub hidden_act: Activation,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Rows of the token type table, 0 if there is none.
    pub type_vocab_size: usize,
    /// Epsilon of every LayerNorm.
    pub layer_norm_eps: f64,
    /// Id of the padding token, if the model has one.
    pub pad_token_id: Option<usize>,
    /// What a head for sequences reads.
    pub classifier_pooling: Pooling,
}

impl Config {
    /// Width of one head (H).
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Whether a matrix stands between embeddings and layers.
    pub fn widens(&self) -> bool {
        match self.family.embedding_size {
            EmbeddingSize::Hidden => false,
            EmbeddingSize::Own => true,
            EmbeddingSize::OwnIfDifferent => self.embedding_size != self.hidden_size,
        }
    }

    /// Which weights a layer has.
    pub fn weights_of(&self, layer: usize) -> usize {
        // As the original divides.
        (layer as f64 / (self.num_hidden_layers as f64 / self.num_hidden_groups as f64)) as usize
    }

    /// The position of the first token.
    pub fn first_position(&self) -> usize {
        match self.family.positions {
            Positions::FromZero => 0,
            Positions::BehindPadding => self.pad_token_id.unwrap_or(0) + 1,
        }
    }

    /// Tokens of the longest sequence.
    pub fn max_sequence_length(&self) -> usize {
        self.max_position_embeddings - self.first_position()
    }

    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, the value and what was expected.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| error(format!("not valid JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(error(format!("expected a JSON object, got {}", shown(&value))));
        };
        let family = family(&map)?;
        refuse_unsupported(&map, family)?;
        let keys = &family.keys;
        let (hidden_size, num_hidden_layers) =
            (size(&map, keys.hidden_size, None)?, size(&map, keys.num_hidden_layers, None)?);
        let config = Self {
            family,
            vocab_size: size(&map, "vocab_size", None)?,
            embedding_size: match family.embedding_size {
                EmbeddingSize::Hidden => hidden_size,
                EmbeddingSize::Own | EmbeddingSize::OwnIfDifferent => {
                    size(&map, "embedding_size", Some(128))?
                }
            },
            hidden_size,
            num_hidden_layers,
            num_hidden_groups: if family.shares_layers {
                size(&map, "num_hidden_groups", Some(1))?
            } else {
                num_hidden_layers
            },
            num_attention_heads: size(&map, keys.num_attention_heads, None)?,
            intermediate_size: size(&map, keys.intermediate_size, None)?,
            hidden_act: activation(&map, family)?,
            max_position_embeddings: size(&map, "max_position_embeddings", None)?,
            type_vocab_size: match family.names.token_types {
                Some(_) => size(&map, "type_vocab_size", Some(2))?,
                None => 0,
            },
            layer_norm_eps: match keys.layer_norm_eps {
                Some(key) => layer_norm_eps(&map, key)?,
                None => 1e-12,
            },
            pad_token_id: pad_token_id(&map, family)?,
            classifier_pooling: classifier_pooling(&map)?,
        };
        config.check_together()?;
        Ok(config)
    }

    fn check_together(&self) -> Result<()> {
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(error(format!(
                "num_attention_heads: {} heads do not divide hidden_size {}",
                self.num_attention_heads, self.hidden_size
            )));
        }
        if let Some(id) = self.pad_token_id.filter(|&id| id >= self.vocab_size) {
            return Err(error(format!("pad_token_id: {id} is outside vocab_size {}", self.vocab_size)));
        }
        if self.num_hidden_groups > self.num_hidden_layers {
            return Err(error(format!(
                "num_hidden_groups: {} groups are more than the {} layers",
                self.num_hidden_groups, self.num_hidden_layers
            )));
        }
        if self.first_position() >= self.max_position_embeddings {
            return Err(error(format!(
                "max_position_embeddings: expected more than {}, where positions begin, got {}",
                self.first_position(),
                self.max_position_embeddings
            )));
        }
        // Each factor is below 2^31, so no product of three and no sum of these can pass 2^127.
        let [v, e, d, l, f, p, t] = [
            self.vocab_size,
            self.embedding_size,
            self.hidden_size,
            self.num_hidden_layers,
            self.intermediate_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ]
        .map(|n| n as u128);
        let weights = (v + p + t) * e + e * d + l * (4 * d * d + 2 * d * f);
        if weights > MAX_WEIGHTS {
            return Err(error(format!(
                "vocab_size {v}, embedding_size {e}, hidden_size {d}, num_hidden_layers {l}, intermediate_size {f}, \
                 max_position_embeddings {p} and type_vocab_size {t} make {weights} weights, \
                 expected at most {MAX_WEIGHTS}"
            )));
        }
        Ok(())
    }
}

fn error(message: String) -> Error {
    Error::Config(format!("config.json: {message}"))
}

/// A value as it stands in the file, cut short: messages stay readable whatever the file holds.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The value of `key`; `null` counts as absent, as in Hugging Face's files.
fn lookup<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

fn family(map: &Map<String, Value>) -> Result<&'static Family> {
    let known = || {
        let types = FAMILIES.iter().flat_map(|family| family.model_types);
        types.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    };
    if let Some(value) = lookup(map, "model_type") {
        let found =
            value.as_str().and_then(|name| FAMILIES.iter().find(|family| family.model_types.contains(&name)));
        return found
            .ok_or_else(|| error(format!("model_type: expected one of {}, got {}", known(), shown(value))));
    }
    // Files older than `model_type` (Google's `bert_config.json`) name no family; `architectures` may.
    let bert = &FAMILIES[0];
    match lookup(map, "architectures") {
        None => Ok(bert),
        Some(Value::Array(classes)) => {
            let mut family = bert;
            for class in classes {
                let of = |family: &&Family| {
                    class
                        .as_str()
                        .is_some_and(|class| family.classes.iter().any(|start| class.starts_with(start)))
                };
                family = FAMILIES.iter().find(of).ok_or_else(|| {
                    error(format!(
                        "architectures: {} is not a model of type {} and model_type is absent",
                        shown(class),
                        known()
                    ))
                })?;
            }
            Ok(family)
        }
        Some(value) => Err(error(format!("architectures: expected a list of names, got {}", shown(value)))),
    }
}

/// Switches of the configurations that change the computation to one this crate does not have.
fn refuse_unsupported(map: &Map<String, Value>, family: &Family) -> Result<()> {
    if family.shares_layers
        && let Some(value) = lookup(map, "inner_group_num").filter(|value| value.as_u64() != Some(1))
    {
        return Err(error(format!("inner_group_num: expected 1, got {}", shown(value))));
    }
    if let Some(value) = lookup(map, "position_embedding_type").filter(|v| v.as_str() != Some("absolute")) {
        return Err(error(format!("position_embedding_type: expected \"absolute\", got {}", shown(value))));
    }
    for key in ["is_decoder", "add_cross_attention"] {
        if let Some(value) = lookup(map, key).filter(|v| v.as_bool() != Some(false)) {
            return Err(error(format!("{key}: expected false (an encoder), got {}", shown(value))));
        }
    }
    Ok(())
}

fn size(map: &Map<String, Value>, key: &str, default: Option<usize>) -> Result<usize> {
    let Some(value) = lookup(map, key) else {
        return default.ok_or_else(|| {
            error(format!("{key} is missing: this is not the configuration of such a model"))
        });
    };
    match value.as_u64() {
        Some(n @ 1..=MAX_SIZE) => Ok(n as usize),
        _ => Err(error(format!("{key}: expected an integer from 1 to {MAX_SIZE}, got {}", shown(value)))),
    }
}

fn activation(map: &Map<String, Value>, family: &Family) -> Result<Activation> {
    let key = family.keys.hidden_act;
    let Some(value) = lookup(map, key) else {
        return Ok(family.activation);
    };
    let found = value.as_str().and_then(|name| ACTIVATIONS.iter().find(|(known, _)| *known == name));
    found.map(|(_, activation)| *activation).ok_or_else(|| {
        let known: Vec<_> = ACTIVATIONS.iter().map(|(name, _)| *name).collect();
        error(format!("{key}: expected one of {}, got {}", known.join(", "), shown(value)))
    })
}

/// `classifier_pooling`, as ModernBERT's files say it.
fn classifier_pooling(map: &Map<String, Value>) -> Result<Pooling> {
    let known = [Pooling::Cls, Pooling::Mean, Pooling::Max];
    let Some(value) = lookup(map, "classifier_pooling") else { return Ok(Pooling::Cls) };
    known.into_iter().find(|mode| value.as_str() == Some(mode.name())).ok_or_else(|| {
        error(format!("classifier_pooling: expected \"cls\", \"mean\" or \"max\", got {}", shown(value)))
    })
}

fn layer_norm_eps(map: &Map<String, Value>, key: &str) -> Result<f64> {
    let Some(value) = lookup(map, key) else {
        return Ok(1e-12);
    };
    // Above f32's largest number it would be infinite in the kernels; JSON itself has no infinity and no NaN.
    match value.as_f64() {
        Some(eps) if eps > 0.0 && eps <= f64::from(f32::MAX) => Ok(eps),
        _ => Err(error(format!("layer_norm_eps: expected a positive number, got {}", shown(value)))),
    }
}

fn pad_token_id(map: &Map<String, Value>, family: &Family) -> Result<Option<usize>> {
    // Absent means the default of the configuration class; an explicit null means that there is none.
    match map.get("pad_token_id") {
        None => Ok(Some(family.pad_token_id)),
        Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(id @ 0..=MAX_SIZE) => Ok(Some(id as usize)),
            _ => Err(error(format!("pad_token_id: expected an integer from 0, got {}", shown(value)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn minilm() -> Value {
        json!({
            "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 30522, "hidden_size": 384,
            "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536, "hidden_act": "gelu",
            "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
            "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1, "use_cache": true
        })
    }

    /// The result for MiniLM's file with one key changed; the value `REMOVED` takes the key out.
    fn with(key: &str, value: Value) -> Result<Config> {
        let mut config = minilm();
        if value == json!("REMOVED") {
            config.as_object_mut().unwrap().remove(key);
        } else {
            config[key] = value;
        }
        Config::from_json(&config.to_string())
    }

    fn message(result: Result<Config>) -> String {
        match result {
            Err(Error::Config(message)) => message,
            other => panic!("expected Error::Config, got {other:?}"),
        }
    }

    #[test]
    fn reads_a_real_file() {
        let config = Config::from_json(&minilm().to_string()).unwrap();
        assert_eq!((config.vocab_size, config.hidden_size, config.num_hidden_layers), (30522, 384, 6));
        assert_eq!(
            (config.num_attention_heads, config.head_size(), config.intermediate_size),
            (12, 32, 1536)
        );
        assert_eq!((config.max_position_embeddings, config.type_vocab_size), (512, 2));
        assert_eq!((config.hidden_act, config.layer_norm_eps), (Activation::Gelu, 1e-12));
        assert_eq!(config.pad_token_id, Some(0));
    }

    #[test]
    fn optional_keys_have_the_defaults_of_bert_config() {
        for key in
            ["hidden_act", "type_vocab_size", "layer_norm_eps", "pad_token_id", "position_embedding_type"]
        {
            assert_eq!(
                with(key, json!("REMOVED")).unwrap(),
                Config::from_json(&minilm().to_string()).unwrap()
            );
        }
        assert_eq!(with("pad_token_id", Value::Null).unwrap().pad_token_id, None);
    }

    #[test]
    fn every_size_is_required_and_checked() {
        let required = [
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ];
        for key in required {
            assert!(message(with(key, json!("REMOVED"))).contains(&format!("{key} is missing")), "{key}");
        }
        let bad = [
            json!(0),
            json!(-1),
            json!(1.5),
            json!(12.0),
            json!("12"),
            json!(true),
            json!([]),
            json!(1u64 << 31),
        ];
        for key in required.iter().chain(&["type_vocab_size"]) {
            for value in &bad {
                let message = message(with(key, value.clone()));
                assert!(
                    message.starts_with(&format!("config.json: {key}: expected an integer")),
                    "{message}"
                );
                assert!(message.ends_with(&format!("got {value}")), "{message}");
            }
        }
    }

    #[test]
    fn sizes_whose_product_overflows_are_refused() {
        let huge = json!(i32::MAX);
        let mut config = minilm();
        for key in
            ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads"]
        {
            config[key] = huge.clone();
        }
        let message = message(Config::from_json(&config.to_string()));
        assert!(message.contains("hidden_size 2147483647"), "{message}");
        assert!(message.contains("weights"), "{message}");
    }

    #[test]
    fn heads_must_divide_the_hidden_size() {
        assert_eq!(
            message(with("num_attention_heads", json!(7))),
            "config.json: num_attention_heads: 7 heads do not divide hidden_size 384"
        );
    }

    #[test]
    fn activations() {
        for (name, activation) in ACTIVATIONS {
            assert_eq!(with("hidden_act", json!(name)).unwrap().hidden_act, *activation);
        }
        let message = message(with("hidden_act", json!("mish")));
        assert!(message.contains("gelu_pytorch_tanh") && message.ends_with("got \"mish\""), "{message}");
    }

    #[test]
    fn other_models_are_refused() {
        for (key, value) in [
            ("model_type", json!("gpt2")),
            ("model_type", json!(3)),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
            ("layer_norm_eps", json!(0)),
            ("layer_norm_eps", json!(-1e-12)),
            ("layer_norm_eps", json!("1e-12")),
            ("layer_norm_eps", json!(1e300)),
            ("pad_token_id", json!(-1)),
            ("pad_token_id", json!(30522)),
        ] {
            let message = message(with(key, value.clone()));
            assert!(message.starts_with(&format!("config.json: {key}: ")), "{message}");
        }
    }

    #[test]
    fn model_type_may_be_absent_unless_architectures_contradicts() {
        let mut config = minilm();
        config.as_object_mut().unwrap().remove("model_type");
        assert!(Config::from_json(&config.to_string()).is_ok());
        config.as_object_mut().unwrap().remove("architectures");
        assert!(Config::from_json(&config.to_string()).is_ok());
        config["architectures"] = json!(["RobertaModel"]);
        assert_eq!(Config::from_json(&config.to_string()).unwrap().first_position(), 1);
        for architectures in [json!(["GPT2Model"]), json!("BertModel"), json!([1])] {
            config["architectures"] = architectures;
            assert!(message(Config::from_json(&config.to_string())).contains("architectures: "));
        }
    }

    #[test]
    fn text_that_is_no_configuration() {
        for text in ["", "{", "[]", "null", "1", "\u{0}", "{\"vocab_size\": NaN}", &"[".repeat(100_000)] {
            assert!(message(Config::from_json(text)).starts_with("config.json: "));
        }
        let long = message(Config::from_json(&format!("[\"{}\"]", "é".repeat(10_000))));
        assert!(long.len() < 300);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Config::from_json(&text);
        }

        #[test]
        fn no_value_panics(key in 0usize..15, number in any::<f64>(), integer in any::<i64>()) {
            let key = minilm().as_object().unwrap().keys().nth(key).unwrap().clone();
            let _ = with(&key, json!(number));
            if let Ok(config) = with(&key, json!(integer)) {
                prop_assert_eq!(config.head_size() * config.num_attention_heads, config.hidden_size);
            }
        }
    }
}
