//! Which tokens of a text or pair are kept, and the windows that the others go to.

use crate::error::{Error, Result};
use std::ops::Range;

/// Tokens that windows of one text or pair may make in all: far above any use, far below a full memory.
const MAX_WINDOW_TOKENS: usize = 1 << 30;

/// How a sequence that is too long is shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Not at all.
    #[default]
    None,
    /// The longer text of a pair first; when both are long, half each, an odd token to the longer one.
    LongestFirst,
    /// Only the first text.
    OnlyFirst,
    /// Only the second text of a pair.
    OnlySecond,
}

/// The side on which tokens are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// The start of the text is lost.
    Left,
    /// The end of the text is lost.
    #[default]
    Right,
}

/// How many tokens of texts with `first` and `second` tokens are kept so that the sum is at most `budget`.
///
/// # Errors
/// `Error::Value` if the strategy cannot reach the budget.
pub fn kept(
    first: usize,
    second: Option<usize>,
    budget: usize,
    strategy: Strategy,
) -> Result<(usize, Option<usize>)> {
    let total = first + second.unwrap_or(0);
    if strategy == Strategy::None || total <= budget {
        return Ok((first, second));
    }
    if budget == 0 {
        return Ok((0, second.map(|_| 0)));
    }
    let remove = total - budget;
    let shorten = |length: usize| {
        length.checked_sub(remove).filter(|&kept| kept > 0).ok_or_else(|| {
            Error::Value(format!(
                "truncation: expected a text of more than {remove} tokens to cut {remove} off for max_length, \
                 got {length} tokens; use longest_first or a larger max_length"
            ))
        })
    };
    match (strategy, second) {
        (Strategy::None, _) => Ok((first, second)),
        (Strategy::LongestFirst, None) => Ok((budget, None)),
        (Strategy::LongestFirst, Some(second)) => Ok(longest_first(first, second, budget)),
        (Strategy::OnlyFirst, _) => Ok((shorten(first)?, second)),
        (Strategy::OnlySecond, Some(second)) => Ok((first, Some(shorten(second)?))),
        (Strategy::OnlySecond, None) => {
            Err(Error::Value("truncation: only_second expected a pair of texts, got one text".into()))
        }
    }
}

fn longest_first(first: usize, second: usize, budget: usize) -> (usize, Option<usize>) {
    let short = first.min(second);
    let long = short.max(budget.saturating_sub(short));
    let (short, long) =
        if short + long > budget { (budget / 2, budget / 2 + budget % 2) } else { (short, long) };
    if first > second { (long, Some(short)) } else { (short, Some(long)) }
}

/// The tokens that are kept of a text of `length` tokens.
pub fn kept_range(length: usize, keep: usize, side: Side) -> Range<usize> {
    match side {
        Side::Right => 0..keep,
        Side::Left => length - keep..length,
    }
}

/// The kept window of a text of `length` tokens, and after it the overflow windows, `stride` tokens shared.
///
/// # Errors
/// `Error::Value` if the text must be cut and `stride` is not less than `keep`.
pub fn windows(length: usize, keep: usize, stride: usize, side: Side) -> Result<Vec<Range<usize>>> {
    let count = count_windows(length, keep, stride)?;
    if keep >= length {
        return Ok(vec![0..length; 1]);
    }
    if keep == 0 {
        return Ok(vec![0..0, 0..length]);
    }
    let step = keep - stride;
    Ok((0..count)
        .map(|index| match side {
            Side::Right => index * step..(index * step + keep).min(length),
            Side::Left => (length - index * step).saturating_sub(keep)..length - index * step,
        })
        .collect())
}

/// How many windows [`windows`] gives.
fn count_windows(length: usize, keep: usize, stride: usize) -> Result<usize> {
    if keep >= length {
        return Ok(1);
    }
    if keep == 0 {
        return Ok(2);
    }
    if stride >= keep {
        return Err(Error::Value(format!(
            "stride: expected less than the {keep} tokens that max_length leaves for the text, got {stride}"
        )));
    }
    // The last window is the first one that reaches the far end.
    Ok(1 + (length - keep).div_ceil(keep - stride))
}

/// That what is cut off a text, or both of a pair, fits into windows: each with its length and how much of it is kept.
///
/// # Errors
/// `Error::Value` if the windows would share too many tokens or fill the memory.
pub fn check_windows(
    texts: impl Iterator<Item = (usize, usize)>,
    stride: usize,
    sample: usize,
) -> Result<()> {
    let (mut count, mut longest) = (1_usize, 0_usize);
    for (length, keep) in texts {
        count = count.saturating_mul(count_windows(length, keep, stride)?);
        longest += if keep == 0 { length } else { keep };
    }
    if count.saturating_mul(longest) > MAX_WINDOW_TOKENS {
        return Err(Error::Value(format!(
            "texts[{sample}]: expected overflow windows of at most {MAX_WINDOW_TOKENS} tokens in all, \
             got {count} windows of {longest} tokens"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_token_goes_to_the_longer_or_second_text() {
        let kept = |first, second, budget| kept(first, Some(second), budget, Strategy::LongestFirst).unwrap();
        assert_eq!(kept(10, 10, 7), (3, Some(4)));
        assert_eq!(kept(11, 10, 7), (4, Some(3)));
        assert_eq!(kept(2, 10, 7), (2, Some(5)));
        assert_eq!(kept(10, 2, 7), (5, Some(2)));
        assert_eq!(kept(3, 4, 7), (3, Some(4)));
        assert_eq!(kept(3, 4, 0), (0, Some(0)));
        assert_eq!(kept(1, 4, 1), (0, Some(1)));
    }

    #[test]
    fn one_text_only() {
        assert_eq!(kept(5, Some(9), 10, Strategy::OnlySecond).unwrap(), (5, Some(5)));
        assert_eq!(kept(9, Some(5), 10, Strategy::OnlyFirst).unwrap(), (5, Some(5)));
        assert_eq!(kept(9, None, 10, Strategy::OnlySecond).unwrap(), (9, None));
        for (first, second, strategy) in [
            (4, Some(9), Strategy::OnlyFirst),
            (11, None, Strategy::OnlySecond),
            (11, Some(1), Strategy::OnlySecond),
        ] {
            assert!(matches!(kept(first, second, 9, strategy), Err(Error::Value(_))), "{first} {second:?}");
        }
    }

    #[test]
    fn windows_cover_the_text_and_share_stride_tokens() {
        assert_eq!(windows(12, 5, 2, Side::Right).unwrap(), [0..5, 3..8, 6..11, 9..12]);
        assert_eq!(windows(12, 5, 2, Side::Left).unwrap(), [7..12, 4..9, 1..6, 0..3]);
        assert_eq!(windows(10, 5, 0, Side::Right).unwrap(), [0..5, 5..10]);
        assert_eq!(windows(5, 5, 9, Side::Right).unwrap(), [0..5; 1]);
        assert_eq!(windows(5, 0, 0, Side::Right).unwrap(), [0..0, 0..5]);
        assert!(matches!(windows(6, 5, 5, Side::Right), Err(Error::Value(_))));
    }
}
