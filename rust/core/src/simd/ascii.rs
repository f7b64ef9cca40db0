//! What is what among 16 bytes of text: the baseline of each architecture is enough, so nothing is detected.

/// 16 bytes of UTF-8; bit `i` of a mask is byte `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ascii {
    /// The same bytes, ASCII letters lower-cased.
    pub lower: [u8; 16],
    /// ASCII letters and digits.
    pub words: u16,
    /// Printed ASCII: these and punctuation.
    pub printed: u16,
    /// Printed ASCII and the space.
    pub plain: u16,
}

impl Ascii {
    /// All of it.
    #[inline]
    pub fn new(bytes: [u8; 16]) -> Self {
        #[cfg(target_arch = "x86_64")]
        return Self::sse2(bytes);
        #[cfg(not(target_arch = "x86_64"))]
        return Self::portable(bytes);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn sse2(bytes: [u8; 16]) -> Self {
        use std::arch::x86_64::{
            __m128i, _mm_and_si128, _mm_cmpgt_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        };
        let bytes: __m128i = bytemuck::cast(bytes);
        // SAFETY: every x86-64 has SSE2.
        unsafe {
            // What is not ASCII is negative, and so below everything.
            let between = |bytes, first: u8, last: u8| {
                let above = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(first as i8 - 1));
                _mm_and_si128(above, _mm_cmpgt_epi8(_mm_set1_epi8(last as i8 + 1), bytes))
            };
            let mask = |bytes| _mm_movemask_epi8(bytes) as u16;
            let case = _mm_set1_epi8(0x20);
            let letters = between(_mm_or_si128(bytes, case), b'a', b'z');
            Self {
                lower: bytemuck::cast(_mm_or_si128(bytes, _mm_and_si128(letters, case))),
                words: mask(_mm_or_si128(letters, between(bytes, b'0', b'9'))),
                printed: mask(between(bytes, b'!', b'~')),
                plain: mask(between(bytes, b' ', b'~')),
            }
        }
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    #[inline]
    fn portable(bytes: [u8; 16]) -> Self {
        let [low, high] = bytemuck::cast::<_, [[u8; 8]; 2]>(bytes).map(|half| Half(u64::from_le_bytes(half)));
        let mask = |of: fn(Half) -> u64| Half::mask(of(low)) | Half::mask(of(high)) << 8;
        Self {
            lower: bytemuck::cast([low, high].map(|half| (half.0 | half.letters() >> 2).to_le_bytes())),
            words: mask(|half| half.letters() | half.between(b'0', b'9', 0)),
            printed: mask(|half| half.between(b'!', b'~', 0)),
            plain: mask(|half| half.between(b' ', b'~', 0)),
        }
    }
}

/// Eight bytes at once. Source: Lamport, "Multiple byte processing with full-word instructions", 1975.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[derive(Clone, Copy)]
struct Half(u64);

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Half {
    const ONES: u64 = u64::MAX / 0xFF;
    /// The high bit of each byte: what the methods give for those that are meant.
    const HIGH: u64 = Self::ONES << 7;

    fn letters(self) -> u64 {
        self.between(b'a', b'z', Self::HIGH >> 2)
    }

    /// ASCII bytes that are from `first` to `last` with the bits of `set` set in each.
    #[inline]
    fn between(self, first: u8, last: u8, set: u64) -> u64 {
        let ascii = self.0 & !Self::HIGH | set;
        // No sum reaches the next byte.
        let at_least = |least: u8| ascii + Self::ONES * u64::from(0x80 - least);
        at_least(first) & !at_least(last + 1) & !self.0 & Self::HIGH
    }

    /// A bit for each byte, of its high bit.
    #[inline]
    fn mask(high_bits: u64) -> u16 {
        // Byte `i` of the factor, counted from above, takes bit `8 i` to bit `56 + i`.
        ((high_bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_every_byte_is_at_every_place() {
        for byte in 0..=255_u8 {
            for at in 0..16 {
                for others in [b'a', 0xFF, 0] {
                    let mut bytes = [others; 16];
                    bytes[at] = byte;
                    let ascii = Ascii::new(bytes);
                    assert_eq!(ascii, Ascii::portable(bytes));
                    assert_eq!(ascii.lower, bytes.map(|byte| byte.to_ascii_lowercase()));
                    for (mask, is) in [
                        (ascii.words, byte.is_ascii_alphanumeric()),
                        (ascii.printed, byte.is_ascii_graphic()),
                        (ascii.plain, byte.is_ascii_graphic() || byte == b' '),
                    ] {
                        assert_eq!(mask >> at & 1 == 1, is, "{byte:#x} at {at}");
                    }
                }
            }
        }
    }
}
