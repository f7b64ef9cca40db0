//! The engine against a naive f64 model, and its promises about bits, on every instruction set.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::tensor::TensorView;

use super::extras::Extras;
use super::*;
use crate::ops::reference;

/// A random model: its numbers and its tensors, row-major.
pub(super) struct Model {
    pub(super) config: Config,
    pub(super) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

pub(super) fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

impl Model {
    /// Weights uniform in +-0.17 (standard deviation 0.1), scales around 1.
    pub(super) fn random(hidden: usize, heads: usize, inner: usize, layers: usize, act: &str) -> Self {
        let json = format!(
            r#"{{"model_type": "bert", "vocab_size": 61, "hidden_size": {hidden}, "num_hidden_layers": {layers},
                "num_attention_heads": {heads}, "intermediate_size": {inner}, "hidden_act": "{act}",
                "max_position_embeddings": 70, "type_vocab_size": 2, "layer_norm_eps": 1e-12}}"#
        );
        let config = Config::from_json(&json).unwrap();
        let mut next = noise((hidden * 31 + heads * 7 + layers) as u64);
        let tensors = structure::required(&config, &Extras { pooler: true, head: None })
            .into_iter()
            .map(|(name, shape)| {
                let shift = if name.contains("LayerNorm.weight") { 1.0 } else { 0.0 };
                let values = (0..shape.iter().product()).map(|_| 0.17 * next() + shift).collect();
                (name, (shape, values))
            })
            .collect();
        Self { config, tensors }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let views: Vec<_> = self
            .tensors
            .iter()
            .map(|(name, (shape, values))| {
                let bytes = bytemuck::cast_slice(values);
                (name.clone(), TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
            })
            .collect();
        safetensors::serialize(views, None).unwrap()
    }

    pub(super) fn encoder(&self, isa: Isa) -> Encoder {
        self.encoder_of(isa, Dtype::Float32)
    }

    fn encoder_of(&self, isa: Isa, dtype: Dtype) -> Encoder {
        let checkpoint = Checkpoint::from_bytes("test", self.bytes()).unwrap();
        Encoder::new(self.config.clone(), &checkpoint, &[dtype], isa, None, None).unwrap()
    }

    pub(super) fn tensor(&self, name: &str) -> (&[usize], &[f32]) {
        let (shape, values) = &self.tensors[name];
        (shape, values)
    }

    pub(super) fn row(&self, name: &str, row: usize) -> &[f32] {
        let (shape, values) = self.tensor(name);
        &values[row * shape[1]..][..shape[1]]
    }

    pub(super) fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (_, bias) = self.tensor(&format!("{name}.bias"));
        let one = |(n, b): (usize, &f32)| {
            let w = self.row(&format!("{name}.weight"), n);
            f64::from(*b) + x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>()
        };
        bias.iter().enumerate().map(one).collect()
    }

    pub(super) fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (variance + self.config.layer_norm_eps).sqrt();
        let (gamma, beta) =
            (self.tensor(&format!("{name}.weight")).1, self.tensor(&format!("{name}.bias")).1);
        x.iter()
            .zip(gamma.iter().zip(beta))
            .map(|(x, (g, b))| (x - mean) * scale * f64::from(*g) + f64::from(*b))
            .collect()
    }

    /// All hidden states of one sequence, and its pooler output.
    pub(super) fn reference(
        &self,
        ids: &[i32],
        types: &[i32],
        positions: &[i32],
    ) -> (Vec<Vec<Vec<f64>>>, Vec<f64>) {
        let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
        let mut x: Vec<Vec<f64>> = (0..ids.len())
            .map(|i| {
                let word = self.row("embeddings.word_embeddings.weight", ids[i] as usize);
                let position = self.row("embeddings.position_embeddings.weight", positions[i] as usize);
                let token_type = self.row("embeddings.token_type_embeddings.weight", types[i] as usize);
                let sum: Vec<f64> = (0..word.len())
                    .map(|d| f64::from(word[d]) + f64::from(position[d]) + f64::from(token_type[d]))
                    .collect();
                self.norm("embeddings.LayerNorm", &sum)
            })
            .collect();
        let mut states = vec![x.clone()];
        let head = self.config.head_size();
        for layer in 0..self.config.num_hidden_layers {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            let project = |part: &str| -> Vec<Vec<f64>> {
                x.iter().map(|x| self.linear(&name(&format!("attention.self.{part}")), x)).collect()
            };
            let (q, k, v) = (project("query"), project("key"), project("value"));
            let context = |i: usize| -> Vec<f64> {
                (0..self.config.num_attention_heads)
                    .flat_map(|h| {
                        let part = h * head..(h + 1) * head;
                        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                        let scores: Vec<f64> = k
                            .iter()
                            .map(|k| dot(&q[i][part.clone()], &k[part.clone()]) / (head as f64).sqrt())
                            .collect();
                        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        let exps: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                        let sum: f64 = exps.iter().sum();
                        part.map(|d| exps.iter().zip(&v).map(|(e, v)| e / sum * v[d]).sum())
                            .collect::<Vec<f64>>()
                    })
                    .collect()
            };
            x = (0..ids.len())
                .map(|i| {
                    let attended = self.linear(&name("attention.output.dense"), &context(i));
                    let x = self.norm(&name("attention.output.LayerNorm"), &add(&attended, &x[i]));
                    let inner: Vec<f64> = self
                        .linear(&name("intermediate.dense"), &x)
                        .into_iter()
                        .map(|x| reference::activate(self.config.hidden_act, x))
                        .collect();
                    self.norm(
                        &name("output.LayerNorm"),
                        &add(&self.linear(&name("output.dense"), &inner), &x),
                    )
                })
                .collect();
            states.push(x.clone());
        }
        let pooler = self.linear("pooler.dense", &x[0]).into_iter().map(f64::tanh).collect();
        (states, pooler)
    }
}

/// Sequences of these lengths, with ids, types and positions from noise.
pub(super) struct Inputs {
    pub(super) ids: Vec<i32>,
    pub(super) types: Vec<i32>,
    pub(super) positions: Vec<i32>,
    pub(super) cu: Vec<i64>,
}

impl Inputs {
    pub(super) fn new(lengths: &[usize]) -> Self {
        let mut next = noise(lengths.iter().sum::<usize>() as u64);
        let total = lengths.iter().sum();
        let mut below = |n: i32| -> Vec<i32> {
            (0..total).map(|_| ((next() + 1.0) / 2.0 * n as f32) as i32 % n).collect()
        };
        let (ids, types, positions) = (below(61), below(2), below(70));
        let cu = std::iter::once(0)
            .chain(lengths.iter().scan(0, |sum, n| {
                *sum += *n as i64;
                Some(*sum)
            }))
            .collect();
        Self { ids, types, positions, cu }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch {
            input_ids: &self.ids,
            cu_seqlens: &self.cu,
            token_type_ids: Some(&self.types),
            position_ids: Some(&self.positions),
        }
    }

    pub(super) fn one(&self, i: usize) -> Self {
        let range = self.cu[i] as usize..self.cu[i + 1] as usize;
        let cu = vec![0, range.len() as i64];
        let [ids, types, positions] =
            [&self.ids, &self.types, &self.positions].map(|v| v[range.clone()].to_vec());
        Self { ids, types, positions, cu }
    }
}

/// Everything that a forward pass can give, in one vector per output.
fn run(encoder: &Encoder, batch: &Batch<'_>, threads: usize) -> Vec<Vec<f32>> {
    let (t, b, d) = (batch.tokens(), batch.len(), encoder.config.hidden_size);
    let (layers, heads) = (encoder.config.num_hidden_layers, encoder.config.num_attention_heads);
    let squares: usize = (0..b).map(|i| batch.sequence(i).1.pow(2)).sum();
    let lengths = [t * d, b * d, (layers + 1) * t * d, layers * heads * squares, b * d * Pooling::ALL.len()];
    let mut out = lengths.map(|n| vec![f32::NAN; n]);
    let [last, pooler, hidden, attentions, pooled] = out.each_mut().map(Vec::as_mut_slice);
    let outputs = Outputs {
        last_hidden_state: Some(last),
        pooler_output: Some(pooler),
        hidden_states: Some(hidden),
        attentions: Some(attentions),
        pooled: Some(Pooled { modes: &Pooling::ALL, skip: 0, normalize: false, out: pooled }),
        head: None,
    };
    encoder.forward(batch, outputs, Some(threads)).unwrap();
    out.to_vec()
}

const SHAPES: [(usize, usize, usize, usize, &str); 6] = [
    (36, 1, 50, 1, "gelu"),
    (52, 2, 33, 2, "gelu_new"),
    (64, 1, 128, 2, "relu"),
    (96, 3, 17, 1, "silu"),
    (24, 6, 96, 3, "gelu"),
    (130, 5, 260, 1, "tanh"),
];

#[test]
fn agrees_with_f64_on_every_isa() {
    let inputs = Inputs::new(&[1, 5, 33, 2, 64, 70, 12]);
    for (hidden, heads, inner, layers, act) in SHAPES {
        let model = Model::random(hidden, heads, inner, layers, act);
        for isa in Isa::available() {
            let got = run(&model.encoder(isa), &inputs.batch(), 2);
            for i in 0..inputs.cu.len() - 1 {
                let one = inputs.one(i);
                let (states, pooler) = model.reference(&one.ids, &one.types, &one.positions);
                let place = format!("{} {hidden}/{heads}/{inner} {act} sequence {i}", isa.name());
                // Measured: at most 4e-6 of the largest value, which LayerNorm keeps near 1.
                let close = |got: f32, want: f64, what: &str| {
                    let error = (f64::from(got) - want).abs();
                    assert!(error < 2e-5 * want.abs().max(1.0), "{place} {what}: {got} for {want}");
                };
                let (start, t) = (inputs.cu[i] as usize, inputs.ids.len());
                for (state, want) in states.iter().enumerate() {
                    for (row, want) in want.iter().enumerate() {
                        for (d, want) in want.iter().enumerate() {
                            close(got[2][(state * t + start + row) * hidden + d], *want, "hidden state");
                        }
                    }
                }
                let last = states.last().unwrap();
                for d in 0..hidden {
                    close(got[0][start * hidden + d], last[0][d], "last hidden state");
                    close(got[1][i * hidden + d], pooler[d], "pooler output");
                    let column: Vec<f64> = last.iter().map(|row| row[d]).collect();
                    let (n, sum) = (column.len() as f64, column.iter().sum::<f64>());
                    let weights = (1..=column.len()).map(|w| w as f64);
                    let weighted: f64 = column.iter().zip(weights.clone()).map(|(x, w)| x * w).sum();
                    let want = [
                        column[0],
                        column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                        sum / n,
                        sum / n.sqrt(),
                        weighted / weights.sum::<f64>(),
                        column[column.len() - 1],
                    ];
                    for (mode, want) in want.into_iter().enumerate() {
                        close(got[4][(i * 6 + mode) * hidden + d], want, Pooling::ALL[mode].name());
                    }
                }
            }
            assert!(got.iter().flatten().all(|x| x.is_finite()), "{}: something was not written", isa.name());
        }
    }
}

pub(super) fn every_isa_and_dtype() -> impl Iterator<Item = (Isa, Dtype)> {
    let pairs = Isa::available().into_iter().flat_map(|isa| Dtype::ALL.map(|dtype| (isa, dtype)));
    pairs.filter(|(isa, dtype)| dtype.runs_on(*isa))
}

/// Widths with small and large rotations, heads that fill half a panel of words and heads that are padded.
const ROUNDED_SHAPES: [(usize, usize, usize, usize, &str); 5] = [
    (64, 1, 128, 2, "relu"),
    (96, 3, 128, 2, "gelu"),
    (52, 2, 36, 2, "gelu_new"),
    (128, 2, 512, 2, "gelu"),
    (24, 6, 96, 2, "gelu"),
];

/// `1 - cosine` of two vectors.
fn turn(a: &[f32], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum();
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    1.0 - dot / norm(&mut a.iter().map(|x| f64::from(*x))) / norm(&mut b.iter().copied())
}

#[test]
fn rounded_types_stay_near_f64_on_every_isa() {
    let inputs = Inputs::new(&[1, 5, 33, 2, 64, 70, 12]);
    for (hidden, heads, inner, layers, act) in ROUNDED_SHAPES {
        let model = Model::random(hidden, heads, inner, layers, act);
        let wanted: Vec<_> = (0..inputs.cu.len() - 1)
            .map(|i| {
                let one = inputs.one(i);
                model.reference(&one.ids, &one.types, &one.positions).0
            })
            .collect();
        // Measured: bf16 at most 4e-5, int8 at most 5e-4, on single tokens of small models with random weights.
        for (dtype, most) in [(Dtype::BFloat16, 1e-4), (Dtype::Int8, 2e-3)] {
            for isa in Isa::available().into_iter().filter(|isa| dtype.runs_on(*isa)) {
                let got = run(&model.encoder_of(isa, dtype), &inputs.batch(), 2);
                let t = inputs.ids.len();
                for (i, states) in wanted.iter().enumerate() {
                    for (state, want) in states.iter().enumerate() {
                        for (row, want) in want.iter().enumerate() {
                            let at = (state * t + inputs.cu[i] as usize + row) * hidden;
                            let turn = turn(&got[2][at..at + hidden], want);
                            assert!(
                                turn < most,
                                "{} {dtype:?} {hidden}/{heads}/{inner} sequence {i} state {state}: {turn:e}",
                                isa.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_the_sequence_alone() {
    let lengths: Vec<usize> = (0..60).map(|i| 1 + i * 37 % 70).collect();
    let inputs = Inputs::new(&lengths);
    for (hidden, heads, inner, layers, act) in [SHAPES[1], SHAPES[4]] {
        let model = Model::random(hidden, heads, inner, layers, act);
        for (isa, dtype) in every_isa_and_dtype() {
            let encoder = model.encoder_of(isa, dtype);
            let whole = run(&encoder, &inputs.batch(), 1);
            for threads in [2, 3, 64] {
                assert_eq!(
                    run(&encoder, &inputs.batch(), threads),
                    whole,
                    "{} {dtype:?} {threads} threads",
                    isa.name()
                );
            }
            let t = inputs.ids.len();
            for i in [0, 1, 2, 30, 59] {
                let one = inputs.one(i);
                for threads in [1, 2] {
                    let alone = run(&encoder, &one.batch(), threads);
                    let rows = inputs.cu[i] as usize * hidden..inputs.cu[i + 1] as usize * hidden;
                    assert_eq!(alone[0], whole[0][rows.clone()], "{} sequence {i}", isa.name());
                    assert_eq!(alone[1], whole[1][i * hidden..(i + 1) * hidden]);
                    for state in 0..=layers {
                        let at = state * t * hidden;
                        assert_eq!(
                            alone[2][state * rows.len()..(state + 1) * rows.len()],
                            whole[2][at + rows.start..at + rows.end]
                        );
                    }
                    assert_eq!(alone[4], whole[4][i * 6 * hidden..(i + 1) * 6 * hidden]);
                }
            }
        }
    }
}

/// What is pooled by `modes`, and the pooler's output, if asked for, with nothing else.
fn pooled(
    encoder: &Encoder,
    batch: &Batch<'_>,
    modes: &[Pooling],
    skip: usize,
    pooler: bool,
) -> [Vec<f32>; 2] {
    let d = encoder.config.hidden_size;
    let mut out = vec![f32::NAN; batch.len() * d * modes.len()];
    let mut tanh = vec![f32::NAN; if pooler { batch.len() * d } else { 0 }];
    let pooled = (!modes.is_empty()).then_some(Pooled { modes, skip, normalize: false, out: &mut out });
    let outputs = Outputs { pooled, pooler_output: pooler.then_some(&mut tanh[..]), ..Outputs::default() };
    encoder.forward(batch, outputs, None).unwrap();
    [out, tanh]
}

#[test]
fn one_wanted_row_has_the_bits_that_it_has_among_all() {
    let inputs = Inputs::new(&[1, 5, 33, 2, 64, 70, 12, 1]);
    for (hidden, heads, inner, layers, act) in [SHAPES[1], SHAPES[4]] {
        let model = Model::random(hidden, heads, inner, layers, act);
        for (isa, dtype) in every_isa_and_dtype() {
            let (encoder, batch) = (model.encoder_of(isa, dtype), inputs.batch());
            for skip in [0, 3] {
                for mode in Pooling::ALL {
                    // Two different modes together need all rows.
                    let other = if mode == Pooling::Mean { Pooling::Max } else { Pooling::Mean };
                    let [all, tanh] = pooled(&encoder, &batch, &[mode, other], skip, true);
                    let first: Vec<f32> =
                        all.chunks(2 * hidden).flat_map(|both| both[..hidden].to_vec()).collect();
                    let place = format!("{} {dtype:?} {mode:?} after {skip}", isa.name());
                    assert_eq!(pooled(&encoder, &batch, &[mode], skip, false)[0], first, "{place}");
                    let twice = pooled(&encoder, &batch, &[mode, mode], skip, true);
                    let second: Vec<f32> =
                        twice[0].chunks(2 * hidden).flat_map(|both| both[hidden..].to_vec()).collect();
                    assert_eq!(second, first, "{place}, twice");
                    assert_eq!(twice[1], tanh, "{place}, with the pooler");
                    assert_eq!(pooled(&encoder, &batch, &[], 0, true)[1], tanh, "the pooler alone");
                }
            }
        }
    }
}

#[test]
fn attentions_are_distributions_in_their_places() {
    let inputs = Inputs::new(&[3, 40, 1]);
    let model = Model::random(52, 2, 33, 2, "gelu");
    for isa in Isa::available() {
        let got = run(&model.encoder(isa), &inputs.batch(), 2);
        let mut at = 0;
        for _layer in 0..2 {
            for s in [3, 40, 1] {
                for row in got[3][at..at + 2 * s * s].chunks(s) {
                    let sum: f32 = row.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-5 && row.iter().all(|p| *p >= 0.0), "{sum}");
                }
                at += 2 * s * s;
            }
        }
        assert_eq!(at, got[3].len());
    }
}

#[test]
fn one_encoder_serves_many_threads_at_once() {
    let model = Model::random(52, 2, 33, 2, "gelu");
    let encoder = Arc::new(model.encoder(Isa::best()));
    let inputs: Vec<Inputs> = (1..9).map(|n| Inputs::new(&vec![n * 7; n])).collect();
    let want: Vec<_> = inputs.iter().map(|inputs| run(&encoder, &inputs.batch(), 1)).collect();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (encoder, inputs, want) = (&encoder, &inputs, &want);
            scope.spawn(move || {
                for round in 0..20 {
                    let i = (worker + round) % inputs.len();
                    assert_eq!(run(encoder, &inputs[i].batch(), 1 + round % 3), want[i]);
                }
            });
        }
    });
}

#[test]
fn bad_batches_are_errors_that_name_the_argument() {
    let encoder = Model::random(24, 6, 96, 1, "gelu").encoder(Isa::best());
    let long = vec![1; 71];
    type Case<'a> = (&'a [i32], &'a [i64], Option<&'a [i32]>, Option<&'a [i32]>, &'a str);
    let cases: [Case<'_>; 11] = [
        (&[1], &[], None, None, "cu_seqlens: expected at least one value, got none"),
        (&[1, 2], &[0, 1], None, None, "cu_seqlens: expected to run from 0 to 2, got 0 to 1"),
        (&[1, 2], &[1, 2], None, None, "cu_seqlens: expected to run from 0 to 2, got 1 to 2"),
        (&[1, 2], &[0, 2, 2], None, None, "cu_seqlens: expected strictly increasing values, got 2, 2 at 1"),
        (&[1, 2], &[0, 3, 2], None, None, "cu_seqlens: expected strictly increasing values, got 3, 2 at 1"),
        (&[1, 61], &[0, 2], None, None, "input_ids: expected ids in 0..61, got 61 at token 1"),
        (&[1, -1], &[0, 2], None, None, "input_ids: expected ids in 0..61, got -1 at token 1"),
        (&[1, 2], &[0, 2], Some(&[0, 2]), None, "token_type_ids: expected ids in 0..2, got 2 at token 1"),
        (&[1, 2], &[0, 2], Some(&[0]), None, "token_type_ids: expected 2 values like input_ids, got 1"),
        (&[1, 2], &[0, 2], None, Some(&[0, 70]), "position_ids: expected ids in 0..70, got 70 at token 1"),
        (&long, &[0, 71], None, None, "input_ids: expected at most 70 tokens in a sequence, got 71"),
    ];
    for (input_ids, cu_seqlens, token_type_ids, position_ids, want) in cases {
        let batch = Batch { input_ids, cu_seqlens, token_type_ids, position_ids };
        let got = encoder.forward(&batch, Outputs::default(), None).unwrap_err().to_string();
        assert_eq!(got, want);
    }
    let batch = Batch { input_ids: &[1, 2], cu_seqlens: &[0, 2], token_type_ids: None, position_ids: None };
    let outputs = Outputs { last_hidden_state: Some(&mut [0.0; 47]), ..Outputs::default() };
    let got = encoder.forward(&batch, outputs, None).unwrap_err().to_string();
    assert_eq!(got, "last_hidden_state: expected 48 values, got 47");
    let got = encoder.forward(&batch, Outputs::default(), Some(0)).unwrap_err().to_string();
    assert_eq!(got, "num_threads: expected at least 1, got 0");
    let empty = Batch { input_ids: &[], cu_seqlens: &[0], token_type_ids: None, position_ids: None };
    encoder.forward(&empty, Outputs::default(), None).unwrap();
}

#[test]
fn a_checkpoint_without_pooler_and_with_extras_opens() {
    let mut model = Model::random(24, 6, 96, 1, "gelu");
    model.tensors.remove("pooler.dense.weight");
    model.tensors.insert("cls.predictions.bias".into(), (vec![61], vec![0.0; 61]));
    let encoder = model.encoder(Isa::best());
    assert!(!encoder.has_pooler());
    assert_eq!(encoder.unused(), ["cls.predictions.bias", "pooler.dense.bias"]);
    model.tensors.remove("encoder.layer.0.output.dense.bias");
    model.tensors.remove("embeddings.LayerNorm.weight");
    let checkpoint = Checkpoint::from_bytes("test", model.bytes()).unwrap();
    let error = Encoder::new(model.config.clone(), &checkpoint, &[Dtype::Float32], Isa::best(), None, None)
        .unwrap_err()
        .to_string();
    for name in ["encoder.layer.0.output.dense.bias", "embeddings.LayerNorm.weight"] {
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_dense_layer_has_the_same_bits_for_a_row_alone() {
    for isa in Isa::available() {
        let (inputs, outputs, rows) = (37, 45, 30);
        let mut next = noise(5);
        let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| next()).collect() };
        let (weight, bias, x) = (values(inputs * outputs), values(outputs), values(rows * inputs));
        let dense = Dense::new(&weight, inputs, outputs, Some(&bias), isa).unwrap();
        let mut whole = vec![0.0; rows * outputs];
        dense.apply(&x, &mut whole, isa).unwrap();
        for (row, x) in x.chunks(inputs).enumerate() {
            let mut alone = vec![0.0; outputs];
            dense.apply(x, &mut alone, isa).unwrap();
            assert_eq!(alone, whole[row * outputs..][..outputs]);
            for (n, got) in alone.iter().enumerate() {
                let want = reference::dot(x, &weight[n * inputs..][..inputs]) + f64::from(bias[n]);
                assert!((f64::from(*got) - want).abs() < 1e-5, "{} {got} for {want}", isa.name());
            }
        }
        assert!(dense.apply(&x[1..], &mut whole, isa).is_err());
        assert!(Dense::new(&weight[1..], inputs, outputs, None, isa).is_err());
    }
}
