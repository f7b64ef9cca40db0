//! What a model has besides its embeddings and layers: a pooler, a head.

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::head::{Head, Labels, Task};
use crate::{Error, Result};

/// Which of the parts that a model may do without it has.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// The dense layer on the first token.
    pub pooler: bool,
    /// The head that was asked for.
    pub head: Option<HeadPlan>,
}

/// A head, with what only a checkpoint knows about it.
#[derive(Clone, Debug)]
pub struct HeadPlan {
    /// What it is made of.
    pub head: &'static Head,
    /// Outputs of a row (K).
    pub outputs: usize,
    /// The tensors of its linear map: the weight may be the word embeddings.
    pub weight: String,
    /// See there.
    pub bias: String,
}

impl HeadPlan {
    /// Width of what its linear map reads.
    pub fn inputs(&self, config: &Config) -> usize {
        match &self.head.layer {
            Some(layer) if layer.norm.is_some() => config.embedding_size,
            _ => config.hidden_size,
        }
    }

    /// Whether its layer is the model's pooler.
    pub fn has_pooler(&self, config: &Config) -> bool {
        self.head.layer.as_ref().is_some_and(|layer| Some(layer.name) == config.family.names.pooler)
    }
}

/// The head of a family for a task.
///
/// # Errors
/// [`Error::Value`] naming those that there are.
pub fn head_for(config: &Config, task: Task) -> Result<&'static Head> {
    let heads = config.family.heads;
    heads.iter().find(|head| head.task == task).ok_or_else(|| {
        let known: Vec<_> = heads.iter().map(|head| head.task.name()).collect();
        let family = config.family.model_types[0];
        Error::Value(format!(
            "head: expected one of {} for a model of type {family:?}, got {:?}",
            known.join(", "),
            task.name()
        ))
    })
}

impl Extras {
    /// What a checkpoint has, and the head for a task.
    ///
    /// # Errors
    /// [`Error::Value`] for a task that the family has no head for, [`Error::Checkpoint`] if the head is not there or
    /// has another number of outputs than its task.
    pub fn of(config: &Config, checkpoint: &Checkpoint, task: Option<Task>) -> Result<Self> {
        let pooler = config.family.names.pooler;
        let pooler = pooler.is_some_and(|name| checkpoint.contains(&format!("{name}.weight")));
        let Some(task) = task else { return Ok(Self { pooler, head: None }) };
        let head = head_for(config, task)?;
        let [mut weight, mut bias] = ["weight", "bias"].map(|kind| format!("{}.{kind}", head.name));
        // One that is there is the map's own: the other is tied to it where both are.
        if let Some(other) = head.bias.filter(|_| !checkpoint.contains(&bias)) {
            other.clone_into(&mut bias);
        }
        if task.labels() == Labels::Vocabulary && !checkpoint.contains(&weight) {
            weight = super::structure::words(config);
        }
        let missing = [&weight, &bias].into_iter().find(|name| !checkpoint.contains(name));
        if let Some(name) = missing {
            return Err(
                checkpoint.error(format!("this model has no head for {}: {name} is missing", task.name()))
            );
        }
        let rows = || checkpoint.raw(&weight).and_then(|raw| raw.shape.first().copied());
        let outputs = task.labels().known(config.vocab_size).or_else(rows).unwrap_or(0);
        if outputs == 0 {
            return Err(
                checkpoint.unusable(&[format!("{weight}: expected a row for each label, found none")])
            );
        }
        let plan = HeadPlan { head, outputs, weight, bias };
        Ok(Self { pooler: pooler || plan.has_pooler(config), head: Some(plan) })
    }
}
