//! What the provider's answer means.

use std::time::Duration;

use domain::delivery::Outcome;
use domain::status::Reason;
use serde::Deserialize;

/// Longer answers aren't the contract's.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Deserialize)]
struct AnswerBody {
    code: i64,
}

/// A complete answer of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) http_status: u16,
    /// `code` of the body, if the body is the contract's. A success without one is no refusal either.
    pub(super) code: Option<i64>,
    /// `Retry-After`, if it can be read.
    pub(super) retry_after: Option<Duration>,
}

/// How long to wait when a 429 doesn't say.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Answer {
    /// Reads the answer by the provider's contract. 401, 403 and 3xx are our configuration and not the message, hence retryable.
    pub(super) fn outcome(self) -> Outcome {
        match (self.http_status, self.retry_after) {
            (200, _) if self.code == Some(0) => Outcome::Accepted,
            (200, _) if self.code.is_some() => Outcome::Retryable(Reason::BadAnswer),
            (429, wait) => Outcome::Throttled(wait.unwrap_or(DEFAULT_RETRY_AFTER)),
            (503, Some(wait)) => Outcome::Throttled(wait),
            (401 | 403 | 408, _) => Outcome::Retryable(Reason::ProviderError),
            (400..=499, _) => Outcome::Rejected,
            (200..=299, _) => Outcome::Ambiguous(Reason::BadAnswer),
            _ => Outcome::Retryable(Reason::ProviderError),
        }
    }
}

/// `code` of the body, if it is the contract's.
pub(super) async fn read_code(answer: &mut reqwest::Response) -> reqwest::Result<Option<i64>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice::<AnswerBody>(&body).ok().map(|body| body.code))
}

/// Both forms of RFC 9110 §10.2.3; a date in the past is no wait. At most a day, so that a mistaken header doesn't keep a
/// slot for ever.
pub(super) fn parse_retry_after(value: &str) -> Option<Duration> {
    let wait = match value.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(value.trim()).ok()?;
            (at.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(Duration::from_secs(86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_means_what_the_contract_says() {
        let retryable = |reason| Outcome::Retryable(reason);
        let cases = [
            ("the contract's success", 200, Some(0), None, Outcome::Accepted),
            ("another code", 200, Some(1), None, retryable(Reason::BadAnswer)),
            ("an unreadable body", 200, None, None, Outcome::Ambiguous(Reason::BadAnswer)),
            ("another success", 204, None, None, Outcome::Ambiguous(Reason::BadAnswer)),
            ("a redirect is our configuration", 302, None, None, retryable(Reason::ProviderError)),
            ("a definite no", 404, None, None, Outcome::Rejected),
            ("a bad token is our configuration", 401, None, None, retryable(Reason::ProviderError)),
            ("forbidden is our configuration", 403, None, None, retryable(Reason::ProviderError)),
            ("the provider's timeout", 408, None, None, retryable(Reason::ProviderError)),
            ("throttled", 429, None, Some(SECOND * 7), Outcome::Throttled(SECOND * 7)),
            ("throttled without a time", 429, None, None, Outcome::Throttled(SECOND)),
            ("a 503 that says when", 503, None, Some(SECOND), Outcome::Throttled(SECOND)),
            ("a 503 that doesn't", 503, None, None, retryable(Reason::ProviderError)),
            ("a server error", 500, None, Some(SECOND), retryable(Reason::ProviderError)),
        ];
        for (name, http_status, code, retry_after, expected) in cases {
            assert_eq!(Answer { http_status, code, retry_after }.outcome(), expected, "{name}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("9999999"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }
}
