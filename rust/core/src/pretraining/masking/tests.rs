use super::*;
use crate::Error;
use crate::pretraining::philox::{Purpose, Stream};
use crate::simd::Isa;
use proptest::prelude::*;

const CLS: i32 = 1;
const SEP: i32 = 2;
const MASK: i32 = 3;
const SIZE: usize = 100;

/// 0 is padding, 1 to 4 are special, even ids begin a word.
fn vocabulary() -> Vocabulary {
    let mut kinds: Vec<u8> = (0..SIZE).map(|id| if id % 2 == 0 { WORD_START } else { 0 }).collect();
    kinds[0] = PADDING;
    kinds[1..5].fill(SPECIAL);
    Vocabulary::new(kinds, MASK.into()).unwrap()
}

fn rule(unit: Unit, count: Count) -> Rule {
    Rule {
        unit,
        prob: 0.15,
        count,
        max_predictions: None,
        mask_replace_prob: 0.8,
        random_replace_prob: 0.1,
        random_special: true,
    }
}

fn masked(rule: Rule, ids: &[i32], index: u64) -> (Vec<i32>, Vec<i32>) {
    let masker = Masker::new(vocabulary(), rule, Isa::best()).unwrap();
    let (mut ids, mut labels) = (ids.to_vec(), vec![7; ids.len()]);
    let mut stream = Stream::new(5, Purpose::Mask, 0, index);
    let count = masker.mask_row(&mut ids, &mut labels, None, &mut stream, &mut Scratch::default()).unwrap();
    assert_eq!(count, labels.iter().filter(|&&label| label != IGNORED).count());
    (ids, labels)
}

fn row(tokens: &[i32]) -> Vec<i32> {
    [&[CLS], tokens, &[SEP]].concat()
}

#[test]
fn counts_follow_the_published_formulas() {
    // (0.15 * n, halves to even): 10 tokens 1.5 -> 2, 30 tokens 4.5 -> 4, 128 tokens 19.2 -> 19.
    for (tokens, expected) in [(1, 1), (8, 2), (28, 4), (126, 19)] {
        let (_, labels) = masked(rule(Unit::Token, Count::Round), &row(&vec![6; tokens]), 0);
        assert_eq!(labels.iter().filter(|&&label| label != IGNORED).count(), expected, "{tokens}");
    }
    for (tokens, expected) in [(0, 0), (1, 1), (20, 3), (21, 4)] {
        let (_, labels) = masked(rule(Unit::Token, Count::Ceil), &row(&vec![6; tokens]), 0);
        assert_eq!(labels.iter().filter(|&&label| label != IGNORED).count(), expected, "{tokens}");
    }
    let rule = Rule { max_predictions: Some(3), ..rule(Unit::Token, Count::Round) };
    assert_eq!(masked(rule, &row(&[6; 126]), 0).1.iter().filter(|&&label| label != IGNORED).count(), 3);
}

#[test]
fn padding_does_not_count() {
    let padded = [row(&[6; 8]), vec![0; 100]].concat();
    let (ids, labels) = masked(rule(Unit::Token, Count::Round), &padded, 0);
    assert_eq!(labels.iter().filter(|&&label| label != IGNORED).count(), 2);
    assert_eq!(ids[10..], [0; 100]);
}

#[test]
fn marks_say_more_than_the_vocabulary() {
    let masker =
        Masker::new(vocabulary(), Rule { prob: 1.0, ..rule(Unit::WholeWord, Count::Round) }, Isa::best())
            .unwrap();
    let marks = [0, WORD_START, 0, SPECIAL, WORD_START, PADDING];
    let (mut ids, mut labels) = ([7, 6, 6, 6, 7, 6], [0; 6]);
    let mut stream = Stream::new(5, Purpose::Mask, 0, 0);
    masker.mask_row(&mut ids, &mut labels, Some(&marks), &mut stream, &mut Scratch::default()).unwrap();
    assert_eq!(labels, [7, 6, 6, IGNORED, 7, IGNORED]);
}

#[test]
fn what_is_wrong_is_an_error() {
    for (wrong, part) in [
        (
            Rule { prob: 1.5, ..rule(Unit::Token, Count::Round) },
            "masked_lm_prob: expected a probability in [0, 1], got 1.5",
        ),
        (Rule { prob: f64::NAN, ..rule(Unit::Token, Count::Round) }, "got NaN"),
        (Rule { random_replace_prob: 0.3, ..rule(Unit::Token, Count::Round) }, "expected at most 1, got 1.1"),
        (rule(Unit::Span, Count::Bernoulli), "count: expected"),
        (Rule { max_predictions: Some(1), ..rule(Unit::Token, Count::Bernoulli) }, "max_predictions_per_seq"),
    ] {
        let error = Masker::new(vocabulary(), wrong, Isa::best()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(Vocabulary::new(vec![SPECIAL; 3], 0).is_err());
    assert!(Vocabulary::new(vec![0; 3], 3).is_err());
    let masker = Masker::new(vocabulary(), rule(Unit::Token, Count::Round), Isa::best()).unwrap();
    let ids = [CLS, 6, SEP, CLS, 100, SEP];
    let error = masker.mask_rows(&ids, Rows::Equal(3), None, 0, 0, Keys::From(0), 1).unwrap_err();
    assert!(
        matches!(&error, Error::TokenId(text) if text.contains("row 1: input_ids: expected ids in 0..100, got 100"))
    );
    let error = masker.mask_rows(&[-1i64], Rows::Equal(1), None, 0, 0, Keys::From(0), 1).unwrap_err();
    assert!(error.to_string().contains("got -1 at position 0"));
    for len in [0, 4, 7] {
        assert!(masker.mask_rows(&ids, Rows::Equal(len), None, 0, 0, Keys::From(0), 1).is_err(), "{len}");
    }
    for ends in [&[0, 7][..], &[1, 6], &[0, 4, 3, 6], &[]] {
        assert!(
            masker.mask_rows(&ids, Rows::Ragged(ends), None, 0, 0, Keys::From(0), 1).is_err(),
            "{ends:?}"
        );
    }
}

/// Special tokens and padding among words, such that every case of a boundary comes up.
fn any_row() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(prop_oneof![1 => 0..5i32, 9 => 5..SIZE as i32], 0..60)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let units = prop_oneof![Just(Unit::Token), Just(Unit::WholeWord), Just(Unit::NGram), Just(Unit::Span)];
    let counts =
        prop_oneof![Just(Count::Round), Just(Count::Stochastic), Just(Count::Ceil), Just(Count::Bernoulli)];
    (units, counts, 0.0..=1.0, 0.0..0.5, 0.0..0.5, any::<bool>(), prop::option::of(0..9usize)).prop_map(
        |(unit, count, prob, mask_replace_prob, random_replace_prob, random_special, max_predictions)| Rule {
            unit,
            count,
            prob,
            mask_replace_prob,
            random_replace_prob,
            random_special,
            max_predictions,
        },
    )
}

proptest! {
    #[test]
    fn no_rule_is_broken(ids in any_row(), rule in any_rule(), index: u64) {
        let Ok(masker) = Masker::new(vocabulary(), rule, Isa::best()) else { return Ok(()) };
        let (mut inputs, mut labels) = (ids.clone(), vec![0; ids.len()]);
        let mut stream = Stream::new(1, Purpose::Mask, 0, index);
        let count = masker.mask_row(&mut inputs, &mut labels, None, &mut stream, &mut Scratch::default()).unwrap();
        prop_assert!(rule.max_predictions.is_none_or(|most| count <= most));
        for (at, &id) in ids.iter().enumerate() {
            if labels[at] == IGNORED {
                prop_assert_eq!(inputs[at], id);
            } else {
                prop_assert_eq!(labels[at], id);
                prop_assert!(id >= 5);
                prop_assert!((rule.random_special && inputs[at] >= 0) || inputs[at] >= 5 || inputs[at] == MASK);
            }
            // An odd id belongs to the word before it.
            if rule.unit != Unit::Token && id >= 5 && id % 2 == 1 && at > 0 && ids[at - 1] >= 5 {
                prop_assert_eq!(labels[at] == IGNORED, labels[at - 1] == IGNORED, "a word in two parts at {}", at);
            }
        }
    }

    #[test]
    fn rows_are_masked_as_each_is_alone(
        rows in prop::collection::vec(any_row(), 0..8), rule in any_rule(), first: u64, threads in 1..3usize,
    ) {
        let Ok(masker) = Masker::new(vocabulary(), rule, Isa::best()) else { return Ok(()) };
        let ids = rows.concat();
        let mut ends = vec![0];
        rows.iter().for_each(|row| ends.push(ends[ends.len() - 1] + row.len() as i64));
        let keys = Keys::From(first);
        let (inputs, labels) = masker.mask_rows(&ids, Rows::Ragged(&ends), None, 9, 2, keys, threads).unwrap();
        for (row, tokens) in rows.iter().enumerate() {
            let (mut input, mut label) = (tokens.clone(), vec![0; tokens.len()]);
            let mut stream = Stream::new(9, Purpose::Mask, 2, first.wrapping_add(row as u64));
            masker.mask_row(&mut input, &mut label, None, &mut stream, &mut Scratch::default()).unwrap();
            let range = ends[row] as usize..ends[row + 1] as usize;
            prop_assert_eq!((&inputs[range.clone()], &labels[range]), (&input[..], &label[..]));
        }
    }
}

#[test]
fn many_rows_are_the_same_on_any_number_of_threads() {
    let masker = Masker::new(vocabulary(), rule(Unit::NGram, Count::Round), Isa::best()).unwrap();
    let ids: Vec<i64> = (0..400_000).map(|i| 5 + i * 7 % 95).collect();
    let one = masker.mask_rows(&ids, Rows::Equal(100), None, 1, 1, Keys::From(0), 1).unwrap();
    let keys: Vec<_> = (0..4000).collect();
    assert_eq!(one, masker.mask_rows(&ids, Rows::Equal(100), None, 1, 1, Keys::Each(&keys), 2).unwrap());
}
