//! The naive f64 oracle that every operation is tested against.

use super::Activation;

/// `a . b`
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `erfc(x)`: Taylor series near 0, continued fraction further out; relative error below 1e-13.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if x > 27.0 {
        return 0.0;
    }
    let fraction = (1..=60).rev().fold(x, |f, n| x + f64::from(n) / 2.0 / f);
    (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

/// The activation by its definition.
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => x * 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// One row.
pub fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], eps: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + eps).sqrt();
    x.iter()
        .zip(gamma.iter().zip(beta))
        .map(|(x, (g, b))| (f64::from(*x) - mean) * scale * f64::from(*g) + f64::from(*b))
        .collect()
}

/// Attention of one head: `q`, `k`, `v` as rows of `head` values, the probabilities and the output.
pub fn attention(
    q: &[Vec<f32>],
    k: &[Vec<f32>],
    v: &[Vec<f32>],
    scale: f64,
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let probabilities: Vec<Vec<f64>> = q
        .iter()
        .map(|q| {
            let scores: Vec<f64> = k.iter().map(|k| dot(q, k) * scale).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exps: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.iter().map(|e| e / sum).collect()
        })
        .collect();
    let out = probabilities
        .iter()
        .map(|p| (0..v[0].len()).map(|d| p.iter().zip(v).map(|(p, v)| p * f64::from(v[d])).sum()).collect())
        .collect();
    (probabilities, out)
}
