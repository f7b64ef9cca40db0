//! Packed files: the weights that were written, out of a mapping or of bytes anywhere in memory; and any damage is an
//! error. `tests/encoder/test_packed.py` has the other layouts and the messages.

use proptest::prelude::*;

use super::*;
use crate::encoder::Encoder;

fn config() -> Config {
    let json = r#"{"model_type": "bert", "vocab_size": 7, "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 20, "hidden_act": "gelu", "max_position_embeddings": 5,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12}"#;
    Config::from_json(json).unwrap()
}

/// A checkpoint of the configuration, no two of whose values are alike.
fn checkpoint(config: &Config) -> Checkpoint {
    let wanted = super::super::structure::required(config, &Extras { pooler: true, head: None });
    let values: Vec<Vec<u8>> = wanted
        .iter()
        .enumerate()
        .map(|(i, (_, shape))| {
            let len: usize = shape.iter().product();
            (0..len).flat_map(|j| ((i * 1000 + j) as f32).sin().to_le_bytes()).collect()
        })
        .collect();
    let views = wanted.iter().zip(&values).map(|((name, shape), bytes)| {
        (name, safetensors::tensor::TensorView::new(Kind::F32, shape.clone(), bytes).unwrap())
    });
    Checkpoint::from_bytes("source", safetensors::serialize(views, None).unwrap()).unwrap()
}

/// A packed file in a place of its own, and its bytes.
fn packed(name: &str, dtypes: &[Dtype]) -> (std::path::PathBuf, Vec<u8>) {
    let path = std::env::temp_dir().join(format!("bertfast-{name}-{}", std::process::id()));
    pack(&config(), &checkpoint(&config()), dtypes, &path, Isa::best(), Some(1), None).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (path, bytes)
}

fn region(file: &Checkpoint, dtypes: &[Dtype]) -> Result<(Vec<u32>, bool)> {
    let config = config();
    let weights = Packed::new(&config, file)?.weights(&config, dtypes, None)?;
    let len = Structure::new(&config, dtypes, &Extras { pooler: true, head: None }).len();
    Ok((weights.get(&(0..len)).iter().map(|x| x.to_bits()).collect(), weights.is_mapped()))
}

#[test]
fn mapped_and_moved_weights_are_those_that_were_packed() {
    for (name, dtypes) in [
        ("f32", [Dtype::Float32; 2]),
        ("bf16", [Dtype::BFloat16; 2]),
        ("int8", [Dtype::Int8; 2]),
        ("mixed", [Dtype::Int8, Dtype::BFloat16]),
    ] {
        let (path, bytes) = packed(name, &dtypes);
        let source = checkpoint(&config());
        let config = config();
        let packing = Packing::new(&config, &source, &dtypes, None).unwrap();
        let block = packing.fill(Isa::best(), 1).unwrap();
        let expected: Vec<u32> =
            block.as_slice()[..packing.structure.len()].iter().map(|x| x.to_bits()).collect();
        let mapped = region(&Checkpoint::open(std::slice::from_ref(&path)).unwrap(), &dtypes).unwrap();
        assert_eq!(mapped, (expected.clone(), true), "{name}");
        let moved = region(&Checkpoint::from_bytes("test", bytes).unwrap(), &dtypes).unwrap();
        assert_eq!(moved, (expected, false), "{name}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn bf16_that_becomes_f32_is_a_rounded_f32() {
    let (path, bytes) = packed("rounded", &[Dtype::BFloat16]);
    std::fs::remove_file(path).unwrap();
    let to = [Dtype::Float32; 2];
    let (moved, _) = region(&Checkpoint::from_bytes("test", bytes).unwrap(), &to).unwrap();
    let source = checkpoint(&config());
    let config = config();
    let packing = Packing::new(&config, &source, &to, None).unwrap();
    let block = packing.fill(Isa::best(), 1).unwrap();
    for matrix in &packing.structure.matrices {
        let rounded = matrix.name != "pooler.dense";
        for at in matrix.to.weight.clone() {
            let exact = block.as_slice()[at];
            let want = if rounded { half::bf16::from_f32(exact).to_f32() } else { exact };
            assert_eq!(moved[at], want.to_bits(), "{} at {at}", matrix.name);
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_behind() {
    let path = std::env::temp_dir().join(format!("bertfast-no-such-folder-{}/file", std::process::id()));
    let result = pack(&config(), &checkpoint(&config()), &[Dtype::Int8], &path, Isa::best(), None, None);
    assert!(matches!(result, Err(Error::Io { .. })));
    // A folder is in the way of the file.
    let path = std::env::temp_dir().join(format!("bertfast-in-the-way-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    let result = pack(&config(), &checkpoint(&config()), &[Dtype::Int8], &path, Isa::best(), None, None);
    assert!(matches!(result, Err(Error::Io { .. })));
    assert!(!path.with_extension("part").exists());
    std::fs::remove_dir(path).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_is_an_error_or_does_not_matter(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        number in proptest::option::of((0usize..3, "[0-9]{1,20}|-1|x")),
    ) {
        static FILE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let (path, bytes) = packed("damage", &[Dtype::Int8, Dtype::BFloat16]);
            std::fs::remove_file(path).unwrap();
            bytes
        });
        let mut bytes = FILE.clone();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        if let Some((which, number)) = number {
            // Another number in the metadata; spaces behind the header make up for the length.
            let old = std::str::from_utf8(&bytes[8..header]).unwrap().trim_end().to_owned();
            let key = [r#""panel":"32""#, r#""rotation":"128""#, r#""version":"1""#][which];
            let name = key.split(':').next().unwrap();
            let mut new = old.replace(key, &format!(r#"{name}:"{number}""#)).into_bytes();
            prop_assert!(old.contains(key));
            new.resize((8 + new.len()).next_multiple_of(64) - 8, b' ');
            bytes = [&(new.len() as u64).to_le_bytes()[..], &new, &bytes[header..]].concat();
        }
        for (place, mask) in flips {
            let place = place.index(header);
            bytes[place] ^= mask;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let opened = Checkpoint::from_bytes("test", bytes)
            .and_then(|file| Encoder::open(config(), &file, &[], Isa::best(), Some(1), None));
        match opened {
            Ok(_) => {}
            Err(Error::Checkpoint(_)) => {}
            Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
}
