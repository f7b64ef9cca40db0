//! Packed weights in a file: one safetensors file that is mapped and used as it lies there.
//!
//! The tensors are the parts of the packed region in its order, and behind them the word embeddings as the source had
//! them. A matrix is `[n / panel][k / group][panel][group]`: panels of columns, in which `group` terms of the sum that
//! one instruction multiplies lie together. Rows and columns are padded with zeros to whole panels, those of queries,
//! keys and values head by head; the factors and rotations of this crate's kernels are in the values. The metadata
//! describe this in numbers:
//!
//! | key | value |
//! | --- | --- |
//! | `format` | `bertfast` |
//! | `version` | `1`: what is said here |
//! | `panel` | columns of a panel |
//! | `rotation` | the largest block of the rotation of int8 inputs |
//! | `layer_dtypes` | the type of each layer's matrices, with commas between them |
//! | `head` | the task of the head behind the rest, if there is one |
//! | `num_labels` | how many outputs it has |
//! | `bertfast` | the version that wrote the file |
//!
//! A file whose layout is the kernels' own is mapped without a copy, so processes share its pages. With other numbers
//! (and where bf16 is missing, which becomes f32) the values are moved to where they belong while the file is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype as Kind;
use serde_json::json;

use super::extras::{Extras, HeadPlan, head_for};
use super::packing::Packing;
use super::structure::{self, Groups, Matrix, Structure, Table};
use super::weights::Weights;
use crate::checkpoint::{Checkpoint, Raw, Shape};
use crate::config::Config;
use crate::head::Task;
use crate::memory::{Block, Region};
use crate::ops::convert::MAX_ROTATION;
use crate::ops::{Dtype, PANEL};
use crate::simd::Isa;
use crate::threads::{Pool, thread_limit};
use crate::{Error, Result};

const FORMAT: &str = "bertfast";
const VERSION: &str = "1";

/// Bytes to which every tensor is aligned in the file.
const ALIGN: usize = 64;

/// A tensor of the file.
struct Piece {
    name: String,
    kind: Kind,
    shape: Vec<usize>,
    /// Where it is in the region.
    place: Range<usize>,
}

/// What a matrix's words are in the file.
fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Float32 => Kind::F32,
        Dtype::BFloat16 => Kind::BF16,
        Dtype::Int8 => Kind::I8,
    }
}

/// Everything of the region, in its order.
fn pieces(structure: &Structure) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for Matrix { name, to, columns, sum, .. } in &structure.matrices {
        let group = to.dtype.per_word();
        let mut piece = |suffix: &str, kind, shape: &[usize], place: &Range<usize>| {
            if !place.is_empty() {
                let name = format!("{name}.{suffix}");
                pieces.push(Piece { name, kind, shape: shape.to_vec(), place: place.clone() });
            }
        };
        let shape = [columns.len() / PANEL, sum.len() / group, PANEL, group];
        piece("weight", kind_of(to.dtype), &shape, &to.weight);
        piece("bias", Kind::F32, &[columns.len()], &to.bias);
        piece("weight_scale", Kind::F32, &[columns.len()], &to.scales);
        piece("weight_offset", Kind::I32, &[columns.len()], &to.offsets);
    }
    for Table { name, to, rows, width } in &structure.tables {
        let shape = rows.iter().copied().chain([width.len()]).collect();
        pieces.push(Piece { name: name.clone(), kind: Kind::F32, shape, place: to.clone() });
    }
    pieces.sort_by_key(|piece| piece.place.start);
    pieces
}

/// Pack a checkpoint into a file, with the type of each layer's matrices, whether or not `isa` multiplies them, and the
/// head for a task.
///
/// # Errors
/// [`Error::Checkpoint`] for tensors that are missing or misshapen, [`Error::Value`] for another number of types,
/// [`Error::Io`] if the file cannot be written.
pub fn pack(
    config: &Config,
    checkpoint: &Checkpoint,
    dtypes: &[Dtype],
    path: &Path,
    isa: Isa,
    threads: Option<usize>,
    task: Option<Task>,
) -> Result<()> {
    let threads = thread_limit(threads)?.unwrap_or_else(|| Pool::global().size());
    let dtypes = super::one_for_each(dtypes, config.num_hidden_groups)?;
    let packing = Packing::new(config, checkpoint, &dtypes, task)?;
    let block = packing.fill(isa, threads)?;
    let pieces = pieces(&packing.structure);
    let words = packing.words();
    let (mut header, mut end) = (BTreeMap::new(), 0);
    for Piece { name, kind, shape, place } in &pieces {
        // Parts of whole panels follow each other without gaps, as safetensors wants it.
        assert_eq!(place.start * size_of::<f32>(), end);
        let start = end;
        end = place.end * size_of::<f32>();
        header.insert(
            name.clone(),
            json!({"dtype": kind.to_string(), "shape": shape, "data_offsets": [start, end]}),
        );
    }
    let offsets = [end, end + words.bytes().len()];
    let kind = format!("{:?}", words.dtype());
    header.insert(
        structure::words(config),
        json!({"dtype": kind, "shape": words.shape(), "data_offsets": offsets}),
    );
    let names: Vec<_> = dtypes.iter().map(|dtype| dtype.name()).collect();
    let mut metadata = json!({
        "format": FORMAT,
        "version": VERSION,
        "panel": PANEL.to_string(),
        "rotation": MAX_ROTATION.to_string(),
        "layer_dtypes": names.join(","),
        "bertfast": env!("CARGO_PKG_VERSION"),
    });
    if let Some(head) = &packing.structure.head {
        metadata["head"] = head.plan.head.task.name().into();
        metadata["num_labels"] = head.plan.outputs.to_string().into();
    }
    header.insert("__metadata__".to_owned(), metadata);
    let mut header = serde_json::to_vec(&header).expect("strings and numbers");
    header.resize((8 + header.len()).next_multiple_of(ALIGN) - 8, b' ');
    let values = &block.as_slice()[..packing.structure.len()];
    let parts: [&[u8]; 4] =
        [&(header.len() as u64).to_le_bytes(), &header, bytemuck::cast_slice(values), words.bytes()];
    write(path, &parts).map_err(Error::io(path))
}

/// Write a file whole or not at all. One that was there is replaced, not changed: somebody may have mapped it.
fn write(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let result = File::create(&part).and_then(|mut file| {
        parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()
    });
    let result = result.and_then(|()| std::fs::rename(&part, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result
}

/// A packed file, its metadata read.
pub struct Packed<'a> {
    file: &'a Checkpoint,
    panel: usize,
    /// The types of the layers' matrices in the file.
    pub dtypes: Vec<Dtype>,
}

impl<'a> Packed<'a> {
    /// Read what the metadata say.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is no packed file, or one that this version cannot read.
    pub fn new(config: &Config, file: &'a Checkpoint) -> Result<Self> {
        let value = |key: &str| file.metadata().get(key).map(String::as_str);
        if value("format") != Some(FORMAT) {
            return Err(
                file.error("not a file that bertfast packed: its metadata has no format \"bertfast\"")
            );
        }
        if value("version") != Some(VERSION) {
            let found = value("version").unwrap_or("none");
            return Err(file.error(format!(
                "expected a layout of version {VERSION}, found {found:?}: pack the model again with this version \
                 of bertfast"
            )));
        }
        let number = |key: &str, known: &dyn Fn(usize) -> bool, expected: &str| {
            let found = value(key).unwrap_or("none");
            let number = found.parse().ok().filter(|number| known(*number));
            number.ok_or_else(|| file.error(format!("{key}: expected {expected}, found {found:?}")))
        };
        let panel = number("panel", &|n| (1..=4096).contains(&n), "1 to 4096 columns")?;
        number("rotation", &|n| n == MAX_ROTATION, &format!("blocks of {MAX_ROTATION}"))?;
        let names: Vec<&str> = value("layer_dtypes").unwrap_or("").split(',').collect();
        let layers = config.num_hidden_groups;
        let dtypes = names.iter().map(|name| Dtype::from_name(name)).collect::<Result<Vec<_>>>();
        let dtypes = dtypes.ok().filter(|dtypes| dtypes.len() == layers).ok_or_else(|| {
            file.error(format!("layer_dtypes: expected a dtype for each of {layers} layers, found {names:?}"))
        })?;
        Ok(Self { file, panel, dtypes })
    }

    /// The type that the file is called by: that of its least exact layer.
    pub fn dtype(&self) -> Dtype {
        self.dtypes.iter().copied().max_by_key(|dtype| dtype.per_word()).unwrap_or(Dtype::Float32)
    }

    /// Whether it is what was asked for: one of `wanted`, or anything if that is empty.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming what it holds.
    pub fn check_dtype(&self, wanted: &[Dtype]) -> Result<()> {
        let own = self.dtype();
        if wanted.is_empty() || wanted.contains(&own) {
            return Ok(());
        }
        let others: Vec<_> = (0..self.dtypes.len()).filter(|layer| self.dtypes[*layer] != own).collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            let list =
                others.iter().map(|i| format!("{i} as {}", self.dtypes[*i].name())).collect::<Vec<_>>();
            format!(" (layers {})", list.join(", "))
        };
        let asked: Vec<_> = wanted.iter().map(|dtype| dtype.name()).collect();
        Err(self.file.error(format!(
            "dtype: this model is packed as {}{others}, not as {}: ask for \"auto\" or {:?}, or open the folder that \
             it was made from",
            own.name(),
            asked.join(" or "),
            own.name()
        )))
    }

    /// What the file has besides the layers, and the head for a task.
    fn extras(&self, config: &Config, task: Option<Task>) -> Result<Extras> {
        let extras = Extras::of(config, self.file, None)?;
        let Some(task) = task else { return Ok(extras) };
        let head = head_for(config, task)?;
        let value = |key: &str| self.file.metadata().get(key).map(String::as_str);
        let found = value("head").unwrap_or("none");
        if found != task.name() {
            let asked = task.name();
            return Err(self
                .file
                .error(format!("head: expected {asked:?}, this file was packed with {found:?}")));
        }
        let saved = || value("num_labels").and_then(|value| value.parse().ok());
        let outputs = task.labels().known(config.vocab_size).or_else(saved).unwrap_or(0);
        // More than there may be tokens: the file would have to be larger than any is.
        if !(1..=i32::MAX as usize).contains(&outputs) {
            return Err(self.file.error("num_labels: expected how many outputs the head has"));
        }
        let plan = HeadPlan { head, outputs, weight: String::new(), bias: String::new() };
        Ok(Extras { pooler: extras.pooler || plan.has_pooler(config), head: Some(plan) })
    }

    /// The weights, with these types of the layers' matrices: the file's own, or f32 in place of bf16.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] listing every tensor that is missing, misshapen, of another dtype or not aligned,
    /// [`Error::Value`] for no memory or a task that the family has no head for.
    pub fn weights(&self, config: &Config, dtypes: &[Dtype], task: Option<Task>) -> Result<Weights> {
        let file = self.file;
        let extras = self.extras(config, task)?;
        let saved = Structure::new(config, &self.dtypes, &extras);
        self.check(&saved)?;
        let words =
            file.require(&[(structure::words(config), vec![config.vocab_size, config.embedding_size])])?;
        let [words] = <[_; 1]>::try_from(words).expect("one was asked for");
        let (region, structure) = match self.mapped(&saved).filter(|_| dtypes == self.dtypes) {
            Some(region) => (region, saved),
            None => {
                let structure = Structure::new(config, dtypes, &extras);
                (Region::Owned(Arc::new(self.moved(&structure)?)), structure)
            }
        };
        let known: Vec<_> = pieces(&structure).into_iter().map(|piece| piece.name).collect();
        let is_known =
            |name: &str| name == structure::words(config) || known.iter().any(|known| known == name);
        let unused = file.names().filter(|name| !is_known(name));
        Ok(Weights::new(region, config, structure, words, unused.map(str::to_owned).collect()))
    }

    /// What a matrix's extents are in this file.
    fn groups(&self, groups: Groups) -> Groups {
        groups.in_panels_of(self.panel)
    }

    /// Whether all tensors of the plan are there as they should be.
    fn check(&self, saved: &Structure) -> Result<()> {
        let mut problems = Vec::new();
        let mut check = |name: String, kind: Kind, shape: &dyn Fn(&[usize]) -> Vec<usize>| {
            let Some(raw) = self.file.raw(&name) else {
                problems.push(format!("{name} is missing"));
                return;
            };
            let expected = shape(raw.shape);
            if raw.dtype != kind {
                problems.push(format!("{name}: expected dtype {kind}, found {}", raw.dtype));
            } else if raw.shape != expected {
                let (expected, found) = (Shape(&expected), Shape(raw.shape));
                problems.push(format!("{name}: expected shape {expected}, found {found}"));
            } else if !raw.range.start.is_multiple_of(ALIGN) {
                let start = raw.range.start;
                problems.push(format!("{name}: expected on a multiple of {ALIGN} bytes, found at {start}"));
            }
        };
        for Matrix { name, to, columns, sum, .. } in &saved.matrices {
            let (n, k, panel) = (self.groups(*columns).len(), self.groups(*sum).len(), self.panel);
            check(format!("{name}.weight"), kind_of(to.dtype), &|found| {
                // Any number of terms may lie together that divides the panel.
                let group = found.get(3).copied().filter(|g| *g > 0 && panel.is_multiple_of(*g));
                let group = group.unwrap_or(to.dtype.per_word());
                vec![n / panel, k / group, panel, group]
            });
            check(format!("{name}.bias"), Kind::F32, &|_| vec![n]);
            if to.dtype == Dtype::Int8 {
                check(format!("{name}.weight_scale"), Kind::F32, &|_| vec![n]);
                check(format!("{name}.weight_offset"), Kind::I32, &|_| vec![n]);
            }
        }
        for Table { name, rows, width, .. } in &saved.tables {
            let width = self.groups(*width).len();
            check(name.clone(), Kind::F32, &|_| rows.iter().copied().chain([width]).collect());
        }
        if problems.is_empty() { Ok(()) } else { Err(self.file.unusable(&problems)) }
    }

    /// The file as a region, if everything lies in it as in one.
    fn mapped(&self, saved: &Structure) -> Option<Region> {
        let map = self.file.mapping()?;
        let pieces = pieces(saved);
        let start = self.file.raw(&pieces.first()?.name)?.range.start;
        let alike = pieces.iter().all(|piece| {
            self.file.raw(&piece.name).is_some_and(|raw| {
                raw.shape == piece.shape && raw.range.start == start + piece.place.start * size_of::<f32>()
            })
        });
        alike.then(|| Region::Mapped(Arc::clone(map), start..start + saved.len() * size_of::<f32>()))
    }

    /// Everything where a region wants it. `check` has been there.
    fn moved(&self, to: &Structure) -> Result<Block> {
        let mut block = Block::zeroed(to.len())?;
        let values = block.as_mut_slice();
        for table in &to.tables {
            let (from, width) = (self.groups(table.width), table.width);
            let bytes: &[[u8; 4]] = self.raw(&table.name).bytes.as_chunks().0;
            let rows = values[table.to.clone()].chunks_exact_mut(width.len());
            for (bytes, out) in bytes.chunks_exact(from.len()).zip(rows) {
                spread(bytes, from, width, out);
            }
        }
        for Matrix { name, to, columns, sum, .. } in &to.matrices {
            let raw = self.raw(&format!("{name}.weight"));
            let from = (self.groups(*columns), self.groups(*sum), raw.shape[3]);
            let out = &mut values[to.weight.clone()];
            let (to_group, as_f32) = (to.dtype.per_word(), to.dtype == Dtype::Float32);
            let moves = Moves { from, to: (*columns, *sum, to_group) };
            match raw.dtype {
                Kind::I8 => {
                    let out: &mut [u8] = bytemuck::cast_slice_mut(out);
                    moves.each(|at, from| out[at] = raw.bytes[from]);
                }
                Kind::BF16 if as_f32 => {
                    let bytes: &[[u8; 2]] = raw.bytes.as_chunks().0;
                    moves.each(|at, from| {
                        out[at] = f32::from_bits(u32::from(u16::from_le_bytes(bytes[from])) << 16);
                    });
                }
                Kind::BF16 => {
                    let bytes: &[[u8; 2]] = raw.bytes.as_chunks().0;
                    let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                    moves.each(|at, from| out[at] = u16::from_le_bytes(bytes[from]));
                }
                _ => {
                    let bytes: &[[u8; 4]] = raw.bytes.as_chunks().0;
                    moves.each(|at, from| out[at] = f32::from_le_bytes(bytes[from]));
                }
            }
            for (suffix, place) in
                [("bias", &to.bias), ("weight_scale", &to.scales), ("weight_offset", &to.offsets)]
            {
                if !place.is_empty() {
                    let bytes: &[[u8; 4]] = self.raw(&format!("{name}.{suffix}")).bytes.as_chunks().0;
                    spread(bytes, self.groups(*columns), *columns, &mut values[place.clone()]);
                }
            }
        }
        Ok(block)
    }

    fn raw(&self, name: &str) -> Raw<'a> {
        self.file.raw(name).unwrap_or_else(|| panic!("{name} was not checked"))
    }
}

/// Words of one row from one padding to another. Integers pass unchanged.
fn spread(bytes: &[[u8; 4]], from: Groups, to: Groups, out: &mut [f32]) {
    for value in 0..to.count * to.size {
        out[to.place_of(value)] = f32::from_bits(u32::from_le_bytes(bytes[from.place_of(value)]));
    }
}

/// A matrix from one layout to another: columns, terms of the sum, and how many terms lie together.
struct Moves {
    from: (Groups, Groups, usize),
    to: (Groups, Groups, usize),
}

impl Moves {
    /// Where each value goes and where it is.
    fn each(&self, mut move_one: impl FnMut(usize, usize)) {
        let at = |(columns, sum, group): (Groups, Groups, usize), column: usize, term: usize| {
            let (column, term, panel) = (columns.place_of(column), sum.place_of(term), columns.panel);
            let step = column / panel * (sum.len() / group) + term / group;
            (step * panel + column % panel) * group + term % group
        };
        let (columns, sum, _) = self.to;
        for column in 0..columns.count * columns.size {
            for term in 0..sum.count * sum.size {
                move_one(at(self.to, column, term), at(self.from, column, term));
            }
        }
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
