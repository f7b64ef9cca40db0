//! The heads that models are given for a task, as plain data: what their files call them, and what they are made of.
//!
//! A head is an optional layer and a linear map behind it. It reads the first token of each sequence (or all of them,
//! pooled), or every token.
//!
//! Sources: the classes of transformers 5 that end in `ForSequenceClassification`, `ForMaskedLM` and so on.

use crate::config::Activation;
use crate::{Error, Result};

/// What a head is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Labels of a sequence, or a number.
    SequenceClassification,
    /// Labels of each token.
    TokenClassification,
    /// Where an answer begins and ends.
    QuestionAnswering,
    /// Which token stands in a place.
    MaskedLm,
    /// Whether the second text follows the first.
    NextSentence,
    /// Whether two texts stand in their order.
    SentenceOrder,
    /// How well a choice fits.
    MultipleChoice,
    /// Whether a token was replaced.
    ReplacedTokens,
}

/// How many outputs a head has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// As many as its checkpoint has.
    Any,
    /// This many.
    Exactly(usize),
    /// One for each token of the vocabulary.
    Vocabulary,
}

impl Labels {
    /// How many that is, where it does not depend on the checkpoint.
    pub fn known(self, vocab_size: usize) -> Option<usize> {
        match self {
            Self::Any => None,
            Self::Exactly(count) => Some(count),
            Self::Vocabulary => Some(vocab_size),
        }
    }
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SequenceClassification,
        Self::TokenClassification,
        Self::QuestionAnswering,
        Self::MaskedLm,
        Self::NextSentence,
        Self::SentenceOrder,
        Self::MultipleChoice,
        Self::ReplacedTokens,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SequenceClassification => "sequence-classification",
            Self::TokenClassification => "token-classification",
            Self::QuestionAnswering => "question-answering",
            Self::MaskedLm => "masked-lm",
            Self::NextSentence => "next-sentence",
            Self::SentenceOrder => "sentence-order",
            Self::MultipleChoice => "multiple-choice",
            Self::ReplacedTokens => "replaced-tokens",
        }
    }

    /// The task of a name.
    ///
    /// # Errors
    /// [`Error::Value`] listing the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|task| task.name()).collect();
            Error::Value(format!("head: expected one of {}, got {name:?}", known.join(", ")))
        })
    }

    /// Whether it has one row of outputs for each token, and not for each sequence.
    pub fn is_of_tokens(self) -> bool {
        matches!(
            self,
            Self::TokenClassification | Self::QuestionAnswering | Self::MaskedLm | Self::ReplacedTokens
        )
    }

    /// How many outputs such a row has.
    pub fn labels(self) -> Labels {
        match self {
            Self::SequenceClassification | Self::TokenClassification => Labels::Any,
            Self::QuestionAnswering | Self::NextSentence | Self::SentenceOrder => Labels::Exactly(2),
            Self::MultipleChoice | Self::ReplacedTokens => Labels::Exactly(1),
            Self::MaskedLm => Labels::Vocabulary,
        }
    }
}

/// A head of a family.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is for.
    pub task: Task,
    /// What comes first.
    pub layer: Option<Layer>,
    /// The linear map behind it: what comes before `.weight` and `.bias`. A decoder that is not there is the word
    /// embeddings.
    pub name: &'static str,
    /// Where its bias is if it is not there.
    pub bias: Option<&'static str>,
}

/// A dense layer with an activation, and a LayerNorm after it where there is one.
#[derive(Debug, PartialEq, Eq)]
pub struct Layer {
    /// What comes before `.weight` and `.bias`.
    pub name: &'static str,
    /// `None` is that of the feed-forward layers.
    pub activation: Option<Activation>,
    /// What comes before `.weight` and `.bias` of the LayerNorm, whose layer is as wide as an embedding.
    pub norm: Option<&'static str>,
}

const fn head(task: Task, layer: Option<Layer>, name: &'static str) -> Head {
    Head { task, layer, name, bias: None }
}

const fn dense(name: &'static str, activation: Activation) -> Option<Layer> {
    Some(Layer { name, activation: Some(activation), norm: None })
}

const fn decoder(
    name: &'static str,
    bias: &'static str,
    transform: &'static str,
    activation: Option<Activation>,
    norm: &'static str,
) -> Head {
    let layer = Some(Layer { name: transform, activation, norm: Some(norm) });
    Head { task: Task::MaskedLm, layer, name, bias: Some(bias) }
}

const TOKENS: Head = head(Task::TokenClassification, None, "classifier");
const ANSWERS: Head = head(Task::QuestionAnswering, None, "qa_outputs");

/// BERT's.
pub const BERT: &[Head] = &[
    head(Task::SequenceClassification, dense("pooler.dense", Activation::Tanh), "classifier"),
    head(Task::MultipleChoice, dense("pooler.dense", Activation::Tanh), "classifier"),
    head(Task::NextSentence, dense("pooler.dense", Activation::Tanh), "cls.seq_relationship"),
    TOKENS,
    ANSWERS,
    decoder(
        "cls.predictions.decoder",
        "cls.predictions.bias",
        "cls.predictions.transform.dense",
        None,
        "cls.predictions.transform.LayerNorm",
    ),
];

/// RoBERTa's.
pub const ROBERTA: &[Head] = &[
    head(Task::SequenceClassification, dense("classifier.dense", Activation::Tanh), "classifier.out_proj"),
    head(Task::MultipleChoice, dense("pooler.dense", Activation::Tanh), "classifier"),
    TOKENS,
    ANSWERS,
    decoder("lm_head.decoder", "lm_head.bias", "lm_head.dense", Some(Activation::Gelu), "lm_head.layer_norm"),
];

/// ALBERT's.
pub const ALBERT: &[Head] = &[
    head(Task::SequenceClassification, dense("pooler", Activation::Tanh), "classifier"),
    head(Task::MultipleChoice, dense("pooler", Activation::Tanh), "classifier"),
    head(Task::SentenceOrder, dense("pooler", Activation::Tanh), "sop_classifier.classifier"),
    TOKENS,
    ANSWERS,
    decoder("predictions.decoder", "predictions.bias", "predictions.dense", None, "predictions.LayerNorm"),
];

/// DistilBERT's.
pub const DISTILBERT: &[Head] = &[
    head(Task::SequenceClassification, dense("pre_classifier", Activation::Relu), "classifier"),
    head(Task::MultipleChoice, dense("pre_classifier", Activation::Relu), "classifier"),
    TOKENS,
    ANSWERS,
    decoder("vocab_projector", "vocab_projector.bias", "vocab_transform", None, "vocab_layer_norm"),
];

/// ELECTRA's.
pub const ELECTRA: &[Head] = &[
    head(Task::SequenceClassification, dense("classifier.dense", Activation::Gelu), "classifier.out_proj"),
    TOKENS,
    ANSWERS,
    decoder(
        "generator_lm_head",
        "generator_lm_head.bias",
        "generator_predictions.dense",
        Some(Activation::Gelu),
        "generator_predictions.LayerNorm",
    ),
    head(
        Task::ReplacedTokens,
        Some(Layer { name: "discriminator_predictions.dense", activation: None, norm: None }),
        "discriminator_predictions.dense_prediction",
    ),
];
