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
//! * **An answer that was received is recorded.** The interaction is recorded before a plain response is
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
//! was drawn. Both completion endpoints give ids that begin with `chatcmpl-`; a response's begins with `resp_`
//! and has the same digits as its interaction, so that feedback takes either.
//!
//! * **Forms.** A schema in `response_format` is followed whether it is `strict` or not; keywords that cannot be
//!   followed are refused. A remembered answer is used only where it has the form.
//! * **Tools.** A tool's call is told once it is whole; what is no call after all comes as text. Calls are held
//!   to their schemas where `tool_choice` requires them; with `auto` the model is free, `strict` or not. With
//!   tools, memory gives examples but no answers. A forced call ends with `tool_calls`, as any other.
//! * **Trainers.** `return_token_ids` and `prompt_logprobs` are vLLM's. With them, and with `echo`, memory has no
//!   part in the answer; every token is reported then, also the one that ends it.
//! * **Responses.** Every response is stored, as every answer is; `previous_response_id` continues what its
//!   principal asked before, and takes the id of a chat answer as well.

mod config;
mod error;
mod fields;
mod ports;

mod chat_request;
mod completion_request;
mod request;
mod response_format;
mod responses_request;
mod sampling;
mod tools;

mod choice;
mod exchange;
mod logprobs;
mod record;
mod response_body;
mod response_events;
mod shadow;
mod sse;
mod whole;
mod wire;

mod ab_tests;
mod admin;
mod completions;
mod embeddings;
mod feedback;
mod health;
mod models;
mod responses;
mod rollouts;
mod webhooks;

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
    AbOrder, Admin, AliasTable, Announced, Announcement, Announcements, Example, ModelEntry, ModelKind,
    ModelSource, Observer, Promotion, Recall, RecallDecision, RecallMode, Rollback, RolloutAction,
    RolloutOrder, RolloutStart, Route, Shadow, ShadowRequest, TrainOrder,
};
pub use serve::bind;
