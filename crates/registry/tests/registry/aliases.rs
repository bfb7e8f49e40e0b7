//! Moves of aliases, by this process and by others.

use std::sync::Arc;

use autoglm_domain::{Alias, AliasMove, ErrorKind, Event, Store as _, Timestamp, VersionNumber};

use crate::World;

const V: fn(u64) -> VersionNumber = VersionNumber;

#[tokio::test]
async fn promotions_and_rollbacks_move_the_champion_and_are_written_down() {
    let world = World::new().await;
    world.chain(3).await;
    let (registry, champion) = (&world.registry, Alias::champion());
    let aliases = registry.aliases();
    assert_eq!(aliases.current(&champion), VersionNumber::BASE);
    assert_eq!(registry.rollback("me", "why").await.unwrap_err().kind(), ErrorKind::Conflict);
    for version in 1..=3 {
        let step = registry.promote(V(version), "gate", "better", None).await.unwrap();
        assert_eq!((step.from, step.to), (V(version - 1), V(version)));
        assert_eq!(aliases.current(&champion), V(version));
    }
    for expected in [2, 1, 0] {
        let step = registry.rollback("me", "worse").await.unwrap();
        assert_eq!((step.to, step.reason.as_str()), (V(expected), "rollback: worse"));
        assert_eq!(aliases.current(&champion), V(expected));
    }
    let error = registry.rollback("me", "worse").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no earlier champion than v0");
    assert_eq!(world.store.alias_history(&champion).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_promotion_that_changes_nothing_or_names_nothing_is_refused() {
    let world = World::new().await;
    world.chain(1).await;
    world.registry.promote(V(1), "me", "better", None).await.unwrap();
    let error = world.registry.promote(V(1), "me", "better", None).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Conflict, "v1 is `champion` already"));
    let error = world.registry.promote(V(2), "me", "better", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(world.store.alias_history(&Alias::champion()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_verdict_over_a_champion_that_is_gone_does_not_promote() {
    let world = World::new().await;
    world.chain(3).await;
    world.registry.promote(V(2), "me", "by hand", None).await.unwrap();
    let error = world.registry.promote_over(V(1), V(3), "gate", "better", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.to_string(), "`champion` points at v2, not at v1");
    assert_eq!(world.registry.aliases().current(&Alias::champion()), V(2));
    world.registry.promote_over(V(2), V(3), "gate", "better", None).await.unwrap();
    assert_eq!(world.registry.aliases().current(&Alias::champion()), V(3));
}

#[tokio::test]
async fn moves_of_another_process_show_after_a_refresh() {
    let world = World::new().await;
    world.chain(2).await;
    let other = world.other().await;
    other.promote(V(1), "cli", "by hand", None).await.unwrap();
    let aliases = world.registry.aliases();
    assert_eq!(aliases.current(&Alias::champion()), V(0));
    world.registry.refresh().await.unwrap();
    assert_eq!(aliases.current(&Alias::champion()), V(1));
    // A move of this process goes on from where the other one left the alias.
    other.promote(V(2), "cli", "by hand", None).await.unwrap();
    assert_eq!(world.registry.rollback("me", "worse").await.unwrap().from, V(2));
    assert_eq!(aliases.current(&Alias::champion()), V(1));
    assert_eq!(world.other().await.aliases().all(), [(Alias::champion(), V(1))]);
}

#[tokio::test]
async fn a_move_that_comes_between_is_a_conflict_and_is_seen() {
    let world = World::new().await;
    world.chain(2).await;
    world.store.intrude(vec![Event::AliasMoved(AliasMove {
        alias: Alias::champion(),
        from: V(0),
        to: V(2),
        at: Timestamp(0),
        by: "cli".into(),
        reason: "by hand".into(),
        rollout: None,
    })]);
    let error = world.registry.promote(V(1), "gate", "better", None).await.unwrap_err();
    assert_eq!(error.to_string(), "`champion` points at v2, not at v0");
    assert_eq!(world.registry.aliases().current(&Alias::champion()), V(2));
}

/// Two tasks fight over the champion; the table must end where the store says, and at every moment be
/// somewhere that the history knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_follows_the_store_under_contention() {
    let world = World::new().await;
    world.chain(4).await;
    let store = Arc::clone(&world.store);
    let registry = Arc::new(world.registry);
    let tasks: Vec<_> = (0..4u64)
        .map(|task| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move {
                for at in 0..100 {
                    let moved = if (task + at) % 3 == 0 {
                        registry.rollback("task", "worse").await
                    } else {
                        registry.promote(V(1 + (task * 7 + at) % 4), "task", "better", None).await
                    };
                    if let Err(error) = moved {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let history = store.alias_history(&Alias::champion()).await.unwrap();
    assert_eq!(registry.aliases().current(&Alias::champion()), history.last().unwrap().to);
    assert!(history.windows(2).all(|pair| pair[0].to == pair[1].from && pair[1].from != pair[1].to));
}
