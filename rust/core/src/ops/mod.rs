//! Functions on panels that know no BERT. Each is written once, over [`crate::simd::Simd`].

pub mod activation;
pub mod attention;
pub mod convert;
pub mod formats;
pub mod gemm;
pub mod layer_norm;
pub mod measure;
pub mod pack;
pub mod panels;
pub mod peak;
#[cfg(test)]
pub mod reference;
pub mod tile;
pub mod top_k;

pub use activation::Activation;
pub use formats::Dtype;
pub use panels::{PANEL, Panels, panels_of};
