//! The model on CPU: ragged ids in, hidden states and sentence vectors out.

mod arena;
mod batch;
mod forward;
mod plan;
mod pooling;
mod strided;
#[cfg(test)]
mod tests;
mod text;
mod weights;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub use batch::{Batch, Outputs};
pub use pooling::{Pooled, Pooling, normalize};
pub use strided::attention;
pub use weights::Dense;

use arena::{Arenas, Extents, Views};
use forward::{Pass, Sinks};
use plan::Plan;
use weights::Weights;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::ops::panels_of;
use crate::simd::Isa;
use crate::threads::{Pool, Shared};
use crate::{Error, Result};

/// A BERT, packed for one instruction set. Immutable: any number of threads may use it at once.
#[derive(Debug)]
pub struct Encoder {
    config: Config,
    weights: Weights,
    isa: Isa,
    /// Most threads of one call.
    threads: usize,
    arenas: Arenas,
}

impl Encoder {
    /// Pack a checkpoint. `threads` limits the threads of a call, `None` is the pool's size.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] listing all tensors that are missing or misshapen, [`Error::Value`] for no threads.
    pub fn new(config: Config, checkpoint: &Checkpoint, isa: Isa, threads: Option<usize>) -> Result<Self> {
        let threads = thread_limit(threads)?.unwrap_or_else(|| Pool::global().size());
        let weights = Weights::pack(&config, checkpoint, isa, threads)?;
        Ok(Self { config, weights, isa, threads, arenas: Arenas::default() })
    }

    /// The model's numbers.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The instruction set it runs on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Most threads of one call, unless the call says otherwise.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether there is a pooler.
    pub fn has_pooler(&self) -> bool {
        self.weights.pooler.is_some()
    }

    /// Bytes of packed weights.
    pub fn packed_bytes(&self) -> usize {
        self.weights.packed_bytes()
    }

    /// Tensors of the checkpoint that were not used.
    pub fn unused(&self) -> &[String] {
        &self.weights.unused
    }

    /// Run the model over a batch.
    ///
    /// The bits of a sequence's results depend on that sequence alone, on the weights and on the instruction set:
    /// not on the other sequences, their order, or the number of threads.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::TokenId`] for what the batch holds, [`Error::Value`] for no threads or no memory.
    pub fn forward(&self, batch: &Batch<'_>, outputs: Outputs<'_>, threads: Option<usize>) -> Result<()> {
        self.forward_unless(batch, outputs, threads, || false)
    }

    /// [`Encoder::forward`] that asks `interrupted` every few thousand tokens whether to stop.
    ///
    /// # Errors
    /// As there, and [`Error::Interrupted`], after which the outputs are partly written.
    pub fn forward_unless(
        &self,
        batch: &Batch<'_>,
        outputs: Outputs<'_>,
        threads: Option<usize>,
        interrupted: impl Fn() -> bool,
    ) -> Result<()> {
        batch.check(&self.config)?;
        outputs.check(&self.config, batch, self.has_pooler())?;
        let threads = thread_limit(threads)?.unwrap_or(self.threads);
        if batch.is_empty() {
            return Ok(());
        }
        let threads = threads.min(Pool::global().size());
        let plan = Plan::new(&self.config, batch, threads);
        let sinks = Sinks {
            last_hidden_state: outputs.last_hidden_state.map(Shared::new),
            pooler_output: outputs.pooler_output.map(Shared::new),
            hidden_states: outputs.hidden_states.map(Shared::new),
            attentions: outputs.attentions.map(|out| (Shared::new(out), squares_before(batch))),
            pooled: outputs.pooled.map(|p| (Shared::new(p.out), p.modes, p.skip, p.normalize)),
        };
        for step in plan.steps(threads) {
            self.run_groups(&plan, step, batch, &sinks, threads)?;
            if interrupted() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// Some groups of a plan in one dispatch.
    fn run_groups(
        &self,
        plan: &Plan,
        groups: Range<usize>,
        batch: &Batch<'_>,
        sinks: &Sinks<'_>,
        threads: usize,
    ) -> Result<()> {
        let failure = Mutex::new(None);
        let fail = |error: Error| *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        if plan.team {
            let views = OnceLock::new();
            let arena = Mutex::new(self.arenas.take()?);
            Pool::global().run(threads, |member| {
                if member.index == 0 {
                    let mut arena = arena.lock().unwrap_or_else(PoisonError::into_inner);
                    let made = arena.views(self.extents(batch, plan, member.size));
                    // SAFETY: the views outlive the lock's guard but not the arena, which nobody touches before the
                    // team has finished.
                    let made =
                        made.map(|views| unsafe { std::mem::transmute::<Views<'_>, Views<'_>>(views) });
                    let _ = views.set(made.map_err(fail));
                }
                member.barrier();
                let Some(Ok(views)) = views.get() else { return };
                for group in groups.clone() {
                    // SAFETY: all members are here, and no other call has this arena.
                    unsafe { self.pass(batch, plan, group, *views, sinks).run(&member) };
                    member.barrier();
                }
            });
            self.arenas.give_back(arena.into_inner().unwrap_or_else(PoisonError::into_inner));
        } else {
            let next = AtomicUsize::new(groups.start);
            Pool::global().run(threads.min(groups.len()), |member| {
                let alone = member.alone();
                let work = || -> Result<()> {
                    let mut arena = self.arenas.take()?;
                    let views = arena.views(self.extents(batch, plan, 1))?;
                    loop {
                        let group = next.fetch_add(1, Ordering::Relaxed);
                        if group >= groups.end {
                            break;
                        }
                        // SAFETY: a team of one; the arena is this thread's, and each group is drawn once.
                        unsafe { self.pass(batch, plan, group, views, sinks).run(&alone) };
                    }
                    self.arenas.give_back(arena);
                    Ok(())
                };
                if let Err(error) = work() {
                    fail(error);
                }
            });
        }
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn pass<'a>(
        &'a self,
        batch: &'a Batch<'a>,
        plan: &'a Plan,
        group: usize,
        views: Views<'a>,
        sinks: &'a Sinks<'a>,
    ) -> Pass<'a> {
        let (config, weights, isa) = (&self.config, &self.weights, self.isa);
        let (group, starts) = plan.group(group);
        Pass { config, weights, isa, batch, group, starts, views, sinks }
    }

    fn extents(&self, batch: &Batch<'_>, plan: &Plan, members: usize) -> Extents {
        let hidden = panels_of(self.config.hidden_size);
        let head = panels_of(self.config.head_size());
        let qkv = 3 * self.config.num_attention_heads * head;
        let wide = qkv.max(panels_of(self.config.intermediate_size)).max(2 * hidden);
        Extents { rows: plan.most_rows, longest: batch.longest(), members, hidden, wide, head }
    }
}

/// `None` if no limit is given.
///
/// # Errors
/// [`Error::Value`] for a limit of 0.
pub fn thread_limit(threads: Option<usize>) -> Result<Option<usize>> {
    match threads {
        Some(0) => Err(Error::Value("num_threads: expected at least 1, got 0".into())),
        other => Ok(other),
    }
}

/// The sum of `s^2` over the sequences before each, and over all.
fn squares_before(batch: &Batch<'_>) -> Vec<usize> {
    let mut before = vec![0];
    for i in 0..batch.len() {
        before.push(before[i] + batch.sequence(i).1.pow(2));
    }
    before
}
