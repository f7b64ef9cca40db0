//! The one activation layout: a matrix cut into panels of 32 columns, `[columns / 32][rows][32]`.
//!
//! A GEMM writes tiles of a few rows and 32 columns, which are contiguous here, and the next GEMM broadcasts
//! its left operand out of the same place: rows of a tile are 128 bytes apart, so nothing is ever repacked and no
//! two rows fight for the same set of the L1 cache. A panel of values is also already the right operand that
//! attention multiplies its probabilities with. Columns are padded to a multiple of 32 with zeros, which every
//! operation keeps.

use std::marker::PhantomData;

/// Columns of a panel, or words where a format has several values in one: two AVX-512 vectors, four of AVX2, eight of
/// NEON.
pub const PANEL: usize = 32;

/// How many panels hold `columns` columns.
pub const fn panels_of(columns: usize) -> usize {
    columns.div_ceil(PANEL)
}

/// A matrix in panels, shared by the members of a team that write disjoint parts of it.
///
/// It borrows its memory like a `&mut [f32]`, but may be copied to every thread of a team: which member touches
/// which rows and panels between two barriers is the contract of each `unsafe` function that takes one.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    data: *mut f32,
    rows: usize,
    /// Rows of a panel in memory.
    stride: usize,
    panels: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a plain pointer and its extent; all access goes through `unsafe` functions with the contract above.
unsafe impl Send for Panels<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Panels<'_> {}

impl<'a> Panels<'a> {
    /// `data` as `panels` panels of `rows` rows. Panics if it is too small.
    pub fn new(data: &'a mut [f32], rows: usize, panels: usize) -> Self {
        assert!(
            rows * panels * PANEL <= data.len(),
            "{rows} rows of {panels} panels in {} values",
            data.len()
        );
        Self { data: data.as_mut_ptr(), rows, stride: rows, panels, _borrow: PhantomData }
    }

    /// Rows per panel.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Number of panels.
    pub fn panels(self) -> usize {
        self.panels
    }

    /// Values from one panel to the next.
    pub fn stride(self) -> usize {
        self.stride * PANEL
    }

    /// Some of the panels.
    pub fn slice(self, panels: std::ops::Range<usize>) -> Self {
        assert!(panels.start <= panels.end && panels.end <= self.panels);
        let data = self.data.wrapping_add(panels.start * self.stride());
        Self { data, panels: panels.len(), ..self }
    }

    /// Some of the rows.
    pub fn window(self, rows: std::ops::Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        Self { data: self.data.wrapping_add(rows.start * PANEL), rows: rows.len(), ..self }
    }

    /// Matrix `i` of those of `rows` rows and as many panels that the memory of this one holds, one behind the other.
    /// Panics if it is only a part of a matrix, or too small.
    pub fn cut(self, i: usize, rows: usize) -> Self {
        assert!(self.rows == self.stride && (i + 1) * rows <= self.rows);
        let data = self.data.wrapping_add(i * rows * self.panels * PANEL);
        Self { data, rows, stride: rows, ..self }
    }

    /// The 32 values of `row` in `panel`; `panel < panels()` and `row <= rows()`.
    #[inline(always)]
    pub fn at(self, panel: usize, row: usize) -> *mut f32 {
        debug_assert!(panel < self.panels && row <= self.rows);
        self.data.wrapping_add((panel * self.stride + row) * PANEL)
    }

    /// Copy a row of `columns` values out.
    ///
    /// # Safety
    /// No thread writes the row meanwhile.
    pub unsafe fn read_row(self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() <= self.panels * PANEL);
        for (panel, out) in out.chunks_mut(PANEL).enumerate() {
            // SAFETY: inside the matrix (checked above); `PANEL` values are contiguous.
            out.copy_from_slice(unsafe { std::slice::from_raw_parts(self.at(panel, row), out.len()) });
        }
    }

    /// Copy a row over another.
    ///
    /// # Safety
    /// No other thread touches either meanwhile.
    pub unsafe fn copy_row(self, from: usize, to: usize) {
        assert!(from < self.rows && to < self.rows);
        for panel in 0..self.panels {
            // SAFETY: inside the matrix; the rows are the same or apart.
            unsafe { std::ptr::copy(self.at(panel, from), self.at(panel, to), PANEL) };
        }
    }

    /// Copy a row in; columns beyond `values` become zero.
    ///
    /// # Safety
    /// No other thread touches the row meanwhile.
    pub unsafe fn write_row(self, row: usize, values: &[f32]) {
        assert!(row < self.rows && values.len() <= self.panels * PANEL);
        for panel in 0..self.panels {
            // SAFETY: inside the matrix (checked above); `PANEL` values are contiguous.
            let out = unsafe { std::slice::from_raw_parts_mut(self.at(panel, row), PANEL) };
            let values = &values[values.len().min(panel * PANEL)..values.len().min((panel + 1) * PANEL)];
            out[..values.len()].copy_from_slice(values);
            out[values.len()..].fill(0.0);
        }
    }
}
