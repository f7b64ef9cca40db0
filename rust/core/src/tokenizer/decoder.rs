//! Ids back to text: the reference's WordPiece decoder.

/// How tokens are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoder {
    /// Continuing pieces are glued to what precedes them; `cleanup` takes spaces before punctuation out.
    WordPiece { prefix: String, cleanup: bool },
    /// A space between tokens: a `tokenizer.json` without a decoder.
    Spaces,
}

impl Decoder {
    pub fn decode<'a>(&self, tokens: impl Iterator<Item = &'a str>) -> String {
        let Self::WordPiece { prefix, cleanup } = self else {
            return tokens.collect::<Vec<_>>().join(" ");
        };
        let mut text = String::new();
        for (index, token) in tokens.enumerate() {
            // The cleanup sees one token at a time, with the space that was put before it.
            let part = match token.strip_prefix(prefix.as_str()) {
                _ if index == 0 => token.to_owned(),
                Some(continuing) => continuing.to_owned(),
                None => format!(" {token}"),
            };
            text.push_str(&if *cleanup { clean_up(&part) } else { part });
        }
        text
    }
}

fn clean_up(text: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    REPLACEMENTS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
