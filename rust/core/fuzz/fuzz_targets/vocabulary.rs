//! Any list of tokens as `vocab.txt`: what it makes of a text does not depend on what was asked for or met before, its
//! words are whole, and nothing but its tokens comes out.
#![no_main]

use bertfast_core::tokenizer::{Compat, EncodeOptions, Ragged, Scratch, Settings, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<&str>, &str, bool)| {
    let (tokens, text, is_google) = input;
    let vocab = format!("[UNK]\n[CLS]\n[SEP]\n{}", tokens.join("\n"));
    let compat = if is_google { Compat::Google } else { Compat::HuggingFace };
    let mut settings = Settings::new(None, None, None).expect("nothing to read");
    settings.compat = compat;
    let Ok(tokenizer) = Tokenizer::from_vocab(&vocab, settings) else { return };

    let ids_only = EncodeOptions::default();
    let placed = EncodeOptions { want_offsets: true, want_word_ids: true, ..EncodeOptions::default() };
    let mut scratch = Scratch::default();
    let mut encode = |options: &EncodeOptions| {
        let mut out = Ragged::new(options);
        tokenizer.encode_into(&text, None, options, 0, &mut scratch, &mut out).expect("no truncation");
        out
    };
    let [first, again, with_places] = [encode(&ids_only), encode(&ids_only), encode(&placed)];
    assert_eq!(first, again);
    assert_eq!(first.input_ids, with_places.input_ids);

    let known: Vec<u32> = tokenizer.vocab().iter().map(|(id, _)| *id).collect();
    assert!(first.input_ids.iter().all(|&id| known.binary_search(&(id as u32)).is_ok()));
    let words = with_places.word_ids.expect("asked for");
    let inside = &words[1..words.len() - 1];
    assert!(inside.first().is_none_or(|&word| word == 0));
    assert!(inside.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == pair[0] + 1));
});
