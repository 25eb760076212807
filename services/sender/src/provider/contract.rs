//! What the provider's answer means. Its contract is `200 {"code": 0, "message": "OK"}`, read as a careful person would:
//! whom we call again although the provider said yes, gets the text twice.

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use domain::delivery::Outcome;
use domain::status::Reason;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use serde::Deserialize;
use serde_json::Value;

/// No more is read of an answer, nor made of it by decompression.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// How long to wait when a 429 doesn't say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// An answer of the provider.
#[derive(Debug)]
pub(super) struct Answer {
    http_status: u16,
    /// `code` of the body, if it is a number.
    code: Option<f64>,
    /// `message` of the body, of all answers but the contract's success.
    message: Option<String>,
    retry_after: Option<Duration>,
    /// The body is a page for people, which comes from a gateway or another server.
    page: bool,
}

#[derive(Deserialize)]
struct Coded {
    #[serde(default)]
    code: Value,
}

#[derive(Deserialize)]
struct Worded {
    #[serde(default)]
    message: Value,
}

impl Answer {
    /// Reads what came of an answer: `body` may end early.
    pub(super) fn read(http_status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let (code, body) = read_code(body);
        let accepted = code == Some(0.0) && matches!(http_status, 200..=299);
        Self {
            http_status,
            code,
            message: if accepted { None } else { read_message(&body) },
            retry_after: retry_after.and_then(parse_retry_after),
            page: body.trim_ascii_start().starts_with(b"<"),
        }
    }

    /// Whether only the rest of the body could say if the message was taken.
    pub(super) fn needs_its_rest(&self) -> bool {
        self.code.is_none() && matches!(self.http_status, 200..=299)
    }

    pub(super) fn outcome(&self) -> Outcome {
        let wait = self.retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
        match self.http_status {
            200..=299 => match self.code {
                Some(0.0) => Outcome::Accepted,
                Some(_) => Outcome::Retryable(Reason::BadAnswer),
                None => Outcome::Ambiguous(Reason::BadAnswer),
            },
            429 => Outcome::Throttled(wait),
            503 if self.retry_after.is_some() => Outcome::Throttled(wait),
            408 => Outcome::Retryable(Reason::ProviderError),
            300..=399 | 401 | 402 | 403 | 407 => Outcome::Retryable(Reason::Configuration),
            404 | 405 if self.code.is_none() => Outcome::Retryable(Reason::Configuration),
            400..=499 if self.page => Outcome::Retryable(Reason::Configuration),
            400..=499 => Outcome::Rejected,
            _ => Outcome::Retryable(Reason::ProviderError),
        }
    }

    /// The provider's own words, for people.
    pub(super) fn detail(&self) -> String {
        let mut detail = format!("HTTP {}", self.http_status);
        match self.code {
            Some(code) => detail += &format!(" with code {code}"),
            None if self.needs_its_rest() => detail += " with an answer that can't be read",
            None => {}
        }
        if let Some(message) = &self.message {
            detail = detail + ": " + message;
        }
        detail
    }
}

/// `code`, and the body in the form in which it was found.
fn read_code(body: &[u8]) -> (Option<f64>, Cow<'_, [u8]>) {
    if let Some(code) = code_of(body) {
        return (Some(code), Cow::Borrowed(body));
    }
    // Content-Encoding isn't asked: what stands between leaves it out, misspells it and leaves it on.
    type Decode = fn(&[u8]) -> Vec<u8>;
    let decoders: [Decode; 5] = [
        |body| decompressed(MultiGzDecoder::new(body)),
        |body| decompressed(ZlibDecoder::new(body)),
        |body| decompressed(DeflateDecoder::new(body)),
        |body| decompressed(brotli_decompressor::Decompressor::new(body, 4096)),
        printable,
    ];
    let found = decoders.into_iter().map(|decode| decode(body)).find_map(|body| Some((code_of(&body)?, body)));
    match found {
        Some((code, body)) => (Some(code), Cow::Owned(body)),
        None => (None, Cow::Borrowed(body)),
    }
}

fn code_of(body: &[u8]) -> Option<f64> {
    let body: Coded = serde_json::from_slice(object(body)?).ok()?;
    match body.code {
        Value::Number(code) => code.as_f64(),
        Value::String(code) => code.trim().parse().ok().filter(|code: &f64| code.is_finite()),
        _ => None,
    }
}

fn read_message(body: &[u8]) -> Option<String> {
    let body: Worded = serde_json::from_slice(object(&printable(body))?).ok()?;
    match body.message {
        Value::Null => None,
        Value::String(message) => Some(message),
        other => Some(other.to_string()),
    }
}

/// A JSON object, without what stands before it. serde would read a list as well.
fn object(body: &[u8]) -> Option<&[u8]> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    body.starts_with(b"{").then_some(body)
}

/// What could be decompressed, also when the rest is missing or wrong.
fn decompressed(decoder: impl Read) -> Vec<u8> {
    let mut plain = Vec::new();
    let _ = decoder.take(MAX_ANSWER as u64).read_to_end(&mut plain);
    plain
}

/// For a text in an older encoding, or with line breaks as they are, which JSON doesn't allow.
fn printable(body: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(body).into_owned().into_bytes();
    text.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b' ');
    text
}

/// Both forms of RFC 9110 §10.2.3; a date in the past is no wait. At most a day, so that any number makes a duration.
fn parse_retry_after(value: &str) -> Option<Duration> {
    let seconds = match value.trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => seconds,
        Ok(_) => return None,
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(value.trim()).ok()?;
            (at.to_utc() - chrono::Utc::now()).as_seconds_f64()
        }
    };
    Some(Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const REFUSED: &[u8] = br#"{"code":-1,"message":"Error"}"#;
    const PAGE: &[u8] = b"\r\n<!doctype html><title>Not here</title>";

    const CONFIGURATION: Outcome = Outcome::Retryable(Reason::Configuration);
    const UNREADABLE: Outcome = Outcome::Ambiguous(Reason::BadAnswer);

    fn outcome(http_status: u16, body: impl AsRef<[u8]>) -> Outcome {
        Answer::read(http_status, None, body.as_ref()).outcome()
    }

    #[test]
    fn a_success_is_read_as_a_careful_person_would() {
        let accepted = [
            ("the contract's", r#"{"code":0,"message":"OK"}"#),
            ("a byte order mark", "\u{feff}{\"code\":0}"),
            ("white space around", "\r\n {\n \"code\" : 0 }\n\n"),
            ("a code in quotes", r#"{"code":"0"}"#),
            ("a code with a fraction", r#"{"code":0.0}"#),
            ("both", r#"{"code":" 0.0 "}"#),
            ("a minus", r#"{"code":-0}"#),
            ("other fields of any kind", r#"{"data":{"code":[7]},"message":null,"code":0,"more":[{}]}"#),
            ("a line break within the message", "{\"code\":0,\"message\":\"O\nK\"}"),
        ];
        for (name, body) in accepted {
            for http_status in [200, 201, 202, 203, 207] {
                assert_eq!(outcome(http_status, body), Outcome::Accepted, "{name}, {http_status}");
            }
        }
        assert_eq!(outcome(200, b"{\"message\":\"\xce\xca\",\"code\":0}"), Outcome::Accepted, "windows-1251");
        let long = format!(r#"{{"message":"{}","code":0}}"#, "a".repeat(70_000));
        assert_eq!(outcome(200, long), Outcome::Accepted, "70 KB");
    }

    #[test]
    fn a_success_is_read_through_any_compression() {
        let body = br#"{"code":0,"message":"OK"}"#;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(body).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(outcome(200, &gzip), Outcome::Accepted, "gzip");
        assert_eq!(outcome(200, &gzip[..gzip.len() - 8]), Outcome::Accepted, "gzip without its checksum");
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(body).unwrap();
        assert_eq!(outcome(200, zlib.finish().unwrap()), Outcome::Accepted, "deflate");
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(body).unwrap();
        assert_eq!(outcome(200, deflate.finish().unwrap()), Outcome::Accepted, "deflate without zlib's head");
        // One stored block: 16 bits of window, the length, the bytes, the last empty block.
        let brotli = b"\x0b\x0c\x80{\"code\":0,\"message\":\"OK\"}\x03";
        assert_eq!(outcome(200, brotli), Outcome::Accepted, "br");
    }

    #[test]
    fn a_success_with_another_code_is_no_doubt() {
        let refused = ["1", "-1", "0.5", "\"7\"", "404", "1e9"];
        for code in refused {
            let body = format!(r#"{{"code":{code}}}"#);
            assert_eq!(outcome(200, body), Outcome::Retryable(Reason::BadAnswer), "{code}");
        }
    }

    #[test]
    fn a_success_that_stays_unreadable_is_a_doubt() {
        let unreadable = [
            "",
            "OK",
            "0",
            "[0]",
            "{}",
            r#"{"code":null}"#,
            r#"{"code":false}"#,
            r#"{"code":""}"#,
            r#"{"code":"OK"}"#,
            r#"{"code":"NaN"}"#,
            r#"{"code":0,"code":1}"#,
            r#"{"code":0"#,
            r#"{"message":"OK"}"#,
            "<html>all is well",
        ];
        for body in unreadable {
            for http_status in [200, 202, 204] {
                assert_eq!(outcome(http_status, body), UNREADABLE, "{body:?}, {http_status}");
            }
        }
    }

    #[test]
    fn a_refusal_is_of_the_message_or_of_our_configuration() {
        let configuration = [
            ("a redirect", 302, REFUSED),
            ("a bad token", 401, REFUSED),
            ("an account without money", 402, REFUSED),
            ("an address that isn't allowed", 403, REFUSED),
            ("a proxy that wants a login", 407, b"".as_slice()),
            ("a wrong path, the server's page", 404, PAGE),
            ("a wrong path, a framework's answer", 404, br#"{"statusCode":404,"message":"Cannot POST"}"#),
            ("a wrong path, no answer", 404, b""),
            ("another server", 405, b"Method Not Allowed"),
            ("http to the port of https", 400, PAGE),
            ("a gateway's limit", 413, PAGE),
        ];
        for (name, http_status, body) in configuration {
            assert_eq!(outcome(http_status, body), CONFIGURATION, "{name}");
        }
        let rejected = [
            ("a bad request", 400, REFUSED),
            ("without a body", 400, b"".as_slice()),
            ("the provider's own 404", 404, REFUSED),
            ("its 405", 405, REFUSED),
            ("a 422 with words", 422, br#"{"message":"no such number"}"#),
            ("gone", 410, REFUSED),
        ];
        for (name, http_status, body) in rejected {
            assert_eq!(outcome(http_status, body), Outcome::Rejected, "{name}");
        }
    }

    #[test]
    fn a_provider_in_trouble_is_asked_again() {
        let answer = |http_status, retry_after| Answer::read(http_status, retry_after, REFUSED).outcome();
        let retryable = Outcome::Retryable(Reason::ProviderError);
        let cases = [
            ("throttled", 429, Some("7"), Outcome::Throttled(SECOND * 7)),
            ("throttled without a time", 429, None, Outcome::Throttled(SECOND)),
            ("throttled until some time", 429, Some("soon"), Outcome::Throttled(SECOND)),
            ("throttled for no time", 429, Some("0"), Outcome::Throttled(Duration::ZERO)),
            ("a 503 that says when", 503, Some("1"), Outcome::Throttled(SECOND)),
            ("a 503 that doesn't", 503, None, retryable.clone()),
            ("a server error", 500, Some("1"), retryable.clone()),
            ("the provider's timeout", 408, None, retryable),
        ];
        for (name, http_status, retry_after, expected) in cases {
            assert_eq!(answer(http_status, retry_after), expected, "{name}");
        }
    }

    #[test]
    fn the_providers_words_are_kept() {
        let detail = |http_status, body: &str| Answer::read(http_status, None, body.as_bytes()).detail();
        let cases = [
            (422, r#"{"code":17,"message":"no such number"}"#, "HTTP 422 with code 17: no such number"),
            (402, r#"{"message":"no money"}"#, "HTTP 402: no money"),
            (429, r#"{"code":"-3","message":"slowly"}"#, "HTTP 429 with code -3: slowly"),
            (500, r#"{"code":1,"message":{"en":"later"}}"#, r#"HTTP 500 with code 1: {"en":"later"}"#),
            (400, r#"{"code":1,"message":null}"#, "HTTP 400 with code 1"),
            (200, r#"{"message":"OK"}"#, "HTTP 200 with an answer that can't be read: OK"),
            (503, "<html>", "HTTP 503"),
        ];
        for (http_status, body, expected) in cases {
            assert_eq!(detail(http_status, body), expected);
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(parse_retry_after(" 7 "), Some(SECOND * 7));
        assert_eq!(parse_retry_after("0"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("-3"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("1.5"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_retry_after("9999999"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let ahead = (chrono::Utc::now() + chrono::TimeDelta::seconds(30)).to_rfc2822();
        let wait = parse_retry_after(&ahead).unwrap();
        assert!(wait > SECOND * 20 && wait <= SECOND * 30, "{wait:?}");
        for unreadable in ["soon", "", "inf", "NaN"] {
            assert_eq!(parse_retry_after(unreadable), None, "{unreadable}");
        }
    }
}
