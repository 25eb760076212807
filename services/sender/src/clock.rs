use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};

/// The wall clock, but it never goes back within the process: a clock set back must not reopen a mailing that has ended.
#[derive(Default)]
pub(crate) struct Clock {
    latest_micros: AtomicI64,
}

impl Clock {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        let now = Utc::now();
        let micros = now.timestamp_micros();
        let before = self.latest_micros.fetch_max(micros, Ordering::Relaxed);
        if before > micros { DateTime::from_timestamp_micros(before).unwrap_or(now) } else { now }
    }
}
