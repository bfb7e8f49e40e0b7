//! What is in the mirrors, read with the tools of others.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use autoglm_doubles::{KafkaBroker, run_python};

/// What a topic holds.
pub(crate) struct InKafka {
    /// Messages, repeats included.
    pub(crate) messages: usize,
    /// The request of each `seq`.
    pub(crate) by_seq: BTreeMap<i64, String>,
}

/// One partition after another and a little at a time. Tansu 0.6 looks for the headers of each message in a table that has no
/// index, which takes minutes for tens of thousands; it gets one first.
const CONSUMER: &str = r#"
import sys, json, sqlite3
from confluent_kafka import Consumer, TopicPartition, OFFSET_BEGINNING
data = sqlite3.connect(sys.argv[2], timeout=60)
data.execute('create index if not exists header_of on header (topition, offset_id)')
data.commit()
data.close()
consumer = Consumer({
    'bootstrap.servers': sys.argv[1], 'group.id': 'reader', 'enable.auto.commit': False, 'fetch.wait.max.ms': 50,
    'fetch.max.bytes': 262144, 'message.max.bytes': 262144, 'max.partition.fetch.bytes': 262144, 'socket.timeout.ms': 300000,
})
for part in consumer.list_topics('interactions', 60).topics['interactions'].partitions:
    part = TopicPartition('interactions', part)
    low, high = consumer.get_watermark_offsets(part, 60)
    part.offset = OFFSET_BEGINNING
    consumer.assign([part])
    at = low
    while at < high:
        message = consumer.poll(300)
        assert message is not None and not message.error(), (part, at, high, message and message.error())
        at = message.offset() + 1
        envelope = json.loads(message.value())
        print(envelope['seq'], envelope['data']['id'])
consumer.close()
"#;

/// Everything in the topic of interactions, as confluent-kafka reads it.
pub(crate) fn in_kafka(python: &PathBuf, broker: &KafkaBroker) -> InKafka {
    let data = broker.data().display().to_string();
    let mut found = InKafka { messages: 0, by_seq: BTreeMap::new() };
    for (seq, id) in run_python(python, CONSUMER, &[&broker.brokers(), &data]).lines().map(pair) {
        found.messages += 1;
        // A repeat is the same message.
        assert_eq!(*found.by_seq.entry(seq).or_insert_with(|| id.clone()), id);
    }
    found
}

fn pair(line: &str) -> (i64, String) {
    let (seq, id) = line.split_once(' ').unwrap();
    (seq.parse().unwrap(), id.to_owned())
}

const DUCKDB: &str = r#"
import sys, duckdb
rows = duckdb.sql(f"select seq, request_id from read_parquet('{sys.argv[1]}/event=interaction/*/*.parquet')").fetchall()
for seq, request in rows: print(seq, request)
"#;

/// The request of each `seq` in the lake, as DuckDB reads all files that are there.
pub(crate) fn in_lake(python: &PathBuf, lake: &Path) -> BTreeMap<i64, String> {
    let printed = run_python(python, DUCKDB, &[&lake.display().to_string()]);
    let mut found = BTreeMap::new();
    for (seq, id) in printed.lines().map(pair) {
        assert_eq!(found.insert(seq, id), None, "{seq} is there twice");
    }
    found
}
