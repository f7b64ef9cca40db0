//! Tokens of texts and the template put together into sequences.

use super::encoding::{EncodeOptions, Piece, Ragged};
use super::template::{Part, Template};
use super::truncation::{Side, check_windows, kept_range, windows};
use crate::error::Result;
use std::ops::Range;

/// A text's tokens and how many of them are kept.
#[derive(Clone, Copy)]
pub struct Kept<'a, P> {
    pub pieces: &'a [P],
    pub keep: usize,
}

impl<'a, P: Piece> Kept<'a, P> {
    fn is_cut(self) -> bool {
        self.keep < self.pieces.len()
    }

    fn window(self, side: Side) -> Window<'a, P> {
        let range = kept_range(self.pieces.len(), self.keep, side);
        Window { pieces: self.pieces, range, overflow_type: None }
    }
}

/// Tokens of one text that go into one sequence.
#[derive(Clone)]
struct Window<'a, P> {
    pieces: &'a [P],
    range: Range<usize>,
    /// The reference gives tokens that overflow their text's number, whatever the template says.
    overflow_type: Option<i32>,
}

/// Writes the sequence of one text or pair, and with overflow those of its other windows.
///
/// # Errors
/// `Error::Value` if `stride` is too large or the windows would fill the memory; nothing is written then.
pub fn write<P: Piece>(
    template: &Template,
    first: Kept<'_, P>,
    second: Option<Kept<'_, P>>,
    options: &EncodeOptions,
    sample: usize,
    out: &mut Ragged,
) -> Result<()> {
    let truncated = first.is_cut() || second.is_some_and(Kept::is_cut);
    if truncated && options.want_overflow {
        write_windows(template, first, second, options, sample, out)?;
    } else {
        let side = options.truncation_side;
        let second = second.map(|second| second.window(side));
        write_sequence(template, &first.window(side), second.as_ref(), options, out);
        out.end_sequence(sample);
    }
    out.truncated += usize::from(truncated);
    Ok(())
}

/// In the order of the reference: the kept windows; then all windows of the second text for each of the
/// first's, the first's kept one last.
fn write_windows<P: Piece>(
    template: &Template,
    first: Kept<'_, P>,
    second: Option<Kept<'_, P>>,
    options: &EncodeOptions,
    sample: usize,
    out: &mut Ragged,
) -> Result<()> {
    let texts = [Some(first), second].into_iter().flatten();
    check_windows(texts.map(|text| (text.pieces.len(), text.keep)), options.stride, sample)?;
    let of_first = windows_of(first, 0, options)?;
    let of_second = match second {
        Some(second) => windows_of(second, 1, options)?.into_iter().map(Some).collect(),
        None => vec![None],
    };
    let [kept_first, other_first @ ..] = &of_first[..] else { return Ok(()) };
    let [kept_second, other_second @ ..] = &of_second[..] else { return Ok(()) };
    let mut sequence = |a: &Window<'_, P>, b: Option<&Window<'_, P>>| {
        write_sequence(template, a, b, options, out);
        out.end_sequence(sample);
    };
    sequence(kept_first, kept_second.as_ref());
    for a in other_first {
        of_second.iter().for_each(|b| sequence(a, b.as_ref()));
    }
    other_second.iter().for_each(|b| sequence(kept_first, b.as_ref()));
    Ok(())
}

/// The kept window of a text, then the others.
fn windows_of<'a, P: Piece>(
    Kept { pieces, keep }: Kept<'a, P>,
    text: i32,
    options: &EncodeOptions,
) -> Result<Vec<Window<'a, P>>> {
    let ranges = windows(pieces.len(), keep, options.stride, options.truncation_side)?;
    let window = |(index, range)| Window { pieces, range, overflow_type: (index > 0).then_some(text) };
    Ok(ranges.into_iter().enumerate().map(window).collect())
}

fn write_sequence<P: Piece>(
    template: &Template,
    a: &Window<'_, P>,
    b: Option<&Window<'_, P>>,
    options: &EncodeOptions,
    out: &mut Ragged,
) {
    for part in template.parts(b.is_some()) {
        let (window, sequence, type_id) = match part {
            Part::First { type_id } => (Some(a), 0, *type_id),
            Part::Second { type_id } => (b, 1, *type_id),
            Part::Special { ids, type_id } => {
                if options.add_special_tokens {
                    out.input_ids.extend_from_slice(ids);
                    let len = out.input_ids.len();
                    fill(&mut out.token_type_ids, len, *type_id);
                    fill(&mut out.offset_mapping, len, [0, 0]);
                    fill(&mut out.word_ids, len, -1);
                    fill(&mut out.sequence_ids, len, -1);
                }
                continue;
            }
        };
        let Some(Window { pieces, range, overflow_type }) = window else { continue };
        P::write(&pieces[range.clone()], out);
        fill(&mut out.token_type_ids, out.input_ids.len(), overflow_type.unwrap_or(type_id));
        fill(&mut out.sequence_ids, out.input_ids.len(), sequence);
    }
}

fn fill<T: Clone>(array: &mut Option<Vec<T>>, len: usize, value: T) {
    if let Some(array) = array {
        array.resize(len, value);
    }
}
