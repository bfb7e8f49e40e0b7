//! One query over the tables.

use std::{collections::BTreeSet, sync::Arc};

use arrow_schema::{DataType, Field, Schema};
use autoglm_domain::ErrorKind;
use datafusion::{
    common::{TableReference, tree_node::TreeNodeRecursion},
    datasource::{
        empty::EmptyTable,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    error::DataFusionError,
    execution::{context::SQLOptions, runtime_env::RuntimeEnvBuilder},
    logical_expr::LogicalPlan,
    prelude::{SessionConfig, SessionContext},
};
use futures::TryStreamExt as _;
use tokio::runtime::{Builder, Handle, Runtime};
use url::Url;

use crate::{Answer, Files, LakeSqlError, Table, listed::Listed};

/// Where the engine thinks that the lake is.
const LAKE: &str = "lake://lake/";
/// The partition of a path, a day.
const DATE: &str = "date";
/// What the engine's own tables are in, such as those behind `show tables`.
const OWN: &str = "information_schema";
/// Most memory that sorting, grouping and joining take before they go to the disk, and what they may not do without.
const MEMORY_MIB: usize = 1024;

/// Stack of the engine's threads, which follow a query as deep as it goes. Only what is used of it takes memory.
const STACK: usize = 64 << 20;

/// Asks `sql` of the tables, for at most `most_rows` rows. The engine has threads of its own.
///
/// # Errors
/// [`LakeSqlError::Replaced`] where a file of the tables is gone, so that the caller lists them anew; the other ones say what
/// is wrong with the query, or with the lake.
pub async fn query(
    files: Arc<dyn Files>,
    tables: &[Table],
    sql: &str,
    most_rows: usize,
) -> Result<Answer, LakeSqlError> {
    let failed = |error: &dyn std::fmt::Display| LakeSqlError::Failed { reason: error.to_string() };
    let threads = Threads::start().map_err(|error| failed(&error))?;
    let (tables, sql) = (tables.to_vec(), sql.to_owned());
    let answered = threads.handle.spawn(async move {
        let listed = Arc::new(Listed::new(files, &tables));
        match (ask(&listed, &tables, &sql, most_rows).await, listed.failure()) {
            (Err(_), Some(error)) if error.kind == ErrorKind::NotFound => Err(LakeSqlError::Replaced),
            (Err(_), Some(error)) => Err(LakeSqlError::Lake(error.clone())),
            (asked, _) => asked,
        }
    });
    answered.await.map_err(|error| failed(&error))?
}

/// Threads that end when nobody waits for them any more.
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    fn start() -> std::io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        let runtime = threads.thread_name("lake-sql").thread_stack_size(STACK).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn ask(
    listed: &Arc<Listed>,
    tables: &[Table],
    sql: &str,
    most_rows: usize,
) -> Result<Answer, LakeSqlError> {
    let failed = |error: DataFusionError| LakeSqlError::of(&error, MEMORY_MIB);
    let context = context(listed, tables).map_err(failed)?;
    let plan = match context.state().create_logical_plan(sql).await {
        Ok(plan) => plan,
        Err(error) => return Err(unknown_table(&context, tables, sql).unwrap_or_else(|| failed(error))),
    };
    let questions =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    questions.verify_plan(&plan).map_err(|_| LakeSqlError::NoQuestion)?;
    let asked = tables_of(&plan).map_err(failed)?;
    let asked = tables.iter().filter(|table| asked.contains(&table.name));
    listed.hold(asked.flat_map(|table| &table.files)).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => LakeSqlError::Replaced,
        _ => LakeSqlError::Lake(error),
    })?;
    let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
    let mut answer = Answer::new(frame.schema());
    let mut batches = frame.execute_stream().await.map_err(failed)?;
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        answer.push(&batch).map_err(|error| failed(error.into()))?;
        if answer.rows.len() > most_rows {
            return Err(LakeSqlError::TooManyRows { most: most_rows });
        }
    }
    Ok(answer)
}

/// The engine with the tables and functions for JSON.
fn context(listed: &Arc<Listed>, tables: &[Table]) -> Result<SessionContext, DataFusionError> {
    let config =
        SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema("lake", "public");
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(MEMORY_MIB << 20, 1.0).build_arc()?;
    let mut context = SessionContext::new_with_config_rt(config, runtime);
    datafusion_functions_json::register_all(&mut context)?;
    let lake = Url::parse(LAKE).map_err(|error| DataFusionError::External(error.into()))?;
    context.register_object_store(&lake, Arc::clone(listed) as _);
    for table in tables {
        register(&context, table)?;
    }
    Ok(context)
}

fn register(context: &SessionContext, table: &Table) -> Result<(), DataFusionError> {
    if table.files.is_empty() {
        let date = Arc::new(Field::new(DATE, DataType::Date32, false));
        let fields: Vec<_> = table.columns.fields().iter().cloned().chain([date]).collect();
        context.register_table(&table.name, Arc::new(EmptyTable::new(Arc::new(Schema::new(fields)))))?;
        return Ok(());
    }
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_table_partition_cols(vec![(DATE.to_owned(), DataType::Date32)]);
    let folder = ListingTableUrl::parse(format!("{LAKE}event={}/", table.name))?;
    let config = ListingTableConfig::new(folder).with_listing_options(options);
    let config = config.with_schema(Arc::clone(&table.columns));
    context.register_table(&table.name, Arc::new(ListingTable::try_new(config)?))?;
    Ok(())
}

/// Names of the tables that a plan reads.
fn tables_of(plan: &LogicalPlan) -> Result<BTreeSet<String>, DataFusionError> {
    let mut names = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.insert(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// That the query names a table that there is none of, where it does.
fn unknown_table(context: &SessionContext, tables: &[Table], sql: &str) -> Option<LakeSqlError> {
    let state = context.state();
    let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect).ok()?;
    let named = state.resolve_table_references(&statement).ok()?;
    let known = |name: &TableReference| {
        name.schema() == Some(OWN) || tables.iter().any(|table| table.name == name.table())
    };
    let unknown = named.into_iter().find(|name| !known(name))?;
    let known = tables.iter().map(|table| table.name.clone()).collect();
    Some(LakeSqlError::NoTable { name: unknown.to_string(), known })
}
