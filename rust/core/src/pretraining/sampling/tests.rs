use super::*;
use crate::pretraining::masking::{Count, Unit};
use proptest::prelude::*;

pub(super) const CLS: i32 = 2;
pub(super) const SEP: i32 = 3;
pub(super) const MASK: u32 = 4;
pub(super) const VOCAB: u32 = 1000;

pub(super) type Corpus = Vec<Vec<Vec<u32>>>;

pub(super) fn tokenizer() -> TokenizerRecord {
    TokenizerRecord {
        vocabulary_sha256: "0".repeat(64),
        vocab_size: VOCAB,
        cls_token_id: Some(CLS as u32),
        sep_token_id: Some(SEP as u32),
        mask_token_id: Some(MASK),
        pad_token_id: Some(0),
        unk_token_id: Some(1),
        special_token_ids: (0..5).collect(),
        kind: "wordpiece".to_owned(),
    }
}

pub(super) fn starts_word(id: u32) -> bool {
    !id.is_multiple_of(3)
}

pub(super) fn store(corpus: &Corpus) -> Arc<Store> {
    Arc::new(Store::in_memory(corpus, starts_word, tokenizer()).unwrap())
}

pub(super) fn rule(unit: Unit, prob: f64) -> Rule {
    Rule {
        unit,
        prob,
        count: Count::Stochastic,
        max_predictions: None,
        mask_replace_prob: 0.8,
        random_replace_prob: 0.1,
        random_special: false,
    }
}

pub(super) fn isa() -> Isa {
    Isa::choose(None).unwrap()
}

pub(super) fn config(format: Format, max_seq_length: usize) -> Config {
    Config { format, max_seq_length, short_seq_prob: 0.1, dupe_factor: 1, is_static: false }
}

pub(super) const FORMATS: [Format; 4] =
    [Format::NextSentence, Format::SentenceOrder, Format::FullSentences, Format::DocSentences];

/// Chunks of few tokens, so that there are some.
pub(super) fn sampler(corpus: &Corpus, config: Config, unit: Unit, prob: f64) -> Arc<Sampler> {
    let mut sampler = Sampler::new(store(corpus), rule(unit, prob), config, 7, isa()).unwrap();
    sampler.chunk_tokens = 500;
    Arc::new(sampler)
}

pub(super) fn samples(sampler: &Arc<Sampler>, epoch: u32, threads: usize) -> Samples {
    sampler.samples(epoch, threads, &std::env::temp_dir(), || false).unwrap()
}

pub(super) fn everything(samples: &Samples) -> Ragged {
    samples.ragged(&(0..samples.len() as i64).collect::<Vec<_>>(), 1).unwrap()
}

/// Documents of sentences whose lengths vary, some longer than a sample.
pub(super) fn corpus(documents: u64, seed: u64) -> Corpus {
    let mut stream = Stream::new(seed, Purpose::Draw, 0, 0);
    let mut ids = move |n: u32| -> Vec<u32> { (0..n).map(|_| 5 + stream.below(VOCAB - 5)).collect() };
    let mut lengths = Stream::new(seed, Purpose::Draw, 0, 1);
    let mut sentence = move || {
        let long = lengths.below(30) == 0;
        ids(1 + lengths.below(if long { 150 } else { 20 }))
    };
    (0..documents).map(|document| (0..1 + document % 7).map(|_| sentence()).collect()).collect()
}

#[test]
fn threads_and_batches_change_nothing() {
    let corpus = corpus(300, 1);
    for format in FORMATS {
        for unit in [Unit::Token, Unit::Span] {
            let config = Config { dupe_factor: 2, ..config(format, 64) };
            let sampler = sampler(&corpus, config, unit, 0.15);
            let one = samples(&sampler, 3, 1);
            let plan: Vec<_> = (0..one.len() as i64).map(|index| one.entry(index).unwrap()).collect();
            let all = everything(&one);
            for threads in [2, 3] {
                let many = samples(&sampler, 3, threads);
                assert_eq!(many.len(), one.len());
                assert!((0..).zip(&plan).all(|(index, entry)| many.entry(index).unwrap() == *entry));
                // Often enough that there is work for many threads.
                let indices: Vec<_> = (0..5).flat_map(|_| 0..one.len() as i64).collect();
                let [few, more] = [1, threads].map(|threads| many.ragged(&indices, threads).unwrap());
                assert!(few.input_ids.len() > 100_000);
                assert_eq!(few, more);
                assert_eq!(few.input_ids[..all.input_ids.len()], all.input_ids);
                let [few, more] =
                    [1, threads].map(|threads| many.padded(&indices, Padding::Longest, threads).unwrap());
                assert_eq!(few, more);
            }
            for index in 0..one.len() {
                let range = all.cu_seqlens[index] as usize..all.cu_seqlens[index + 1] as usize;
                let single = one.ragged(&[index as i64], 1).unwrap();
                assert_eq!(single.input_ids, all.input_ids[range.clone()]);
                assert_eq!(single.labels, all.labels[range.clone()]);
                let padded = one.padded(&[index as i64], Padding::MaxLength, 1).unwrap();
                assert_eq!(padded.width, 64);
                let len = range.len();
                assert!((0..64).all(|at| padded.attention_mask[at] == i64::from(at < len)));
                assert!((0..len).all(|at| padded.input_ids[at] == i64::from(single.input_ids[at])));
                assert!((0..len).all(|at| padded.labels[at] == i64::from(single.labels[at])));
                assert!(padded.input_ids[len..].iter().all(|&id| id == 0));
                assert!(padded.labels[len..].iter().all(|&label| label == -100));
                if format.is_pair() {
                    let (types, wide) = (single.token_type_ids.unwrap(), padded.token_type_ids.unwrap());
                    assert!((0..64).all(|at| wide[at] == i64::from(types.get(at).copied().unwrap_or(0))));
                    assert_eq!(types, all.token_type_ids.as_ref().unwrap()[range]);
                    assert_eq!(single.pair_labels, padded.pair_labels);
                    assert_eq!(single.pair_labels.unwrap()[0], all.pair_labels.as_ref().unwrap()[index]);
                }
            }
        }
    }
}

#[test]
fn instruction_sets_change_nothing() {
    let corpus = corpus(60, 6);
    for format in FORMATS {
        let of = |isa| {
            let sampler = Sampler::new(store(&corpus), rule(Unit::NGram, 0.3), config(format, 64), 7, isa);
            let samples = samples(&Arc::new(sampler.unwrap()), 2, 1);
            let len = samples.len() as u64;
            (everything(&samples), samples.order(0, len).unwrap(), samples.batch_order(3, len).unwrap())
        };
        let first = of(Isa::available()[0]);
        assert!(first.1 != first.2);
        Isa::available().into_iter().for_each(|isa| assert!(of(isa) == first, "{}", isa.name()));
    }
}

#[test]
fn masked_positions_are_where_labels_are() {
    let sampler = sampler(&corpus(100, 2), config(Format::NextSentence, 64), Unit::Token, 0.15);
    let samples = samples(&sampler, 0, 1);
    let indices: Vec<_> = (0..20).flat_map(|_| 0..samples.len() as i64).collect();
    for threads in [1, 3] {
        let batch = samples.ragged(&indices, threads).unwrap();
        let expected: Vec<_> =
            (0i64..).zip(&batch.labels).filter(|(_, label)| **label != -100).map(|(at, _)| at).collect();
        assert!(expected.len() > 1000);
        assert_eq!(batch.masked_positions, expected);
    }
}

proptest! {
    #[test]
    fn entries_hold_what_they_are_given(
        start in 0..1u64 << 48, length in 0..1u64 << 16, document: u32, draw in 0..1u32 << 24, copy: u8,
    ) {
        let entry = plan_file::Entry::new(start, length, document.into(), draw, copy.into());
        let found = (entry.start(), entry.length() as u64, entry.document(), entry.draw(), entry.copy());
        prop_assert_eq!(found, (start, length, document.into(), draw, copy.into()));
    }
}

#[test]
fn epochs_and_passes_differ_unless_they_are_static() {
    let corpus = corpus(100, 4);
    for format in FORMATS {
        let of = |is_static, dupe_factor, epoch| {
            let config = Config { is_static, dupe_factor, ..config(format, 64) };
            everything(&samples(&sampler(&corpus, config, Unit::Token, 0.15), epoch, 1))
        };
        let [first, second] = [0, 1].map(|epoch| of(false, 1, epoch));
        assert_ne!(first, second);
        assert_eq!(of(true, 1, 0), of(true, 1, 5));
        assert_eq!(of(true, 1, 0), first);
        // Epoch 0 of two passes has the pairs of epochs 0 and 1 of one; masks have other keys.
        let both = of(false, 2, 0);
        if format.is_pair() {
            let labels = [first.pair_labels.clone().unwrap(), second.pair_labels.unwrap()].concat();
            assert_eq!(both.pair_labels.unwrap(), labels);
        }
        let tokens = first.input_ids.len();
        assert_eq!(both.input_ids[..tokens], first.input_ids);
    }
}

#[test]
fn another_epoch_keeps_the_plan_where_it_is_the_same() {
    let corpus = corpus(100, 4);
    let folder = std::env::temp_dir();
    for (format, short_seq_prob, is_static, is_same) in [
        (Format::FullSentences, 0.0, false, true),
        (Format::FullSentences, 0.1, false, false),
        (Format::NextSentence, 0.0, false, false),
        (Format::NextSentence, 0.1, true, true),
    ] {
        let config = Config { short_seq_prob, is_static, ..config(format, 64) };
        let sampler = sampler(&corpus, config, Unit::Token, 0.15);
        let first = samples(&sampler, 0, 1);
        let second = first.of_epoch(1, 1, &folder, || false).unwrap();
        assert_eq!(second.epoch(), 1);
        assert_eq!(everything(&second), everything(&samples(&sampler, 1, 1)));
        assert_eq!(Arc::ptr_eq(&first.plan, &second.plan), is_same, "{format:?}");
        assert_ne!(first.order(0, 20).unwrap(), second.order(0, 20).unwrap());
        assert!(first.of_epoch(1 << 28, 1, &folder, || false).is_err());
    }
}

#[test]
fn a_document_longer_than_what_is_held_in_memory() {
    let long = vec![vec![7]; 300_000];
    for format in FORMATS {
        let config = Config { short_seq_prob: 0.0, ..config(format, 5) };
        let sampler = sampler(&vec![vec![vec![6]], long.clone(), vec![vec![8]]], config, Unit::Token, 0.0);
        let [one, many] = [1, 3].map(|threads| samples(&sampler, 0, threads));
        assert!(one.len() > 90_000);
        assert_eq!(one.len(), many.len());
        let last = one.len() as i64 - 1;
        assert!((0..=last).all(|index| one.entry(index).unwrap() == many.entry(index).unwrap()));
        // A single word is left out where two segments follow each other.
        let expected = if format == Format::SentenceOrder { 1 } else { 2 };
        assert_eq!(one.entry(last).unwrap().document(), expected);
    }
}

#[test]
fn an_order_is_a_permutation() {
    let sampler = sampler(&corpus(100, 5), config(Format::NextSentence, 64), Unit::Token, 0.15);
    let samples = samples(&sampler, 0, 1);
    let len = samples.len() as u64;
    let mut order = samples.order(0, len).unwrap();
    assert_eq!(samples.order(7, 5).unwrap(), order[7..12]);
    order.sort_unstable();
    assert_eq!(order, (0..len as i64).collect::<Vec<_>>());
    assert!(samples.order(len, 0).unwrap().is_empty());
    assert!(samples.order(len, 1).is_err() && samples.order(1, u64::MAX).is_err());
    let mut batches = samples.batch_order(5, 20).unwrap();
    assert_ne!(batches, samples.batch_order(6, 20).unwrap());
    batches.sort_unstable();
    assert_eq!(batches, (0..20).collect::<Vec<_>>());
    assert!(samples.batch_order(0, len + 1).is_err());
}

#[test]
fn an_empty_batch() {
    let sampler = sampler(&corpus(10, 5), config(Format::NextSentence, 64), Unit::Token, 0.15);
    let samples = samples(&sampler, 0, 1);
    let ragged = samples.ragged(&[], 1).unwrap();
    assert_eq!((ragged.cu_seqlens, ragged.input_ids), (vec![0], vec![]));
    assert!(samples.padded(&[], Padding::MaxLength, 1).unwrap().input_ids.is_empty());
    assert_eq!(samples.padded(&[], Padding::Longest, 1).unwrap().width, 0);
}

#[test]
fn what_is_wrong_is_an_error() {
    let two = corpus(2, 1);
    let new = |corpus: &Corpus, config| {
        Sampler::new(store(corpus), rule(Unit::Token, 0.15), config, 0, isa()).unwrap_err().to_string()
    };
    let nsp = config(Format::NextSentence, 128);
    for (wrong, part) in [
        (config(Format::NextSentence, 4), "max_seq_length: expected a number in 5..=65535, got 4"),
        (config(Format::FullSentences, 2), "max_seq_length: expected a number in 3..=65535, got 2"),
        (config(Format::SentenceOrder, 1 << 16), "got 65536"),
        (Config { short_seq_prob: 1.1, ..nsp }, "short_seq_prob: expected a probability in [0, 1], got 1.1"),
        (Config { short_seq_prob: f64::NAN, ..nsp }, "got NaN"),
        (Config { dupe_factor: 0, ..nsp }, "dupe_factor: expected a number in 1..=256, got 0"),
        (Config { dupe_factor: 257, ..nsp }, "got 257"),
    ] {
        let error = new(&two, wrong);
        assert!(error.contains(part), "{error}");
    }
    assert!(new(&vec![], nsp).contains("store: expected documents, got an empty corpus"));
    assert!(new(&corpus(1, 1), nsp).contains("at least two documents"));
    let wrong = Sampler::new(store(&two), rule(Unit::Token, 1.5), nsp, 0, isa()).unwrap_err().to_string();
    assert!(wrong.contains("masked_lm_prob"), "{wrong}");
    for (record, part) in [
        (TokenizerRecord { cls_token_id: None, ..tokenizer() }, "[CLS]"),
        (TokenizerRecord { sep_token_id: None, ..tokenizer() }, "[SEP]"),
        (TokenizerRecord { mask_token_id: None, ..tokenizer() }, "[MASK]"),
    ] {
        let store = Arc::new(Store::in_memory(&two, starts_word, record).unwrap());
        let error = Sampler::new(store, rule(Unit::Token, 0.15), nsp, 0, isa()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let folder = std::env::temp_dir();
    let sampler = sampler(&two, Config { dupe_factor: 3, ..nsp }, Unit::Token, 0.15);
    let most = (1 << 28) / 3 - 1;
    assert!(sampler.samples(most, 1, &folder, || false).is_ok());
    for epoch in [most + 1, u32::MAX] {
        let error = sampler.samples(epoch, 1, &folder, || false).unwrap_err().to_string();
        assert!(error.contains(&format!("epoch: expected a number in 0..={most}, got {epoch}")), "{error}");
    }
    let missing = sampler.samples(0, 1, &folder.join("no-such-folder"), || false);
    assert!(matches!(missing, Err(Error::Io { .. })));
    assert!(matches!(sampler.samples(0, 1, &folder, || true), Err(Error::Interrupted)));
    let samples = samples(&sampler, 0, 1);
    for index in [-1, samples.len() as i64, i64::MIN] {
        assert!(matches!(samples.ragged(&[0, index], 1), Err(Error::Index(_))));
        assert!(matches!(samples.padded(&[index], Padding::Longest, 1), Err(Error::Index(_))));
        assert!(matches!(samples.lengths(&[index]), Err(Error::Index(_))));
    }
    let words = self::sampler(&vec![vec![vec![7]]; 9], config(Format::SentenceOrder, 8), Unit::Token, 0.15);
    let error = words.samples(0, 1, &folder, || false).unwrap_err().to_string();
    assert!(error.contains("expected text for at least one sample"), "{error}");
}
