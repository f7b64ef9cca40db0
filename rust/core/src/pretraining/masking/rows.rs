//! Many rows: what lies in arrays, on several threads.

use super::groups::Scratch;
use super::rule::Masker;
use super::{IGNORED, Id};
use crate::pretraining::philox::{MAX_EPOCH, Purpose, Stream};
use crate::threads::{Pool, lock};
use crate::{Error, Result};
use std::mem::MaybeUninit;
use std::sync::Mutex;

/// Tokens for each thread, below which handing out the work costs more than it saves.
const TOKENS_PER_THREAD: usize = 32 << 10;

/// Tokens of a part that a thread draws: what it writes stays in its nearest caches.
const PART_TOKENS: usize = 16 << 10;

/// Where rows end.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// All have this length.
    Equal(usize),
    /// Row `i` is `cu_seqlens[i]..cu_seqlens[i + 1]`.
    Ragged(&'a [i64]),
}

/// What the numbers of a row belong to.
#[derive(Debug, Clone, Copy)]
pub enum Keys<'a> {
    /// Row `i` has the key `first + i` (modulo 2^64).
    From(u64),
    /// Each row has its own.
    Each(&'a [u64]),
}

impl Rows<'_> {
    fn check(&self, tokens: usize) -> Result<()> {
        if let Self::Equal(len) = self
            && tokens > 0
            && !tokens.is_multiple_of(*len)
        {
            return Err(Error::Shape(format!("rows: expected ids for whole rows of {len}, got {tokens}")));
        }
        if let Self::Ragged(ends) = self {
            let rises = ends.windows(2).all(|pair| pair[0] <= pair[1]);
            if !rises || ends.first() != Some(&0) || ends.last() != Some(&(tokens as i64)) {
                return Err(Error::Shape(format!(
                    "cu_seqlens: expected boundaries that rise from 0 to {tokens}, the number of ids"
                )));
            }
        }
        Ok(())
    }

    fn len(&self, tokens: usize) -> usize {
        match self {
            Self::Equal(len) => tokens.checked_div(*len).unwrap_or(0),
            Self::Ragged(ends) => ends.len() - 1,
        }
    }

    fn end(&self, row: usize) -> usize {
        match self {
            Self::Equal(len) => (row + 1) * len,
            Self::Ragged(ends) => ends[row + 1] as usize,
        }
    }
}

impl Masker {
    /// Masks rows that lie end to end: `(input_ids, labels)`. `marks` as in [`Self::mask_row`], one for each token.
    ///
    /// # Errors
    /// `Error::Shape` if rows, marks or keys are not as many as `ids` has, `Error::Value` for an epoch above
    /// [`MAX_EPOCH`], `Error::TokenId` for an id that is not in the vocabulary: the row is named.
    #[allow(clippy::too_many_arguments)]
    pub fn mask_rows<T: Id>(
        &self,
        ids: &[T],
        rows: Rows<'_>,
        marks: Option<&[u8]>,
        seed: u64,
        epoch: u32,
        keys: Keys<'_>,
        threads: usize,
    ) -> Result<(Vec<T>, Vec<T>)> {
        rows.check(ids.len())?;
        let count = rows.len(ids.len());
        if let Some(marks) = marks
            && marks.len() != ids.len()
        {
            return Err(Error::Shape(format!(
                "marks: expected {}, one for each id, got {}",
                ids.len(),
                marks.len()
            )));
        }
        if let Keys::Each(keys) = keys
            && keys.len() != count
        {
            return Err(Error::Shape(format!(
                "index: expected {count}, one for each row, got {}",
                keys.len()
            )));
        }
        if epoch > MAX_EPOCH {
            return Err(Error::Value(format!("epoch: expected a number in 0..={MAX_EPOCH}, got {epoch}")));
        }
        let (mut inputs, mut labels) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        let mut parts = Vec::new();
        let (mut free_inputs, mut free_labels) =
            (&mut inputs.spare_capacity_mut()[..ids.len()], &mut labels.spare_capacity_mut()[..ids.len()]);
        let (mut row, mut start) = (0, 0);
        while row < count {
            let (first, begin) = (row, start);
            while row < count && (row == first || rows.end(row) - begin <= PART_TOKENS) {
                (row, start) = (row + 1, rows.end(row));
            }
            let (input, rest) = free_inputs.split_at_mut(start - begin);
            let (label, rest_labels) = free_labels.split_at_mut(start - begin);
            (free_inputs, free_labels) = (rest, rest_labels);
            parts.push((first..row, begin, Mutex::new((input, label))));
        }
        let failed = Mutex::new(None);
        let mask_part = |part: usize, scratch: &mut Scratch| {
            let (rows_of, begin, out) = &parts[part];
            let (inputs, labels) = &mut *lock(out);
            let inputs = inputs.write_copy_of_slice(&ids[*begin..][..inputs.len()]);
            let labels = no_labels(labels);
            let (mut start, mut rest) = (*begin, (&mut inputs[..], labels));
            for row in rows_of.clone() {
                let len = rows.end(row) - start;
                let ((input, rest_inputs), (label, rest_labels)) =
                    (rest.0.split_at_mut(len), rest.1.split_at_mut(len));
                rest = (rest_inputs, rest_labels);
                let key = match keys {
                    Keys::From(first) => first.wrapping_add(row as u64),
                    Keys::Each(keys) => keys[row],
                };
                let mut stream = Stream::new(seed, Purpose::Mask, epoch, key).with_isa(self.isa);
                let marks = marks.map(|marks| &marks[start..start + len]);
                if let Err(error) = self.mask_labelled(input, label, marks, &mut stream, scratch) {
                    let mut first = lock(&failed);
                    if first.as_ref().is_none_or(|(before, _)| row < *before) {
                        *first = Some((row, error));
                    }
                }
                start += len;
            }
        };
        let threads = threads.min(ids.len() / TOKENS_PER_THREAD).max(1);
        if threads == 1 {
            let mut scratch = Scratch::default();
            (0..parts.len()).for_each(|part| mask_part(part, &mut scratch));
        } else {
            let scratches: Vec<_> = (0..threads).map(|_| Mutex::new(Scratch::default())).collect();
            Pool::global().join(threads).each(threads, parts.len(), |part| {
                // Whichever is free: there are as many as threads.
                let mut scratch = scratches.iter().find_map(|one| one.try_lock().ok());
                mask_part(part, scratch.as_deref_mut().unwrap_or(&mut Scratch::default()));
            });
        }
        drop(parts);
        if let Some((row, error)) = lock(&failed).take() {
            return Err(Error::TokenId(format!("row {row}: {error}")));
        }
        // SAFETY: the parts cover all rows, and rows all ids (`check`); each was written by the part's thread, inputs as a
        // copy and labels in `no_labels`, and `each` returns when every part was done.
        unsafe {
            inputs.set_len(ids.len());
            labels.set_len(ids.len());
        }
        Ok((inputs, labels))
    }
}

/// Labels that ask for nothing, in memory that was not written before.
fn no_labels<T: Id>(labels: &mut [MaybeUninit<T>]) -> &mut [T] {
    labels.fill(MaybeUninit::new(T::from_i32(IGNORED)));
    // SAFETY: just written, all of it.
    unsafe { labels.assume_init_mut() }
}
