//! The plan of an epoch: one pass over the sentences, in parallel, that says where samples are.

use super::blocks::Blocks;
use super::pairs::Pairs;
use super::plan_file::{Entry, PlanFile, PlanWriter};
use super::{Pass, Sampler};
use crate::pretraining::philox::{Permutation, Purpose, Stream};
use crate::pretraining::store::Store;
use crate::threads::{Pool, Team, lock};
use crate::{Error, Result};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Tokens of a chunk, more or less. Blocks do not reach from one into the next, so this is a part of what samples are.
pub(super) const CHUNK_TOKENS: u64 = 1 << 20;
/// Chunks that a thread plans before they are written.
const CHUNKS_PER_THREAD: usize = 8;
/// Entries of a chunk that are held in memory: one document may be as long as a corpus.
const MOST_ENTRIES: usize = 1 << 16;

/// The samples of an epoch.
#[derive(Debug, Clone)]
pub struct Samples {
    pub(super) sampler: Arc<Sampler>,
    pub(super) epoch: u32,
    pub(super) plan: Arc<PlanFile>,
}

/// A chunk while it is planned.
struct Part<'a> {
    pass: Pass<'a>,
    planner: Planner,
    entries: Vec<Entry>,
    /// Whether there is more to plan.
    outcome: Result<bool>,
}

enum Planner {
    Pairs(Pairs),
    Blocks(Blocks),
}

impl Part<'_> {
    fn new<'a>(sampler: &'a Sampler, epoch: u32, chunk: u64, chunks: u64) -> Part<'a> {
        let pass = sampler.pass(epoch, (chunk / chunks) as u32);
        let documents = sampler.documents_of(chunk % chunks);
        let is_pair = sampler.config.format.is_pair();
        let planner = if is_pair {
            Planner::Pairs(Pairs::new(documents))
        } else {
            Planner::Blocks(Blocks::new(documents))
        };
        Part { pass, planner, entries: Vec::new(), outcome: Ok(true) }
    }

    /// Plans on, until there is enough to write or nothing more to plan.
    fn advance(&mut self) {
        self.entries.clear();
        self.outcome = match &mut self.planner {
            Planner::Pairs(pairs) => pairs.plan(&self.pass, &mut self.entries, MOST_ENTRIES),
            Planner::Blocks(blocks) => Ok(blocks.plan(&self.pass, &mut self.entries, MOST_ENTRIES)),
        };
    }
}

/// Where a document begins. One without sentences, which only a damaged store has, begins at the end.
fn first_token(store: &Store, document: u64) -> u64 {
    let sentences = store.sentences_of(document);
    if sentences.is_empty() { store.num_tokens() - 1 } else { store.tokens_of(sentences.start).start }
}

impl Sampler {
    /// The samples of an epoch.
    ///
    /// Plans it on at most `threads` threads; the plan is the same for any number. It goes into a file without a name in
    /// `folder`, 16 bytes a sample. `interrupted` is asked now and then whether to stop.
    ///
    /// # Errors
    /// `Error::Value` for an epoch that is too large, if there is no sample at all, or a document with more samples than
    /// a plan can number; `Error::Io` if the file cannot be written; `Error::Interrupted`.
    pub fn samples(
        self: &Arc<Self>,
        epoch: u32,
        threads: usize,
        folder: &Path,
        interrupted: impl Fn() -> bool,
    ) -> Result<Samples> {
        self.check_epoch(epoch)?;
        let plan = self.plan(epoch, threads, folder, interrupted)?;
        if plan.len() == 0 {
            return Err(Error::Value(
                "store: expected text for at least one sample, got sentences of single words".into(),
            ));
        }
        Ok(Samples { sampler: Arc::clone(self), epoch, plan: Arc::new(plan) })
    }

    /// The documents of a chunk: those that begin in it.
    fn documents_of(&self, chunk: u64) -> Range<u64> {
        let first_from = |token: u64| {
            let (mut low, mut high) = (0, self.store.num_documents());
            while low < high {
                let middle = low + (high - low) / 2;
                if first_token(&self.store, middle) < token { low = middle + 1 } else { high = middle }
            }
            low
        };
        first_from(chunk * self.chunk_tokens)..first_from((chunk + 1) * self.chunk_tokens)
    }

    fn plan(
        &self,
        epoch: u32,
        threads: usize,
        folder: &Path,
        interrupted: impl Fn() -> bool,
    ) -> Result<PlanFile> {
        let mut writer = PlanWriter::new(folder)?;
        let chunks = self.store.num_tokens().div_ceil(self.chunk_tokens);
        let all = chunks * u64::from(self.config.dupe_factor);
        let mut team = Pool::global().join(threads.min(usize::try_from(all).unwrap_or(usize::MAX)));
        let mut done = 0;
        while done < all {
            let round = done..all.min(done + (team.size() * CHUNKS_PER_THREAD) as u64);
            done = round.end;
            let parts: Vec<_> =
                round.map(|chunk| Mutex::new(Part::new(self, epoch, chunk, chunks))).collect();
            team.each(threads, parts.len(), |part| lock(&parts[part]).advance());
            for part in &parts {
                self.write(&mut lock(part), &mut writer, &mut team, threads, &interrupted)?;
            }
            if team.pause(threads, &interrupted) {
                return Err(Error::Interrupted);
            }
        }
        writer.finish()
    }

    /// Writes a part, and plans and writes what is left of it: of a long document.
    fn write(
        &self,
        part: &mut Part<'_>,
        writer: &mut PlanWriter,
        team: &mut Team<'_>,
        threads: usize,
        interrupted: &impl Fn() -> bool,
    ) -> Result<()> {
        loop {
            let has_more = std::mem::replace(&mut part.outcome, Ok(false))?;
            writer.write(&part.entries)?;
            if !has_more {
                // Parts of a round are written one after the other: those that are done need no memory.
                part.entries = Vec::new();
                return Ok(());
            }
            if team.pause(threads, interrupted) {
                return Err(Error::Interrupted);
            }
            part.advance();
        }
    }
}

impl Samples {
    /// The samples of another epoch, of the same plan if that is the same.
    ///
    /// # Errors
    /// As [`Sampler::samples`].
    pub fn of_epoch(
        &self,
        epoch: u32,
        threads: usize,
        folder: &Path,
        interrupted: impl Fn() -> bool,
    ) -> Result<Self> {
        if self.sampler.plans_differ() && epoch != self.epoch {
            return self.sampler.samples(epoch, threads, folder, interrupted);
        }
        self.sampler.check_epoch(epoch)?;
        Ok(Self { epoch, ..self.clone() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.plan.len()
    }

    /// Never: an epoch has samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What makes them.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Which epoch it is.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How many tokens each of these samples has, special ones with them.
    ///
    /// # Errors
    /// `Error::Index` if there is no such sample.
    pub fn lengths(&self, indices: &[i64]) -> Result<Vec<i64>> {
        indices.iter().map(|&index| Ok(self.entry(index)?.length() as i64)).collect()
    }

    /// Numbers `start..start + count` of a random order of all samples, which the epoch has.
    ///
    /// # Errors
    /// `Error::Value` if there are not that many.
    pub fn order(&self, start: u64, count: u64) -> Result<Vec<i64>> {
        let len = self.len() as u64;
        if start.checked_add(count).is_none_or(|end| end > len) {
            return Err(Error::Value(format!(
                "start + count: expected at most {len} samples, got {start} + {count}"
            )));
        }
        let mut order = vec![0; count as usize];
        Permutation::new(len, self.sampler.seed, self.epoch).fill(start, &mut order, self.sampler.isa);
        Ok(order)
    }

    /// A random order of the `batches` of a window of the order of samples.
    ///
    /// # Errors
    /// `Error::Value` if they are more than there are samples.
    pub fn batch_order(&self, window: u64, batches: u64) -> Result<Vec<i64>> {
        if batches > self.len() as u64 {
            return Err(Error::Value(format!("batches: expected at most {}, got {batches}", self.len())));
        }
        let Sampler { seed, isa, .. } = *self.sampler;
        let seed = Stream::new(seed, Purpose::Batches, self.epoch, window).next_u64();
        let mut order = vec![0; batches as usize];
        Permutation::new(batches, seed, self.epoch).fill(0, &mut order, isa);
        Ok(order)
    }

    /// What the plan says of a sample.
    pub(super) fn entry(&self, index: i64) -> Result<Entry> {
        let found = u64::try_from(index).ok().filter(|&index| index < self.len() as u64);
        found.map(|index| self.plan.entry(index)).ok_or_else(|| {
            Error::Index(format!("index: expected a number in 0..{}, got {index}", self.len()))
        })
    }
}
