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

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_is_told_of_and_nothing_is_half_written() {
    let Some(disk) = autoglm_doubles::SmallDisk::new(None) else { return };
    let world = World::at(&disk.path().join("lake").display().to_string(), &[]);
    world.asked(1..3).await;
    let _feed = world.feed();
    world.until(|state| state.seq == 2).await;
    disk.fill(4096);
    // A window's worth, so that small files are to give way as well.
    world.asked(3..600).await;
    let state = world.until(|state| state.failures > 1).await;
    assert_eq!(state.health, MirrorHealth::Failing);
    assert!(state.behind > 0, "{state:?}");
    let error = state.last_error.unwrap();
    assert_eq!(error, "the lake has no room: the disk is full");
    // What is there is whole, and nothing else is there under a file's name.
    for name in world.files() {
        let bytes = std::fs::read(world.path().join(&name)).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{name}");
    }
    disk.grow();
    let state = world.until(|state| state.seq == 599).await;
    assert_eq!(state.health, MirrorHealth::Healthy);
    let mut seqs = Vec::new();
    let each = |row: Vec<autoglm_lake::Cell>| seqs.extend(row);
    world.lake().files().rows("interaction", &["seq"], each).await.unwrap();
    assert_eq!(seqs, (1..600).map(autoglm_lake::Cell::Int).collect::<Vec<_>>());
}
