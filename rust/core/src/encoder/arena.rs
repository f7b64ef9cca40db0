//! The memory of a forward pass: one arena for each thread that computes on its own, or for each team.

use crate::Result;
use crate::memory::Block;
use crate::ops::attention::Attention;
use crate::ops::gemm::MAX_MR;
use crate::ops::{PANEL, Panels};
use crate::threads::Shared;

/// Extents of a forward pass over one group.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// Tokens of the group.
    pub rows: usize,
    /// Tokens of its longest sequence.
    pub longest: usize,
    /// Threads of the team.
    pub members: usize,
    /// Panels of a hidden state.
    pub hidden: usize,
    /// Panels of the widest intermediate value.
    pub wide: usize,
    /// Panels of a head.
    pub head: usize,
    /// Panels of the widest left operand that is not f32.
    pub operand: usize,
}

impl Extents {
    /// Rows of a panel in memory. Odd, so that panels do not all begin in the same sets of the caches.
    fn stride(self) -> usize {
        self.rows | 1
    }

    fn scratch(self) -> usize {
        Attention::scratch_len(self.longest, self.head) + self.hidden.max(self.wide) * PANEL
    }

    fn len(self) -> usize {
        // Attention may read up to a panel of keys behind the last row.
        let rows = self.stride() * (self.hidden + self.wide + self.operand) + PANEL + MAX_MR;
        rows * PANEL + self.scratch() * self.members
    }
}

/// The parts of an arena, for every member of a team.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// The hidden states.
    pub hidden: Panels<'a>,
    /// Queries, keys and values, then the feed-forward values, then the pooler's.
    pub wide: Panels<'a>,
    /// The left operand of a product that is not f32.
    pub operand: Panels<'a>,
    scratch: Shared<'a, f32>,
    scratch_len: usize,
}

impl<'a> Views<'a> {
    /// A member's own memory: for attention, and one row of up to the widest value.
    ///
    /// # Safety
    /// `member` is this thread's number in the team, and it has no other borrow of it.
    pub unsafe fn scratch(&self, member: usize, row: usize) -> (&'a mut [f32], &'a mut [f32]) {
        let at = member * self.scratch_len;
        // SAFETY: members' parts are disjoint.
        let all = unsafe { self.scratch.slice(at..at + self.scratch_len) };
        let (row, attention) = all.split_at_mut(row);
        (attention, row)
    }
}

/// A block that grows to the largest pass it has served.
#[derive(Debug)]
pub struct Arena(Block);

impl Arena {
    /// One without memory yet.
    ///
    /// # Errors
    /// If the system has no more memory.
    pub fn empty() -> Result<Self> {
        Ok(Self(Block::zeroed(0)?))
    }

    /// Whether it is no larger than these extents need.
    pub fn fits(&self, most: Extents) -> bool {
        // A block is rounded up to whole pages by the system, not here.
        self.0.as_slice().len() <= most.len()
    }

    /// Its parts for these extents; grows if it must.
    ///
    /// # Errors
    /// If the system has no more memory.
    pub fn views(&mut self, extents: Extents) -> Result<Views<'_>> {
        if self.0.as_slice().len() < extents.len() {
            // Nothing in the old block is needed: give it back before asking for more.
            self.0 = Block::zeroed(0)?;
            self.0 = Block::zeroed(extents.len())?;
        }
        let stride = extents.stride();
        let (scratch, rest) = self.0.as_mut_slice().split_at_mut(extents.scratch() * extents.members);
        let (hidden, rest) = rest.split_at_mut(stride * extents.hidden * PANEL);
        let (operand, wide) = rest.split_at_mut(stride * extents.operand * PANEL);
        Ok(Views {
            hidden: Panels::new(hidden, stride, extents.hidden),
            wide: Panels::new(wide, stride, extents.wide),
            operand: Panels::new(operand, stride, extents.operand),
            scratch: Shared::new(scratch),
            scratch_len: extents.scratch(),
        })
    }
}
