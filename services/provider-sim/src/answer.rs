//! Answers that aren't the contract's, or are it in another dress.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use chrono::{DateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use futures::StreamExt;
use futures::stream;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::call::Outcome;
use crate::send::Dropped;

pub(crate) const TAKEN: &str = r#"{"code":0,"message":"OK"}"#;
const REFUSED: &str = r#"{"code":-1,"message":"Error"}"#;

/// The client is to have read what came before the connection is reset.
const CUT: Duration = Duration::from_millis(20);

/// An answer, part by part; `{}` is the contract's success. A BOM or rubbish behind the end is written into the `body`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// Whether the provider takes the message; if it isn't said, it does with a 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,
    /// A careful reader can't tell from this 2xx whether the provider took the message.
    #[serde(skip_serializing_if = "is_default")]
    pub unreadable: bool,
    /// The body before it is encoded; the contract's for the status if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Blanks in front of the body fill it up to so many bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub size: usize,
    /// How the body is encoded, whether the client asked for it or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// Headers by name, also in place of those that the answer would have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The connection is reset when so many bytes of the encoded body are out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<usize>,
}

/// What a `Retry-After` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// In seconds.
    Seconds(u32),
    /// An HTTP date so many seconds ahead, or past if negative; rounded up to a whole second.
    Date(i64),
    /// Anything else.
    Text(String),
}

/// A `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// `gzip`
    Gzip,
    /// `deflate`, in the zlib format that the standard means.
    Deflate,
    /// `deflate` without zlib's head and sum, as some servers have it.
    RawDeflate,
    /// `br`
    Br,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            status: 200,
            accepted: None,
            unreadable: false,
            body: None,
            size: 0,
            encoding: None,
            retry_after: None,
            headers: BTreeMap::new(),
            cut_after: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Answer {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(200..600).contains(&self.status) {
            return Err(format!("status {} is not within 200..=599", self.status));
        }
        self.header_map().map_err(|error| error.to_string())?;
        self.retry_after.as_ref().map_or(Ok(()), RetryAfter::check)
    }

    fn is_2xx(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn accepts(&self) -> bool {
        self.accepted.unwrap_or(self.is_2xx())
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self.status {
            _ if self.cut_after.is_some() && self.accepts() => Outcome::ResetAfter,
            _ if self.cut_after.is_some() => Outcome::ResetBefore,
            200..300 if self.accepts() && !self.unreadable => Outcome::Ok,
            200..300 => Outcome::Garbage,
            429 | 503 if self.retry_after.is_some() => Outcome::Throttled(self.status),
            status => Outcome::Status(status),
        }
    }

    pub(crate) fn response(self) -> Result<Response<Body>, Dropped> {
        let body = Bytes::from(self.encoded().map_err(|_| Dropped)?);
        let headers = self.header_map().map_err(|_| Dropped)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(self.status).map_err(|_| Dropped)?;
        *response.headers_mut() = headers;
        *response.body_mut() = match self.cut_after {
            None => Body::from(body),
            Some(cut_after) => {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                let begun = body.slice(..cut_after.min(body.len()));
                let cut = stream::once(async {
                    tokio::time::sleep(CUT).await;
                    Err(Dropped)
                });
                Body::from_stream(stream::iter([Ok(begun)]).chain(cut))
            }
        };
        Ok(response)
    }

    fn header_map(&self) -> Result<HeaderMap, http::Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(encoding) = self.encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        if let Some(retry_after) = &self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::try_from(retry_after.to_string())?);
        }
        for (name, value) in &self.headers {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        Ok(headers)
    }

    fn encoded(&self) -> io::Result<Vec<u8>> {
        let usual = match self.status {
            // HTTP allows none.
            204 | 304 => "",
            _ if self.is_2xx() => TAKEN,
            _ => REFUSED,
        };
        let body = self.body.as_deref().unwrap_or(usual);
        let mut plain = vec![b' '; self.size.saturating_sub(body.len())];
        plain.extend_from_slice(body.as_bytes());
        match self.encoding {
            None => Ok(plain),
            Some(encoding) => encoding.encode(&plain),
        }
    }
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate | Self::RawDeflate => "deflate",
            Self::Br => "br",
        }
    }

    fn encode(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let fast = Compression::fast();
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), fast);
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), fast);
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::RawDeflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), fast);
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Br => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 22);
                encoder.write_all(plain)?;
                encoder.flush()?;
                Ok(encoder.into_inner())
            }
        }
    }
}

impl RetryAfter {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Date(seconds) if date(*seconds).is_none() => Err(format!("there is no date {seconds} s from now")),
            Self::Text(text) => HeaderValue::try_from(text).map(|_| ()).map_err(|error| format!("{text:?}: {error}")),
            _ => Ok(()),
        }
    }

    /// How long it tells the client to wait, s: no more than that.
    pub(crate) fn told(&self) -> Option<u32> {
        match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Date(seconds) => u32::try_from((*seconds).max(0)).ok(),
            Self::Text(_) => None,
        }
    }
}

impl std::fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}"),
            Self::Date(seconds) => match date(*seconds) {
                Some(date) => write!(f, "{}", date.format("%a, %d %b %Y %H:%M:%S GMT")),
                None => Err(std::fmt::Error),
            },
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn date(seconds: i64) -> Option<DateTime<Utc>> {
    let ahead = Utc::now().checked_add_signed(TimeDelta::try_seconds(seconds)?)?;
    DateTime::from_timestamp(ahead.timestamp() + 1, 0)
}
