//! A double-array trie over bytes: longest prefix in one table read per byte.
//!
//! The child of a node for byte `b` lies at `base(node) ^ b` and carries `b`, so that a walk needs no search
//! and no allocation. A walk reads four bytes a node, of about 90,000 nodes for a vocabulary of 30,000 (Aoe, "An efficient
//! digital search algorithm by using a double-array structure", 1989).

use crate::error::{Error, Result};

/// Where a walk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State(u32);

impl State {
    pub const ROOT: Self = Self(0);
}

/// What a walk reads of a node: `base << 10 | ENDS_KEY | IN_USE | byte`.
type Link = u32;

const IN_USE: Link = 0x100;
const ENDS_KEY: Link = 0x200;
const BASE_SHIFT: u32 = 10;
const MAX_NODES: usize = 1 << (32 - BASE_SHIFT);
/// How many free places are tried for the children of a node before a new block is opened.
const TRIES: usize = 32;

/// Maps byte strings to numbers below `u32::MAX`.
#[derive(Debug, Clone)]
pub struct Trie {
    links: Vec<Link>,
    /// The value of the key that a node ends, if it ends one.
    values: Vec<u32>,
}

impl Trie {
    /// From `keys` that are sorted by bytes, without repetition and without the empty key.
    ///
    /// # Errors
    /// `Error::Tokenizer` if they need more than 4 million nodes.
    pub fn new(keys: &[(&[u8], u32)]) -> Result<Self> {
        Builder::default().build(keys)
    }

    /// One step; `None` if no key goes on with `byte`.
    #[inline]
    pub fn step(&self, state: State, byte: u8) -> Option<State> {
        self.follow(self.links[state.0 as usize], byte).map(|(state, _)| state)
    }

    /// The node after one with this link, and its own link.
    #[inline]
    fn follow(&self, link: Link, byte: u8) -> Option<(State, Link)> {
        let next = link >> BASE_SHIFT ^ u32::from(byte);
        let link = *self.links.get(next as usize)?;
        (link & 0x1FF == IN_USE | u32::from(byte)).then_some((State(next), link))
    }

    /// Where a walk over all of `bytes` from the root ends.
    pub fn walk(&self, bytes: &[u8]) -> Option<State> {
        bytes.iter().try_fold(State::ROOT, |state, &byte| self.step(state, byte))
    }

    /// Length and value of the longest key among the prefixes of `bytes`, from `state` on, of length 1 or more.
    #[inline]
    pub fn longest(&self, state: State, bytes: &[u8]) -> Option<(usize, u32)> {
        let mut best = None;
        let mut link = self.links[state.0 as usize];
        for (index, &byte) in bytes.iter().enumerate() {
            let Some((state, next)) = self.follow(link, byte) else { break };
            link = next;
            if link & ENDS_KEY != 0 {
                best = Some((index + 1, state));
            }
        }
        best.map(|(length, state)| (length, self.values[state.0 as usize]))
    }
}

/// Places nodes; the free places form a doubly linked list.
#[derive(Default)]
struct Builder {
    links: Vec<Link>,
    values: Vec<u32>,
    base_taken: Vec<bool>,
    free_after: Vec<u32>,
    free_before: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Builder {
    fn build(mut self, keys: &[(&[u8], u32)]) -> Result<Trie> {
        // The root is also the head of the list of free places, so that removal has no special case. Nothing
        // may step onto it: it carries byte 1, base 1 is never given, and childless nodes have base 0.
        self.links.push(IN_USE | 1);
        self.values.push(0);
        self.base_taken.push(true);
        self.free_after.push(NONE);
        self.free_before.push(NONE);
        self.open_block()?;
        self.base_taken[1] = true;

        // (keys that share the path, depth, node); an explicit stack, since a key may be as long as its file.
        let mut pending = vec![(0..keys.len(), 0, 0)];
        let mut children: Vec<(u8, std::ops::Range<usize>)> = Vec::new();
        while let Some((range, depth, node)) = pending.pop() {
            children.clear();
            for index in range {
                let (key, value) = keys[index];
                match key.get(depth) {
                    None => {
                        self.links[node] |= ENDS_KEY;
                        self.values[node] = value;
                    }
                    Some(&byte) => match children.last_mut() {
                        Some((last, shared)) if *last == byte => shared.end = index + 1,
                        _ => children.push((byte, index..index + 1)),
                    },
                }
            }
            if children.is_empty() {
                continue;
            }
            let base = self.find_base(&children)?;
            self.base_taken[base] = true;
            self.links[node] |= (base as u32) << BASE_SHIFT;
            for (byte, shared) in children.drain(..) {
                let child = base ^ usize::from(byte);
                self.take(child);
                self.links[child] = IN_USE | u32::from(byte);
                pending.push((shared, depth + 1, child));
            }
        }
        Ok(Trie { links: self.links, values: self.values })
    }

    fn find_base(&mut self, children: &[(u8, std::ops::Range<usize>)]) -> Result<usize> {
        let first = usize::from(children[0].0);
        let mut place = self.free_after[0];
        for _ in 0..TRIES {
            if place == NONE {
                break;
            }
            let base = place as usize ^ first;
            let fits = !self.base_taken[base]
                && children.iter().all(|(byte, _)| self.links[base ^ usize::from(*byte)] & IN_USE == 0);
            if fits {
                return Ok(base);
            }
            place = self.free_after[place as usize];
        }
        self.open_block()
    }

    /// Adds 256 free places at the head of the list, where they are tried first; returns a base in them.
    fn open_block(&mut self) -> Result<usize> {
        // The first block has the root in it.
        let start = self.links.len();
        let end = (start / 256 + 1) * 256;
        if end > MAX_NODES {
            return Err(Error::Tokenizer("the vocabulary is too large: over 4 million trie nodes".into()));
        }
        self.links.resize(end, 0);
        self.values.resize(end, 0);
        self.base_taken.resize(end, false);
        self.free_after.resize(end, NONE);
        self.free_before.resize(end, NONE);
        for place in (start..end).rev() {
            let next = self.free_after[0];
            self.free_after[place] = next;
            self.free_before[place] = 0;
            self.free_after[0] = place as u32;
            if next != NONE {
                self.free_before[next as usize] = place as u32;
            }
        }
        Ok(end - 256)
    }

    fn take(&mut self, place: usize) {
        let (before, after) = (self.free_before[place], self.free_after[place]);
        self.free_after[before as usize] = after;
        if after != NONE {
            self.free_before[after as usize] = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn trie(keys: &BTreeMap<Vec<u8>, u32>) -> Trie {
        let sorted: Vec<(&[u8], u32)> = keys.iter().map(|(key, &value)| (&key[..], value)).collect();
        Trie::new(&sorted).unwrap()
    }

    proptest! {
        #[test]
        fn longest_is_the_longest_prefix(
            keys in prop::collection::btree_map(prop::collection::vec(0u8..4, 1..6), 0u32..1000, 0..200),
            text in prop::collection::vec(0u8..5, 0..12),
        ) {
            let expected = (1..=text.len()).rev().find_map(|n| keys.get(&text[..n]).map(|&v| (n, v)));
            prop_assert_eq!(trie(&keys).longest(State::ROOT, &text), expected);
        }

        #[test]
        fn every_key_is_found_and_no_other(
            keys in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..4), 0u32..1000, 0..400),
            other in prop::collection::vec(any::<u8>(), 1..4),
        ) {
            let trie = trie(&keys);
            for (key, &value) in &keys {
                prop_assert_eq!(trie.longest(State::ROOT, key), Some((key.len(), value)));
            }
            let whole = trie.longest(State::ROOT, &other).is_some_and(|(length, _)| length == other.len());
            prop_assert_eq!(whole, keys.contains_key(&other));
        }
    }

    #[test]
    fn a_walk_goes_on_where_another_ended() {
        let trie = trie(&BTreeMap::from([(b"##ing".to_vec(), 7), (b"##i".to_vec(), 8)]));
        let inside = trie.walk(b"##").unwrap();
        assert_eq!(trie.longest(inside, b"ingot"), Some((3, 7)));
        assert_eq!(trie.longest(inside, b"it"), Some((1, 8)));
        assert_eq!(trie.walk(b"#a"), None);
    }
}
