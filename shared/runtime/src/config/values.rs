//! Types of settings.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

/// `5s`, `250ms`, `1m 30s`. For `#[arg(value_parser = parse_duration)]`.
///
/// # Errors
/// It is not a number with a unit.
pub fn parse_duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// `host:port`; a host name is looked up, once, now. For `#[arg(value_parser = parse_addr)]`.
///
/// # Errors
/// It has no port, or the name has no address.
pub fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    let mut addrs = text.to_socket_addrs().map_err(|error| format!("not host:port: {error}"))?;
    addrs.next().ok_or_else(|| "the host has no address".to_owned())
}

/// A list of durations: `1s,2s,4s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations(pub Vec<Duration>);

impl FromStr for Durations {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|part| parse_duration(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

/// librdkafka properties: `name=value,name=value`. A comma within a value is written `\,` and a backslash `\\`.
/// Values may be secret: `Debug` and `Display` show only the names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaProperties(Vec<(String, String)>);

impl KafkaProperties {
    /// Names and values, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl FromStr for KafkaProperties {
    type Err = String;

    /// The error says which part is wrong by its number: the part itself may be a piece of a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        split_escaped(text)
            .into_iter()
            .enumerate()
            .map(|(index, part)| match part.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
                _ => Err(format!("part {} is not name=value", index + 1)),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn split_escaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let last = parts.last_mut().expect("starts with one");
        match char {
            '\\' => match chars.next_if(|next| matches!(next, ',' | '\\')) {
                Some(escaped) => last.push(escaped),
                None => last.push('\\'),
            },
            ',' => parts.push(String::new()),
            char => last.push(char),
        }
    }
    parts
}

impl fmt::Display for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(|(name, _)| format!("{name}=***")).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Kafka allows 249 characters for a topic; ours are appended to the prefix.
pub(super) fn parse_topic_prefix(text: &str) -> Result<String, String> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || ".-_".contains(char);
    match (1..=100).contains(&text.len()) && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 100 of the characters a-z A-Z 0-9 . _ -".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert!(parse_duration("5").is_err());
        let delays: Durations = "1s, 2s,4s".parse().unwrap();
        assert_eq!(delays.0, [1, 2, 4].map(Duration::from_secs));
        for wrong in ["", "1s,", "1s;2s", "1s,2"] {
            assert!(wrong.parse::<Durations>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(parse_addr("127.0.0.1:9464").unwrap().to_string(), "127.0.0.1:9464");
        assert!(parse_addr("localhost:9464").unwrap().ip().is_loopback());
        for wrong in ["9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000"] {
            assert!(parse_addr(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn properties_are_split_at_commas_that_are_not_escaped_and_shown_without_values() {
        let properties: KafkaProperties = r"debug=cgrp\,topic, sasl.password=a=b\\\d".parse().unwrap();
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("debug", "cgrp,topic"), ("sasl.password", r"a=b\\d")]);
        assert_eq!(format!("{properties} {properties:?}"), "debug=***,sasl.password=*** debug=***,sasl.password=***");
    }

    #[test]
    fn a_wrong_property_is_named_by_its_number_only() {
        let error = "sasl.password=hunter,2".parse::<KafkaProperties>().unwrap_err();
        assert_eq!(error, "part 2 is not name=value");
        assert!("=x".parse::<KafkaProperties>().is_err());
        assert!("a=b,".parse::<KafkaProperties>().is_err());
    }

    #[test]
    fn a_topic_prefix_is_what_kafka_takes() {
        for right in ["herald", "a", "Team-1.herald_x", &"x".repeat(100)] {
            assert!(parse_topic_prefix(right).is_ok(), "{right:?}");
        }
        for wrong in ["", "a b", "ä", "a/b", &"x".repeat(101)] {
            assert!(parse_topic_prefix(wrong).is_err(), "{wrong:?}");
        }
    }
}
