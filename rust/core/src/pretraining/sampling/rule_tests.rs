//! Pairs and blocks beside the plainest program for the same rules.

use super::tests::*;
use super::*;
use crate::pretraining::masking::Unit;
use crate::pretraining::philox::Stream;
use proptest::prelude::*;

/// BERT's loop, over lists.
fn pairs_by_the_book(corpus: &Corpus, sampler: &Sampler) -> Vec<(Vec<u32>, Vec<u32>, bool)> {
    let config = sampler.config;
    let is_order = config.format == Format::SentenceOrder;
    let mut found = Vec::new();
    for (number, document) in corpus.iter().enumerate() {
        let room = config.max_seq_length - 3;
        let mut target = room;
        let mut stream = Stream::new(7, Purpose::Document, 0, number as u64);
        if stream.chance(config.short_seq_prob) {
            target = 2 + stream.below(room as u32 - 1) as usize;
        }
        let (mut at, mut draws) = (0, 0);
        let mut chunk: Vec<&Vec<u32>> = Vec::new();
        while at < document.len() {
            chunk.push(&document[at]);
            let tokens: usize = chunk.iter().map(|sentence| sentence.len()).sum();
            let is_enough = tokens >= target && (!is_order || chunk.len() > 1);
            if at == document.len() - 1 || is_enough {
                let mut stream = Stream::new(7, Purpose::Draw, 0, number as u64 | draws << 32);
                draws += 1;
                let join = |sentences: &[&Vec<u32>]| -> Vec<u32> {
                    sentences.iter().flat_map(|sentence| sentence.iter().copied()).collect()
                };
                if chunk.len() == 1 && is_order {
                    let words: Vec<_> = (1..chunk[0].len()).filter(|&at| starts_word(chunk[0][at])).collect();
                    if !words.is_empty() {
                        let (a, b) = chunk[0].split_at(words[stream.below(words.len() as u32) as usize]);
                        let swapped = stream.below(2) == 1;
                        let (a, b) = if swapped { (b, a) } else { (a, b) };
                        found.push((a.to_vec(), b.to_vec(), swapped));
                    }
                    chunk.clear();
                    at += 1;
                    continue;
                }
                let taken =
                    if chunk.len() > 1 { 1 + stream.below(chunk.len() as u32 - 1) as usize } else { 1 };
                let a = join(&chunk[..taken]);
                let mut b = join(&chunk[taken..]);
                let coin = chunk.len() == 1 || stream.below(2) == 1;
                if is_order {
                    found.push(if coin { (b, a, true) } else { (a, b, false) });
                } else {
                    if coin {
                        let others: Vec<_> = (0..corpus.len()).filter(|&other| other != number).collect();
                        let other = &corpus[others[stream.below(others.len() as u32) as usize]];
                        b.clear();
                        for sentence in &other[stream.below(other.len() as u32) as usize..] {
                            b.extend(sentence);
                            if a.len() + b.len() >= target {
                                break;
                            }
                        }
                        at -= chunk.len() - taken;
                    }
                    found.push((a, b, coin));
                }
                chunk.clear();
            }
            at += 1;
        }
    }
    found
}

/// Where `part` lies in `whole`.
fn is_inside(part: &[i32], whole: &[u32]) -> bool {
    let part: Vec<u32> = part.iter().map(|&id| id as u32).collect();
    whole.windows(part.len()).any(|window| window == part)
}

#[test]
fn pairs_are_those_of_the_published_loop() {
    let corpus = corpus(200, 3);
    for (format, max_seq_length) in
        [(Format::NextSentence, 64), (Format::NextSentence, 5), (Format::SentenceOrder, 40)]
    {
        let config = Config { short_seq_prob: 0.3, ..config(format, max_seq_length) };
        let sampler = sampler(&corpus, config, Unit::Token, 0.0);
        let samples = samples(&sampler, 0, 2);
        let expected = pairs_by_the_book(&corpus, &sampler);
        assert_eq!(samples.len(), expected.len());
        let batch = everything(&samples);
        let (types, labels) = (batch.token_type_ids.unwrap(), batch.pair_labels.unwrap());
        let mut cut = 0;
        for (index, (a, b, label)) in expected.iter().enumerate() {
            let range = batch.cu_seqlens[index] as usize..batch.cu_seqlens[index + 1] as usize;
            let (ids, types) = (&batch.input_ids[range.clone()], &types[range]);
            let room = max_seq_length - 3;
            let (first, second) = truncation::kept(a.len() as u64, b.len() as u64, room as u64);
            let (first, second) = (first as usize, second as usize);
            assert_eq!(ids.len(), first + second + 3);
            assert_eq!((ids[0], ids[first + 1], ids[first + second + 2]), (CLS, SEP, SEP));
            assert!(is_inside(&ids[1..=first], a) && is_inside(&ids[first + 2..first + second + 2], b));
            assert!((0..ids.len()).all(|at| types[at] == i32::from(at >= first + 2)));
            assert_eq!(labels[index], i64::from(*label));
            cut += usize::from(a.len() + b.len() > room);
        }
        assert!(cut > 20 && cut < expected.len(), "{cut} of {}", expected.len());
        assert!(batch.labels.iter().all(|&label| label == -100));
    }
}

fn any_corpus() -> impl Strategy<Value = Corpus> {
    let ids = |most| prop::collection::vec(5..VOCAB, 1..most);
    let sentence = prop_oneof![9 => ids(12), 1 => ids(60)];
    prop::collection::vec(prop::collection::vec(sentence, 1..6), 2..12)
}

proptest! {
    #[test]
    fn blocks_have_every_token_once(
        corpus in any_corpus(), max_seq_length in 3..30usize, crosses: bool, short in prop_oneof![Just(0.0), Just(0.5)],
        chunk_tokens in 1..200u64,
    ) {
        let format = if crosses { Format::FullSentences } else { Format::DocSentences };
        let config = Config { short_seq_prob: short, ..config(format, max_seq_length) };
        let mut sampler = Sampler::new(store(&corpus), rule(Unit::Token, 0.0), config, 7, isa()).unwrap();
        sampler.chunk_tokens = chunk_tokens;
        let sampler = Arc::new(sampler);
        let samples = samples(&sampler, 0, 1);
        let batch = everything(&samples);
        prop_assert!(batch.token_type_ids.is_none() && batch.pair_labels.is_none());
        // Sentences with their documents, and where each begins among all tokens.
        let mut sentences = Vec::new();
        let mut token = 0;
        for (number, document) in corpus.iter().enumerate() {
            for sentence in document {
                sentences.push((number, token, sentence.len()));
                token += sentence.len();
            }
        }
        let tokens: Vec<u32> = corpus.iter().flatten().flatten().copied().collect();
        let document_of = |token: usize| sentences.iter().rev().find(|(_, start, _)| *start <= token).unwrap().0;
        let mut at = 0;
        for index in 0..samples.len() {
            let ids = &batch.input_ids[batch.cu_seqlens[index] as usize..batch.cu_seqlens[index + 1] as usize];
            prop_assert!(ids.len() <= max_seq_length && ids.len() > 2);
            prop_assert_eq!((ids[0], ids[ids.len() - 1]), (CLS, SEP));
            let target = sampler.pass(0, 0).target(document_of(at) as u64) as usize;
            let begin = at;
            for &id in &ids[1..ids.len() - 1] {
                if id == SEP {
                    prop_assert!(crosses && at > begin && document_of(at - 1) + 1 == document_of(at));
                } else {
                    prop_assert_eq!(id as u32, tokens[at]);
                    at += 1;
                }
            }
            let separators = document_of(at - 1) - document_of(begin);
            prop_assert_eq!(at - begin + separators + 2, ids.len());
            prop_assert!(ids.len() <= target + 2);
            if at == tokens.len() {
                continue;
            }
            // Another piece would not have fit, or it belongs to another document or chunk.
            let next = sentences.iter().find(|(_, start, _)| *start == at);
            let Some(&(document, _, len)) = next else {
                // Inside of a sentence: it was too long, and is cut at the last place where a word begins.
                let (_, start, len) = *sentences.iter().rev().find(|(_, start, _)| *start <= at).unwrap();
                prop_assert!(begin >= start && start + len - begin > target);
                let is_start = |token: usize| starts_word(tokens[token]);
                if let Some(last) = (begin + 1..=begin + target).rev().find(|&token| is_start(token)) {
                    prop_assert_eq!(at, last);
                } else {
                    prop_assert_eq!(at, begin + target);
                }
                continue;
            };
            let crossed = document != document_of(at - 1);
            let first_of = |document: usize| sentences.iter().find(|sentence| sentence.0 == document).unwrap().1;
            let chunk = |document: usize| first_of(document) as u64 / chunk_tokens;
            let is_apart = crossed && (!crosses || chunk(document) != chunk(document - 1));
            prop_assert!(is_apart || ids.len() - 2 + usize::from(crossed) + len > target);
        }
        prop_assert_eq!(at, tokens.len());
    }
}
