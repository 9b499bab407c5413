//! Every REST request that was recorded with the released server, in order, against ours: status,
//! headers and body are the same, byte for byte, but for what the tables here say.

use std::collections::{BTreeMap, BTreeSet};

use opal_testing::http::{self, Answer, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{TestServer, fixture, lines, recorded_repo};

/// One recorded exchange.
#[derive(Debug, Clone, Deserialize)]
struct Recorded {
    #[serde(default)]
    section: String,
    method: String,
    target: String,
    request_headers: BTreeMap<String, String>,
    request_body: Option<String>,
    status: u16,
    response_headers: BTreeMap<String, String>,
    response_body: String,
}

/// Where ours differs on purpose, and how.
struct OnPurpose {
    /// How the request begins: method, target, body.
    request: &'static str,
    /// What was recorded.
    recorded: u16,
    ours: Ours,
    why: &'static str,
}

enum Ours {
    /// The route is not there; this fails once it is.
    NotBuiltYet,
    /// Another answer: its status, and how its body begins.
    Answer(u16, &'static str),
}
use Ours::{Answer as Other, NotBuiltYet};

const STATISTICS: &str = "statistics come with the backbone between servers";
const COMPLETE: &str = "an unknown base is answered with everything, as older versions did";

const UNSECURED: &[OnPurpose] = &[
    OnPurpose {
        request: "GET /statistics",
        recorded: 501,
        ours: NotBuiltYet,
        why: STATISTICS,
    },
    OnPurpose {
        request: "GET /stats ",
        recorded: 501,
        ours: NotBuiltYet,
        why: STATISTICS,
    },
    OnPurpose {
        request: "GET /loadlimit",
        recorded: 200,
        ours: NotBuiltYet,
        why: "later work",
    },
    OnPurpose {
        request: "GET /pubsub_client_info",
        recorded: 200,
        ours: NotBuiltYet,
        why: "later work",
    },
    OnPurpose {
        request: r#"POST /data/config {"entries":[{"url":"","save_method":"POST"}]}"#,
        recorded: 200,
        ours: Other(
            422,
            r#"{"detail":[{"loc":["body","entries",0,"save_method"],"msg":"'save_method' must be either PUT or PATCH""#,
        ),
        why: "a method that nobody knows is refused, with or without data",
    },
    OnPurpose {
        request: "GET /policy?base_hash=deadbeef",
        recorded: 500,
        ours: Other(
            200,
            r#"{"manifest":["lib/util/util.rego","app/rbac.rego","main.rego","#,
        ),
        why: COMPLETE,
    },
    OnPurpose {
        request: "GET /policy?base_hash=0000000000000000000000000000000000000000",
        recorded: 500,
        ours: Other(
            200,
            r#"{"manifest":["lib/util/util.rego","app/rbac.rego","main.rego","#,
        ),
        why: COMPLETE,
    },
];

const SECURED: &[OnPurpose] = &[
    OnPurpose {
        request: "GET /pubsub_client_info",
        recorded: 401,
        ours: NotBuiltYet,
        why: "later work",
    },
    OnPurpose {
        request: "GET /loadlimit",
        recorded: 401,
        ours: NotBuiltYet,
        why: "later work",
    },
    OnPurpose {
        request: "GET /loadlimit",
        recorded: 200,
        ours: NotBuiltYet,
        why: "later work",
    },
    OnPurpose {
        request: "GET /loadlimit",
        recorded: 429,
        ours: NotBuiltYet,
        why: "later work",
    },
    OnPurpose {
        request: "GET /statistics",
        recorded: 200,
        ours: NotBuiltYet,
        why: STATISTICS,
    },
    OnPurpose {
        request: "GET /stats ",
        recorded: 200,
        ours: NotBuiltYet,
        why: STATISTICS,
    },
    OnPurpose {
        request: "GET /stats ",
        recorded: 401,
        ours: NotBuiltYet,
        why: STATISTICS,
    },
];

const GITLAB: &[OnPurpose] = &[
    OnPurpose {
        request: r#"POST /webhook {"ref":"refs/heads/main","repository":{"git_url":"a""#,
        recorded: 500,
        ours: Other(200, r#"{"status":"ignored","event":"Push Hook"}"#),
        why: "a payload may fill every field that could name a repository",
    },
    OnPurpose {
        request: "POST /webhook notjson",
        recorded: 500,
        ours: Other(
            400,
            r#"{"detail":"the body of a webhook must be a JSON object"}"#,
        ),
        why: "a bad body is its sender's mistake, not ours",
    },
];

const REDIRECT: &[OnPurpose] = &[
    OnPurpose {
        request: "GET /data/config",
        recorded: 500,
        ours: Other(307, ""),
        why: "without a token there is none to pass on",
    },
    OnPurpose {
        request: "GET /internal/git-fetcher-cache-stats",
        recorded: 200,
        ours: NotBuiltYet,
        why: "later work",
    },
];

/// The headers that callers act upon.
const HEADERS: [&str; 9] = [
    "content-type",
    "www-authenticate",
    "allow",
    "location",
    "vary",
    "access-control-allow-methods",
    "access-control-max-age",
    "access-control-allow-credentials",
    "access-control-allow-origin",
];

impl Recorded {
    fn name(&self) -> String {
        let body = self.request_body.as_deref().unwrap_or_default();
        format!("{} {} {body}", self.method, self.target)
    }

    /// Sends the same to `server`; `<JWT>` becomes the next of `tokens`.
    async fn send(&self, server: &TestServer, tokens: &mut impl Iterator<Item = String>) -> Answer {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let mut request = http::request(method, server.url(&self.target));
        for (name, value) in &self.request_headers {
            let value = match value.split_once("<JWT>") {
                Some((scheme, _)) => format!("{scheme}{}", tokens.next().unwrap()),
                None => value.clone(),
            };
            request = request.header(name, value);
        }
        request = request.body(self.request_body.clone().unwrap_or_default());
        request.send().await.unwrap()
    }

    /// How `answer` differs from what was recorded, or from what `on_purpose` says instead.
    fn differences(&self, answer: &Answer, on_purpose: Option<&OnPurpose>) -> Vec<String> {
        let (status, body) = (answer.status.as_u16(), answer.text());
        match on_purpose.map(|deviation| &deviation.ours) {
            Some(NotBuiltYet) if (status, body.as_str()) == (404, r#"{"detail":"Not Found"}"#) => {
                vec![]
            }
            Some(Other(expected, start)) if status == *expected && body.starts_with(start) => {
                vec![]
            }
            Some(_) => vec![format!("not what the table says: {status} {body}")],
            None => self.plain_differences(answer),
        }
    }

    fn plain_differences(&self, answer: &Answer) -> Vec<String> {
        let mut found = Vec::new();
        if answer.status != self.status {
            found.push(format!("status {} is now {}", self.status, answer.status));
        }
        for name in HEADERS {
            let recorded = self.response_headers.get(name).map(String::as_str);
            let ours = answer
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap());
            if recorded.is_some() && recorded != ours {
                found.push(format!("{name} {recorded:?} is now {ours:?}"));
            }
        }
        let ours = String::from_utf8(answer.body.to_vec()).unwrap();
        let (recorded, ours) = (constant(&self.response_body), constant(&ours));
        if recorded != ours {
            found.push(format!("body {recorded} is now {ours}"));
        }
        found
    }
}

/// A body without what differs from one run to the next, and without the token that the released
/// server echoes to whoever sent it: we never do, and no peer reads it.
fn constant(body: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(body) else {
        return body.to_owned();
    };
    let written = value.to_string();
    // Whether it was written compactly is a part of the answer.
    let spacing = if written == body { "compact" } else { "spaced" };
    if let Some(detail) = value["detail"].as_object_mut() {
        detail.shift_remove("token");
    }
    if value["type"] == "bearer" {
        value["token"] = json!("<token>");
        value["details"]["id"] = json!("<id>");
        let expired = value["details"]["expired"].as_str().unwrap_or_default();
        value["details"]["expired"] = json!(expired.replace(|c: char| c.is_ascii_digit(), "0"));
    }
    if let Some(key) = value["keys"].get_mut(0) {
        key["n"] = json!("<modulus>");
    }
    format!("{spacing} {value}")
}

async fn replay(
    server: &TestServer,
    recording: &[Recorded],
    tokens: Vec<String>,
    table: &[OnPurpose],
) {
    let mut tokens = tokens.into_iter();
    let mut used = BTreeSet::new();
    let mut report = String::new();
    for recorded in recording {
        let name = recorded.name();
        let answer = recorded.send(server, &mut tokens).await;
        let on_purpose = table.iter().position(|deviation| {
            deviation.recorded == recorded.status && name.starts_with(deviation.request)
        });
        used.extend(on_purpose);
        let on_purpose = on_purpose.map(|at| &table[at]);
        for difference in recorded.differences(&answer, on_purpose) {
            let why = on_purpose.map_or("", |deviation| deviation.why);
            report += &format!("{name}: {difference} {why}\n");
        }
    }
    assert_eq!(report, "");
    assert_eq!(tokens.next(), None, "every token was used");
    assert_eq!(
        used.len(),
        table.len(),
        "every line of the table is about something"
    );
}

fn section(recording: &str, name: &str) -> Vec<Recorded> {
    let all = lines::<Recorded>(recording).into_iter();
    let section: Vec<_> = all.filter(|line| line.section.starts_with(name)).collect();
    assert!(!section.is_empty(), "{name}");
    section
}

#[tokio::test]
async fn an_unsecured_server_answers_as_recorded() {
    let (repo, _) = recorded_repo(0);
    let source = ("OPAL_ALL_DATA_URL", "http://127.0.0.1:17002/policy-data");
    let server = TestServer::following(&repo, &[source]).await;
    let recording = lines(fixture!("rest/server-unsecured.jsonl"));
    replay(&server, &recording, vec![], UNSECURED).await;
}

const POLICIES: (&str, &str) = (
    "OPAL_POLICY_REPO_URL",
    "https://git.example.com/acme/policies.git",
);

#[tokio::test]
async fn a_secured_server_answers_as_recorded() {
    let server = TestServer::secured(&[
        POLICIES,
        ("OPAL_POLICY_REPO_WEBHOOK_SECRET", "hook-secret"),
        ("OPAL_ALL_DATA_URL", "http://127.0.0.1:17003/policy-data"),
    ])
    .await;
    let recorded: Value = serde_json::from_str(fixture!("auth/tokens.json")).unwrap();
    let foreign = recorded["client"]["response"]["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let expired = server.token(&json!({ "ttl": -10 })).await;
    let client = server.token_of("client").await;
    let listener = server.token_of("listener").await;
    let data_source = server.token_of("datasource").await;
    let permitted = json!({ "type": "datasource", "claims": { "permitted_topics": ["users"] } });
    let permitted = server.token(&permitted).await;
    let c = || client.clone();
    let p = || permitted.clone();
    // In the order of the recording.
    let mut tokens = vec![
        expired,
        foreign,
        c(),
        c(),
        c(),
        listener,
        data_source,
        p(),
        p(),
        p(),
        c(),
    ];
    tokens.extend([c(), c(), c(), c(), c(), c()]);
    let recording = lines(fixture!("rest/server-secured.jsonl"));
    replay(&server, &recording, tokens, SECURED).await;
}

const WEBHOOKS: &str = fixture!("rest/server-webhooks-redirect-api-source.jsonl");

#[tokio::test]
async fn webhooks_of_gitlab_are_answered_as_recorded() {
    let params = json!({
        "secret_header_name": "X-Gitlab-Token", "secret_type": "token",
        "secret_parsing_regex": "(.*)", "event_header_name": "X-Gitlab-Event",
        "push_event_value": "Push Hook",
    });
    let server = TestServer::start(&[
        POLICIES,
        ("OPAL_POLICY_REPO_WEBHOOK_SECRET", "tok"),
        ("OPAL_POLICY_REPO_WEBHOOK_PARAMS", &params.to_string()),
        ("OPAL_POLICY_REPO_WEBHOOK_ENFORCE_BRANCH", "true"),
        ("OPAL_POLICY_REPO_MAIN_BRANCH", "main"),
    ])
    .await;
    let recording = section(WEBHOOKS, "gitlab");
    replay(&server, &recording, vec![], GITLAB).await;
}

#[tokio::test]
async fn webhooks_of_azure_and_bitbucket_are_answered_as_recorded() {
    let params = json!({
        "secret_header_name": "x-api-key", "secret_type": "token",
        "secret_parsing_regex": "(.*)", "event_request_key": "eventType",
        "push_event_value": "git.push",
    });
    let server = TestServer::start(&[
        POLICIES,
        ("OPAL_POLICY_REPO_WEBHOOK_SECRET", "tok"),
        ("OPAL_POLICY_REPO_WEBHOOK_PARAMS", &params.to_string()),
    ])
    .await;
    replay(&server, &section(WEBHOOKS, "azure"), vec![], &[]).await;
    replay(&server, &section(WEBHOOKS, "bitbucket"), vec![], &[]).await;
}

#[tokio::test]
async fn clients_are_sent_to_an_external_data_configuration_as_recorded() {
    let sources = r#"{"external_source_url":"http://127.0.0.1:17999/cfg?x=1"}"#;
    let server = TestServer::start(&[("OPAL_DATA_CONFIG_SOURCES", sources)]).await;
    let recording = section(WEBHOOKS, "data config redirect");
    replay(&server, &recording, vec![], REDIRECT).await;
}

#[tokio::test]
async fn filters_leave_the_recorded_bundle() {
    let (repo, _) = recorded_repo(1);
    let server = TestServer::following(
        &repo,
        &[
            ("OPAL_BUNDLE_IGNORE", "ignored/**,app/*.rego"),
            ("OPAL_FILTER_FILE_EXTENSIONS", ".rego"),
        ],
    )
    .await;
    replay(&server, &section(WEBHOOKS, "BUNDLE_IGNORE"), vec![], &[]).await;
}

/// What is recorded but not replayed, so that nobody thinks it was forgotten.
#[test]
fn only_the_bundle_server_source_is_left_out() {
    const REPLAYED: [&str; 5] = [
        "gitlab",
        "azure",
        "bitbucket",
        "data config redirect",
        "BUNDLE_IGNORE",
    ];
    let left: BTreeSet<String> = lines::<Recorded>(WEBHOOKS)
        .into_iter()
        .map(|line| line.section)
        .filter(|section| !REPLAYED.iter().any(|name| section.starts_with(name)))
        .collect();
    assert_eq!(
        left,
        BTreeSet::from(["API policy source".to_owned()]),
        "later work"
    );
}
