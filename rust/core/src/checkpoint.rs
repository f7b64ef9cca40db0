//! Memory-mapped safetensors as named tensors.
