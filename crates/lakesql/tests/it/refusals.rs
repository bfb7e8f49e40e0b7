//! What is refused, and with what words.

use autoglm_domain::ErrorKind;

use super::*;

async fn refused(world: &World, sql: &str) -> Error {
    match world.ask(sql).await {
        Ok(answer) => panic!("{sql}: {answer:?}"),
        Err(error) => error.into(),
    }
}

#[tokio::test]
async fn only_questions_are_taken() {
    let world = World::new().await;
    let outside = world.folder.path().join("outside.parquet").display().to_string();
    for sql in [
        "drop table interaction",
        "create table x (a int)",
        "create view x as select 1",
        "create external table x stored as csv location '/etc/passwd'",
        "insert into interaction (seq) values (1)",
        "delete from interaction",
        &format!("copy interaction to '{outside}'"),
        &format!("explain copy interaction to '{outside}'"),
        "set datafusion.execution.batch_size = 1",
    ] {
        let error = refused(&world, sql).await;
        assert_eq!(error.kind, ErrorKind::Invalid, "{sql}: {error}");
        assert_eq!(
            error.message, "the query is refused: only questions are answered, and this is none",
            "{sql}"
        );
        assert!(error.hint.unwrap().starts_with("begin with `select`"));
    }
    assert!(!Path::new(&outside).exists());
    let error = refused(&world, "select * from '/etc/passwd'").await;
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NotFound, "the lake has no table `/etc/passwd`")
    );
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_was_meant() {
    let world = World::new().await;
    for (sql, message, hint) in [
        ("select 1 from interactions", "the lake has no table `interactions`", "did you mean `interaction`?"),
        ("select 1 from t", "the lake has no table `t`", "the tables are interaction, feedback"),
        ("describe feedbak", "the lake has no table `feedbak`", "did you mean `feedback`?"),
        (
            "select 1 from interaction where exists (select 1 from verdict)",
            "the lake has no table `verdict`",
            "the tables are interaction, feedback",
        ),
        ("select latency from interaction", "there is no column `latency`", "did you mean `latency_ms`?"),
        (
            "select f.x from feedback f",
            "there is no column `f.x`",
            "the columns are seq, request_id, thumb, date",
        ),
    ] {
        let error = refused(&world, sql).await;
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, message), "{sql}");
        assert_eq!(error.hint.as_deref(), Some(hint), "{sql}");
    }
    // One that the query makes itself is no table of the lake.
    assert_eq!(world.rows("with t as (select 7 as a) select a from t").await, serde_json::json!([[7]]));
}

#[tokio::test]
async fn what_makes_no_sense_is_told_in_one_line() {
    let world = World::new().await;
    for (sql, says) in [
        ("", "No SQL statements were provided"),
        ("selec", "Expected: an SQL statement, found: selec"),
        ("select * from interaction where", "Expected: an expression, found: EOF"),
        ("select 1; select 2", "only supports a single SQL statement"),
        ("select nothing_of_the_kind(1)", "Invalid function 'nothing_of_the_kind'"),
        ("select 1 / 0 from interaction", "Divide by zero"),
        ("select cast(request_id as int) from interaction", "Cannot cast"),
        ("select seq, count(*) from interaction", "must be in GROUP BY or an aggregate"),
    ] {
        let error = refused(&world, sql).await;
        assert_eq!(error.kind, ErrorKind::Invalid, "{sql}: {error}");
        let said = error.message.strip_prefix("the query is refused: ").unwrap();
        assert!(said.to_lowercase().contains(&says.to_lowercase()) && !said.contains('\n'), "{sql}: {said}");
        assert!(error.hint.unwrap().starts_with("`show tables`"));
    }
    let deep = format!("select {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert_eq!(refused(&world, &deep).await.kind, ErrorKind::Invalid);
    let long = format!("select 1 where {}", vec!["1 = 1"; 3000].join(" or "));
    assert_eq!(world.rows(&long).await, serde_json::json!([[1]]));
}

#[tokio::test]
async fn more_rows_than_wanted_are_refused_and_not_cut_off() {
    let world = World::new().await;
    let some = query(world.files.clone(), &world.tables, "select seq from interaction", 4).await;
    assert_eq!(some.unwrap().rows.len(), 4);
    let more = query(world.files.clone(), &world.tables, "select seq from interaction", 3).await.unwrap_err();
    assert_eq!(
        (more.kind(), more.to_string()),
        (ErrorKind::Invalid, "the answer has more than 3 rows".into())
    );
    assert!(more.hint().unwrap().contains("--max-rows"));
    // And not made first, either.
    let endless = refused(&world, "select * from generate_series(1, 100000000000)").await;
    assert_eq!(endless.message, "the answer has more than 100 rows");
}

#[tokio::test]
async fn a_lake_that_cannot_be_read_says_so_in_its_own_words() {
    let world = World::new().await;
    let path = world.path(&world.tables[0].files[1]);
    std::fs::write(&path, vec![7; world.tables[0].files[1].bytes as usize]).unwrap();
    let error = refused(&world, "select sum(seq) from interaction").await;
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.starts_with("the query failed: ") && error.message.contains("Parquet"), "{error}");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = refused(&world, "select sum(seq) from interaction").await;
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "the disk is on strike"));
    assert_eq!(error.hint.as_deref(), Some("give it a rest"));
}
