//! An instruction set as a value.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, avx2, avx512};
use super::{Kernel, Scalar, Simd};
#[cfg(target_arch = "aarch64")]
use super::{Neon, neon};
use crate::{Error, Result};

/// The levels in ascending order: variant, token and name. Two neighbours may share a name; the first one that the CPU
/// has stands for both.
macro_rules! levels {
    ($($(#[doc = $doc:literal])+ $(#[cfg($condition:meta)])? $variant:ident($token:ty) = $name:literal;)+) => {
        /// An instruction set that this CPU has.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Isa {$(
            $(#[doc = $doc])+
            $(#[cfg($condition)])?
            $variant($token),
        )+}

        impl Isa {
            /// The names of all levels, whatever the CPU.
            const NAMES: &[&str] = &[$($name),+];

            /// All that this CPU has, the best last.
            pub fn available() -> Vec<Self> {
                let mut found = Vec::new();
                $(
                    $(#[cfg($condition)])?
                    found.extend(<$token>::detect().map(Self::$variant));
                )+
                found.dedup_by_key(|isa| isa.name());
                found
            }

            /// The name used by `BERTFAST_ISA`, `isa=` and in logs.
            pub fn name(self) -> &'static str {
                match self {$(
                    $(#[cfg($condition)])?
                    Self::$variant(_) => $name,
                )+}
            }

            /// Run a kernel with this instruction set.
            #[inline]
            pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
                match self {$(
                    $(#[cfg($condition)])?
                    Self::$variant(simd) => enter(simd, kernel),
                )+}
            }
        }
    };
}

levels! {
    /// Baseline code, on every CPU.
    Scalar(Scalar) = "scalar";
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<avx2::Base>) = "avx2";
    /// AVX2 and the 256-bit form of AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni(Avx2<avx2::Vnni>) = "avx2-vnni";
    /// AVX2 and AVX-VNNI, on CPUs without AVX-512.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Avx2<avx2::AvxVnni>) = "avx2-vnni";
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<avx512::Base>) = "avx512";
    /// The same and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512<avx512::Vnni>) = "avx512-vnni";
    /// The same, VNNI and BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512<avx512::Bf16>) = "avx512-bf16";
    /// Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon<neon::Base>) = "neon";
    /// Advanced SIMD and its dot product.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(Neon<neon::Dotprod>) = "neon-dotprod";
}

/// Run a kernel with the lowest level that does all it needs.
#[inline]
fn enter<S: Simd, K: Kernel>(simd: S, kernel: K) -> K::Output {
    if K::F32_ONLY { simd.base().vectorize(kernel) } else { simd.vectorize(kernel) }
}

impl Isa {
    /// Whether it multiplies bf16 with an instruction of its own.
    pub fn has_bf16(self) -> bool {
        struct HasBf16;
        impl Kernel for HasBf16 {
            type Output = bool;
            fn run<S: Simd>(self, _: S) -> bool {
                S::NATIVE_BF16
            }
        }
        self.run(HasBf16)
    }

    /// The best that this CPU has.
    pub fn best() -> Self {
        *Self::available().last().expect("scalar is always there")
    }

    /// The one that is asked for by name, else by the environment variable `BERTFAST_ISA`, else the best.
    ///
    /// # Errors
    /// [`Error::Value`] if this CPU has none of that name.
    pub fn choose(name: Option<&str>) -> Result<Self> {
        let from_environment = std::env::var("BERTFAST_ISA").ok().filter(|value| !value.is_empty());
        let (origin, name) = match (name, &from_environment) {
            (Some(name), _) => ("isa", name),
            (None, Some(name)) => ("BERTFAST_ISA", name.as_str()),
            (None, None) => return Ok(Self::best()),
        };
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names = available.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
            Error::Value(if Self::NAMES.contains(&name) {
                format!("{origin}: this CPU does not have {name}, expected one of {names}")
            } else {
                format!("{origin}: expected one of {names} on this CPU, got {name:?}")
            })
        })
    }

    /// The name of its kernels for products of a type, in logs and `info()`: levels of one width share those of f32.
    pub fn kernel_id(self, dtype: &str) -> String {
        let base = self.name().split_once('-').map_or(self.name(), |(base, _)| base);
        let level = if dtype == "float32" { base } else { self.name() };
        format!("{}-{dtype}-{level}", std::env::consts::ARCH)
    }
}
