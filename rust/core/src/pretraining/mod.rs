//! Data for pretraining: corpora as token stores, samples from them, and masks, all of it a function of keys.
//!
//! Nothing here has a state that a draw would change: every random number belongs to a key such as (seed, epoch, row)
//! ([`philox`]), so any number of threads, in any order, makes the same bytes.

pub mod masking;
pub mod philox;
pub mod sampling;
pub mod sentences;
pub mod store;
