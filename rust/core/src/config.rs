//! `config.json` of a BERT checkpoint.
