//! What the members of a team take: rows, or columns of every product, and the blocks of rows that go through a layer
//! together.

use std::ops::Range;

use super::arena::{BLOCK_ROWS, Views};
use super::structure::Linear;
use crate::ops::convert::Target;
use crate::ops::tile::tiles;
use crate::ops::{Dtype, Panels};
use crate::threads::Member;

/// How a team shares the work between two barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each member takes rows through everything but attention: what it writes stays in its own cache, and it waits
    /// only where attention needs the keys and values of all.
    Rows,
    /// Each member takes columns of every product, all rows: every weight is read by one core only, which is what
    /// counts where there are few rows.
    Panels,
}

impl Split {
    /// Rows of a member from which computing takes longer than reading all weights from memory does.
    const MIN_ROWS: usize = 32;

    fn new(rows: usize, member: &Member<'_>) -> Self {
        if rows >= Self::MIN_ROWS * member.size || member.size == 1 { Self::Rows } else { Self::Panels }
    }

    /// A member's part of the panels of a product, in whole units of some.
    pub fn own_panels(self, member: &Member<'_>, panels: usize, unit: usize) -> Range<usize> {
        if self == Self::Rows {
            return 0..panels;
        }
        let share = member.share(panels / unit);
        share.start * unit..share.end * unit
    }

    /// A barrier where one member reads what another has written, which with rows does not happen.
    pub fn meet(self, member: &Member<'_>) {
        if self == Self::Panels {
            member.barrier();
        }
    }
}

/// The rows that are computed, from the first one on, and how a team shares them.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// How many.
    pub count: usize,
    /// How they are shared.
    pub split: Split,
    /// Whether there is one row for each sequence, and no longer one for each token.
    pub one_each: bool,
}

impl Rows {
    /// Shared as is best for so many.
    pub fn new(count: usize, one_each: bool, member: &Member<'_>) -> Self {
        Self { count, split: Split::new(count, member), one_each }
    }

    /// Those of a member, where it works by rows.
    pub fn of(self, member: &Member<'_>) -> Range<usize> {
        member.share(self.count)
    }

    /// A member's blocks: some of its rows each, or where it works by columns all rows.
    pub fn blocks<'a>(self, views: Views<'a>, member: &Member<'_>) -> impl Iterator<Item = Block<'a>> {
        let (split, index, share) = (self.split, member.index, self.of(member));
        let (all, most) = match split {
            Split::Rows => (share.clone(), BLOCK_ROWS),
            Split::Panels => (0..self.count, usize::MAX),
        };
        tiles(all, most).map(move |(start, height)| {
            let rows = start..start + height;
            let (mine, [inner, operand]) = match split {
                Split::Rows => (0..height, views.own_block(index)),
                Split::Panels => (share.clone(), views.common_block(height | 1)),
            };
            let (x, qkv) = (views.hidden.window(rows.clone()), views.qkv.window(rows.clone()));
            Block { rows, mine, split, x, qkv, inner, operand }
        })
    }
}

/// Rows that go through everything between two attentions together, in memory that stays in the cache.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// Where they lie among all rows.
    pub rows: Range<usize>,
    /// Those of them that this member takes where each row is a piece of work.
    pub mine: Range<usize>,
    /// How a team shares them.
    pub split: Split,
    /// Their hidden states.
    pub x: Panels<'a>,
    /// Their queries, keys and values.
    pub qkv: Panels<'a>,
    /// Their feed-forward values.
    pub inner: Panels<'a>,
    /// The left operand of a product that is not f32.
    operand: Panels<'a>,
}

impl<'a> Block<'a> {
    /// Where this member's rows lie among all rows.
    pub fn taken(&self) -> Range<usize> {
        self.rows.start + self.mine.start..self.rows.start + self.mine.end
    }

    /// Where the left operand of a product goes that does not read f32.
    pub fn target(&self, linear: &Linear) -> Option<Target<'a>> {
        (linear.dtype != Dtype::Float32).then_some(Target {
            words: self.operand,
            dtype: linear.dtype,
            rotation: linear.rotation,
        })
    }
}
