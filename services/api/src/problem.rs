//! Errors as RFC 9457 problem documents. The `code` is stable; the texts are for people.

use axum::Json;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::mark::Mismatch;
use serde::Serialize;
use utoipa::ToSchema;

/// How many bad fields of one request are told, for the answer to a 1 MiB body mustn't be many times larger.
pub(crate) const MAX_FIELD_ERRORS: usize = 100;

/// A problem document (RFC 9457).
#[derive(Serialize, ToSchema, Debug)]
pub(crate) struct Problem {
    /// A relative URI that names the kind of problem.
    #[schema(example = "/problems/invalid_fields")]
    r#type: String,
    /// The kind of problem, for people.
    title: String,
    /// The HTTP status.
    status: u16,
    /// This problem, for people.
    detail: String,
    /// The kind of problem, for programs; it never changes.
    #[schema(example = "invalid_fields")]
    code: &'static str,
    /// The bad fields, at most 100: there may be more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// How many clients were surely imported before an import ended early. The same body sent again imports them twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    imported: Option<u64>,
}

/// A bad field.
#[derive(Clone, Serialize, ToSchema, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// A JSON pointer into the body.
    #[schema(example = "/filter/tags/0")]
    pub(crate) pointer: String,
    /// The kind of fault, for programs.
    #[schema(example = "invalid")]
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) detail: String,
}

/// Why a request was refused or failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The request is at fault.
    Refused { status: StatusCode, code: &'static str, detail: String },
    /// Its fields are.
    Fields(Vec<FieldError>),
    /// An import ended early.
    Import { imported: u64, cause: Box<ApiError> },
    /// Postgres is away; trying again will help.
    Unavailable(sqlx::Error),
    /// Postgres isn't known to be the right one, and not an older state of it.
    InDoubt(Mismatch),
    /// A fault of ours.
    Internal(anyhow::Error),
}

impl ApiError {
    pub(crate) fn not_found(what: &str) -> Self {
        Self::refused(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    /// Fields that stand twice in an object.
    pub(crate) fn doubled_fields(pointers: Vec<String>) -> Self {
        let bad = |pointer| FieldError { pointer, code: "duplicate_field", detail: "must be given once".to_owned() };
        Self::Fields(pointers.into_iter().map(bad).collect())
    }

    pub(crate) fn conflict(code: &'static str, detail: &str) -> Self {
        Self::refused(StatusCode::CONFLICT, code, detail)
    }

    pub(crate) fn refused(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self::Refused { status, code, detail: detail.into() }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        if store::is_transient(&error) { Self::Unavailable(error) } else { Self::Internal(error.into()) }
    }
}

impl From<Mismatch> for ApiError {
    fn from(mismatch: Mismatch) -> Self {
        Self::InDoubt(mismatch)
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

/// The error of an answer, for the one place that logs it.
#[derive(Clone)]
pub(crate) struct Logged(pub(crate) String);

impl ApiError {
    /// Logs a fault of a request that nobody waits for any more; a refusal is the caller's alone.
    pub(crate) fn log_unheard(self) {
        if let (_, Some(error)) = self.problem() {
            tracing::error!(error, "a request failed after its caller had left or had been answered");
        }
    }

    /// The document, and what is to be logged.
    fn problem(self) -> (Problem, Option<String>) {
        match self {
            Self::Refused { status, code, detail } => {
                (Problem::new(status, code, status.canonical_reason().unwrap_or("Refused"), detail), None)
            }
            Self::Fields(errors) => {
                let at_least = if errors.len() < MAX_FIELD_ERRORS { "" } else { "at least " };
                let detail = format!("{at_least}{} of the fields can't be taken", errors.len());
                let problem =
                    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", "Invalid fields", detail);
                (Problem { errors, ..problem }, None)
            }
            Self::Import { imported, cause } => {
                let (mut problem, logged) = cause.problem();
                problem.imported = Some(imported);
                problem.detail.push_str(&format!("; at least {imported} clients were imported and stay"));
                (problem, logged)
            }
            Self::Unavailable(error) => {
                let detail = "the database can't be reached".to_owned();
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail);
                (problem, Some(error.to_string()))
            }
            Self::InDoubt(mismatch) => {
                let detail = format!("nothing can be written: {mismatch}");
                let problem =
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "database_in_doubt", "Database in doubt", detail);
                (problem, Some(mismatch.to_string()))
            }
            Self::Internal(error) => {
                let detail = "an error of Herald's; its log names it beside the x-request-id".to_owned();
                let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail);
                (problem, Some(format!("{error:#}")))
            }
        }
    }
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &str, detail: String) -> Self {
        Self {
            r#type: format!("/problems/{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            code,
            errors: vec![],
            imported: None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // Not of an import that ended early: whoever obeys it would import the first lines twice.
        let may_be_retried = matches!(self, Self::Unavailable(_) | Self::InDoubt(Mismatch::Unknown));
        let (problem, logged) = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if may_be_retried {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(error) = logged {
            response.extensions_mut().insert(Logged(error));
        }
        response
    }
}

/// What the server of the documentation's pages refuses is no problem document by itself.
pub(crate) async fn instead_of_text(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => no_such_route().await.into_response(),
        _ => response,
    }
}

pub(crate) async fn no_such_route() -> ApiError {
    // Without the path: a caller may have put a phone number there.
    ApiError::refused(StatusCode::NOT_FOUND, "no_such_route", "there is nothing at this path; see /api/v1/docs")
}

pub(crate) async fn method_not_allowed() -> Response {
    let detail = "this method isn't possible here; see the Allow header";
    let mut response = ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response();
    // axum fills it in from the route's methods when it is absent.
    response.headers_mut().remove(ALLOW);
    response
}
