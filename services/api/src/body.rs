//! Reads the fields of a JSON body, and remembers the bad ones, so that a caller hears of all at once.

use std::fmt::Display;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Map, Value};

use crate::json::Step;
use crate::problem::{ApiError, FieldError, MAX_FIELD_ERRORS};

/// A body's fields, as far as they aren't read yet.
pub(crate) struct Fields {
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Takes an object; anything else is refused at once.
    pub(crate) fn new(body: Value) -> Result<Self, ApiError> {
        match body {
            Value::Object(fields) => Ok(Self { fields, errors: vec![] }),
            _ => Err(ApiError::Fields(vec![FieldError {
                pointer: String::new(),
                code: "wrong_type",
                detail: "must be an object".to_owned(),
            }])),
        }
    }

    /// Notes that a field is bad, one of the first [`MAX_FIELD_ERRORS`]; nothing is formatted for the others.
    pub(crate) fn bad(&mut self, pointer: impl Display, code: &'static str, detail: impl Display) {
        if self.errors.len() < MAX_FIELD_ERRORS {
            self.errors.push(FieldError { pointer: pointer.to_string(), code, detail: detail.to_string() });
        }
    }

    /// How many faults there are.
    pub(crate) fn bad_count(&self) -> usize {
        self.errors.len()
    }

    /// A field as it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name)
    }

    /// Whether a field is there and null.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(Value::is_null)
    }

    /// A text; null is absent.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            Value::Null => None,
            _ => {
                self.bad(format_args!("/{name}"), "wrong_type", "must be a string");
                None
            }
        }
    }

    /// An integer; null is absent.
    pub(crate) fn integer(&mut self, name: &str) -> Option<i64> {
        match self.take(name)? {
            Value::Null => None,
            value => {
                let number = value.as_i64();
                if number.is_none() {
                    self.bad(format_args!("/{name}"), "wrong_type", "must be an integer");
                }
                number
            }
        }
    }

    /// An instant of RFC 3339; null is absent.
    pub(crate) fn instant(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let text = self.text(name)?;
        match DateTime::parse_from_rfc3339(&text) {
            // Postgres keeps microseconds: what is compared must be what is kept.
            Ok(instant) => Some(instant.to_utc().trunc_subsecs(6)),
            Err(_) => {
                self.bad(format_args!("/{name}"), "invalid", "must be an RFC 3339 time, as in 2026-05-01T12:00:00Z");
                None
            }
        }
    }

    /// Parses what was read; a refusal becomes the field's.
    pub(crate) fn parse<T, P, E: Display>(
        &mut self,
        name: &str,
        value: Option<T>,
        parse: impl FnOnce(T) -> Result<P, E>,
    ) -> Option<P> {
        match parse(value?) {
            Ok(parsed) => Some(parsed),
            Err(refusal) => {
                self.bad(format_args!("/{name}"), "invalid", refusal);
                None
            }
        }
    }

    /// Notes that a field must be there, unless something else is wrong with it already.
    pub(crate) fn require<T>(&mut self, name: &str, value: &Option<T>) {
        let pointer = format!("/{name}");
        if value.is_none() && !self.errors.iter().any(|error| error.pointer.starts_with(&pointer)) {
            self.bad(pointer, "required", "must be given");
        }
    }

    /// Refuses what is left, and answers `value` if nothing was bad.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, ApiError> {
        for name in std::mem::take(&mut self.fields).keys() {
            self.bad(Step(name), "unknown_field", "there is no such field");
        }
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(ApiError::Fields(self.errors)),
        }
    }
}
