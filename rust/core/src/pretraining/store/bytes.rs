//! The bytes of a file, mapped or in memory, and numbers in them.

use crate::simd::prefetch;
use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// What a store reads from.
#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Maps a file that has `len` bytes.
    ///
    /// # Errors
    /// `Error::Io`; `Error::Corpus` if it has another length.
    pub(super) fn map(path: &Path, len: u64) -> Result<Self> {
        // Asked before opening: opening a named pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
            return Err(Error::Corpus(format!("{}: not a regular file", path.display())));
        }
        let file = File::open(path).map_err(Error::io(path))?;
        let found = file.metadata().map_err(Error::io(path))?.len();
        if found != len {
            return Err(Error::Corpus(format!("{}: expected {len} bytes, found {found}", path.display())));
        }
        if len == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        // SAFETY: the mapping is read-only. The promise that the file does not change meanwhile is the user's
        // (see the documentation of `store`); any bytes are valid numbers.
        Ok(Self::Mapped(unsafe { Mmap::map(&file) }.map_err(Error::io(path))?))
    }

    /// Asks for bytes that will be read soon, as far as there are such.
    #[inline]
    pub(super) fn prefetch(&self, bytes: Range<usize>) {
        const LINE: usize = 64;
        // Files are mapped at the beginning of a page: lines of the file are lines of the cache.
        let start = (bytes.start / LINE * LINE).min(self.len());
        self[start..bytes.end.clamp(start, self.len())].chunks(LINE).for_each(prefetch);
    }

    /// Number `index` of 64-bit numbers. Panics if there are not that many.
    #[inline(always)]
    pub(super) fn u64(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.as_chunks().0[index])
    }
}
