//! What tensors hold: f32, or bf16 as its 16 bits. All arithmetic is f32.

/// A number in a tensor.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The number.
    fn to_f32(self) -> f32;
    /// The nearest one, ties to even.
    fn from_f32(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
}

/// bf16.
impl Element for u16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        // Adding to the bits of something that is no number may make it one.
        (if x.is_nan() { bits | 0x40_0000 } else { rounded } >> 16) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_to_the_nearest_ties_to_even() {
        for (x, bits) in [
            (1.0f32, 0x3f80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::INFINITY, 0x7f80),
            (-0.0, 0x8000),
            (f32::MAX, 0x7f80),
        ] {
            assert_eq!(<u16 as Element>::from_f32(x), bits, "{x}");
        }
        assert!(<u16 as Element>::from_f32(f32::from_bits(0x7fff_ffff)).to_f32().is_nan());
        assert_eq!(0xc040u16.to_f32(), -3.0);
    }
}
