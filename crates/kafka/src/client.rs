//! What every client of the broker has in common: settings, logs, errors.

use std::time::Duration;

use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError as ClientError, RDKafkaErrorCode as Code},
};

use crate::{Config, KafkaError};

/// Passes on what librdkafka logs, at our levels: that a broker is away is told by whoever notices it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet;

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
    }
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

/// What the client says, as an error of ours.
pub(crate) fn failure(brokers: &str, error: &ClientError) -> KafkaError {
    let brokers = brokers.to_owned();
    let reason = match error {
        // Its own words are about the message; what matters is why.
        ClientError::MessageProduction(code) | ClientError::Global(code) | ClientError::AdminOp(code) => {
            code.to_string()
        }
        other => other.to_string(),
    };
    let code = match error {
        ClientError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    };
    match code {
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication,
        ) => KafkaError::Refused { brokers, reason },
        _ => match error {
            ClientError::ClientConfig(_, description, key, _) => {
                KafkaError::Setting { key: format!("options.{key}"), reason: description.clone() }
            }
            _ => KafkaError::Unavailable { brokers, reason },
        },
    }
}

/// Makes those of the topics that are missing, where topics are to be made.
pub(crate) async fn make_topics(config: &Config, names: &[String]) -> Result<(), KafkaError> {
    if config.partitions == 0 {
        return Ok(());
    }
    let failed = |error: &ClientError| failure(&config.brokers, error);
    let timeout = Duration::from_secs(config.timeout_s);
    let admin: AdminClient<Quiet> =
        settings(config).create_with_context(Quiet).map_err(|error| failed(&error))?;
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
