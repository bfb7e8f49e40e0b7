//! Reads topics from their beginning to their present end.

use std::time::{Duration, Instant};

use autoglm_kafka::Envelope;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{FutureProducer, FutureRecord},
};

/// A message as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Read {
    pub(crate) fn envelope(&self) -> Envelope {
        serde_json::from_str(&self.value).unwrap()
    }
}

/// Everything in `topics`, in the order of each partition.
pub(crate) fn read_all(brokers: &str, topics: &[&str]) -> Vec<Read> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let timeout = Duration::from_secs(20);
    let (mut assignment, mut left) = (TopicPartitionList::new(), 0);
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), timeout).unwrap();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), timeout).unwrap();
            left += high - low;
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
    }
    consumer.assign(&assignment).unwrap();
    let (mut read, begin) = (Vec::new(), Instant::now());
    while left > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{left} messages are not read");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        read.push(Read {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            key: message.key().map(text),
            value: message.payload().map(text).unwrap_or_default(),
            headers: headers.map(|it| (it.key.to_owned(), text(it.value.unwrap()))).collect(),
        });
        left -= 1;
    }
    read
}

/// Sends one message.
pub(crate) async fn send(brokers: &str, topic: &str, key: Option<&str>, value: &str) {
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let record = FutureRecord { key, ..FutureRecord::to(topic).payload(value) };
    producer.send(record, Duration::from_secs(20)).await.unwrap();
}

/// Makes a topic of two partitions.
pub(crate) async fn make_topic(brokers: &str, name: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(name, 2, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
}
