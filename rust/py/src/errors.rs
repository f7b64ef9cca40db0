//! Core errors to the Python classes of `bertfast.errors`, in one exhaustive match.

use bertfast_core::Error;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError};
use pyo3::prelude::*;

/// The Python exception for a core error.
///
/// Io becomes `FileNotFoundError` or `OSError`; all others the class of the same name in `bertfast.errors`.
pub fn to_py(error: Error) -> PyErr {
    let message = error.to_string();
    let class = match error {
        Error::Shape(_) => "ShapeError",
        Error::TokenId(_) => "TokenIdError",
        Error::Value(_) => "ArgumentError",
        Error::Config(_) => "ConfigError",
        Error::Checkpoint(_) => "CheckpointError",
        Error::Tokenizer(_) => "TokenizerError",
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            return PyFileNotFoundError::new_err(message);
        }
        Error::Io { .. } => return PyOSError::new_err(message),
    };
    Python::attach(|py| {
        let made =
            py.import("bertfast.errors").and_then(|m| m.getattr(class)).and_then(|c| c.call1((message,)));
        made.map_or_else(|failed| failed, PyErr::from_value)
    })
}
