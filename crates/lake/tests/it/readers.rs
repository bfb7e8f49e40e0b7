//! DuckDB and pandas read what was written.

use autoglm_doubles::{S3Server, lake_python, run_python};

use super::*;

const DUCKDB: &str = r#"
import sys, json, duckdb
db = duckdb.connect()
lake = sys.argv[1]
table = lambda event: f"read_parquet('{lake}/event={event}/*/*.parquet', hive_partitioning=true)"
print(json.dumps(db.sql(f"""
    select count(*), count(distinct seq), count(distinct request_id), sum(model_version), round(sum(latency_ms), 3),
           count(session), min(date)::varchar, max(date)::varchar, typeof(any_value(request_id)),
           typeof(any_value(model_version)), typeof(any_value(latency_ms)), typeof(any_value(happened_at))
    from {table('interaction')}""").fetchall()[0]))
print(json.dumps(db.sql(f"select data::json->>'$.target', weight, held_out from {table('experience')}").fetchall()[0]))
print(json.dumps(db.sql(f"""
    select i.model_version, avg(a.accuracy) from {table('interaction')} i join {table('assessment')} a
    using (request_id) group by 1""").fetchall()[0]))
"#;

const PANDAS: &str = r#"
import sys, json, pandas
frame = pandas.read_parquet(sys.argv[1] + '/event=interaction')
print(json.dumps([len(frame), int(frame.seq.nunique()), str(frame.latency_ms.dtype), str(frame.model_version.dtype),
                  str(frame.happened_at.dtype), sorted(set(frame.date.astype(str)))[0]]))
"#;

#[tokio::test]
async fn duckdb_and_pandas_read_the_tables() {
    let Some(python) = lake_python() else { return };
    let world = World::new();
    world.store.append(samples::events()).await.unwrap();
    world.asked(100..1000).await;
    world.delivered().await;
    let lake = world.path().display().to_string();
    let asked: Vec<_> = std::iter::once(1).chain(100..1000).map(samples::interaction).collect();
    let versions: u64 = asked.iter().map(|it| it.version.0).sum();
    let latency: f64 = asked.iter().map(|it| it.latency_ms).sum();
    let sessions = asked.iter().filter(|it| it.session.is_some()).count();
    let printed = run_python(&python, DUCKDB, &[&lake]);
    let expected = format!(
        "[901, 901, 901, {versions}, {latency:.1}, {sessions}, \"2026-11-29\", \"2026-11-30\", \"VARCHAR\", \
         \"BIGINT\", \"DOUBLE\", \"TIMESTAMP WITH TIME ZONE\"]\n[\"report lost card\", 1.0, false]\n[13, 20.0]\n"
    );
    assert_eq!(printed, expected);
    let printed = run_python(&python, PANDAS, &[&lake]);
    assert_eq!(printed, "[901, 901, \"float64\", \"int64\", \"datetime64[ms, UTC]\", \"2026-11-29\"]\n");
}

/// A bucket that is away, is not there, refuses, and then takes everything; what it has is what was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_fails_delays_and_loses_nothing() {
    let Some(mut server) = S3Server::start() else { return };
    let endpoint = server.endpoint();
    let options = S3Server::options(&endpoint);
    let world = World::at("s3://data/lake", &options);
    world.asked(1..300).await;
    let _feed = world.feed();
    let state = world.until(|state| state.failures > 0).await;
    let error = state.last_error.unwrap();
    assert!(error.starts_with("the lake's object store has no `_lake.json`"), "{error}");

    server.make_bucket("data");
    server.allow(false);
    let refused = |state: &MirrorState| {
        state.last_error.as_ref().is_some_and(|it| it.starts_with("the lake's object store refuses"))
    };
    let state = world.until(refused).await;
    assert_eq!((state.seq, state.behind), (0, 299), "nothing counts as delivered");
    server.allow(true);
    world.until(|state| state.seq == 299).await;

    // Away and, as it keeps everything in memory, empty afterwards: what comes then is written all the same.
    server.kill();
    world.asked(300..310).await;
    let state = world.until(|state| state.failures > 0).await;
    assert!(state.last_error.unwrap().starts_with("the lake's object store failed"));
    server.resume();
    server.make_bucket("data");
    world.until(|state| state.seq == 309).await;
    let files = world.lake().files().list().await.unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!((files[0].name.first, files[0].name.last), (300, 309));
    let bytes = world.lake().files().read(&files[0].name.to_string(), 0..4).await.unwrap();
    assert_eq!(&bytes[..], b"PAR1");
}
