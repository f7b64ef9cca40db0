//! How a pair is made to fit: the longer side loses tokens, at either end.

use crate::pretraining::philox::Stream;
use std::ops::Range;

/// How many tokens of each side stay, so that both together are at most `room`.
///
/// One token after the other goes, of the longer side; of the second if both are as long. Source: BERT's
/// `truncate_seq_pair`.
pub(super) fn kept(first: u64, second: u64, room: u64) -> (u64, u64) {
    let excess = (first + second).saturating_sub(room);
    if first > second {
        let uneven = excess.min(first - second);
        let even = excess - uneven;
        (first - uneven - even / 2, second - even.div_ceil(2))
    } else {
        let uneven = excess.min(second - first);
        let even = excess - uneven;
        (first - even / 2, second - uneven - even.div_ceil(2))
    }
}

/// Cuts a pair down to `room` tokens: each token that goes is taken from the front with probability 1/2.
pub(super) fn truncate(
    first: Range<u64>,
    second: Range<u64>,
    room: u64,
    stream: impl FnOnce() -> Stream,
) -> (Range<u64>, Range<u64>) {
    let (first_len, second_len) = (first.end - first.start, second.end - second.start);
    if first_len + second_len <= room {
        return (first, second);
    }
    let mut stream = stream();
    let kept = kept(first_len, second_len, room);
    let mut cut = |tokens: Range<u64>, kept| {
        let front = heads(tokens.end - tokens.start - kept, &mut stream);
        tokens.start + front..tokens.start + front + kept
    };
    (cut(first, kept.0), cut(second, kept.1))
}

/// How many of so many coins fall heads: a bit of the stream for each.
fn heads(coins: u64, stream: &mut Stream) -> u64 {
    let mut heads: u64 = (0..coins / 32).map(|_| u64::from(stream.next_u32().count_ones())).sum();
    let rest = coins % 32;
    if rest > 0 {
        heads += u64::from((stream.next_u32() >> (32 - rest)).count_ones());
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretraining::philox::Purpose;
    use proptest::prelude::*;

    proptest! {
        /// One token after the other, as the original says it.
        #[test]
        fn kept_is_what_is_left_in_the_end(first in 0u64..90, second in 0u64..90, room in 0u64..100) {
            let (mut a, mut b) = (first, second);
            while a + b > room {
                if a > b { a -= 1 } else { b -= 1 }
            }
            prop_assert_eq!(kept(first, second, room), (a, b));
        }

        #[test]
        fn what_stays_lies_inside(first in 0u64..300, second in 0u64..300, room in 0u64..300, index: u64) {
            let stream = || Stream::new(1, Purpose::Truncate, 0, index);
            let (a, b) = truncate(1000..1000 + first, 5000..5000 + second, room, stream);
            prop_assert!(1000 <= a.start && a.start <= a.end && a.end <= 1000 + first);
            prop_assert!(5000 <= b.start && b.start <= b.end && b.end <= 5000 + second);
            prop_assert_eq!(a.end - a.start + b.end - b.start, room.min(first + second));
        }
    }

    #[test]
    fn a_coin_for_each_token() {
        let draw = |coins, index| heads(coins, &mut Stream::new(3, Purpose::Truncate, 0, index));
        for coins in [1, 31, 32, 33, 200] {
            let draws: Vec<_> = (0..4000).map(|index| draw(coins, index) as f64).collect();
            let mean = draws.iter().sum::<f64>() / 4000.0;
            let variance = draws.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 4000.0;
            let (expected, of_one) = (coins as f64 / 2.0, coins as f64 / 4.0);
            assert!((mean - expected).abs() < 5.0 * (of_one / 4000.0).sqrt(), "{coins}: {mean}");
            assert!((variance / of_one - 1.0).abs() < 0.15, "{coins}: {variance}");
        }
    }
}
