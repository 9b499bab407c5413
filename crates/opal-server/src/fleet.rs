//! `GET /v1/fleet`: who is connected, what each holds, and what went wrong there.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use opal_protocol::{Position, ScopeId};
use opal_pubsub::hub::ClientView;
use serde::Serialize;

use crate::error::ApiError;
use crate::extract::Bearer;
use crate::server::App;

/// The answer: the feeds' heads, and the clients by scope and id.
#[derive(Debug, Serialize)]
pub(crate) struct Fleet {
    head: BTreeMap<ScopeId, Position>,
    clients: Vec<ClientView>,
}

/// `GET /v1/fleet`: needs any token; one that lists `allowed_scopes` sees the clients of those only.
pub(crate) async fn fleet(bearer: Bearer, State(app): State<App>) -> Result<Json<Fleet>, ApiError> {
    let mut clients = app.publisher.fleet().await?;
    clients.retain(|client| bearer.may_read(&client.scope));
    clients.sort_by(|a, b| (&a.scope, &a.id).cmp(&(&b.scope, &b.id)));
    let mut head = BTreeMap::new();
    let default = ScopeId::default();
    let scopes = clients.iter().map(|client| &client.scope);
    for scope in scopes.chain([&default]) {
        if bearer.may_read(scope) && !head.contains_key(scope) {
            head.insert(scope.clone(), app.publisher.head(scope).await?.position);
        }
    }
    Ok(Json(Fleet { head, clients }))
}
