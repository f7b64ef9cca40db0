//! The functions between the two feed-forward matrices, and the exponential under softmax.

use crate::simd::{ROUND, Simd};

pub use crate::config::Activation;

/// Highest power first.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
const EXP2: [f32; 7] =
    [0.000_154_614_45, 0.001_340_042_8, 0.009_618_057, 0.055_503_27, 0.240_226_51, 0.693_147_2, 1.0];

/// The same of degree 4, for probabilities that are rounded to bf16 next.
#[allow(clippy::approx_constant, clippy::excessive_precision)]
const EXP2_COARSE: [f32; 5] = [0.009_666_368, 0.055_921_976, 0.240_223_5, 0.693_121, 1.0];

/// `2^x`, at least as small or large at -126 and 126 as everything beyond.
///
/// `2^n * p(x - n)` with `n` the nearest integer and `p` the interpolation of degree 6 at Chebyshev's nodes.
///
/// Accuracy: 1 ulp (exhaustively tested on [-126, 1]).
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32 {
    exp2_by(s, x, &EXP2)
}

/// [`exp2`] to 4e-6 of the value: a five-hundredth of what rounding to bf16 costs.
#[inline(always)]
pub fn exp2_coarse<S: Simd>(s: S, x: S::F32) -> S::F32 {
    exp2_by(s, x, &EXP2_COARSE)
}

#[inline(always)]
fn exp2_by<S: Simd, const N: usize>(s: S, x: S::F32, polynomial: &[f32; N]) -> S::F32 {
    let (f, n) = s.split_exponent(x);
    let mut p = s.splat(polynomial[0]);
    for c in &polynomial[1..] {
        p = s.mul_add(p, f, s.splat(*c));
    }
    s.scale(p, n)
}

/// `e^x`; what no f32 holds is as small or large as [`exp2`] gets.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    exp2(s, s.mul(x, s.splat(std::f32::consts::LOG2_E)))
}

/// `1 / (1 + e^-x)`
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// A function `x g(x)` with `g` from 0 to 1, as `max(x, 0) + h(|x|)`: `h` in 16 intervals of degree 4.
struct Gate {
    /// `coefficients[c][i]` is coefficient `c` of interval `i`: `h(a)` around `a = i / scale`, interpolated in
    /// `a * scale - i` at Chebyshev's nodes, the last one moved to the end, where the value is 0.
    coefficients: [[f32; 16]; 5],
    /// Beyond this `h` is 0. A little below where the next interval would begin.
    limit: f32,
    /// Intervals for each 1.
    scale: f32,
}

/// `h(a) = -a Phi(-a)`; beyond its limit the true value is below 1.1e-7.
const GELU: Gate = Gate { coefficients: GELU_COEFFICIENTS, limit: 5.499_999, scale: 15.5 / 5.5 };

/// `h(a) = -a sigmoid(-2 sqrt(2 / pi) (a + 0.044715 a^3))`; beyond its limit the true value is below 1.2e-7.
const GELU_TANH: Gate = Gate { coefficients: GELU_TANH_COEFFICIENTS, limit: 5.099_999, scale: 15.5 / 5.1 };

const GELU_COEFFICIENTS: [[f32; 16]; 5] = [
    [
        0.0,
        -0.12822282,
        -0.16957891,
        -0.1528086,
        -0.11056461,
        -0.06744698,
        -0.035396855,
        -0.016140552,
        -0.006429159,
        -0.0022440392,
        -0.0006876741,
        -0.00018524528,
        -4.3901593e-05,
        -9.1585325e-06,
        -1.6825003e-06,
        -2.7226437e-07,
    ],
    [
        -0.1774195,
        -0.08105863,
        -0.006694426,
        0.03457354,
        0.045738254,
        0.0385607,
        0.025350926,
        0.013777259,
        0.006345216,
        0.0025085274,
        0.0008576733,
        0.0002548014,
        6.598273e-05,
        1.4926927e-05,
        2.9547666e-06,
        4.5862507e-07,
    ],
    [
        0.050233316,
        0.044196606,
        0.029215546,
        0.012353854,
        -0.00013340525,
        -0.005973945,
        -0.0065957196,
        -0.0047899396,
        -0.002706866,
        -0.0012562142,
        -0.0004906437,
        -0.00016344807,
        -4.682178e-05,
        -1.1595976e-05,
        -2.4922288e-06,
        -5.791943e-07,
    ],
    [
        -1.1581187e-05,
        -0.003802292,
        -0.005689297,
        -0.00512034,
        -0.0030575518,
        -0.00094520714,
        0.00033482557,
        0.00072438957,
        0.0006071052,
        0.00035985984,
        0.00016848883,
        6.498511e-05,
        2.1084614e-05,
        5.8252576e-06,
        1.3811745e-06,
        9.052028e-07,
    ],
    [
        -0.0010340062,
        -0.0007717891,
        -0.00015017125,
        0.00039196954,
        0.00057811465,
        0.00044268885,
        0.00019707439,
        1.4759494e-05,
        -5.79765e-05,
        -5.8662554e-05,
        -3.6215606e-05,
        -1.6874836e-05,
        -6.333077e-06,
        -1.9718111e-06,
        -5.177198e-07,
        1.1936013e-06,
    ],
];
const GELU_TANH_COEFFICIENTS: [[f32; 16]; 5] = [
    [
        0.0,
        -0.12209614,
        -0.16801499,
        -0.1598581,
        -0.12403395,
        -0.08236897,
        -0.04766012,
        -0.024149815,
        -0.010693721,
        -0.0041102953,
        -0.0013579123,
        -0.00038105022,
        -0.000089646775,
        -0.000017440274,
        -2.7662093e-6,
        -3.525883e-7,
    ],
    [
        -0.16451614,
        -0.08119307,
        -0.014498648,
        0.026248759,
        0.041685686,
        0.039526064,
        0.029245017,
        0.018026426,
        0.009453119,
        0.004233704,
        0.001611873,
        0.0005168931,
        0.00013799107,
        0.000030271707,
        5.382848e-6,
        7.055033e-7,
    ],
    [
        0.04319013,
        0.038680654,
        0.027214447,
        0.013614172,
        0.0025143537,
        -0.0038493976,
        -0.0058234464,
        -0.0051043658,
        -0.0034226135,
        -0.0018696148,
        -0.00084598066,
        -0.0003170918,
        -0.00009774605,
        -0.00002452095,
        -4.945882e-6,
        -9.168644e-7,
    ],
    [
        -1.6353723e-16,
        -0.002861817,
        -0.0044460017,
        -0.0043019457,
        -0.0029501107,
        -0.001323144,
        -0.000112533045,
        0.00047417634,
        0.0005749768,
        0.0004355369,
        0.00025082706,
        0.00011492382,
        0.000042303713,
        0.000012478322,
        2.9269397e-6,
        1.2291642e-6,
    ],
    [
        -0.00077913975,
        -0.0005979347,
        -0.00017594444,
        0.00022485129,
        0.00041156495,
        0.0003739669,
        0.000224019,
        0.000075819386,
        -0.00001516001,
        -0.000046762336,
        -0.00004203735,
        -0.00002555681,
        -0.000011695143,
        -4.1374733e-6,
        -1.1368401e-6,
        1.2065154e-6,
    ],
];

/// See [`Gate`].
#[inline(always)]
fn gated<S: Simd>(s: S, x: S::F32, gate: &Gate) -> S::F32 {
    let a = s.min(s.abs(x), s.splat(gate.limit));
    let t = s.mul_add(a, s.splat(gate.scale), s.splat(ROUND));
    let minus_i = s.sub(s.splat(ROUND), t);
    let u = s.mul_add(a, s.splat(gate.scale), minus_i);
    let [c0, c1, c2, c3, c4] = &gate.coefficients;
    let mut h = s.lookup16(c4, t);
    for table in [c3, c2, c1, c0] {
        h = s.mul_add(h, u, s.lookup16(table, t));
    }
    s.add(s.max(s.splat(0.0), x), h)
}

/// `tanh x = 2 sigmoid(2 x) - 1`. Accuracy: 2e-7 absolute.
#[inline(always)]
fn tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    s.mul_add(s.splat(2.0), sigmoid(s, s.add(x, x)), s.splat(-1.0))
}

/// The activation of a configuration, lane by lane. `0` stays `0`.
///
/// Accuracy: 3.2e-7 absolute for both GELUs (exhaustively tested), which differ by up to 4.7e-4.
#[inline(always)]
pub fn activate<S: Simd>(s: S, activation: Activation, x: S::F32) -> S::F32 {
    match activation {
        Activation::Gelu => gated(s, x, &GELU),
        Activation::GeluTanh => gated(s, x, &GELU_TANH),
        Activation::Relu => s.max(s.splat(0.0), x),
        Activation::Silu => s.mul(x, sigmoid(s, x)),
        Activation::Tanh => tanh(s, x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reference;
    use crate::simd::{Isa, Kernel};

    struct Map<'a, F>(&'a mut [f32], F);

    /// A function of a vector, for every instruction set.
    trait Lanewise {
        fn call<S: Simd>(&self, s: S, x: S::F32) -> S::F32;
    }

    struct Exp2;
    impl Lanewise for Exp2 {
        #[inline(always)]
        fn call<S: Simd>(&self, s: S, x: S::F32) -> S::F32 {
            exp2(s, x)
        }
    }
    impl Lanewise for Activation {
        #[inline(always)]
        fn call<S: Simd>(&self, s: S, x: S::F32) -> S::F32 {
            activate(s, *self, x)
        }
    }

    impl<F: Lanewise> Kernel for Map<'_, F> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for chunk in self.0.chunks_exact_mut(S::LANES) {
                s.store(self.1.call(s, s.load(chunk)), chunk);
            }
        }
    }

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh];

    /// Largest `|got - want| / max(1, |x|)` over the bit patterns `from..to` by `step`, of both signs.
    fn worst(isa: Isa, activation: Activation, from: u32, to: u32, step: usize) -> f64 {
        let mut worst = 0f64;
        let bits: Vec<u32> = (from..to).step_by(step).collect();
        for block in bits.chunks(1 << 12) {
            for sign in [0, 1 << 31] {
                let mut x: Vec<f32> = block.iter().map(|b| f32::from_bits(b | sign)).collect();
                x.resize(x.len().next_multiple_of(16), 0.0);
                let mut y = x.clone();
                isa.run(Map(&mut y, activation));
                for (x, y) in x.iter().zip(&y) {
                    let error = (f64::from(*y) - reference::activate(activation, f64::from(*x))).abs();
                    let error = error / f64::from(x.abs()).max(1.0);
                    assert!(!error.is_nan(), "{activation:?}({x}) = {y}");
                    worst = worst.max(error);
                }
            }
        }
        worst
    }

    fn bound(activation: Activation) -> f64 {
        match activation {
            Activation::Gelu | Activation::GeluTanh => 3.2e-7,
            Activation::Silu => 6e-7,
            Activation::Tanh => 2.5e-7,
            Activation::Relu => 0.0,
        }
    }

    #[test]
    fn activations_agree_with_f64() {
        for isa in Isa::available() {
            for activation in ALL {
                let worst = worst(isa, activation, 0, 100f32.to_bits(), 9973);
                assert!(worst <= bound(activation), "{} {activation:?}: {worst:e}", isa.name());
            }
        }
    }

    #[test]
    #[ignore = "every f32 up to 100, minutes"]
    fn activations_agree_with_f64_exhaustively() {
        for isa in Isa::available() {
            for activation in ALL {
                let worst = worst(isa, activation, 0, 100f32.to_bits(), 1);
                assert!(worst <= bound(activation), "{} {activation:?}: {worst:e}", isa.name());
            }
        }
    }

    #[test]
    fn zero_stays_zero_and_infinities_do_not_spread() {
        for isa in Isa::available() {
            for activation in ALL {
                let mut x = [0.0f32; 16];
                isa.run(Map(&mut x, activation));
                assert_eq!(x, [0.0; 16], "{} {activation:?}", isa.name());
                let mut x = [1e30f32; 16];
                isa.run(Map(&mut x, activation));
                assert_eq!(x, [if activation == Activation::Tanh { 1.0 } else { 1e30 }; 16]);
            }
        }
    }

    fn exp2_worst_ulp(isa: Isa, step: usize) -> f64 {
        let mut worst = 0f64;
        let positive = 0..1f32.to_bits();
        let negative = (1 << 31)..(-126f32).to_bits();
        let bits: Vec<u32> = positive.step_by(step).chain(negative.step_by(step)).collect();
        for block in bits.chunks(1 << 12) {
            let mut x: Vec<f32> = block.iter().map(|b| f32::from_bits(*b)).collect();
            x.resize(x.len().next_multiple_of(16), 0.0);
            let mut y = x.clone();
            isa.run(Map(&mut y, Exp2));
            for (x, y) in x.iter().zip(&y) {
                let want = f64::from(*x).exp2();
                let ulp = f64::from(f32::from_bits((want as f32).to_bits() + 1)) - f64::from(want as f32);
                worst = worst.max((f64::from(*y) - want).abs() / ulp);
            }
        }
        worst
    }

    #[test]
    fn exp2_agrees_with_f64() {
        for isa in Isa::available() {
            let worst = exp2_worst_ulp(isa, 9973);
            assert!(worst <= 1.6, "{}: {worst} ulp", isa.name());
        }
    }

    struct Exp2Coarse;
    impl Lanewise for Exp2Coarse {
        #[inline(always)]
        fn call<S: Simd>(&self, s: S, x: S::F32) -> S::F32 {
            exp2_coarse(s, x)
        }
    }

    #[test]
    fn coarse_exp2_is_far_finer_than_bf16() {
        for isa in Isa::available() {
            let x: Vec<f32> = (0..1 << 16).map(|i| i as f32 * -126.0 / (1 << 16) as f32).collect();
            let mut y = x.clone();
            isa.run(Map(&mut y, Exp2Coarse));
            for (x, y) in x.iter().zip(&y) {
                let want = f64::from(*x).exp2();
                assert!((f64::from(*y) - want).abs() <= 4e-6 * want, "{}: 2^{x} = {y}", isa.name());
            }
        }
    }

    #[test]
    #[ignore = "every f32 in [-126, 1], minutes"]
    fn exp2_agrees_with_f64_exhaustively() {
        for isa in Isa::available() {
            let worst = exp2_worst_ulp(isa, 1);
            assert!(worst <= 1.6, "{}: {worst} ulp", isa.name());
        }
    }
}
