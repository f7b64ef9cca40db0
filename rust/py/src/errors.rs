//! Core errors to the Python classes of `bertfast.errors`, in one exhaustive match.

use bertfast_core::Error;
use pyo3::exceptions::{PyFileNotFoundError, PyIndexError, PyKeyboardInterrupt, PyOSError};
use pyo3::prelude::*;

/// Whether a signal handler raised: asked between the steps of long calls that hold no GIL.
///
/// The exception stays with the interpreter until [`to_py`] takes it for [`Error::Interrupted`].
pub fn interrupted() -> bool {
    Python::attach(|py| py.check_signals().inspect_err(|raised| raised.clone_ref(py).restore(py)).is_err())
}

/// The Python exception for a core error.
///
/// Io becomes `FileNotFoundError` or `OSError`, Index the builtin `IndexError`; all others the class of the same name in `bertfast.errors`.
pub fn to_py(error: Error) -> PyErr {
    let message = error.to_string();
    let class = match error {
        Error::Shape(_) => "ShapeError",
        Error::TokenId(_) => "TokenIdError",
        Error::Value(_) => "ArgumentError",
        Error::Config(_) => "ConfigError",
        Error::Checkpoint(_) => "CheckpointError",
        Error::Corpus(_) => "CorpusError",
        Error::Tokenizer(_) => "TokenizerError",
        Error::TokenizerKind(_) => "TokenizerKindError",
        Error::Index(_) => return PyIndexError::new_err(message),
        Error::Interrupted => {
            // The signal handler's own exception, which `interrupted` left with the interpreter.
            return Python::attach(PyErr::take).unwrap_or_else(|| PyKeyboardInterrupt::new_err(message));
        }
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            return PyFileNotFoundError::new_err(message);
        }
        Error::Io { .. } => return PyOSError::new_err(message),
    };
    new_err(class, message)
}

/// An exception of `bertfast.errors`.
pub fn new_err(class: &str, message: String) -> PyErr {
    Python::attach(|py| {
        let made =
            py.import("bertfast.errors").and_then(|m| m.getattr(class)).and_then(|c| c.call1((message,)));
        made.map_or_else(|failed| failed, PyErr::from_value)
    })
}
