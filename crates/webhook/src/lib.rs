//! Webhooks: other systems hear of versions, are asked about candidates, and announce models of their own.
//!
//! *Out* ([`Follower`]): events of the journal that concern versions, as signed `POST`s, in order for each hook, at
//! least once, from a cursor that outlives the process. *Asked* ([`Gates`]): a question at the doors of a rollout,
//! whose answer can only hold a candidate up or send it away. *In* ([`Inbound`]): whether an announcement was signed
//! with the shared secret, lately, and not seen before. [`Config`] says where and with which secrets. Nothing here
//! knows what a version is made of, moves an alias or serves HTTP.
//!
//! A signature is `HMAC-SHA256(secret, timestamp "." body)`; see [`fn@sign`] and `docs/webhooks.md`.

mod config;
mod error;
mod secret;
mod sign;

mod backoff;
mod post;

mod follow;
mod gates;
mod inbound;
mod notice;

pub use backoff::Backoff;
pub use config::{Config, GateConfig, HookConfig, InboundConfig};
pub use error::{Result, WebhookError};
pub use follow::Follower;
pub use gates::Gates;
pub use inbound::Inbound;
pub use notice::NoticeKind;
pub use secret::Secret;
pub use sign::{DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign, verify};
