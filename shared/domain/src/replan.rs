//! What has become of a client's message, by what is left of it, when a mailing is planned again after a loss.

/// What Postgres shows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The round of its status.
    pub round: i32,
    /// The highest round in which it is settled; 0 is none.
    pub settled_round: i32,
}

/// The record of a message's highest round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its round.
    pub round: i32,
    /// It lies at or above the sender's frontier: a sender reads it, or has, and its statuses say how far it came.
    pub on_conveyor: bool,
}

/// All that is left of a message, once every status in the log has been written to Postgres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Its row.
    pub shown: Option<Shown>,
    /// Its record.
    pub record: Option<Recorded>,
    /// Its last status is that a call was about to begin.
    pub started: bool,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: something came of it.
    Settled,
    /// Nothing: the senders will settle it.
    OnConveyor,
    /// It may have been sent, and nobody can know: it becomes `unknown`.
    InDoubt,
    /// It is planned again: nobody has sent it, and nobody will.
    Lost,
}

impl Remains {
    /// The highest round in which it was planned, or is now.
    pub fn round(&self) -> i32 {
        let shown = self.shown.map_or(1, |shown| shown.round.max(shown.settled_round));
        self.record.map_or(1, |record| record.round).max(shown)
    }

    /// What has become of it. A frontier passes a record only when its settling status is acknowledged, so one below the frontier without a
    /// settled row has lost that status, not its call.
    pub fn fate(&self) -> Fate {
        let round = self.round();
        let record = self.record.filter(|record| record.round == round);
        if self.shown.is_some_and(|shown| shown.settled_round >= round) {
            Fate::Settled
        } else if record.is_some_and(|record| record.on_conveyor) {
            Fate::OnConveyor
        } else if record.is_some() || self.started {
            Fate::InDoubt
        } else {
            Fate::Lost
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_has_sent_and_nobody_will_is_planned_again() {
        let shown = |round, settled_round| Some(Shown { round, settled_round });
        let record = |round, on_conveyor| Some(Recorded { round, on_conveyor });
        let cases = [
            ("nothing is left of it", None, None, false, Fate::Lost, 1),
            ("settled, its record gone", shown(1, 1), None, false, Fate::Settled, 1),
            ("settled above the frontier", shown(1, 1), record(1, true), false, Fate::Settled, 1),
            ("unread", None, record(1, true), false, Fate::OnConveyor, 1),
            ("waits for its retry", shown(1, 0), record(1, true), false, Fate::OnConveyor, 1),
            ("waited for its retry, its record gone", shown(1, 0), None, false, Fate::Lost, 1),
            ("passed, its status gone", None, record(1, false), false, Fate::InDoubt, 1),
            ("passed, its last status gone", shown(1, 0), record(1, false), false, Fate::InDoubt, 1),
            ("a call was about to begin, the record gone", None, None, true, Fate::InDoubt, 1),
            ("a call was about to begin, a sender will know", None, record(1, true), true, Fate::OnConveyor, 1),
            ("a second call was about to begin", shown(1, 0), None, true, Fate::InDoubt, 1),
            ("its second round unread", shown(1, 1), record(2, true), false, Fate::OnConveyor, 2),
            ("its second round's record gone", shown(2, 1), record(1, false), false, Fate::Lost, 2),
        ];
        for (name, shown, record, started, fate, round) in cases {
            let remains = Remains { shown, record, started };
            assert_eq!((remains.fate(), remains.round()), (fate, round), "{name}");
        }
    }
}
