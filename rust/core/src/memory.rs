//! Blocks of f32 on pages of their own: packed weights and arenas; and large pages for long arrays.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Zeroable;
use memmap2::{Mmap, MmapMut};

use crate::{Error, Result};

/// Values to which every part of a block is aligned: 64 bytes, one cache line and one AVX-512 vector.
pub const ALIGN: usize = 16;

/// Below this many bytes a huge page would waste more than it saves.
const HUGE: usize = 4 << 20;

/// Zeroed memory of this process, page-aligned.
#[derive(Debug)]
pub struct Block(MmapMut);

impl Block {
    /// A block of `len` zeros.
    ///
    /// # Errors
    /// [`Error::Value`] if the system does not give that much.
    pub fn zeroed(len: usize) -> Result<Self> {
        let bytes = len.max(1).checked_mul(size_of::<f32>());
        let map = bytes.ok_or_else(|| "too many".to_string()).and_then(|bytes| {
            let map = MmapMut::map_anon(bytes).map_err(|e| e.to_string())?;
            #[cfg(target_os = "linux")]
            if bytes >= HUGE {
                // Fewer address translations for the kernels; a system without huge pages says no, which is fine.
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            Ok(map)
        });
        let map = map.map_err(|e| Error::Value(format!("cannot allocate {len} float32 values: {e}")))?;
        Ok(Self(map))
    }

    /// Its values.
    pub fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }

    /// Its values, to write.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// So many zeros, which cost nothing until they are looked at.
///
/// # Errors
/// [`Error::Value`] if the system does not give that much: where an array is as large as a caller wants it, that must not
/// end the process.
pub fn zeros<T: Zeroable>(len: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(len)
        .map_err(|()| Error::Value(format!("cannot allocate {len} values of {} bytes", size_of::<T>())))
}

/// Room for `additional` more values, on huge pages where it is much: for arrays that are filled from front to back, most
/// of whose cost is that the system finds and clears a page at a time.
pub fn reserve<T>(values: &mut Vec<T>, additional: usize) {
    if !try_reserve(values, additional) {
        // Says why not.
        values.reserve(additional);
    }
}

/// The same; false if the system does not give that much.
pub fn try_reserve<T>(values: &mut Vec<T>, additional: usize) -> bool {
    let before = values.capacity();
    if values.try_reserve(additional).is_err() {
        return false;
    }
    #[cfg(target_os = "linux")]
    if values.capacity() > before {
        const HUGE_PAGE: usize = 2 << 20;
        let spare = values.spare_capacity_mut().as_mut_ptr_range();
        let start = spare.start.addr().next_multiple_of(HUGE_PAGE);
        let len = spare.end.addr().saturating_sub(start) / HUGE_PAGE * HUGE_PAGE;
        if len >= HUGE {
            // SAFETY: whole pages inside of memory that `values` owns, and the advice does not change what is in them. A
            // system without huge pages says no, which is fine.
            unsafe { libc::madvise(spare.start.with_addr(start).cast(), len, libc::MADV_HUGEPAGE) };
        }
    }
    true
}

/// Packed weights: made in this process, or borrowed from a file that several processes map.
#[derive(Clone, Debug)]
pub enum Region {
    /// Packed at load.
    Owned(Arc<Block>),
    /// Packed before, in a file: the byte range of the map starts on a multiple of 64 bytes.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl Region {
    /// All its values.
    ///
    /// Panics if a mapped range is not aligned or not inside its map, which whoever makes one checks.
    pub fn as_slice(&self) -> &[f32] {
        match self {
            Self::Owned(block) => block.as_slice(),
            Self::Mapped(map, bytes) => bytemuck::cast_slice(&map[bytes.clone()]),
        }
    }
}

/// Where parts of a region will lie, before there is one.
#[derive(Debug, Default)]
pub struct Layout {
    len: usize,
}

impl Layout {
    /// Room for `len` values, aligned.
    pub fn reserve(&mut self, len: usize) -> Range<usize> {
        let start = self.len;
        self.len = (start + len).next_multiple_of(ALIGN);
        start..start + len
    }

    /// All that was reserved, in values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zeroed_aligned_and_refused_when_absurd() {
        for len in [0, 1, 1000, 3 << 20] {
            let mut block = Block::zeroed(len).unwrap();
            assert!(block.as_slice().len() >= len && block.as_slice().iter().all(|x| *x == 0.0));
            assert!(block.as_slice().as_ptr().addr().is_multiple_of(64));
            block.as_mut_slice().fill(1.0);
        }
        assert!(matches!(Block::zeroed(usize::MAX / 2), Err(Error::Value(_))));
        assert!(matches!(Block::zeroed(1 << 58), Err(Error::Value(_))));
    }

    #[test]
    fn what_the_system_does_not_give_is_an_error() {
        assert_eq!(zeros::<f32>(3).unwrap(), [0.0; 3]);
        assert!(zeros::<i32>(0).unwrap().is_empty());
        for len in [1 << 46, usize::MAX / 2, usize::MAX] {
            assert!(matches!(zeros::<f32>(len), Err(Error::Value(_))));
            assert!(!try_reserve(&mut vec![1i32], len));
        }
        let mut values = vec![1i32];
        assert!(try_reserve(&mut values, 1 << 21) && values.capacity() > 1 << 21 && values == [1]);
    }

    #[test]
    fn layouts_do_not_overlap_and_regions_read_from_either() {
        let mut layout = Layout::default();
        let parts = [layout.reserve(3), layout.reserve(0), layout.reserve(17), layout.reserve(16)];
        assert_eq!(parts, [0..3, 16..16, 16..33, 48..64]);
        assert_eq!(layout.len(), 64);

        let path = std::env::temp_dir().join(format!("bertfast-region-{}", std::process::id()));
        let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
        std::fs::write(&path, bytemuck::cast_slice::<f32, u8>(&values)).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        // SAFETY: nobody changes the file.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        std::fs::remove_file(&path).unwrap();
        let mapped = Region::Mapped(Arc::new(map), 64..256);
        assert_eq!(mapped.as_slice(), &values[16..]);
        let mut block = Block::zeroed(48).unwrap();
        block.as_mut_slice()[..48].copy_from_slice(&values[16..]);
        assert_eq!(&Region::Owned(Arc::new(block)).as_slice()[..48], mapped.as_slice());
    }
}
