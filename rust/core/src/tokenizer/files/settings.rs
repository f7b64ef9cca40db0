//! `tokenizer_config.json` and the older files beside it.

use crate::error::{Error, Result};
use crate::tokenizer::added_tokens::AddedToken;
use crate::tokenizer::characters::Compat;
use crate::tokenizer::truncation::Side;
use serde_json::{Map, Value};

/// Names of the special tokens; `None` where a folder says `null`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SpecialTokens {
    pub unk: Option<String>,
    pub sep: Option<String>,
    pub pad: Option<String>,
    pub cls: Option<String>,
    pub mask: Option<String>,
}

/// What a folder says about its tokenizer beside the vocabulary; BERT's values where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose rules; the caller's choice, no file's.
    pub compat: Compat,
    /// Special tokens' names.
    pub special_tokens: SpecialTokens,
    /// The longest input the model takes, in tokens; `None` if the folder does not say.
    pub model_max_length: Option<usize>,
    /// For `vocab.txt` only: lower-case.
    pub do_lower_case: bool,
    /// For `vocab.txt` only: strip accents; follows `do_lower_case` if open.
    pub strip_accents: Option<bool>,
    /// For `vocab.txt` only: each Chinese character is a word.
    pub tokenize_chinese_chars: bool,
    /// Where `padding=True` puts the padding.
    pub padding_side: Side,
    /// Where truncation cuts.
    pub truncation_side: Side,
    /// Whether decoding cleans up once more by default.
    pub clean_up_tokenization_spaces: bool,
    /// Which arrays a model wants; `None` if the folder does not say.
    pub model_input_names: Option<Vec<String>>,
    /// For `vocab.txt` only: the tokens to be cut out of texts, in the order in which new ids are given.
    pub(in crate::tokenizer) added_tokens: Vec<AddedToken>,
}

impl Default for Settings {
    fn default() -> Self {
        let name = |name: &str| Some(name.to_owned());
        let special_tokens = SpecialTokens {
            unk: name("[UNK]"),
            sep: name("[SEP]"),
            pad: name("[PAD]"),
            cls: name("[CLS]"),
            mask: name("[MASK]"),
        };
        Self {
            compat: Compat::default(),
            special_tokens,
            model_max_length: None,
            do_lower_case: true,
            strip_accents: None,
            tokenize_chinese_chars: true,
            padding_side: Side::Right,
            truncation_side: Side::Right,
            clean_up_tokenization_spaces: false,
            model_input_names: None,
            added_tokens: Vec::new(),
        }
    }
}

impl Settings {
    /// From the texts of `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
    ///
    /// # Errors
    /// `Error::Tokenizer` if one is not a JSON object or a key that matters has a value of the wrong type.
    pub fn new(config: Option<&str>, special_map: Option<&str>, added: Option<&str>) -> Result<Self> {
        let config = Object::parse("tokenizer_config.json", config)?;
        let special_map = Object::parse("special_tokens_map.json", special_map)?;
        let mut settings = Self {
            model_max_length: config.length("model_max_length")?,
            padding_side: config.side("padding_side")?,
            truncation_side: config.side("truncation_side")?,
            strip_accents: config.bool("strip_accents")?,
            model_input_names: config.strings("model_input_names")?,
            ..Self::default()
        };
        for (field, key) in [
            (&mut settings.do_lower_case, "do_lower_case"),
            (&mut settings.tokenize_chinese_chars, "tokenize_chinese_chars"),
            (&mut settings.clean_up_tokenization_spaces, "clean_up_tokenization_spaces"),
        ] {
            *field = config.bool(key)?.unwrap_or(*field);
        }

        // A file that lists its added tokens was written by a version that no longer reads the two older files.
        let listed = config.0.contains_key("added_tokens_decoder");
        let special_map = if listed { Object::parse("", None)? } else { special_map };
        let mut named = Vec::new();
        let names = &mut settings.special_tokens;
        for (name, key) in [
            (&mut names.unk, "unk_token"),
            (&mut names.sep, "sep_token"),
            (&mut names.pad, "pad_token"),
            (&mut names.cls, "cls_token"),
            (&mut names.mask, "mask_token"),
        ] {
            let mut token = name.as_deref().map(special);
            for object in [&config, &special_map] {
                if object.0.contains_key(key) {
                    token = object.token(key)?;
                }
            }
            *name = token.as_ref().map(|token| token.content.clone());
            named.extend(token);
        }
        let mut extra = Vec::new();
        for object in [&config, &special_map] {
            for key in ["additional_special_tokens", "extra_special_tokens"] {
                extra.extend(object.tokens(key)?);
            }
        }
        settings.added_tokens = if listed {
            config.added_tokens_decoder()?
        } else {
            let specials: Vec<&str> =
                named.iter().chain(&extra).map(|token| token.content.as_str()).collect();
            Object::parse("added_tokens.json", added)?.token_to_id(&specials)?
        };
        for token in named.into_iter().chain(extra) {
            if !settings.added_tokens.iter().any(|known| known.content == token.content) {
                settings.added_tokens.push(token);
            }
        }
        Ok(settings)
    }
}

fn special(content: &str) -> AddedToken {
    AddedToken {
        content: content.to_owned(),
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
    }
}

/// A JSON object with the name of its file for the messages.
struct Object(Map<String, Value>, &'static str);

impl Object {
    fn parse(file: &'static str, text: Option<&str>) -> Result<Self> {
        let value = match text {
            None => return Ok(Self(Map::new(), file)),
            Some(text) => {
                serde_json::from_str(text).map_err(|error| Error::Tokenizer(format!("{file}: {error}")))?
            }
        };
        match value {
            Value::Object(map) => Ok(Self(map, file)),
            _ => Err(Error::Tokenizer(format!("{file}: expected a JSON object"))),
        }
    }

    fn wrong<T>(&self, key: &str, expected: &str) -> Result<T> {
        let shown: String = self.0.get(key).unwrap_or(&Value::Null).to_string().chars().take(80).collect();
        Err(Error::Tokenizer(format!("{}: {key}: expected {expected}, got {shown}", self.1)))
    }

    /// The value of `key`, `None` if it is missing or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => self.wrong(key, "true or false"),
        }
    }

    /// A number of tokens; the huge number that the reference writes for "not known" is `None`.
    fn length(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match (value.as_u64(), value.as_f64()) {
                (Some(length), _) if length > 0 => Ok(usize::try_from(length).ok().filter(|&n| n < 1 << 40)),
                (_, Some(length)) if length >= 1e18 => Ok(None),
                _ => self.wrong(key, "a number of tokens"),
            },
        }
    }

    fn side(&self, key: &str) -> Result<Side> {
        match self.get(key).map(Value::as_str) {
            None | Some(Some("right")) => Ok(Side::Right),
            Some(Some("left")) => Ok(Side::Left),
            _ => self.wrong(key, "\"left\" or \"right\""),
        }
    }

    fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let strings: Option<Vec<String>> = value
            .as_array()
            .and_then(|list| list.iter().map(|item| Some(item.as_str()?.to_owned())).collect());
        if strings.is_some() { Ok(strings) } else { self.wrong(key, "a list of strings") }
    }

    /// A special token: its text, or an object with its flags.
    fn token(&self, key: &str) -> Result<Option<AddedToken>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match parse_token(value, true) {
                Some(token) => Ok(Some(AddedToken { special: true, ..token })),
                None => self.wrong(key, "a token"),
            },
        }
    }

    fn tokens(&self, key: &str) -> Result<Vec<AddedToken>> {
        let list = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|value| parse_token(value, true)).collect(),
            Some(Value::Object(map)) => map.values().map(|value| parse_token(value, true)).collect(),
            Some(_) => None,
        };
        list.map_or_else(|| self.wrong(key, "a list of tokens"), Ok)
    }

    /// `{"103": {"content": "[MASK]", ...}, ...}`, by id.
    fn added_tokens_decoder(&self) -> Result<Vec<AddedToken>> {
        let key = "added_tokens_decoder";
        let tokens: Option<Vec<(u32, AddedToken)>> =
            self.get(key).and_then(Value::as_object).and_then(|map| {
                map.iter().map(|(id, value)| Some((id.parse().ok()?, parse_token(value, false)?))).collect()
            });
        match tokens {
            Some(mut tokens) => {
                tokens.sort_by_key(|&(id, _)| id);
                Ok(tokens.into_iter().map(|(_, token)| token).collect())
            }
            None => self.wrong(key, "ids with tokens"),
        }
    }

    /// `{"[MASK]": 103, ...}`, by id; `specials` are the special ones.
    fn token_to_id(&self, specials: &[&str]) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        for (content, id) in &self.0 {
            let Some(id) = id.as_u64() else { return self.wrong(content, "an id") };
            let is_special = specials.contains(&content.as_str());
            tokens
                .push((id, AddedToken { special: is_special, normalized: !is_special, ..special(content) }));
        }
        tokens.sort_by_key(|&(id, _)| id);
        Ok(tokens.into_iter().map(|(_, token)| token).collect())
    }
}

/// A token given as text or as an object; without `normalized` it follows from `special`.
fn parse_token(value: &Value, is_special: bool) -> Option<AddedToken> {
    let map = match value {
        Value::String(content) => return Some(special(content)),
        Value::Object(map) => map,
        _ => return None,
    };
    let flag = |key: &str, default: bool| match map.get(key) {
        None => Some(default),
        Some(value) => value.as_bool(),
    };
    let special = flag("special", is_special)?;
    Some(AddedToken {
        content: map.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word", false)?,
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        normalized: flag("normalized", !special)?,
        special,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(json: &str) -> Result<Option<usize>> {
        Settings::new(Some(&format!(r#"{{"model_max_length": {json}}}"#)), None, None)
            .map(|settings| settings.model_max_length)
    }

    #[test]
    fn the_longest_input_may_be_unknown() {
        assert_eq!(length("512").unwrap(), Some(512));
        // As Python writes int(1e30), and as other writers do.
        assert_eq!(length("1000000000000000019884624838656").unwrap(), None);
        assert_eq!(length("1e+30").unwrap(), None);
        assert_eq!(length("null").unwrap(), None);
        for bad in ["0", "-1", "1.5", "\"512\"", "[]"] {
            assert!(matches!(length(bad), Err(Error::Tokenizer(_))), "{bad}");
        }
    }

    #[test]
    fn nothing_said_is_bert() {
        assert_eq!(
            Settings::new(None, None, None).unwrap().special_tokens,
            Settings::default().special_tokens
        );
        let config =
            r#"{"pad_token": null, "mask_token": {"content": "<mask>"}, "extra_special_tokens": {}}"#;
        let special = Settings::new(Some(config), None, None).unwrap().special_tokens;
        assert_eq!((special.pad, special.mask.as_deref()), (None, Some("<mask>")));
    }
}
