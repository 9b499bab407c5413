//! Bodies from outside, checked field by field, with every violation named.
//!
//! The violations read as those of pydantic 1, which released OPAL's callers parse:
//! `{"loc": ["body", "entries", 0, "url"], "msg": "field required", "type": "value_error.missing"}`.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// One thing that is wrong with a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// Where: `body`, then member names and indices.
    pub loc: Vec<Value>,
    /// What is wrong, for people.
    pub msg: String,
    /// What is wrong, for programs: pydantic's error type.
    pub kind: String,
    /// More for programs, such as the values that were expected.
    pub ctx: Option<Value>,
}

impl Violation {
    /// The kind of a body that is no JSON at all.
    pub const NOT_JSON: &'static str = "json_invalid";

    /// A violation without context.
    pub fn new(loc: Vec<Value>, msg: &str, kind: &str) -> Self {
        Self {
            loc,
            msg: msg.to_owned(),
            kind: kind.to_owned(),
            ctx: None,
        }
    }

    /// The violation of a body that is no JSON, at a byte offset.
    pub fn not_json(body: &[u8], error: &serde_json::Error) -> Self {
        let line_start = body
            .split_inclusive(|byte| *byte == b'\n')
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum::<usize>();
        let offset = line_start + error.column().saturating_sub(1);
        let reason = match body.get(offset.saturating_sub(1)) {
            Some(b'{') | Some(b',') if !error.is_eof() => {
                "Expecting property name enclosed in double quotes"
            }
            _ if body.get(offset) != Some(&b'"') && error.to_string().contains("key must be") => {
                "Expecting property name enclosed in double quotes"
            }
            _ if error.to_string().contains("trailing") => "Extra data",
            _ => "Expecting value",
        };
        Self {
            loc: vec!["body".into(), offset.into()],
            msg: "JSON decode error".to_owned(),
            kind: Self::NOT_JSON.to_owned(),
            ctx: Some(serde_json::json!({ "error": reason })),
        }
    }
}

impl Serialize for Violation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // Two generations of the library show through: syntax errors have the newer one's shape.
        if self.kind == Self::NOT_JSON {
            map.serialize_entry("type", &self.kind)?;
            map.serialize_entry("loc", &self.loc)?;
            map.serialize_entry("msg", &self.msg)?;
            map.serialize_entry("input", &serde_json::json!({}))?;
        } else {
            map.serialize_entry("loc", &self.loc)?;
            map.serialize_entry("msg", &self.msg)?;
            map.serialize_entry("type", &self.kind)?;
        }
        if let Some(ctx) = &self.ctx {
            map.serialize_entry("ctx", ctx)?;
        }
        map.end()
    }
}

/// One value of a body: its text and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) loc: Vec<Value>,
    pub(crate) text: &'a str,
}

/// Collects violations while a body is read.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violations: Vec<Violation>,
}

impl<'a> Field<'a> {
    /// The whole body, if it is JSON.
    pub(crate) fn body(body: &'a [u8]) -> Result<Self, Vec<Violation>> {
        let value: &RawValue = serde_json::from_slice(body)
            .map_err(|error| vec![Violation::not_json(body, &error)])?;
        Ok(Self {
            loc: vec!["body".into()],
            text: value.get(),
        })
    }

    pub(crate) fn is_null(&self) -> bool {
        self.text == "null"
    }

    fn below(&self, step: Value, value: &'a RawValue) -> Self {
        let mut loc = self.loc.clone();
        loc.push(step);
        Self {
            loc,
            text: value.get(),
        }
    }
}

impl Checker {
    pub(crate) fn add(&mut self, field: &Field<'_>, msg: &str, kind: &str) {
        self.violations
            .push(Violation::new(field.loc.clone(), msg, kind));
    }

    pub(crate) fn missing(&mut self, parent: &Field<'_>, name: &str) {
        let mut loc = parent.loc.clone();
        loc.push(name.into());
        self.violations
            .push(Violation::new(loc, "field required", "value_error.missing"));
    }

    /// The members of an object. Of a repeated member the last counts, as in Python.
    pub(crate) fn object<'a>(&mut self, field: &Field<'a>) -> Option<BTreeMap<String, Field<'a>>> {
        let Ok(members) = serde_json::from_str::<BTreeMap<String, &'a RawValue>>(field.text) else {
            self.add(field, "value is not a valid dict", "type_error.dict");
            return None;
        };
        let members = members
            .into_iter()
            .map(|(name, value)| {
                let member = field.below(name.as_str().into(), value);
                (name, member)
            })
            .collect();
        Some(members)
    }

    /// The items of an array.
    pub(crate) fn array<'a>(&mut self, field: &Field<'a>) -> Option<Vec<Field<'a>>> {
        let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(field.text) else {
            self.add(field, "value is not a valid list", "type_error.list");
            return None;
        };
        let items = items.into_iter().enumerate();
        Some(
            items
                .map(|(at, item)| field.below(at.into(), item))
                .collect(),
        )
    }

    /// A string; numbers and booleans are taken as Python prints them, as pydantic 1 does.
    pub(crate) fn string(&mut self, field: &Field<'_>) -> Option<String> {
        match field.text {
            "null" => {
                self.add(
                    field,
                    "none is not an allowed value",
                    "type_error.none.not_allowed",
                );
                None
            }
            "true" => Some("True".to_owned()),
            "false" => Some("False".to_owned()),
            text if text.starts_with('"') => serde_json::from_str(text).ok().or_else(|| {
                self.add(field, "str type expected", "type_error.str");
                None
            }),
            text if text.starts_with(['{', '[']) => {
                self.add(field, "str type expected", "type_error.str");
                None
            }
            number => Some(crate::json_text::python_text(number)),
        }
    }

    /// A string or null.
    pub(crate) fn optional_string(&mut self, field: Option<&Field<'_>>) -> Option<String> {
        field
            .filter(|field| !field.is_null())
            .and_then(|field| self.string(field))
    }

    /// `value` if nothing was found wrong.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(self.violations),
        }
    }
}
