//! WordPiece: text to token ids, equal to Hugging Face's fast BERT tokenizer in ids and offsets; or, where that is
//! asked for ([`Compat`]), to Google's original.
//!
//! A text flows through the rooms in this order: `added_tokens` are cut out of the raw text; `normalizer`
//! cleans, decomposes and lower-cases the rest while `pre_tokenizer` collects words from it; `wordpiece`
//! turns each word into pieces; `truncation` decides what is kept, `assemble` puts it into the `template`;
//! `encoding` holds the result; `parallel` does ranges of a batch on several threads.
//! `files` opens a folder, `vocabulary` maps ids to tokens, `decoder` goes back to text.
//!
//! [`Tokenizer`] never changes after loading: any number of threads may share one, each with its own [`Scratch`].
//! docs/tokenization.md states the rules and where the Unicode tables come from.

mod added_tokens;
mod assemble;
mod characters;
mod decoder;
mod encode;
mod encoding;
mod fast_path;
mod files;
mod normalizer;
mod parallel;
mod pre_tokenizer;
mod template;
mod trie;
mod truncation;
#[rustfmt::skip] // as its generator writes it
mod unicode_data;
mod vocabulary;
mod word_cache;
mod wordpiece;

pub use added_tokens::AddedToken;
pub use characters::Compat;
pub(crate) use encode::LONGEST;
pub use encode::{Scratch, Text, Tokenizer};
pub use encoding::{EncodeOptions, Ragged};
pub use files::{Settings, SpecialTokens};
pub use normalizer::NormalizerOptions;
pub use truncation::{Side, Strategy, check_windows, kept};
