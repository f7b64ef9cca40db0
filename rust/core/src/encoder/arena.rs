//! The memory of a forward pass: one arena for each thread that computes on its own, or for each team.

use crate::Result;
use crate::memory::Block;
use crate::ops::attention::Attention;
use crate::ops::tile::MAX_MR;
use crate::ops::{PANEL, Panels};
use crate::threads::Shared;

/// Rows that a member takes through a layer together, all but attention: few enough that what they become in between
/// stays in its second-level cache, enough that reading the weights for each block costs little.
pub const BLOCK_ROWS: usize = 64;

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
    /// Panels of queries, keys and values together, and of a hidden state beside another or an
    /// embedding at least, for the pooler and the head.
    pub qkv: usize,
    /// Panels of the feed-forward values.
    pub inner: usize,
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

    /// Rows of a panel of keys in memory: attention reads whole panels of them, and what is behind the last row may not
    /// be what another member is writing.
    fn qkv_stride(self) -> usize {
        (self.rows + PANEL) | 1
    }

    /// Rows of a member's own block in memory.
    fn block(self) -> usize {
        self.rows.min(BLOCK_ROWS) | 1
    }

    fn scratch(self) -> usize {
        Attention::scratch_len(self.longest, self.head) + self.hidden.max(self.qkv).max(self.inner) * PANEL
    }

    fn len(self) -> usize {
        let blocks = self.block() * self.members;
        let rows = self.stride() * self.hidden
            + self.qkv_stride() * self.qkv
            + MAX_MR
            + blocks * (self.inner + self.operand);
        rows * PANEL + self.scratch() * self.members
    }
}

/// The parts of an arena, for every member of a team.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// The hidden states.
    pub hidden: Panels<'a>,
    /// Queries, keys and values, then the pooler's and the head's.
    pub qkv: Panels<'a>,
    /// The feed-forward values of a block for each member.
    inner: Panels<'a>,
    /// The left operand of a product that is not f32, of a block for each member.
    operand: Panels<'a>,
    block: usize,
    scratch: Shared<'a, f32>,
    scratch_len: usize,
}

impl<'a> Views<'a> {
    /// Feed-forward values and the left operand of a member's own block.
    pub fn own_block(&self, member: usize) -> [Panels<'a>; 2] {
        [self.inner, self.operand].map(|all| all.cut(member, self.block))
    }

    /// The same memory as one block of all members.
    pub fn common_block(&self, rows: usize) -> [Panels<'a>; 2] {
        [self.inner, self.operand].map(|all| all.cut(0, rows))
    }

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
        let blocks = extents.block() * extents.members;
        let mut rest = self.0.as_mut_slice();
        let mut take = |len: usize| rest.split_off_mut(..len).expect("as long as its parts");
        let scratch = Shared::new(take(extents.scratch() * extents.members));
        let mut panels = |rows: usize, panels: usize| Panels::new(take(rows * panels * PANEL), rows, panels);
        Ok(Views {
            hidden: panels(extents.stride(), extents.hidden),
            inner: panels(blocks, extents.inner),
            operand: panels(blocks, extents.operand),
            qkv: panels(extents.qkv_stride(), extents.qkv),
            block: extents.block(),
            scratch,
            scratch_len: extents.scratch(),
        })
    }
}
