//! The families of models that the encoder runs, as plain data: what their files call things, and where they differ
//! from BERT. Nothing else in this crate asks which family a model is of.
//!
//! Sources: the classes of transformers 5 (`models/{bert,roberta,xlm_roberta,camembert,albert,distilbert,electra}`).

use crate::config::Activation;
use crate::head::{self, Head};

/// What sets a family apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// How the names of its classes begin, in `architectures`.
    pub classes: &'static [&'static str],
    /// What the classes with a head save the encoder under.
    pub prefix: &'static str,
    /// The keys of `config.json`.
    pub keys: Keys,
    /// The names of the tensors.
    pub names: Names,
    /// `hidden_act` where the file does not say.
    pub activation: Activation,
    /// `pad_token_id` where the file does not say.
    pub pad_token_id: usize,
    /// Where positions begin.
    pub positions: Positions,
    /// Embeddings may be narrower than the hidden state, and are then widened.
    pub embedding_size: EmbeddingSize,
    /// All layers of a group are one.
    pub shares_layers: bool,
    /// What models of it are given for a task.
    pub heads: &'static [Head],
}

/// Where positions begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// The first token has position 0.
    FromZero,
    /// The first token has the position behind the padding token's id, which is the position of padding tokens.
    BehindPadding,
}

/// How wide embeddings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingSize {
    /// As the hidden state.
    Hidden,
    /// As `embedding_size` says; a matrix widens them, also where there is nothing to widen.
    Own,
    /// As `embedding_size` says; a matrix widens them if they are of another width.
    OwnIfDifferent,
}

/// Keys of `config.json`.
#[derive(Debug, PartialEq, Eq)]
pub struct Keys {
    /// Width of a hidden state.
    pub hidden_size: &'static str,
    /// Layers.
    pub num_hidden_layers: &'static str,
    /// Heads of a layer.
    pub num_attention_heads: &'static str,
    /// Width of the feed-forward layer.
    pub intermediate_size: &'static str,
    /// Non-linearity of the feed-forward layer.
    pub hidden_act: &'static str,
    /// Epsilon of every LayerNorm, where it can be chosen.
    pub layer_norm_eps: Option<&'static str>,
}

/// Names of tensors, without `.weight` and `.bias`.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// Word embeddings.
    pub words: &'static str,
    /// Position embeddings.
    pub positions: &'static str,
    /// Token type embeddings, where there are types.
    pub token_types: Option<&'static str>,
    /// LayerNorm of the embeddings.
    pub embedding_norm: &'static str,
    /// The matrix that widens embeddings.
    pub widening: &'static str,
    /// The number of a layer stands between these.
    pub layer: [&'static str; 2],
    /// The parts of a layer.
    pub query: &'static str,
    /// See there.
    pub key: &'static str,
    /// See there.
    pub value: &'static str,
    /// What the three are called together, in packed files.
    pub qkv: &'static str,
    /// The matrix behind the heads.
    pub attention_output: &'static str,
    /// LayerNorm after attention.
    pub attention_norm: &'static str,
    /// The first matrix of the feed-forward layer.
    pub intermediate: &'static str,
    /// The second one.
    pub output: &'static str,
    /// LayerNorm after it.
    pub output_norm: &'static str,
    /// The dense layer on the first token, where there is one.
    pub pooler: Option<&'static str>,
}

impl Names {
    /// The name of a part of a layer.
    pub fn of_layer(&self, layer: usize, part: &str) -> String {
        let [before, behind] = self.layer;
        format!("{before}{layer}{behind}.{part}")
    }
}

const BERT_KEYS: Keys = Keys {
    hidden_size: "hidden_size",
    num_hidden_layers: "num_hidden_layers",
    num_attention_heads: "num_attention_heads",
    intermediate_size: "intermediate_size",
    hidden_act: "hidden_act",
    layer_norm_eps: Some("layer_norm_eps"),
};

const BERT_NAMES: Names = Names {
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    token_types: Some("embeddings.token_type_embeddings"),
    embedding_norm: "embeddings.LayerNorm",
    widening: "embeddings_project",
    layer: ["encoder.layer.", ""],
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    qkv: "attention.self.qkv",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
    pooler: Some("pooler.dense"),
};

/// BERT itself.
const BERT: Family = Family {
    model_types: &["bert"],
    classes: &["Bert"],
    prefix: "bert.",
    keys: BERT_KEYS,
    names: BERT_NAMES,
    activation: Activation::Gelu,
    pad_token_id: 0,
    positions: Positions::FromZero,
    embedding_size: EmbeddingSize::Hidden,
    shares_layers: false,
    heads: head::BERT,
};

const ROBERTA: Family = Family {
    model_types: &["roberta", "xlm-roberta", "camembert"],
    classes: &["Roberta", "XLMRoberta", "Camembert"],
    prefix: "roberta.",
    pad_token_id: 1,
    positions: Positions::BehindPadding,
    heads: head::ROBERTA,
    ..BERT
};

const ELECTRA: Family = Family {
    model_types: &["electra"],
    classes: &["Electra"],
    prefix: "electra.",
    names: Names { pooler: None, ..BERT_NAMES },
    embedding_size: EmbeddingSize::OwnIfDifferent,
    heads: head::ELECTRA,
    ..BERT
};

const ALBERT: Family = Family {
    model_types: &["albert"],
    classes: &["Albert"],
    prefix: "albert.",
    names: Names {
        widening: "encoder.embedding_hidden_mapping_in",
        layer: ["encoder.albert_layer_groups.", ".albert_layers.0"],
        query: "attention.query",
        key: "attention.key",
        value: "attention.value",
        qkv: "attention.qkv",
        attention_output: "attention.dense",
        attention_norm: "attention.LayerNorm",
        intermediate: "ffn",
        output: "ffn_output",
        output_norm: "full_layer_layer_norm",
        pooler: Some("pooler"),
        ..BERT_NAMES
    },
    activation: Activation::GeluTanh,
    embedding_size: EmbeddingSize::Own,
    shares_layers: true,
    heads: head::ALBERT,
    ..BERT
};

const DISTILBERT: Family = Family {
    model_types: &["distilbert"],
    classes: &["DistilBert"],
    prefix: "distilbert.",
    keys: Keys {
        hidden_size: "dim",
        num_hidden_layers: "n_layers",
        num_attention_heads: "n_heads",
        intermediate_size: "hidden_dim",
        hidden_act: "activation",
        layer_norm_eps: None,
    },
    names: Names {
        token_types: None,
        layer: ["transformer.layer.", ""],
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        qkv: "attention.qkv_lin",
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        intermediate: "ffn.lin1",
        output: "ffn.lin2",
        output_norm: "output_layer_norm",
        pooler: None,
        ..BERT_NAMES
    },
    heads: head::DISTILBERT,
    ..BERT
};

/// All of them; BERT first, which a file is of that names none.
pub static FAMILIES: [Family; 5] = [BERT, ROBERTA, ALBERT, DISTILBERT, ELECTRA];
