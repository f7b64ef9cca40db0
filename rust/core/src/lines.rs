//! The texts in the bytes of a file: a text per line, or a field of the JSON object that each line is.
//!
//! A line ends at `\n` or `\r\n`; an empty one is an empty text, so that text `i` belongs to line `i`.

use crate::threads::Pool;
use crate::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Lines that a thread takes at once.
const CHUNK: usize = 1024;

/// Where lines are from, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What the file is called.
    pub name: &'a str,
    /// The number of the first line.
    pub first: usize,
}

impl Source<'_> {
    /// About line `index` of those that there are, counted from 0.
    pub(crate) fn error(self, index: usize, problem: impl fmt::Display) -> Error {
        Error::Value(format!("{}:{}: {problem}", self.name, self.first + index))
    }
}

/// Number of lines.
pub fn count(data: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', data).count() + usize::from(data.last().is_some_and(|&byte| byte != b'\n'))
}

/// The lines.
///
/// # Errors
/// `Error::Value` if one is not UTF-8; it names the line.
pub fn texts<'a>(data: &'a [u8], source: Source<'_>) -> Result<Vec<&'a str>> {
    let text = simdutf8::compat::from_utf8(data).map_err(|error| {
        let valid = error.valid_up_to();
        let start = memchr::memrchr(b'\n', &data[..valid]).map_or(0, |end| end + 1);
        let problem = format!("not UTF-8: byte 0x{:02x} at position {}", data[valid], valid - start);
        source.error(memchr::memchr_iter(b'\n', &data[..valid]).count(), problem)
    })?;
    let mut lines = Vec::with_capacity(count(data));
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', data).chain((data.last() != Some(&b'\n')).then_some(data.len())) {
        if start < data.len() {
            let line = &text[start..end];
            lines.push(line.strip_suffix('\r').unwrap_or(line));
        }
        start = end + 1;
    }
    Ok(lines)
}

/// The string `field` of the object on each line, on up to `threads` threads.
///
/// # Errors
/// `Error::Value` if a line is not UTF-8 or no such object; it names the first such line.
pub fn json_texts<'a>(
    data: &'a [u8],
    field: &str,
    source: Source<'_>,
    threads: usize,
) -> Result<Vec<Cow<'a, str>>> {
    let lines = texts(data, source)?;
    let mut found: Vec<Result<Cow<'a, str>, String>> = vec![Ok(Cow::Borrowed("")); lines.len()];
    Pool::global().for_each_chunk(threads, &mut found, CHUNK, |chunk, found| {
        for (line, found) in lines[chunk * CHUNK..].iter().zip(found) {
            *found = json_text(line, field);
        }
    });
    let named = |(index, text): (usize, Result<_, String>)| text.map_err(|error| source.error(index, error));
    found.into_iter().enumerate().map(named).collect()
}

/// The string `field` of an object.
fn json_text<'a>(line: &'a str, field: &str) -> Result<Cow<'a, str>, String> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let found = Field(field).deserialize(&mut reader).and_then(|found| reader.end().map(|()| found));
    match found.map_err(|error| format!("not a JSON object: {error}"))? {
        Found::Text(text) => Ok(text),
        Found::Other(kind) => Err(format!("field {field:?} must be a string, got {kind}")),
        Found::Missing(names) => Err(format!("no field {field:?}, only {}", names.join(", "))),
    }
}

/// What an object has for a field.
enum Found<'a> {
    Text(Cow<'a, str>),
    /// Something else, of this kind.
    Other(&'static str),
    /// The names of the fields that there are.
    Missing(Vec<String>),
}

/// Reads a field of an object; of several with its name, the last.
struct Field<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Found<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let (mut found, mut names) = (None, Vec::new());
        while let Some(name) = map.next_key_seed(Text)? {
            if matches!(&name, Found::Text(name) if name == self.0) {
                found = Some(map.next_value_seed(Text)?);
            } else {
                map.next_value::<IgnoredAny>()?;
                if let Found::Text(name) = name
                    && found.is_none()
                {
                    names.push(format!("{name:?}"));
                }
            }
        }
        Ok(found.unwrap_or(Found::Missing(names)))
    }
}

/// Reads a string, borrowed where nothing in it is escaped; of anything else, what it is.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Found<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Found::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Found::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Found::Other("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Found::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Found::Other("null"))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: Source<'_> = Source { name: "file", first: 7 };

    #[test]
    fn a_text_per_line() {
        for (data, expected) in [
            ("", vec![]),
            ("one", vec!["one"]),
            ("one\ntwo\n", vec!["one", "two"]),
            ("one\r\ntwo\r\n\r\n", vec!["one", "two", ""]),
            ("\n\n a\n", vec!["", "", " a"]),
            ("a\rb\u{2028}c\r", vec!["a\rb\u{2028}c"]),
        ] {
            assert_eq!(texts(data.as_bytes(), SOURCE).unwrap(), expected, "{data:?}");
            assert_eq!(count(data.as_bytes()), expected.len(), "{data:?}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_named() {
        let error = texts(b"one\ntwo\nabc\xffd\n", SOURCE).unwrap_err().to_string();
        assert_eq!(error, "file:9: not UTF-8: byte 0xff at position 3");
        let error = texts(b"\xe4\xb8", SOURCE).unwrap_err().to_string();
        assert_eq!(error, "file:7: not UTF-8: byte 0xe4 at position 0");
    }

    #[test]
    fn a_field_of_each_line() {
        let data = br#"{"text": "plain", "n": [1, {"text": 2}]}
{"n": null, "text": "a\n\u00e9\ud83d\ude00"}
 {"te\u0078t": "", "text": "last"}
"#;
        let found = json_texts(data, "text", SOURCE, 2).unwrap();
        assert_eq!(found, ["plain", "a\n\u{e9}\u{1f600}", "last"]);
        for (line, expected) in [
            ("", "file:8: not a JSON object: EOF while parsing a value at line 1 column 0"),
            (
                "[1]",
                "file:8: not a JSON object: invalid type: sequence, expected an object at line 1 column 0",
            ),
            (r#"{"text": 1}"#, r#"file:8: field "text" must be a string, got a number"#),
            (r#"{"text": {"text": ""}}"#, r#"file:8: field "text" must be a string, got an object"#),
            (r#"{"body": "", "n": 1}"#, r#"file:8: no field "text", only "body", "n""#),
            (r#"{"text": ""} x"#, "file:8: not a JSON object: trailing characters at line 1 column 14"),
        ] {
            let data = format!("{{\"text\": \"\"}}\n{line}\n[]\n");
            let error = json_texts(data.as_bytes(), "text", SOURCE, 2).unwrap_err().to_string();
            assert_eq!(error, expected);
        }
    }

    proptest! {
        #[test]
        fn lines_put_together_are_the_file(texts_in in prop::collection::vec("[a\u{e9} ]{0,3}", 0..20)) {
            let data: String = texts_in.iter().flat_map(|text| [text, "\n"]).collect();
            prop_assert_eq!(texts(data.as_bytes(), SOURCE).unwrap(), texts_in);
        }

        #[test]
        fn any_bytes_are_lines_or_an_error(data: Vec<u8>) {
            if let Ok(lines) = texts(&data, SOURCE) {
                prop_assert_eq!(lines.len(), count(&data));
            }
            let _ = json_texts(&data, "", SOURCE, 1);
        }
    }
}
