//! The tokens put around a text or a pair: `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`.

/// One part of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Special tokens.
    Special { ids: Vec<i32>, type_id: i32 },
    /// The first text.
    First { type_id: i32 },
    /// The second text.
    Second { type_id: i32 },
}

/// What a sequence is made of; `single` has the first text once, `pair` the first and then the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub single: Vec<Part>,
    pub pair: Vec<Part>,
}

impl Template {
    /// BERT's own.
    pub fn bert(cls: i32, sep: i32) -> Self {
        let special = |id, type_id| Part::Special { ids: vec![id], type_id };
        let single = vec![special(cls, 0), Part::First { type_id: 0 }, special(sep, 0)];
        let mut pair = single.clone();
        pair.extend([Part::Second { type_id: 1 }, special(sep, 1)]);
        Self { single, pair }
    }

    /// The texts alone.
    pub fn bare() -> Self {
        Self {
            single: vec![Part::First { type_id: 0 }],
            pair: vec![Part::First { type_id: 0 }, Part::Second { type_id: 1 }],
        }
    }

    pub fn parts(&self, is_pair: bool) -> &[Part] {
        if is_pair { &self.pair } else { &self.single }
    }

    /// How many special tokens are added.
    pub fn added(&self, is_pair: bool) -> usize {
        let count = |part: &Part| if let Part::Special { ids, .. } = part { ids.len() } else { 0 };
        self.parts(is_pair).iter().map(count).sum()
    }
}
