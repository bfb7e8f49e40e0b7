//! A Parquet file of ours to rows.

use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use autoglm_domain::Timestamp;
use bytes::Bytes;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::{Cell, LakeError};

/// Hands the columns of every row to `each`, in the order in which they are named. A column that the file does not have,
/// as one that came later, is null.
pub(crate) fn decode(
    file: Bytes,
    columns: &[&'static str],
    each: &mut impl FnMut(Vec<Cell>),
) -> Result<(), LakeError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let arrays: Vec<Option<&ArrayRef>> = columns.iter().map(|name| batch.column_by_name(name)).collect();
        for row in 0..batch.num_rows() {
            let cells = arrays.iter().map(|array| array.map_or(Ok(Cell::Null), |array| cell(array, row)));
            each(cells.collect::<Result<_, _>>()?);
        }
    }
    Ok(())
}

fn cell(array: &ArrayRef, row: usize) -> Result<Cell, LakeError> {
    if array.is_null(row) {
        return Ok(Cell::Null);
    }
    let any = array.as_any();
    if let Some(column) = any.downcast_ref::<Int64Array>() {
        return Ok(Cell::Int(column.value(row)));
    }
    if let Some(column) = any.downcast_ref::<Float64Array>() {
        return Ok(Cell::Real(column.value(row)));
    }
    if let Some(column) = any.downcast_ref::<StringArray>() {
        return Ok(Cell::Text(column.value(row).to_owned()));
    }
    if let Some(column) = any.downcast_ref::<BooleanArray>() {
        return Ok(Cell::Bool(column.value(row)));
    }
    if let Some(column) = any.downcast_ref::<TimestampMillisecondArray>() {
        return Ok(Cell::Time(Timestamp(column.value(row))));
    }
    Err(LakeError::Encoding { reason: format!("a column holds {}", array.data_type()) })
}
