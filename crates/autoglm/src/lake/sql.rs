//! A query over the lake's files.

use std::{ops::Range, sync::Arc};

use autoglm_domain::Result;
use autoglm_lake::{LakeFile, LakeFiles, TABLES};
use autoglm_lakesql::{Answer, File, Files, LakeSqlError, Table};

/// How often the files are listed anew when some of them went away before they were read.
const TRIES: usize = 5;

/// A query's answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Columns and rows.
    pub(crate) answer: Answer,
    /// Files that there are, of any table.
    pub(crate) files: usize,
}

/// Asks `sql` of the `lake`, for at most `most_rows` rows.
///
/// # Errors
/// Those of [`LakeSqlError`] and of the lake.
pub(crate) async fn query(lake: LakeFiles, sql: &str, most_rows: usize) -> Result<Answered> {
    let lake = Arc::new(Bytes(lake));
    let mut tries = 0;
    loop {
        tries += 1;
        let files = lake.0.list().await?;
        match autoglm_lakesql::query(lake.clone(), &tables(&files), sql, most_rows).await {
            Err(LakeSqlError::Replaced) if tries < TRIES => {}
            answer => return Ok(Answered { answer: answer?, files: files.len() }),
        }
    }
}

/// Every table that there can be, with the files that there are.
fn tables(files: &[LakeFile]) -> Vec<Table> {
    let table = |table: &autoglm_lake::Table| {
        let its = files.iter().filter(|file| file.name.event == table.event);
        let file =
            |file: &LakeFile| File { path: file.name.to_string(), bytes: file.bytes, stays: file.stays() };
        Table { name: table.event.to_owned(), columns: table.schema(), files: its.map(file).collect() }
    };
    TABLES.iter().map(table).collect()
}

/// The lake's bytes for the engine.
struct Bytes(LakeFiles);

#[async_trait::async_trait]
impl Files for Bytes {
    async fn read(&self, path: &str, range: Range<u64>) -> Result<bytes::Bytes> {
        Ok(self.0.read(path, range).await?)
    }
}

#[cfg(test)]
mod tests;
