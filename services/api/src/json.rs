//! JSON as `serde_json` reads it, but a field that stands in an object twice is told: of two it would silently take the last.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::MAX_FIELD_ERRORS;

/// Reads a document, and JSON pointers to the first [`MAX_FIELD_ERRORS`] fields that stand in it twice.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<(Value, Vec<String>)> {
    let (mut path, mut doubled) = (String::new(), vec![]);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Tree { path: &mut path, doubled: &mut doubled }.deserialize(&mut json)?;
    json.end()?;
    Ok((value, doubled))
}

/// A pointer's step to a field, escaped (RFC 6901) and without runs of digits: a caller may have put a phone number there.
pub(crate) struct Step<'a>(pub(crate) &'a str);

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = self.0.replace('~', "~0").replace('/', "~1");
        write!(f, "/{}", events::mask_detail(&escaped))
    }
}

struct Tree<'a> {
    path: &'a mut String,
    doubled: &'a mut Vec<String>,
}

impl Tree<'_> {
    fn inner<T>(&mut self, step: fmt::Arguments<'_>, read: impl FnOnce(Tree<'_>) -> T) -> T {
        let outer = self.path.len();
        self.path.write_fmt(step).expect("a string takes any text");
        let read = read(Tree { path: self.path, doubled: self.doubled });
        self.path.truncate(outer);
        read
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut values = vec![];
        while let Some(value) = self.inner(format_args!("/{}", values.len()), |tree| items.next_element_seed(tree))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = self.inner(format_args!("{}", Step(&name)), |tree| members.next_value_seed(tree))?;
            if object.contains_key(&name) && self.doubled.len() < MAX_FIELD_ERRORS {
                self.doubled.push(format!("{}{}", self.path, Step(&name)));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_serde_json_reads_it() {
        for text in [r#"{"a":[1,-2,3.5,18446744073709551615,true,null,"я\n\u00e9"],"b":{"c":{}}}"#, "[]", "7", r#""x""#]
        {
            assert_eq!(parse(text.as_bytes()).unwrap(), (serde_json::from_str(text).unwrap(), vec![]), "{text}");
        }
        for text in ["", "{", "[1,]", "{} x", r#""\ud800""#, "1e999", &"[".repeat(1_000)] {
            assert!(parse(text.as_bytes()).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn doubled_fields_are_told_where_they_stand() {
        let text = br#"{"a":1,"b":[{"c/d":1,"c/d":2}],"a":2,"a":3,"79161234567":1,"79161234567":2}"#;
        assert_eq!(parse(text).unwrap().1, ["/b/0/c~1d", "/a", "/a", "/#"]);
    }

    #[test]
    fn of_many_doubled_fields_the_first_are_told() {
        let text = format!("{{{}\"b\":1}}", "\"a\":1,".repeat(100_000));
        assert_eq!(parse(text.as_bytes()).unwrap().1, ["/a"; MAX_FIELD_ERRORS]);
    }
}
