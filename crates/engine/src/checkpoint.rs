//! The state of a training in progress as bytes: weights, optimiser, and whatever else says how far it is.
//!
//! Form: BLAKE3 of the rest (32 bytes), then safetensors with the tensors `weights.N`, `mean.N` and `variance.N` in the
//! order of [`AdapterWeights::tensors_mut`](crate::adapter::AdapterWeights::tensors_mut) and everything else as
//! JSON in the metadata.

use std::collections::HashMap;

use autoglm_domain::ContentHash;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{EngineError, Result, learner::Learner};

const FORMAT: &str = "autoglm training state 1";
/// Key of the metadata that holds the rest.
const REST: &str = "state";

#[derive(Serialize, Deserialize)]
struct Rest<S> {
    format: String,
    optimizer_step: i32,
    state: S,
}

fn damaged(what: impl std::fmt::Display) -> EngineError {
    EngineError::Checkpoint(what.to_string())
}

/// The state of `learner` between two steps, with `state` beside it.
pub(crate) fn write<S: Serialize>(learner: &mut Learner<'_>, state: &S) -> Result<Vec<u8>> {
    let rest = Rest { format: FORMAT.to_owned(), optimizer_step: learner.optimizer_step(), state };
    let rest = serde_json::to_string(&rest).map_err(|error| EngineError::Internal(error.to_string()))?;
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, of_name) in learner.state_mut() {
        for (at, (tensor, _)) in of_name.into_iter().enumerate() {
            tensors.push((format!("{name}.{at}"), tensor.iter().flat_map(|v| v.to_le_bytes()).collect()));
        }
    }
    let failed = |error: safetensors::SafeTensorError| EngineError::Internal(error.to_string());
    let views = tensors
        .iter()
        .map(|(name, bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(failed)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let body =
        safetensors::serialize(views, Some(HashMap::from([(REST.to_owned(), rest)]))).map_err(failed)?;
    Ok([&ContentHash::of(&body).0[..], &body].concat())
}

/// Puts `learner` into the state that [`write()`] wrote, and returns what was beside it.
///
/// # Errors
/// `Checkpoint` when the bytes are damaged or of another shape; the learner is not to be used then.
pub(crate) fn read<S: DeserializeOwned>(bytes: &[u8], learner: &mut Learner<'_>) -> Result<S> {
    let (hash, body) = bytes
        .split_first_chunk::<32>()
        .ok_or_else(|| damaged(format!("{} bytes are too few", bytes.len())))?;
    if ContentHash::of(body).0 != *hash {
        return Err(damaged("its content is not what was written"));
    }
    let (_, header) = SafeTensors::read_metadata(body).map_err(damaged)?;
    let rest = header.metadata().as_ref().and_then(|map| map.get(REST));
    let rest = rest.ok_or_else(|| damaged("it does not say what it is"))?;
    let rest: Rest<S> = serde_json::from_str(rest).map_err(damaged)?;
    if rest.format != FORMAT {
        return Err(damaged(format!("it is `{}`, not `{FORMAT}`", rest.format)));
    }
    let tensors = SafeTensors::deserialize(body).map_err(damaged)?;
    learner.set_optimizer_step(rest.optimizer_step);
    let mut count = 0;
    for (name, of_name) in learner.state_mut() {
        for (at, (tensor, _)) in of_name.into_iter().enumerate() {
            let name = format!("{name}.{at}");
            let view = tensors.tensor(&name).map_err(damaged)?;
            let (values, _) = view.data().as_chunks::<4>();
            if view.dtype() != Dtype::F32 || values.len() != tensor.len() {
                return Err(damaged(format!("`{name}` is not {} values", tensor.len())));
            }
            tensor.iter_mut().zip(values).for_each(|(to, from)| *to = f32::from_le_bytes(*from));
            count += 1;
        }
    }
    if count != tensors.len() {
        return Err(damaged(format!("it holds {} tensors instead of {count}", tensors.len())));
    }
    Ok(rest.state)
}
