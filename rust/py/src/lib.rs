//! `bertfast._bertfast`: extract, check, detach, call the core, wrap. No logic lives here.

mod encoder;
mod errors;
mod tokenizer;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _bertfast {
    #[pymodule_export]
    use crate::encoder::Encoder;
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::checkpoint::read_tensors;

    #[pymodule_export]
    use crate::tokenizer::{Ragged, Tokenizer};
}
