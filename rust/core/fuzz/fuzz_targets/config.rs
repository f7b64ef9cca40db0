//! Any text is an error or a configuration whose head size is not zero.
#![no_main]

use bertfast_core::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::from_json(text) {
        assert!(config.head_size() > 0);
    }
});
