//! What a caller may write into a mailing, read field by field.

use chrono::{DateTime, Utc};
use domain::client::{OperatorCode, Tag};
use domain::mailing::{Delivery, Filter, InvalidMailing, Period, Text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::mailings::MailingRow;
use utoipa::ToSchema;

use crate::body::Fields;
use crate::json::Step;
use crate::problem::ApiError;

/// Whom a mailing is for: clients with one of the codes (if any) and one of the tags (if any); at least one list names
/// something.
#[derive(Serialize, Deserialize, ToSchema)]
pub(crate) struct FilterView {
    /// 900–999.
    #[schema(example = json!([916, 917]))]
    pub(super) mobile_operator_codes: Vec<i16>,
    #[schema(example = json!(["readers"]))]
    pub(super) tags: Vec<String>,
}

/// A mailing to create.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read field by field, so that all faults are told at once")]
pub(crate) struct NewMailing {
    /// 1–1,000 characters.
    #[schema(example = "The library is closed on Monday.")]
    text: String,
    /// The lists, or a short string: digits are an operator code, all else a tag.
    filter: FilterForm,
    /// Now when absent; at most a year away.
    starts_at: Option<DateTime<Utc>>,
    /// A day after the start when absent.
    ends_at: Option<DateTime<Utc>>,
    /// What to risk when the fate of a call can't be known: `at_least_once` (when absent) sends again, and somebody may get
    /// the text twice; `at_most_once` doesn't, the message becomes `unknown`, and somebody may never get it.
    #[schema(example = "at_least_once")]
    delivery: Option<String>,
}

/// What a caller asks for, read and valid.
pub(super) struct MailingValues {
    pub(super) text: String,
    pub(super) operator_codes: Vec<i16>,
    pub(super) tags: Vec<String>,
    pub(super) starts_at: DateTime<Utc>,
    pub(super) ends_at: DateTime<Utc>,
    pub(super) delivery: Delivery,
}

impl MailingValues {
    pub(super) fn of(row: &MailingRow) -> Self {
        Self {
            text: row.text.clone(),
            operator_codes: row.operator_codes.clone(),
            tags: row.tags.clone(),
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            delivery: row.delivery.clone(),
        }
    }
}

/// What to change of a mailing that hasn't started.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read field by field, so that all faults are told at once")]
pub(crate) struct MailingChange {
    #[schema(example = "The library is closed on Tuesday.")]
    text: Option<String>,
    filter: Option<FilterForm>,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    delivery: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read field by field, so that all faults are told at once")]
pub(crate) enum FilterForm {
    Lists(FilterView),
    Short(String),
}

/// Reads a filter: an object of two lists, or the short string.
fn read_filter(fields: &mut Fields) -> Option<Filter> {
    let value = fields.take("filter").filter(|value| !value.is_null())?;
    let (mut codes, mut tags) = (vec![], vec![]);
    let before = fields.bad_count();
    let (code_values, tag_values) = match value {
        Value::String(short) if !short.is_empty() && short.bytes().all(|byte| byte.is_ascii_digit()) => {
            (vec![short.parse::<i64>().map_or(Value::Null, Value::from)], vec![])
        }
        Value::String(short) => (vec![], vec![Value::String(short)]),
        Value::Object(mut lists) => {
            let mut list = |name: &str| match lists.remove(name) {
                None | Some(Value::Null) => vec![],
                Some(Value::Array(values)) => values,
                Some(_) => {
                    fields.bad(format_args!("/filter/{name}"), "wrong_type", "must be a list");
                    vec![]
                }
            };
            let found = (list("mobile_operator_codes"), list("tags"));
            for name in lists.keys() {
                fields.bad(format_args!("/filter{}", Step(name)), "unknown_field", "there is no such field");
            }
            found
        }
        _ => {
            fields.bad("/filter", "wrong_type", "must be an object or a string");
            return None;
        }
    };
    for (i, value) in code_values.iter().enumerate() {
        match value.as_i64().map(OperatorCode::new) {
            Some(Ok(code)) => codes.push(code),
            Some(Err(refusal)) => fields.bad(format_args!("/filter/mobile_operator_codes/{i}"), "invalid", refusal),
            None => fields.bad(format_args!("/filter/mobile_operator_codes/{i}"), "wrong_type", "must be an integer"),
        }
    }
    for (i, value) in tag_values.iter().enumerate() {
        match value.as_str().map(|text| Tag::new(text.to_owned())) {
            Some(Ok(tag)) => tags.push(tag),
            Some(Err(refusal)) => fields.bad(format_args!("/filter/tags/{i}"), "invalid", refusal),
            None => fields.bad(format_args!("/filter/tags/{i}"), "wrong_type", "must be a string"),
        }
    }
    if fields.bad_count() > before {
        return None;
    }
    fields.parse("filter", Some((codes, tags)), |(codes, tags)| Filter::new(codes, tags))
}

/// Reads a mailing's fields over what it has already, if anything.
pub(super) fn read_mailing(
    body: Value,
    before: Option<MailingValues>,
    now: DateTime<Utc>,
) -> Result<MailingValues, ApiError> {
    let mut fields = Fields::new(body)?;
    let text = fields.text("text");
    let text = fields.parse("text", text, Text::new).map(|text| text.as_str().to_owned());
    let text = text.or_else(|| before.as_ref().map(|before| before.text.clone()));
    fields.require("text", &text);
    let filter = read_filter(&mut fields).map(|filter| {
        let codes = filter.operator_codes().iter().map(|code| code.get()).collect();
        let tags = filter.tags().iter().map(|tag| tag.as_str().to_owned()).collect();
        (codes, tags)
    });
    let filter = filter.or_else(|| before.as_ref().map(|before| (before.operator_codes.clone(), before.tags.clone())));
    fields.require("filter", &filter);
    let starts_at = fields.instant("starts_at").or(before.as_ref().map(|before| before.starts_at));
    let ends_at = fields.instant("ends_at").or(before.as_ref().map(|before| before.ends_at));
    let period = match Period::new(starts_at, ends_at, now) {
        Ok(period) => Some(period),
        Err(refusal) => {
            let name = if refusal == InvalidMailing::StartTooFar { "/starts_at" } else { "/ends_at" };
            fields.bad(name, "invalid", refusal);
            None
        }
    };
    let delivery = fields.text("delivery");
    let delivery = fields.parse("delivery", delivery, Delivery::parse);
    let delivery = delivery.or(before.map(|before| before.delivery));
    let values = match (text, filter, period) {
        (Some(text), Some((operator_codes, tags)), Some(Period { starts_at, ends_at })) => {
            let delivery = delivery.unwrap_or(Delivery::AtLeastOnce);
            Some(MailingValues { text, operator_codes, tags, starts_at, ends_at, delivery })
        }
        _ => None,
    };
    fields.finish(values)
}
