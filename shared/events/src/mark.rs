use chrono::{DateTime, Utc};
use domain::ids::MailingNo;
use domain::mark::DatabaseMark;
use serde::{Deserialize, Serialize};

/// Which Postgres Herald runs with, and how far it is at least: written in the transactions that tell of what lies in it.
/// Of several records the one with the highest mark counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// The server's, a 64-bit number as text.
    pub system_identifier: String,
    /// The server's timeline.
    pub timeline: i64,
    /// The count in the database. One that is lower there is an older state.
    pub mark: i64,
    /// The highest mailing number given out.
    pub mailing_no: MailingNo,
    /// By the writer's clock.
    pub recorded_at: DateTime<Utc>,
}

impl DatabaseRecord {
    /// Tells of a database as it was read.
    pub fn of(mark: DatabaseMark, recorded_at: DateTime<Utc>) -> Self {
        let DatabaseMark { system_identifier, timeline, mark, mailing_no } = mark;
        Self { system_identifier, timeline, mark, mailing_no, recorded_at }
    }

    /// The part that is compared.
    pub fn mark(self) -> DatabaseMark {
        let Self { system_identifier, timeline, mark, mailing_no, .. } = self;
        DatabaseMark { system_identifier, timeline, mark, mailing_no }
    }
}
