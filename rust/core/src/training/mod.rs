//! What a training step computes here and not in PyTorch: attention of ragged batches, with its gradient, and dropout.

pub mod attention;
mod dropout;
mod element;
mod head;

pub use attention::{Ragged, ragged_attention, ragged_attention_backward};
pub use dropout::dropout;
pub use element::Element;
