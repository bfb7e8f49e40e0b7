//! `docs/events.md` shows what the code writes.

use std::{collections::BTreeSet, path::Path};

use autoglm_domain::RecordedEvent;
use autoglm_doubles::samples;
use autoglm_kafka::{Envelope, SCHEMA, TOPICS, topic};

const PAGE: &str = "../../docs/events.md";
const MARK: &str = "<!-- examples -->\n";

fn recorded() -> impl Iterator<Item = RecordedEvent> {
    (1..).zip(samples::events()).map(|(seq, event)| RecordedEvent { seq, event })
}

fn examples() -> String {
    let example = |recorded: RecordedEvent| {
        let envelope = serde_json::to_string_pretty(&Envelope::of(&recorded).unwrap()).unwrap();
        format!(
            "\n### `{}` in `{}`\n\n```json\n{envelope}\n```\n",
            recorded.event.name(),
            topic(&recorded.event)
        )
    };
    recorded().map(example).collect()
}

#[test]
fn the_page_shows_what_is_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (text, shown) = page.split_once(MARK).unwrap();
    if std::env::var_os("WRITE_EVENTS").is_some() {
        std::fs::write(&path, format!("{text}{MARK}{}", examples())).unwrap();
        return;
    }
    assert!(shown == examples(), "write it anew: WRITE_EVENTS=1 cargo test -p autoglm-kafka");
    for topic in TOPICS {
        assert!(text.contains(&format!("| `{topic}` |")), "{topic} is in the table");
    }
}

#[test]
fn every_topic_and_event_has_an_example_and_reads_back() {
    let topics: BTreeSet<_> = recorded().map(|it| topic(&it.event)).collect();
    assert_eq!(topics.len(), TOPICS.len());
    for recorded in recorded() {
        let envelope = Envelope::of(&recorded).unwrap();
        assert_eq!((envelope.schema, envelope.seq), (SCHEMA, recorded.seq));
        assert_eq!(serde_json::from_slice::<Envelope>(&envelope.to_bytes().unwrap()).unwrap(), envelope);
        assert!(!envelope.key.is_empty());
        let small = envelope.without_data(9).to_bytes().unwrap();
        assert!(String::from_utf8(small).unwrap().ends_with(r#""data":null,"left_out_bytes":9}"#));
    }
}
