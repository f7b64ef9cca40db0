//! `bertfast._bertfast`: extract, check, detach, call the core, wrap. No logic lives here.

mod arrays;
mod checkpoint;
mod corpus;
mod encoder;
mod errors;
mod lines;
mod machine;
mod masking;
mod ops;
mod sampling;
mod tokenizer;
mod training;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _bertfast {
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::checkpoint::read_tensors;
    #[pymodule_export]
    use crate::corpus::{Store, StoreWriter, merge_stores, split_sentences};
    #[pymodule_export]
    use crate::encoder::{Encoder, pack};
    #[pymodule_export]
    use crate::lines::Lines;
    #[pymodule_export]
    use crate::machine::{dtypes, info, measure_bandwidth, measure_op, measure_peak};
    #[pymodule_export]
    use crate::masking::Masker;
    #[pymodule_export]
    use crate::ops::{Linear, attention, normalize};
    #[pymodule_export]
    use crate::sampling::Samples;
    #[pymodule_export]
    use crate::tokenizer::{Ragged, Tokenizer, kept_lengths};
    #[pymodule_export]
    use crate::training::{dropout, ragged_attention, ragged_attention_backward};
}
