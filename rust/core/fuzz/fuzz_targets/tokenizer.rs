//! Any two texts are tokenized, whole and truncated; offsets lie inside the texts, and truncation only cuts.
#![no_main]

use bertfast_core::tokenizer::{Compat, EncodeOptions, Settings, Side, Strategy, Tokenizer};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The tokenizers of the golden file: cased, uncased, with added tokens of every kind, by either set of rules.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let golden = include_str!("../../../../tests/golden/tokenizer.json");
    let golden: serde_json::Value = serde_json::from_str(golden).expect("the golden file is JSON");
    let all = golden["tokenizers"].as_object().expect("an object").values();
    let texts: Vec<String> = all.map(|json| json.to_string()).collect();
    let mut google = Settings::default();
    google.compat = Compat::Google;
    let default = texts.iter().map(|json| Tokenizer::from_json(json, Settings::default()).expect("golden"));
    // Some have options that this one does not have.
    default.chain(texts.iter().filter_map(|json| Tokenizer::from_json(json, google.clone()).ok())).collect()
});

fuzz_target!(|input: (&str, Option<&str>, u8, u8, u8)| {
    let (text, pair, max_length, stride, switches) = input;
    let options = EncodeOptions {
        want_offsets: true,
        want_word_ids: true,
        want_token_type_ids: true,
        ..EncodeOptions::default()
    };
    let cut = EncodeOptions {
        truncation: [Strategy::LongestFirst, Strategy::OnlyFirst, Strategy::OnlySecond]
            [switches as usize % 3],
        truncation_side: if switches & 64 != 0 { Side::Left } else { Side::Right },
        max_length: Some(max_length.into()),
        stride: stride.into(),
        want_overflow: switches & 128 != 0 && text.len() + pair.map_or(0, str::len) < 1000,
        ..EncodeOptions::default()
    };
    let chars = text.chars().count().max(pair.map_or(0, |pair| pair.chars().count())) as i32;
    let pairs = pair.map(|pair| [pair]);
    let pairs = pairs.as_ref().map(|pairs| &pairs[..]);
    for tokenizer in &*TOKENIZERS {
        let whole = tokenizer.encode_batch(&[text], pairs, &options).expect("no truncation cannot fail");
        for [start, end] in whole.offset_mapping.expect("asked for") {
            assert!(0 <= start && start <= end && end <= chars);
        }
        if let Ok(part) = tokenizer.encode_batch(&[text], pairs, &cut) {
            assert!(part.ids(0).len() <= usize::from(max_length).min(whole.input_ids.len()));
        }
    }
});
