//! Writing: one record at a time, or a set of records in one transaction.

mod hanging;
mod label;
mod producer;
mod transaction;

pub(crate) use label::is_closing;
pub use producer::Producer;
pub use transaction::TransactionalProducer;
