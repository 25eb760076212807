use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderName, StatusCode};
use chrono::{DateTime, SecondsFormat, Utc};
use domain::client::{OperatorCode, Phone, Tag, TimeZone};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Connection;
use store::clients::{self as rows, ClientFilter, ClientRow, ClientValues};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{List, detached};
use crate::Api;
use crate::body::Fields;
use crate::extract::{JsonBody, Path, Query, after, cursor, limit};
use crate::problem::{ApiError, Problem};

/// A client as callers see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Client {
    /// Public id, a UUIDv7.
    id: Uuid,
    /// `7` and ten digits.
    #[schema(example = "79161234567")]
    phone_number: String,
    /// 900–999.
    #[schema(example = 916)]
    mobile_operator_code: i16,
    /// The caller's label.
    #[schema(example = "readers")]
    tag: Option<String>,
    /// IANA name.
    #[schema(example = "Europe/Moscow")]
    time_zone: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A client to register. Numbers need not be unique.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read field by field, so that all faults are told at once")]
pub(crate) struct NewClient {
    /// `7` and ten digits.
    #[schema(example = "79161234567")]
    phone_number: String,
    /// 900–999; from the phone number when absent.
    #[schema(example = 916)]
    mobile_operator_code: Option<i16>,
    /// 1–100 characters.
    #[schema(example = "readers")]
    tag: Option<String>,
    /// IANA name; UTC when absent.
    #[schema(example = "Europe/Moscow")]
    time_zone: Option<String>,
}

/// What to change; null clears what may be absent.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read field by field, so that all faults are told at once")]
pub(crate) struct ClientChange {
    #[schema(example = "79161234567")]
    phone_number: Option<String>,
    #[schema(example = 916)]
    mobile_operator_code: Option<i16>,
    #[schema(example = "readers")]
    tag: Option<String>,
    #[schema(example = "Europe/Moscow")]
    time_zone: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListClients {
    /// Only clients with this tag.
    tag: Option<String>,
    /// Only clients with this operator code.
    mobile_operator_code: Option<i64>,
    /// Only clients with this phone number.
    phone_number: Option<String>,
    /// 1–1,000; 100 when absent.
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// RFC 3339 in UTC, µs.
pub(super) fn rfc3339(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl From<ClientRow> for Client {
    fn from(row: ClientRow) -> Self {
        Self {
            id: row.id,
            phone_number: row.phone.to_string(),
            mobile_operator_code: row.operator_code,
            tag: row.tag,
            time_zone: row.time_zone,
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
        }
    }
}

/// Reads a client's fields over what it has already, if anything. Also the import's judge of a line.
pub(super) fn read_client(body: Value, before: Option<ClientValues>) -> Result<ClientValues, ApiError> {
    let mut fields = Fields::new(body)?;
    let (clears_tag, clears_zone) = (fields.is_null("tag"), fields.is_null("time_zone"));
    let clears_code = fields.is_null("mobile_operator_code");
    let nulls_phone = fields.is_null("phone_number");

    let phone = fields.text("phone_number");
    let phone = fields.parse("phone_number", phone, |text| Phone::parse(&text));
    let code = fields.integer("mobile_operator_code");
    let code = fields.parse("mobile_operator_code", code, OperatorCode::new);
    let tag = fields.text("tag");
    let tag = fields.parse("tag", tag, Tag::new);
    let zone = fields.text("time_zone");
    let zone = fields.parse("time_zone", zone, |name| TimeZone::parse(&name));

    let phone = match &before {
        Some(before) if !nulls_phone => phone.or_else(|| Phone::parse(&before.phone.to_string()).ok()),
        _ => phone,
    };
    fields.require("phone_number", &phone);
    // A code that the phone number gave follows it.
    let given = |before: &&ClientValues| Some(before.operator_code) != code_of(before.phone);
    let before_code = before.as_ref().filter(|_| !clears_code).filter(given).map(|before| before.operator_code);
    let code = match (code.map(OperatorCode::get).or(before_code), phone) {
        (None, Some(phone)) => {
            fields.parse("mobile_operator_code", Some(phone), Phone::operator_code).map(OperatorCode::get)
        }
        (code, _) => code,
    };
    let before_tag = before.as_ref().filter(|_| !clears_tag).and_then(|before| before.tag.clone());
    let before_zone = before.as_ref().filter(|_| !clears_zone).map(|before| before.time_zone.clone());
    let values = phone.zip(code).map(|(phone, operator_code)| ClientValues {
        phone: phone.digits(),
        operator_code,
        tag: tag.map(Tag::into_string).or(before_tag),
        time_zone: zone
            .map(|zone| zone.name().to_owned())
            .or(before_zone)
            .unwrap_or_else(|| TimeZone::UTC.name().to_owned()),
    });
    fields.finish(values)
}

fn code_of(phone: i64) -> Option<i16> {
    let phone = Phone::parse(&phone.to_string()).ok()?;
    phone.operator_code().ok().map(OperatorCode::get)
}

/// Registers a client.
#[utoipa::path(
    post, path = "/clients", tag = "clients", operation_id = "clients_create",
    request_body = NewClient,
    responses(
        (status = 201, description = "Registered; Location is its address", body = Client),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn create_client(
    State(api): State<Api>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Client>), ApiError> {
    let values = read_client(body, None)?;
    let id = Uuid::now_v7();
    let row = detached(async move {
        let mut db = api.writing().await?;
        rows::insert(&mut db, &[(id, values)], Utc::now()).await?;
        rows::get(&mut db, id, false).await?.ok_or_else(|| ApiError::not_found("client"))
    })
    .await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/api/v1/clients/{id}"))], Json(row.into())))
}

/// Lists clients, oldest first.
#[utoipa::path(
    get, path = "/clients", tag = "clients", operation_id = "clients_list",
    params(ListClients),
    responses(
        (status = 200, body = List<Client>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_clients(
    State(api): State<Api>,
    Query(query): Query<ListClients>,
) -> Result<Json<List<Client>>, ApiError> {
    let refused = |detail: String| ApiError::refused(StatusCode::BAD_REQUEST, "invalid_query", detail);
    let phone = query.phone_number.as_deref().map(Phone::parse).transpose();
    let phone = phone.map_err(|error| refused(format!("phone_number {error}")))?;
    let code = query.mobile_operator_code.map(OperatorCode::new).transpose();
    let code = code.map_err(|error| refused(format!("mobile_operator_code {error}")))?;
    let tag = query.tag.map(Tag::new).transpose().map_err(|error| refused(format!("tag {error}")))?;
    let filter = ClientFilter {
        phone: phone.map(Phone::digits),
        operator_code: code.map(OperatorCode::get),
        tag: tag.map(Tag::into_string),
    };
    let limit = limit(query.limit)?;
    let after = after('c', query.cursor.as_deref(), 0)?.into();
    let rows = detached(async move { Ok(rows::list(&mut *api.db().await?, &filter, after, limit).await?) }).await?;
    let last = rows.last().filter(|_| rows.len() as i64 == limit);
    let next_cursor = last.map(|row| cursor('c', row.client_no.get()));
    Ok(Json(List { items: rows.into_iter().map(Client::from).collect(), next_cursor }))
}

/// Reads a client.
#[utoipa::path(
    get, path = "/clients/{id}", tag = "clients", operation_id = "clients_get",
    params(("id" = Uuid, Path, description = "The client's id")),
    responses(
        (status = 200, body = Client),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_client(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<Json<Client>, ApiError> {
    let row = detached(async move { Ok(rows::get(&mut *api.db().await?, id, false).await?) }).await?;
    Ok(Json(row.ok_or_else(|| ApiError::not_found("client"))?.into()))
}

/// Changes a client. Messages planned before keep what they were planned with.
#[utoipa::path(
    patch, path = "/clients/{id}", tag = "clients", operation_id = "clients_update",
    params(("id" = Uuid, Path, description = "The client's id")),
    request_body = ClientChange,
    responses(
        (status = 200, body = Client),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn update_client(
    State(api): State<Api>,
    Path(id): Path<Uuid>,
    JsonBody(body): JsonBody,
) -> Result<Json<Client>, ApiError> {
    let row = detached(async move {
        let mut db = api.writing().await?;
        let mut tx = db.begin().await?;
        let row = rows::get(&mut tx, id, true).await?.ok_or_else(|| ApiError::not_found("client"))?;
        let before =
            ClientValues { phone: row.phone, operator_code: row.operator_code, tag: row.tag, time_zone: row.time_zone };
        let values = read_client(body, Some(before))?;
        rows::update(&mut tx, row.client_no, &values, Utc::now()).await?;
        let row = rows::get(&mut tx, id, false).await?.ok_or_else(|| ApiError::not_found("client"))?;
        tx.commit().await?;
        Ok(row)
    })
    .await?;
    Ok(Json(row.into()))
}

/// Erases a client's personal data. What became of its messages stays.
#[utoipa::path(
    delete, path = "/clients/{id}", tag = "clients", operation_id = "clients_delete",
    params(("id" = Uuid, Path, description = "The client's id")),
    responses(
        (status = 204, description = "Erased"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn delete_client(State(api): State<Api>, Path(id): Path<Uuid>) -> Result<StatusCode, ApiError> {
    let deleted = detached(async move { Ok(rows::delete(&mut *api.writing().await?, id, Utc::now()).await?) }).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found("client")) }
}
