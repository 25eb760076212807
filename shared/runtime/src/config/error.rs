use std::io::Write;
use std::path::PathBuf;

/// Why there is no configuration. One sentence each, without the value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What the command line asks for in place of a run (`--help`), or its misuse.
    #[error("{0}")]
    Usage(clap::Error),
    /// `.env` can't be read.
    #[error(".env: {0}")]
    DotEnv(String),
    /// A variable of ours is not text.
    #[error("{0} (environment) is not UTF-8")]
    NotUnicode(String),
    /// `given` is `NAME=value (source)`.
    #[error("{given}: {reason}")]
    Wrong {
        /// The setting, its value (redacted if secret) and where it came from.
        given: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// Settings that are right one by one and don't fit together; a sentence that names them.
    #[error("{0}")]
    Unfit(String),
    /// Required settings that nothing sets.
    #[error("not set: {}", .0.join(", "))]
    Missing(Vec<String>),
    /// A variable and the `…_FILE` that would replace it.
    #[error("{name} ({name_source}) and {name}_FILE ({file_source}) are both set: one of them is enough")]
    Both {
        /// The variable.
        name: String,
        /// Where it is set.
        name_source: String,
        /// Where its `…_FILE` is set.
        file_source: String,
    },
    /// A secret's file can't be read or holds nothing.
    #[error("{name}={} ({name_source}): {reason}", path.display())]
    File {
        /// The `…_FILE` variable.
        name: String,
        /// Where it is set.
        name_source: String,
        /// Its value.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A `HERALD_…` variable that no program knows.
    #[error("{name} ({name_source}) is not a setting of any program; the nearest is {nearest}")]
    Unknown {
        /// The variable.
        name: String,
        /// Where it is set.
        name_source: String,
        /// The known name that is most like it.
        nearest: String,
    },
}

impl ConfigError {
    /// Prints the sentence, or the help that was asked for, and ends the process: with 0 after help, else with 2.
    pub fn exit(&self) -> ! {
        if let Self::Usage(error) = self {
            error.exit();
        }
        let _ = writeln!(std::io::stderr(), "error: {self}");
        std::process::exit(2);
    }
}
