//! Memory-mapped safetensors as named tensors, readable as f32.
//!
//! A [`Checkpoint`] merges the shards of one model. Names are canonical: the prefix `bert.` (of the classes with a
//! head; `roberta.` and so on) is gone, and the `LayerNorm.gamma`/`LayerNorm.beta` of TensorFlow days are `weight`/`bias`. Nothing is read
//! but the headers until a tensor is copied.
//!
//! # If another process changes a mapped file
//! The weights are mapped, not read, so the file must stay as it is while a checkpoint, or an encoder whose embedding
//! table still lies in it, is alive. Replacing it by renaming another file over it (as package managers and
//! `huggingface_hub` do) is safe: the mapping keeps the old one. Overwriting it in place changes the weights under
//! the reader, and truncating it makes the next read of a lost page end the process (`SIGBUS` on Unix). This is
//! true of every program that maps its weights, `safetensors` itself included.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use safetensors::tensor::Metadata;

use crate::error::{Error, Result};
use crate::family::FAMILIES;

/// Longest header that is parsed, as in the safetensors format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// What a tensor of these files is called here.
///
/// Hugging Face's classes with a head save the encoder under `bert.`, `BertModel` itself without a prefix.
fn canonical(name: &str) -> String {
    let name = FAMILIES.iter().find_map(|family| name.strip_prefix(family.prefix)).unwrap_or(name);
    for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}

/// The element types that can be read as f32 without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl Dtype {
    fn from_file(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }
}

/// The bytes of one shard.
enum Bytes {
    Mapped(Arc<Mmap>),
    Owned(Vec<u8>),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// One named tensor of a [`Checkpoint`]; keeps the mapping alive on its own.
///
/// Elements are little-endian and row-major, and may lie at any address.
#[derive(Clone)]
pub struct Tensor {
    bytes: Arc<Bytes>,
    /// Where the elements are in `bytes`: checked against its length when the shard was opened.
    range: Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
    name: String,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}, {:?}, {})", self.name, self.dtype, Shape(&self.shape))
    }
}

impl Tensor {
    /// The name in the file, not the canonical one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type in the file.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Extents; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.range.len() / self.dtype.size()
    }

    /// All elements as they are in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes.as_slice()[self.range.clone()]
    }

    /// Copies all elements.
    ///
    /// # Panics
    /// If `out` does not have exactly [`numel`](Self::numel) elements.
    pub fn copy_to_f32(&self, out: &mut [f32]) {
        self.copy_range_to_f32(0..self.numel(), out);
    }

    /// Copies row `row` of the first dimension.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as long as a row.
    pub fn row_to_f32(&self, row: usize, out: &mut [f32]) {
        let width: usize = self.shape[1..].iter().product();
        assert!(row < self.shape[0], "row {row} of {self:?}");
        self.copy_range_to_f32(row * width..(row + 1) * width, out);
    }

    fn copy_range_to_f32(&self, elements: Range<usize>, out: &mut [f32]) {
        assert_eq!(elements.len(), out.len(), "elements of {self:?} and of the output");
        let size = self.dtype.size();
        let bytes = &self.bytes()[elements.start * size..elements.end * size];
        match self.dtype {
            Dtype::F32 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            Dtype::BF16 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                }
            }
            // Through an aligned buffer, because the conversion of a whole slice uses the CPU's own instruction.
            Dtype::F16 => {
                let mut buffer = [f16::ZERO; 256];
                for (out, bytes) in out.chunks_mut(256).zip(bytes.chunks(512)) {
                    for (half, bytes) in buffer.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *half = f16::from_le_bytes(*bytes);
                    }
                    buffer[..out.len()].convert_to_f32_slice(out);
                }
            }
        }
    }

    /// Tells the system that the pages which hold only this tensor are no longer needed in memory.
    ///
    /// Best effort: the tensor stays readable (its pages are mapped again from the file), and on systems without
    /// `madvise` nothing happens.
    pub fn release_pages(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &*self.bytes {
            // SAFETY: sysconf reads a constant of the system; a negative result (unknown) fails the conversion below.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let Ok(page @ 1..) = usize::try_from(page) else { return };
            // The mapping starts on a page boundary, so offsets in it are aligned as addresses are.
            let start = self.range.start.next_multiple_of(page);
            let end = self.range.end / page * page;
            if start < end {
                // SAFETY: the mapping is read-only and backed by a file, so MADV_DONTNEED changes no byte that a
                // reader can see: the next access reads the page from the file again. `start..end` is inside it.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
            }
        }
    }
}

/// A shape in messages: `(2, 7)`, `(7,)`, `()`.
pub struct Shape<'a>(pub &'a [usize]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => write!(f, "({one},)"),
            all => write!(f, "({})", all.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// What a header says about one tensor.
struct Entry {
    /// Index in `Checkpoint::shards`.
    shard: usize,
    /// Name in the file.
    name: String,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// The tensors of one model, from one or several safetensors files.
pub struct Checkpoint {
    shards: Vec<(PathBuf, Arc<Bytes>)>,
    /// By canonical name.
    entries: BTreeMap<String, Entry>,
    /// What the headers say beside the tensors.
    metadata: HashMap<String, String>,
}

/// A tensor of any dtype, as it is in its file.
#[derive(Debug)]
pub struct Raw<'a> {
    /// As the file says.
    pub dtype: safetensors::Dtype,
    /// Extents.
    pub shape: &'a [usize],
    /// Where it is in the file: inside of it.
    pub range: Range<usize>,
    /// Its elements.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.files(), self.entries.len())
    }
}

impl Checkpoint {
    /// Maps the files and reads their headers.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened; [`Error::Checkpoint`], naming the file, if one is no safetensors
    /// file or holds a name twice or that another one holds too.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut checkpoint = Self::empty();
        for path in paths {
            checkpoint.add(path, map(path)?)?;
        }
        Ok(checkpoint)
    }

    /// The same for the content of a file that is in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self> {
        let mut checkpoint = Self::empty();
        checkpoint.add(Path::new(name), Bytes::Owned(bytes))?;
        Ok(checkpoint)
    }

    fn empty() -> Self {
        Self { shards: Vec::new(), entries: BTreeMap::new(), metadata: HashMap::new() }
    }

    fn add(&mut self, path: &Path, bytes: Bytes) -> Result<()> {
        let (data_start, metadata) = read_header(path, bytes.as_slice())?;
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        let shard = self.shards.len();
        self.shards.push((path.to_path_buf(), Arc::new(bytes)));
        for (name, info) in metadata.tensors() {
            // Both ends are below the file's length: `read_header` compared the last offset with it.
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            let entry =
                Entry { shard, name: name.clone(), dtype: info.dtype, shape: info.shape.clone(), range };
            if let Some(other) = self.entries.insert(canonical(&name), entry) {
                return Err(damaged(
                    path,
                    format!(
                        "tensor {name} is also in {} as {}",
                        self.shards[other.shard].0.display(),
                        other.name
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What the headers say beside the tensors.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// The mapping of the file, if it is one file and mapped.
    pub fn mapping(&self) -> Option<&Arc<Mmap>> {
        match &self.shards[..] {
            [(_, bytes)] => match &**bytes {
                Bytes::Mapped(map) => Some(map),
                Bytes::Owned(_) => None,
            },
            _ => None,
        }
    }

    /// The tensor of this canonical name as it is in its file, of whatever dtype.
    pub fn raw(&self, name: &str) -> Option<Raw<'_>> {
        let entry = self.entries.get(name)?;
        let bytes = &self.shards[entry.shard].1.as_slice()[entry.range.clone()];
        Some(Raw { dtype: entry.dtype, shape: &entry.shape, range: entry.range.clone(), bytes })
    }

    /// All canonical names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this canonical name, of any dtype.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The tensor of this canonical name, if there is one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is there with a dtype that cannot be read as f32.
    pub fn get(&self, name: &str) -> Result<Option<Tensor>> {
        self.entries.get(name).map(|entry| self.tensor(entry).map_err(|e| self.unusable(&[e]))).transpose()
    }

    /// The tensors of these canonical names and shapes, in this order.
    ///
    /// # Errors
    /// One [`Error::Checkpoint`] that lists all that are missing, misshapen or of an unreadable dtype.
    pub fn require(&self, wanted: &[(String, Vec<usize>)]) -> Result<Vec<Tensor>> {
        let mut found = Vec::with_capacity(wanted.len());
        let mut problems = Vec::new();
        for (name, shape) in wanted {
            match self.entries.get(name) {
                None => problems.push(format!("{name} is missing, expected shape {}", Shape(shape))),
                Some(entry) if entry.shape != *shape => problems.push(format!(
                    "{}: expected shape {}, found {}",
                    entry.name,
                    Shape(shape),
                    Shape(&entry.shape)
                )),
                Some(entry) => match self.tensor(entry) {
                    Ok(tensor) => found.push(tensor),
                    Err(problem) => problems.push(problem),
                },
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(self.unusable(&problems)) }
    }

    fn tensor(&self, entry: &Entry) -> Result<Tensor, String> {
        let dtype = Dtype::from_file(entry.dtype).ok_or_else(|| {
            format!("{}: expected dtype F32, F16 or BF16, found {}", entry.name, entry.dtype)
        })?;
        Ok(Tensor {
            bytes: Arc::clone(&self.shards[entry.shard].1),
            range: entry.range.clone(),
            dtype,
            shape: entry.shape.clone(),
            name: entry.name.clone(),
        })
    }

    fn files(&self) -> String {
        self.shards.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// An error about the file.
    pub fn error(&self, why: impl fmt::Display) -> Error {
        Error::Checkpoint(format!("{}: {why}", self.files()))
    }

    /// An error about some of its tensors.
    pub fn unusable(&self, problems: &[String]) -> Error {
        let (count, s) = (problems.len(), if problems.len() == 1 { "" } else { "s" });
        Error::Checkpoint(format!(
            "{}: {count} unusable tensor{s}:\n  {}",
            self.files(),
            problems.join("\n  ")
        ))
    }
}

fn damaged(path: &Path, why: impl fmt::Display) -> Error {
    Error::Checkpoint(format!("{}: {why}", path.display()))
}

fn map(path: &Path) -> Result<Bytes> {
    // Asked before opening: opening a named pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
        return Err(damaged(path, "not a regular file"));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Err(damaged(path, "the file is empty"));
    }
    // SAFETY: the mapping is read-only, and lives as long as every slice of it. The promise that the
    // file does not change meanwhile is the user's (see the module's documentation): a truncation by another process
    // ends this one with SIGBUS at the next read of a lost page, it cannot corrupt memory.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
    Ok(Bytes::Mapped(Arc::new(map)))
}

/// Where the data starts, and the header.
///
/// The `safetensors` crate parses the JSON and checks that the tensors lie end to end with the sizes that their
/// shapes give. The sum with the header's length is done here, with checks: the crate's own sum overflows
/// (a panic where overflow checks are on) for offsets near 2^64.
fn read_header(path: &Path, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(damaged(path, format!("{} bytes are too short for a safetensors file", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        return Err(damaged(
            path,
            format!(
                "not a safetensors file, or cut off: a header of {length} bytes in a file of {}",
                bytes.len()
            ),
        ));
    }
    let (header, data) = rest.split_at(length as usize);
    let header =
        std::str::from_utf8(header).map_err(|e| damaged(path, format!("the header is not UTF-8: {e}")))?;
    let metadata: Metadata =
        serde_json::from_str(header).map_err(|e| damaged(path, format!("the header is damaged: {e}")))?;
    if metadata.data_len() != data.len() {
        return Err(damaged(
            path,
            format!(
                "cut off or damaged: expected {} bytes of tensors, found {}",
                metadata.data_len(),
                data.len()
            ),
        ));
    }
    Ok((bytes.len() - data.len(), metadata))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
