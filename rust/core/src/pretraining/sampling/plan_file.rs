//! Where a plan lies: in a file without a name, which is mapped.
//!
//! So a plan of any length takes no memory that the system could not have back, and processes that are forked share it.

use crate::{Error, Result};
use memmap2::{Advice, Mmap};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a plan says of a sample, in 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry([u64; 2]);

impl Entry {
    /// The first sentence or token (48 bits), the length of the finished sample (16), the document (32), the number of
    /// the draw in it (24), the pass in the epoch (8).
    pub(super) fn new(start: u64, length: u64, document: u64, draw: u32, copy: u32) -> Self {
        debug_assert!(start < 1 << 48 && length < 1 << 16 && document < 1 << 32);
        debug_assert!(draw < 1 << 24 && copy < 1 << 8);
        Self([start << 16 | length, document | u64::from(draw) << 32 | u64::from(copy) << 56])
    }

    pub(super) fn start(self) -> u64 {
        self.0[0] >> 16
    }

    pub(super) fn length(self) -> usize {
        usize::from(self.0[0] as u16)
    }

    pub(super) fn document(self) -> u64 {
        self.0[1] & u64::from(u32::MAX)
    }

    pub(super) fn draw(self) -> u32 {
        (self.0[1] >> 32) as u32 & 0xFF_FFFF
    }

    pub(super) fn copy(self) -> u32 {
        (self.0[1] >> 56) as u32
    }
}

/// A plan while it is written.
#[derive(Debug)]
pub(super) struct PlanWriter {
    file: File,
    folder: PathBuf,
    buffer: Vec<[u64; 2]>,
}

impl PlanWriter {
    /// An empty plan in a folder.
    ///
    /// # Errors
    /// `Error::Io` if no file can be made there.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("bertfast-plan-{}-{number}", std::process::id()));
            match options.open(&path) {
                Ok(file) => {
                    // From here on it has no name: it goes when its last user ends, however that ends.
                    std::fs::remove_file(&path).map_err(Error::io(&path))?;
                    return Ok(Self { file, folder: folder.to_owned(), buffer: Vec::new() });
                }
                // Left by a program that was killed at this very place.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(folder)(error)),
            }
        }
    }

    /// Appends entries.
    ///
    /// # Errors
    /// `Error::Io`, if the disk is full, say.
    pub(super) fn write(&mut self, entries: &[Entry]) -> Result<()> {
        self.buffer.clear();
        self.buffer.extend(entries.iter().map(|entry| entry.0));
        self.file.write_all(bytemuck::cast_slice(&self.buffer)).map_err(Error::io(&self.folder))
    }

    /// The plan, to read.
    ///
    /// # Errors
    /// `Error::Io` if it cannot be mapped.
    pub(super) fn finish(self) -> Result<PlanFile> {
        if self.file.metadata().map_err(Error::io(&self.folder))?.len() == 0 {
            return Ok(PlanFile { map: None });
        }
        // SAFETY: the file has no name, and the only handle to it is dropped here: nobody can change it.
        let map = unsafe { Mmap::map(&self.file) }.map_err(Error::io(&self.folder))?;
        #[cfg(unix)]
        // Samples are asked for in any order. Advice that is not taken costs nothing but time.
        let _ = map.advise(Advice::Random);
        Ok(PlanFile { map: Some(map) })
    }
}

/// A finished plan.
#[derive(Debug)]
pub(super) struct PlanFile {
    /// Nothing can be mapped where nothing is.
    map: Option<Mmap>,
}

impl PlanFile {
    fn entries(&self) -> &[[u64; 2]] {
        self.map.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }

    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Panics if there is no such sample.
    #[inline]
    pub(super) fn entry(&self, index: u64) -> Entry {
        Entry(self.entries()[index as usize])
    }
}
