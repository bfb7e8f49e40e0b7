//! Registering, finding and comparing versions.

use std::collections::BTreeMap;

use autoglm_domain::{
    ArtifactStore as _, ContentHash, ErrorKind, Event, HyperParameters, RunState, Store as _, Timestamp,
    TrainingRun, TrainingRunId, Trigger, VersionNumber,
};
use autoglm_registry::{NewVersion, version_hash};
use serde_json::json;

use crate::{World, new_version};

#[tokio::test]
async fn a_version_gets_the_next_number_and_the_hash_of_what_made_it() {
    let world = World::new().await;
    world.chain(2).await;
    let [first, second] = &world.store.versions().await.unwrap()[..] else { panic!("two versions") };
    assert_eq!((first.number, second.number), (VersionNumber(1), VersionNumber(2)));
    let packed = ContentHash::of(&new_version(0).adapter.pack());
    assert_eq!(first.adapter, packed);
    assert_eq!(first.hash, version_hash(packed, None, None, first.base, first.base).unwrap());
    let of_second = version_hash(second.adapter, None, None, first.hash, second.base).unwrap();
    assert_eq!(second.hash, of_second);
    assert_eq!(first.at, Timestamp(1_000));
    assert_eq!(world.registry.adapter(VersionNumber(1)).await.unwrap(), Some(new_version(0).adapter));
    assert_eq!(world.registry.adapter(VersionNumber::BASE).await.unwrap(), None);
}

#[tokio::test]
async fn the_same_content_is_the_same_version() {
    let world = World::new().await;
    let first = world.registry.register(new_version(0)).await.unwrap();
    let again = NewVersion { note: Some("once more".into()), ..new_version(0) };
    assert_eq!(world.registry.register(again).await.unwrap(), first);
    assert_eq!(world.store.versions().await.unwrap().len(), 1);
}

#[tokio::test]
async fn processes_that_register_at_once_get_different_numbers() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for process in 0..8u64 {
        let other = world.other().await;
        tasks.push(tokio::spawn(async move {
            for at in 0..4 {
                let adapter = crate::adapters::Peft::new(process * 4 + at).adapter();
                other.register(NewVersion { adapter, ..new_version(0) }).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let numbers: Vec<u64> = world.store.versions().await.unwrap().iter().map(|v| v.number.0).collect();
    assert_eq!(numbers, (1..=32).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_number_that_was_taken_meanwhile_is_replaced_by_the_next() {
    let world = World::new().await;
    let rival = {
        let elsewhere = World::new().await;
        elsewhere
            .registry
            .register(NewVersion { note: Some("rival".into()), ..new_version(6) })
            .await
            .unwrap_err();
        elsewhere
            .registry
            .register(NewVersion { parent: VersionNumber::BASE, ..new_version(6) })
            .await
            .unwrap()
    };
    world.store.intrude(vec![Event::Version(Box::new(rival))]);
    let version = world.registry.register(new_version(0)).await.unwrap();
    assert_eq!(version.number, VersionNumber(2));
}

fn run(id: u128, state: RunState) -> TrainingRun {
    TrainingRun {
        id: TrainingRunId::new(uuid::Uuid::from_u128(id)),
        at: Timestamp(0),
        ended_at: None,
        trigger: Trigger::Manual,
        base: ContentHash::of(b"base"),
        parent: VersionNumber::BASE,
        snapshot: ContentHash::of(b"snapshot"),
        new_experiences: 0,
        replayed_experiences: 0,
        strategy: "replay".into(),
        hyper: HyperParameters::default(),
        seed: 0,
        metrics: BTreeMap::new(),
        state,
    }
}

#[tokio::test]
async fn the_end_of_the_run_is_written_together_with_the_version() {
    let world = World::new().await;
    let end = |version: &autoglm_domain::ModelVersion| {
        vec![Event::Run(Box::new(run(1, RunState::Succeeded { version: version.number })))]
    };
    world.chain(1).await;
    let version = world.registry.register_with(new_version(1), end).await.unwrap();
    let events = world.store.events();
    let Some(Event::Run(run)) = events.last() else { panic!("a run: {events:?}") };
    assert_eq!(run.state, RunState::Succeeded { version: version.number });
    // Registered again, the run ends with the version that is there.
    world.registry.register_with(new_version(1), end).await.unwrap();
    assert_eq!(world.store.events().len(), 4);
    assert_eq!(world.store.versions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn parents_bases_and_metrics_are_checked() {
    let world = World::new().await;
    world.chain(1).await;
    let kind = |new| async { world.registry.register(new).await.unwrap_err().kind() };
    assert_eq!(kind(NewVersion { parent: VersionNumber(9), ..new_version(1) }).await, ErrorKind::NotFound);
    assert_eq!(kind(NewVersion { base: ContentHash::of(b"x"), ..new_version(1) }).await, ErrorKind::Invalid);
    let metrics = BTreeMap::from([("loss_last".to_owned(), f64::NAN)]);
    assert_eq!(kind(NewVersion { metrics, ..new_version(1) }).await, ErrorKind::Invalid);
    assert_eq!(world.store.versions().await.unwrap().len(), 1);
}

#[tokio::test]
async fn names_resolve() {
    let world = World::new().await;
    world.chain(3).await;
    world.registry.promote(VersionNumber(2), "me", "better", None).await.unwrap();
    let hash = world.registry.get(VersionNumber(3)).await.unwrap().hash.to_string();
    for (name, expected) in [
        ("champion", 2),
        ("base", 0),
        ("v0", 0),
        ("v3", 3),
        ("3", 3),
        (&hash, 3),
        (&hash[..6], 3),
        (&hash[..12].to_uppercase(), 3),
    ] {
        assert_eq!(world.registry.resolve(name).await.unwrap(), VersionNumber(expected), "{name}");
    }
    for name in ["candidate", "v4", "4", "", "zzzzzz", &hash[..5], "v", "vchampion"] {
        let error = world.registry.resolve(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        assert!(error.hint().is_some());
    }
}

#[tokio::test]
async fn lineage_leads_to_the_base_and_a_circle_is_an_error() {
    let world = World::new().await;
    world.chain(3).await;
    let line = world.registry.lineage(VersionNumber(3)).await.unwrap();
    assert_eq!(line.iter().map(|v| v.number.0).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(world.registry.lineage(VersionNumber::BASE).await.unwrap(), []);
    let mut circular = line[0].clone();
    circular.number = VersionNumber(4);
    circular.parent = VersionNumber(4);
    world.store.append(vec![Event::Version(Box::new(circular))]).await.unwrap();
    let error = world.registry.lineage(VersionNumber(4)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn versions_are_listed_with_their_aliases() {
    let world = World::new().await;
    world.chain(2).await;
    world.registry.promote(VersionNumber(2), "me", "better", None).await.unwrap();
    let staging = autoglm_domain::Alias("a-staging".into());
    world.registry.point(staging.clone(), None, VersionNumber(2), "me", "try", None).await.unwrap();
    let list = world.registry.list().await.unwrap();
    assert_eq!(list[0].aliases, []);
    assert_eq!(list[1].aliases, [staging, autoglm_domain::Alias::champion()]);
    assert_eq!(world.registry.show(VersionNumber(2)).await.unwrap(), list[1]);
    let json = serde_json::to_value(&list[1]).unwrap();
    assert_eq!((&json["number"], &json["aliases"][1]), (&json!(2), &json!("champion")));
}

#[tokio::test]
async fn a_diff_names_metrics_hyper_parameters_and_data() {
    let world = World::new().await;
    let snapshot = |ids: &[&str]| {
        let mut text = "{\"format\":\"autoglm snapshot\"}\n".to_owned();
        for id in ids {
            text += &format!("{{\"experience\":\"{id}\",\"target\":\"x\"}}\n");
        }
        world.artifacts.put(text.into_bytes())
    };
    let (old, new) =
        (snapshot(&["a", "b", "c"]).await.unwrap(), snapshot(&["b", "c", "d", "e"]).await.unwrap());
    let hyper = HyperParameters { rank: 8, ..HyperParameters::default() };
    let first = NewVersion { snapshot: Some(old), hyper: Some(HyperParameters::default()), ..new_version(0) };
    world.registry.register(first).await.unwrap();
    let metrics = BTreeMap::from([("loss_last".to_owned(), 0.5), ("steps".to_owned(), 9.0)]);
    let second = NewVersion { snapshot: Some(new), hyper: Some(hyper), metrics, ..new_version(1) };
    world.registry.register(second).await.unwrap();

    let diff = world.registry.diff(VersionNumber(1), VersionNumber(2)).await.unwrap();
    let example = |id: &str| json!({"experience": id, "prompt": "", "target": "x"});
    assert_eq!(
        serde_json::to_value(&diff).unwrap(),
        json!({
            "a": 1, "b": 2, "same_adapter": false,
            "metrics": {"loss_last": {"a": 1.5, "b": 0.5}, "steps": {"a": null, "b": 9.0}},
            "hyper": {"rank": {"a": 16, "b": 8}},
            "snapshot": {"added": 2, "removed": 1, "common": 2,
                "only_b": [example("e"), example("d")], "only_a": [example("a")]},
            "answers": {"compared": 0, "changed": 0, "examples": []},
        })
    );
    let from_base = world.registry.diff(VersionNumber::BASE, VersionNumber(1)).await.unwrap();
    assert_eq!((from_base.snapshot.added, from_base.snapshot.removed), (3, 0));
    let same = world.registry.diff(VersionNumber(1), VersionNumber(1)).await.unwrap();
    assert!(same.metrics.is_empty() && same.hyper.is_empty() && same.same_adapter);

    let damaged = world.artifacts.put(b"{\"experience\":\"a\"}\n{broken".to_vec()).await.unwrap();
    let third = NewVersion { snapshot: Some(damaged), ..new_version(2) };
    world.registry.register(third).await.unwrap();
    let error = world.registry.diff(VersionNumber(2), VersionNumber(3)).await.unwrap_err();
    assert!(error.to_string().starts_with("line 2 of the snapshot"), "{error}");
}

#[tokio::test]
async fn a_diff_shows_answers_that_changed_at_the_gate_and_in_the_shadow() {
    let world = World::new().await;
    world.chain(13).await;
    let events = autoglm_doubles::samples::events();
    let wanted = |event: &Event| match event {
        Event::Rollout(rollout) => !rollout.is_unfinished(),
        event => matches!(event, Event::ShadowPair(_)),
    };
    for event in events.into_iter().filter(wanted) {
        world.store.append(vec![event]).await.unwrap();
    }
    let diff = world.registry.diff(VersionNumber(12), VersionNumber(13)).await.unwrap().answers;
    // 400 held-out experiences of the gate, and one pair.
    assert_eq!((diff.compared, diff.changed), (401, 51));
    let shown: Vec<_> =
        diff.examples.iter().map(|it| (it.to.split(['_', '-']).next().unwrap(), it.distance)).collect();
    assert_eq!(shown, [("exp", 1.0), ("chatcmpl", 0.75)]);
    assert!(diff.examples.iter().all(|it| (&*it.a, &*it.b) == ("card arrival", "report lost card")));
    let back = world.registry.diff(VersionNumber(13), VersionNumber(12)).await.unwrap().answers;
    assert!(back.examples.iter().all(|it| (&*it.a, &*it.b) == ("report lost card", "card arrival")));
    let others = world.registry.diff(VersionNumber(11), VersionNumber(13)).await.unwrap().answers;
    assert_eq!(others.compared, 0);
}

#[tokio::test]
async fn a_damaged_adapter_is_an_internal_error_with_a_hint() {
    let world = World::new().await;
    let version = world.registry.register(new_version(0)).await.unwrap();
    let digits = version.adapter.to_string();
    let file = world.folder.path().join("artifacts").join(&digits[..2]).join(&digits[2..]);
    std::fs::write(file, b"something else").unwrap();
    let error = autoglm_domain::Error::from(world.registry.adapter(version.number).await.unwrap_err());
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.hint.is_some());
}
