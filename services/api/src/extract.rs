//! axum's extractors, with problems for rejections, and the cursor of lists.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::Limited;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::json;
use crate::problem::ApiError;

/// The most bytes a body may have, but an import's.
const MAX_BODY: usize = 1024 * 1024;

/// A JSON body, whatever it is: [`crate::body`] reads its fields.
pub(crate) struct JsonBody(pub(crate) Value);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if media_type(request.headers()) != "application/json" {
            let detail = "the body must be application/json";
            return Err(ApiError::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let (parts, body) = request.into_parts();
        let limited = Request::from_parts(parts, Body::new(Limited::new(body, MAX_BODY)));
        let bytes = Bytes::from_request(limited, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body must have at most {MAX_BODY} bytes"),
            ),
            _ => ApiError::refused(StatusCode::BAD_REQUEST, "body_broke_off", "the body could not be read"),
        })?;
        match json::parse(&bytes) {
            Ok((value, doubled)) if doubled.is_empty() => Ok(Self(value)),
            Ok((_, doubled)) => Err(ApiError::doubled_fields(doubled)),
            Err(error) => {
                let detail = format!("not JSON at line {}, column {}", error.line(), error.column());
                Err(ApiError::refused(StatusCode::BAD_REQUEST, "malformed_json", detail))
            }
        }
    }
}

/// The media type without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The parameters of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => {
                let detail = "the path's id is not one of ours";
                Err(ApiError::refused(StatusCode::BAD_REQUEST, "invalid_path", detail))
            }
        }
    }
}

/// The parameters of the query.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                // serde names the parameter and what is wrong with it, not the value.
                let detail = events::mask_detail(&rejection.body_text());
                Err(ApiError::refused(StatusCode::BAD_REQUEST, "invalid_query", detail))
            }
        }
    }
}

/// The limit of a list: 1–1,000, 100 when absent.
pub(crate) fn limit(limit: Option<i64>) -> Result<i64, ApiError> {
    match limit.unwrap_or(100) {
        limit @ 1..=1_000 => Ok(limit),
        _ => Err(ApiError::refused(StatusCode::BAD_REQUEST, "invalid_limit", "limit must be from 1 to 1000")),
    }
}

/// A list's position, opaque to callers; the letter is the list's, so that another list's cursor is refused.
pub(crate) fn cursor(list: char, number: i64) -> String {
    format!("{list}{number:x}")
}

/// Reads a cursor; `start` is the list's beginning.
pub(crate) fn after(list: char, given: Option<&str>, start: i64) -> Result<i64, ApiError> {
    let Some(given) = given else { return Ok(start) };
    let number = given.strip_prefix(list).and_then(|hex| i64::from_str_radix(hex, 16).ok());
    let number = number.filter(|number| *number >= 0 && cursor(list, *number) == given);
    number.ok_or_else(|| {
        ApiError::refused(StatusCode::BAD_REQUEST, "invalid_cursor", "the cursor isn't one that this list has given")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_by_its_own_list_only() {
        assert_eq!(after('c', Some(&cursor('c', 4711)), 0).unwrap(), 4711);
        assert_eq!(after('c', None, 7).unwrap(), 7);
        for bad in ["", "c", "m1", "c-1", "c+1", "cxyz", "c00", "cffffffffffffffffff", "C1"] {
            assert!(after('c', Some(bad), 0).is_err(), "{bad:?}");
        }
    }
}
