//! What a query gives: the engine's columns to rows of JSON.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, RecordBatch, UnionArray},
        datatypes::{Field, Schema},
        error::ArrowError,
        json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited},
    },
    common::DFSchema,
};
use datafusion_functions_json::{JsonUnionEncoder, JsonUnionValue};
use serde_json::{Map, Value};

/// What a query gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Names of the columns, no two alike.
    pub columns: Vec<String>,
    /// Whether a column holds numbers.
    pub numeric: Vec<bool>,
    /// The rows. Numbers, truth values, lists and structures are such; moments are text as in RFC 3339, days
    /// `2026-11-29`, and what JSON has no number for is null.
    pub rows: Vec<Vec<Value>>,
}

impl Answer {
    /// An answer without rows yet.
    pub(crate) fn new(schema: &DFSchema) -> Self {
        let named = |name: &str| schema.fields().iter().filter(|field| field.name() == name).count();
        let column = |(table, field): (Option<&_>, &Arc<Field>)| match table {
            // As after a join.
            Some(table) if named(field.name()) > 1 => format!("{table}.{}", field.name()),
            _ => field.name().clone(),
        };
        Self {
            columns: schema.iter().map(column).collect(),
            numeric: schema.fields().iter().map(|field| field.data_type().is_numeric()).collect(),
            rows: Vec::new(),
        }
    }

    /// Takes in more rows.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let columns = batch.columns().iter().map(values).collect::<Result<Vec<_>, _>>()?;
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        for _ in 0..batch.num_rows() {
            self.rows.push(columns.iter_mut().map(|column| column.next().unwrap_or_default()).collect());
        }
        Ok(())
    }
}

/// The values of a column.
fn values(column: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    // What `data -> 'key'` gives.
    if let Some(union) = column.as_any().downcast_ref::<UnionArray>()
        && let Some(json) = JsonUnionEncoder::from_union(union.clone())
    {
        return Ok((0..json.len()).map(|row| value(&json.get_value(row))).collect());
    }
    const NAME: &str = "value";
    let schema = Schema::new(vec![Field::new(NAME, column.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(column)])?;
    let mut writer: LineDelimitedWriter<Vec<u8>> =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(&batch)?;
    writer.finish()?;
    let read = |row: Result<Map<String, Value>, _>| match row {
        Ok(mut row) => Ok(row.remove(NAME).unwrap_or_default()),
        Err(error) => Err(ArrowError::JsonError(serde_json::Error::to_string(&error))),
    };
    serde_json::Deserializer::from_slice(&writer.into_inner()).into_iter().map(read).collect()
}

fn value(json: &JsonUnionValue<'_>) -> Value {
    match json {
        JsonUnionValue::JsonNull => Value::Null,
        JsonUnionValue::Bool(value) => Value::from(*value),
        JsonUnionValue::Int(value) => Value::from(*value),
        JsonUnionValue::Float(value) => Value::from(*value),
        JsonUnionValue::Str(text) => Value::from(*text),
        JsonUnionValue::Array(text) | JsonUnionValue::Object(text) => {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(*text))
        }
    }
}
