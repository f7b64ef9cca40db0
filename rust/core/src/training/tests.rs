use super::*;
use crate::ops::PANEL;

/// Numbers that look random, about normal.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut unit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (unit() + unit() + unit() + unit() - 2.0) * 1.7).collect()
}

/// What attention and its gradient are, in f64 and by their definition.
struct Oracle {
    out: Vec<f64>,
    grads: [Vec<f64>; 3],
}

fn oracle(grad: &[f32], [q, k, v]: [&[f32]; 3], ragged: &Ragged<'_>) -> Oracle {
    let (heads, head) = (ragged.heads, ragged.head);
    let mut out = vec![0.0; q.len()];
    let mut grads = [vec![0.0; q.len()], vec![0.0; q.len()], vec![0.0; q.len()]];
    let dropout = Dropout::new(ragged.dropout, ragged.seed);
    for sequence in 0..ragged.cu_seqlens.len() - 1 {
        let (start, end) = (ragged.cu_seqlens[sequence] as usize, ragged.cu_seqlens[sequence + 1] as usize);
        for n in 0..heads {
            let at = |row: usize, x: usize| ((start + row) * heads + n) * head + x;
            let dot = |a: &[f32], i: usize, b: &[f32], j: usize| -> f64 {
                (0..head).map(|x| f64::from(a[at(i, x)]) * f64::from(b[at(j, x)])).sum()
            };
            let rows = end - start;
            for i in 0..rows {
                let scores: Vec<f64> = (0..rows).map(|j| dot(q, i, k, j) * f64::from(ragged.scale)).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|s| (s - max).exp() / sum).collect();
                let factor: Vec<f64> = (0..rows)
                    .map(|j| {
                        let mut factors = [1.0; PANEL];
                        if let Some(dropout) = dropout {
                            dropout.row(sequence, n, i).factors(j / PANEL, &mut factors);
                        }
                        f64::from(factors[j % PANEL])
                    })
                    .collect();
                let dw: Vec<f64> = (0..rows).map(|j| dot(grad, i, v, j) * factor[j]).collect();
                let mean: f64 = (0..rows).map(|j| p[j] * dw[j]).sum();
                for j in 0..rows {
                    let ds = p[j] * (dw[j] - mean) * f64::from(ragged.scale);
                    for x in 0..head {
                        out[at(i, x)] += p[j] * factor[j] * f64::from(v[at(j, x)]);
                        grads[0][at(i, x)] += ds * f64::from(k[at(j, x)]);
                        grads[1][at(j, x)] += ds * f64::from(q[at(i, x)]);
                        grads[2][at(j, x)] += p[j] * factor[j] * f64::from(grad[at(i, x)]);
                    }
                }
            }
        }
    }
    Oracle { out, grads }
}

struct Computed<E> {
    out: Vec<E>,
    lse: Vec<f32>,
    grads: [Vec<E>; 3],
}

fn compute<E: Element>(
    grad: &[E],
    qkv: [&[E]; 3],
    ragged: &Ragged<'_>,
    isa: Isa,
    threads: usize,
) -> Computed<E> {
    let count = grad.len();
    let empty = || vec![E::default(); count];
    let (mut out, mut lse) = (empty(), vec![0.0; count / ragged.head]);
    ragged_attention(qkv, ragged, &mut out, &mut lse, isa, threads).unwrap();
    let mut grads = [empty(), empty(), empty()];
    let [a, b, c] = &mut grads;
    ragged_attention_backward(grad, qkv, &lse, ragged, [a, b, c], isa, threads).unwrap();
    Computed { out, lse, grads }
}

fn worst<E: Element>(got: &[E], want: &[f64]) -> f64 {
    let largest = want.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| (f64::from(g.to_f32()) - w).abs()).fold(0.0, f64::max);
    worst / largest.max(1e-30)
}

const LENGTHS: [&[i64]; 4] =
    [&[0, 1], &[0, 31, 32, 64, 97, 99], &[0, 130, 133], &[0, 5, 17, 30, 46, 63, 81, 100]];

#[test]
fn outputs_and_gradients_are_those_of_the_definition() {
    for isa in Isa::available() {
        for cu_seqlens in LENGTHS {
            for (heads, head) in [(2, 32), (1, 64), (3, 26), (1, 5), (1, 40)] {
                for dropout in [0.0, 0.3] {
                    let scale = 1.0 / (head as f32).sqrt();
                    let ragged = Ragged { cu_seqlens, heads, head, scale, dropout, seed: 11 };
                    let count = *cu_seqlens.last().unwrap() as usize * heads * head;
                    let all: Vec<Vec<f32>> = (0..4).map(|i| numbers(count, i + 1)).collect();
                    let qkv = [&all[0][..], &all[1], &all[2]];
                    let want = oracle(&all[3], qkv, &ragged);
                    let got = compute(&all[3], qkv, &ragged, isa, 2);
                    let errors = [
                        worst(&got.out, &want.out),
                        worst(&got.grads[0], &want.grads[0]),
                        worst(&got.grads[1], &want.grads[1]),
                        worst(&got.grads[2], &want.grads[2]),
                    ];
                    // One sequence of one token has gradients of 0 for q and k.
                    let alone = cu_seqlens.len() == 2;
                    for (i, error) in errors.into_iter().enumerate() {
                        if alone && (i == 1 || i == 2) {
                            assert!(got.grads[i - 1].iter().all(|x| x.abs() < 1e-6));
                        } else {
                            // Measured: 1.1e-6.
                            assert!(
                                error < 3e-6,
                                "{isa:?} {cu_seqlens:?} {heads}x{head} dropout {dropout}: {errors:?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for isa in Isa::available() {
        let ragged = Ragged { cu_seqlens: &[0, 40], heads: 1, head: 32, scale: 30.0, dropout: 0.0, seed: 0 };
        let all: Vec<Vec<f32>> = (0..4).map(|i| numbers(40 * 32, i + 5)).collect();
        let qkv = [&all[0][..], &all[1], &all[2]];
        let (want, got) = (oracle(&all[3], qkv, &ragged), compute(&all[3], qkv, &ragged, isa, 1));
        // Scores of thousands have an error of their rounding.
        assert!(worst(&got.out, &want.out) < 2e-3, "{isa:?}");
        assert!(got.grads.iter().flatten().all(|x| x.is_finite()), "{isa:?}");
    }
}

#[test]
fn bf16_is_rounded_only_where_it_is_read_and_written() {
    let ragged = Ragged { cu_seqlens: &[0, 33, 40], heads: 2, head: 32, scale: 0.2, dropout: 0.1, seed: 3 };
    let all: Vec<Vec<u16>> =
        (0..4).map(|i| numbers(40 * 64, i + 9).into_iter().map(u16::from_f32).collect()).collect();
    let wide: Vec<Vec<f32>> = all.iter().map(|x| x.iter().map(|x| x.to_f32()).collect()).collect();
    for isa in Isa::available() {
        let got = compute(&all[3], [&all[0], &all[1], &all[2]], &ragged, isa, 2);
        let want = compute(&wide[3], [&wide[0], &wide[1], &wide[2]], &ragged, isa, 2);
        assert_eq!(got.lse, want.lse);
        assert!(got.out.iter().zip(&want.out).all(|(a, b)| *a == u16::from_f32(*b)));
        for (got, want) in got.grads.iter().zip(&want.grads) {
            assert!(got.iter().zip(want).all(|(a, b)| *a == u16::from_f32(*b)));
        }
    }
}

#[test]
fn bits_depend_on_neither_batch_nor_threads() {
    let (heads, head) = (2, 32);
    let all: Vec<Vec<f32>> = (0..4).map(|i| numbers(100 * 64, i + 20)).collect();
    let ragged = Ragged {
        cu_seqlens: &[0, 5, 17, 30, 46, 63, 81, 100],
        heads,
        head,
        scale: 0.18,
        dropout: 0.0,
        seed: 0,
    };
    for isa in Isa::available() {
        let one = compute(&all[3], [&all[0], &all[1], &all[2]], &ragged, isa, 1);
        let two = compute(&all[3], [&all[0], &all[1], &all[2]], &ragged, isa, 2);
        assert!(one.out == two.out && one.grads == two.grads && one.lse == two.lse);
        for (start, end) in [(0, 5), (46, 63), (81, 100)] {
            let part = |x: &[f32]| x[start * 64..end * 64].to_vec();
            let alone = Ragged { cu_seqlens: &[0, (end - start) as i64], ..ragged };
            let parts: Vec<Vec<f32>> = all.iter().map(|x| part(x)).collect();
            let got = compute(&parts[3], [&parts[0], &parts[1], &parts[2]], &alone, isa, 1);
            assert_eq!(got.out, part(&one.out));
            for (got, all) in got.grads.iter().zip(&one.grads) {
                assert_eq!(*got, part(all));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let isa = Isa::choose(None).unwrap();
    let x = vec![0f32; 40 * 32];
    let fine = Ragged { cu_seqlens: &[0, 40], heads: 1, head: 32, scale: 1.0, dropout: 0.0, seed: 0 };
    for (ragged, lse) in [
        (Ragged { cu_seqlens: &[0, 41], ..fine }, 41),
        (Ragged { cu_seqlens: &[0, 30, 30, 40], ..fine }, 40),
        (Ragged { cu_seqlens: &[0, 50, 40], ..fine }, 40),
        (Ragged { cu_seqlens: &[1, 40], ..fine }, 40),
        (Ragged { cu_seqlens: &[], ..fine }, 40),
        (Ragged { cu_seqlens: &[0, -3], ..fine }, 40),
        (Ragged { heads: 2, ..fine }, 40),
        (Ragged { head: 0, ..fine }, 40),
        (Ragged { heads: usize::MAX, ..fine }, 40),
        (Ragged { dropout: 1.1, ..fine }, 40),
        (Ragged { dropout: f32::NAN, ..fine }, 40),
        (fine, 39),
    ] {
        let (mut out, mut lse) = (x.clone(), vec![0.0; lse]);
        assert!(ragged_attention([&x, &x, &x], &ragged, &mut out, &mut lse, isa, 1).is_err(), "{ragged:?}");
    }
}
