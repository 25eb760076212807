use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::ids::{MailingNo, MessageId};
use domain::status::Status;
use serde::{Deserialize, Serialize};
use store::mailings;
use store::messages::{self as rows, MessageView, StepView};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::clients::rfc3339;
use super::waiting::until;
use super::{List, detached};
use crate::Api;
use crate::extract::{Path, Query, after, cursor, limit};
use crate::problem::{ApiError, Problem};

/// A message: one mailing for one client.
#[derive(Serialize, ToSchema)]
pub(crate) struct Message {
    /// A decimal string: the number passes 2^53.
    #[schema(example = "8589934593")]
    message_id: String,
    /// Null: the mailing's row is gone.
    mailing_id: Option<Uuid>,
    client_id: Uuid,
    /// `retrying`, `held`, `succeeded`, `failed`, `expired`, `cancelled`, `unknown`.
    #[schema(example = "succeeded")]
    status: String,
    /// Why it has this status.
    #[schema(example = "exhausted")]
    reason: Option<String>,
    /// 1, and one more each time it was planned again.
    round: i32,
    /// Calls made; those that the provider asked to come later are not counted.
    attempts: i32,
    /// The provider's HTTP status.
    code: Option<i32>,
    /// How long the last attempt took.
    latency_ms: Option<i32>,
    /// While it waits (`retrying`, `held`): nothing happens to it before. Null: it doesn't wait, or for something that has
    /// no time.
    #[schema(format = DateTime)]
    until: Option<String>,
    #[schema(format = DateTime)]
    planned_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A message with all that it went through.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageStory {
    #[serde(flatten)]
    message: Message,
    /// In the order in which they happened; the first 1,000.
    steps: Vec<MessageStep>,
}

/// What a message went through: an attempt that failed, a wait that the provider asked for, or a hold.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "round": 1, "attempt": 2, "status": "retrying", "reason": "provider_error", "code": 500, "latency_ms": 48,
    "until": "2026-05-01T12:00:03.000000Z", "detail": "code 17: try later", "occurred_at": "2026-05-01T12:00:01.000000Z"
}))]
pub(crate) struct MessageStep {
    /// 1, and one more each time it was planned again.
    round: i32,
    /// Attempts so far, over all rounds. A wait that cost none has the number of the attempt before it.
    attempt: i32,
    /// `retrying`: an attempt failed, or the provider said to come later; `held`: it waited to be planned again; `failed`: the
    /// last attempt.
    status: String,
    /// `provider_error`, `timeout`, `connection`, `bad_answer`, `throttled`, `rejected`, `exhausted`; of a hold what it waited
    /// for.
    reason: Option<String>,
    /// The provider's HTTP status.
    code: Option<i32>,
    /// How long the attempt took.
    latency_ms: Option<i32>,
    /// The next attempt or round began no earlier.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// In the provider's words or ours; runs of digits are masked.
    detail: Option<String>,
    #[schema(format = DateTime)]
    occurred_at: String,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListMessages {
    /// Only messages with this status. `created` can't be listed: such a message has no row yet.
    status: Option<String>,
    /// 1–1,000; 100 when absent. With a status a page may hold fewer and still have a next one.
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

fn message(mailing_no: MailingNo, mailing_id: Option<Uuid>, row: MessageView) -> Result<Message, ApiError> {
    let until = match row.status {
        Status::Retrying | Status::Held => until(row.reason.as_deref(), row.not_before),
        _ => None,
    };
    Ok(Message {
        message_id: MessageId::new(mailing_no, row.client_no).map_err(anyhow::Error::from)?.to_string(),
        mailing_id,
        client_id: row.client_id,
        status: row.status.into(),
        reason: row.reason,
        round: row.round,
        attempts: row.attempts,
        code: row.code,
        latency_ms: row.latency_ms,
        until,
        planned_at: rfc3339(row.planned_at),
        updated_at: rfc3339(row.updated_at),
    })
}

fn step(row: StepView) -> MessageStep {
    MessageStep {
        until: until(row.reason.as_deref(), row.not_before),
        round: row.round,
        attempt: row.attempt,
        status: row.status.into(),
        reason: row.reason,
        code: row.code,
        latency_ms: row.latency_ms,
        detail: row.detail,
        occurred_at: rfc3339(row.occurred_at),
    }
}

/// Reads the status to list by, unless no message can be listed by it.
fn listed_status(status: Option<String>) -> Result<Option<Status>, ApiError> {
    let refused = |detail: &str| Err(ApiError::refused(StatusCode::BAD_REQUEST, "invalid_status", detail));
    match status.map(Status::from) {
        Some(Status::Created) => refused("created messages have no rows yet; see the mailing's counts"),
        Some(Status::Other(_)) => {
            refused("status must be retrying, held, succeeded, failed, expired, cancelled or unknown")
        }
        status => Ok(status),
    }
}

/// Lists a mailing's messages, in the order of their clients.
#[utoipa::path(
    get, path = "/mailings/{id}/messages", tag = "messages", operation_id = "messages_list",
    params(("id" = Uuid, Path, description = "The mailing's id"), ListMessages),
    responses(
        (status = 200, body = List<Message>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_messages(
    State(api): State<Api>,
    Path(id): Path<Uuid>,
    Query(query): Query<ListMessages>,
) -> Result<Json<List<Message>>, ApiError> {
    let status = listed_status(query.status)?;
    let limit = limit(query.limit)?;
    let after = after('g', query.cursor.as_deref(), 0)?.into();
    let (mailing_no, (rows, next)) = detached(async move {
        let mut db = api.db().await?;
        let mailing_no = mailings::number(&mut db, id).await?.ok_or_else(|| ApiError::not_found("mailing"))?;
        Ok((mailing_no, rows::list(&mut db, mailing_no, status.as_ref(), after, limit).await?))
    })
    .await?;
    let items = rows.into_iter().map(|row| message(mailing_no, Some(id), row)).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_cursor: next.map(|client_no| cursor('g', client_no.get())) }))
}

/// Reads a message with all that it went through.
#[utoipa::path(
    get, path = "/messages/{message_id}", tag = "messages", operation_id = "messages_get",
    params(("message_id" = String, Path, description = "The message's id, a decimal string")),
    responses(
        (status = 200, body = MessageStory),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_message(
    State(api): State<Api>,
    Path(message_id): Path<String>,
) -> Result<Json<MessageStory>, ApiError> {
    let id: MessageId = message_id.parse().map_err(|_| {
        ApiError::refused(StatusCode::BAD_REQUEST, "invalid_message_id", "the message id isn't one of ours")
    })?;
    let (mailing, row, steps) = detached(async move {
        let mut db = api.db().await?;
        let (mailing, row) =
            rows::get(&mut db, id).await?.ok_or_else(|| ApiError::not_found("message with a status"))?;
        let steps = rows::steps(&mut db, id).await?;
        Ok((mailing, row, steps))
    })
    .await?;
    let message = message(id.mailing_no(), mailing, row)?;
    Ok(Json(MessageStory { message, steps: steps.into_iter().map(step).collect() }))
}
