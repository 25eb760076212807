//! The table `clients`.

use chrono::{DateTime, Utc};
use domain::ids::ClientNo;
use sqlx::{PgConnection, QueryBuilder};
use uuid::Uuid;

/// A client that isn't deleted.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ClientRow {
    /// Internal number.
    #[sqlx(try_from = "i64")]
    pub client_no: ClientNo,
    /// Public id.
    pub id: Uuid,
    /// The digits.
    pub phone: i64,
    /// 900–999.
    pub operator_code: i16,
    /// Its tag.
    pub tag: Option<String>,
    /// IANA name.
    pub time_zone: String,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct ClientValues {
    /// The digits.
    pub phone: i64,
    /// 900–999.
    pub operator_code: i16,
    /// Its tag.
    pub tag: Option<String>,
    /// IANA name.
    pub time_zone: String,
}

/// Which clients to list; what is absent doesn't filter.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// The digits.
    pub phone: Option<i64>,
    /// 900–999.
    pub operator_code: Option<i16>,
    /// The tag.
    pub tag: Option<String>,
}

/// Inserts clients, in one statement. Numbers are drawn for these rows only.
pub async fn insert(db: &mut PgConnection, clients: &[(Uuid, ClientValues)], now: DateTime<Utc>) -> sqlx::Result<u64> {
    let ids: Vec<Uuid> = clients.iter().map(|(id, _)| *id).collect();
    let phones: Vec<i64> = clients.iter().map(|(_, client)| client.phone).collect();
    let codes: Vec<i16> = clients.iter().map(|(_, client)| client.operator_code).collect();
    let tags: Vec<Option<String>> = clients.iter().map(|(_, client)| client.tag.clone()).collect();
    let zones: Vec<String> = clients.iter().map(|(_, client)| client.time_zone.clone()).collect();
    let done = sqlx::query!(
        "INSERT INTO clients (id, phone_number, mobile_operator_code, tag, time_zone, created_at, updated_at)
         SELECT id, phone_number, mobile_operator_code, tag, time_zone, $6, $6
         FROM UNNEST($1::uuid[], $2::bigint[], $3::smallint[], $4::text[], $5::text[])
             AS client (id, phone_number, mobile_operator_code, tag, time_zone)",
        &ids,
        &phones,
        &codes,
        &tags as &[Option<String>],
        &zones,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Reads one; `lock` keeps it from changing until the transaction's end.
pub async fn get(db: &mut PgConnection, id: Uuid, lock: bool) -> sqlx::Result<Option<ClientRow>> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" AND id = ").push_bind(id).push(if lock { " FOR UPDATE" } else { "" });
    query.build_query_as().fetch_optional(db).await
}

const SELECT: &str = "SELECT client_no, id, phone_number AS phone, mobile_operator_code AS operator_code, tag, time_zone, \
                      created_at, updated_at FROM clients WHERE deleted_at IS NULL";

/// Lists clients with a number above `after`, in the order of their numbers.
pub async fn list(
    db: &mut PgConnection,
    filter: &ClientFilter,
    after: ClientNo,
    limit: i64,
) -> sqlx::Result<Vec<ClientRow>> {
    let mut query = QueryBuilder::new(SELECT);
    query.push(" AND client_no > ").push_bind(after.get());
    if let Some(phone) = filter.phone {
        query.push(" AND phone_number = ").push_bind(phone);
    }
    if let Some(code) = filter.operator_code {
        query.push(" AND mobile_operator_code = ").push_bind(code);
    }
    if let Some(tag) = &filter.tag {
        query.push(" AND tag = ").push_bind(tag.clone());
    }
    query.push(" ORDER BY client_no LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

/// Changes one.
pub async fn update(
    db: &mut PgConnection,
    client_no: ClientNo,
    values: &ClientValues,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE clients SET phone_number = $2, mobile_operator_code = $3, tag = $4, time_zone = $5, updated_at = $6
         WHERE client_no = $1",
        client_no.get(),
        values.phone,
        values.operator_code,
        values.tag,
        values.time_zone,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Erases a client's personal data; the row keeps its number. Answers whether there was one.
pub async fn delete(db: &mut PgConnection, id: Uuid, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE clients SET phone_number = NULL, mobile_operator_code = NULL, tag = NULL, time_zone = NULL,
             updated_at = $2, deleted_at = $2
         WHERE id = $1 AND deleted_at IS NULL",
        id,
        now,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
