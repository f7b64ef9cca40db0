//! `tokenizer.json`, the serialization of the reference.

use super::{Settings, check_compat, max_chars};
use crate::error::{Error, Result};
use crate::tokenizer::added_tokens::{AddedToken, AddedTokens};
use crate::tokenizer::characters::Compat;
use crate::tokenizer::decoder::Decoder;
use crate::tokenizer::encode::{Rooms, Tokenizer};
use crate::tokenizer::normalizer::{Normalizer, NormalizerOptions};
use crate::tokenizer::template::{Part, Template};
use crate::tokenizer::vocabulary::{MAX_ID, Vocabulary};
use crate::tokenizer::wordpiece::WordPiece;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;

/// The kinds of the parts, read first: a tokenizer of another kind gets told so, not that a field is missing.
#[derive(Deserialize)]
struct Kinds {
    version: Option<String>,
    normalizer: Option<Kind>,
    pre_tokenizer: Option<Kind>,
    post_processor: Option<Kind>,
    decoder: Option<Kind>,
    model: ModelKind,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct ModelKind {
    r#type: Option<String>,
    /// Old files have no type; only WordPiece has this.
    continuing_subword_prefix: Option<IgnoredAny>,
    merges: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<BertNormalizer>,
    post_processor: Option<PostProcessor>,
    decoder: Option<WordPieceDecoder>,
    model: Model,
}

#[derive(Deserialize)]
struct BertNormalizer {
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: Option<bool>,
    lowercase: bool,
}

#[derive(Deserialize)]
struct Model {
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
    #[serde(deserialize_with = "vocab")]
    vocab: Vec<(String, i64)>,
}

#[derive(Deserialize)]
struct WordPieceDecoder {
    prefix: String,
    cleanup: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostProcessor {
    TemplateProcessing { single: Vec<Piece>, pair: Vec<Piece>, special_tokens: HashMap<String, SpecialToken> },
    BertProcessing { sep: (String, u32), cls: (String, u32) },
}

#[derive(Deserialize)]
enum Piece {
    SpecialToken { id: String, type_id: u32 },
    Sequence { id: Sequence, type_id: u32 },
}

#[derive(Deserialize, PartialEq, Eq)]
enum Sequence {
    A,
    B,
}

#[derive(Deserialize)]
struct SpecialToken {
    ids: Vec<u32>,
}

/// The vocabulary in the order of the file: a map would hide repeated tokens.
fn vocab<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, i64)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, i64)>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
            formatter.write_str("a map from token to id")
        }
        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

pub fn parse(json: &str, settings: Settings) -> Result<Tokenizer> {
    let damaged = |error: serde_json::Error| Error::Tokenizer(format!("tokenizer.json: {error}"));
    check_kinds(&serde_json::from_str(json).map_err(damaged)?)?;
    let file: File = serde_json::from_str(json).map_err(damaged)?;

    let compat = settings.compat;
    if compat == Compat::Google {
        check_google(&file)?;
    }
    let vocabulary = Vocabulary::new(file.model.vocab)?;
    let model = WordPiece::new(
        &vocabulary,
        &file.model.unk_token,
        &file.model.continuing_subword_prefix,
        match compat {
            Compat::HuggingFace => file.model.max_input_chars_per_word,
            Compat::Google => max_chars(compat),
        },
    )?;
    let normalizer = Normalizer::new(match file.normalizer {
        Some(options) => NormalizerOptions {
            compat,
            clean_text: options.clean_text,
            handle_chinese_chars: options.handle_chinese_chars,
            strip_accents: options.strip_accents.unwrap_or(options.lowercase),
            lowercase: options.lowercase,
        },
        None => NormalizerOptions {
            compat,
            clean_text: false,
            handle_chinese_chars: false,
            strip_accents: false,
            lowercase: false,
        },
    });
    check_compat(normalizer.options(), "tokenizer.json", "handle_chinese_chars")?;
    let added = AddedTokens::new(file.added_tokens, &vocabulary, &normalizer)?;
    let template = match file.post_processor {
        None => Template::bare(),
        Some(processor) => template(processor)?,
    };
    let decoder = match file.decoder {
        Some(decoder) => Decoder::WordPiece { prefix: decoder.prefix, cleanup: decoder.cleanup },
        None => Decoder::Spaces,
    };
    Ok(Tokenizer::new(Rooms { vocabulary, normalizer, model, added, template, decoder, settings }))
}

/// What the original has no option for must be as it is there. The length of words is no one's choice: all files
/// say Hugging Face's.
fn check_google(file: &File) -> Result<()> {
    let wrong = |key: &str, expected: &str, got: &str| {
        Err(Error::Tokenizer(format!(
            "tokenizer.json: {key}: expected {expected} for compat=\"google\", got {got}"
        )))
    };
    if file.normalizer.is_none() {
        return wrong("normalizer", "BertNormalizer", "none");
    }
    let Model { continuing_subword_prefix: prefix, max_input_chars_per_word: length, .. } = &file.model;
    if prefix != "##" {
        return wrong("continuing_subword_prefix", "\"##\"", &format!("{prefix:?}"));
    }
    let known = [Compat::HuggingFace, Compat::Google].map(max_chars);
    if !known.contains(length) {
        let expected = format!("{} (which counts as {}) or {}", known[0], known[1], known[1]);
        return wrong("max_input_chars_per_word", &expected, &length.to_string());
    }
    Ok(())
}

fn check_kinds(kinds: &Kinds) -> Result<()> {
    let expect = |part: &str, expected: &str, got: Option<&str>| {
        let got = got.unwrap_or("none");
        if expected.split(" or ").any(|expected| expected == got) {
            return Ok(());
        }
        Err(Error::TokenizerKind(format!(
            "tokenizer.json: expected BERT's kind of tokenizer, with {part} {expected}, got {part} {got}"
        )))
    };
    let of = |kind: &Option<Kind>| kind.as_ref().map(|kind| kind.r#type.clone());
    let model = match (&kinds.model.r#type, &kinds.model.continuing_subword_prefix, &kinds.model.merges) {
        (Some(kind), ..) => kind,
        (None, Some(_), None) => "WordPiece",
        _ => "of another type",
    };
    expect("model", "WordPiece", Some(model))?;
    expect("normalizer", "BertNormalizer or none", of(&kinds.normalizer).as_deref())?;
    expect("pre_tokenizer", "BertPreTokenizer", of(&kinds.pre_tokenizer).as_deref())?;
    let processors = "TemplateProcessing or BertProcessing or none";
    expect("post_processor", processors, of(&kinds.post_processor).as_deref())?;
    expect("decoder", "WordPiece or none", of(&kinds.decoder).as_deref())?;
    match kinds.version.as_deref() {
        None | Some("1.0") => Ok(()),
        Some(version) => {
            Err(Error::Tokenizer(format!("tokenizer.json: version: expected \"1.0\", got {version:?}")))
        }
    }
}

fn template(processor: PostProcessor) -> Result<Template> {
    let wrong = |problem: String| Error::Tokenizer(format!("tokenizer.json: post_processor: {problem}"));
    let small = |id: u32| match i32::try_from(id) {
        Ok(small) if i64::from(small) <= MAX_ID => Ok(small),
        _ => Err(wrong(format!("expected ids from 0 to {MAX_ID}, got {id}"))),
    };
    let (single, pair, special_tokens) = match processor {
        PostProcessor::BertProcessing { sep, cls } => {
            return Ok(Template::bert(small(cls.1)?, small(sep.1)?));
        }
        PostProcessor::TemplateProcessing { single, pair, special_tokens } => (single, pair, special_tokens),
    };
    let parts = |pieces: Vec<Piece>| -> Result<Vec<Part>> {
        let part = |piece| match piece {
            Piece::Sequence { id: Sequence::A, type_id } => Ok(Part::First { type_id: small(type_id)? }),
            Piece::Sequence { id: Sequence::B, type_id } => Ok(Part::Second { type_id: small(type_id)? }),
            Piece::SpecialToken { id, type_id } => {
                let token = special_tokens.get(&id).ok_or_else(|| {
                    wrong(format!("the template uses {id:?}, which is not among its special_tokens"))
                })?;
                let ids = token.ids.iter().map(|&id| small(id)).collect::<Result<_>>()?;
                Ok(Part::Special { ids, type_id: small(type_id)? })
            }
        };
        pieces.into_iter().map(part).collect()
    };
    let template = Template { single: parts(single)?, pair: parts(pair)? };
    let order = |parts: &[Part]| -> String {
        let letter = |part: &Part| match part {
            Part::First { .. } => Some('A'),
            Part::Second { .. } => Some('B'),
            Part::Special { .. } => None,
        };
        parts.iter().filter_map(letter).collect()
    };
    for (parts, expected) in [(&template.single, "A"), (&template.pair, "AB")] {
        let order = order(parts);
        if order != expected {
            return Err(wrong(format!("expected a template with the sequences {expected}, got {order:?}")));
        }
    }
    Ok(template)
}
