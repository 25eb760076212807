use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::ids::MessageId;
use domain::status::Status;
use serde::{Deserialize, Serialize};
use store::messages::{self as rows, MessageView, StepView};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::clients::rfc3339;
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
    #[schema(format = DateTime)]
    planned_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A message with each of its failed attempts.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageStory {
    #[serde(flatten)]
    message: Message,
    failed_attempts: Vec<FailedAttempt>,
}

/// An attempt that failed.
#[derive(Serialize, ToSchema)]
pub(crate) struct FailedAttempt {
    round: i32,
    /// From 1, over all rounds.
    attempt: i32,
    /// `provider_error`, `timeout`, `connection`, `bad_answer`, `rejected`, `exhausted`.
    reason: Option<String>,
    code: Option<i32>,
    latency_ms: Option<i32>,
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

fn message(mailing_no: i64, mailing_id: Option<Uuid>, row: MessageView) -> Result<Message, ApiError> {
    Ok(Message {
        message_id: MessageId::new(mailing_no, row.client_no).map_err(anyhow::Error::from)?.to_string(),
        mailing_id,
        client_id: row.client_id,
        status: row.status,
        reason: row.reason,
        round: row.round,
        attempts: row.attempts,
        code: row.code,
        latency_ms: row.latency_ms,
        planned_at: rfc3339(row.planned_at),
        updated_at: rfc3339(row.updated_at),
    })
}

fn failed_attempt(row: StepView) -> FailedAttempt {
    FailedAttempt {
        round: row.round,
        attempt: row.attempt,
        reason: row.reason,
        code: row.code,
        latency_ms: row.latency_ms,
        detail: row.detail,
        occurred_at: rfc3339(row.occurred_at),
    }
}

/// Refuses a status that no message can be listed by.
fn check_status(status: Option<&str>) -> Result<(), ApiError> {
    let refused = |detail: &str| Err(ApiError::refused(StatusCode::BAD_REQUEST, "invalid_status", detail));
    match status.map(|status| Status::from(status.to_owned())) {
        Some(Status::Created) => refused("created messages have no rows yet; see the mailing's counts"),
        Some(Status::Other(_)) => {
            refused("status must be retrying, held, succeeded, failed, expired, cancelled or unknown")
        }
        _ => Ok(()),
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
    check_status(query.status.as_deref())?;
    let limit = limit(query.limit)?;
    let after = after('g', query.cursor.as_deref(), 0)?;
    let (mailing_no, (rows, next)) = detached(async move {
        let mut db = api.db().await?;
        let mailing_no = rows::mailing_no(&mut db, id).await?.ok_or_else(|| ApiError::not_found("mailing"))?;
        Ok((mailing_no, rows::list(&mut db, mailing_no, query.status.as_deref(), after, limit).await?))
    })
    .await?;
    let items = rows.into_iter().map(|row| message(mailing_no, Some(id), row)).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_cursor: next.map(|client_no| cursor('g', client_no)) }))
}

/// Reads a message with each of its failed attempts.
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
    let (mailing, row, attempts) = detached(async move {
        let mut db = api.db().await?;
        let (mailing, row) = rows::get(&mut db, id.mailing_no(), id.client_no())
            .await?
            .ok_or_else(|| ApiError::not_found("message with a status"))?;
        let attempts = rows::steps(&mut db, id.mailing_no(), id.client_no()).await?;
        Ok((mailing, row, attempts))
    })
    .await?;
    let message = message(id.mailing_no(), mailing, row)?;
    Ok(Json(MessageStory { message, failed_attempts: attempts.into_iter().map(failed_attempt).collect() }))
}
