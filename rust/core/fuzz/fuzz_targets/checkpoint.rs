//! Any bytes are an error or tensors that can be read whole.
#![no_main]

use bertfast_core::checkpoint::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzz", bytes.to_vec()) else { return };
    for name in checkpoint.names() {
        if let Ok(Some(tensor)) = checkpoint.get(name) {
            tensor.copy_to_f32(&mut vec![0.0; tensor.numel()]);
        }
    }
});
