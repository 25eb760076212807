//! Real Kafka and real Postgres on this machine, without a container engine: for `make run` and for the tests.
//!
//! A server is given a directory, say `.local/kafka`. Its data lies there, its pid file beside it (`.local/kafka.pid`) and its
//! log in `.local/log/kafka.log`. Kafka and Postgres themselves are fetched once, from Maven Central into `.local/dist`.
//!
//! Everything here blocks; nothing is async.

mod dist;
mod kafka;
mod place;
mod port;
mod postgres;
mod probe;
mod process;
mod programs;
mod settings;
mod stack;
mod test_env;

pub use kafka::{Jvm, Kafka, KafkaConfig};
pub use port::free_ports;
pub use postgres::{Postgres, PostgresConfig};
pub use stack::Stack;
pub use test_env::run_with_servers;

use std::path::{Path, PathBuf};

/// The checkout this crate was compiled in; everything local lies in its `.local`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two folders deep").to_path_buf()
}
