//! Properties that hold for any text: nothing panics, offsets lie in the text, batches can be cut anywhere.

use bertfast_core::tokenizer::{Compat, EncodeOptions, Ragged, Scratch, Settings, Side, Strategy, Tokenizer};
use proptest::prelude::*;
use std::sync::LazyLock;

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let text = include_str!("../../../tests/golden/tokenizer.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    let all = golden["tokenizers"].as_object().unwrap().values();
    let texts: Vec<String> = all.map(|json| json.to_string()).collect();
    let mut google = Settings::default();
    google.compat = Compat::Google;
    let default = texts.iter().map(|json| Tokenizer::from_json(json, Settings::default()).unwrap());
    // Six, and three by the other rules, which lack the options of the rest.
    default.chain(texts.iter().filter_map(|json| Tokenizer::from_json(json, google.clone()).ok())).collect()
});

fn text() -> impl Strategy_<Value = String> {
    let piece = prop_oneof![
        4 => "[ -~]{0,6}",
        2 => "(un|aff|able|ing|hello|\\[MASK\\]|<new>|quick fox|one|[R]| |中|文|ΟΔΟΣ|Σ')",
        1 => "\\PC{0,3}",
        1 => prop::collection::vec(any::<char>(), 0..4).prop_map(|chars| chars.into_iter().collect()),
        1 => "[\u{300}-\u{345}\u{302e}\u{1d165}\u{1b44}\u{ac00}-\u{ac20}\u{c0}-\u{17f}]{0,4}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

use proptest::strategy::Strategy as Strategy_;

fn options() -> impl Strategy_<Value = EncodeOptions> {
    let strategy = prop_oneof![
        Just(Strategy::None),
        Just(Strategy::LongestFirst),
        Just(Strategy::OnlyFirst),
        Just(Strategy::OnlySecond)
    ];
    let side = prop_oneof![Just(Side::Left), Just(Side::Right)];
    (any::<[bool; 6]>(), strategy, 0usize..20, 0usize..4, side).prop_map(
        |(
            [special, types, offsets, words, sequences, overflow],
            truncation,
            max_length,
            stride,
            truncation_side,
        )| {
            EncodeOptions {
                add_special_tokens: special,
                truncation,
                max_length: Some(max_length),
                stride,
                truncation_side,
                want_token_type_ids: types,
                want_offsets: offsets,
                want_word_ids: words,
                want_sequence_ids: sequences,
                want_overflow: overflow,
            }
        },
    )
}

fn check_shapes(ragged: &Ragged) -> Result<(), TestCaseError> {
    let tokens = ragged.input_ids.len();
    prop_assert_eq!(*ragged.cu_seqlens.last().unwrap(), tokens as i64);
    prop_assert!(ragged.cu_seqlens.windows(2).all(|ends| ends[0] <= ends[1]));
    prop_assert!(ragged.token_type_ids.as_ref().is_none_or(|ids| ids.len() == tokens));
    prop_assert!(ragged.offset_mapping.as_ref().is_none_or(|offsets| offsets.len() == tokens));
    prop_assert!(ragged.word_ids.as_ref().is_none_or(|words| words.len() == tokens));
    prop_assert!(ragged.sequence_ids.as_ref().is_none_or(|ids| ids.len() == tokens));
    prop_assert!(ragged.overflow_to_sample.as_ref().is_none_or(|samples| samples.len() == ragged.len()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_panics_and_lengths_are_kept(
        which in 0usize..9, text in text(), pair in prop::option::of(text()), options in options(),
    ) {
        let tokenizer = &TOKENIZERS[which];
        let pairs = pair.as_deref().map(|pair| [pair]);
        let result = tokenizer.encode_batch(&[text.as_str()], pairs.as_ref().map(|pairs| &pairs[..]), &options);
        if let Ok(ragged) = result {
            check_shapes(&ragged)?;
            if options.truncation != Strategy::None && options.max_length.is_some_and(|length| length > 3) {
                prop_assert!(ragged.ids(0).len() <= options.max_length.unwrap());
            }
        }
    }

    #[test]
    fn offsets_and_words_go_forward_inside_the_text(which in prop_oneof![0usize..5, 6usize..9], text in text()) {
        let options = EncodeOptions {
            add_special_tokens: false,
            want_offsets: true,
            want_word_ids: true,
            ..EncodeOptions::default()
        };
        let ragged = TOKENIZERS[which].encode_batch(&[text.as_str()], None, &options).unwrap();
        let chars = text.chars().count() as i32;
        let offsets = ragged.offset_mapping.unwrap();
        prop_assert!(offsets.iter().all(|&[start, end]| 0 <= start && start < end && end <= chars));
        let words = ragged.word_ids.unwrap();
        prop_assert!(words.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
        prop_assert!(words.first().is_none_or(|&first| first == 0));
    }

    #[test]
    fn a_batch_can_be_cut_anywhere(texts in prop::collection::vec(text(), 0..8), cut in 0usize..8, which in 0usize..9) {
        let options = EncodeOptions {
            truncation: Strategy::LongestFirst,
            max_length: Some(7),
            want_token_type_ids: true,
            want_offsets: true,
            want_word_ids: true,
            want_overflow: true,
            ..EncodeOptions::default()
        };
        let tokenizer = &TOKENIZERS[which];
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let whole = tokenizer.encode_batch(&texts, None, &options).unwrap();
        let cut = cut.min(texts.len());
        let mut scratch = Scratch::default();
        let mut parts = Ragged::new(&options);
        for range in [0..cut, cut..texts.len()] {
            tokenizer.encode_range(&texts, None, range, &options, &mut scratch, &mut parts).unwrap();
        }
        prop_assert_eq!(parts, whole);
    }

    #[test]
    fn decoding_knows_every_id_that_encoding_gives(which in 0usize..9, text in text()) {
        let tokenizer = &TOKENIZERS[which];
        let ragged = tokenizer.encode_batch(&[text.as_str()], None, &EncodeOptions::default()).unwrap();
        for &id in &ragged.input_ids {
            prop_assert!(tokenizer.id_to_token(id as u32).is_some());
        }
        let ids: Vec<i64> = ragged.input_ids.iter().map(|&id| i64::from(id)).collect();
        prop_assert!(tokenizer.decode(&ids, false).starts_with("[CLS]"));
    }

    #[test]
    fn any_json_is_a_tokenizer_or_an_error(json in "[\\[\\]{}\":,a-z0-9 ]{0,60}") {
        let _ = Tokenizer::from_json(&json, Settings::default());
        let _ = Settings::new(Some(&json), Some(&json), Some(&json));
    }
}
