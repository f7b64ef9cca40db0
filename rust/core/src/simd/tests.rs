//! Every operation of every level against plain arithmetic.

use super::plain::words;
use super::*;

/// Every method against plain arithmetic, on one instruction set.
struct CheckLanes;

impl Kernel for CheckLanes {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = S::LANES;
        let a: Vec<f32> = (0..n).map(|i| i as f32 - 3.25).collect();
        let b: Vec<f32> = (0..n).map(|i| 2.0 * i as f32 + 0.5).collect();
        let (va, vb) = (s.load(&a), s.load(&b));
        let check = |name: &str, v: S::F32, want: &dyn Fn(usize) -> f32| {
            let mut got = vec![f32::NAN; n];
            s.store(v, &mut got);
            for (i, got) in got.iter().enumerate() {
                assert_eq!(*got, want(i), "{name}, lane {i} of {n}");
            }
        };
        check("splat", s.splat(1.5), &|_| 1.5);
        check("add", s.add(va, vb), &|i| a[i] + b[i]);
        check("sub", s.sub(va, vb), &|i| a[i] - b[i]);
        check("mul", s.mul(va, vb), &|i| a[i] * b[i]);
        check("div", s.div(va, vb), &|i| a[i] / b[i]);
        check("mul_add", s.mul_add(va, vb, va), &|i| a[i] * b[i] + a[i]);
        check("max", s.max(va, s.splat(0.0)), &|i| a[i].max(0.0));
        check("min", s.min(va, s.splat(0.0)), &|i| a[i].min(0.0));
        let none = s.splat(f32::NAN);
        for (name, v) in
            [("max", s.max(va, none)), ("min", s.min(va, none)), ("split_exponent", s.split_exponent(none).0)]
        {
            let mut got = vec![0.0; n];
            s.store(v, &mut got);
            assert!(got.iter().all(|x| x.is_nan()), "{name} of what is no number: {got:?}");
        }
        check("abs", s.abs(va), &|i| a[i].abs());
        for keep in 0..=n {
            check("first", s.first(va, keep), &|i| if i < keep { a[i] } else { 0.0 });
        }
        let t: Vec<f32> = (0..n).map(|i| f32::from_bits(0x4B40_0000 + i as u32)).collect();
        let x: Vec<f32> = (0..n).map(|i| i as f32 * 2.25 - 8.0).collect();
        let (f, whole) = s.split_exponent(s.load(&x));
        check("split_exponent", f, &|i| x[i] - x[i].round_ties_even());
        check("scale", s.scale(vb, whole), &|i| b[i] * x[i].round_ties_even().exp2());
        let table: [f32; 16] = std::array::from_fn(|i| 100.0 - i as f32);
        check("lookup16", s.lookup16(&table, s.load(&t)), &|i| table[i]);
        let high: Vec<f32> = (0..n).map(|i| f32::from_bits(0x4B40_000F - i as u32)).collect();
        check("lookup16", s.lookup16(&table, s.load(&high)), &|i| table[15 - i]);
        assert_eq!(s.reduce_add(va), a.iter().sum::<f32>());
        assert_eq!(s.reduce_max(va), a[n - 1]);
        check_words(s);
        let src: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        let mut dst = vec![-1f32; 16 * 18];
        // SAFETY: both hold 16 rows of 16 values at their strides.
        unsafe { s.transpose16(src.as_ptr(), 20, dst.as_mut_ptr(), 18) };
        for i in 0..16 {
            for j in 0..16 {
                assert_eq!(dst[j * 18 + i], src[i * 20 + j]);
            }
            assert_eq!(dst[i * 18 + 16..i * 18 + 18], [-1.0, -1.0], "writes beside the block");
        }
    }
}

/// The integer and bf16 operations against plain arithmetic.
#[inline(always)]
fn check_words<S: Simd>(s: S) {
    let n = S::LANES;
    // SAFETY: `LANES` is at most 16.
    let load = |words: &[u32; 16]| unsafe { s.load_words(words.as_ptr()) };
    let integers: [u32; 16] = std::array::from_fn(|i| (i as i32 * 1_000_003 - 7_000_000) as u32);
    let mut floats = [0.0; 16];
    s.store(s.to_f32(load(&integers)), &mut floats);
    for i in 0..n {
        assert_eq!(floats[i], integers[i] as i32 as f32);
    }
    assert_eq!(words(s, s.splat_word(0xDEAD_BEEF))[..n], [0xDEAD_BEEF; 16][..n]);
    // Every product of extremes and some in between, of both signs.
    let values = [-127i32, -126, -64, -1, 0, 1, 2, 63, 126, 127];
    let word = |bytes: [i32; 4], offset: i32| u32::from_le_bytes(bytes.map(|x| (x + offset) as u8));
    for shift in 0..10 {
        let pick = |i: usize, j: usize, by: usize| values[(i * by + j * shift + i) % 10];
        let a: [[i32; 4]; 16] = std::array::from_fn(|i| std::array::from_fn(|j| pick(i, j, 3)));
        let b: [[i32; 4]; 16] = std::array::from_fn(|i| std::array::from_fn(|j| pick(i + shift, j, 7)));
        for (a, b) in [(a, b), (a, a), ([[127; 4]; 16], [[-127; 4]; 16]), ([[127; 4]; 16], [[127; 4]; 16])] {
            let sums = s.dot_i8(
                load(&integers),
                load(&a.map(|bytes| word(bytes, S::I8_OFFSET))),
                load(&b.map(|bytes| word(bytes, 0))),
            );
            for (i, got) in words(s, sums).into_iter().enumerate().take(n) {
                let product = |offset: i32| (0..4).map(|j| (a[i][j] + offset) * b[i][j]).sum::<i32>();
                assert_eq!(got as i32, integers[i] as i32 + product(S::I8_OFFSET), "dot_i8, lane {i} of {n}");
            }
        }
    }
    let x: [f32; 16] = std::array::from_fn(|i| (i as f32 - 7.3) * 16.7);
    let y: [f32; 16] = std::array::from_fn(|i| 1.0 / (i as f32 - 3.3));
    let mut bytes = [0u8; 17];
    // SAFETY: room for 16 lanes at most.
    unsafe { s.store_i8(s.load(&x), bytes.as_mut_ptr()) };
    for i in 0..n {
        assert_eq!(i32::from(bytes[i]), (x[i].round_ties_even() as i32 + S::I8_OFFSET) & 255);
    }
    assert_eq!(bytes[n], 0, "store_i8 writes beside its lanes");
    for (ties, want) in [([0.5f32; 16], 0), ([1.5; 16], 2), ([-127.0; 16], -127), ([-2.5; 16], -2)] {
        // SAFETY: as above.
        unsafe { s.store_i8(s.load(&ties), bytes.as_mut_ptr()) };
        assert_eq!(i32::from(bytes[0]), (want + S::I8_OFFSET) & 255);
    }
    let bf16 = |x: f32| u32::from(half::bf16::from_f32(x).to_bits());
    let mut halves = [0u16; 17];
    // SAFETY: room for 16 lanes at most.
    unsafe { s.store_bf16(s.load(&x), halves.as_mut_ptr()) };
    let pairs = words(s, s.pair_bf16(s.load(&x), s.load(&y)));
    for i in 0..n {
        assert_eq!(u32::from(halves[i]), bf16(x[i]));
        assert_eq!(pairs[i], bf16(x[i]) | bf16(y[i]) << 16);
    }
    assert_eq!(halves[n], 0, "store_bf16 writes beside its lanes");
    let a: [u32; 16] = std::array::from_fn(|i| bf16(x[i]) | bf16(y[i]) << 16);
    let b: [u32; 16] = std::array::from_fn(|i| bf16(y[i]) | bf16(x[(i + 1) % n]) << 16);
    let mut sums = [0.0; 16];
    s.store(s.dot_bf16(s.load(&y), load(&a), load(&b)), &mut sums);
    for i in 0..n {
        let value = |bits: u32| f64::from(f32::from_bits(bits << 16));
        let parts = |x: u32| (value(x & 0xFFFF), value(x >> 16));
        let ((a0, a1), (b0, b1)) = (parts(a[i]), parts(b[i]));
        let want = f64::from(y[i]) + a0 * b0 + a1 * b1;
        let size = f64::from(y[i]).abs() + (a0 * b0).abs() + (a1 * b1).abs();
        assert!((f64::from(sums[i]) - want).abs() <= 3e-7 * size, "dot_bf16, lane {i} of {n}");
    }
    let check = |d: usize, v: S::F32| {
        let mut got = [0.0; 16];
        s.store(v, &mut got);
        for i in 0..n {
            let (low, high) = (x[i & !d], x[i | d]);
            assert_eq!(got[i], if i & d == 0 { low + high } else { low - high }, "butterfly {d}, lane {i}");
        }
    };
    check(1, s.butterfly::<1>(s.load(&x)));
    check(2, s.butterfly::<2>(s.load(&x)));
    if n > 4 {
        check(4, s.butterfly::<4>(s.load(&x)));
    }
    if n > 8 {
        check(8, s.butterfly::<8>(s.load(&x)));
    }
}

#[test]
fn every_lane_operation_on_every_isa() {
    for isa in Isa::available() {
        isa.run(CheckLanes);
    }
}

#[test]
fn choose_by_name() {
    for isa in Isa::available() {
        assert_eq!(Isa::choose(Some(isa.name())).unwrap(), isa);
    }
    let message = |name| Isa::choose(Some(name)).unwrap_err().to_string();
    let unknown = message("mmx");
    assert!(
        unknown.starts_with("isa: expected one of scalar") && unknown.ends_with("got \"mmx\""),
        "{unknown}"
    );
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon-dotprod" };
    let missing = message(foreign);
    let want = format!("isa: this CPU does not have {foreign}, expected one of scalar");
    assert!(missing.starts_with(&want), "{missing}");
}

#[test]
fn names_are_distinct_and_the_best_is_last() {
    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    assert_eq!(names[0], "scalar");
    assert_eq!(Isa::best().name(), *names.last().unwrap());
}

/// What level a kernel is run on: lanes, offset of int8, native bf16.
struct Level<const F32_ONLY: bool>;

impl<const F32_ONLY: bool> Kernel for Level<F32_ONLY> {
    const F32_ONLY: bool = F32_ONLY;
    type Output = (usize, i32, bool);

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        (S::LANES, S::I8_OFFSET, S::NATIVE_BF16)
    }
}

#[test]
fn f32_runs_on_the_base_of_a_level() {
    for isa in Isa::available() {
        let (lanes, offset, bf16) = isa.run(Level::<false>);
        assert_eq!(offset, if isa.name().ends_with("-vnni") || bf16 { 128 } else { 0 }, "{}", isa.name());
        assert_eq!(bf16, isa.name().ends_with("-bf16"));
        assert_eq!(isa.run(Level::<true>), (lanes, 0, false), "{}", isa.name());
    }
}
