//! Postgres: one file a table or a reader's view, functions take `&mut PgConnection`, so the caller owns the transaction
//! and its borders are seen where it is written.

pub mod clients;
mod connect;
pub mod held;
pub mod mailings;
pub mod mark;
pub mod messages;
pub mod outbox;
pub mod planning;
pub mod projection;
pub mod recovery;
pub mod replan;

pub use connect::{SchemaError, check_schema, connect, is_transient};

/// The schema's history, embedded in the binary.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations");
