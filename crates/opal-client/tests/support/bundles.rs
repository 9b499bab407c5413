//! Bundles and changes in a line.

use std::sync::Arc;

use opal_client::policy_store::StoreChange;
use opal_protocol::{DataModule, DataPath, DeletedFiles, Document, PolicyBundle, PolicyModule};

/// A complete bundle of files; those named `data.json` are data.
pub(crate) fn complete(files: &[(&str, &str)]) -> PolicyBundle {
    let is_data = |path: &str| path == "data.json" || path.ends_with("/data.json");
    let directory = |path: &str| match path.rsplit_once('/') {
        Some((directory, _)) => directory.into(),
        None => ".".into(),
    };
    let (data, policies): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| is_data(path));
    PolicyBundle {
        manifest: files.iter().map(|(path, _)| (*path).into()).collect(),
        hash: serde_json::from_str("\"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1\"").unwrap(),
        old_hash: None,
        data_modules: data
            .into_iter()
            .map(|(path, text)| DataModule {
                path: directory(path),
                data: (*text).to_owned(),
            })
            .collect(),
        policy_modules: policies
            .into_iter()
            .map(|(path, text)| PolicyModule {
                path: (*path).into(),
                package_name: String::new(),
                rego: (*text).to_owned(),
            })
            .collect(),
        deleted_files: None,
    }
}

/// A diff that brings `files` and removes the data of directories and policy files.
pub(crate) fn diff(files: &[(&str, &str)], data: &[&str], policies: &[&str]) -> PolicyBundle {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).into()).collect();
    PolicyBundle {
        old_hash: serde_json::from_str("\"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1\"").unwrap(),
        hash: serde_json::from_str("\"c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2\"").unwrap(),
        deleted_files: Some(DeletedFiles {
            data_modules: paths(data),
            policy_modules: paths(policies),
        }),
        ..complete(files)
    }
}

pub(crate) fn bundle(bundle: PolicyBundle) -> StoreChange {
    StoreChange::Bundle(Arc::new(bundle))
}

pub(crate) fn put(path: &str, json: &str) -> StoreChange {
    StoreChange::Put {
        path: DataPath::parse(path).unwrap(),
        document: Document::parse(json).unwrap(),
    }
}

pub(crate) fn patch(path: &str, operations: &str) -> StoreChange {
    StoreChange::Patch {
        path: DataPath::parse(path).unwrap(),
        operations: serde_json::from_str(operations).unwrap(),
    }
}

pub(crate) fn delete(path: &str) -> StoreChange {
    StoreChange::Delete {
        path: DataPath::parse(path).unwrap(),
    }
}
