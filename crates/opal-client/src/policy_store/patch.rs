//! JSON Patch (RFC 6902) for engines that only know `add`, `remove` and `replace`.
//!
//! Paths are read as OPA reads them: percent-escapes are decoded before those of JSON pointers,
//! and both `""` and `/` name the patched document itself.

use json_patch::PatchOperation as Edit;
use opal_protocol::{DataPath, PatchOperation};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::StoreError;

/// A patch that was read and is well-formed.
#[derive(Debug)]
pub(super) struct Patch {
    /// What the operations' paths are relative to.
    target: DataPath,
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Operation {
    kind: Kind,
    path: DataPath,
}

#[derive(Debug)]
enum Kind {
    Add { json: String },
    Replace { json: String },
    Remove,
    Test { json: String },
    Move { from: DataPath },
    Copy { from: DataPath },
}

/// An operation that every engine knows. Values are JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PlainOperation {
    Add { path: DataPath, json: String },
    Replace { path: DataPath, json: String },
    Remove { path: DataPath },
}

impl Patch {
    /// Reads the operations of a patch for `target`.
    ///
    /// # Errors
    ///
    /// If an operation is unknown or lacks what it needs.
    pub(super) fn parse(
        target: DataPath,
        operations: &[PatchOperation],
    ) -> Result<Self, StoreError> {
        let parsed = operations.iter().enumerate().map(|(at, operation)| {
            Operation::parse(operation).map_err(|problem| {
                let PatchOperation { op, path, .. } = operation;
                failed(&target, at, &format!("`{op}` `{path}`"), &problem)
            })
        });
        let operations = parsed.collect::<Result<_, _>>()?;
        Ok(Self { target, operations })
    }

    /// The operations, if all of them are of the kinds that every engine knows.
    pub(super) fn plain(&self) -> Option<Vec<PlainOperation>> {
        let plain = self.operations.iter().map(|operation| {
            let path = operation.path.clone();
            match &operation.kind {
                Kind::Add { json } => Some(PlainOperation::Add {
                    path,
                    json: json.clone(),
                }),
                Kind::Replace { json } => Some(PlainOperation::Replace {
                    path,
                    json: json.clone(),
                }),
                Kind::Remove => Some(PlainOperation::Remove { path }),
                Kind::Test { .. } | Kind::Move { .. } | Kind::Copy { .. } => None,
            }
        });
        plain.collect()
    }

    /// The same patch in plain operations, given the document that it will be applied to.
    ///
    /// # Errors
    ///
    /// If the patch does not apply to `document`, failing tests included.
    pub(super) fn resolve(&self, mut document: Value) -> Result<Vec<PlainOperation>, StoreError> {
        let mut plain = Vec::new();
        for (at, operation) in self.operations.iter().enumerate() {
            let resolved = operation.resolve(&document).and_then(|steps| {
                for step in &steps {
                    step.apply(&mut document)?;
                }
                Ok(steps)
            });
            let resolved = resolved
                .map_err(|problem| failed(&self.target, at, &operation.to_string(), &problem))?;
            plain.extend(resolved);
        }
        Ok(plain)
    }

    /// The document after the patch.
    pub(super) fn apply(&self, mut document: Value) -> Result<Value, StoreError> {
        for step in self.resolve(document.clone())? {
            step.apply(&mut document)
                .map_err(|problem| self.fails(problem))?;
        }
        Ok(document)
    }

    /// The error that says that the whole patch does not apply.
    pub(super) fn fails(&self, problem: impl Into<String>) -> StoreError {
        StoreError::PatchFailed {
            path: self.target.clone(),
            problem: problem.into(),
        }
    }
}

impl Operation {
    fn parse(operation: &PatchOperation) -> Result<Self, String> {
        let from = || match &operation.from {
            Some(from) => parse_path(from),
            None => Err("`from` is missing".to_owned()),
        };
        let json = || match &operation.value {
            Some(value) => value.text().to_owned(),
            None => "null".to_owned(),
        };
        let kind = match operation.op.as_str() {
            "add" => Kind::Add { json: json() },
            "replace" => Kind::Replace { json: json() },
            "remove" => Kind::Remove,
            "test" => Kind::Test { json: json() },
            "move" => Kind::Move { from: from()? },
            "copy" => Kind::Copy { from: from()? },
            _ => return Err("unknown operation".to_owned()),
        };
        let path = parse_path(&operation.path)?;
        Ok(Self { kind, path })
    }

    /// This operation in plain ones, for `document` as it is now.
    fn resolve(&self, document: &Value) -> Result<Vec<PlainOperation>, String> {
        let path = self.path.clone();
        let add = |json: String| PlainOperation::Add {
            path: path.clone(),
            json,
        };
        Ok(match &self.kind {
            Kind::Add { json } => vec![add(json.clone())],
            Kind::Replace { json } => vec![PlainOperation::Replace {
                path,
                json: json.clone(),
            }],
            Kind::Remove => vec![PlainOperation::Remove { path }],
            Kind::Test { json } => {
                if *value_at(document, &path)? != parse_value(json)? {
                    return Err("the value there is another".to_owned());
                }
                Vec::new()
            }
            Kind::Copy { from } => vec![add(value_at(document, from)?.to_string())],
            Kind::Move { from } if *from == path => {
                value_at(document, from)?;
                Vec::new()
            }
            Kind::Move { from } => {
                if from.contains(&path) {
                    return Err("a value cannot be moved into itself".to_owned());
                }
                let moved = value_at(document, from)?.to_string();
                let from = from.clone();
                vec![PlainOperation::Remove { path: from }, add(moved)]
            }
        })
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.kind {
            Kind::Add { .. } => "add",
            Kind::Replace { .. } => "replace",
            Kind::Remove => "remove",
            Kind::Test { .. } => "test",
            Kind::Move { .. } => "move",
            Kind::Copy { .. } => "copy",
        };
        write!(f, "`{name}` `{}`", self.path.to_pointer())
    }
}

impl PlainOperation {
    fn apply(&self, document: &mut Value) -> Result<(), String> {
        let edit = match self {
            Self::Add { path, json } => {
                json!({"op": "add", "path": path.to_pointer(), "value": parse_value(json)?})
            }
            Self::Replace { path, json } => {
                json!({"op": "replace", "path": path.to_pointer(), "value": parse_value(json)?})
            }
            Self::Remove { path } => json!({"op": "remove", "path": path.to_pointer()}),
        };
        let edit: Edit = serde_json::from_value(edit).map_err(|error| error.to_string())?;
        json_patch::patch_unsafe(document, &[edit]).map_err(|error| error.kind.to_string())
    }
}

/// As OPA reads the path of an operation.
fn parse_path(text: &str) -> Result<DataPath, String> {
    if text.is_empty() || text == "/" {
        return Ok(DataPath::root());
    }
    let below = text
        .strip_prefix('/')
        .ok_or_else(|| format!("`{text}` does not start with `/`"))?;
    let segments = below.split('/').map(|segment| {
        let decoded = percent_decode_str(segment).decode_utf8();
        let decoded = decoded.map_err(|_| format!("`{text}` is not UTF-8"))?;
        Ok(decoded.replace("~1", "/").replace("~0", "~"))
    });
    Ok(DataPath::from_segments(
        segments.collect::<Result<Vec<_>, String>>()?,
    ))
}

fn parse_value(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn value_at<'a>(document: &'a Value, path: &DataPath) -> Result<&'a Value, String> {
    let pointer = path.to_pointer();
    document
        .pointer(&pointer)
        .ok_or_else(|| format!("there is nothing at `{pointer}`"))
}

fn failed(target: &DataPath, at: usize, operation: &str, problem: &str) -> StoreError {
    StoreError::PatchFailed {
        path: target.clone(),
        problem: format!("operation {} ({operation}): {problem}", at + 1),
    }
}

#[cfg(test)]
mod tests;
