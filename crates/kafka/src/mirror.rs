//! The mirror: every event as a message, acknowledged by the broker before the cursor moves.
//!
//! The producer is idempotent, so what the client itself sends again comes once. A batch that is repeated after a crash or
//! a failure comes twice, with the same `seq` in each message.

use std::time::Duration;

use autoglm_domain::{Mirror, RecordedEvent, Span, Store};
use futures::future::join_all;
use parking_lot::Mutex;
use rdkafka::{
    error::{KafkaError as ClientError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
};

use crate::{
    Config, Envelope, KafkaError, SCHEMA, TOPICS, Topic,
    client::{Quiet, failure, make_topics, producer_settings},
    topic,
};

/// Events that are read from the journal at a time.
const PAGE: usize = 500;
/// Wait before the journal is looked at again.
const PACE: Duration = Duration::from_millis(200);

type Producer = FutureProducer<Quiet>;

/// The journal in six topics.
pub struct KafkaMirror {
    config: Config,
    journal: std::sync::Arc<dyn Store>,
    /// Made at the first batch, and anew after each failure: a producer that has met a fatal error is of no use.
    producer: Mutex<Option<Producer>>,
    /// That of the latest producer.
    context: Mutex<Quiet>,
}

impl KafkaMirror {
    /// The mirror of `journal` that `config` names. No broker is asked for anything yet.
    ///
    /// # Errors
    /// [`KafkaError::Setting`], also for an option that librdkafka does not know.
    pub fn new(config: &Config, journal: std::sync::Arc<dyn Store>) -> Result<Self, KafkaError> {
        config.validate()?;
        producer_settings(config)
            .create_native_config()
            .map_err(|error| failure(&config.brokers, &error, &Quiet::default()))?;
        let (producer, context) = (Mutex::new(None), Mutex::default());
        Ok(Self { config: config.clone(), journal, producer, context })
    }

    fn failure(&self, error: &ClientError) -> KafkaError {
        failure(&self.config.brokers, error, &self.context.lock())
    }

    fn topic_name(&self, topic: Topic) -> String {
        format!("{}{topic}", self.config.topic_prefix)
    }

    async fn send(&self, span: Span) -> Result<(), KafkaError> {
        let producer = self.producer().await?;
        let sent = self.send_through(&producer, span).await;
        if sent.is_err() {
            // With everything that it still has in its queue: the whole batch is sent again.
            let mut kept = self.producer.lock();
            let spent = (kept.take(), producer);
            // Ending it waits for the broker.
            tokio::task::spawn_blocking(move || drop(spent));
        }
        sent
    }

    async fn producer(&self) -> Result<Producer, KafkaError> {
        if let Some(producer) = self.producer.lock().clone() {
            return Ok(producer);
        }
        let context = Quiet::default();
        *self.context.lock() = context.clone();
        let producer: Producer = producer_settings(&self.config)
            .create_with_context(context.clone())
            .map_err(|error| self.failure(&error))?;
        make_topics(&self.config, &TOPICS.map(|topic| self.topic_name(topic)), &context).await?;
        *self.producer.lock() = Some(producer.clone());
        Ok(producer)
    }

    async fn send_through(&self, producer: &Producer, span: Span) -> Result<(), KafkaError> {
        let mut pages = span.pages(&*self.journal, PAGE);
        while let Some(page) = pages.next().await? {
            self.send_page(producer, &page).await?;
        }
        Ok(())
    }

    /// Sends a page, and waits until the broker has acknowledged every message of it.
    async fn send_page(&self, producer: &Producer, page: &[RecordedEvent]) -> Result<(), KafkaError> {
        let mut messages = Vec::with_capacity(page.len());
        for recorded in page {
            messages.push(Message::of(recorded, self.topic_name(topic(&recorded.event)))?);
        }
        // Queued in order, as a queue that is full makes later ones wait; then waited for together.
        let mut reports = Vec::with_capacity(messages.len());
        for message in &messages {
            let queued = match Self::queue(producer, message, &message.value).await {
                // The client itself knows that the broker would not take it.
                Err(error) if is_too_large(&error) => {
                    Self::queue(producer, message, &message.without_data()).await
                }
                queued => queued,
            };
            reports.push(queued.map_err(|error| self.failure(&error))?);
        }
        for (message, report) in messages.into_iter().zip(join_all(reports).await) {
            match report {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) if is_too_large(&error) => {
                    self.send_without_data(producer, message).await?
                }
                Ok(Err((error, _))) => return Err(self.failure(&error)),
                Err(_) => return Err(self.failure(&ClientError::Canceled)),
            }
        }
        Ok(())
    }

    /// Hands a message to the client, once its queue has room.
    async fn queue(
        producer: &Producer,
        message: &Message,
        value: &[u8],
    ) -> Result<DeliveryFuture, ClientError> {
        loop {
            let error = match producer.send_result(message.record(value)) {
                Ok(report) => return Ok(report),
                Err((error, _)) => error,
            };
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => return Err(error),
            }
        }
    }

    /// A message that no broker takes would hold up all that follow: its place is kept, and readers learn its size.
    async fn send_without_data(&self, producer: &Producer, message: Message) -> Result<(), KafkaError> {
        tracing::warn!(
            seq = message.envelope.seq,
            bytes = message.value.len(),
            "an event is larger than the broker takes"
        );
        let value = message.without_data();
        let sent = producer.send(message.record(&value), Duration::from_secs(self.config.timeout_s)).await;
        sent.map(drop).map_err(|(error, _)| self.failure(&error))
    }
}

#[async_trait::async_trait]
impl Mirror for KafkaMirror {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn pace(&self) -> Duration {
        PACE
    }

    fn batch_end(&self, after: i64, last: i64) -> i64 {
        last.min(after.saturating_add(self.config.batch.into()))
    }

    /// See [`Mirror::deliver`]. Delivered again, messages have the same `seq`.
    async fn deliver(&self, span: Span) -> autoglm_domain::Result<()> {
        Ok(self.send(span).await?)
    }
}

/// An event ready to be sent.
struct Message {
    topic: String,
    envelope: Envelope,
    value: Vec<u8>,
}

impl Message {
    fn of(recorded: &RecordedEvent, topic: String) -> Result<Self, KafkaError> {
        let envelope = Envelope::of(recorded)?;
        Ok(Self { topic, value: envelope.to_bytes()?, envelope })
    }

    fn without_data(&self) -> Vec<u8> {
        let (seq, bytes) = (self.envelope.seq, self.value.len());
        tracing::warn!(seq, bytes, "an event is larger than the broker takes and goes without its data");
        // What was written once is written again.
        self.envelope.clone().without_data(self.value.len()).to_bytes().unwrap_or_default()
    }

    fn record<'a>(&'a self, value: &'a [u8]) -> FutureRecord<'a, str, [u8]> {
        let (schema, seq) = (SCHEMA.to_string(), self.envelope.seq.to_string());
        let headers = [
            ("content-type", "application/json"),
            ("autoglm-schema", schema.as_str()),
            ("autoglm-event", self.envelope.event.as_str()),
            ("autoglm-seq", seq.as_str()),
        ];
        let headers = headers.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        FutureRecord::to(&self.topic)
            .key(self.envelope.key.as_str())
            .payload(value)
            .timestamp(self.envelope.at.0)
            .headers(headers)
    }
}

fn is_too_large(error: &ClientError) -> bool {
    error.rdkafka_error_code() == Some(Code::MessageSizeTooLarge)
}
