//! Any bytes are an error or a token store, and any text has sentences.
#![no_main]

use bertfast_core::pretraining::sentences::split_sentences;
use bertfast_core::pretraining::store::{DOCUMENTS, MANIFEST, SENTENCES, Store, TOKENS, WORD_STARTS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: (&str, [&[u8]; 5])| {
    let (text, contents) = files;
    let bytes: usize = split_sentences(text).iter().map(|sentence| sentence.len()).sum();
    assert!(bytes <= text.len());
    let folder = std::env::temp_dir().join(format!("bertfast-fuzz-corpus-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    for (name, bytes) in [MANIFEST, TOKENS, SENTENCES, DOCUMENTS, WORD_STARTS].iter().zip(contents) {
        std::fs::write(folder.join(name), bytes).expect("room for a file");
    }
    let Ok(store) = Store::open(&folder) else { return };
    for document in 0..store.num_documents() {
        for sentence in store.sentences_of(document) {
            let tokens = store.tokens_of(sentence);
            let len = (tokens.end - tokens.start) as usize;
            store.copy_tokens(tokens.clone(), &mut vec![0; len]);
            store.copy_word_starts(tokens, &mut vec![false; len]);
        }
    }
    let _ = store.verify(|_, _| Ok(()));
});
