use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, StatusCode};
use chrono::{DateTime, SubsecRound, Utc};
use domain::mailing::State as MailingState;
use domain::planning::Wait;
use events::EncodeError;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use store::mailings::{self as rows, MailingRow, MailingView};
use store::outbox::{self, AppendError};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::clients::rfc3339;
use super::counts::Counts;
use super::mailing_form::{FilterView, MailingChange, MailingValues, NewMailing, read_mailing};
use super::waiting::Waiting;
use super::{List, detached};
use crate::Api;
use crate::extract::{JsonBody, Path, Query, after, cursor, limit};
use crate::problem::{ApiError, FieldError, Problem};

/// A mailing as callers see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Mailing {
    /// Public id, a UUIDv7.
    id: Uuid,
    text: String,
    filter: FilterView,
    #[schema(format = DateTime)]
    starts_at: String,
    #[schema(format = DateTime)]
    ends_at: String,
    /// `scheduled`, `running`, `paused`, `finished`, `cancelled`.
    #[schema(example = "running")]
    state: String,
    /// Why Herald itself paused it.
    state_reason: Option<String>,
    /// What it waits for: `start`, `publishing`, `senders`, `statuses`, `database`, `operator`.
    #[schema(example = "statuses")]
    waiting_for: Option<String>,
    /// Which risk it takes when the fate of a call can't be known.
    #[schema(example = "at_least_once")]
    delivery: String,
    counts: Counts,
    /// What its held messages wait for; their sum is `counts.held`.
    waiting: Vec<Waiting>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
}

/// A mailing in the statistics.
#[derive(Serialize, ToSchema)]
pub(crate) struct Statistic {
    mailing_id: Uuid,
    state: String,
    counts: Counts,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// 1–1,000; 100 when absent.
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

impl From<MailingView> for Mailing {
    fn from(view: MailingView) -> Self {
        let counts = Counts::of(&view);
        let row = view.row;
        let waiting_for = match row.state {
            MailingState::Scheduled if row.starts_at > Utc::now() => Some(Wait::Start.to_string()),
            // Due: once its event has reached Kafka, the scheduler starts it.
            MailingState::Scheduled => view.waiting_for.or_else(|| Some(Wait::Publishing.to_string())),
            MailingState::Running => view.waiting_for,
            MailingState::Paused => Some(Wait::Operator.to_string()),
            _ => None,
        };
        Self {
            counts,
            waiting: view.waiting.map_or_else(Vec::new, |sums| sums.0.into_iter().map(Waiting::from).collect()),
            id: row.id,
            text: row.text,
            filter: FilterView { mobile_operator_codes: row.operator_codes, tags: row.tags },
            starts_at: rfc3339(row.starts_at),
            ends_at: rfc3339(row.ends_at),
            state: row.state.into(),
            state_reason: row.state_reason,
            waiting_for,
            delivery: row.delivery.into(),
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
            started_at: row.started_at.map(rfc3339),
            finished_at: row.finished_at.map(rfc3339),
        }
    }
}

/// Postgres keeps microseconds, and row and event are to say the same.
fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Announces a mailing: its event goes into the outbox, in the transaction that wrote the row.
async fn announce(db: &mut PgConnection, row: &MailingRow, state: MailingState) -> Result<(), ApiError> {
    let event = row.event(state, row.updated_at);
    outbox::append(db, row.shard, &event).await.map_err(|error| match error {
        AppendError::Encode(EncodeError::TooLarge(_)) => ApiError::Fields(vec![FieldError {
            pointer: "/filter/tags".to_owned(),
            code: "invalid",
            detail: "take up too much room in the mailing's event; name fewer".to_owned(),
        }]),
        AppendError::Encode(error @ EncodeError::Json(_)) => ApiError::Internal(error.into()),
        AppendError::Sqlx(error) => error.into(),
    })
}

/// Creates a mailing and announces it: both are written or neither is.
#[utoipa::path(
    post, path = "/mailings", tag = "mailings", operation_id = "mailings_create",
    request_body = NewMailing,
    responses(
        (status = 201, description = "Created; Location is its address", body = Mailing),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_mailing(
    State(api): State<Api>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Mailing>), ApiError> {
    let now = now();
    let values = read_mailing(body, None, now)?;
    let id = Uuid::now_v7();
    let row = detached(async move {
        let mut db = api.writing().await?;
        let mut tx = db.begin().await?;
        let (mailing_no, version) = rows::draw_number(&mut tx).await?;
        let row = MailingRow {
            mailing_no,
            id,
            shard: mailing_no.shard(api.shards),
            version,
            text: values.text,
            operator_codes: values.operator_codes,
            tags: values.tags,
            starts_at: values.starts_at,
            ends_at: values.ends_at,
            state: MailingState::Scheduled,
            state_reason: None,
            delivery: values.delivery,
            created_at: now,
            updated_at: now,
            started_at: None,
            finished_at: None,
        };
        rows::insert(&mut tx, &row).await?;
        announce(&mut tx, &row, MailingState::Scheduled).await?;
        let row = rows::get(&mut tx, id).await?.ok_or_else(|| ApiError::not_found("mailing"))?;
        tx.commit().await?;
        Ok(row)
    })
    .await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/api/v1/mailings/{id}"))], Json(row.into())))
}

/// Lists mailings, newest first.
#[utoipa::path(
    get, path = "/mailings", tag = "mailings", operation_id = "mailings_list",
    params(Page),
    responses(
        (status = 200, body = List<Mailing>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_mailings(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<List<Mailing>>, ApiError> {
    let (rows, next_cursor) = newest_first(api, page).await?;
    Ok(Json(List { items: rows.into_iter().map(Mailing::from).collect(), next_cursor }))
}

/// Counts of all mailings, newest first; from the counters, never by counting rows.
#[utoipa::path(
    get, path = "/statistics", tag = "mailings", operation_id = "statistics",
    params(Page),
    responses(
        (status = 200, body = List<Statistic>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn statistics(
    State(api): State<Api>,
    Query(page): Query<Page>,
) -> Result<Json<List<Statistic>>, ApiError> {
    let (rows, next_cursor) = newest_first(api, page).await?;
    let statistic = |view: MailingView| Statistic {
        counts: Counts::of(&view),
        mailing_id: view.row.id,
        state: view.row.state.into(),
    };
    Ok(Json(List { items: rows.into_iter().map(statistic).collect(), next_cursor }))
}

async fn newest_first(api: Api, page: Page) -> Result<(Vec<MailingView>, Option<String>), ApiError> {
    let limit = limit(page.limit)?;
    let before = after('m', page.cursor.as_deref(), i64::MAX)?.into();
    let rows = detached(async move { Ok(rows::list(&mut *api.db().await?, before, limit).await?) }).await?;
    let last = rows.last().filter(|_| rows.len() as i64 == limit);
    let next = last.map(|view| cursor('m', view.row.mailing_no.get()));
    Ok((rows, next))
}

/// Reads a mailing with its state and counts.
#[utoipa::path(
    get, path = "/mailings/{id}", tag = "mailings", operation_id = "mailings_get",
    params(("id" = Uuid, Path, description = "The mailing's id")),
    responses(
        (status = 200, body = Mailing),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_mailing(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<Json<Mailing>, ApiError> {
    let row = detached(async move { Ok(rows::get(&mut *api.db().await?, id).await?) }).await?;
    Ok(Json(row.ok_or_else(|| ApiError::not_found("mailing"))?.into()))
}

/// Reads a mailing for a change and keeps it from starting meanwhile.
async fn lock_before_start(db: &mut PgConnection, id: Uuid) -> Result<(MailingRow, DateTime<Utc>), ApiError> {
    let row = rows::lock(db, id).await?.ok_or_else(|| ApiError::not_found("mailing"))?;
    // The lock may have been waited for.
    let now = now();
    if row.state != MailingState::Scheduled || row.starts_at <= now {
        return Err(ApiError::conflict("mailing_started", "the mailing has started; it can't be changed any more"));
    }
    Ok((row, now))
}

/// Changes a mailing that hasn't started.
#[utoipa::path(
    patch, path = "/mailings/{id}", tag = "mailings", operation_id = "mailings_update",
    params(("id" = Uuid, Path, description = "The mailing's id")),
    request_body = MailingChange,
    responses(
        (status = 200, body = Mailing),
        (status = 409, description = "It has started", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn update_mailing(
    State(api): State<Api>,
    Path(id): Path<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Json<Mailing>, ApiError> {
    let row = detached(async move {
        let mut db = api.writing().await?;
        let mut tx = db.begin().await?;
        let (row, now) = lock_before_start(&mut tx, id).await?;
        let values = read_mailing(body, Some(MailingValues::of(&row)), now)?;
        let mut row = MailingRow {
            text: values.text,
            operator_codes: values.operator_codes,
            tags: values.tags,
            starts_at: values.starts_at,
            ends_at: values.ends_at,
            delivery: values.delivery,
            updated_at: now,
            ..row
        };
        row.version = rows::update(&mut tx, &row).await?;
        announce(&mut tx, &row, MailingState::Scheduled).await?;
        let row = rows::get(&mut tx, id).await?.ok_or_else(|| ApiError::not_found("mailing"))?;
        tx.commit().await?;
        Ok(row)
    })
    .await?;
    Ok(Json(row.into()))
}

/// Withdraws a mailing that hasn't started. Its last event says that it is cancelled.
#[utoipa::path(
    delete, path = "/mailings/{id}", tag = "mailings", operation_id = "mailings_delete",
    params(("id" = Uuid, Path, description = "The mailing's id")),
    responses(
        (status = 204, description = "Withdrawn"),
        (status = 409, description = "It has started", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_mailing(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<StatusCode, ApiError> {
    detached(async move {
        let mut db = api.writing().await?;
        let mut tx = db.begin().await?;
        let (mut row, now) = lock_before_start(&mut tx, id).await?;
        row.updated_at = now;
        row.version = rows::update(&mut tx, &row).await?;
        announce(&mut tx, &row, MailingState::Cancelled).await?;
        rows::delete(&mut tx, row.mailing_no).await?;
        tx.commit().await?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
