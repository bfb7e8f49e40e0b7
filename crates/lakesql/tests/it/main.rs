//! Queries over files as the lake has them.
#![cfg(feature = "datafusion")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so and stops")]

mod answers;
mod refusals;
mod replaced;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use autoglm_domain::Error;
use autoglm_lakesql::{Answer, File, Files, LakeSqlError, Table, query};
use bytes::Bytes;
use datafusion::{dataframe::DataFrameWriteOptions, prelude::SessionContext};

/// Files below a folder, and how often they were read.
struct Folder {
    root: PathBuf,
    reads: AtomicUsize,
}

#[async_trait::async_trait]
impl Files for Folder {
    async fn read(&self, path: &str, range: Range<u64>) -> autoglm_domain::Result<Bytes> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let bytes = std::fs::read(self.root.join(path)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::not_found("no such file"),
            _ => Error::unavailable("the disk is on strike").with_hint("give it a rest"),
        })?;
        Ok(Bytes::from(bytes).slice(range.start as usize..range.end as usize))
    }
}

/// A lake of two tables, `interaction` with rows and `feedback` without.
struct World {
    folder: tempfile::TempDir,
    files: Arc<Folder>,
    tables: Vec<Table>,
}

impl World {
    /// Answers of three days. Those of the first were written before there was a `task`.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Arc::new(Folder { root: folder.path().to_owned(), reads: AtomicUsize::new(0) });
        let columns = [
            ("seq", DataType::Int64),
            ("request_id", DataType::Utf8),
            ("model_version", DataType::Int64),
            ("latency_ms", DataType::Float64),
            ("data", DataType::Utf8),
            ("task", DataType::Utf8),
        ];
        let feedback = [("seq", DataType::Int64), ("request_id", DataType::Utf8), ("thumb", DataType::Utf8)];
        let table = |name: &str, columns| Table { name: name.to_owned(), columns, files: Vec::new() };
        let tables = vec![table("interaction", schema(&columns)), table("feedback", schema(&feedback))];
        let mut world = Self { folder, files, tables };
        let old = "select 1 as seq, 'a' as request_id, 12 as model_version, 40.5 as latency_ms, \
                   '{\"turns\": 2, \"tags\": [\"x\", \"y\"]}' as data union all select 2, 'b', 13, 50.5, null";
        world.write("interaction", "2026-11-28", "1-2", old).await;
        let new = "select 3 as seq, 'c' as request_id, 13 as model_version, 60.5 as latency_ms, \
                   '{\"turns\": 3}' as data, 'banking' as task";
        world.write("interaction", "2026-11-29", "3-3", new).await;
        let last = new.replace("select 3", "select 4").replace("'c'", "'d'").replace("60.5", "80.0");
        world.write("interaction", "2026-11-30", "4-4", &last).await;
        world
    }

    /// Writes what `rows` gives, and lists it.
    async fn write(&mut self, table: &str, date: &str, name: &str, rows: &str) {
        let path = format!("event={table}/date={date}/{name}.parquet");
        let whole = self.folder.path().join(&path);
        std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        let frame = SessionContext::new().sql(rows).await.unwrap();
        frame.write_parquet(&whole.display().to_string(), options, None).await.unwrap();
        let bytes = std::fs::metadata(&whole).unwrap().len();
        let its = self.tables.iter_mut().find(|it| it.name == table).unwrap();
        its.files.push(File { path, bytes, stays: true });
    }

    async fn ask(&self, sql: &str) -> Result<Answer, LakeSqlError> {
        query(self.files.clone(), &self.tables, sql, 100).await
    }

    async fn rows(&self, sql: &str) -> serde_json::Value {
        serde_json::json!(self.ask(sql).await.unwrap().rows)
    }

    fn path(&self, file: &File) -> PathBuf {
        Path::new(self.folder.path()).join(&file.path)
    }
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
