//! BERT on CPU: a ragged encoder, WordPiece and the kernels under them.
//!
//! Layers, each calling only downward: `encoder`, `tokenizer`, `pretraining`, `training` → `ops` → `simd`; `threads` serves them all.

pub mod checkpoint;
pub mod config;
pub mod encoder;
pub mod error;
pub mod family;
mod free_list;
pub mod head;
pub mod lines;
pub mod memory;
pub mod ops;
pub mod pretraining;
pub mod simd;
pub mod threads;
pub mod tokenizer;
pub mod training;

pub use error::{Error, Result};
