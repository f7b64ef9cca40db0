//! Pairs of segments: which sentences the next one takes.

use super::plan_file::Entry;
use super::{Format, Pass};
use crate::pretraining::philox::{Purpose, Stream};
use crate::{Error, Result};
use std::ops::Range;

/// Draws of a document that a plan can number.
const MAX_DRAWS: u32 = 1 << 24;

/// The tokens of two segments, before anything is cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) first: Range<u64>,
    pub(super) second: Range<u64>,
    /// Whether the second is from another document, or the two are swapped.
    pub(super) label: bool,
}

/// A pair, and where the sentences behind it begin.
#[derive(Debug)]
pub(super) struct Drawn {
    /// None if the sentences are left out.
    pub(super) pair: Option<Pair>,
    pub(super) next: u64,
}

/// A pair as far as its own document says it. Whoever draws many goes through all of them step by step, so that what one
/// waits for in memory the others wait for meanwhile.
#[derive(Debug)]
pub(super) enum Begun {
    Drawn(Drawn),
    Elsewhere(Elsewhere),
}

/// A pair whose second segment is yet to be found in another document.
#[derive(Debug)]
pub(super) struct Elsewhere {
    first: Range<u64>,
    next: u64,
    /// Tokens of the second segment, if there are as many.
    wanted: u64,
    document: u64,
    /// Where it begins and the document ends, once that is drawn.
    sentences: Range<u64>,
    stream: Stream,
}

/// `start..end`, empty where a damaged store has an end before its start.
fn tokens(start: u64, end: u64) -> Range<u64> {
    start..end.max(start)
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl Pass<'_> {
    /// The pair that begins at a sentence of a document, by number `draw` of the document's draws.
    ///
    /// Sentences are taken until they have `target` tokens or the document ends; the first segment is 1 to n - 1 of the
    /// n. A second segment from another document leaves the rest of the n for the next pair.
    ///
    /// Source: BERT's and ALBERT's `create_instances_from_document`.
    pub(super) fn begin_pair(
        &self,
        document: u64,
        sentence: u64,
        last: u64,
        draw: u32,
        target: u64,
    ) -> Begun {
        let is_order = self.config.format == Format::SentenceOrder;
        let store = self.store;
        let start = store.tokens_of(sentence).start;
        let least = sentence + 1 + u64::from(is_order);
        let (mut next, mut end) = (sentence, start);
        while next < last && (next < least || end.saturating_sub(start) < target) {
            end = store.tokens_of(next).end;
            next += 1;
        }
        let n = next - sentence;
        let index = document | u64::from(draw) << 32;
        let mut stream = Stream::new(self.seed, Purpose::Draw, self.number, index).with_isa(self.isa);
        if n == 1 && is_order {
            return Begun::Drawn(Drawn { pair: self.cut_sentence(tokens(start, end), &mut stream), next });
        }
        let taken = if n > 1 { 1 + stream.below_u64(n - 1) } else { 1 };
        let middle = store.tokens_of(sentence + taken - 1).end;
        let (first, second) = (tokens(start, middle), tokens(middle, end));
        if is_order {
            return Begun::Drawn(Drawn { pair: Some(in_order(first, second, &mut stream)), next });
        }
        if n > 1 && stream.below(2) == 0 {
            return Begun::Drawn(Drawn { pair: Some(Pair { first, second, label: false }), next });
        }
        let other = stream.below_u64(store.num_documents() - 1);
        Begun::Elsewhere(Elsewhere {
            next: sentence + taken,
            wanted: target.saturating_sub(len(&first)),
            document: other + u64::from(other >= document),
            sentences: 0..0,
            first,
            stream,
        })
    }

    /// Draws where the second segment begins, if that is to be drawn.
    pub(super) fn go_on(&self, begun: &mut Begun) {
        if let Begun::Elsewhere(pair) = begun {
            pair.sentences = self.store.sentences_of(pair.document);
            if !pair.sentences.is_empty() {
                pair.sentences.start += pair.stream.below_u64(len(&pair.sentences));
            }
        }
    }

    /// The pair.
    pub(super) fn finish(&self, begun: Begun) -> Drawn {
        match begun {
            Begun::Drawn(drawn) => drawn,
            Begun::Elsewhere(Elsewhere { first, next, wanted, sentences, .. }) => {
                let second = self.from(sentences, wanted);
                Drawn { pair: Some(Pair { first, second, label: true }), next }
            }
        }
    }

    /// All three steps.
    pub(super) fn next_pair(&self, document: u64, sentence: u64, last: u64, draw: u32, target: u64) -> Drawn {
        let mut begun = self.begin_pair(document, sentence, last, draw, target);
        self.go_on(&mut begun);
        self.finish(begun)
    }

    /// Whole sentences that have `wanted` tokens, or all of them; nothing where a damaged store has none.
    fn from(&self, mut sentences: Range<u64>, wanted: u64) -> Range<u64> {
        let Some(sentence) = sentences.next() else { return 0..0 };
        let Range { start, mut end } = self.store.tokens_of(sentence);
        while end.saturating_sub(start) < wanted
            && let Some(sentence) = sentences.next()
        {
            end = self.store.tokens_of(sentence).end;
        }
        tokens(start, end)
    }

    /// A sentence that has no other beside it, in two: at the beginning of a word.
    fn cut_sentence(&self, sentence: Range<u64>, stream: &mut Stream) -> Option<Pair> {
        let words = || (sentence.start + 1..sentence.end).filter(|&token| self.store.is_word_start(token));
        let count = words().count();
        if count == 0 {
            return None;
        }
        let middle = words().nth(stream.below_u64(count as u64) as usize)?;
        Some(in_order(sentence.start..middle, middle..sentence.end, stream))
    }
}

/// Swapped with probability 1/2.
fn in_order(first: Range<u64>, second: Range<u64>, stream: &mut Stream) -> Pair {
    if stream.below(2) == 0 {
        Pair { first, second, label: false }
    } else {
        Pair { first: second, second: first, label: true }
    }
}

impl Begun {
    /// The document that it goes on in.
    pub(super) fn other_document(&self) -> Option<u64> {
        match self {
            Self::Drawn(_) => None,
            Self::Elsewhere(pair) => Some(pair.document),
        }
    }

    /// The sentence that it goes on with, once that is drawn.
    pub(super) fn other_sentence(&self) -> Option<u64> {
        match self {
            Self::Drawn(_) => None,
            Self::Elsewhere(pair) => Some(pair.sentences.start),
        }
    }
}

/// Goes through documents, pair by pair.
#[derive(Debug)]
pub(super) struct Pairs {
    documents: Range<u64>,
    /// The document at hand: its sentences that are left, its target, how many pairs were drawn.
    current: Option<(u64, Range<u64>, u64, u32)>,
}

impl Pairs {
    pub(super) fn new(documents: Range<u64>) -> Self {
        Self { documents, current: None }
    }

    /// Appends entries, until there are `limit` or no more documents; whether there are more.
    pub(super) fn plan(&mut self, pass: &Pass<'_>, entries: &mut Vec<Entry>, limit: usize) -> Result<bool> {
        while entries.len() < limit {
            let Some((document, sentences, target, draw)) = &mut self.current else {
                let Some(document) = self.documents.next() else { return Ok(false) };
                let sentences = pass.store.sentences_of(document);
                self.current = Some((document, sentences, pass.target(document), 0));
                continue;
            };
            if sentences.is_empty() {
                self.current = None;
                continue;
            }
            if *draw == MAX_DRAWS {
                return Err(Error::Value(format!(
                    "store: expected at most {MAX_DRAWS} samples of a document, got more of document {document}"
                )));
            }
            let drawn = pass.next_pair(*document, sentences.start, sentences.end, *draw, *target);
            if let Some(pair) = drawn.pair {
                let room = pass.config.room();
                let length = (len(&pair.first) + len(&pair.second)).min(room) + 3;
                entries.push(Entry::new(sentences.start, length, *document, *draw, pass.copy));
            }
            sentences.start = drawn.next;
            *draw += 1;
        }
        Ok(true)
    }
}
