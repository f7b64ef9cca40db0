//! What a forward pass allocates once its memory is there: nothing. What it computes goes where the caller says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use bertfast_core::checkpoint::Checkpoint;
use bertfast_core::config::Config;
use bertfast_core::encoder::{Batch, Encoder, Outputs, Pooled, Pooling};
use bertfast_core::ops;
use bertfast_core::simd::Isa;
use safetensors::tensor::{Dtype, TensorView};

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the caller's contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HIDDEN: usize = 64;
const HEADS: usize = 2;
const LAYERS: usize = 2;
const MOST_TOKENS: usize = 900;

fn encoder() -> Encoder {
    let (d, f, positions) = (HIDDEN, 4 * HIDDEN, 512);
    let config = format!(
        r#"{{"model_type": "bert", "vocab_size": 50, "hidden_size": {d}, "num_hidden_layers": {LAYERS},
            "num_attention_heads": {HEADS}, "intermediate_size": {f}, "hidden_act": "gelu",
            "max_position_embeddings": {positions}, "type_vocab_size": 2, "layer_norm_eps": 1e-12}}"#
    );
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![50, d]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![positions, d]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, d]),
    ];
    let mut pair = |name: String, weight: &[usize]| {
        shapes.push((format!("{name}.weight"), weight.to_vec()));
        shapes.push((format!("{name}.bias"), vec![weight[0]]));
    };
    pair("embeddings.LayerNorm".into(), &[d]);
    for layer in 0..LAYERS {
        for part in ["attention.self.query", "attention.self.key", "attention.self.value"] {
            pair(format!("encoder.layer.{layer}.{part}"), &[d, d]);
        }
        pair(format!("encoder.layer.{layer}.attention.output.dense"), &[d, d]);
        pair(format!("encoder.layer.{layer}.attention.output.LayerNorm"), &[d]);
        pair(format!("encoder.layer.{layer}.intermediate.dense"), &[f, d]);
        pair(format!("encoder.layer.{layer}.output.dense"), &[d, f]);
        pair(format!("encoder.layer.{layer}.output.LayerNorm"), &[d]);
    }
    let bytes = vec![0u8; 4 * 512 * f];
    let views = shapes.into_iter().map(|(name, shape)| {
        let len = 4 * shape.iter().product::<usize>();
        (name, TensorView::new(Dtype::F32, shape, &bytes[..len]).unwrap())
    });
    let checkpoint = Checkpoint::from_bytes("zeros", safetensors::serialize(views, None).unwrap()).unwrap();
    Encoder::new(
        Config::from_json(&config).unwrap(),
        &checkpoint,
        &[ops::Dtype::Float32],
        Isa::best(),
        None,
        None,
    )
    .unwrap()
}

/// A caller with arrays of its own.
struct Caller<'a> {
    encoder: &'a Encoder,
    ids: Vec<i32>,
    cu_seqlens: Vec<i64>,
    out: Vec<f32>,
    states: Vec<f32>,
    probabilities: Vec<f32>,
}

impl<'a> Caller<'a> {
    fn new(encoder: &'a Encoder) -> Self {
        Self {
            encoder,
            ids: vec![7; MOST_TOKENS],
            cu_seqlens: Vec::with_capacity(MOST_TOKENS + 1),
            out: vec![0.0; MOST_TOKENS * HIDDEN],
            states: vec![0.0; MOST_TOKENS * HIDDEN],
            probabilities: vec![0.0; LAYERS * HEADS * MOST_TOKENS * MOST_TOKENS],
        }
    }

    /// Batches of all kinds: one text and hundreds, of few tokens and many, small enough for one thread and large
    /// enough for teams and for groups apart.
    fn calls(&mut self) {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for call in 0..150 {
            let (most, longest) = ([8, 100, 400, MOST_TOKENS as i64][call % 4], [3, 40, 512][call % 3]);
            self.cu_seqlens.clear();
            self.cu_seqlens.push(0);
            let mut squares = 0;
            loop {
                let (start, len) = (self.cu_seqlens[self.cu_seqlens.len() - 1], 1 + below(longest) as i64);
                if start + len > most {
                    break;
                }
                squares += (len * len) as usize;
                self.cu_seqlens.push(start + len);
            }
            let (tokens, count) =
                (self.cu_seqlens[self.cu_seqlens.len() - 1] as usize, self.cu_seqlens.len() - 1);
            let batch = Batch {
                input_ids: &self.ids[..tokens],
                cu_seqlens: &self.cu_seqlens,
                token_type_ids: None,
                position_ids: None,
            };
            let out = &mut self.out[..count * HIDDEN];
            let pooled = Pooled { modes: &[Pooling::Mean], skip: 0, normalize: true, out };
            let outputs = Outputs {
                last_hidden_state: Some(&mut self.states[..tokens * HIDDEN]),
                attentions: (call % 5 == 0).then(|| &mut self.probabilities[..LAYERS * HEADS * squares]),
                pooled: Some(pooled),
                ..Outputs::default()
            };
            self.encoder.forward(&batch, outputs, None).unwrap();
        }
    }
}

#[test]
fn calls_in_the_steady_state_allocate_nothing() {
    let encoder = encoder();
    let mut caller = Caller::new(&encoder);
    caller.calls();
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    caller.calls();
    assert_eq!(ALLOCATIONS.load(Ordering::SeqCst) - before, 0, "one caller");

    // Several, who wait for each other's slots. Which of them meet is chance, and so is when the last arena has grown to
    // its full size: but then it is over.
    let counts: Vec<usize> = (0..5).map(|_| four_callers(&encoder)).take_while(|count| *count > 0).collect();
    assert!(counts.len() < 5, "four callers allocated {counts:?} times");
}

/// Allocations while four threads call, after all of them have done so before.
fn four_callers(encoder: &Encoder) -> usize {
    let (callers, phase, counted) = (4, Barrier::new(4), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for index in 0..callers {
            let (phase, counted) = (&phase, &counted);
            scope.spawn(move || {
                let mut caller = Caller::new(encoder);
                caller.calls();
                phase.wait();
                let before = ALLOCATIONS.load(Ordering::SeqCst);
                phase.wait();
                caller.calls();
                phase.wait();
                if index == 0 {
                    counted.store(ALLOCATIONS.load(Ordering::SeqCst) - before, Ordering::SeqCst);
                }
                phase.wait();
            });
        }
    });
    counted.into_inner()
}
