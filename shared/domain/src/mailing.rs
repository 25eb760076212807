//! What a caller may ask for.

use chrono::{DateTime, Duration, Utc};

use crate::client::{OperatorCode, Tag};
use crate::wire_text::wire_text;

wire_text! {
    /// Where a mailing is in its life: `scheduled → running ⇄ paused → finished`, and `cancelled` from all but `finished`.
    State {
        /// Its start hasn't come.
        Scheduled = "scheduled",
        /// It is being planned and sent.
        Running = "running",
        /// Planning has stopped until somebody looks at it.
        Paused = "paused",
        /// All of it is terminal.
        Finished = "finished",
        /// The caller withdrew it.
        Cancelled = "cancelled",
    }
}

wire_text! {
    /// Which risk a mailing takes when the fate of a call can't be known.
    Delivery {
        /// The message is sent again, and may be received twice.
        AtLeastOnce = "at_least_once",
        /// It is not, becomes `unknown`, and may never be received.
        AtMostOnce = "at_most_once",
    }
}

impl Delivery {
    /// Reads what a caller chose.
    pub fn parse(text: String) -> Result<Self, InvalidMailing> {
        match Self::from(text) {
            Self::Other(_) => Err(InvalidMailing::Delivery),
            known => Ok(known),
        }
    }
}

/// Why a field of a mailing is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMailing {
    /// Empty, over 1,000 characters, or with a NUL.
    #[error("must be 1 to 1,000 characters without NUL")]
    Text,
    /// Not one of the two.
    #[error("must be at_least_once or at_most_once")]
    Delivery,
    /// Both lists are empty: a mailing to everybody is never a default.
    #[error("must name at least one operator code or tag")]
    Filter,
    /// Too many values in one list.
    #[error("must hold at most 100 values")]
    FilterSize,
    /// Tags that leave no room for the rest of the mailing's event.
    #[error("must hold at most 4 KiB of tags in sum")]
    TagsSize,
    /// More than a year away.
    #[error("must be within a year from now")]
    StartTooFar,
    /// Not after the start.
    #[error("must be after starts_at")]
    EndBeforeStart,
    /// Not in the future.
    #[error("must be in the future")]
    EndInThePast,
    /// More than a year behind the start.
    #[error("must be within a year from starts_at")]
    EndTooFar,
}

/// What is sent, 1–1,000 characters (not bytes). `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Checks the length.
    pub fn new(text: String) -> Result<Self, InvalidMailing> {
        let valid = (1..=1_000).contains(&text.chars().count()) && !text.contains('\0');
        valid.then_some(Self(text)).ok_or(InvalidMailing::Text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} characters", self.0.chars().count())
    }
}

/// Whom a mailing is for: clients with one of the codes (if any is named) *and* one of the tags (if any is named).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    operator_codes: Vec<OperatorCode>,
    tags: Vec<Tag>,
}

impl Filter {
    /// The most values a list may hold.
    pub const MAX_VALUES: usize = 100;

    /// The most bytes all tags together may have: with as much text they leave room in an event's 16 KiB for the rest and
    /// for JSON's escapes.
    pub const MAX_TAG_BYTES: usize = 4 * 1024;

    /// Sorts both lists and drops doubles. At least one must name something, none more than [`Self::MAX_VALUES`], the tags
    /// not more than [`Self::MAX_TAG_BYTES`].
    pub fn new(mut operator_codes: Vec<OperatorCode>, mut tags: Vec<Tag>) -> Result<Self, InvalidMailing> {
        if operator_codes.is_empty() && tags.is_empty() {
            return Err(InvalidMailing::Filter);
        }
        operator_codes.sort();
        operator_codes.dedup();
        tags.sort();
        tags.dedup();
        if operator_codes.len() > Self::MAX_VALUES || tags.len() > Self::MAX_VALUES {
            return Err(InvalidMailing::FilterSize);
        }
        if tags.iter().map(|tag| tag.as_str().len()).sum::<usize>() > Self::MAX_TAG_BYTES {
            return Err(InvalidMailing::TagsSize);
        }
        Ok(Self { operator_codes, tags })
    }

    /// The codes, sorted; empty: any.
    pub fn operator_codes(&self) -> &[OperatorCode] {
        &self.operator_codes
    }

    /// The tags, sorted; empty: any.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

/// When a mailing runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Nothing is planned before.
    pub starts_at: DateTime<Utc>,
    /// No call begins at or after.
    pub ends_at: DateTime<Utc>,
}

impl Period {
    /// Fills in the defaults (start now, end a day after the start) and checks both. A start in the past means now.
    pub fn new(
        starts_at: Option<DateTime<Utc>>,
        ends_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidMailing> {
        let year = Duration::days(366);
        let starts_at = starts_at.unwrap_or(now);
        if starts_at > now + year {
            return Err(InvalidMailing::StartTooFar);
        }
        let ends_at = match ends_at {
            Some(ends_at) => ends_at,
            None => starts_at.max(now) + Duration::days(1),
        };
        if ends_at <= starts_at {
            return Err(InvalidMailing::EndBeforeStart);
        }
        if ends_at <= now {
            return Err(InvalidMailing::EndInThePast);
        }
        if ends_at > starts_at.max(now) + year {
            return Err(InvalidMailing::EndTooFar);
        }
        Ok(Self { starts_at, ends_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_counted_in_characters() {
        assert!(Text::new("ё".repeat(1_000)).is_ok());
        for text in [String::new(), "ё".repeat(1_001), "a\0".to_owned()] {
            assert_eq!(Text::new(text), Err(InvalidMailing::Text));
        }
    }

    #[test]
    fn a_filter_names_somebody() {
        assert_eq!(Filter::new(vec![], vec![]), Err(InvalidMailing::Filter));
        let code = |code| OperatorCode::new(code).unwrap();
        let filter = Filter::new(vec![code(917), code(916), code(917)], vec![]).unwrap();
        assert_eq!(filter.operator_codes(), [code(916), code(917)]);
    }

    #[test]
    fn a_filter_has_at_most_a_hundred_values_and_4_kib_of_tags() {
        let tags = |count: usize, length: usize| {
            let tag = |i| Tag::new(format!("{i:03}{}", "x".repeat(length - 3))).unwrap();
            Filter::new(vec![], (0..count).map(tag).collect())
        };
        assert!(tags(100, 40).is_ok());
        assert_eq!(tags(101, 4), Err(InvalidMailing::FilterSize));
        assert_eq!(tags(100, 41), Err(InvalidMailing::TagsSize));
    }

    #[test]
    fn a_period_has_defaults_and_lies_ahead() {
        let now: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        let at = |hours| Some(now + Duration::hours(hours));
        let period = |start, end| Period::new(start, end, now).map(|period| (period.starts_at, period.ends_at));
        let cases = [
            ("defaults", None, None, Ok((now, now + Duration::days(1)))),
            ("a day after the start", at(5), None, Ok((now + Duration::hours(5), now + Duration::hours(29)))),
            ("started long ago, open now", at(-50), None, Ok((now - Duration::hours(50), now + Duration::days(1)))),
            ("end before start", at(5), at(4), Err(InvalidMailing::EndBeforeStart)),
            ("end at start", at(5), at(5), Err(InvalidMailing::EndBeforeStart)),
            ("end in the past", at(-2), at(-1), Err(InvalidMailing::EndInThePast)),
            ("start too far", at(24 * 367), None, Err(InvalidMailing::StartTooFar)),
            ("end too far", None, at(24 * 367), Err(InvalidMailing::EndTooFar)),
        ];
        for (name, start, end, expected) in cases {
            assert_eq!(period(start, end), expected, "{name}");
        }
    }
}
