//! Taking in interactions from elsewhere.
//!
//! A message's offset is let go of once what it says is in the journal, or it lies among the dead letters. So every message
//! is seen at least once, and as its ids follow from it, it is in the journal once. What cannot be read never stops what
//! comes after it; a store or a broker that is away stops everything until it is back.

use std::{sync::Arc, time::Duration};

use autoglm_domain::{Clock, Error, ErrorKind, Event, Store, if_found};
use rdkafka::{
    Message as _,
    consumer::{Consumer as _, StreamConsumer},
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::{
    Config, KafkaError, Place,
    client::{Quiet, failure, make_topics, producer_settings, settings},
    read,
};

/// Pause after a failure of the store or the broker.
const RETRY: Duration = Duration::from_secs(1);

/// Takes in one topic.
pub struct Ingest {
    config: Config,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    recorded: Box<dyn Fn() + Send + Sync>,
}

/// What became of a message.
enum Taken {
    /// It is in the journal now.
    Recorded,
    /// It was there already.
    Known,
    /// Nothing can be made of it.
    Dead(String),
}

impl Ingest {
    /// Takes in what `config.ingest` names. `recorded` is called after every append.
    ///
    /// # Errors
    /// [`KafkaError::Setting`], also for an option that librdkafka does not know.
    pub fn new(
        config: &Config,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        recorded: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, KafkaError> {
        config.validate()?;
        settings(config)
            .create_native_config()
            .map_err(|error| failure(&config.brokers, &error, &Quiet::default()))?;
        Ok(Self { config: config.clone(), store, clock, recorded: Box::new(recorded) })
    }

    /// Takes in messages until the task is dropped, which may be at any moment.
    pub async fn run(self) {
        let mut told: Option<String> = None;
        loop {
            let Err(error) = self.take_in(&mut told).await;
            let error = error.to_string();
            if told.as_ref() != Some(&error) {
                tracing::warn!(error, "interactions from elsewhere cannot be taken in");
            }
            told = Some(error);
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn take_in(&self, told: &mut Option<String>) -> Result<std::convert::Infallible, KafkaError> {
        let context = Quiet::default();
        let failed = |error| failure(&self.config.brokers, &error, &context);
        let consumer: StreamConsumer<Quiet> = settings(&self.config)
            .set("group.id", &self.config.ingest.group)
            // Offsets are committed once a second, and only those that are let go of below.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .create_with_context(context.clone())
            .map_err(failed)?;
        let dead_letters: FutureProducer<Quiet> =
            producer_settings(&self.config).create_with_context(context.clone()).map_err(failed)?;
        make_topics(&self.config, &[self.config.dead_letters()], &context).await?;
        consumer.subscribe(&[&self.config.ingest.topic]).map_err(failed)?;
        loop {
            let message = consumer.recv().await.map_err(failed)?;
            *told = None;
            let outcome = match self.record(&message).await {
                Taken::Recorded => "recorded",
                Taken::Known => "known",
                Taken::Dead(reason) => {
                    self.bury(&dead_letters, &message, &reason).await;
                    "dead_letter"
                }
            };
            metrics::counter!("autoglm_ingested_total", "outcome" => outcome).increment(1);
            consumer.store_offset_from_message(&message).map_err(failed)?;
        }
    }

    /// Appends what a message says, for as long as it takes.
    async fn record(&self, message: &BorrowedMessage<'_>) -> Taken {
        let place = Place {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
        };
        let events = match read(message.payload(), message.key(), &place, self.clock.now()) {
            Ok(events) => events,
            Err(error) => return Taken::Dead(error.to_string()),
        };
        loop {
            match self.store.append(events.clone()).await {
                Ok(()) => {
                    (self.recorded)();
                    return Taken::Recorded;
                }
                Err(error) => match self.settled(&events, error).await {
                    Ok(taken) => return taken,
                    Err(error) => {
                        tracing::warn!(%error, "an interaction from elsewhere waits for the store");
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
        }
    }

    /// What a refusal of the store means for the message; the error where it may go well later.
    async fn settled(&self, events: &[Event], error: Error) -> Result<Taken, Error> {
        match error.kind {
            ErrorKind::Conflict => {
                if self.is_known(events).await? {
                    Ok(Taken::Known)
                } else {
                    Err(error)
                }
            }
            ErrorKind::Invalid | ErrorKind::NotFound => Ok(Taken::Dead(error.message)),
            _ => Err(error),
        }
    }

    /// Whether the journal has what the message says.
    async fn is_known(&self, events: &[Event]) -> Result<bool, Error> {
        let Some(event) = events.first() else { return Ok(true) };
        let found = match event {
            Event::Interaction(it) => self.store.interaction(it.id).await.map(|_| true),
            Event::Feedback(it) => {
                let record = self.store.interaction(it.interaction).await;
                record.map(|record| record.feedback.iter().any(|known| known.id == it.id))
            }
            _ => Ok(false),
        };
        Ok(if_found(found)?.unwrap_or(false))
    }

    /// Puts a message among the dead letters, for as long as it takes.
    async fn bury(&self, producer: &FutureProducer<Quiet>, message: &BorrowedMessage<'_>, reason: &str) {
        let place = format!("{}/{}/{}", message.topic(), message.partition(), message.offset());
        tracing::warn!(reason, place, "a message from elsewhere is no interaction");
        let topic = self.config.dead_letters();
        let ours = [("autoglm-reason", reason), ("autoglm-place", &place)];
        let ours = ours.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers.fold(ours, OwnedHeaders::insert);
        loop {
            let mut record = FutureRecord::<[u8], [u8]>::to(&topic).headers(headers.clone());
            record.key = message.key();
            record.payload = message.payload();
            match producer.send(record, Duration::from_secs(self.config.timeout_s)).await {
                Ok(_) => return,
                Err((error, _)) => {
                    tracing::warn!(%error, topic, "a dead letter waits for the broker");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
