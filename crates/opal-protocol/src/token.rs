//! What a token claims, and what is asked of `POST /token`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::validate::{Checker, Field, Violation};

mod duration;

/// How long a token holds if nobody says.
const DEFAULT_TTL: chrono::TimeDelta = chrono::TimeDelta::days(365);

/// What a token's bearer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerType {
    /// An OPAL client.
    Client,
    /// Someone who publishes data updates.
    #[serde(rename = "datasource")]
    DataSource,
    /// Someone who asks a client about itself.
    Listener,
}

impl PeerType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::DataSource => "datasource",
            Self::Listener => "listener",
        }
    }

    /// The peer type with that name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Client, Self::DataSource, Self::Listener]
            .into_iter()
            .find(|peer| peer.as_str() == name)
    }
}

impl fmt::Display for PeerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The claims of a verified token. No claim beyond `sub` is required for a token to be valid;
/// each route asks for what it needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// The peer, a UUID in any of the forms that Python's parser takes.
    #[serde(default)]
    pub sub: String,
    /// When the token ends, in seconds since 1970.
    #[serde(default)]
    pub exp: Option<i64>,
    /// Kept as text: an unknown type is an error of the route that asks, not of the token.
    #[serde(default)]
    pub peer_type: Option<Value>,
    /// Limits subscribe and publish to exactly these topics.
    #[serde(default)]
    pub permitted_topics: Option<Vec<String>>,
    /// The scopes this bearer may read.
    #[serde(default)]
    pub allowed_scopes: Option<Vec<String>>,
    /// Whatever else the token says.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The body of `POST /token`, after its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessTokenRequest {
    /// The peer's id, a new UUIDv4 by default.
    pub id: Uuid,
    /// What the bearer will be.
    pub peer_type: PeerType,
    /// How long the token holds; may be negative.
    pub ttl: chrono::TimeDelta,
    /// Merged last into the payload, so they may override any claim.
    pub claims: Map<String, Value>,
}

impl AccessTokenRequest {
    /// Reads the body of `POST /token`; `new_id` is the id if it names none.
    ///
    /// # Errors
    ///
    /// Every violation, as pydantic 1 words them.
    pub fn parse(body: &[u8], new_id: Uuid) -> Result<Self, Vec<Violation>> {
        let mut checker = Checker::default();
        let missing =
            || Violation::new(vec!["body".into()], "field required", "value_error.missing");
        if body.trim_ascii().is_empty() {
            return Err(vec![missing()]);
        }
        let body = Field::body(body)?;
        if body.is_null() {
            return Err(vec![missing()]);
        }
        let request = checker.object(&body).map(|members| {
            let mut request = Self {
                id: new_id,
                peer_type: PeerType::Client,
                ttl: DEFAULT_TTL,
                claims: Map::new(),
            };
            // In upstream's order: that is the order of the violations.
            read(&mut checker, members.get("id"), &mut request.id, id);
            read(
                &mut checker,
                members.get("type"),
                &mut request.peer_type,
                peer_type,
            );
            read(&mut checker, members.get("ttl"), &mut request.ttl, ttl);
            read(
                &mut checker,
                members.get("claims"),
                &mut request.claims,
                claims,
            );
            request
        });
        checker.finish(request)
    }
}

/// Puts what `parse` makes of `field` into `place`, or notes what is wrong with it.
fn read<T>(
    checker: &mut Checker,
    field: Option<&Field<'_>>,
    place: &mut T,
    parse: fn(&Value) -> Result<T, Refused>,
) {
    let Some(field) = field else {
        return;
    };
    if field.is_null() {
        checker.add(
            field,
            "none is not an allowed value",
            "type_error.none.not_allowed",
        );
        return;
    }
    // It was part of a JSON document, so it is one.
    let value = serde_json::from_str(field.text).unwrap_or(Value::Null);
    match parse(&value) {
        Ok(value) => *place = value,
        Err((msg, kind, ctx)) => {
            let violation = Violation::new(field.loc.clone(), msg, kind);
            checker.violations.push(Violation { ctx, ..violation });
        }
    }
}

/// Message, kind and context of a violation.
type Refused = (&'static str, &'static str, Option<Value>);

fn id(value: &Value) -> Result<Uuid, Refused> {
    let id = value.as_str().and_then(parse_uuid);
    id.ok_or(("value is not a valid uuid", "type_error.uuid", None))
}

fn peer_type(value: &Value) -> Result<PeerType, Refused> {
    let peer_type = value.as_str().and_then(PeerType::parse);
    peer_type.ok_or_else(|| {
        (
            "value is not a valid enumeration member; permitted: 'client', 'datasource', 'listener'",
            "type_error.enum",
            Some(json!({"enum_values": ["client", "datasource", "listener"]})),
        )
    })
}

fn ttl(value: &Value) -> Result<chrono::TimeDelta, Refused> {
    let ttl = match value {
        Value::String(text) => duration::parse(text),
        Value::Number(number) => number.as_f64().and_then(duration::from_seconds),
        Value::Bool(value) => Some(chrono::TimeDelta::seconds(i64::from(*value))),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let msg = "invalid type; expected timedelta, string, bytes, int or float";
            return Err((msg, "type_error", None));
        }
    };
    ttl.ok_or(("invalid duration format", "value_error.duration", None))
}

fn claims(value: &Value) -> Result<Map<String, Value>, Refused> {
    let claims = value.as_object().cloned();
    claims.ok_or(("value is not a valid dict", "type_error.dict", None))
}

/// A UUID in the forms that Python takes: 32 hexadecimal digits, with dashes, braces around and
/// `urn:uuid:` before them.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text.trim_matches(['{', '}']).replace('-', "");
    let well_formed = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    well_formed.then(|| Uuid::try_parse(&digits).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Uuid = Uuid::from_u128(7);

    fn violations(body: &str) -> Value {
        let violations = AccessTokenRequest::parse(body.as_bytes(), NEW).unwrap_err();
        serde_json::to_value(violations).unwrap()
    }

    #[test]
    fn an_empty_object_has_upstream_s_defaults() {
        let request = AccessTokenRequest::parse(b"{}", NEW).unwrap();
        assert_eq!(request.id, NEW);
        assert_eq!(request.peer_type, PeerType::Client);
        assert_eq!(request.ttl, chrono::TimeDelta::days(365));
        assert!(request.claims.is_empty());
    }

    #[test]
    fn members_are_read_and_others_ignored() {
        let body = r#"{"id":"{11111111-2222-3333-4444-555555555555}","type":"listener","ttl":-60,
            "claims":{"x":1},"extra":[]}"#;
        let request = AccessTokenRequest::parse(body.as_bytes(), NEW).unwrap();
        assert_eq!(
            request.id.to_string(),
            "11111111-2222-3333-4444-555555555555"
        );
        assert_eq!(request.peer_type, PeerType::Listener);
        assert_eq!(request.ttl, chrono::TimeDelta::seconds(-60));
        assert_eq!(Value::Object(request.claims), json!({"x": 1}));
    }

    #[test]
    fn every_violation_is_reported_in_upstream_s_words_and_order() {
        let body = r#"{"claims":5,"id":"x","ttl":"x","type":"x"}"#;
        let expected = json!([
            {"loc": ["body", "id"], "msg": "value is not a valid uuid", "type": "type_error.uuid"},
            {"loc": ["body", "type"],
             "msg": "value is not a valid enumeration member; permitted: 'client', 'datasource', 'listener'",
             "type": "type_error.enum", "ctx": {"enum_values": ["client", "datasource", "listener"]}},
            {"loc": ["body", "ttl"], "msg": "invalid duration format", "type": "value_error.duration"},
            {"loc": ["body", "claims"], "msg": "value is not a valid dict", "type": "type_error.dict"},
        ]);
        assert_eq!(violations(body), expected);
        let null = json!([{"loc": ["body", "ttl"], "msg": "none is not an allowed value",
            "type": "type_error.none.not_allowed"}]);
        assert_eq!(violations(r#"{"ttl":null}"#), null);
        let list = json!([{"loc": ["body", "ttl"],
            "msg": "invalid type; expected timedelta, string, bytes, int or float",
            "type": "type_error"}]);
        assert_eq!(violations(r#"{"ttl":[]}"#), list);
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let missing =
            json!([{"loc": ["body"], "msg": "field required", "type": "value_error.missing"}]);
        assert_eq!(violations(""), missing);
        assert_eq!(violations("null"), missing);
        let dict = json!([{"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}]);
        assert_eq!(violations("5"), dict);
        assert_eq!(violations("{")[0]["type"], "json_invalid");
        assert!(AccessTokenRequest::parse(b"{\"id\":\"\xff\"}", NEW).is_err());
        assert!(AccessTokenRequest::parse("[".repeat(100_000).as_bytes(), NEW).is_err());
    }
}
