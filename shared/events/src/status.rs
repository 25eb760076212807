use chrono::{DateTime, Utc};
use domain::ids::MessageId;
use domain::status::{Reason, Standing, Status};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// Also the record's key.
    pub message_id: MessageId,
    /// The mailing's public id; one that isn't this number's is dead-lettered by the projector.
    pub mailing_id: Uuid,
    /// The client's public id.
    pub client_id: Uuid,
    /// The round of the message record.
    pub round: i32,
    /// Calls made so far, the throttled ones not counted; of a `started` the one that is about to begin.
    pub attempt: i32,
    /// How many calls of an `at_most_once` message were announced so far. An answer or a take-back clears the doubt of an
    /// announcement up to its own number, so a copy that arrives late clears no later one.
    #[serde(default, skip_serializing_if = "crate::codec::is_zero")]
    pub announced: i32,
    /// Whether the message is settled by this.
    pub kind: Kind,
    /// The message's status now.
    pub status: Status,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The provider's HTTP status, of the attempt that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How long that attempt took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<i32>,
    /// The next attempt (retrying) or round (held) begins no earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// The client's operator code, 900–999: which lane a held message waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_code: Option<i16>,
    /// For people, see [`mask_detail`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The message record's.
    pub planned_at: DateTime<Utc>,
    /// By the sender's clock.
    pub occurred_at: DateTime<Utc>,
    /// Where the message record lies; a sender that takes the partition over matches by it.
    pub source: Source,
}

/// What a status event is to recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call is about to begin, of an `at_most_once` mailing. Nothing of the message has changed yet: its status is
    /// `created`, and readers that only want to know what became of it pass this by.
    Started,
    /// The message stays open. With the status `created` it takes a `started` back: the call was not made.
    Open,
    /// Its round is over.
    Settled,
}

/// Coordinates in message-events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The partition; the status lies in the same one of status-events.
    pub partition: i32,
    /// The offset; -1: the record is lost, and `herald replan` has settled its message.
    pub offset: i64,
}

impl StatusEvent {
    /// What decides whether it is shown.
    pub fn standing(&self) -> Standing {
        Standing { round: self.round, status: self.status.clone(), attempt: self.attempt, not_before: self.not_before }
    }

    /// Whether it belongs to the message's story beside its row: an attempt that failed, a wait, a hold.
    pub fn is_step(&self) -> bool {
        matches!(self.status, Status::Retrying | Status::Held)
            || (self.status == Status::Failed && matches!(self.reason, Some(Reason::Rejected | Reason::Exhausted)))
    }
}

/// Makes a text of the provider's or of a library fit for a status event: at most 200 characters, and as `#` what may be
/// part of a phone number: four or more digits in a run, seven or more in groups, as in `8 (912) 345-67-89`.
pub fn mask_detail(detail: &str) -> String {
    let mut masked = String::new();
    let mut number = String::new();
    for character in detail.chars().take(200).chain(['\n']) {
        if character.is_numeric() || (!number.is_empty() && joins_digits(character)) {
            number.push(character);
            continue;
        }
        let (digits, rest) = number.split_at(number.trim_end_matches(joins_digits).len());
        masked.push_str(if may_be_a_phone(digits) { "#" } else { digits });
        masked.push_str(rest);
        number.clear();
        masked.push(if character.is_control() { ' ' } else { character });
    }
    masked.trim_end().to_owned()
}

fn joins_digits(character: char) -> bool {
    " \u{a0}-().".contains(character)
}

fn may_be_a_phone(digits: &str) -> bool {
    let groups = || digits.split(joins_digits).map(|group| group.chars().count());
    groups().sum::<usize>() >= 7 || groups().any(|count| count >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_shows_no_phone_number_however_it_is_written() {
        for phone in ["79123456789", "+7 (912) 345-67-89", "8.912.345.67.89", "8 912\u{a0}345 67 89", "٧٩١٢٣٤٥٦٧٨٩"]
        {
            let masked = mask_detail(&format!("no route to {phone} (code 12), try 5 times."));
            let plain = ["no route to # (code 12), try 5 times.", "no route to +# (code 12), try 5 times."];
            assert!(plain.contains(&masked.as_str()), "{masked}");
        }
        assert_eq!(mask_detail("HTTP 422 with code 17: 10 of 12 - 3 left"), "HTTP 422 with code 17: 10 of 12 - 3 left");
    }
}
