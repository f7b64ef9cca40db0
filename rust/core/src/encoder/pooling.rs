//! From the hidden states of a sequence to one vector, as sentence-transformers' `Pooling` defines it.

use crate::ops::{PANEL, Panels};
use crate::{Error, Result};

/// How the tokens of a sequence become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The largest value per column.
    Max,
    /// The mean.
    Mean,
    /// The sum over the square root of the count.
    MeanSqrtLen,
    /// The mean weighted by position: 1, 2, 3, ...
    WeightedMean,
    /// The last token.
    LastToken,
}

impl Pooling {
    /// All, in the order in which sentence-transformers concatenates them.
    pub const ALL: [Self; 6] =
        [Self::Cls, Self::Max, Self::Mean, Self::MeanSqrtLen, Self::WeightedMean, Self::LastToken];

    /// The name that sentence-transformers uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::MeanSqrtLen => "mean_sqrt_len_tokens",
            Self::WeightedMean => "weightedmean",
            Self::LastToken => "lasttoken",
        }
    }

    /// The only row of `count` that it reads after `skip` rows, if it is one.
    pub fn only_row(self, skip: usize, count: usize) -> Option<usize> {
        match self {
            Self::Cls => Some(skip.min(count - 1)),
            Self::LastToken => Some(count - 1),
            _ => None,
        }
    }

    /// The mode of a name.
    ///
    /// # Errors
    /// [`Error::Value`] listing the known names.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|mode| mode.name()).collect();
            Error::Value(format!("pooling: expected one of {}, got {name:?}", known.join(", ")))
        })
    }
}

/// One vector per sequence: the modes side by side.
#[derive(Debug)]
pub struct Pooled<'a> {
    /// Which, in this order.
    pub modes: &'a [Pooling],
    /// Leading tokens of every sequence that are left out (a prompt); never all of them.
    pub skip: usize,
    /// Divide each vector by its length.
    pub normalize: bool,
    /// `(B, modes x D)`
    pub out: &'a mut [f32],
}

/// Pool the rows `first .. first + count` of `x` into `out`, `width` columns.
///
/// # Safety
/// No thread writes those rows meanwhile.
pub unsafe fn pool(mode: Pooling, x: Panels<'_>, first: usize, count: usize, skip: usize, out: &mut [f32]) {
    assert!(0 < count && first + count <= x.rows() && out.len() <= x.panels() * PANEL);
    // As there, a text that is all prompt pools over nothing; ours keeps its last token instead of dividing by zero.
    let rows = match mode.only_row(skip, count) {
        Some(row) => row..row + 1,
        None => skip.min(count - 1)..count,
    };
    for (panel, out) in out.chunks_mut(PANEL).enumerate() {
        let mut sum = [if mode == Pooling::Max { f32::NEG_INFINITY } else { 0.0 }; PANEL];
        for i in rows.clone() {
            // SAFETY: inside the matrix (checked above); the caller vouches that nobody writes it.
            let row: &[f32; PANEL] = unsafe { &*x.at(panel, first + i).cast() };
            match mode {
                Pooling::Max => {
                    for (sum, x) in sum.iter_mut().zip(row) {
                        *sum = sum.max(*x);
                    }
                }
                Pooling::WeightedMean => {
                    for (sum, x) in sum.iter_mut().zip(row) {
                        *sum += x * (i + 1) as f32;
                    }
                }
                _ => {
                    for (sum, x) in sum.iter_mut().zip(row) {
                        *sum += x;
                    }
                }
            }
        }
        let n = rows.len() as f32;
        let divisor = match mode {
            Pooling::Cls | Pooling::Max | Pooling::LastToken => 1.0,
            Pooling::Mean => n,
            Pooling::MeanSqrtLen => n.sqrt(),
            Pooling::WeightedMean => rows.clone().map(|i| (i + 1) as f32).sum(),
        };
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum / divisor;
        }
    }
}

/// Divide a vector by its Euclidean length; one of length 0 stays.
///
/// The sum of squares is taken in f64 in order, so that the bits depend on the vector alone.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        let scale = 1.0 / length;
        for x in vector {
            *x = (f64::from(*x) * scale) as f32;
        }
    }
}
