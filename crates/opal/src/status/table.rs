//! The table of `opal status`: pure.

use super::{Client, Failing, Fleet};
use crate::console::plain;

const HEADINGS: [&str; 10] = [
    "CLIENT", "HOST", "VERSION", "SCOPE", "MODE", "STATE", "POSITION", "LAG", "SINCE", "FAILING",
];
/// Longest text of a failing entry.
const LONGEST: usize = 100;
/// States, the worst first. Any other comes before the last.
const STATES: [&str; 5] = ["failing", "disconnected", "snapshot", "behind", "current"];

/// What a person wants to know about a fleet, in lines.
pub(super) fn of(fleet: &Fleet) -> String {
    let mut clients: Vec<&Client> = fleet.clients.iter().collect();
    clients.sort_by(|a, b| {
        let worse = badness(a).cmp(&badness(b));
        let lag = b.lag_seconds.total_cmp(&a.lag_seconds);
        let lag = b.lag_changes.cmp(&a.lag_changes).then(lag);
        worse.then(lag).then_with(|| a.id.cmp(&b.id))
    });
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(clients.iter().map(|client| row(client)));
    format!("{}\n{}", summary(fleet), aligned(&rows))
}

/// Smaller is worse.
fn badness(client: &Client) -> (bool, usize) {
    let place = STATES.iter().position(|state| *state == client.state);
    (!client.drift, place.unwrap_or(STATES.len() - 2))
}

fn summary(fleet: &Fleet) -> String {
    let heads = fleet.head.iter();
    let heads: Vec<String> = heads
        .map(|(scope, position)| format!("scope {} at {}", plain(scope), revision(position)))
        .collect();
    let counts: Vec<String> = STATES
        .iter()
        .map(|state| {
            let clients = fleet.clients.iter();
            (
                clients.filter(|client| client.state == *state).count(),
                state,
            )
        })
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    let total = fleet.clients.len();
    let counts = match counts.is_empty() {
        true => String::new(),
        false => format!(": {}", counts.join(", ")),
    };
    let noun = if total == 1 { "client" } else { "clients" };
    format!("{}; {total} {noun}{counts}\n", heads.join(", "))
}

fn row(client: &Client) -> [String; 10] {
    let state = match client.drift {
        true => format!("{}, drift", client.state),
        false => client.state.clone(),
    };
    let since = client.lost_since.or(client.connected_since);
    [
        &client.id,
        &client.host,
        &client.version,
        &client.scope,
        &client.mode,
        &state,
        &client.position.as_deref().map(revision).unwrap_or_default(),
        &lag(client),
        &since.map(duration).unwrap_or_default(),
        &failing(&client.failing),
    ]
    .map(|text| match text.is_empty() {
        true => "-".to_owned(),
        false => plain(text),
    })
}

/// The revision of a position, which is what people compare.
fn revision(position: &str) -> String {
    position.split(':').nth(1).unwrap_or(position).to_owned()
}

fn lag(client: &Client) -> String {
    match client.lag_changes {
        0 => String::new(),
        changes => format!("{changes} / {}", duration(client.lag_seconds)),
    }
}

fn failing(entries: &[Failing]) -> String {
    let Some(first) = entries.first() else {
        return String::new();
    };
    let mut text = format!("{}: {}", first.entry, first.error);
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    let since = match first.since.is_empty() {
        true => String::new(),
        false => format!(" (since {})", first.since),
    };
    let more = match entries.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!("{text}{since}{more}")
}

/// Seconds, in the two largest units that matter.
fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = std::time::Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

fn aligned(rows: &[[String; 10]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let line = |row: &[String; 10]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_worst_comes_first_and_says_why() {
        let fleet: Fleet = serde_json::from_value(json!({
            "head": { "default": "00000000000000ab:7:cd" },
            "clients": [
                { "id": "a", "state": "current", "position": "00000000000000ab:7:cd", "connected_since": 61.0 },
                { "id": "b", "state": "behind", "lag_changes": 2, "lag_seconds": 3.25 },
                { "id": "c", "state": "behind", "lag_changes": 9, "lag_seconds": 4000.0 },
                { "id": "d", "state": "failing", "failing": [
                    { "entry": "/users", "error": "answered\u{1b} 500", "since": "2026-01-01T00:00:00Z" },
                    { "entry": "/x", "error": "y" },
                ] },
                { "id": "e", "state": "current", "drift": true },
                { "id": "f", "state": "disconnected", "lost_since": 12.0 },
            ],
        }))
        .unwrap();
        let text = of(&fleet);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "scope default at 7; 6 clients: 1 failing, 1 disconnected, 2 behind, 2 current"
        );
        let ids: String = lines[3..].iter().map(|line| &line[..1]).collect();
        assert_eq!(ids, "edfcba");
        assert!(
            lines[4].ends_with("/users: answered? 500 (since 2026-01-01T00:00:00Z) and 1 more")
        );
        assert!(
            lines[6].contains("9 / 1h06m") && lines[7].contains("2 / 3.2s"),
            "{text}"
        );
        assert!(lines[8].contains("1m01s"), "{text}");
    }
}
