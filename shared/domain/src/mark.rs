//! Whether Postgres is the one that Herald last ran with, or an older state of it.

use crate::ids::MailingNo;
use crate::mailing::State;

/// What tells a database from another, and from an older state of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseMark {
    /// The server's, drawn when its data directory was made.
    pub system_identifier: String,
    /// The server takes a new one when it is promoted, or restored to a point in time.
    pub timeline: i64,
    /// A count in the database, one more before each record that tells of it. No clock and no position in the log: those
    /// go on in a restored database, and soon pass what they had reached.
    pub mark: i64,
    /// The highest mailing number given out.
    pub mailing_no: MailingNo,
}

/// Why nothing may be written, planned or published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Nothing was recorded yet, or it couldn't be read.
    #[error("Kafka has not told yet which Postgres Herald last ran with")]
    Unknown,
    /// Another system identifier.
    #[error("this is another Postgres than the one that Herald last ran with: run `herald recover`")]
    OtherServer,
    /// Another timeline.
    #[error("Postgres was restored or has failed over since Herald last ran with it: run `herald recover`")]
    OtherTimeline,
    /// A lower mark or mailing number.
    #[error("Postgres holds an older state than Kafka: run `herald recover`")]
    Older,
}

/// Compares the database as found with the newest that was recorded.
pub fn check(recorded: Option<&DatabaseMark>, found: &DatabaseMark) -> Result<(), Mismatch> {
    let recorded = recorded.ok_or(Mismatch::Unknown)?;
    if found.system_identifier != recorded.system_identifier {
        Err(Mismatch::OtherServer)
    } else if found.timeline != recorded.timeline {
        Err(Mismatch::OtherTimeline)
    } else if found.mark < recorded.mark || found.mailing_no < recorded.mailing_no {
        Err(Mismatch::Older)
    } else {
        Ok(())
    }
}

/// The state that a restored row gets when a newer event of its mailing is known. `row` is none for a row that is missing.
///
/// Events carry the caller's word; `running` and `finished` are the scheduler's. One that has started already is scheduled
/// once more: starting keeps its progress.
pub fn recovered_state(row: Option<State>, event: State) -> State {
    match (row, event) {
        (_, event @ (State::Cancelled | State::Paused | State::Other(_))) => event,
        (Some(row @ (State::Running | State::Finished)), _) => row,
        _ => State::Scheduled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_doubted_unless_it_is_the_recorded_one_and_no_older() {
        let mark = |system_identifier: &str, timeline, mark, mailing_no| DatabaseMark {
            system_identifier: system_identifier.to_owned(),
            timeline,
            mark,
            mailing_no: MailingNo::from(mailing_no),
        };
        let recorded = mark("7", 2, 100, 40);
        for (name, found, expected) in [
            ("as recorded", recorded.clone(), Ok(())),
            ("further", mark("7", 2, 101, 41), Ok(())),
            ("another server", mark("8", 2, 101, 41), Err(Mismatch::OtherServer)),
            ("promoted", mark("7", 3, 101, 41), Err(Mismatch::OtherTimeline)),
            ("an earlier timeline", mark("7", 1, 101, 41), Err(Mismatch::OtherTimeline)),
            ("an older state", mark("7", 2, 99, 41), Err(Mismatch::Older)),
            ("numbers would be given out again", mark("7", 2, 100, 39), Err(Mismatch::Older)),
        ] {
            assert_eq!(check(Some(&recorded), &found), expected, "{name}");
        }
        assert_eq!(check(None, &recorded), Err(Mismatch::Unknown));
    }

    #[test]
    fn every_mismatch_that_recovery_mends_names_it() {
        for mismatch in [Mismatch::OtherServer, Mismatch::OtherTimeline, Mismatch::Older] {
            assert!(mismatch.to_string().ends_with("run `herald recover`"), "{mismatch}");
        }
    }

    #[test]
    fn a_restored_row_takes_the_callers_word_and_keeps_the_schedulers_steps() {
        use State::*;
        for (row, event, expected) in [
            (None, Scheduled, Scheduled),
            (None, Cancelled, Cancelled),
            (Some(Scheduled), Scheduled, Scheduled),
            (Some(Running), Scheduled, Running),
            (Some(Running), Paused, Paused),
            (Some(Running), Cancelled, Cancelled),
            (Some(Paused), Running, Scheduled),
            (Some(Finished), Scheduled, Finished),
        ] {
            assert_eq!(recovered_state(row.clone(), event.clone()), expected, "{row:?} {event:?}");
        }
    }
}
