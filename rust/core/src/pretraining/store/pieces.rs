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

/// Text that is tokenized at once.
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
    /// What is left of a text.
    rest: &'a str,
    begins_document: bool,
}

impl<'a, T: AsRef<str>> Pieces<'a, T> {
    pub(super) fn new(lines: &'a [T], documents: Documents, split: bool) -> Self {
        Self { lines: lines.iter(), documents, split, rest: "", begins_document: false }
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

    /// One more piece, or several of a long one.
    fn next(&mut self, pieces: &mut Vec<Piece<'a>>) -> bool {
        loop {
            while let Some((text, rest)) = self.paragraph() {
                self.rest = rest;
                if text.trim_ascii().is_empty() && text.trim().is_empty() {
                    continue;
                }
                let begins_document = std::mem::take(&mut self.begins_document);
                if self.split && text.len() > 2 * PART_BYTES {
                    let piece = |text| Piece { text, begins_document: false };
                    let first = pieces.len();
                    pieces.extend(cut(text, PART_BYTES).map(piece));
                    pieces[first].begins_document = begins_document;
                } else {
                    pieces.push(Piece { text, begins_document });
                }
                return true;
            }
            let Some(line) = self.lines.next() else { return false };
            self.rest = line.as_ref();
            self.begins_document |= match self.documents {
                Documents::Blank => self.rest.trim().is_empty(),
                Documents::Line => true,
                Documents::File => false,
            };
        }
    }

    /// What is before the next line break, and what is behind it.
    fn paragraph(&self) -> Option<(&'a str, &'a str)> {
        if self.rest.is_empty() {
            return None;
        }
        match memchr::memchr(b'\n', self.rest.as_bytes()) {
            Some(end) => Some((&self.rest[..end], &self.rest[end + 1..])),
            None => Some((self.rest, "")),
        }
    }
}
