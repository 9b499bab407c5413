//! The frames of the websocket: one JSON envelope, a request or a response.
//!
//! There is no error response in this protocol; what cannot be answered ends the connection.
//! Python peers need `arguments` to be an object and `result_type` to be present, so both are
//! always written.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::topic::Topic;

/// Largest frame that a server takes.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Largest frame that a released client takes; a larger one ends its connection.
pub const MAX_FRAME_TO_RELEASED_CLIENTS: usize = 1024 * 1024;

/// Methods that a server answers.
pub mod server_methods {
    /// Keep-alive.
    pub const PING: &str = "_ping_";
    /// Keep-alive by its public name.
    pub const PUBLIC_PING: &str = "ping";
    /// The id that the server gave the connection.
    pub const GET_CHANNEL_ID: &str = "_get_channel_id_";
    /// Starts the delivery of topics.
    pub const SUBSCRIBE: &str = "subscribe";
    /// Ends the delivery of topics.
    pub const UNSUBSCRIBE: &str = "unsubscribe";
    /// Sends data to the other subscribers of topics.
    pub const PUBLISH: &str = "publish";
}

/// The method by which a server delivers.
pub const NOTIFY: &str = "notify";

/// A frame as received. Borrows from its text.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// The peer asks.
    Request(Request<'a>),
    /// The peer answers.
    Response(Response<'a>),
    /// JSON that is neither; ignored.
    Neither,
}

/// A question.
#[derive(Debug, Deserialize)]
pub struct Request<'a> {
    /// What is asked.
    pub method: String,
    /// The arguments by name. `None`: the peer wrote null, which is an error.
    #[serde(borrow, default = "no_arguments")]
    pub arguments: Option<&'a RawValue>,
    /// To be echoed.
    #[serde(default)]
    pub call_id: Option<String>,
}

fn no_arguments<'a>() -> Option<&'a RawValue> {
    serde_json::from_str("{}").ok()
}

/// An answer.
#[derive(Debug, Deserialize)]
pub struct Response<'a> {
    /// The value.
    #[serde(borrow)]
    pub result: &'a RawValue,
    /// The question's id.
    #[serde(default)]
    pub call_id: Option<std::borrow::Cow<'a, str>>,
}

impl<'a> Incoming<'a> {
    /// Reads one frame. An error is text that is no JSON.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow, default)]
            request: Option<&'a RawValue>,
            #[serde(borrow, default)]
            response: Option<&'a RawValue>,
        }
        let envelope = match serde_json::from_str::<Envelope<'a>>(text) {
            Ok(envelope) => envelope,
            Err(error) if error.is_data() => return Ok(Self::Neither),
            Err(error) => return Err(error),
        };
        let request = envelope
            .request
            .map(|text| serde_json::from_str(text.get()));
        let response = envelope
            .response
            .map(|text| serde_json::from_str(text.get()));
        Ok(match (request, response) {
            (Some(Ok(request)), _) => Self::Request(request),
            (None, Some(Ok(response))) => Self::Response(response),
            _ => Self::Neither,
        })
    }
}

/// Arguments of `subscribe` and `unsubscribe`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeArguments {
    /// The topics.
    #[serde(default, deserialize_with = "characters_or_topics")]
    pub topics: Vec<Topic>,
}

/// As upstream: a string is a sequence of one-character topics, unless it is the wildcard.
fn characters_or_topics<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Topic>, D::Error> {
    Ok(match TopicsOrText::deserialize(deserializer)? {
        TopicsOrText::Topics(topics) => topics,
        TopicsOrText::Text(text) if text == Topic::ALL_TOPICS => vec![text.into()],
        TopicsOrText::Text(text) => text.chars().map(|c| Topic::from(c.to_string())).collect(),
    })
}

/// Arguments of `publish`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishArguments {
    /// The topics; a bare string is one.
    #[serde(default, deserialize_with = "topic_or_topics")]
    pub topics: Vec<Topic>,
    /// What to deliver; null by default.
    #[serde(default)]
    pub data: Option<crate::data::Document>,
    /// Whether the answer waits for the subscribers' answers. We answer once it is queued.
    #[serde(default = "yes")]
    pub sync: bool,
    /// Who publishes, if not the connection itself: that one gets no copy.
    #[serde(default)]
    pub notifier_id: Option<String>,
}

fn yes() -> bool {
    true
}

fn topic_or_topics<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Topic>, D::Error> {
    Ok(match TopicsOrText::deserialize(deserializer)? {
        TopicsOrText::Topics(topics) => topics,
        TopicsOrText::Text(text) => vec![Topic::from(text)],
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TopicsOrText {
    Text(String),
    Topics(Vec<Topic>),
}

/// Arguments of `notify`.
#[derive(Debug, Serialize, Deserialize)]
pub struct NotifyArguments {
    /// Why this connection is told.
    pub subscription: Subscription,
    /// What was published.
    #[serde(default)]
    pub data: Option<crate::data::Document>,
}

/// One subscription of one connection. Peers read the topic only.
#[derive(Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    #[serde(default)]
    pub id: Option<String>,
    /// The subscriber's channel id.
    #[serde(default)]
    pub subscriber_id: Option<String>,
    /// The topic that matched.
    pub topic: Topic,
    /// Always null.
    #[serde(default)]
    pub notifier_id: Option<String>,
}

/// The text of a question.
pub fn request_text(method: &str, arguments: &impl Serialize, call_id: &str) -> String {
    #[derive(Serialize)]
    struct Question<'a, A> {
        method: &'a str,
        arguments: &'a A,
        call_id: &'a str,
    }
    let request = Question {
        method,
        arguments,
        call_id,
    };
    encode(&serde_json::json!(null), Some(&request))
}

/// The text of a request that nobody answers: its `call_id` is null.
pub fn event_text(method: &str, arguments: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Event<'a, A> {
        method: &'a str,
        arguments: &'a A,
        call_id: Option<&'a str>,
    }
    let request = Event {
        method,
        arguments,
        call_id: None,
    };
    encode(&serde_json::json!(null), Some(&request))
}

/// The text of an answer.
pub fn response_text(result: &impl Serialize, result_type: &str, call_id: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Answer<'a, R> {
        result: &'a R,
        result_type: &'a str,
        call_id: Option<&'a str>,
    }
    let response = Answer {
        result,
        result_type,
        call_id,
    };
    encode(&response, None::<&()>)
}

fn encode<R: Serialize, Q: Serialize>(response: &R, request: Option<&Q>) -> String {
    #[derive(Serialize)]
    struct Envelope<'a, Q, R> {
        request: Option<&'a Q>,
        response: &'a R,
    }
    serde_json::to_string(&Envelope { request, response })
        .expect("frames are made of strings, booleans and JSON documents")
}

/// What a client answers to `notify`, as Python's does: the word `None`.
pub fn notify_answer(call_id: Option<&str>) -> String {
    response_text(&"None", "str", call_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_with_every_member() {
        assert_eq!(
            request_text("subscribe", &serde_json::json!({"topics":["a"]}), "c1"),
            r#"{"request":{"method":"subscribe","arguments":{"topics":["a"]},"call_id":"c1"},"response":null}"#
        );
        assert_eq!(
            notify_answer(None),
            r#"{"request":null,"response":{"result":"None","result_type":"str","call_id":null}}"#
        );
    }

    #[test]
    fn what_is_json_but_no_frame_is_ignored() {
        for text in [
            "{}",
            "[]",
            "5",
            r#"{"request":{}}"#,
            r#"{"response":{"call_id":"x"}}"#,
            r#"{"request":5}"#,
        ] {
            assert!(
                matches!(Incoming::parse(text), Ok(Incoming::Neither)),
                "{text}"
            );
        }
        assert!(Incoming::parse("nonsense").is_err());
        assert!(Incoming::parse("{\"request\"").is_err());
    }

    #[test]
    fn absent_arguments_are_empty_and_null_ones_are_not() {
        let parse = |text: &'static str| match Incoming::parse(text) {
            Ok(Incoming::Request(request)) => request.arguments.map(RawValue::get),
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(r#"{"request":{"method":"_ping_"}}"#), Some("{}"));
        assert_eq!(
            parse(r#"{"request":{"method":"_ping_","arguments":null}}"#),
            None
        );
    }

    #[test]
    fn a_string_of_topics_is_characters_to_subscribe_and_one_topic_to_publish() {
        let subscribe: SubscribeArguments = serde_json::from_str(r#"{"topics":"ab"}"#).unwrap();
        assert_eq!(subscribe.topics, ["a", "b"].map(Topic::from));
        let wildcard = format!(r#"{{"topics":"{}"}}"#, Topic::ALL_TOPICS);
        let all: SubscribeArguments = serde_json::from_str(&wildcard).unwrap();
        assert_eq!(all.topics, [Topic::from(Topic::ALL_TOPICS)]);
        let publish: PublishArguments = serde_json::from_str(r#"{"topics":"ab"}"#).unwrap();
        assert_eq!(publish.topics, ["ab"].map(Topic::from));
    }
}
