//! Writing: one record at a time, or a set of records in one transaction.

mod producer;
mod transaction;

pub use producer::Producer;
pub use transaction::TransactionalProducer;
