//! Random updates: overlapping paths, every method, several topics.

use opal_protocol::{DataSourceEntry, DataUpdate, Document, Topic, UpdateCallback};
use opal_pubsub::{ChangeDraft, Payload};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::sources::Sources;

/// Where inline documents go, and where those with a URL go: a patch of what a source has is a matter
/// of that source, so the two are kept apart.
const INLINE_TOPS: [&str; 2] = ["d0", "d1"];
const URL_TOPS: [&str; 2] = ["u0", "u1"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 4] = ["t0", "t1", "t0/x", "t0/y"];

/// An update of one to three entries.
pub fn draw(number: u64, sources: &mut Sources, rng: &mut impl Rng) -> ChangeDraft {
    let count = *[1, 1, 1, 2, 3].choose(rng).unwrap_or(&1);
    let entries = (0..count).map(|_| entry(number, sources, rng)).collect();
    draft(&format!("update-{number}"), entries)
}

/// A burst of patches for one document, more than a base keeps apart.
pub fn patch_of(number: u64, path: &str) -> ChangeDraft {
    let operations = json!([{"op": "add", "path": "/l/-", "value": number}]);
    draft(
        &format!("update-{number}"),
        vec![inline(path, "PATCH", &operations, &["t0"])],
    )
}

/// An update that writes over everything that there can be below the tops.
pub fn cover(number: u64, sources: &mut Sources) -> ChangeDraft {
    let mut entries = Vec::new();
    for top in INLINE_TOPS.iter().chain(&URL_TOPS) {
        let document = json!({"cover": number, "l": [], "a": {"l": []}});
        entries.push(inline(&format!("/{top}"), "PUT", &document, &TOPICS));
    }
    for entry in sources.config().entries {
        if entry.periodic_update_interval.is_none() {
            sources.published(&entry.url);
            entries.push(entry);
        }
    }
    draft(&format!("{}{number}", crate::history::COVER), entries)
}

/// An update that tells of what changed behind a URL, at every place where it was put.
pub fn republish(number: u64, url: &str, sources: &mut Sources) -> ChangeDraft {
    sources.published(url);
    let entries = places_of(url)
        .into_iter()
        .map(|(path, topics)| DataSourceEntry {
            dst_path: path,
            topics,
            ..DataSourceEntry::from_url(url)
        });
    draft(&format!("update-{number}"), entries.collect())
}

fn draft(id: &str, entries: Vec<DataSourceEntry>) -> ChangeDraft {
    let mut update = DataUpdate {
        id: Some(id.into()),
        entries,
        reason: None,
        callback: UpdateCallback::default(),
    };
    // As the server does with what is posted.
    let topics = update.expand_topics();
    let text = serde_json::to_string(&update).expect("an update prints as JSON");
    ChangeDraft {
        id: id.into(),
        topics: topics.into(),
        payload: Payload::Data(Document::parse(text).expect("an update prints as JSON")),
    }
}

/// The places of a URL's document. Always the same, so that it can be published again.
fn places_of(url: &str) -> Vec<(String, Vec<Topic>)> {
    let path = url.strip_prefix("sim:/").unwrap_or(url);
    let topics = match url {
        "sim://s1" | "sim://u1" => vec!["t1".into()],
        "sim://u0/a" => vec!["t0".into(), "t1".into()],
        _ => vec!["t0".into()],
    };
    vec![(path.to_owned(), topics)]
}

const URLS: [&str; 6] = [
    "sim://u0",
    "sim://u0/a",
    "sim://u1",
    "sim://u1/b/c",
    "sim://s0",
    "sim://s1",
];

fn entry(number: u64, sources: &mut Sources, rng: &mut impl Rng) -> DataSourceEntry {
    match rng.random_range(0..100) {
        0..20 => {
            let url = URLS.choose(rng).copied().unwrap_or(URLS[0]);
            if rng.random_bool(0.5) {
                sources.change(url);
            }
            sources.published(url);
            let (path, topics) = places_of(url).remove(0);
            DataSourceEntry {
                dst_path: path,
                topics,
                ..DataSourceEntry::from_url(url)
            }
        }
        20..30 => {
            let tops = ["u0", "u1", "s0", "s1"];
            let path = path(&tops, 1..=2, rng);
            // A source's place is for those whom the source is for.
            let topics = match path.get(1..3) {
                Some("s0") => vec!["t0"],
                Some("s1") => vec!["t1"],
                _ => topics(rng),
            };
            inline(&path, "PUT", &document(number, rng), &topics)
        }
        30..60 => {
            let path = path(&INLINE_TOPS, 1..=3, rng);
            inline(&path, "PUT", &document(number, rng), &topics(rng))
        }
        60..90 => {
            let path = path(&INLINE_TOPS, 1..=2, rng);
            let operations = operations(number, rng);
            inline(&path, "PATCH", &operations, &topics(rng))
        }
        _ => removal(rng),
    }
}

/// As the server rewrites a DELETE.
fn removal(rng: &mut impl Rng) -> DataSourceEntry {
    let path = path(&INLINE_TOPS, 2..=3, rng);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let operations = json!([{"op": "remove", "path": format!("/{name}")}]);
    inline(parent, "PATCH", &operations, &topics(rng))
}

fn inline(path: &str, method: &str, data: &Value, topics: &[&str]) -> DataSourceEntry {
    DataSourceEntry {
        dst_path: path.to_owned(),
        save_method: method.to_owned(),
        data: Some(Document::from(data)),
        topics: topics.iter().copied().map(Topic::from).collect(),
        ..DataSourceEntry::from_url("")
    }
}

fn topics(rng: &mut impl Rng) -> Vec<&'static str> {
    let count = *[1, 1, 1, 2].choose(rng).unwrap_or(&1);
    TOPICS.choose_multiple(rng, count).copied().collect()
}

fn path(tops: &[&str], depth: std::ops::RangeInclusive<usize>, rng: &mut impl Rng) -> String {
    let mut path = format!("/{}", tops.choose(rng).unwrap_or(&"d0"));
    for _ in 1..rng.random_range(depth) {
        path.push('/');
        path.push_str(NAMES.choose(rng).unwrap_or(&"a"));
    }
    path
}

fn document(number: u64, rng: &mut impl Rng) -> Value {
    match rng.random_range(0..10) {
        0 => json!(number),
        1 => json!([number, null, {"x": null}]),
        2..5 => json!({"n": number, "l": [], "a": {"n": number, "l": [number]}, "null": null}),
        5..7 => json!({"a": {"b": {"n": number, "l": []}}, "b": null}),
        _ => json!({"n": number, "l": [number], "b": {"l": [], "c": number}}),
    }
}

fn operations(number: u64, rng: &mut impl Rng) -> Value {
    let count = *[1, 1, 2].choose(rng).unwrap_or(&1);
    let operations = (0..count).map(|_| match rng.random_range(0..8) {
        0 => json!({"op": "add", "path": "/a", "value": {"patched": number, "l": []}}),
        1 => json!({"op": "add", "path": "/b", "value": null}),
        2 => json!({"op": "replace", "path": "/n", "value": number}),
        3 => json!({"op": "remove", "path": "/a"}),
        4 => json!({"op": "add", "path": "/a/l/-", "value": number}),
        5 => json!({"op": "copy", "from": "/n", "path": "/c"}),
        _ => json!({"op": "add", "path": "/l/-", "value": number}),
    });
    Value::Array(operations.collect())
}
