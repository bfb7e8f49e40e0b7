//! Rows to a Parquet file.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder},
};
use arrow_schema::{ArrowError, SchemaRef};
use autoglm_domain::RecordedEvent;
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::properties::{WriterProperties, WriterVersion},
};

use crate::{Cell, ColumnKind, LakeError, Table, cells};

/// A file in the making. The same rows in the same batches are the same bytes.
pub(crate) struct Encoder {
    table: &'static Table,
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl Encoder {
    pub(crate) fn new(table: &'static Table) -> Result<Self, LakeError> {
        let schema = table.schema();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_created_by("autoglm".into())
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
        Ok(Self { table, schema, writer })
    }

    /// Takes in rows of the table, in order.
    pub(crate) fn push(&mut self, events: &[&RecordedEvent]) -> Result<(), LakeError> {
        let mut columns: Vec<Builder> = self.table.columns.iter().map(|it| Builder::new(it.kind)).collect();
        for event in events {
            let row = cells(event)?;
            if row.len() != columns.len() {
                let reason =
                    format!("`{}` has {} cells for {} columns", self.table.event, row.len(), columns.len());
                return Err(LakeError::Encoding { reason });
            }
            for (column, cell) in columns.iter_mut().zip(row) {
                column.push(cell)?;
            }
        }
        let arrays = columns.into_iter().map(Builder::finish).collect();
        Ok(self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)?)
    }

    /// The whole file.
    pub(crate) fn finish(self) -> Result<Bytes, LakeError> {
        Ok(self.writer.into_inner()?.into())
    }
}

enum Builder {
    Int(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Time(TimestampMillisecondBuilder),
}

impl Builder {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Int => Self::Int(Int64Builder::new()),
            ColumnKind::Real => Self::Real(Float64Builder::new()),
            ColumnKind::Text => Self::Text(StringBuilder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Time => Self::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
        }
    }

    fn push(&mut self, cell: Cell) -> Result<(), LakeError> {
        match (self, cell) {
            (Self::Int(column), Cell::Int(value)) => column.append_value(value),
            (Self::Real(column), Cell::Real(value)) => column.append_value(value),
            (Self::Text(column), Cell::Text(value)) => column.append_value(value),
            (Self::Bool(column), Cell::Bool(value)) => column.append_value(value),
            (Self::Time(column), Cell::Time(value)) => column.append_value(value.0),
            (Self::Int(column), Cell::Null) => column.append_null(),
            (Self::Real(column), Cell::Null) => column.append_null(),
            (Self::Text(column), Cell::Null) => column.append_null(),
            (Self::Bool(column), Cell::Null) => column.append_null(),
            (Self::Time(column), Cell::Null) => column.append_null(),
            (_, cell) => {
                return Err(LakeError::Encoding { reason: format!("{cell:?} does not fit its column") });
            }
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Int(mut column) => Arc::new(column.finish()),
            Self::Real(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
            Self::Bool(mut column) => Arc::new(column.finish()),
            Self::Time(mut column) => Arc::new(column.finish()),
        }
    }
}

impl From<ParquetError> for LakeError {
    fn from(error: ParquetError) -> Self {
        Self::Encoding { reason: error.to_string() }
    }
}

impl From<ArrowError> for LakeError {
    fn from(error: ArrowError) -> Self {
        Self::Encoding { reason: error.to_string() }
    }
}
