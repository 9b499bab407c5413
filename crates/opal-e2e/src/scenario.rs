//! What users do, and what they must see.

use anyhow::ensure;
use opal_testing::fake_data_source::Reply;
use opal_testing::git_repo::Commit;
use opal_testing::wait;
use serde_json::{Value, json};

use crate::deployment::{Deployment, base_data};

/// The package prefix of every policy here, so that what rules define can be told from data.
pub const RULES: &str = "rules";

const GRANTS: &str = "package rules.lib\n\
    grants = {\"admin\": [\"read\", \"write\"], \"viewer\": [\"read\"]}\n";
const WIDER_GRANTS: &str = "package rules.lib\n\
    grants = {\"admin\": [\"read\", \"write\"], \"viewer\": [\"read\", \"write\"]}\n";

/// In the older syntax, and dependent on another module and on data of the repository.
const ALLOW: &str = "package rules.app\n\n\
    default allow = false\n\n\
    allow {\n    role := data.app.roles[input.user]\n    \
    data.rules.lib.grants[role][_] == input.action\n}\n";

/// In the newer syntax, and dependent on data that only updates bring.
const ACTIVE: &str = "package rules.modern\n\n\
    import rego.v1\n\n\
    default active := false\n\n\
    active if data.users[input.user].active == true\n";

/// What the first commit's `data.json` says.
pub fn first_roles() -> Value {
    json!({"alice": "admin", "bob": "viewer"})
}

/// All data that a client holds after it started.
pub fn first_data() -> Value {
    json!({"app": {"roles": first_roles()}, "base": base_data()})
}

/// Adds what every deployment begins with.
pub fn first_commit(commit: Commit<'_>) -> anyhow::Result<Commit<'_>> {
    commit
        .file("app/allow.rego", ALLOW)?
        .file("app/roles/data.json", &first_roles().to_string())?
        .file("lib/grants.rego", GRANTS)?
        .file("modern/active.rego", ACTIVE)?
        .file("README.md", "Not a policy.\n")
}

/// The question that most scenarios ask.
pub fn asks(user: &str, action: &str) -> Value {
    json!({"user": user, "action": action})
}

/// Both roads, one after the other, and the state at the end.
pub async fn both_roads(deployment: &mut Deployment) -> anyhow::Result<()> {
    commits_change_decisions(deployment).await?;
    data_updates_change_decisions(deployment).await
}

/// A commit that adds, changes, renames or deletes reaches the engine.
pub async fn commits_change_decisions(deployment: &mut Deployment) -> anyhow::Result<()> {
    let always = json!(true);
    let never = json!(false);
    deployment
        .wait_for_decision("rules/app/allow", &asks("alice", "write"), &always)
        .await?;
    deployment
        .wait_for_decision("rules/app/allow", &asks("bob", "write"), &never)
        .await?;
    deployment.wait_for_state(&first_data()).await?;

    let answer = "package rules.extra\nanswer = 42\n";
    deployment
        .commit(|commit| commit.file("extra/answer.rego", answer))
        .await?;
    deployment
        .wait_for_decision("rules/extra/answer", &json!({}), &json!(42))
        .await?;

    deployment
        .commit(|commit| commit.file("lib/grants.rego", WIDER_GRANTS))
        .await?;
    deployment
        .wait_for_decision("rules/app/allow", &asks("bob", "write"), &always)
        .await?;

    let (old, new) = ("extra/answer.rego", "moved/answer.rego");
    deployment
        .commit(|commit| Ok(commit.rename(old, new)))
        .await?;
    deployment.wait_for_state(&first_data()).await?;
    deployment
        .wait_for_decision("rules/extra/answer", &json!({}), &json!(42))
        .await?;

    deployment.commit(|commit| Ok(commit.remove(new))).await?;
    deployment.wait_for_state(&first_data()).await?;
    deployment
        .wait_for_decision("rules/extra/answer", &json!({}), &Value::Null)
        .await?;

    let (old, new) = ("app/roles/data.json", "staff/roles/data.json");
    let reads_new = ALLOW.replace("data.app.roles", "data.staff.roles");
    deployment
        .commit(|commit| commit.rename(old, new).file("app/allow.rego", &reads_new))
        .await?;
    let moved = json!({"staff": {"roles": first_roles()}, "base": base_data()});
    deployment.wait_for_state(&moved).await?;
    deployment
        .wait_for_decision("rules/app/allow", &asks("alice", "write"), &always)
        .await?;

    deployment.commit(|commit| Ok(commit.remove(new))).await?;
    deployment
        .wait_for_state(&json!({"base": base_data()}))
        .await?;
    deployment
        .wait_for_decision("rules/app/allow", &asks("alice", "write"), &never)
        .await?;

    deployment.commit(first_commit).await?;
    deployment.wait_for_state(&first_data()).await?;
    deployment
        .wait_for_decision("rules/app/allow", &asks("bob", "write"), &never)
        .await
}

/// An update reaches the engine: PUT and PATCH, inline and by URL, and it is reported.
pub async fn data_updates_change_decisions(deployment: &Deployment) -> anyhow::Result<()> {
    let active = |user: &str| json!({"user": user});
    let path = "rules/modern/active";
    deployment
        .wait_for_decision(path, &active("alice"), &json!(false))
        .await?;

    let users = json!({"alice": {"active": true}, "bob": {"active": false}});
    deployment
        .publish(&json!({"id": "put-inline", "reason": "test", "entries": [
            {"url": "", "topics": ["policy_data"], "dst_path": "/users", "data": users},
        ]}))
        .await?;
    deployment
        .wait_for_decision(path, &active("alice"), &json!(true))
        .await?;
    deployment
        .wait_for_decision(path, &active("bob"), &json!(false))
        .await?;
    saved(deployment, "put-inline").await?;

    deployment
        .publish(&json!({"id": "patch-inline", "entries": [
            {"url": "", "topics": ["policy_data"], "dst_path": "/users", "save_method": "PATCH", "data": [
                {"op": "add", "path": "/carol", "value": {"active": true}},
                {"op": "replace", "path": "/bob/active", "value": true},
                {"op": "remove", "path": "/alice"},
            ]},
        ]}))
        .await?;
    deployment
        .wait_for_decision(path, &active("carol"), &json!(true))
        .await?;
    deployment
        .wait_for_decision(path, &active("bob"), &json!(true))
        .await?;
    deployment
        .wait_for_decision(path, &active("alice"), &json!(false))
        .await?;
    saved(deployment, "patch-inline").await?;

    let tenant = json!({"plan": "large", "seats": 3, "of": ["a", "b"]});
    let reply = Reply::json(&tenant);
    deployment.source.set(
        "/tenants/7",
        reply.needing("x-tenant-key", "key of tenant 7"),
    );
    deployment
        .publish(&json!({"id": "by-url", "entries": [
            {
                "url": deployment.source.url("/tenants/7"),
                "config": {"headers": {"x-tenant-key": "key of tenant 7"}},
                "topics": ["policy_data"],
                "dst_path": "/tenants/t7",
            },
            {"url": "", "topics": ["policy_data"], "dst_path": "/lists/colors", "data": ["red", "green"]},
            {"url": "", "topics": ["of_others"], "dst_path": "/others", "data": {"not": "for us"}},
        ]}))
        .await?;
    deployment.wait_for_data("/tenants/t7", &tenant).await?;
    saved(deployment, "by-url").await?;

    let mut expected = first_data();
    expected["users"] = json!({"bob": {"active": true}, "carol": {"active": true}});
    expected["tenants"] = json!({"t7": tenant});
    expected["lists"] = json!({"colors": ["red", "green"]});
    deployment.wait_for_state(&expected).await?;

    let refused = deployment
        .try_publish(&json!({"entries": []}), &deployment.client_token)
        .await?;
    ensure!(
        refused.status == 401,
        "a client published and got {}",
        refused.status
    );
    Ok(())
}

/// Waits for the client's report that every entry of update `id` was fetched and saved.
async fn saved(deployment: &Deployment, id: &str) -> anyhow::Result<()> {
    let what = format!("the report of `{id}`");
    let is_it = |report: &Value| report["update_id"] == id;
    let report = deployment
        .source
        .wait_for_json("/report", &what, is_it)
        .await?;
    let entries = report["reports"].as_array().cloned().unwrap_or_default();
    ensure!(!entries.is_empty(), "no entry was reported: {report}");
    for entry in &entries {
        let done = entry["fetched"] == true && entry["saved"] == true;
        ensure!(
            done && entry["hash"].is_string(),
            "reported as failed: {entry}"
        );
    }
    Ok(())
}

/// What a commit and an update must still do after something was taken away and put back.
pub async fn both_roads_still_work(deployment: &mut Deployment, mark: u32) -> anyhow::Result<()> {
    let rule = format!("package rules.mark\nmark = {mark}\n");
    deployment
        .commit(|commit| commit.file("mark/mark.rego", &rule))
        .await?;
    deployment
        .wait_for_decision("rules/mark/mark", &json!({}), &json!(mark))
        .await?;

    deployment
        .source
        .set("/mark", Reply::json(&json!({"n": mark})));
    let update = json!({"entries": [
        {"url": deployment.source.url("/mark"), "topics": ["policy_data"], "dst_path": "/mark"},
    ]});
    // A client that is just reconnecting misses what is published; released ones never hear of it.
    wait::until(format!("mark {mark} to arrive"), async || {
        deployment.publish(&update).await?;
        let limit = std::time::Duration::from_secs(3);
        wait::until_within(limit, "the update", async || {
            let held = deployment.data().await?;
            ensure!(held["mark"] == json!({"n": mark}), "it is {}", held["mark"]);
            Ok(())
        })
        .await
    })
    .await?;
    let mut expected = first_data();
    expected["mark"] = json!({"n": mark});
    deployment.wait_for_state(&expected).await
}
