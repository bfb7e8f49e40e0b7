//! What is answered, and as what.

use serde_json::json;

use super::*;

#[tokio::test]
async fn tables_are_what_the_list_says() {
    let world = World::new().await;
    // In the folder, and not in the list: it does not count.
    let stray = world.path(&world.tables[0].files[2]);
    std::fs::copy(&stray, stray.with_file_name("4-5.parquet")).unwrap();
    let sql =
        "select model_version, count(*) as n, avg(latency_ms) as mean from interaction group by 1 order by 1";
    let answer = world.ask(sql).await.unwrap();
    assert_eq!(answer.columns, ["model_version", "n", "mean"]);
    assert_eq!(answer.numeric, [true; 3]);
    let mean = (50.5 + 60.5 + 80.0) / 3.0;
    assert_eq!(json!(answer.rows), json!([[12, 1, 40.5], [13, 3, mean]]));
}

#[tokio::test]
async fn a_column_that_came_later_is_null_in_what_was_written_before() {
    let world = World::new().await;
    let rows = world.rows("select seq, task from interaction order by seq").await;
    assert_eq!(rows, json!([[1, null], [2, null], [3, "banking"], [4, "banking"]]));
    assert_eq!(world.rows("select count(task), count(*) from interaction").await, json!([[2, 4]]));
    assert_eq!(
        world.rows("select seq from interaction where task is null order by 1").await,
        json!([[1], [2]])
    );
}

#[tokio::test]
async fn a_table_without_rows_is_a_table() {
    let world = World::new().await;
    assert_eq!(world.rows("select count(*) from feedback").await, json!([[0]]));
    let sql = "select i.seq, f.thumb from interaction i left join feedback f using (request_id) order by 1";
    assert_eq!(world.rows(sql).await, json!([[1, null], [2, null], [3, null], [4, null]]));
    let columns =
        world.rows("select column_name from information_schema.columns where table_name = 'feedback'");
    assert_eq!(columns.await, json!([["seq"], ["request_id"], ["thumb"], ["date"]]));
}

#[tokio::test]
async fn days_are_days_and_only_their_files_are_read() {
    let world = World::new().await;
    let sql = "select date, max(seq) from interaction where date >= '2026-11-29' group by 1 order by 1";
    assert_eq!(world.rows(sql).await, json!([["2026-11-29", 3], ["2026-11-30", 4]]));
    let sql = "select count(*) from interaction where date > date '2026-11-30' - interval '2 days'";
    assert_eq!(world.rows(sql).await, json!([[2]]));
    // Of a day whose file cannot be read nothing is asked.
    std::fs::remove_file(world.path(&world.tables[0].files[0])).unwrap();
    let sql = "select sum(seq) from interaction where date = '2026-11-30'";
    assert_eq!(world.rows(sql).await, json!([[4]]));
}

#[tokio::test]
async fn what_people_expect_of_sql_is_there() {
    let world = World::new().await;
    let sql = "
        with ranked as (
            select seq, model_version, row_number() over (partition by model_version order by latency_ms desc) as place
            from interaction)
        select seq from ranked where place = 1 order by seq";
    assert_eq!(world.rows(sql).await, json!([[1], [4]]));
    let sql = "
        select upper(request_id) || '!', substr('answer', 1, 3), round(latency_ms / 3, 2), date_trunc('month', date),
               case when latency_ms > 50 then 'slow' else 'fast' end, regexp_replace(request_id, '[ab]', 'z'),
               extract(day from date)
        from interaction where seq = 1";
    assert_eq!(world.rows(sql).await, json!([["A!", "ans", 13.5, "2026-11-01T00:00:00", "fast", "z", 28]]));
    let sql = "
        select approx_percentile_cont(0.5) within group (order by latency_ms) between 50.5 and 60.5, median(latency_ms), count(distinct task),
               array_agg(seq order by seq), stddev(latency_ms) > 0
        from interaction";
    assert_eq!(world.rows(sql).await, json!([[true, 55.5, 1, [1, 2, 3, 4], true]]));
}

#[tokio::test]
async fn json_in_a_column_is_reached_into() {
    let world = World::new().await;
    let sql = "
        select data->>'turns', data->'turns', json_get_int(data, 'turns') + 1, json_length(data, 'tags'), data->'tags'
        from interaction order by seq limit 2";
    let expected = json!([["2", 2, 3, 2, ["x", "y"]], [null, null, null, null, null]]);
    assert_eq!(world.rows(sql).await, expected);
    let sql = "select seq from interaction where json_get_int(data, 'turns') = 3 order by 1";
    assert_eq!(world.rows(sql).await, json!([[3], [4]]));
}

#[tokio::test]
async fn values_are_what_they_are_and_columns_have_names_of_their_own() {
    let world = World::new().await;
    let sql = "
        select 9007199254740993 as big, 0.1 as tenth, 'NaN'::double as nothing, true as yes, null as none,
               timestamp '2026-11-29T12:00:00Z' as at, named_struct('a', 1) as made";
    let rows = json!([[9007199254740993_i64, 0.1, null, true, null, "2026-11-29T12:00:00", {"a": 1}]]);
    let answer = world.ask(sql).await.unwrap();
    assert_eq!(json!(answer.rows), rows);
    assert_eq!(answer.numeric, [true, true, true, false, false, false, false]);
    let joined = "select * from feedback f join interaction i on f.seq = i.seq";
    let columns = world.ask(joined).await.unwrap().columns;
    assert_eq!(columns[..4], ["f.seq", "f.request_id", "thumb", "f.date"]);
    assert_eq!(
        columns[4..],
        ["i.seq", "i.request_id", "model_version", "latency_ms", "data", "task", "i.date"]
    );
}

#[tokio::test]
async fn tables_and_columns_can_be_listed() {
    let world = World::new().await;
    let sql = "show tables";
    let tables: Vec<_> =
        world.ask(sql).await.unwrap().rows.into_iter().filter(|row| row[1] == "public").collect();
    let mut names: Vec<_> = tables.iter().map(|row| row[2].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["feedback", "interaction"]);
    let rows = world.rows("describe interaction").await;
    assert_eq!(rows[2], json!(["model_version", "Int64", "YES"]));
    let plan = world.ask("explain select sum(seq) from interaction").await.unwrap();
    assert!(plan.rows[0][1].as_str().unwrap().contains("TableScan: interaction"), "{plan:?}");
}
