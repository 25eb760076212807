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

pub use kafka::{Detour, Jvm, Kafka, KafkaConfig};
pub use port::free_ports;
pub use postgres::{Postgres, PostgresConfig};
pub use stack::Stack;
pub use test_env::run_with_servers;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The checkout this crate was compiled in; everything local lies in its `.local`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two folders deep").to_path_buf()
}

/// Fails when the working directory lies in another checkout. With one target directory for several (`CARGO_TARGET_DIR`)
/// this program may be another checkout's, and would act on that one's `.local`.
pub fn check_working_directory() -> Result<()> {
    let (mine, here) = (root(), std::env::current_dir()?);
    if let Some(other) = other_checkout(&mine, &here) {
        let (mine, other) = (mine.display(), other.display());
        bail!("this devstack was built in {mine} and acts there, not in {other}: run `cargo build` in {other} first");
    }
    Ok(())
}

/// The checkout that `here` lies in, if it lies in one and that isn't `mine`.
fn other_checkout(mine: &Path, here: &Path) -> Option<PathBuf> {
    let checkout = here.ancestors().find(|dir| dir.join("shared/devstack/Cargo.toml").exists())?;
    let same = fs::canonicalize(checkout).ok() == fs::canonicalize(mine).ok();
    (!same).then(|| checkout.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_checkout_is_noticed_from_any_folder_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let crates = dir.path().join("shared/devstack/src");
        assert_eq!(other_checkout(&root(), dir.path()), None, "no checkout at all");
        fs::create_dir_all(&crates).unwrap();
        fs::write(dir.path().join("shared/devstack/Cargo.toml"), "").unwrap();
        assert_eq!(other_checkout(&root(), &crates), Some(dir.path().to_path_buf()));
        assert_eq!(other_checkout(dir.path(), &crates), None);
        assert_eq!(other_checkout(&root(), &root().join("shared")), None);
    }
}
