use proptest::prelude::*;

use super::*;

/// A file with this header (as it stands, valid or not) and this much data.
fn raw(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A valid file of f32 tensors.
fn f32_file(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let mut header = Vec::new();
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        header.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}}"#,
            data.len()
        ));
    }
    raw(format!("{{{}}}", header.join(",")).as_bytes(), &data)
}

fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

fn parse(bytes: Vec<u8>) -> Result<Checkpoint> {
    Checkpoint::from_bytes("test.safetensors", bytes)
}

fn message<T: fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Checkpoint(message)) => message,
        other => panic!("expected Error::Checkpoint, got {other:?}"),
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut out = vec![f32::NAN; tensor.numel()];
    tensor.copy_to_f32(&mut out);
    out
}

#[test]
fn names_are_canonical_and_originals_are_kept() {
    let checkpoint = parse(f32_file(&[
        ("bert.embeddings.LayerNorm.gamma", &[1], &[1.0]),
        ("bert.embeddings.LayerNorm.beta", &[1], &[2.0]),
        ("cls.predictions.bias", &[1], &[3.0]),
        ("gamma", &[1], &[4.0]),
    ]))
    .unwrap();
    let names: Vec<_> = checkpoint.names().collect();
    assert_eq!(
        names,
        ["cls.predictions.bias", "embeddings.LayerNorm.bias", "embeddings.LayerNorm.weight", "gamma"]
    );
    let weight = checkpoint.get("embeddings.LayerNorm.weight").unwrap().unwrap();
    assert_eq!((weight.name(), values(&weight)), ("bert.embeddings.LayerNorm.gamma", vec![1.0]));
    assert!(checkpoint.get("bert.embeddings.LayerNorm.gamma").unwrap().is_none());
    assert!(checkpoint.contains("gamma") && !checkpoint.contains("beta"));
}

#[test]
fn rows_and_shapes() {
    let checkpoint = parse(f32_file(&[
        ("table", &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("scalar", &[], &[7.0]),
        ("empty", &[0, 1 << 60], &[]),
    ]))
    .unwrap();
    let table = checkpoint.get("table").unwrap().unwrap();
    let mut row = [0.0; 2];
    table.row_to_f32(2, &mut row);
    assert_eq!((row, table.shape()), ([4.0, 5.0], &[3, 2][..]));
    assert_eq!(values(&checkpoint.get("scalar").unwrap().unwrap()), [7.0]);
    assert_eq!(checkpoint.get("empty").unwrap().unwrap().numel(), 0);
}

#[test]
fn half_precision_is_read_at_any_alignment() {
    // All finite and infinite 16-bit patterns, behind one byte of padding so that nothing is aligned.
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let data: Vec<u8> = std::iter::once(0).chain(bits.iter().flat_map(|b| b.to_le_bytes())).collect();
    for (name, convert) in [
        ("F16", (|b| f16::from_bits(b).to_f32()) as fn(u16) -> f32),
        ("BF16", |b| half::bf16::from_bits(b).to_f32()),
    ] {
        let header = format!(
            r#"{{"pad":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},
                "w":{{"dtype":"{name}","shape":[256,256],"data_offsets":[1,131073]}}}}"#
        );
        for spaces in 0..4 {
            let header = header.clone() + &" ".repeat(spaces);
            let tensor = parse(raw(header.as_bytes(), &data)).unwrap().get("w").unwrap().unwrap();
            for (&bits, got) in bits.iter().zip(values(&tensor)) {
                let want = convert(bits);
                assert!(got == want || (got.is_nan() && want.is_nan()), "{name} {bits:#x}: {got} {want}");
            }
            let mut row = [0.0; 256];
            tensor.row_to_f32(60, &mut row);
            assert_eq!(
                row.map(f32::to_bits),
                std::array::from_fn(|i| convert(60 * 256 + i as u16).to_bits())
            );
        }
    }
}

#[test]
fn require_lists_everything_at_once() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "bert.b":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},
        "c":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},
        "unused":{"dtype":"BOOL","shape":[1],"data_offsets":[24,25]}}"#;
    let checkpoint = parse(raw(header.as_bytes(), &[0; 25])).unwrap();
    let want = |list: &[(&str, &[usize])]| {
        let list: Vec<_> = list.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
        checkpoint.require(&list)
    };
    let found = want(&[("b", &[1, 2]), ("a", &[2])]).unwrap();
    assert_eq!(found.iter().map(Tensor::name).collect::<Vec<_>>(), ["bert.b", "a"]);
    assert_eq!(
        message(want(&[("a", &[3]), ("gone", &[4, 5]), ("b", &[1, 2]), ("c", &[1]), ("lost", &[])])),
        "test.safetensors: 4 unusable tensors:\n  a: expected shape (3,), found (2,)\n  gone is missing, \
         expected shape (4, 5)\n  c: expected dtype F32, F16 or BF16, found I64\n  lost is missing, expected shape ()"
    );
    assert_eq!(
        message(checkpoint.get("c")),
        "test.safetensors: 1 unusable tensor:\n  c: expected dtype F32, F16 or BF16, found I64"
    );
}

#[test]
fn hostile_files_are_errors_that_name_the_file() {
    let good = f32_file(&[("w", &[2], &[1.0, 2.0])]);
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{first}}},
                "b":{{"dtype":"U8","shape":[4],"data_offsets":{second}}}}}"#
        )
    };
    // Tensors of almost 2^61 bytes each, up to an end of 2^64 - 1: adding the header's length to it overflows.
    let size = (1u64 << 61) - 1;
    let ends: Vec<u64> = (1..=8).map(|i| i * size).chain([u64::MAX]).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let entries: Vec<_> = starts
        .zip(&ends)
        .map(|(start, end)| {
            format!(r#""t{end}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
        })
        .collect();
    let endless = format!("{{{}}}", entries.join(","));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("seven bytes", vec![0; 7]),
        ("no header", raw(b"", b"")),
        ("header length 2^62", [&(1u64 << 62).to_le_bytes()[..], b"{}"].concat()),
        ("header length 2^64 - 1", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        ("header longer than the file", [&3u64.to_le_bytes()[..], b"{}"].concat()),
        ("truncated data", good[..good.len() - 1].to_vec()),
        ("truncated header", good[..20].to_vec()),
        ("trailing data", [&good[..], b"x"].concat()),
        ("not UTF-8", raw(b"{\"\xff\":1}", b"")),
        ("not JSON", raw(b"{", b"")),
        ("not an object", raw(b"[]", b"")),
        ("deep nesting", raw("[".repeat(100_000).as_bytes(), b"")),
        ("overlapping", raw(two("[0,4]", "[2,6]").as_bytes(), &[0; 8])),
        ("same range", raw(two("[0,4]", "[0,4]").as_bytes(), &[0; 4])),
        ("a hole", raw(two("[0,4]", "[6,10]").as_bytes(), &[0; 10])),
        ("out of range", raw(two("[0,4]", "[4,8]").as_bytes(), &[0; 4])),
        ("reversed", raw(two("[4,0]", "[4,8]").as_bytes(), &[0; 8])),
        ("negative offset", raw(one("F32", "[1]", "[-4,0]").as_bytes(), &[0; 4])),
        ("offset over 2^64", raw(one("F32", "[1]", "[0,18446744073709551620]").as_bytes(), &[0; 4])),
        ("shape of 2^60", raw(one("F32", "[1152921504606846976]", "[0,4]").as_bytes(), &[0; 4])),
        (
            "shape product 2^120",
            raw(one("F32", "[1152921504606846976,1152921504606846976]", "[0,0]").as_bytes(), b""),
        ),
        ("shape times size wraps to 0", raw(one("F32", "[4611686018427387904]", "[0,0]").as_bytes(), b"")),
        ("end at 2^64 - 1", raw(endless.as_bytes(), b"")),
        ("negative extent", raw(one("F32", "[-1]", "[0,4]").as_bytes(), &[0; 4])),
        ("unknown dtype", raw(one("F33", "[1]", "[0,4]").as_bytes(), &[0; 4])),
        ("size and shape differ", raw(one("F32", "[2]", "[0,4]").as_bytes(), &[0; 4])),
        ("two canonical names", f32_file(&[("bert.w", &[1], &[1.0]), ("w", &[1], &[1.0])])),
    ];
    for (case, bytes) in cases {
        let message = std::panic::catch_unwind(|| message(parse(bytes))).unwrap_or_else(|_| panic!("{case}"));
        assert!(message.starts_with("test.safetensors: "), "{case}: {message}");
    }
}

/// A folder of files that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bertfast-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn shards_are_merged_and_duplicates_refused() {
    let folder = Folder::new("shards");
    let first = folder.write("1.safetensors", &f32_file(&[("a", &[1], &[1.0])]));
    let second = folder.write("2.safetensors", &f32_file(&[("b", &[1], &[2.0])]));
    let third = folder.write("3.safetensors", &f32_file(&[("bert.a", &[1], &[3.0])]));
    let checkpoint = Checkpoint::open(&[first.clone(), second.clone()]).unwrap();
    let tensors = checkpoint.require(&[("b".into(), vec![1]), ("a".into(), vec![1])]).unwrap();
    drop(checkpoint);
    assert_eq!(tensors.iter().flat_map(values).collect::<Vec<_>>(), [2.0, 1.0]);
    let message = message(Checkpoint::open(&[first, second, third]));
    assert!(
        message.contains("3.safetensors: tensor bert.a is also in ") && message.contains("1.safetensors")
    );
}

#[test]
fn what_is_not_a_readable_file() {
    let folder = Folder::new("files");
    match Checkpoint::open(&[folder.0.join("missing.safetensors")]) {
        Err(Error::Io { path, source }) => {
            assert!(path.ends_with("missing.safetensors") && source.kind() == std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
    assert!(message(Checkpoint::open(&[folder.write("empty", b"")])).ends_with("empty: the file is empty"));
    assert!(message(Checkpoint::open(std::slice::from_ref(&folder.0))).ends_with("not a regular file"));
}

#[cfg(unix)]
#[test]
fn a_named_pipe_does_not_hang() {
    let folder = Folder::new("pipe");
    let path = folder.0.join("pipe");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: `name` is a NUL-terminated string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(message(Checkpoint::open(&[path])).ends_with("not a regular file"));
}

#[cfg(target_os = "linux")]
#[test]
fn released_pages_leave_memory_and_stay_readable() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(2).unwrap().parse::<usize>().unwrap() * 4096
    };
    let folder = Folder::new("release");
    let numbers: Vec<f32> = (0..8 << 20).map(|i| i as f32).collect();
    let path = folder
        .write("w", &f32_file(&[("a", &[1], &[0.5]), ("w", &[8 << 20], &numbers), ("z", &[1], &[0.5])]));
    let tensor = Checkpoint::open(&[path]).unwrap().get("w").unwrap().unwrap();
    assert_eq!(values(&tensor), numbers);
    let before = resident();
    tensor.release_pages();
    let after = resident();
    // Other tests run at the same time; 32 MB of file pages stand out all the same.
    assert!(after + (24 << 20) < before, "{before} -> {after}");
    assert_eq!(values(&tensor), numbers);
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(bytes);
    }

    #[test]
    fn random_headers_do_not_panic(header in r#"[{}\[\]",:a-z0-9_FIBU\\]{0,80}"#, data in 0usize..16) {
        let _ = parse(raw(header.as_bytes(), &vec![0; data]));
    }

    #[test]
    fn random_offsets_do_not_panic(
        start in any::<u64>(), end in any::<u64>(), shape in prop::collection::vec(any::<u64>(), 0..4),
        dtype in prop::sample::select(vec!["F32", "F4", "BF16", "U64"]), data in 0usize..64,
    ) {
        let header = one(dtype, &format!("{shape:?}"), &format!("[{start},{end}]"));
        let _ = parse(raw(header.as_bytes(), &vec![0; data]));
    }

    /// A damaged file is an error, or tensors that can be read whole.
    #[test]
    fn mutated_files_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = f32_file(&[("bert.a", &[2, 2], &[1.0; 4]), ("b.LayerNorm.gamma", &[3], &[2.0; 3])]);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(checkpoint) = parse(bytes) {
            for name in checkpoint.names() {
                if let Ok(Some(tensor)) = checkpoint.get(name) {
                    let _ = values(&tensor);
                    tensor.release_pages();
                }
            }
        }
    }
}
