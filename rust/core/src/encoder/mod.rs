//! The model on CPU: ragged ids in, hidden states and sentence vectors out.

mod arena;
mod batch;
mod block;
mod dense;
mod extras;
mod forward;
mod head;
#[cfg(test)]
mod head_tests;
mod packed;
mod packing;
mod plan;
mod pooling;
mod results;
mod strided;
mod structure;
#[cfg(test)]
mod tests;
mod text;
mod top_k;
mod weights;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use batch::{Batch, Outputs};
pub use dense::Dense;
pub use head::{HeadOutputs, Take};
pub use packed::pack;
pub use pooling::{Pooled, Pooling, normalize};
pub use strided::attention;
pub use top_k::TopK;

use crate::free_list::FreeList;
use arena::{Arena, Extents, Views};
use forward::Pass;
use packed::Packed;
use packing::Packing;
use plan::{GROUP_TOKENS, Plan, Way};
use results::Sinks;
use weights::Weights;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::head::Task;
use crate::ops::{Dtype, panels_of};
use crate::simd::Isa;
use crate::threads::{Pool, Shared, Team, thread_limit};
use crate::{Error, Result};

/// Longest sequence for which memory is kept between calls; longer ones get theirs anew, which costs little beside
/// what they compute.
const USUAL_LENGTH: usize = 512;

/// A BERT, packed for one instruction set. Immutable: any number of threads may use it at once.
#[derive(Debug)]
pub struct Encoder {
    config: Config,
    weights: Weights,
    isa: Isa,
    /// The type of each layer's matrices.
    dtypes: Vec<Dtype>,
    /// Those in the packed file that it was opened from.
    saved_dtypes: Option<Vec<Dtype>>,
    attention_dtype: Dtype,
    /// Most threads of one call.
    threads: usize,
    arenas: FreeList<Arena>,
    plans: FreeList<Plan>,
}

impl Encoder {
    /// Pack a checkpoint, with the type of each layer's matrices: one for all layers, or one for each; and with the head
    /// for a task.
    ///
    /// `threads` limits the threads of a call, `None` is the pool's size.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] listing all tensors that are missing or misshapen, [`Error::Value`] for no threads,
    /// another number of types, a type that `isa` does not run, or a task that the family has no head for.
    pub fn new(
        config: Config,
        checkpoint: &Checkpoint,
        dtypes: &[Dtype],
        isa: Isa,
        threads: Option<usize>,
        task: Option<Task>,
    ) -> Result<Self> {
        let threads = thread_limit(threads)?.unwrap_or_else(|| Pool::global().size());
        let dtypes = one_for_each(dtypes, config.num_hidden_groups)?;
        if let Some(dtype) = dtypes.iter().find(|dtype| !dtype.runs_on(isa)) {
            let runs: Vec<_> =
                Dtype::ALL.into_iter().filter(|dtype| dtype.runs_on(isa)).map(Dtype::name).collect();
            let (name, isa, runs) = (dtype.name(), isa.name(), runs.join(" or "));
            return Err(Error::Value(format!("dtype: {name} does not run on {isa}; take {runs}")));
        }
        let weights = Packing::new(&config, checkpoint, &dtypes, task)?.weights(isa, threads)?;
        Ok(Self::of(config, weights, isa, dtypes, threads))
    }

    /// Open what [`pack`] wrote, as it was packed; layers in bf16 run in f32 where `isa` does not multiply bf16.
    ///
    /// `wanted` are the types of which it must be one; none means whatever it is.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is no such file, is damaged, does not fit the configuration or is of another type;
    /// [`Error::Value`] for no threads, no memory or a task that the family has no head for.
    pub fn open(
        config: Config,
        file: &Checkpoint,
        wanted: &[Dtype],
        isa: Isa,
        threads: Option<usize>,
        task: Option<Task>,
    ) -> Result<Self> {
        let threads = thread_limit(threads)?.unwrap_or_else(|| Pool::global().size());
        let packed = Packed::new(&config, file)?;
        packed.check_dtype(wanted)?;
        let run = |dtype: &Dtype| if dtype.runs_on(isa) { *dtype } else { Dtype::Float32 };
        let dtypes: Vec<_> = packed.dtypes.iter().map(run).collect();
        let weights = packed.weights(&config, &dtypes, task)?;
        let encoder = Self::of(config, weights, isa, dtypes, threads);
        Ok(Self { saved_dtypes: Some(packed.dtypes), ..encoder })
    }

    fn of(config: Config, weights: Weights, isa: Isa, dtypes: Vec<Dtype>, threads: usize) -> Self {
        // int8 has no scales for scores: attention takes the fastest type that is exact enough beside it.
        let all_f32 = dtypes.iter().all(|dtype| *dtype == Dtype::Float32);
        let attention_dtype =
            if !all_f32 && Dtype::BFloat16.runs_on(isa) { Dtype::BFloat16 } else { Dtype::Float32 };
        let (arenas, plans, saved_dtypes) = (FreeList::default(), FreeList::default(), None);
        Self { config, weights, isa, dtypes, saved_dtypes, attention_dtype, threads, arenas, plans }
    }

    /// The type of each layer's matrices.
    pub fn dtypes(&self) -> &[Dtype] {
        &self.dtypes
    }

    /// Those in the packed file that it was opened from, `None` if it was packed here.
    pub fn saved_dtypes(&self) -> Option<&[Dtype]> {
        self.saved_dtypes.as_deref()
    }

    /// Whether the packed weights are a file's pages, shared by all processes that map it.
    pub fn is_mapped(&self) -> bool {
        self.weights.is_mapped()
    }

    /// The type of the products inside attention.
    pub fn attention_dtype(&self) -> Dtype {
        self.attention_dtype
    }

    /// The names of the kernels that run, those of the layers first.
    pub fn kernels(&self) -> Vec<String> {
        let runs = |dtype: &Dtype| self.dtypes.contains(dtype) || self.attention_dtype == *dtype;
        let mut used: Vec<Dtype> = Dtype::ALL.into_iter().filter(runs).collect();
        used.sort_by_key(|dtype| !self.dtypes.contains(dtype));
        used.into_iter().map(|dtype| self.isa.kernel_id(dtype.name())).collect()
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

    /// What its head is for, and how many outputs that has.
    pub fn head(&self) -> Option<(Task, usize)> {
        self.weights.head.as_ref().map(|head| (head.plan.head.task, head.plan.outputs))
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
        let limit = thread_limit(threads)?.unwrap_or(self.threads);
        self.forward_in(&mut Pool::global().join(limit), batch, outputs, limit, interrupted)
    }

    /// [`Encoder::forward_unless`] in a team that may grow up to `limit` threads.
    fn forward_in(
        &self,
        team: &mut Team<'_>,
        batch: &Batch<'_>,
        outputs: Outputs<'_>,
        limit: usize,
        interrupted: impl Fn() -> bool,
    ) -> Result<()> {
        batch.check(&self.config)?;
        outputs.check(&self.config, batch, self.has_pooler(), self.weights.head.as_ref())?;
        if batch.is_empty() {
            return Ok(());
        }
        let position_ids = batch.own_position_ids(&self.config);
        let batch = &Batch { position_ids: position_ids.as_deref().or(batch.position_ids), ..*batch };
        let mut plan = self.plans.take().unwrap_or_default();
        team.expect(plan::expected_time(&self.config, batch));
        plan.make(&self.config, batch, team.size(), team.together());
        if outputs.attentions.is_some() {
            plan.sum_squares(batch);
        }
        let sinks = Sinks {
            last_hidden_state: outputs.last_hidden_state.map(Shared::new),
            pooler_output: outputs.pooler_output.map(Shared::new),
            hidden_states: outputs.hidden_states.map(Shared::new),
            attentions: outputs.attentions.map(|out| (Shared::new(out), plan.squares_before())),
            pooled: outputs.pooled.map(|p| (Shared::new(p.out), p.modes, p.skip, p.normalize)),
            head: outputs.head.map(HeadOutputs::shared),
        };
        let result = self.run_steps(team, &plan, batch, &sinks, limit, interrupted);
        if plan.is_worth_keeping() {
            self.plans.give_back(plan);
        }
        result
    }

    /// All groups of a plan, with a look at the signals and at who waits for a slot now and then.
    fn run_steps(
        &self,
        team: &mut Team<'_>,
        plan: &Plan,
        batch: &Batch<'_>,
        sinks: &Sinks<'_>,
        limit: usize,
        interrupted: impl Fn() -> bool,
    ) -> Result<()> {
        let mut next = 0;
        loop {
            let step = plan.step(next, team.size());
            next = step.end;
            self.run_groups(team, plan, step, batch, sinks)?;
            if next == plan.groups() {
                return Ok(());
            }
            // Without slots: a look at the signals waits for the interpreter, which others keep busy.
            if team.pause(limit, &interrupted) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Some groups of a plan in one dispatch.
    fn run_groups(
        &self,
        team: &mut Team<'_>,
        plan: &Plan,
        groups: Range<usize>,
        batch: &Batch<'_>,
        sinks: &Sinks<'_>,
    ) -> Result<()> {
        if plan.way == Way::Together {
            let mut arena = self.take_arena()?;
            let views = arena.views(self.extents(batch, plan, team.size()))?;
            team.run(team.together(), |member| {
                for group in groups.clone() {
                    // SAFETY: all members are here, and no other call has this arena.
                    unsafe { self.pass(batch, plan, group, views, sinks).run(&member) };
                    member.barrier();
                }
            });
            self.give_back_arena(arena);
            return Ok(());
        }
        let (next, failure) = (AtomicUsize::new(groups.start), Mutex::new(Ok(())));
        let limit = if plan.way == Way::Alone { 1 } else { groups.len() };
        team.draw(limit, |member| {
            let work = || -> Result<()> {
                let mut arena = self.take_arena()?;
                let views = arena.views(self.extents(batch, plan, 1))?;
                while !member.should_leave() {
                    let group = next.fetch_add(1, Ordering::Relaxed);
                    if group >= groups.end {
                        break;
                    }
                    // SAFETY: a team of one; the arena is this thread's, and each group is drawn once.
                    unsafe { self.pass(batch, plan, group, views, sinks).run(&member.alone()) };
                }
                self.give_back_arena(arena);
                Ok(())
            };
            if let Err(error) = work() {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_arena(&self) -> Result<Arena> {
        self.arenas.take().map_or_else(Arena::empty, Ok)
    }

    /// Keep an arena for the next call, unless it served an unusually long sequence: what is kept is bounded.
    fn give_back_arena(&self, arena: Arena) {
        let (rows, members) = (GROUP_TOKENS + USUAL_LENGTH, Pool::global().size());
        if arena.fits(self.extents_of(rows, USUAL_LENGTH, members)) {
            self.arenas.give_back(arena);
        }
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
        let attention_dtype = self.attention_dtype;
        Pass { config, weights, isa, attention_dtype, batch, group, starts, views, sinks }
    }

    fn extents(&self, batch: &Batch<'_>, plan: &Plan, members: usize) -> Extents {
        self.extents_of(plan.most_rows, batch.longest(), members)
    }

    fn extents_of(&self, rows: usize, longest: usize, members: usize) -> Extents {
        let hidden = panels_of(self.config.hidden_size);
        let head = panels_of(self.config.head_size());
        let qkv = (3 * self.config.num_attention_heads * head).max(2 * hidden);
        let qkv = qkv.max(hidden + panels_of(self.config.embedding_size));
        let inner = panels_of(self.config.intermediate_size);
        let operand = self.weights.operand_panels();
        Extents { rows, longest, members, hidden, qkv, inner, head, operand }
    }
}

/// The type of each layer: one stands for all.
///
/// # Errors
/// [`Error::Value`] for another number of them.
fn one_for_each(dtypes: &[Dtype], layers: usize) -> Result<Vec<Dtype>> {
    match dtypes {
        [one] => Ok(vec![*one; layers]),
        all if all.len() == layers => Ok(all.to_vec()),
        all => {
            let got = all.len();
            Err(Error::Value(format!("dtype: expected one or {layers}, one for each layer, got {got}")))
        }
    }
}
