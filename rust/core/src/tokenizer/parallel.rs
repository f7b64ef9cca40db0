//! A batch on several threads: each takes a range of the texts into arrays of its own.

use super::characters::Compat;
use super::encode::{Budget, LONGEST, MOST_KEPT, Text, Tokenizer};
use super::encoding::{EncodeOptions, Piece, Placed, Ragged, gather};
use super::truncation::Strategy;
use crate::error::Result;
use crate::threads::{Pool, Team, lock};
use std::ops::Range;
use std::sync::Mutex;

/// Bytes of text for each thread, below which handing out the work costs more than it saves.
const BYTES_PER_THREAD: usize = 4096;

/// Bytes of text in a part, more or less: its tokens stay in the caches until they are put where they belong.
const PART_BYTES: usize = 256 << 10;

/// Room in proportion to what is expected.
const MORE: f64 = 1.06;

/// About as many as a text and its pair are given.
const SPECIAL_TOKENS: usize = 3;

/// Parts for each thread in a round: one that is slow takes fewer.
const PARTS_PER_THREAD: usize = 4;

/// Bytes of a text that is cut into parts itself, where it can be.
const LONG_BYTES: usize = 4 * PART_BYTES;

/// What the parts of a round are written to, kept from call to call.
pub(super) type Parts = Vec<Mutex<Ragged>>;

impl Tokenizer {
    /// [`Self::encode_range`] on up to `limit` threads of the process's pool; the same arrays, whatever the
    /// number of threads.
    ///
    /// # Errors
    /// As [`Self::encode_batch`]: the first one in the order of the texts. `out` is of no use then.
    pub fn encode_range_on_threads<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        range: Range<usize>,
        options: &EncodeOptions,
        limit: usize,
        out: &mut Ragged,
    ) -> Result<()> {
        let bytes = bytes_of(&texts[range.clone()]);
        if bytes < 2 * BYTES_PER_THREAD {
            // Not worth a look at the pool, which others may keep busy.
            return self
                .with_scratch(|scratch| self.encode_range(texts, pairs, range, options, scratch, out));
        }
        let mut team = Pool::global().join(limit.clamp(1, bytes / BYTES_PER_THREAD));
        self.encode_range_in_team(texts, pairs, range, options, &mut team, out)
    }

    /// The same on the threads of a team.
    ///
    /// # Errors
    /// As [`Self::encode_range_on_threads`].
    pub fn encode_range_in_team<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        range: Range<usize>,
        options: &EncodeOptions,
        team: &mut Team<'_>,
        out: &mut Ragged,
    ) -> Result<()> {
        for round in rounds(texts, range, PARTS_PER_THREAD * PART_BYTES * team.size()) {
            let bytes = bytes_of(&texts[round.clone()]);
            if bytes < 2 * BYTES_PER_THREAD {
                self.with_scratch(|scratch| self.encode_range(texts, pairs, round, options, scratch, out))?;
            } else if bytes >= LONG_BYTES && round.len() == 1 {
                let pair = pairs.map(|pairs| &pairs[round.start]);
                self.encode_long(&texts[round.start], pair, options, round.start, team, out)?;
            } else {
                let mut parts = self.parts.take().unwrap_or_default();
                let done = self.encode_round(texts, pairs, round, options, team, &mut parts, out);
                parts.retain(|part| lock(part).has_room_for_at_most(MOST_KEPT));
                self.parts.give_back(parts);
                done?;
            }
        }
        Ok(())
    }

    /// A number of texts, cut into parts that the threads of a team draw.
    #[allow(clippy::too_many_arguments)]
    fn encode_round<T: Text>(
        &self,
        texts: &[T],
        pairs: Option<&[T]>,
        round: Range<usize>,
        options: &EncodeOptions,
        team: &mut Team<'_>,
        parts: &mut Parts,
        out: &mut Ragged,
    ) -> Result<()> {
        let bytes = bytes_of(&texts[round.clone()]);
        let threads = team.size().min(bytes / BYTES_PER_THREAD).max(1);
        let ranges = cut(texts, round.clone(), threads.max(bytes / PART_BYTES));
        parts.resize_with(ranges.len().max(parts.len()), Mutex::default);
        let failed = Mutex::new(None);
        team.each(threads, ranges.len(), |index| {
            let (range, part) = (ranges[index].clone(), &mut *lock(&parts[index]));
            part.restart(options);
            let encode = |scratch: &mut _| self.encode_range(texts, pairs, range, options, scratch, part);
            if let Err(error) = self.with_scratch(encode) {
                let mut first = lock(&failed);
                if first.as_ref().is_none_or(|(before, _)| index < *before) {
                    *first = Some((index, error));
                }
            }
        });
        if let Some((_, error)) = lock(&failed).take() {
            return Err(error);
        }
        let parts: Vec<_> = parts[..ranges.len()].iter().map(lock).collect();
        let parts: Vec<_> = parts.iter().map(|part| &**part).collect();
        make_room(texts, pairs, round, parts.iter().map(|part| part.input_ids.len()).sum(), out);
        out.append(&parts, team);
        Ok(())
    }

    /// One text (or pair) that is as long as many: the threads share it.
    fn encode_long<T: Text>(
        &self,
        text: &T,
        pair: Option<&T>,
        options: &EncodeOptions,
        sample: usize,
        team: &mut Team<'_>,
        out: &mut Ragged,
    ) -> Result<()> {
        let budget = self.budget(pair.is_some(), options)?;
        // Not what is split into words, need not be read to its end, or is too long to be a text.
        let fits = |text: &&str| text.len() <= budget.limit.min(LONGEST);
        let (whole, whole_pair) =
            (text.whole().filter(fits), pair.and_then(|pair| pair.whole().filter(fits)));
        let Some(whole) = whole.filter(|_| whole_pair.is_some() == pair.is_some()) else {
            return self.with_scratch(|scratch| self.encode_into(text, pair, options, sample, scratch, out));
        };
        let (text, pair) = (whole, whole_pair);
        if options.is_placed() {
            self.encode_long_as::<Placed>(text, pair, budget, options, sample, team, out)
        } else {
            self.encode_long_as::<i32>(text, pair, budget, options, sample, team, out)
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn encode_long_as<P: Piece>(
        &self,
        text: &str,
        pair: Option<&str>,
        budget: Budget,
        options: &EncodeOptions,
        sample: usize,
        team: &mut Team<'_>,
        out: &mut Ragged,
    ) -> Result<()> {
        let first: Vec<P> = self.pieces_in_team(text, PART_BYTES, team);
        let second: Option<Vec<P>> = pair.map(|pair| self.pieces_in_team(pair, PART_BYTES, team));
        if options.truncation == Strategy::None {
            let tokens = first.len() + second.as_ref().map_or(0, Vec::len);
            let _ = out.try_reserve(tokens + self.template.added(pair.is_some()), 1);
        }
        self.write(&first, second.as_deref(), budget, options, sample, out)
    }

    /// The tokens of a text, parts of which, of about so many bytes, the threads of a team tokenize.
    fn pieces_in_team<P: Piece>(&self, text: &str, bytes: usize, team: &mut Team<'_>) -> Vec<P> {
        let segments = self.segments(text, bytes);
        let parts: Vec<Mutex<(Vec<P>, usize)>> = segments.iter().map(|_| Mutex::default()).collect();
        team.each(team.size(), segments.len(), |index| {
            let (segment, (pieces, chars)) = (segments[index], &mut *lock(&parts[index]));
            self.with_scratch(|scratch| self.tokenize(segment, &mut scratch.words, pieces, usize::MAX));
            if P::PLACED {
                *chars = segment.chars().count();
            }
        });
        let mut parts: Vec<_> = parts.iter().map(lock).collect();
        if P::PLACED {
            let (mut chars, mut words) = (0, 0);
            let mut shifts = Vec::with_capacity(parts.len());
            for part in &mut parts {
                let (pieces, count) = &mut **part;
                let (before, last) = ((chars, words), pieces.last().copied());
                chars += *count as i32;
                // Every word has a piece at least.
                words += last.map_or(0, |last| last.word() + 1);
                shifts.push(Mutex::new((pieces, before)));
            }
            team.each(team.size(), shifts.len(), |index| {
                let (pieces, (chars, words)) = &mut *lock(&shifts[index]);
                pieces.iter_mut().for_each(|piece| piece.shift(*chars, *words));
            });
        }
        let mut all = Vec::new();
        gather(&mut all, parts.iter().map(|part| &part.0), team);
        all
    }

    /// A text in parts of about so many bytes, which have the tokens of the whole one behind the other: cut where a word
    /// ends whatever follows. One part, if added tokens may lie there too, or if what a letter becomes depends on those
    /// around it.
    fn segments<'a>(&self, text: &'a str, bytes: usize) -> Vec<&'a str> {
        let mut segments = Vec::new();
        let mut rest = text;
        if self.added.are_plain() && self.normalizer.options().compat == Compat::HuggingFace {
            while rest.len() > 2 * bytes
                && let Some(end) = self.fast_path.word_end(rest, bytes)
            {
                let (segment, behind) = rest.split_at(end);
                segments.push(segment);
                rest = behind;
            }
        }
        segments.push(rest);
        segments
    }
}

/// If `out` is full: room for this round and all texts behind it, as many tokens a byte as the `tokens` of the round has.
/// To grow step by step would copy it as often.
fn make_room<T: Text>(
    texts: &[T],
    pairs: Option<&[T]>,
    round: Range<usize>,
    tokens: usize,
    out: &mut Ragged,
) {
    if out.has_room(tokens) {
        return;
    }
    let rest = round.start..texts.len();
    let bytes = |range: &Range<usize>| {
        bytes_of(&texts[range.clone()]) + pairs.map_or(0, |pairs| bytes_of(&pairs[range.clone()]))
    };
    let left = bytes(&rest);
    let expected = tokens as f64 * MORE * (left as f64 / bytes(&round) as f64);
    // Texts that are short or cut off say little of those behind them.
    let most = left + SPECIAL_TOKENS * rest.len();
    // If there is no room for all, there may be for these.
    let _ = out.try_reserve((expected as usize).min(most).max(tokens), rest.len());
}

fn bytes_of<T: Text>(texts: &[T]) -> usize {
    texts.iter().map(Text::bytes).sum()
}

/// Cuts `range` into ranges of about so many bytes; long texts are ranges of their own.
fn rounds<T: Text>(texts: &[T], range: Range<usize>, bytes: usize) -> Vec<Range<usize>> {
    let mut rounds = Vec::new();
    let (mut start, mut sum) = (range.start, 0);
    for index in range.clone() {
        let len = texts[index].bytes();
        if start < index && (len >= LONG_BYTES || sum >= bytes) {
            rounds.push(start..index);
            (start, sum) = (index, 0);
        }
        sum += if len >= LONG_BYTES { bytes } else { len };
    }
    rounds.push(start..range.end);
    rounds
}

/// Cuts `range` into at most `limit` ranges of about the same number of bytes.
fn cut<T: Text>(texts: &[T], range: Range<usize>, limit: usize) -> Vec<Range<usize>> {
    let total = bytes_of(&texts[range.clone()]);
    let count = limit.clamp(1, range.len().max(1));
    let mut parts = Vec::with_capacity(count);
    let (mut start, mut bytes) = (range.start, 0);
    for index in range.clone() {
        bytes += texts[index].bytes();
        if bytes * count >= total * (parts.len() + 1) && parts.len() + 1 < count {
            parts.push(start..index + 1);
            start = index + 1;
        }
    }
    parts.push(start..range.end);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Settings;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_range_in_order(
            lengths in prop::collection::vec(0usize..30_000, 0..20), limit in 0usize..9, from in 0usize..20,
        ) {
            let text = "x".repeat(30_000);
            let texts: Vec<&str> = lengths.iter().map(|&length| &text[..length]).collect();
            let range = from.min(texts.len())..texts.len();
            let parts = cut(&texts, range.clone(), limit);
            prop_assert!(!parts.is_empty() && parts.len() <= limit.max(1));
            prop_assert_eq!(parts[0].start, range.start);
            prop_assert_eq!(parts[parts.len() - 1].end, range.end);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_text_in_parts_has_the_tokens_of_the_whole(
            text in prop_oneof![
                "[abcAB7 .,\\[\\]MASK\u{4e2d}\u{ff0c}\u{2019}\u{e9}\u{301}\u{302e}\u{1b44}\t\n\u{a0}\u{3000}\u{ad}\u{ac00}]{0,120}",
                "([ab\u{e9}\u{4e2d}]{1,9}[ \u{3002}\u{302e}]?){0,20}",
            ],
            options in any::<[bool; 4]>(),
        ) {
            let [clean_text, handle_chinese_chars, strip_accents, lowercase] = options;
            let json = serde_json::json!({
                "normalizer": {
                    "type": "BertNormalizer",
                    "clean_text": clean_text,
                    "handle_chinese_chars": handle_chinese_chars,
                    "strip_accents": strip_accents,
                    "lowercase": lowercase,
                },
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "added_tokens": [{"content": "[MASK]", "special": true}],
                "model": {
                    "type": "WordPiece",
                    "unk_token": "[UNK]",
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                    "vocab": {"[UNK]": 0, "[MASK]": 1, "a": 2, "##a": 3, "ab": 4, "##b": 5, "\u{4e2d}": 6, "##\u{e9}": 7},
                },
            });
            let tokenizer = Tokenizer::from_json(&json.to_string(), Settings::default()).unwrap();
            let mut whole: Vec<Placed> = Vec::new();
            tokenizer.with_scratch(|scratch| {
                tokenizer.tokenize(&text, &mut scratch.words, &mut whole, usize::MAX);
            });
            let segments = tokenizer.segments(&text, 3);
            prop_assert_eq!(segments.concat(), text.as_str());
            let parts: Vec<Placed> = tokenizer.pieces_in_team(&text, 3, &mut Pool::global().join(2));
            prop_assert_eq!(&parts, &whole, "{:?}", segments);
        }
    }

    #[test]
    fn texts_are_cut_where_they_can_be() {
        let open = |added: &str| {
            let vocab = "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\na";
            let settings = Settings::new(Some(added), None, None).unwrap();
            Tokenizer::from_vocab(vocab, settings).unwrap()
        };
        let plain = open("{}");
        assert_eq!(plain.segments("aa aa aa aa", 3), ["aa aa ", "aa aa"]);
        assert_eq!(plain.segments("\u{4e2d}\u{4e2d}\u{4e2d}", 3), ["\u{4e2d}\u{4e2d}", "\u{4e2d}"]);
        assert_eq!(plain.segments("aaaaaaaaaaaaaaaaaaa", 3).len(), 1);
        for flag in ["lstrip", "rstrip", "single_word", "normalized"] {
            let added = format!(r#"{{"added_tokens_decoder": {{"5": {{"content": "a", "{flag}": true}}}}}}"#);
            assert_eq!(open(&added).segments("aa aa aa aa", 3).len(), 1, "{flag}");
        }
    }

    #[test]
    fn room_is_made_for_what_there_can_be() {
        let long = "x".repeat(100_000);
        let texts: Vec<&str> = [vec![""; 2000], vec!["a"; 10], vec![long.as_str(); 20]].concat();
        for first in [0..2000, 0..2010] {
            let mut out = Ragged::default();
            // A special token on both sides: of these texts, many for each byte.
            make_room(&texts, None, first.clone(), 2 * first.len() + 10, &mut out);
            assert!(out.has_room(2 * first.len() + 10));
            assert!(out.input_ids.capacity() < 3 * bytes_of(&texts), "{}", out.input_ids.capacity());
        }
        let mut out = Ragged::default();
        make_room(&["aa", "aa"], Some(&["aaaa", "aaaa"]), 0..1, 9, &mut out);
        assert!(out.has_room(18));
    }

    #[test]
    fn one_long_text_does_not_starve_the_others() {
        let long = "x".repeat(40_000);
        let texts = ["a", &long, "b", &long, "c"];
        assert_eq!(cut(&texts, 0..5, 2), [0..3, 3..5]);
    }
}
