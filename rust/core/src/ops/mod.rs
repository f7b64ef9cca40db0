//! Functions on panels of f32 that know no BERT. Each is written once, over [`crate::simd::Simd`].

pub mod activation;
pub mod attention;
pub mod gemm;
pub mod layer_norm;
pub mod measure;
pub mod panels;
pub mod peak;
#[cfg(test)]
pub mod reference;

pub use activation::Activation;
pub use panels::{PANEL, Panels, panels_of};
