//! Lines of a file to what a thread tokenizes: lines, paragraphs, or parts of them.

use crate::pretraining::sentences::cut;
use std::ops::Range;

/// Bytes of text in a part of the work, more or less: what is made of it stays in the caches until it is written.
const PART_BYTES: usize = 256 << 10;

/// Parts for each thread in a round: one that is slow takes fewer.
const PARTS_PER_THREAD: usize = 4;

/// How lines make documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    /// A line without text ends one; every other line is a sentence, or a paragraph if sentences are split.
    Blank,
    /// Each line is one; the line breaks that a JSON string may have in it separate sentences, or paragraphs.
    Line,
    /// No line ends one: whoever appends says where they end.
    File,
}

/// Text that a thread tokenizes, in which line breaks separate paragraphs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    /// Whether the document before it ends here.
    pub(super) begins_document: bool,
}

/// Goes through lines.
pub(super) struct Pieces<'a, T> {
    lines: std::slice::Iter<'a, T>,
    documents: Documents,
    split: bool,
    begins_document: bool,
}

impl<'a, T: AsRef<str>> Pieces<'a, T> {
    pub(super) fn new(lines: &'a [T], documents: Documents, split: bool) -> Self {
        Self { lines: lines.iter(), documents, split, begins_document: false }
    }

    /// Whether the last document has ended.
    pub(super) fn ended(&self) -> bool {
        self.begins_document || self.documents == Documents::Line
    }

    /// The pieces that so many threads do next, and the parts of them; how many bytes they have. None if there are no more.
    pub(super) fn round(
        &mut self,
        threads: usize,
        pieces: &mut Vec<Piece<'a>>,
        parts: &mut Vec<Range<usize>>,
    ) -> usize {
        pieces.clear();
        parts.clear();
        let (mut all, mut bytes, mut start, mut end) = (0, 0, 0, 0);
        while all < threads * PARTS_PER_THREAD * PART_BYTES && self.next(pieces) {
            for piece in &pieces[end..] {
                (all, bytes, end) = (all + piece.text.len(), bytes + piece.text.len(), end + 1);
                if bytes >= PART_BYTES {
                    parts.push(start..end);
                    (bytes, start) = (0, end);
                }
            }
        }
        if start < end {
            parts.push(start..end);
        }
        all
    }

    /// One more line, or several pieces of a long one.
    fn next(&mut self, pieces: &mut Vec<Piece<'a>>) -> bool {
        loop {
            let Some(text) = self.lines.next().map(AsRef::as_ref) else { return false };
            let blank = !text.starts_with(|c: char| c.is_ascii_graphic()) && text.trim().is_empty();
            self.begins_document |= match self.documents {
                Documents::Blank => blank,
                Documents::Line => true,
                Documents::File => false,
            };
            if blank {
                continue;
            }
            let first = pieces.len();
            if text.len() <= 2 * PART_BYTES {
                pieces.push(Piece { text, begins_document: false });
            } else {
                self.cut(text, pieces);
            }
            pieces[first].begins_document = std::mem::take(&mut self.begins_document);
            return true;
        }
    }

    /// Cuts a long text where nothing of it is changed.
    fn cut(&self, mut text: &'a str, pieces: &mut Vec<Piece<'a>>) {
        while !text.is_empty() {
            // Behind the first line break that leaves a whole part before it.
            let from = text.len().min(PART_BYTES);
            let end =
                memchr::memchr(b'\n', &text.as_bytes()[from..]).map_or(text.len(), |end| from + end + 1);
            let (part, rest) = text.split_at(end);
            text = rest;
            let piece = |text| Piece { text, begins_document: false };
            if self.split && part.len() > 2 * PART_BYTES {
                part.split('\n').for_each(|paragraph| pieces.extend(cut(paragraph, PART_BYTES).map(piece)));
            } else {
                pieces.push(piece(part));
            }
        }
    }
}
