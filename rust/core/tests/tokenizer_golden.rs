//! The tokenizer against `tests/golden/tokenizer.json`: what the reference makes of every known trap. The Python
//! tests check that file against the installed reference; here it needs no Python.

use bertfast_core::tokenizer::{EncodeOptions, Ragged, Settings, Side, Strategy, Tokenizer};
use serde::Deserialize;
use std::collections::HashMap;

#[derive(Deserialize)]
struct Golden {
    tokenizers: HashMap<String, serde_json::Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize, Debug)]
struct Case {
    tokenizer: String,
    text: String,
    pair: Option<String>,
    max_length: Option<usize>,
    strategy: Option<String>,
    direction: Option<String>,
    stride: Option<usize>,
    sequences: Vec<Sequence>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct Sequence {
    input_ids: Vec<i32>,
    token_type_ids: Vec<i32>,
    offset_mapping: Vec<[i32; 2]>,
    word_ids: Vec<i32>,
}

fn golden() -> (HashMap<String, Tokenizer>, Vec<Case>) {
    let text = include_str!("../../../tests/golden/tokenizer.json");
    let Golden { tokenizers, cases } = serde_json::from_str(text).unwrap();
    let open = |(name, json): (String, serde_json::Value)| {
        (name, Tokenizer::from_json(&json.to_string(), Settings::default()).unwrap())
    };
    (tokenizers.into_iter().map(open).collect(), cases)
}

fn options(case: &Case) -> EncodeOptions {
    EncodeOptions {
        truncation: match case.strategy.as_deref() {
            None => Strategy::None,
            Some("only_first") => Strategy::OnlyFirst,
            Some("only_second") => Strategy::OnlySecond,
            Some(_) => Strategy::LongestFirst,
        },
        max_length: case.max_length,
        stride: case.stride.unwrap_or(0),
        truncation_side: if case.direction.as_deref() == Some("left") { Side::Left } else { Side::Right },
        want_token_type_ids: true,
        want_offsets: true,
        want_word_ids: true,
        want_overflow: true,
        ..EncodeOptions::default()
    }
}

fn sequences(ragged: &Ragged) -> Vec<Sequence> {
    let bounds = ragged.cu_seqlens.windows(2);
    let part = |bounds: &[i64]| {
        let range = bounds[0] as usize..bounds[1] as usize;
        Sequence {
            input_ids: ragged.input_ids[range.clone()].to_vec(),
            token_type_ids: ragged.token_type_ids.as_ref().unwrap()[range.clone()].to_vec(),
            offset_mapping: ragged.offset_mapping.as_ref().unwrap()[range.clone()].to_vec(),
            word_ids: ragged.word_ids.as_ref().unwrap()[range].to_vec(),
        }
    };
    bounds.map(part).collect()
}

#[test]
fn every_trap() {
    let (tokenizers, cases) = golden();
    assert!(cases.len() > 200, "{}", cases.len());
    for case in &cases {
        let pair = case.pair.as_deref().map(|pair| [pair]);
        let ragged = tokenizers[&case.tokenizer]
            .encode_batch(&[case.text.as_str()], pair.as_ref().map(|pair| &pair[..]), &options(case))
            .unwrap();
        assert_eq!(sequences(&ragged), case.sequences, "{case:?}");
    }
}

#[test]
fn what_is_not_asked_for_changes_nothing() {
    let (tokenizers, cases) = golden();
    for case in &cases {
        let pair = case.pair.as_deref().map(|pair| [pair]);
        let plain = EncodeOptions {
            want_token_type_ids: false,
            want_offsets: false,
            want_word_ids: false,
            want_overflow: false,
            ..options(case)
        };
        let ragged = tokenizers[&case.tokenizer]
            .encode_batch(&[case.text.as_str()], pair.as_ref().map(|pair| &pair[..]), &plain)
            .unwrap();
        assert_eq!(ragged.input_ids, case.sequences[0].input_ids, "{case:?}");
        assert_eq!(ragged.truncated, usize::from(case.sequences.len() > 1), "{case:?}");
        assert!(ragged.offset_mapping.is_none() && ragged.word_ids.is_none());
        assert!(ragged.token_type_ids.is_none() && ragged.overflow_to_sample.is_none());
    }
}
