//! Any bytes are an error or packed weights.
#![no_main]

use bertfast_core::checkpoint::Checkpoint;
use bertfast_core::config::Config;
use bertfast_core::encoder::Encoder;
use bertfast_core::head::Task;
use bertfast_core::simd::Isa;
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 3, "hidden_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 1, "intermediate_size": 4, "hidden_act": "gelu", "max_position_embeddings": 2,
    "type_vocab_size": 1, "layer_norm_eps": 1e-12}"#;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Checkpoint::from_bytes("fuzz", bytes.to_vec()) else { return };
    let config = Config::from_json(CONFIG).expect("valid");
    for task in [None, Some(Task::SequenceClassification), Some(Task::MaskedLm)] {
        let _ = Encoder::open(config.clone(), &file, &[], Isa::best(), Some(1), task);
    }
});
