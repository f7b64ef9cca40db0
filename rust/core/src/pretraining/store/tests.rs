use super::*;
use crate::Error;
use proptest::prelude::*;

/// A tokenizer of so many ids, the first five special.
pub(super) fn tokenizer(vocab_size: u32) -> TokenizerRecord {
    TokenizerRecord {
        vocabulary_sha256: "0".repeat(64),
        vocab_size,
        cls_token_id: Some(2),
        sep_token_id: Some(3),
        mask_token_id: Some(4),
        pad_token_id: Some(0),
        unk_token_id: Some(1),
        special_token_ids: (0..5).collect(),
        kind: "wordpiece".to_owned(),
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        documents in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(0u32..60_000, 1..40), 1..6), 0..6),
        wide: bool,
        cut in any::<[prop::sample::Index; 2]>(),
    ) {
        let starts_word = |id: u32| id.is_multiple_of(3);
        let store = Store::in_memory(&documents, starts_word, tokenizer(if wide { 70_000 } else { 60_000 })).unwrap();
        prop_assert_eq!(store.num_documents(), documents.len() as u64);
        let (mut sentence, mut token) = (0, 0);
        let (mut all, mut all_starts) = (vec![], vec![]);
        for (number, document) in documents.iter().enumerate() {
            let sentences = store.sentences_of(number as u64);
            prop_assert_eq!(sentences.clone(), sentence..sentence + document.len() as u64);
            for ids in document {
                let range = store.tokens_of(sentence);
                prop_assert_eq!(range.clone(), token..token + ids.len() as u64);
                let mut found = vec![-1; ids.len()];
                store.copy_tokens(range, &mut found);
                let expected: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
                prop_assert_eq!(&found, &expected);
                all.extend(expected);
                all_starts.extend(ids.iter().enumerate().map(|(place, &id)| place == 0 || starts_word(id)));
                (sentence, token) = (sentence + 1, token + ids.len() as u64);
            }
        }
        prop_assert_eq!((store.num_sentences(), store.num_tokens()), (sentence, token));
        let mut cut = cut.map(|at| at.index(all.len() + 1));
        cut.sort_unstable();
        let [start, end] = cut;
        let mut starts = vec![false; end - start];
        store.copy_word_starts(start as u64..end as u64, &mut starts);
        prop_assert_eq!(&starts, &all_starts[start..end]);
        prop_assert!((start..end).all(|token| store.is_word_start(token as u64) == all_starts[token]));
    }
}

#[test]
fn what_cannot_be_in_a_store() {
    for (documents, expected) in [
        (vec![vec![vec![9]]], "ids: expected 0..9, got 9"),
        (vec![vec![vec![1], vec![]]], "sentences: expected tokens in each, got none"),
        (vec![vec![]], "documents: expected sentences in each, got none"),
    ] {
        let error = Store::in_memory(&documents, |_| true, tokenizer(9)).unwrap_err();
        assert!(matches!(&error, Error::Value(message) if message == expected), "{error}");
    }
}

#[test]
fn of_two_that_begin_at_once_one_does_not_remove_what_the_other_writes() {
    let store = Store::in_memory(&[vec![vec![vec![5]]]].concat(), |_| true, tokenizer(9)).unwrap();
    let base = std::env::temp_dir().join(format!("bertfast-output-{}", std::process::id()));
    for round in 0..100 {
        let folder = base.join(round.to_string());
        let barrier = std::sync::Barrier::new(2);
        let begin = || {
            barrier.wait();
            output::Output::create(&folder, &store.manifest)
        };
        let begun = std::thread::scope(|scope| {
            [scope.spawn(begin), scope.spawn(begin)].map(|thread| thread.join().unwrap())
        });
        let kept = begun.iter().filter(|output| output.is_ok()).count();
        assert!(kept <= 1);
        for name in [TOKENS, SENTENCES, DOCUMENTS, WORD_STARTS] {
            assert!(kept == 0 || folder.join(name).exists(), "{name} in round {round}");
        }
        drop(begun);
        assert!(kept == 0 || !folder.exists(), "round {round}");
    }
    std::fs::remove_dir_all(&base).unwrap();
}
