//! Arrays as slices.

use numpy::ndarray::Dimension;
use numpy::{Element, PyReadonlyArray, PyReadwriteArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::new_err;

/// The values of an array row by row. `as_slice` would give those of an array in Fortran's order too, column by column.
pub fn slice<'a, T: Element, D: Dimension>(array: &'a PyReadonlyArray<'_, T, D>) -> PyResult<&'a [T]> {
    check(array.is_c_contiguous())?;
    Ok(array.as_slice()?)
}

/// The same, to write.
pub fn slice_mut<'a, T: Element, D: Dimension>(
    array: &'a mut PyReadwriteArray<'_, T, D>,
) -> PyResult<&'a mut [T]> {
    check(array.is_c_contiguous())?;
    Ok(array.as_slice_mut()?)
}

fn check(contiguous: bool) -> PyResult<()> {
    if contiguous { Ok(()) } else { Err(new_err("ArgumentError", "expected a C-contiguous array".into())) }
}
