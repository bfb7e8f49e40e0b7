//! What every client of the broker has in common: settings, logs, errors.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError as ClientError, RDKafkaErrorCode as Code},
};

use crate::{Config, KafkaError};

/// Passes on what librdkafka logs, at our levels, and remembers what it last said of a broker: that one is away is told by
/// whoever notices it, who learns from the client itself no more than that it took too long.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quiet(Arc<Mutex<Option<Trouble>>>);

/// What is the matter with a broker.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    code: Code,
    reason: String,
}

impl Quiet {
    /// What the client last said.
    fn trouble(&self) -> Option<Trouble> {
        self.0.lock().clone()
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, message, "librdkafka");
            }
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        match error.rdkafka_error_code() {
            // It follows upon every other one, and says less.
            None | Some(Code::AllBrokersDown) => {}
            Some(code) => *self.0.lock() = Some(Trouble { code, reason: lasting(reason) }),
        }
    }
}

/// A reason without how long something took and how often it has been so, which differ each time:
/// `127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)`.
fn lasting(reason: &str) -> String {
    let end = reason.find(" (after ").or_else(|| reason.find("(after ")).unwrap_or(reason.len());
    reason.get(..end).unwrap_or(reason).trim_end().to_owned()
}

impl ConsumerContext for Quiet {}

/// The settings of every client. The person's options come first, so that ours hold.
pub(crate) fn settings(config: &Config) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("client.id", "autoglm");
    // Reconnects at once after a restart of the broker, and not a hundred times a second while it is away.
    settings.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "2000");
    for (key, value) in &config.options {
        settings.set(key, value);
    }
    settings.set("bootstrap.servers", &config.brokers);
    settings
}

/// The settings of a producer: what was acknowledged is on the broker, once and in order.
pub(crate) fn producer_settings(config: &Config) -> ClientConfig {
    let mut settings = settings(config);
    let timeout = Duration::from_secs(config.timeout_s).as_millis().to_string();
    if !config.options.contains_key("linger.ms") {
        settings.set("linger.ms", "5");
    }
    if !config.options.contains_key("message.max.bytes") {
        settings.set("message.max.bytes", "10000000");
    }
    settings.set("enable.idempotence", "true").set("acks", "all").set("message.timeout.ms", timeout);
    settings
}

/// What a client says, as an error of ours. `context` is the client's.
pub(crate) fn failure(brokers: &str, error: &ClientError, context: &Quiet) -> KafkaError {
    let brokers = brokers.to_owned();
    if let ClientError::ClientConfig(_, description, key, _) = error {
        return KafkaError::Setting { key: format!("options.{key}"), reason: description.clone() };
    }
    let mut code = match error {
        ClientError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    let mut reason = match error {
        // Its own words are about the message; what matters is why.
        ClientError::MessageProduction(code) | ClientError::Global(code) | ClientError::AdminOp(code) => {
            code.to_string()
        }
        other => other.to_string(),
    };
    // Why it took too long is known from what went before.
    if code.is_some_and(waited)
        && let Some(trouble) = context.trouble()
    {
        code = Some(trouble.code);
        reason = trouble.reason;
    }
    match code {
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::Authentication,
        ) => KafkaError::Refused { brokers, reason },
        Some(Code::SSL) => KafkaError::Untrusted { brokers, reason },
        _ => KafkaError::Unavailable { brokers, reason },
    }
}

/// Whether a client waited for a broker in vain.
fn waited(code: Code) -> bool {
    matches!(
        code,
        Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
    )
}

/// Makes those of the topics that are missing, where topics are to be made. `beside` is the context of another client of the
/// same broker: one that makes topics hears of no trouble.
pub(crate) async fn make_topics(config: &Config, names: &[String], beside: &Quiet) -> Result<(), KafkaError> {
    if config.partitions == 0 {
        return Ok(());
    }
    let failed = |error: &ClientError| failure(&config.brokers, error, beside);
    let timeout = Duration::from_secs(config.timeout_s);
    let admin: AdminClient<Quiet> =
        settings(config).create_with_context(Quiet::default()).map_err(|error| failed(&error))?;
    let partitions = i32::try_from(config.partitions).unwrap_or(i32::MAX);
    // -1 is the broker's own number.
    let replication = match config.replication {
        0 => -1,
        copies => i32::try_from(copies).unwrap_or(i32::MAX),
    };
    let topic = |name| NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
    let topics: Vec<_> = names.iter().map(|name| topic(name.as_str())).collect();
    let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
    let made = admin.create_topics(&topics, &options).await;
    // Ending a client waits for its threads.
    tokio::task::spawn_blocking(move || drop(admin));
    for made in made.map_err(|error| failed(&error))? {
        match made {
            Ok(topic) => tracing::info!(topic, "a topic was made"),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(failed(&ClientError::AdminOp(code))),
        }
    }
    Ok(())
}
