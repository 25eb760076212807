//! What a client is made of. Each type holds only valid values.

use std::fmt;

/// A phone number in the provider's country: `7` and ten digits. `Debug` and `Display` hide it; see [`Phone::digits`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Phone(i64);

/// Why a client's field is refused; its text says what is expected and never repeats the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClient {
    /// Not `7XXXXXXXXXX`.
    #[error("must be 7 and ten more digits, as in 79161234567")]
    Phone,
    /// Not 900–999.
    #[error("must be a number from 900 to 999")]
    OperatorCode,
    /// Empty, over 100 characters, or with a NUL.
    #[error("must be 1 to 100 characters without NUL")]
    Tag,
    /// Not in the IANA database.
    #[error("must be an IANA time zone, as in Europe/Moscow")]
    TimeZone,
}

impl Phone {
    /// Reads `7XXXXXXXXXX`; nothing is trimmed or guessed.
    pub fn parse(text: &str) -> Result<Self, InvalidClient> {
        let valid = text.len() == 11 && text.starts_with('7') && text.bytes().all(|byte| byte.is_ascii_digit());
        if !valid {
            return Err(InvalidClient::Phone);
        }
        text.parse().map(Self).map_err(|_| InvalidClient::Phone)
    }

    /// The number as the provider and the table take it.
    pub fn digits(self) -> i64 {
        self.0
    }

    /// The three digits behind the country code: the operator's code of a number that was never ported.
    pub fn operator_code(self) -> Result<OperatorCode, InvalidClient> {
        OperatorCode::new(self.0 / 10_000_000 % 1_000)
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("7**********")
    }
}

/// A mobile operator's code, 900–999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorCode(i16);

impl OperatorCode {
    /// Checks the range.
    pub fn new(code: i64) -> Result<Self, InvalidClient> {
        match i16::try_from(code) {
            Ok(code @ 900..=999) => Ok(Self(code)),
            _ => Err(InvalidClient::OperatorCode),
        }
    }

    /// The code as the table holds it.
    pub fn get(self) -> i16 {
        self.0
    }
}

impl fmt::Display for OperatorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A label that callers give to clients, 1–100 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

impl Tag {
    /// Checks the length in characters, and that Postgres can hold it (no NUL).
    pub fn new(text: String) -> Result<Self, InvalidClient> {
        let valid = (1..=100).contains(&text.chars().count()) && !text.contains('\0');
        valid.then_some(Self(text)).ok_or(InvalidClient::Tag)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, given away.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// An IANA time zone's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeZone(chrono_tz::Tz);

impl TimeZone {
    /// What a client without one has.
    pub const UTC: Self = Self(chrono_tz::UTC);

    /// Looks the name up in the database of `chrono-tz`; case counts.
    pub fn parse(name: &str) -> Result<Self, InvalidClient> {
        name.parse().map(Self).map_err(|_| InvalidClient::TimeZone)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_is_seven_and_ten_digits() {
        assert_eq!(Phone::parse("79161234567").map(Phone::digits), Ok(79_161_234_567));
        for text in ["", "7916123456", "791612345678", "89161234567", "+7916123456", "7916123456x", "７9161234567"] {
            assert_eq!(Phone::parse(text), Err(InvalidClient::Phone), "{text:?}");
        }
    }

    #[test]
    fn the_operator_code_is_read_from_the_phone_number() {
        let code = |text| Phone::parse(text).unwrap().operator_code().map(OperatorCode::get);
        assert_eq!(code("79161234567"), Ok(916));
        assert_eq!(code("74951234567"), Err(InvalidClient::OperatorCode));
    }

    #[test]
    fn a_phone_number_is_never_printed() {
        assert_eq!(format!("{:?}", Phone::parse("79161234567").unwrap()), "7**********");
    }

    #[test]
    fn a_tag_is_counted_in_characters() {
        assert!(Tag::new("я".repeat(100)).is_ok());
        for text in [String::new(), "я".repeat(101), "a\0b".to_owned()] {
            assert_eq!(Tag::new(text), Err(InvalidClient::Tag));
        }
    }

    #[test]
    fn a_time_zone_is_an_iana_name() {
        assert_eq!(TimeZone::parse("Europe/Moscow").map(TimeZone::name), Ok("Europe/Moscow"));
        for name in ["", "Moscow", "+03:00", "europe/moscow"] {
            assert_eq!(TimeZone::parse(name), Err(InvalidClient::TimeZone), "{name:?}");
        }
    }
}
