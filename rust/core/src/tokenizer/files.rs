//! Opening a folder: `tokenizer.json`, or else `vocab.txt` with `tokenizer_config.json`.

mod json;
mod settings;

pub use settings::{Settings, SpecialTokens};

use super::added_tokens::AddedTokens;
use super::characters::Compat;
use super::decoder::Decoder;
use super::encode::{Rooms, Tokenizer};
use super::normalizer::{Normalizer, NormalizerOptions};
use super::template::Template;
use super::vocabulary::Vocabulary;
use super::wordpiece::WordPiece;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

impl Tokenizer {
    /// Opens a Hugging Face folder. `tokenizer.json` wins over `vocab.txt`; its truncation and padding sections
    /// are ignored. `tokenizer_config.json` and `special_tokens_map.json` are read where they exist. No file says
    /// whose rules count: `compat` does.
    ///
    /// # Errors
    /// `Error::Io` if the folder has neither file or one cannot be read; `Error::Tokenizer` and
    /// `Error::TokenizerKind` as [`Self::from_json`] and [`Self::from_vocab`].
    pub fn from_folder(folder: &Path, compat: Compat) -> Result<Self> {
        let read = |name: &str| match std::fs::read(folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(folder.join(name))(error)),
        };
        Self::open(folder, read, compat)
    }

    /// From the contents of files of such a folder, by their names.
    ///
    /// # Errors
    /// As [`Self::from_folder`].
    pub fn from_files(files: &HashMap<String, Vec<u8>>, compat: Compat) -> Result<Self> {
        Self::open(Path::new(""), |name| Ok(files.get(name).cloned()), compat)
    }

    fn open(folder: &Path, bytes: impl Fn(&str) -> Result<Option<Vec<u8>>>, compat: Compat) -> Result<Self> {
        let read = |name: &str| -> Result<Option<String>> {
            let utf8 = |bytes| {
                String::from_utf8(bytes)
                    .map_err(|_| Error::Tokenizer(format!("{}: expected UTF-8", folder.join(name).display())))
            };
            bytes(name)?.map(utf8).transpose()
        };
        let settings = Settings::new(
            read("tokenizer_config.json")?.as_deref(),
            read("special_tokens_map.json")?.as_deref(),
            read("added_tokens.json")?.as_deref(),
        )?;
        let settings = Settings { compat, ..settings };
        if let Some(json) = read("tokenizer.json")? {
            return Self::from_json(&json, settings);
        }
        match read("vocab.txt")? {
            Some(vocab) => Self::from_vocab(&vocab, settings),
            None => Err(Error::io(folder.join("tokenizer.json"))(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "expected tokenizer.json or vocab.txt in the folder, found neither",
            ))),
        }
    }

    /// From the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// `Error::TokenizerKind` if it is not BERT's kind (WordPiece, BertNormalizer, BertPreTokenizer);
    /// `Error::Tokenizer` if it is damaged or its vocabulary is not usable: no unknown token, ids out of range or
    /// given twice; or if it asks for something that [`Compat::Google`] does not have.
    pub fn from_json(json: &str, settings: Settings) -> Result<Self> {
        json::parse(json, settings)
    }

    /// From the text of a `vocab.txt`; `settings` decide all else.
    ///
    /// # Errors
    /// `Error::Tokenizer` if the vocabulary is empty or lacks the unknown, classification or separator token, or if
    /// `settings` ask for something that [`Compat::Google`] does not have.
    pub fn from_vocab(vocab: &str, settings: Settings) -> Result<Self> {
        let compat = settings.compat;
        let vocabulary = Vocabulary::from_lines(vocab, compat)?;
        let special = &settings.special_tokens;
        let required = |token: &Option<String>| {
            let name = token.as_deref().unwrap_or_default();
            vocabulary.id(name).map(|id| id as i32).ok_or_else(|| {
                Error::Tokenizer(format!("vocab.txt: the special token {name:?} is missing from it"))
            })
        };
        let template = Template::bert(required(&special.cls)?, required(&special.sep)?);
        let unknown = special.unk.as_deref().unwrap_or_default();
        let model = WordPiece::new(&vocabulary, unknown, "##", max_chars(compat))?;
        let normalizer = Normalizer::new(NormalizerOptions {
            compat,
            clean_text: true,
            handle_chinese_chars: settings.tokenize_chinese_chars,
            strip_accents: settings.strip_accents.unwrap_or(settings.do_lower_case),
            lowercase: settings.do_lower_case,
        });
        check_compat(normalizer.options(), "tokenizer_config.json", "tokenize_chinese_chars")?;
        // A special token that the vocabulary lacks has no row in the model's table: it is not recognised.
        let missing = [&special.unk, &special.sep, &special.pad, &special.cls, &special.mask]
            .into_iter()
            .flatten()
            .filter(|name| vocabulary.id(name).is_none());
        let missing: Vec<&String> = missing.collect();
        let added = settings.added_tokens.iter().filter(|token| !missing.contains(&&token.content)).cloned();
        let added = AddedTokens::new(added, &vocabulary, &normalizer)?;
        let decoder = Decoder::WordPiece { prefix: "##".into(), cleanup: true };
        Ok(Self::new(Rooms { vocabulary, normalizer, model, added, template, decoder, settings }))
    }
}

/// A word of more characters is unknown.
fn max_chars(compat: Compat) -> usize {
    match compat {
        Compat::HuggingFace => 100,
        Compat::Google => 200,
    }
}

/// That the options of `file` can be had: the original has `lowercase` alone. `chinese` is what Chinese characters'
/// option is called there.
fn check_compat(options: NormalizerOptions, file: &str, chinese: &str) -> Result<()> {
    if options.compat == Compat::HuggingFace {
        return Ok(());
    }
    for (name, expected, got) in [
        ("clean_text", true, options.clean_text),
        (chinese, true, options.handle_chinese_chars),
        ("strip_accents", options.lowercase, options.strip_accents),
    ] {
        if got != expected {
            return Err(Error::Tokenizer(format!(
                "{file}: {name}: expected {expected} for compat=\"google\", got {got}"
            )));
        }
    }
    Ok(())
}
