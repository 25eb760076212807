//! What stops planning.

use domain::mark::Mismatch;

/// Why a sweep over the mailings was broken off.
pub(crate) enum Trouble {
    /// Postgres can't be asked; nothing is lost and nothing is open.
    Postgres(sqlx::Error),
    /// Postgres isn't known to be the right one.
    Mismatch(Mismatch),
    /// The outcome of a transaction is open.
    Other(anyhow::Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<Mismatch> for Trouble {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl From<kafka::Error> for Trouble {
    fn from(error: kafka::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<sqlx::Error>() {
            Ok(error) => Self::Postgres(error),
            Err(error) => Self::Other(error),
        }
    }
}
