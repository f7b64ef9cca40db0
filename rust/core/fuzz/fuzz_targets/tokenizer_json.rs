//! Any text as `tokenizer.json`, `vocab.txt` or `tokenizer_config.json` is an error or a tokenizer that works.
#![no_main]

use bertfast_core::tokenizer::{EncodeOptions, Settings, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let settings = Settings::new(Some(text), Some(text), Some(text)).unwrap_or_default();
    let opened = [Tokenizer::from_json(text, settings.clone()), Tokenizer::from_vocab(text, settings)];
    for tokenizer in opened.into_iter().flatten() {
        let options = EncodeOptions { want_offsets: true, ..EncodeOptions::default() };
        let ragged =
            tokenizer.encode_batch(&["Hello [MASK] é中 x"], Some(&[text]), &options).expect("no truncation");
        tokenizer.decode(&ragged.input_ids.iter().map(|&id| id.into()).collect::<Vec<_>>(), true);
    }
});
