use super::tests::tokenizer as record;
use super::*;
use crate::Error;
use crate::lines::Source;
use crate::pretraining::sentences::split_sentences;
use crate::tokenizer::{Settings, Tokenizer};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const SOURCE: Source<'_> = Source { name: "file", first: 1 };

/// A folder of its own, which is removed.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bertfast-store-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let paths = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.file_name().unwrap().into(), std::fs::read(path).unwrap())).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tokenizer() -> Tokenizer {
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\n.\n!";
    Tokenizer::from_vocab(vocab, Settings::default()).unwrap()
}

fn writer(folder: &Path) -> Result<StoreWriter, Error> {
    let starts = (0..10).map(|id| id != 7).collect();
    let description = Description { tokenizer: record(10), options: Default::default(), shard: None };
    StoreWriter::open(folder, 16, starts, description, &mut |_| Ok(()))
}

fn append(writer: &mut StoreWriter, texts: &[String], documents: Documents, split: bool, threads: usize) {
    writer.append_lines(&tokenizer(), texts, SOURCE, documents, split, threads, || false).unwrap();
}

/// The sentences of each document, with where words start.
type Documented = Vec<Vec<Vec<(i32, bool)>>>;

fn contents(store: &Store) -> Documented {
    let sentence = |sentence: u64| {
        let range = store.tokens_of(sentence);
        let len = (range.end - range.start) as usize;
        let (mut ids, mut starts) = (vec![0; len], vec![false; len]);
        store.copy_tokens(range.clone(), &mut ids);
        store.copy_word_starts(range, &mut starts);
        ids.into_iter().zip(starts).collect()
    };
    (0..store.num_documents()).map(|document| store.sentences_of(document).map(sentence).collect()).collect()
}

/// The same, found one text after the other.
fn expected(texts: &[String], documents: Documents, split: bool) -> Documented {
    let tokenizer = tokenizer();
    let mut all: Documented = vec![vec![]];
    for text in texts {
        if documents == Documents::Line || text.trim().is_empty() {
            all.push(vec![]);
        }
        for paragraph in text.split('\n') {
            for sentence in if split { split_sentences(paragraph) } else { vec![paragraph] } {
                let mut ids = Vec::new();
                tokenizer.with_scratch(|scratch| tokenizer.append_ids(sentence, scratch, &mut ids));
                let with_starts = ids.iter().enumerate().map(|(place, id)| (*id, place == 0 || *id != 7));
                if !ids.is_empty() {
                    all.last_mut().unwrap().push(with_starts.collect());
                }
            }
        }
    }
    all.retain(|document| !document.is_empty());
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn texts_come_out_as_they_go_in(
        texts in prop::collection::vec("([ab]{1,4}|[.!]|[ \n\r]|\u{200d}|[ab]+[.!] ){0,20}", 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        line: bool,
        split: bool,
    ) {
        let documents = if line { Documents::Line } else { Documents::Blank };
        let folder = Folder::new();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(texts.len() + 1)).collect();
        cuts.extend([0, texts.len()]);
        cuts.sort_unstable();
        for cut in cuts.windows(2) {
            let mut writer = writer(&folder.0).unwrap();
            append(&mut writer, &texts[cut[0]..cut[1]], documents, split, 1);
            writer.checkpoint(String::new()).unwrap();
            append(&mut writer, &texts, documents, split, 1);
        }
        writer(&folder.0).unwrap().finish().unwrap();
        let store = Store::open(&folder.0).unwrap();
        prop_assert_eq!(contents(&store), expected(&texts, documents, split));
        store.verify(|_, _| Ok(())).unwrap();
    }

    #[test]
    fn damage_is_an_error_or_read_without_panic(
        file in 0usize..5,
        place in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..20),
        longer: bool,
    ) {
        let folder = Folder::new();
        let mut writer = writer(&folder.0).unwrap();
        append(&mut writer, &["a ab. b".into(), "b!".into(), String::new(), "abbb b".into()], Documents::Blank, true, 1);
        writer.finish().unwrap();
        let path = folder.0.join([TOKENS, SENTENCES, DOCUMENTS, WORD_STARTS, MANIFEST][file]);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let place = place.index(good.len());
        let end = if longer { place } else { good.len().min(place + bytes.len()) };
        bad.splice(place..end, bytes);
        std::fs::write(&path, &bad).unwrap();
        if let Ok(store) = Store::open(&folder.0) {
            let _ = contents(&store);
            (0..store.num_sentences()).for_each(|sentence| assert!(store.tokens_of(sentence).end <= store.num_tokens()));
            // A space in the manifest means nothing.
            prop_assert_eq!(store.verify(|_, _| Ok(())).is_ok(), good == bad || file == 4);
        }
    }

    #[test]
    fn a_damaged_journal_is_an_error(place in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        let folder = Folder::new();
        let mut first = writer(&folder.0).unwrap();
        append(&mut first, &["a ab. b".into()], Documents::Line, true, 1);
        first.checkpoint("here".to_owned()).unwrap();
        drop(first);
        let path = folder.0.join("journal.json");
        let mut text = std::fs::read(&path).unwrap();
        let place = place.index(text.len());
        let end = text.len().min(place + bytes.len());
        text.splice(place..end, bytes);
        std::fs::write(&path, &text).unwrap();
        // What still is a journal is one of this corpus.
        if let Ok(mut writer) = writer(&folder.0) {
            writer.finish().unwrap();
            Store::open(&folder.0).unwrap();
        }
    }
}

#[test]
fn the_number_of_threads_and_the_sizes_of_texts_make_no_difference() {
    let word = |i: usize| ["ab", "a", "b.", "abbb!", "a\n", "B!"][i * i % 13 % 6];
    let text = |words: usize, seed: usize| (0..words).map(|i| word(i + seed)).collect::<Vec<_>>().join(" ");
    // Several rounds; one text as long as all others; lines that no thread would be asked for.
    let mut texts: Vec<_> = (0..400).map(|i| text(i * 37 % 2000, i)).collect();
    texts.push(text(1 << 19, 3));
    texts.extend((0..1000).map(|i| text(i % 3, i)));
    for (documents, split) in [(Documents::Line, true), (Documents::Blank, true), (Documents::Blank, false)] {
        let folders: Vec<_> = [1, 2, 3]
            .map(|threads| {
                let folder = Folder::new();
                let mut writer = writer(&folder.0).unwrap();
                append(&mut writer, &texts, documents, split, threads);
                append(&mut writer, &texts[..threads], documents, split, threads);
                append(&mut writer, &texts[threads..3], documents, split, threads);
                writer.finish().unwrap();
                folder
            })
            .into();
        texts.extend(texts[..3].to_vec());
        let store = Store::open(&folders[0].0).unwrap();
        assert!(contents(&store) == expected(&texts, documents, split));
        assert!(folders[0].files() == folders[1].files() && folders[0].files() == folders[2].files());
        texts.truncate(texts.len() - 3);
    }
}

#[test]
fn who_is_interrupted_goes_on_behind_the_checkpoint() {
    let folder = Folder::new();
    let mut first = writer(&folder.0).unwrap();
    let texts = vec!["ab ".repeat(1000); 8000];
    let mut asked = 0;
    let interrupted = || {
        asked += 1;
        true
    };
    let done = first.append_lines(&tokenizer(), &texts, SOURCE, Documents::Line, false, 2, interrupted);
    assert!(matches!(done, Err(Error::Interrupted)));
    assert_eq!(asked, 1);
    assert!(first.num_documents() > 0);
    let error = first.checkpoint(String::new()).unwrap_err().to_string();
    assert!(error.ends_with("open the folder again, to go on from its last checkpoint"), "{error}");
    drop(first);
    let mut again = writer(&folder.0).unwrap();
    assert_eq!((again.num_documents(), again.position()), (0, None));
    again.finish().unwrap();
}
