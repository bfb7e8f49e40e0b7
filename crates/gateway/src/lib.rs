//! HTTP: the OpenAI API, feedback, a small admin API, health and metrics.
//!
//! What comes in is bytes from clients; what goes out are calls to ports (a [`Generator`], an [`Embedder`],
//! a [`Store`], and the small ports of this crate) and answers in OpenAI's form. No engine, database or
//! registry is known here: [`Gateway`] holds ports, [`Gateway::router`] turns them into routes and
//! [`Gateway::serve`] answers on a listener until it is told to stop.
//!
//! [`Generator`]: autoglm_domain::Generator
//! [`Embedder`]: autoglm_domain::Embedder
//! [`Store`]: autoglm_domain::Store
//!
//! # What a client may rely on
//!
//! * **The version is fixed when the request begins.** The `model` name is resolved once; that version
//!   answers whatever is promoted meanwhile. `x-autoglm-model-version` names it, `x-request-id` is the
//!   completion's `id`.
//! * **An answer that was received is recorded.** The interaction is durable before a plain response is
//!   sent and before the last chunk of a stream. If it cannot be recorded, the plain response is a 503 and
//!   the stream ends with an error event instead of `[DONE]`.
//! * **A client that goes away frees the engine.** The generation is cancelled and what there was of the
//!   answer is recorded as cancelled.
//! * **Every choice is an interaction.** With `n > 1`, or several prompts, choice 0 has the completion's
//!   `id`; each choice names its own in `choices[i].autoglm.id`, and feedback takes any of them. With a
//!   `seed`, choice `i` draws from `seed + i`.
//! * **Nothing is ignored silently.** A field that would change the answer and cannot be honoured is
//!   refused by name, and so is an unknown one; fields of OpenAI's that do not change it are accepted.
//!
//! # Where it differs from OpenAI
//!
//! `temperature` defaults to 0, not 1: a server whose point is that corrected answers stay corrected must
//! not roll dice unasked (the default is [`Config::temperature`]). `model` may be left out and is then
//! `champion`. `top_k`, `min_p`, `repetition_penalty` and `autoglm: {"recall": "off" | "examples" |
//! "answer"}` are understood as well. An answer from memory carries empty log-probabilities: no token of it
//! was drawn. Both completion endpoints give ids that begin with `chatcmpl-`.

mod config;
mod error;
mod fields;
mod ports;

mod chat_request;
mod completion_request;
mod request;
mod sampling;

mod exchange;
mod logprobs;
mod record;
mod sse;
mod whole;
mod wire;

mod admin;
mod completions;
mod embeddings;
mod feedback;
mod health;
mod models;

mod gateway;
mod intake;
mod metrics_page;
mod principal;
mod serve;

pub use config::{Config, Keys};
pub use error::GatewayError;
pub use gateway::Gateway;
pub use metrics_page::MetricsPage;
pub use ports::{
    Admin, AliasTable, Example, ModelEntry, ModelKind, Observer, Promotion, Recall, RecallDecision,
    RecallMode, Rollback, TrainOrder,
};
pub use serve::bind;
