//! Places that files cannot go to.

use autoglm_domain::{ErrorKind, MirrorHealth};
use autoglm_lake::LakeError;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_made_is_told_of_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("taken");
    std::fs::write(&blocked, "a file, so no folder").unwrap();
    let world = World::at(&blocked.join("lake").display().to_string(), &[]);
    world.asked(1..4).await;
    let _feed = world.feed();
    let state = world.until(|state| state.failures > 1).await;
    assert_eq!((state.health, state.behind), (MirrorHealth::Failing, 3));
    assert!(state.last_error.unwrap().starts_with("the lake's object store refuses"));
    std::fs::remove_file(&blocked).unwrap();
    let state = world.until(|state| state.seq == 3).await;
    assert_eq!(state.health, MirrorHealth::Healthy);
    assert_eq!(world.files().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_takes_nothing_is_told_of_and_tried_again() {
    let world = World::new();
    world.asked(1..3).await;
    world.delivered().await;
    // Where the files of the day would go there is a file.
    let day = world.path().join("event=interaction");
    let aside = world.path().join("_aside");
    std::fs::rename(&day, &aside).unwrap();
    std::fs::write(&day, "").unwrap();
    world.asked(3..5).await;
    let _feed = world.feed();
    let state = world.until(|state| state.failures > 0).await;
    assert_eq!((state.seq, state.behind), (2, 2));
    std::fs::remove_file(&day).unwrap();
    std::fs::rename(&aside, &day).unwrap();
    world.until(|state| state.seq == 4).await;
    assert_eq!(world.files().len(), 2);
}

#[tokio::test]
async fn addresses_that_are_none_are_refused_at_once() {
    let refused = |url: &str, options: &[(&str, &str)]| {
        let world = World::at(url, options);
        let Err(error) = Lake::open(&world.config, world.store.clone()) else { panic!("`{url}` is taken") };
        error
    };
    for url in ["ftp://host/lake", "http://host/lake", "memory://", "s3://"] {
        let error = refused(url, &[]);
        assert!(matches!(error, LakeError::Address { .. }), "{url}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let error = refused("s3://bucket/lake", &[("aws_regoin", "x")]);
    assert!(error.to_string().ends_with("it knows no option `aws_regoin`"), "{error}");
}
