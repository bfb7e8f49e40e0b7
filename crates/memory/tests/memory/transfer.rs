//! Export and import.

use autoglm_domain::Store as _;
use autoglm_memory::{BrokenLine, Config, Imported};

use crate::Bench;

async fn exported() -> (Bench, String) {
    let bench = Bench::new(Config::default()).await;
    bench.correct("open hours", "9 to 5", "a").await;
    bench.correct("open hours", "10 to 6", "b").await;
    bench.correct("open hours", "9 to 5", "c").await;
    bench.correct("where are you", "main street", "a").await;
    let mut text = Vec::new();
    assert_eq!(bench.memory.export(&mut text).unwrap(), 3);
    (bench, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn what_was_exported_is_imported_as_it_was_and_twice_is_once() {
    let (source, text) = exported().await;
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains("embedding"));
    let bench = Bench::new(Config::default()).await;
    let first = bench.memory.import(text.as_bytes(), false).await.unwrap();
    assert_eq!(first, Imported { added: 3, merged: 0, broken: Vec::new() });
    assert_eq!(bench.answer("open hours").as_deref(), Some("9 to 5"));
    let mut here = bench.store.experiences().await.unwrap();
    let mut there = source.store.experiences().await.unwrap();
    here.sort_by_key(|experience| experience.id);
    there.sort_by_key(|experience| experience.id);
    for (a, b) in here.iter().zip(&there) {
        assert_eq!((a.weight, &a.provenance, &a.embedding), (b.weight, &b.provenance, &b.embedding));
    }
    let appends = bench.store.appends();
    let second = bench.memory.import(text.as_bytes(), false).await.unwrap();
    assert_eq!((second.added, second.merged), (0, 3));
    assert_eq!(bench.store.appends(), appends);
}

#[tokio::test]
async fn a_broken_line_is_named_and_the_rest_goes_on_when_asked() {
    let (_, text) = exported().await;
    let lines: Vec<&str> = text.lines().collect();
    let broken = format!("{}\n\n{{\"id\": 3}}\nnot json\n{}\n{{\"id\"", lines[0], lines[2]);
    let bench = Bench::new(Config::default()).await;
    let error = bench.memory.import(broken.as_bytes(), false).await.unwrap_err();
    assert!(error.to_string().starts_with("line 3 is not an experience: "), "{error}");
    assert_eq!(bench.memory.stats().experiences, 0);
    let domain: autoglm_domain::Error = error.into();
    assert_eq!(domain.hint.as_deref(), Some("`keep_going` imports the other lines"));
    let report = bench.memory.import(broken.as_bytes(), true).await.unwrap();
    assert_eq!(report.added, 2);
    assert_eq!(report.broken.iter().map(|BrokenLine { line, .. }| *line).collect::<Vec<_>>(), [3, 4, 6]);
}

#[tokio::test]
async fn an_import_cannot_give_one_voice_more_than_it_could_have_here() {
    let (_, text) = exported().await;
    let loud = text.lines().nth(2).unwrap().replace("\"permille\":1000", "\"permille\":2000000");
    assert_ne!(loud, text.lines().nth(2).unwrap());
    let bench = Bench::new(Config::default()).await;
    bench.memory.import(loud.as_bytes(), false).await.unwrap();
    assert!(bench.store.experiences().await.unwrap()[0].weight < 1.5);
}
