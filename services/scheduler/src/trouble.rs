//! What stops planning.

use std::time::{Duration, Instant};

use domain::mark::Mismatch;

/// Why a turn or a sweep was broken off.
pub(crate) enum Trouble {
    /// Postgres can't be asked at all. Nothing is lost and nothing is open.
    Postgres(sqlx::Error),
    /// Postgres refuses what one mailing needs, or its row is locked. Nothing is open, and others can go on.
    Mailing(sqlx::Error),
    /// Postgres isn't known to be the right one.
    Mismatch(Mismatch),
    /// The outcome of a transaction is open.
    Other(anyhow::Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        if concerns_every_mailing(&error) { Self::Postgres(error) } else { Self::Mailing(error) }
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
            Ok(error) => error.into(),
            Err(error) => Self::Other(error),
        }
    }
}

/// Whether the connection or the server is in trouble, and not the statement.
///
/// SQLSTATE 08: connection, 28 and 3D: login and database, 53: resources, 55000: a standby that isn't promoted yet, 57P:
/// shutdown, 58: disk, 25006: a node that has become read-only.
fn concerns_every_mailing(error: &sqlx::Error) -> bool {
    const SERVER: [&str; 8] = ["08", "25006", "28", "3D", "53", "55000", "57P", "58"];
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_none_or(|code| SERVER.iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => false,
        _ => true,
    }
}

/// The wait of a mailing after trouble of its own.
pub(crate) struct BackOff {
    until: Instant,
    delay: Duration,
}

const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(10);

impl BackOff {
    /// `took` is how long the turn kept the shard's thread. The wait is ten times that at least, so that turns which fail
    /// slowly leave the thread to the other mailings.
    pub(crate) fn after(before: Option<&Self>, took: Duration) -> Self {
        let delay = before.map_or(FIRST_DELAY, |before| (before.delay * 2).min(MAX_DELAY));
        Self { until: Instant::now() + delay.max(took * 10), delay }
    }

    /// How long it still lasts; none when it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_never_take_the_thread_for_long() {
        let first = BackOff::after(None, Duration::ZERO);
        let second = BackOff::after(Some(&first), Duration::ZERO);
        assert_eq!((first.delay, second.delay), (FIRST_DELAY, FIRST_DELAY * 2));
        let slow = BackOff::after(Some(&second), Duration::from_secs(60));
        assert!(slow.left().unwrap() > Duration::from_secs(590));
        let last = (0..20).fold(slow, |before, _| BackOff::after(Some(&before), Duration::ZERO));
        assert_eq!(last.delay, MAX_DELAY);
        assert!(BackOff { until: Instant::now(), delay: FIRST_DELAY }.left().is_none());
    }
}
