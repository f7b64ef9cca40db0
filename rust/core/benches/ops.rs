//! Each operation on one core, as a share of the core's own peak: `cargo bench -p bertfast-core`.

use std::time::Duration;

use bertfast_core::ops::attention::Attention;
use bertfast_core::ops::gemm::{Gemm, Then, Weight};
use bertfast_core::ops::layer_norm::LayerNorm;
use bertfast_core::ops::peak::{FmaBurst, best_rate};
use bertfast_core::ops::{Activation, PANEL, Panels, panels_of};
use bertfast_core::simd::Isa;

const TIME: Duration = Duration::from_millis(300);

fn main() {
    for isa in Isa::available().into_iter().rev().filter(|isa| isa.name() != "scalar") {
        let peak = best_rate(TIME, || isa.run(FmaBurst { rounds: 1_000_000 }));
        println!("{}: peak {:.1} GFLOP/s", isa.name(), peak / 1e9);
        let line = |name: String, rate: f64| {
            println!("  {name:34} {:6.1} G/s  {:.3} of peak", rate / 1e9, rate / peak)
        };
        for (m, n, k) in [
            (8, 768, 768),
            (16, 768, 768),
            (128, 768, 768),
            (128, 3072, 768),
            (128, 768, 3072),
            (384, 768, 768),
            (384, 768, 3072),
            (384, 384, 384),
            (384, 1536, 384),
            (384, 384, 1536),
        ] {
            for then in [Then::Store, Then::Activate(Activation::Gelu)] {
                if then != Then::Store && n <= k {
                    continue;
                }
                let rate = best_rate(TIME, gemm(isa, m, n, k, then));
                line(format!("gemm {m} x {n} x {k} {then:?}"), rate);
            }
        }
        for (count, head) in [(16, 64), (128, 64), (512, 64), (128, 32)] {
            line(format!("attention {count} x {head}"), best_rate(TIME, attention(isa, count, head)));
        }
        line("layer_norm 128 x 768, values".into(), best_rate(TIME, layer_norm(isa, 128, 768)));
    }
}

fn gemm(isa: Isa, m: usize, n: usize, k: usize, then: Then) -> impl FnMut() -> f64 {
    let mut a = vec![0.5f32; m * k];
    let mut out = vec![0.5f32; m * n];
    let data = vec![0.01f32; n * k + 16];
    let bias = vec![0.1f32; n];
    move || {
        let skip = data.as_ptr().align_offset(64);
        let weight = Weight { data: &data[skip..], k, bias: &bias };
        let a = Panels::new(&mut a, m, panels_of(k));
        let out = Panels::new(&mut out, m, panels_of(n));
        // SAFETY: one thread, disjoint buffers.
        unsafe { isa.run(Gemm::new(a, 0..m, weight, 0..panels_of(n), out, then)) };
        2.0 * (m * n * k) as f64
    }
}

fn attention(isa: Isa, count: usize, head: usize) -> impl FnMut() -> f64 {
    let panels = panels_of(head);
    let mut data: [Vec<f32>; 4] = std::array::from_fn(|_| vec![0.1f32; (count * panels + PANEL) * PANEL]);
    let mut scratch = vec![0.0; Attention::scratch_len(count, panels)];
    move || {
        let [q, k, v, out] = data.each_mut().map(|d| Panels::new(d, count, panels));
        // SAFETY: one thread; `k` has 32 rows of slack.
        unsafe { isa.run(Attention::new(q, k, v, out, 0..count, 0..count, &mut scratch, None)) };
        4.0 * (count * count * head) as f64
    }
}

fn layer_norm(isa: Isa, rows: usize, columns: usize) -> impl FnMut() -> f64 {
    let mut data: Vec<f32> = (0..rows * columns).map(|i| (i % 977) as f32).collect();
    let (gamma, beta) = (vec![1.0; columns], vec![0.5; columns]);
    move || {
        let x = Panels::new(&mut data, rows, panels_of(columns));
        // SAFETY: one thread.
        unsafe { isa.run(LayerNorm::new(x, 0..rows, columns, &gamma, &beta, 1e-12)) };
        (rows * columns) as f64
    }
}
