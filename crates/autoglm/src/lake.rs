//! What the lake is asked. What it and those who answer do not know of one another is joined here.

mod compare;
#[cfg(feature = "lake-sql")]
mod sql;

pub(crate) use compare::compare;
#[cfg(feature = "lake-sql")]
pub(crate) use sql::query;
