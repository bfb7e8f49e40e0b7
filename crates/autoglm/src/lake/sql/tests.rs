//! Lakes as the mirror writes them, asked by us and by others.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use autoglm_domain::{Cursors as _, Event, Mirror as _, Span, Store as _};
use autoglm_doubles::{MemoryStore, S3Server, lake_python, run_python, samples};
use autoglm_lake::{Config, Lake};
use serde_json::{Value, json};

use super::*;

/// A journal and a lake of it.
struct World {
    store: Arc<MemoryStore>,
    config: Config,
    delivered: i64,
}

impl World {
    fn new(url: &str, options: &[(&str, &str)]) -> Self {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = Config { url: url.into(), flush_s: 1, options: options.collect() };
        Self { store: Arc::default(), config, delivered: 0 }
    }

    /// Appends events and delivers them, in the batches that the lake wants.
    async fn write(&mut self, events: Vec<Event>) {
        self.store.append(events).await.unwrap();
        let lake = Lake::open(&self.config, self.store.clone()).unwrap();
        let last = self.store.last_seq().await.unwrap();
        while self.delivered < last {
            let upto = lake.batch_end(self.delivered, last);
            lake.deliver(Span { after: self.delivered, upto }).await.unwrap();
            self.delivered = upto;
        }
    }

    async fn ask(&self, sql: &str) -> Result<Answered> {
        query(LakeFiles::open(&self.config).unwrap(), sql, 1000).await
    }

    async fn rows(&self, sql: &str) -> Value {
        json!(self.ask(sql).await.unwrap().answer.rows)
    }
}

fn asked(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|n| Event::Interaction(Box::new(samples::interaction(n)))).collect()
}

/// One event of every kind, and two days of answers, of which half are assessed.
fn events() -> Vec<Event> {
    let mut events = samples::events();
    for n in 100..1500 {
        events.push(Event::Interaction(Box::new(samples::interaction(n))));
        if n % 2 == 0 {
            events.push(Event::Assessment(samples::assessment(n + 10_000, n, (n % 11 * 10) as f64)));
        }
        if n % 5 == 0 {
            events.push(Event::Feedback(samples::feedback(n + 20_000, n)));
        }
    }
    events
}

/// Questions that DuckDB understands as well.
const QUESTIONS: &[&str] = &[
    "select count(*), count(distinct request_id), min(seq), max(seq), sum(model_version) from interaction",
    "select model_version, count(*), round(avg(latency_ms), 6), round(stddev(latency_ms), 6), max(first_token_ms)
     from interaction group by 1 order by 1",
    "select cast(date as varchar), count(*), count(session) from interaction group by 1 order by 1",
    "select count(*) from interaction where date = '2026-11-30' and latency_ms > 44",
    "select i.model_version, count(*), round(avg(a.accuracy), 6), round(avg(a.overall), 6)
     from interaction i join assessment a using (request_id) where a.accuracy is not null group by 1 order by 1",
    "select i.model_version, sum(case when f.thumb = 'up' then 1 else 0 end), count(f.correction), count(*)
     from interaction i left join feedback f on f.request_id = i.request_id group by 1 order by 1",
    "with ranked as (
         select session, seq, latency_ms, row_number() over (partition by session order by latency_ms desc, seq) as place
         from interaction where session is not null)
     select session, seq, latency_ms from ranked where place = 1 order by seq limit 20",
    "select seq, lag(latency_ms) over (order by seq), sum(latency_ms) over (order by seq rows between 2 preceding and current row)
     from interaction order by seq limit 30",
    "select upper(substr(answer, 1, 6)), length(messages), task, principal || '/' || model, endpoint, finish_reason, source
     from interaction order by seq limit 5",
    "select cast(extract(hour from happened_at) as bigint), count(*) from interaction group by 1 order by 1",
    "select cast(date_trunc('hour', happened_at at time zone 'UTC') as date), count(*) from interaction group by 1 order by 1",
    "select count(*) from interaction where messages like '%machine 77_\"%'",
    "select label, count(*) from assessment group by label having count(*) > 1 order by label",
    "select count(*) from (select request_id from interaction except select request_id from assessment)",
    "select round(quantile, 3) from (select median(latency_ms) as quantile from interaction)",
    r#"select weight, held_out, "cluster", target from experience order by seq"#,
    "select alias, from_version, to_version, moved_by from alias_moved order by seq",
    "select state, trigger_kind, model_version, new_experiences from run order by seq",
    "select task, count(*) from interaction group by 1 order by 1 nulls last",
];

const DUCKDB: &str = r#"
import sys, json, glob, duckdb
lake, questions = sys.argv[1], json.loads(sys.argv[2])
db = duckdb.connect()
db.execute("set timezone = 'UTC'")
for folder in glob.glob(lake + '/event=*'):
    table = folder.rsplit('=', 1)[1]
    files = f"{folder}/*/*.parquet"
    db.execute(f"create view {table} as select * from read_parquet('{files}', hive_partitioning=true, union_by_name=true)")
print(json.dumps([[list(row) for row in db.sql(question).fetchall()] for question in questions], default=str))
"#;

/// Takes a column out of the first file of a table, as if it had been written before there was such a column.
const OLDER: &str = r#"
import sys, glob, pyarrow.parquet as parquet
path = sorted(glob.glob(sys.argv[1] + '/event=interaction/*/*.parquet'))[0]
table = parquet.ParquetFile(path).read()
parquet.write_table(table.drop_columns([sys.argv[2]]), path)
print(table.num_rows)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_duckdbs() {
    let Some(python) = lake_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("lake").display().to_string();
    let mut world = World::new(&url, &[]);
    world.write(events()).await;
    let questions = json!(QUESTIONS).to_string();
    let compare = async || {
        let theirs = run_python(&python, DUCKDB, &[&url, &questions]);
        let theirs: Vec<Value> = serde_json::from_str(&theirs).unwrap();
        for (question, theirs) in QUESTIONS.iter().zip(theirs) {
            let ours = world.rows(question).await;
            assert!(alike(&ours, &theirs), "{question}\nours:   {ours}\ntheirs: {theirs}");
            assert_ne!(ours, json!([]), "{question} finds nothing");
        }
    };
    compare().await;
    // A file from before there was a `task`.
    let without: u64 = run_python(&python, OLDER, &[&url, "task"]).trim().parse().unwrap();
    assert!(without > 0);
    compare().await;
    assert_eq!(world.rows("select count(*) - count(task) from interaction").await, json!([[without]]));
}

/// Numbers are equal as numbers, be they whole or not.
fn alike(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| alike(a, b))
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64().unwrap() == b.as_f64().unwrap(),
        (a, b) => a == b,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_asked_as_a_folder_is() {
    let Some(server) = S3Server::start() else { return };
    server.make_bucket("data");
    let endpoint = server.endpoint();
    let options = S3Server::options(&endpoint);
    let folder = tempfile::tempdir().unwrap();
    let mut there = World::new("s3://data/some/lake", &options);
    let mut here = World::new(&folder.path().display().to_string(), &[]);
    there.write(events()).await;
    here.write(events()).await;
    for question in QUESTIONS {
        assert_eq!(there.rows(question).await, here.rows(question).await, "{question}");
    }
    server.allow(false);
    let error = there.ask("select count(*) from interaction").await.unwrap_err();
    assert!(error.message.starts_with("the lake's object store refuses"), "{error}");
    assert!(error.hint.unwrap().starts_with("check the credentials"));
}

#[tokio::test]
async fn a_lake_without_files_has_all_tables_and_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().display().to_string(), &[]);
    let answered = world.ask("select count(*) from interaction").await.unwrap();
    assert_eq!((json!(answered.answer.rows), answered.files), (json!([[0]]), 0));
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    assert_eq!(world.rows(tables).await, json!([[TABLES.len()]]));
    let error = world.ask("select * from interactions").await.unwrap_err();
    assert_eq!(error.message, "the lake has no table `interactions`");
    assert_eq!(error.hint.as_deref(), Some("did you mean `interaction`?"));
    world.write(asked(1..3)).await;
    assert_eq!(world.ask("select 1").await.unwrap().files, 1);
}

/// While small files give way to larger ones, every answer is the journal as it was at one moment: no row twice, none left
/// out, and never less than before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_meanwhile_changes_nothing_but_how_far_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().display().to_string(), &[]);
    let config = world.config.clone();
    const LAST: u64 = 6000;
    let answers = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&answers);
    let writer = tokio::spawn(async move {
        for first in (1..LAST).step_by(23) {
            // However slow the answers are, there are twenty of them before everything is written.
            while heard.load(Ordering::SeqCst) < first / 300 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            world.write(asked(first..(first + 23).min(LAST + 1))).await;
        }
    });
    let (mut before, mut between) = (0, 0);
    loop {
        let done = writer.is_finished();
        let files = LakeFiles::open(&config).unwrap();
        let sql = "select count(*), count(distinct seq), max(seq) from interaction";
        let answered = query(files, sql, 10).await.unwrap();
        answers.fetch_add(1, Ordering::SeqCst);
        let row = json!(answered.answer.rows)[0].clone();
        let count = row[0].as_u64().unwrap();
        if count > 0 {
            assert_eq!(row, json!([count, count, count]), "a row is there twice, or is not there");
        }
        assert!(count >= before, "{count} after {before}");
        between += u32::from(count > before && !done);
        before = count;
        if done {
            break;
        }
    }
    writer.await.unwrap();
    assert_eq!(before, LAST);
    assert!(between >= 5, "asked {between} times while it was written");
}
