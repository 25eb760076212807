//! What a sender commits beside the frontier.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use domain::client::OperatorCode;
use domain::lane::Closed;

use super::{MessageOffset, StatusOffset};

/// The metadata of a sender's commit; ASCII, well under the broker's 4,096 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// See [`super::Checkpoint::bookmark`].
    pub bookmark: StatusOffset,
    /// See [`super::Checkpoint::position`].
    pub position: MessageOffset,
    /// See [`super::Checkpoint::open`].
    pub open: u64,
    /// How many of them are being called.
    pub calling: u64,
    /// Calls of the partition's messages that were ever begun. A takeover goes on from the commit, so it falls only when commits
    /// were lost.
    pub calls: u64,
    /// The partition's part of the pace that its owner keeps because the provider throttles, calls a second; none: it keeps none.
    pub pace: Option<u64>,
    /// The lanes that the partition's owner has closed.
    pub closed: Closed,
}

impl fmt::Display for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bookmark, position, open, calling, calls, pace, closed } = self;
        write!(f, "v2 bookmark={bookmark} position={position} open={open} calling={calling} calls={calls} pace=")?;
        match pace {
            Some(pace) => pace.fmt(f)?,
            None => f.write_str("-")?,
        }
        f.write_str(" closed=")?;
        match closed {
            Closed::All => f.write_str("all"),
            Closed::Codes(codes) if codes.is_empty() => f.write_str("-"),
            Closed::Codes(codes) => {
                let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
                f.write_str(&codes.join(","))
            }
        }
    }
}

/// Metadata that no sender wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sender's commit metadata")]
pub struct InvalidMetadata;

impl FromStr for Metadata {
    type Err = InvalidMetadata;

    fn from_str(text: &str) -> Result<Self, InvalidMetadata> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["v2", bookmark, position, open, calling, calls, pace, closed] = words[..] else {
            return Err(InvalidMetadata);
        };
        Ok(Self {
            bookmark: StatusOffset(number(bookmark, "bookmark=")?),
            position: MessageOffset(number(position, "position=")?),
            open: number(open, "open=")?,
            calling: number(calling, "calling=")?,
            calls: number(calls, "calls=")?,
            pace: if pace == "pace=-" { None } else { Some(number(pace, "pace=")?) },
            closed: match closed.strip_prefix("closed=").ok_or(InvalidMetadata)? {
                "all" => Closed::All,
                "-" => Closed::Codes(BTreeSet::new()),
                codes => Closed::Codes(codes.split(',').map(code).collect::<Result<_, _>>()?),
            },
        })
    }
}

fn number<N: FromStr>(word: &str, name: &str) -> Result<N, InvalidMetadata> {
    word.strip_prefix(name).and_then(|number| number.parse().ok()).ok_or(InvalidMetadata)
}

fn code(text: &str) -> Result<OperatorCode, InvalidMetadata> {
    text.parse().ok().and_then(|code| OperatorCode::new(code).ok()).ok_or(InvalidMetadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_written_and_nothing_else_is() {
        let codes = |codes: &[i64]| Closed::Codes(codes.iter().map(|code| OperatorCode::new(*code).unwrap()).collect());
        let cases = [
            (None, codes(&[]), "v2 bookmark=1 position=22 open=333 calling=22 calls=4444 pace=- closed=-"),
            (
                None,
                codes(&[900, 917]),
                "v2 bookmark=1 position=22 open=333 calling=22 calls=4444 pace=- closed=900,917",
            ),
            (Some(55), Closed::All, "v2 bookmark=1 position=22 open=333 calling=22 calls=4444 pace=55 closed=all"),
        ];
        for (pace, closed, text) in cases {
            let (bookmark, position) = (StatusOffset(1), MessageOffset(22));
            let metadata = Metadata { bookmark, position, open: 333, calling: 22, calls: 4_444, pace, closed };
            assert_eq!((metadata.to_string().as_str(), text.parse()), (text, Ok(metadata)));
        }
        let others = [
            "",
            "v2",
            "v1 bookmark=1 position=2 open=3",
            "v2 bookmark=1 position=2 open=3 calling=2 calls=4 pace=-",
            "v2 bookmark=x position=2 open=3 calling=2 calls=4 pace=- closed=-",
            "v2 bookmark=1 position=2 open=-3 calling=2 calls=4 pace=- closed=-",
            "v2 bookmark=1 position=2 open=3 calling=2 calls=4 pace= closed=-",
            "v2 bookmark=1 position=2 open=3 calling=2 calls=4 pace=- closed=",
            "v2 bookmark=1 position=2 open=3 calling=2 calls=4 pace=- closed=7",
            "v2 bookmark=1 position=2 open=3 calling=2 calls=4 pace=- closed=- more=5",
        ];
        for text in others {
            assert_eq!(text.parse::<Metadata>(), Err(InvalidMetadata), "{text:?}");
        }
        let all: BTreeSet<OperatorCode> = (900..=999).map(|code| OperatorCode::new(code).unwrap()).collect();
        let (bookmark, position) = (StatusOffset(i64::MAX), MessageOffset(i64::MAX));
        const MAX: u64 = u64::MAX;
        let longest = Metadata {
            bookmark,
            position,
            open: MAX,
            calling: MAX,
            calls: MAX,
            pace: Some(MAX),
            closed: Closed::Codes(all),
        };
        assert!(longest.to_string().len() < 4_096, "the broker's limit");
    }
}
