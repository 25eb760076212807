use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use chrono::Utc;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use store::clients::{self as rows, ClientValues};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio_util::io::StreamReader;
use utoipa::ToSchema;
use uuid::Uuid;

use super::clients::read_client;
use super::detached;
use crate::Api;
use crate::extract::media_type;
use crate::json;
use crate::problem::{ApiError, FieldError, Problem};

const MAX_LINE: usize = 64 * 1024;
const BATCH: usize = 1_000;
const MAX_ERRORS: usize = 1_000;
/// How long an import waits for a connection once lines are imported, and how often it asks.
const INTERRUPTION: Duration = Duration::from_secs(30);
const INTERRUPTION_POLL: Duration = Duration::from_millis(250);

/// What an import did.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Imported {
    /// Clients registered.
    imported: u64,
    /// Lines refused.
    rejected: u64,
    /// Why, for the first 1,000.
    errors: Vec<LineError>,
}

/// A bad line.
#[derive(Serialize, ToSchema)]
pub(crate) struct LineError {
    /// From 1; a CSV's header is line 1.
    line: u64,
    /// The bad field; absent: the line as a whole.
    field: Option<String>,
    /// For people.
    message: String,
}

/// Registers clients from `text/csv` with a header row, or from `application/x-ndjson`.
///
/// The body may have any size; a line at most 64 KiB. Columns are those of a client, in any order, only `phone_number` is
/// required, an empty cell is absent. Good lines are registered beside bad ones, and stay when the body breaks off
/// or the database is away for more than half a minute; then `imported` says how many there are.
#[utoipa::path(
    post, path = "/clients/import", tag = "clients", operation_id = "clients_import",
    request_body(
        content((String = "text/csv", example = "phone_number,tag\n79161234567,readers\n"), (String = "application/x-ndjson")),
    ),
    responses(
        (status = 200, body = Imported),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn import_clients(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Imported>, ApiError> {
    let format = match media_type(&headers).as_str() {
        "text/csv" => Format::Csv(None),
        "application/x-ndjson" => Format::Ndjson,
        _ => {
            let detail = "the body must be text/csv or application/x-ndjson";
            return Err(ApiError::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
    };
    let reader = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let import = Import { api, format, done: Imported::default(), batch: Vec::with_capacity(BATCH) };
    import.run(BufReader::with_capacity(MAX_LINE, reader)).await.map(Json)
}

enum Format {
    /// With the columns, once the header is read.
    Csv(Option<Vec<String>>),
    Ndjson,
}

struct Import {
    api: Api,
    format: Format,
    done: Imported,
    batch: Vec<(Uuid, ClientValues)>,
}

impl Import {
    async fn run(mut self, mut lines: impl AsyncBufRead + Unpin) -> Result<Imported, ApiError> {
        let mut number = 0;
        loop {
            let line = match read_line(&mut lines).await {
                Ok(Line::End) => break,
                Ok(line) => line,
                Err(_) => {
                    self.flush().await?;
                    let detail = format!("the body broke off behind line {number}");
                    let cause = ApiError::refused(StatusCode::BAD_REQUEST, "body_broke_off", detail);
                    return Err(self.ended_early(cause));
                }
            };
            number += 1;
            self.take(number, line)?;
            if self.batch.len() == BATCH {
                self.flush().await?;
            }
        }
        if matches!(self.format, Format::Csv(None)) {
            return Err(header_error("the CSV has no header row"));
        }
        self.flush().await?;
        Ok(self.done)
    }

    fn take(&mut self, number: u64, line: Line) -> Result<(), ApiError> {
        let text = match line {
            Line::Text(text) => text,
            Line::TooLong => {
                self.reject(number, None, format!("the line has more than {MAX_LINE} bytes"));
                return Ok(());
            }
            Line::NotUtf8 => {
                self.reject(number, None, "the line isn't UTF-8".to_owned());
                return Ok(());
            }
            Line::End => return Ok(()),
        };
        // A byte order mark, as spreadsheets write it.
        let text = if number == 1 { text.trim_start_matches('\u{feff}') } else { &text };
        if text.trim().is_empty() {
            return Ok(());
        }
        let fields = match &mut self.format {
            Format::Csv(columns @ None) => {
                *columns = Some(header(text)?);
                return Ok(());
            }
            Format::Csv(Some(columns)) => csv_fields(columns, text),
            Format::Ndjson => match json::parse(text.as_bytes()) {
                Ok((value, doubled)) if doubled.is_empty() => Ok(value),
                Ok(_) => Err("a field is there twice".to_owned()),
                Err(error) => Err(format!("not JSON: column {}", error.column())),
            },
        };
        match fields {
            Ok(fields) => self.judge(number, fields),
            Err(message) => self.reject(number, None, message),
        }
        Ok(())
    }

    fn judge(&mut self, number: u64, fields: Value) {
        match read_client(fields, None) {
            Ok(client) => self.batch.push((Uuid::now_v7(), client)),
            Err(ApiError::Fields(errors)) => {
                // A line is one client: its first fault rejects it.
                let FieldError { pointer, detail, .. } = &errors[0];
                let field = pointer.strip_prefix('/').map(str::to_owned);
                self.reject(number, field, detail.clone());
            }
            Err(_) => self.reject(number, None, "the line can't be taken".to_owned()),
        }
    }

    fn reject(&mut self, line: u64, field: Option<String>, message: String) {
        self.done.rejected += 1;
        if self.done.errors.len() < MAX_ERRORS {
            self.done.errors.push(LineError { line, field, message });
        }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let mut db = match self.db().await {
            Ok(db) => db,
            // Nothing is imported yet: trying again is safe, and the answer says so.
            Err(cause) if self.done.imported == 0 => return Err(cause),
            Err(cause) => return Err(self.ended_early(cause)),
        };
        let insert = detached(async move { Ok(rows::insert(&mut db, &batch, Utc::now()).await?) });
        match insert.await {
            Ok(imported) => self.done.imported += imported,
            Err(cause) => return Err(self.ended_early(cause)),
        }
        Ok(())
    }

    /// Waits for a connection once lines are imported: a body whose first half is in can't simply be sent again.
    async fn db(&self) -> Result<PoolConnection<Postgres>, ApiError> {
        let begun = Instant::now();
        loop {
            let api = self.api.clone();
            match detached(async move { api.writing().await }).await {
                Err(ApiError::Unavailable(_)) if self.done.imported > 0 && begun.elapsed() < INTERRUPTION => {
                    tokio::time::sleep(INTERRUPTION_POLL).await;
                }
                answer => return answer,
            }
        }
    }

    fn ended_early(&self, cause: ApiError) -> ApiError {
        ApiError::Import { imported: self.done.imported, cause: Box::new(cause) }
    }
}

const COLUMNS: [&str; 4] = ["phone_number", "mobile_operator_code", "tag", "time_zone"];

fn header_error(detail: impl Into<String>) -> ApiError {
    ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid_header", detail)
}

fn header(line: &str) -> Result<Vec<String>, ApiError> {
    let cells = cells(line).map_err(header_error)?;
    let columns: Vec<String> = cells.iter().map(|cell| cell.trim().to_owned()).collect();
    for (i, column) in columns.iter().enumerate() {
        if !COLUMNS.contains(&column.as_str()) {
            return Err(header_error(format!("column {} is none of {}", i + 1, COLUMNS.join(", "))));
        }
        if columns[..i].contains(column) {
            return Err(header_error(format!("column {} is there twice", i + 1)));
        }
    }
    if columns.iter().all(|column| column != "phone_number") {
        return Err(header_error("the column phone_number is missing"));
    }
    Ok(columns)
}

/// The cells of a line, which is a record of its own: a quoted cell ends on its line.
fn cells(line: &str) -> Result<Vec<String>, String> {
    if !line.matches('"').count().is_multiple_of(2) {
        return Err("a quoted cell must end on its line".to_owned());
    }
    if line.contains('\r') {
        return Err("a line ends with a line feed; there is a carriage return within it".to_owned());
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).buffer_capacity(256).from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).ok_or_else(|| "not a line of CSV".to_owned())?;
    Ok(record.iter().map(str::to_owned).collect())
}

fn csv_fields(columns: &[String], line: &str) -> Result<Value, String> {
    let cells = cells(line)?;
    if cells.len() != columns.len() {
        return Err(format!("the line has {} cells instead of {}", cells.len(), columns.len()));
    }
    let mut fields = Map::new();
    for (column, cell) in columns.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
        let code = (column == "mobile_operator_code").then(|| cell.parse::<i64>().ok()).flatten();
        fields.insert(column.clone(), code.map_or(Value::String(cell), Value::from));
    }
    Ok(Value::Object(fields))
}

enum Line {
    Text(String),
    TooLong,
    NotUtf8,
    End,
}

/// Reads a line and never holds more than 64 KiB of it.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Line> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(match (line.is_empty(), too_long) {
                (_, true) => Line::TooLong,
                (true, false) => Line::End,
                (false, false) => text(line),
            });
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() + part.len() > MAX_LINE {
            (too_long, line) = (true, Vec::new());
        } else if !too_long {
            line.extend_from_slice(part);
        }
        let consumed = part.len() + usize::from(end.is_some());
        reader.consume(consumed);
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { text(line) });
        }
    }
}

fn text(mut line: Vec<u8>) -> Line {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_or(Line::NotUtf8, Line::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut reader = BufReader::with_capacity(7, bytes);
        let mut found = Vec::new();
        loop {
            match read_line(&mut reader).await.unwrap() {
                Line::Text(text) => found.push(text),
                Line::TooLong => found.push("(too long)".to_owned()),
                Line::NotUtf8 => found.push("(not UTF-8)".to_owned()),
                Line::End => return found,
            }
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_end_anyhow() {
        assert_eq!(lines(b"a\r\nbb\n\nlong line here").await, ["a", "bb", "", "long line here"]);
        assert_eq!(lines(b"a\n\xff\xfe\nb\n").await, ["a", "(not UTF-8)", "b"]);
        let mut bytes = vec![b'x'; MAX_LINE + 1];
        bytes.extend_from_slice(b"\nb\n");
        assert_eq!(lines(&bytes).await, ["(too long)", "b"]);
    }

    #[test]
    fn an_empty_cell_is_absent_and_a_code_is_a_number() {
        let columns = ["tag", "mobile_operator_code", "phone_number"].map(str::to_owned);
        let fields = csv_fields(&columns, r#","916","79161234567""#).unwrap();
        assert_eq!(fields, serde_json::json!({"mobile_operator_code": 916, "phone_number": "79161234567"}));
        assert!(csv_fields(&columns, "a,b").is_err());
        assert!(csv_fields(&columns, r#""a,916,79161234567"#).is_err());
    }
}
