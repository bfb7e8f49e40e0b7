//! Files that go away.

use super::*;

#[tokio::test]
async fn a_list_that_is_out_of_date_is_told() {
    let mut world = World::new().await;
    for stays in [true, false] {
        world.tables[0].files[1].stays = stays;
        let path = world.path(&world.tables[0].files[1]);
        let kept = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = world.ask("select sum(seq) from interaction").await.unwrap_err();
        assert!(matches!(error, LakeSqlError::Replaced), "{error:?}");
        // A query that does not come by it has nothing against that.
        assert!(world.ask("select count(*) from feedback").await.is_ok());
        std::fs::write(&path, kept).unwrap();
    }
}

/// What may go away is read once and before everything else, and a query of any length finds what was listed.
#[tokio::test]
async fn files_that_do_not_stay_are_read_once() {
    let mut world = World::new().await;
    for file in &mut world.tables[0].files {
        file.stays = false;
    }
    let sql = "select (select sum(seq) from interaction), (select max(latency_ms) from interaction where task is null)";
    assert_eq!(world.rows(sql).await, serde_json::json!([[10, 50.5]]));
    assert_eq!(world.files.reads.load(Ordering::SeqCst), 3, "one read a file");
}
