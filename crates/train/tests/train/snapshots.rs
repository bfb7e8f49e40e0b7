//! Snapshots are stable, readable, and refused when they are not what they say.

use autoglm_domain::{ContentHash, ErrorKind, Event, ModelVersion, Store as _, VersionNumber};
use autoglm_doubles::{MemoryStore, version};
use autoglm_train::{PlanConfig, Snapshot, Strategy, learned_by, plan};

use crate::{doubles::MemoryArtifacts, experience};

fn snapshot(ids: &[u128]) -> Snapshot {
    let new = ids.iter().map(|id| experience(*id, 0, "billing")).collect();
    let pool = vec![experience(90, 1, "a \"quoted\"\nline — ü")];
    let config = PlanConfig { strategy: Strategy::Joint, class_balance: false, ..PlanConfig::default() };
    Snapshot::of(&plan(new, pool, &config, 7).unwrap())
}

#[test]
fn the_stored_form_stays_as_it_is() {
    let text = String::from_utf8(snapshot(&[1]).to_bytes().unwrap()).unwrap();
    let expected = concat!(
        r#"{"format":"autoglm snapshot","version":1,"strategy":"joint","examples":2,"new":1,"replay":1}"#,
        "\n",
        r#"{"experience":"exp_00000000000000000000000000000001","role":"new","weight":1.0,"prompt":[{"role":"user","content":"question 1"}],"target":"billing"}"#,
        "\n",
        r#"{"experience":"exp_0000000000000000000000000000005a","role":"replay","weight":1.0,"prompt":[{"role":"user","content":"question 90"}],"target":"a \"quoted\"\nline — ü"}"#,
        "\n"
    );
    assert_eq!(text, expected);
    assert_eq!(Snapshot::from_bytes(text.as_bytes()).unwrap(), snapshot(&[1]));
}

#[test]
fn broken_snapshots_are_refused_with_the_line() {
    let sound = String::from_utf8(snapshot(&[1, 2]).to_bytes().unwrap()).unwrap();
    let lines: Vec<&str> = sound.lines().collect();
    for (text, expected) in [
        (String::new(), "line 1 of the snapshot: it is cut off"),
        (sound[..sound.len() - 1].to_owned(), "line 4 of the snapshot: it is cut off"),
        (sound.replace("autoglm snapshot", "parquet"), "line 1 of the snapshot: `parquet` version 1"),
        (
            sound.replace("\"version\":1", "\"version\":9"),
            "line 1 of the snapshot: `autoglm snapshot` version 9",
        ),
        (
            format!("{}\n{}\n", lines[0], lines[1]),
            "line 1 of the snapshot: it announces 3 examples (2 new, 1 replayed), 1 follow",
        ),
        (
            sound.replacen("\"role\":\"new\"", "\"role\":\"old\"", 1),
            "line 2 of the snapshot: unknown variant `old`",
        ),
    ] {
        let error = Snapshot::from_bytes(text.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    let mut bad = snapshot(&[1]);
    bad.examples[1].weight = f32::NAN;
    assert!(bad.to_bytes().unwrap_err().to_string().starts_with("line 3 of the snapshot"));
}

#[tokio::test]
async fn a_version_has_learned_what_it_and_its_ancestors_trained_on() {
    let (store, artifacts) = (MemoryStore::default(), MemoryArtifacts::default());
    let first = snapshot(&[1, 2]).store(&artifacts).await.unwrap();
    let second = snapshot(&[3]).store(&artifacts).await.unwrap();
    let register = async |number, parent, snapshot| {
        let version = ModelVersion { parent: VersionNumber(parent), snapshot, ..version(number) };
        store.append(vec![Event::Version(Box::new(version))]).await.unwrap();
    };
    for (number, parent, data) in
        [(1, 0, Some(first)), (2, 0, Some(second)), (3, 1, None), (4, 3, Some(second))]
    {
        register(number, parent, data).await;
    }
    let learned = async |number| -> Vec<u128> {
        let found = learned_by(&store, &artifacts, VersionNumber(number)).await.unwrap();
        found.into_iter().map(|id| id.uuid().as_u128()).collect()
    };
    assert_eq!(learned(0).await, [0u128; 0]);
    assert_eq!(learned(1).await, [1, 2, 90]);
    assert_eq!(learned(3).await, [1, 2, 90]);
    assert_eq!(learned(4).await, [1, 2, 3, 90]);

    register(5, 4, Some(ContentHash::of(b"gone"))).await;
    let error = learned_by(&store, &artifacts, VersionNumber(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    register(6, 6, None).await;
    let error = learned_by(&store, &artifacts, VersionNumber(6)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}
