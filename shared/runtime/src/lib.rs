//! What every Herald process runs in: settings, logs, the ops port, signals and supervised tasks.
//!
//! It knows nothing of Kafka or SQL: the setting groups in [`config`] are plain values.

pub mod config;
pub mod crash;
pub mod health;
pub mod instance;
mod metrics;
mod ops;
mod run;
mod service;
pub mod tasks;
pub mod telemetry;

pub use health::Health;
pub use run::run;
pub use service::Service;
pub use tasks::Tasks;
