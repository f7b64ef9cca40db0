//! [`Rule`]: how much is masked, in what units, and what with.

use super::vocabulary::Vocabulary;
use crate::pretraining::philox::Stream;
use crate::simd::Isa;
use crate::{Error, Result};

/// What is masked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Each token by itself.
    Token,
    /// All tokens of a word.
    WholeWord,
    /// One to three words in a row, n of them with a probability in proportion to 1/n. Source: ALBERT.
    NGram,
    /// One to ten words in a row, geometric with p = 0.2. Source: SpanBERT.
    Span,
}

/// How many tokens of a row are masked, of the `p` that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// max(1, round(p n)), halves to even, but 0 if p is; n is the length of the row with its special tokens. Source: BERT,
    /// ALBERT, which mask one token then.
    Round,
    /// floor(p n + u), u uniform in [0, 1); n as for `Round`. Source: RoBERTa.
    Stochastic,
    /// ceil(p n), n without the special tokens. Source: SpanBERT.
    Ceil,
    /// Each unit by itself with probability p. Source: the collators of transformers.
    Bernoulli,
}

/// A rule of masking.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What is masked together.
    pub unit: Unit,
    /// Share of the tokens that are masked.
    pub prob: f64,
    /// How that is counted.
    pub count: Count,
    /// Most tokens of a row that are masked.
    pub max_predictions: Option<usize>,
    /// Share of what is masked that becomes `[MASK]`.
    pub mask_replace_prob: f64,
    /// Share of what is masked that becomes a random token; the rest stays.
    pub random_replace_prob: f64,
    /// Whether a random token may be a special one.
    pub random_special: bool,
}

/// What stands in place of a token that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    Mask,
    Random,
    Keep,
}

/// A rule for a vocabulary: masks rows.
#[derive(Debug, Clone)]
pub struct Masker {
    pub(super) vocabulary: Vocabulary,
    pub(super) rule: Rule,
    pub(super) isa: Isa,
    /// Below the first a draw of 32 bits means `[MASK]`, below the second a random token; in 33 bits, for probability 1.
    thresholds: [u64; 2],
    /// Of Bernoulli draws.
    pub(super) masked_below: u64,
}

/// A probability in 2^-32.
fn threshold(p: f64) -> u64 {
    (p * 32f64.exp2()).round() as u64
}

impl Masker {
    /// A rule for a vocabulary.
    ///
    /// # Errors
    /// `Error::Value` if a probability is not in 0..=1, or the rule asks for what there is not.
    pub fn new(vocabulary: Vocabulary, rule: Rule, isa: Isa) -> Result<Self> {
        for (name, p) in [
            ("masked_lm_prob", rule.prob),
            ("mask_replace_prob", rule.mask_replace_prob),
            ("random_replace_prob", rule.random_replace_prob),
        ] {
            if !(0.0..=1.0).contains(&p) {
                return Err(Error::Value(format!("{name}: expected a probability in [0, 1], got {p}")));
            }
        }
        let replaced = rule.mask_replace_prob + rule.random_replace_prob;
        if replaced > 1.0 + 1e-9 {
            return Err(Error::Value(format!(
                "mask_replace_prob + random_replace_prob: expected at most 1, got {replaced}"
            )));
        }
        if rule.count == Count::Bernoulli {
            if matches!(rule.unit, Unit::NGram | Unit::Span) {
                return Err(Error::Value(
                    "count: expected \"round\", \"stochastic\" or \"ceil\" for n-grams and spans, got \"bernoulli\""
                        .into(),
                ));
            }
            if rule.max_predictions.is_some() {
                return Err(Error::Value(
                    "max_predictions_per_seq: expected None with count=\"bernoulli\", which has no most"
                        .into(),
                ));
            }
        }
        let thresholds = [threshold(rule.mask_replace_prob), threshold(replaced.min(1.0))];
        Ok(Self { vocabulary, rule, isa, thresholds, masked_below: threshold(rule.prob) })
    }

    /// The vocabulary.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Whether it matters where words begin.
    pub fn needs_word_starts(&self) -> bool {
        self.rule.unit != Unit::Token
    }

    /// How many tokens of a row are to be masked: of `len` tokens, `ordinary` of which may be.
    #[inline]
    pub(super) fn quota(&self, len: usize, ordinary: usize, stream: &mut Stream) -> usize {
        let p = self.rule.prob;
        let wanted = match self.rule.count {
            Count::Round => ((len as f64 * p).round_ties_even() as usize).max(usize::from(p > 0.0)),
            Count::Stochastic => (len as f64 * p + stream.unit()) as usize,
            Count::Ceil => (ordinary as f64 * p).ceil() as usize,
            Count::Bernoulli => usize::MAX,
        };
        wanted.min(self.rule.max_predictions.unwrap_or(usize::MAX)).min(ordinary)
    }

    #[inline(always)]
    pub(super) fn replacement(&self, stream: &mut Stream) -> Replacement {
        let draw = u64::from(stream.next_u32());
        if draw < self.thresholds[0] {
            Replacement::Mask
        } else if draw < self.thresholds[1] {
            Replacement::Random
        } else {
            Replacement::Keep
        }
    }

    #[inline(always)]
    pub(super) fn random_id(&self, stream: &mut Stream) -> i32 {
        if self.rule.random_special {
            stream.below(self.vocabulary.kinds.len() as u32) as i32
        } else {
            self.vocabulary.ordinary[stream.below(self.vocabulary.ordinary.len() as u32) as usize]
        }
    }
}
