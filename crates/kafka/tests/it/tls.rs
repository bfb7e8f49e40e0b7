//! TLS to a real broker that stands behind a front, as Tansu's own does not start.

use std::collections::BTreeSet;

use autoglm_doubles::{Certificate, KafkaBroker, TlsFront, lake_python, run_python};
use autoglm_kafka::Config;

use crate::faults::World;

/// A broker with a certificate for `name`, and the file of its authority.
struct Secured {
    broker: KafkaBroker,
    front: TlsFront,
    folder: tempfile::TempDir,
}

impl Secured {
    fn start(name: &str) -> Option<Self> {
        let certificate = Certificate::of(name);
        let mut front = TlsFront::new(&certificate);
        let mut broker = KafkaBroker::stopped_behind(front.port())?;
        broker.resume();
        front.before(broker.port());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("authority.pem"), certificate.authority).unwrap();
        Some(Self { broker, front, folder })
    }

    fn authority(&self) -> String {
        self.folder.path().join("authority.pem").display().to_string()
    }

    fn config(&self, options: &[(&str, &str)]) -> Config {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let brokers = format!("127.0.0.1:{}", self.front.port());
        Config { brokers, timeout_s: 5, options, ..Config::default() }
    }
}

const READER: &str = r#"
import sys, json
from confluent_kafka import Consumer, TopicPartition, OFFSET_BEGINNING
reader = Consumer({'bootstrap.servers': sys.argv[1], 'group.id': 'reader', 'security.protocol': 'ssl', 'ssl.ca.location': sys.argv[2]})
for number in reader.list_topics('interactions', 20).topics['interactions'].partitions:
    part = TopicPartition('interactions', number, OFFSET_BEGINNING)
    low, high = reader.get_watermark_offsets(part, 20)
    reader.assign([part])
    for _ in range(high - low):
        print(json.loads(reader.poll(30).value())['seq'])
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_over_tls() {
    let (Some(secured), Some(python)) = (Secured::start("127.0.0.1"), lake_python()) else { return };
    let authority = secured.authority();
    let config = secured.config(&[("security.protocol", "ssl"), ("ssl.ca.location", &authority)]);
    let world = World::new(config.clone());
    world.asked(1..200).await;
    world.until_healthy().await;
    let read =
        tokio::task::spawn_blocking(move || run_python(&python, READER, &[&config.brokers, &authority]));
    let read: Vec<i64> = read.await.unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!((read.len(), BTreeSet::from_iter(read)), (199, (1..200).collect()));
    drop(secured.broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_vouches_for_or_of_another_name_is_not_believed() {
    let Some(secured) = Secured::start("127.0.0.1") else { return };
    let world = World::new(secured.config(&[("security.protocol", "ssl")]));
    world.asked(1..4).await;
    let state = world.until(|state| state.failures > 1).await;
    assert_eq!((state.seq, state.behind), (0, 3));

    let Some(other) = Secured::start("kafka.example") else { return };
    let authority = other.authority();
    let world = World::new(other.config(&[("security.protocol", "ssl"), ("ssl.ca.location", &authority)]));
    world.asked(1..4).await;
    let state = world.until(|state| state.failures > 1).await;
    assert_eq!((state.seq, state.behind), (0, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tls_a_broker_that_has_it_takes_nothing() {
    let Some(secured) = Secured::start("127.0.0.1") else { return };
    let world = World::new(secured.config(&[]));
    world.asked(1..4).await;
    let state = world.until(|state| state.failures > 0).await;
    assert_eq!((state.seq, state.behind), (0, 3));
}
