//! Heads against a naive f64 model, and their promises about bits, on every instruction set.

use super::tests::{Inputs, Model, every_isa_and_dtype, noise};
use super::*;
use crate::ops::reference;

const LABELS: usize = 5;
const VOCABULARY: usize = 61;
const DECODER: &str = "cls.predictions.transform";

/// What the heads of BERT are made of: labels, the vocabulary, or two.
const OUTPUTS: [(Task, &str, usize); 6] = [
    (Task::SequenceClassification, "classifier", LABELS),
    (Task::TokenClassification, "classifier", LABELS),
    (Task::QuestionAnswering, "qa_outputs", 2),
    (Task::MaskedLm, "cls.predictions", VOCABULARY),
    (Task::NextSentence, "cls.seq_relationship", 2),
    (Task::MultipleChoice, "classifier", 1),
];

/// A model with the head for a task; `inner` and `hidden` are such that no width is a whole number of panels.
fn model(task: Task, act: &str) -> Model {
    let mut model = Model::random(52, 2, 33, 2, act);
    let mut next = noise(9);
    let mut add = |name: String, shape: Vec<usize>| {
        let values = (0..shape.iter().product()).map(|_| 0.17 * next()).collect();
        model.tensors.insert(name, (shape, values));
    };
    let (_, name, outputs) = OUTPUTS.into_iter().find(|(other, ..)| *other == task).unwrap();
    if task == Task::MaskedLm {
        add(format!("{DECODER}.dense.weight"), vec![52, 52]);
        for (part, kind) in [("dense", "bias"), ("LayerNorm", "weight"), ("LayerNorm", "bias")] {
            add(format!("{DECODER}.{part}.{kind}"), vec![52]);
        }
    } else {
        add(format!("{name}.weight"), vec![outputs, 52]);
    }
    add(format!("{name}.bias"), vec![outputs]);
    model
}

fn encoder(model: &Model, task: Task, isa: Isa, dtype: Dtype) -> Encoder {
    let checkpoint = Checkpoint::from_bytes("test", model.bytes()).unwrap();
    Encoder::new(model.config.clone(), &checkpoint, &[dtype], isa, None, Some(task)).unwrap()
}

/// The logits, of some rows of tokens or of all; with the hidden states beside them or alone.
fn logits(
    encoder: &Encoder,
    batch: &Batch<'_>,
    rows: Option<&[i64]>,
    beside: bool,
    threads: usize,
) -> Vec<f32> {
    let (task, outputs) = encoder.head().unwrap();
    let count = if task.is_of_tokens() { rows.map_or(batch.tokens(), <[i64]>::len) } else { batch.len() };
    let mut out = vec![f32::NAN; count * outputs];
    let mut last = vec![0.0; batch.tokens() * encoder.config.hidden_size];
    let mut pooler = vec![0.0; batch.len() * encoder.config.hidden_size];
    let outputs = Outputs {
        last_hidden_state: beside.then_some(&mut last),
        pooler_output: beside.then_some(&mut pooler),
        head: Some(HeadOutputs { take: Take::All, rows, out: &mut out }),
        ..Outputs::default()
    };
    encoder.forward(batch, outputs, Some(threads)).unwrap();
    out
}

/// The logits of one sequence, in f64.
fn reference(model: &Model, task: Task, inputs: &Inputs) -> Vec<Vec<f64>> {
    let (states, pooler) = model.reference(&inputs.ids, &inputs.types, &inputs.positions);
    let last = states.last().unwrap();
    let (_, name, _) = OUTPUTS.into_iter().find(|(other, ..)| *other == task).unwrap();
    match task {
        Task::MaskedLm => {
            let one = |row: &Vec<f64>| {
                let dense = model.linear(&format!("{DECODER}.dense"), row);
                let dense: Vec<f64> =
                    dense.iter().map(|x| reference::activate(model.config.hidden_act, *x)).collect();
                let x = model.norm(&format!("{DECODER}.LayerNorm"), &dense);
                let bias = model.tensor("cls.predictions.bias").1;
                let logit = |(i, bias): (usize, &f32)| {
                    let words = model.row("embeddings.word_embeddings.weight", i);
                    f64::from(*bias) + x.iter().zip(words).map(|(x, w)| x * f64::from(*w)).sum::<f64>()
                };
                bias.iter().enumerate().map(logit).collect()
            };
            last.iter().map(one).collect()
        }
        task if task.is_of_tokens() => last.iter().map(|row| model.linear(name, row)).collect(),
        _ => vec![model.linear(name, &pooler)],
    }
}

const LENGTHS: [usize; 9] = [1, 5, 33, 2, 64, 70, 12, 70, 1];

#[test]
fn agrees_with_f64_on_every_isa() {
    let inputs = Inputs::new(&LENGTHS);
    for (task, ..) in OUTPUTS {
        for act in ["gelu", "relu"] {
            let model = model(task, act);
            let want: Vec<f64> =
                (0..LENGTHS.len()).flat_map(|i| reference(&model, task, &inputs.one(i)).concat()).collect();
            for isa in Isa::available() {
                let got =
                    logits(&encoder(&model, task, isa, Dtype::Float32), &inputs.batch(), None, false, 2);
                assert_eq!(got.len(), want.len());
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        error < 2e-5 * want.abs().max(1.0),
                        "{task:?} {} at {i}: {got} for {want}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_the_sequence_alone() {
    let inputs = Inputs::new(&LENGTHS);
    // First and last tokens, neighbours, and a sequence of which nothing is wanted.
    let rows: Vec<i64> = vec![0, 1, 5, 6, 40, 41, 104, 105, 174, 186, 257];
    for (task, ..) in OUTPUTS {
        let model = model(task, "gelu");
        for (isa, dtype) in every_isa_and_dtype() {
            let encoder = encoder(&model, task, isa, dtype);
            let place = format!("{task:?} {dtype:?} {}", isa.name());
            let whole = logits(&encoder, &inputs.batch(), None, false, 1);
            assert!(whole.iter().all(|x| x.is_finite()), "{place}");
            assert_eq!(logits(&encoder, &inputs.batch(), None, true, 2), whole, "{place}, beside others");
            assert_eq!(logits(&encoder, &inputs.batch(), None, false, 3), whole, "{place}, threads");
            let outputs = encoder.head().unwrap().1;
            for i in 0..LENGTHS.len() {
                let own = if task.is_of_tokens() {
                    inputs.cu[i] as usize * outputs..inputs.cu[i + 1] as usize * outputs
                } else {
                    i * outputs..(i + 1) * outputs
                };
                for threads in [1, 2] {
                    let alone = logits(&encoder, &inputs.one(i).batch(), None, false, threads);
                    assert_eq!(alone, whole[own.clone()], "{place}, sequence {i}, {threads} threads");
                }
            }
            if task.is_of_tokens() {
                let all = whole.chunks(outputs).collect::<Vec<_>>();
                let want: Vec<f32> = rows.iter().flat_map(|row| all[*row as usize].to_vec()).collect();
                for threads in [1, 2] {
                    let got = logits(&encoder, &inputs.batch(), Some(&rows), false, threads);
                    assert_eq!(got, want, "{place}, rows");
                }
                assert!(logits(&encoder, &inputs.batch(), Some(&[]), false, 2).is_empty());
            }
        }
    }
}

#[test]
fn a_head_of_sequences_may_read_all_tokens() {
    let inputs = Inputs::new(&LENGTHS);
    for mode in [Pooling::Mean, Pooling::Max] {
        let mut model = model(Task::SequenceClassification, "gelu");
        model.config.classifier_pooling = mode;
        for isa in Isa::available() {
            let encoder = encoder(&model, Task::SequenceClassification, isa, Dtype::Float32);
            let got = logits(&encoder, &inputs.batch(), None, false, 2);
            for i in 0..LENGTHS.len() {
                let one = inputs.one(i);
                let (states, _) = model.reference(&one.ids, &one.types, &one.positions);
                let rows = states.last().unwrap();
                let column = |d: usize| rows.iter().map(move |row| row[d]);
                let pooled: Vec<f64> = (0..52)
                    .map(|d| match mode {
                        Pooling::Max => column(d).fold(f64::NEG_INFINITY, f64::max),
                        _ => column(d).sum::<f64>() / rows.len() as f64,
                    })
                    .collect();
                let tanh: Vec<f64> = model.linear("pooler.dense", &pooled).iter().map(|x| x.tanh()).collect();
                for (j, want) in model.linear("classifier", &tanh).iter().enumerate() {
                    let got = f64::from(got[i * LABELS + j]);
                    assert!(
                        (got - want).abs() < 2e-5,
                        "{mode:?} {} sequence {i}: {got} for {want}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn sparse_vectors_and_likeliest_tokens_are_those_of_the_logits() {
    let inputs = Inputs::new(&LENGTHS);
    let model = model(Task::MaskedLm, "gelu");
    let rows: Vec<i64> = vec![0, 3, 7, 150, 257];
    for (isa, dtype) in every_isa_and_dtype() {
        let encoder = encoder(&model, Task::MaskedLm, isa, dtype);
        let batch = inputs.batch();
        let whole = logits(&encoder, &batch, None, false, 1);
        for (strategy, take) in [("max", Take::Greatest), ("sum", Take::Sum)] {
            assert_eq!(Take::from_name(strategy).unwrap(), take);
            for threads in [1, 2] {
                let mut out = vec![f32::NAN; batch.len() * VOCABULARY];
                let head = Some(HeadOutputs { take, rows: None, out: &mut out });
                encoder.forward(&batch, Outputs { head, ..Outputs::default() }, Some(threads)).unwrap();
                for (i, out) in out.chunks(VOCABULARY).enumerate() {
                    for (v, got) in out.iter().enumerate() {
                        let tokens = inputs.cu[i] as usize..inputs.cu[i + 1] as usize;
                        let values = tokens.map(|t| whole[t * VOCABULARY + v].max(0.0).ln_1p());
                        let want =
                            if take == Take::Sum { values.sum::<f32>() } else { values.fold(0.0, f32::max) };
                        assert!(
                            (got - want).abs() <= 1e-6 * want,
                            "{dtype:?} {} {strategy} {i} {v}",
                            isa.name()
                        );
                    }
                }
            }
        }
        for k in [1, 3, VOCABULARY] {
            let (mut probabilities, mut places) = (vec![0.0; rows.len() * k], vec![0; rows.len() * k]);
            let wanted = TopK { rows: &rows, k, probabilities: &mut probabilities, places: &mut places };
            encoder.top_k(&batch, wanted, Some(2), || false).unwrap();
            for (i, row) in rows.iter().enumerate() {
                let scores = &whole[*row as usize * VOCABULARY..][..VOCABULARY];
                let (mut want, mut at) = (vec![0.0; k], vec![0; k]);
                crate::ops::top_k::top_k(isa, scores, &mut want, &mut at);
                assert_eq!(probabilities[i * k..][..k], want);
                assert_eq!(places[i * k..][..k], at);
            }
        }
    }
}

#[test]
fn a_packed_file_with_a_head_has_the_same_bits() {
    let inputs = Inputs::new(&LENGTHS);
    for task in [Task::SequenceClassification, Task::MaskedLm, Task::TokenClassification] {
        let model = model(task, "gelu");
        let checkpoint = Checkpoint::from_bytes("test", model.bytes()).unwrap();
        for (isa, dtype) in every_isa_and_dtype() {
            let name = format!(
                "bertfast-head-{}-{}-{}-{}",
                std::process::id(),
                task.name(),
                dtype.name(),
                isa.name()
            );
            let path = std::env::temp_dir().join(name);
            pack(&model.config, &checkpoint, &[dtype], &path, isa, None, Some(task)).unwrap();
            let open = |task: Option<Task>| {
                let file = Checkpoint::open(std::slice::from_ref(&path)).unwrap();
                Encoder::open(model.config.clone(), &file, &[], isa, None, task)
            };
            let want = logits(&encoder(&model, task, isa, dtype), &inputs.batch(), None, false, 2);
            let opened = open(Some(task)).unwrap();
            assert!(opened.is_mapped() && opened.unused().is_empty());
            assert_eq!(logits(&opened, &inputs.batch(), None, false, 2), want);
            let bare = open(None).unwrap();
            assert!(bare.is_mapped() && bare.head().is_none());
            let error = open(Some(Task::QuestionAnswering)).unwrap_err().to_string();
            assert!(error.contains("head: expected \"question-answering\""), "{error}");
            assert!(error.contains(task.name()), "{error}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let open = |model: &Model, task: Task| {
        let checkpoint = Checkpoint::from_bytes("test", model.bytes()).unwrap();
        let isa = Isa::best();
        Encoder::new(model.config.clone(), &checkpoint, &[Dtype::Float32], isa, None, Some(task))
    };
    let mut tokens = model(Task::TokenClassification, "gelu");
    let message = |result: Result<Encoder>| result.unwrap_err().to_string();
    let got = message(open(&tokens, Task::QuestionAnswering));
    assert_eq!(got, "test: this model has no head for question-answering: qa_outputs.weight is missing");
    let got = message(open(&tokens, Task::SentenceOrder));
    assert!(got.starts_with("head: expected one of sequence-classification, "), "{got}");
    assert!(got.ends_with("for a model of type \"bert\", got \"sentence-order\""), "{got}");

    let encoder = open(&tokens, Task::TokenClassification).unwrap();
    let inputs = Inputs::new(&[3, 4]);
    let run = |rows: Option<&[i64]>, take: Take, len: usize| {
        let mut out = vec![0.0; len];
        let head = Some(HeadOutputs { take, rows, out: &mut out });
        let outputs = Outputs { head, ..Outputs::default() };
        encoder.forward(&inputs.batch(), outputs, None).map_err(|error| error.to_string())
    };
    for (rows, take, len, want) in [
        (None, Take::All, 34, "logits: expected 35 values, got 34"),
        (Some(&[0, 2][..]), Take::All, 5, "logits: expected 10 values, got 5"),
        (Some(&[7][..]), Take::All, 5, "rows: expected tokens in 0..7, got 7"),
        (Some(&[-1][..]), Take::All, 5, "rows: expected tokens in 0..7, got -1"),
        (Some(&[2, 2][..]), Take::All, 10, "rows: expected strictly increasing values, got 2, 2 at 0"),
        (Some(&[2][..]), Take::Sum, 10, "head: expected one that reads all tokens"),
    ] {
        let got = run(rows, take, len).unwrap_err();
        assert!(got.starts_with(want), "{got}");
    }
    for k in [0, LABELS + 1] {
        let mut places = vec![0; k];
        let wanted = TopK { rows: &[1], k, probabilities: &mut vec![0.0; k], places: &mut places };
        let got = encoder.top_k(&inputs.batch(), wanted, None, || false).unwrap_err().to_string();
        assert_eq!(got, format!("k: expected 1 to 5, got {k}"));
    }

    // A map for nothing, and one for other widths.
    for (shape, want) in [
        (vec![0, 52], "classifier.weight: expected a row for each label"),
        (vec![5, 51], "classifier.weight: expected shape (5, 52), found (5, 51)"),
        (vec![5], "classifier.weight: expected shape (5, 52), found (5,)"),
    ] {
        let values = vec![0.0; shape.iter().product()];
        tokens.tensors.insert("classifier.weight".into(), (shape, values));
        let got = message(open(&tokens, Task::TokenClassification));
        assert!(got.contains(want), "{got}");
    }

    let sequences = model(Task::SequenceClassification, "gelu");
    let encoder = open(&sequences, Task::SequenceClassification).unwrap();
    let mut out = vec![0.0; LABELS];
    let head = Some(HeadOutputs { take: Take::All, rows: Some(&[0]), out: &mut out });
    let outputs = Outputs { head, ..Outputs::default() };
    let got = encoder.forward(&inputs.batch(), outputs, None).unwrap_err().to_string();
    assert_eq!(got, "rows: expected none, sequence-classification has one row for each sequence");
    let bare = sequences.encoder(Isa::best());
    let head = Some(HeadOutputs { take: Take::All, rows: None, out: &mut out });
    let got = bare.forward(&inputs.batch(), Outputs { head, ..Outputs::default() }, None).unwrap_err();
    assert_eq!(got.to_string(), "head: this model was opened without one");
}

#[test]
fn names() {
    for task in Task::ALL {
        assert_eq!(Task::from_name(task.name()).unwrap(), task);
    }
    assert!(Task::from_name("ner").unwrap_err().to_string().contains("token-classification"));
    assert!(Take::from_name("mean").is_err());
}
