//! What is in the mirrors, read with the tools of others.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use autoglm_doubles::run_python;

/// What a topic holds.
pub(crate) struct InKafka {
    /// Messages, repeats included.
    pub(crate) messages: usize,
    /// The request of each `seq`.
    pub(crate) by_seq: BTreeMap<i64, String>,
}

const CONSUMER: &str = r#"
import sys, json
from confluent_kafka import Consumer, TopicPartition, OFFSET_BEGINNING
consumer = Consumer({'bootstrap.servers': sys.argv[1], 'group.id': 'reader', 'enable.auto.commit': False})
parts = [TopicPartition('interactions', part) for part in consumer.list_topics('interactions', 20).topics['interactions'].partitions]
left = sum(high - low for low, high in (consumer.get_watermark_offsets(part, 20) for part in parts))
for part in parts: part.offset = OFFSET_BEGINNING
consumer.assign(parts)
while left:
    message = consumer.poll(99)
    assert message is not None and not message.error(), (left, message and message.error())
    envelope = json.loads(message.value())
    print(envelope['seq'], envelope['data']['id'])
    left -= 1
consumer.close()
"#;

/// Everything in the topic of interactions, as confluent-kafka reads it.
pub(crate) fn in_kafka(python: &PathBuf, brokers: &str) -> InKafka {
    let mut found = InKafka { messages: 0, by_seq: BTreeMap::new() };
    for (seq, id) in run_python(python, CONSUMER, &[brokers]).lines().map(pair) {
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
