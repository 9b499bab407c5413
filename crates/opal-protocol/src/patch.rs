//! JSON Patch (RFC 6902) for engines that only know `add`, `remove` and `replace`.
//!
//! Paths are read as OPA reads them: percent-escapes are decoded before those of JSON pointers,
//! and both `""` and `/` name the patched document itself.

use json_patch::PatchOperation as Edit;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::data::{Document, PatchOperation};
use crate::json_text::depth;
use crate::path::DataPath;

/// So many bytes of JSON text the copies and moves of one patch may write: a few of them could double
/// a document again and again.
const MOST_COPIED: usize = 32 * 1024 * 1024;

/// A patch makes nothing deeper than this below the root of all data: deeper JSON is not read back.
const DEEPEST: usize = 127;

/// A patch that was read and is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// What the operations' paths are relative to.
    target: DataPath,
    operations: Vec<Operation>,
}

/// One operation of a patch. Values are JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What it does.
    pub kind: OperationKind,
    /// Where, below the patch's target.
    pub path: DataPath,
}

/// What an operation does at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationKind {
    /// Makes or replaces a member, or inserts an item.
    Add {
        /// The value.
        json: String,
    },
    /// Replaces a value that is there.
    Replace {
        /// The value.
        json: String,
    },
    /// Removes a value that is there.
    Remove,
    /// Fails the patch if another value is there.
    Test {
        /// The value.
        json: String,
    },
    /// Removes the value at `from` and adds it here.
    Move {
        /// Where it comes from, below the patch's target.
        from: DataPath,
    },
    /// Adds the value at `from` here.
    Copy {
        /// Where it comes from, below the patch's target.
        from: DataPath,
    },
}

/// An operation that every engine knows. Values are JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainOperation {
    /// Makes or replaces a member, or inserts an item.
    Add {
        /// Where, below the patch's target.
        path: DataPath,
        /// The value.
        json: String,
    },
    /// Replaces a value that is there.
    Replace {
        /// Where, below the patch's target.
        path: DataPath,
        /// The value.
        json: String,
    },
    /// Removes a value that is there.
    Remove {
        /// Where, below the patch's target.
        path: DataPath,
    },
}

/// A patch is malformed, or cannot be applied to what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the patch for `{path}` does not apply: {problem}")]
pub struct PatchError {
    /// Where the patch was to be applied.
    pub path: DataPath,
    /// The operation and what is wrong with it.
    pub problem: String,
}

/// How much text copies and moves may write, over one patch or many.
#[derive(Debug, Clone, Copy)]
pub struct CopyBudget {
    left: usize,
    is_exceeded: bool,
}

/// What [`Patch::apply`] allows one patch.
impl Default for CopyBudget {
    fn default() -> Self {
        Self::new(MOST_COPIED)
    }
}

impl CopyBudget {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            left: bytes,
            is_exceeded: false,
        }
    }

    /// Whether a patch did not apply only because of this budget.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    fn spend(&mut self, bytes: usize) -> Result<(), String> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.is_exceeded = true;
                Err("the patch copies and moves more than it may".to_owned())
            }
        }
    }
}

impl Patch {
    /// Reads the operations of a patch for `target`.
    ///
    /// # Errors
    ///
    /// If an operation is unknown, lacks what it needs, or writes deeper than JSON is read.
    pub fn parse(target: DataPath, operations: &[PatchOperation]) -> Result<Self, PatchError> {
        let parsed = operations.iter().enumerate().map(|(at, operation)| {
            let parsed = Operation::parse(operation).and_then(|parsed| {
                parsed.check_depth(&target)?;
                Ok(parsed)
            });
            parsed.map_err(|problem| {
                let PatchOperation { op, path, .. } = operation;
                failed(&target, at, &format!("`{op}` `{path}`"), &problem)
            })
        });
        let operations = parsed.collect::<Result<_, _>>()?;
        Ok(Self { target, operations })
    }

    /// A patch of these operations, whose paths are relative to `target`.
    pub fn new(target: DataPath, operations: Vec<Operation>) -> Self {
        Self { target, operations }
    }

    /// What the operations' paths are relative to.
    pub fn target(&self) -> &DataPath {
        &self.target
    }

    /// The operations, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations, if all of them are of the kinds that every engine knows.
    pub fn plain(&self) -> Option<Vec<PlainOperation>> {
        let plain = self.operations.iter().map(|operation| {
            let path = operation.path.clone();
            match &operation.kind {
                OperationKind::Add { json } => Some(PlainOperation::Add {
                    path,
                    json: json.clone(),
                }),
                OperationKind::Replace { json } => Some(PlainOperation::Replace {
                    path,
                    json: json.clone(),
                }),
                OperationKind::Remove => Some(PlainOperation::Remove { path }),
                OperationKind::Test { .. }
                | OperationKind::Move { .. }
                | OperationKind::Copy { .. } => None,
            }
        });
        plain.collect()
    }

    /// The same patch in plain operations, given the document that it will be applied to.
    ///
    /// # Errors
    ///
    /// If the patch does not apply to `document`, failing tests included, or if it copies and moves
    /// more than 32 MiB.
    pub fn resolve(&self, mut document: Value) -> Result<Vec<PlainOperation>, PatchError> {
        self.work_on(&mut document, &mut CopyBudget::new(MOST_COPIED))
    }

    /// The document after the patch. Fails where [`resolve`](Self::resolve) does.
    pub fn apply(&self, mut document: Value) -> Result<Value, PatchError> {
        self.work_on(&mut document, &mut CopyBudget::new(MOST_COPIED))?;
        Ok(document)
    }

    /// Applies the patch to `document` where it is; after an error the document is as it was.
    ///
    /// # Errors
    ///
    /// If the patch does not apply to `document`, failing tests included, or if it copies and moves
    /// more than `budget` has left.
    pub fn apply_to(
        &self,
        document: &mut Value,
        budget: &mut CopyBudget,
    ) -> Result<(), PatchError> {
        if self.copies() {
            let mut patched = document.clone();
            self.work_on(&mut patched, budget)?;
            *document = patched;
            return Ok(());
        }
        let edits = self.operations.iter().filter_map(Operation::edit);
        let edits: Vec<Edit> = edits
            .collect::<Result<_, _>>()
            .map_err(|problem| self.fails(problem))?;
        json_patch::patch(document, &edits).map_err(|error| self.fails(error.kind.to_string()))
    }

    /// Whether an operation takes a value from the document.
    pub fn copies(&self) -> bool {
        self.operations.iter().any(|operation| {
            matches!(
                operation.kind,
                OperationKind::Move { .. } | OperationKind::Copy { .. }
            )
        })
    }

    /// Applies the operations one by one, and says which plain ones those were. After an error any
    /// part of them is done.
    fn work_on(
        &self,
        document: &mut Value,
        budget: &mut CopyBudget,
    ) -> Result<Vec<PlainOperation>, PatchError> {
        let mut plain = Vec::new();
        for (at, operation) in self.operations.iter().enumerate() {
            let steps = operation.steps(&self.target, document, budget);
            let done = steps.and_then(|steps| {
                for step in &steps {
                    step.apply(document)?;
                }
                Ok(steps)
            });
            let done =
                done.map_err(|problem| failed(&self.target, at, &operation.to_string(), &problem))?;
            plain.extend(done);
        }
        Ok(plain)
    }

    /// The error that says that the whole patch does not apply.
    pub fn fails(&self, problem: impl Into<String>) -> PatchError {
        PatchError {
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
            "add" => OperationKind::Add { json: json() },
            "replace" => OperationKind::Replace { json: json() },
            "remove" => OperationKind::Remove,
            "test" => OperationKind::Test { json: json() },
            "move" => OperationKind::Move { from: from()? },
            "copy" => OperationKind::Copy { from: from()? },
            _ => return Err("unknown operation".to_owned()),
        };
        let path = parse_path(&operation.path)?;
        Ok(Self { kind, path })
    }

    /// The operation for a whole document at once, unless it takes a value from there.
    fn edit(&self) -> Option<Result<Edit, String>> {
        let json = match &self.kind {
            OperationKind::Add { json }
            | OperationKind::Replace { json }
            | OperationKind::Test { json } => Some(json.as_str()),
            OperationKind::Remove => None,
            OperationKind::Move { .. } | OperationKind::Copy { .. } => return None,
        };
        Some(edit(self.kind.name(), &self.path, json))
    }

    /// Refuses to write a value too deep for anyone to read back.
    fn check_depth(&self, target: &DataPath) -> Result<(), String> {
        match &self.kind {
            OperationKind::Add { json } | OperationKind::Replace { json } => {
                check_depth(target, &self.path, json)
            }
            _ => Ok(()),
        }
    }

    /// This operation in plain ones, for `document` as it is now.
    fn steps(
        &self,
        target: &DataPath,
        document: &Value,
        budget: &mut CopyBudget,
    ) -> Result<Vec<PlainOperation>, String> {
        let path = self.path.clone();
        let mut taken = |from: &DataPath| {
            let json = value_at(document, from)?.to_string();
            budget.spend(json.len())?;
            check_depth(target, &self.path, &json)?;
            Ok::<_, String>(json)
        };
        let add = |json: String| PlainOperation::Add {
            path: path.clone(),
            json,
        };
        Ok(match &self.kind {
            OperationKind::Add { json } => vec![add(json.clone())],
            OperationKind::Replace { json } => vec![PlainOperation::Replace {
                path,
                json: json.clone(),
            }],
            OperationKind::Remove => vec![PlainOperation::Remove { path }],
            OperationKind::Test { json } => {
                if *value_at(document, &path)? != parse_value(json)? {
                    return Err("the value there is another".to_owned());
                }
                Vec::new()
            }
            OperationKind::Copy { from } => vec![add(taken(from)?)],
            OperationKind::Move { from } if *from == path => {
                value_at(document, from)?;
                Vec::new()
            }
            OperationKind::Move { from } => {
                if from.contains(&path) {
                    return Err("a value cannot be moved into itself".to_owned());
                }
                let moved = taken(from)?;
                let from = from.clone();
                vec![PlainOperation::Remove { path: from }, add(moved)]
            }
        })
    }
}

impl Operation {
    /// This operation as it travels.
    pub fn to_wire(&self) -> PatchOperation {
        let (value, from) = match &self.kind {
            OperationKind::Add { json }
            | OperationKind::Replace { json }
            | OperationKind::Test { json } => (Document::parse(json.as_str()).ok(), None),
            OperationKind::Remove => (None, None),
            OperationKind::Move { from } | OperationKind::Copy { from } => {
                (None, Some(wire_path(from)))
            }
        };
        PatchOperation {
            op: self.kind.name().to_owned(),
            path: wire_path(&self.path),
            value,
            from,
        }
    }
}

impl OperationKind {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Replace { .. } => "replace",
            Self::Remove => "remove",
            Self::Test { .. } => "test",
            Self::Move { .. } => "move",
            Self::Copy { .. } => "copy",
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.kind.name();
        write!(f, "`{name}` `{}`", self.path.to_pointer())
    }
}

impl PlainOperation {
    fn apply(&self, document: &mut Value) -> Result<(), String> {
        json_patch::patch_unsafe(document, &[self.edit()?]).map_err(|error| error.kind.to_string())
    }

    fn edit(&self) -> Result<Edit, String> {
        match self {
            Self::Add { path, json } => edit("add", path, Some(json)),
            Self::Replace { path, json } => edit("replace", path, Some(json)),
            Self::Remove { path } => edit("remove", path, None),
        }
    }
}

fn edit(name: &str, path: &DataPath, json: Option<&str>) -> Result<Edit, String> {
    let value = json.map(parse_value).transpose()?;
    let edit = json!({"op": name, "path": path.to_pointer(), "value": value});
    serde_json::from_value(edit).map_err(|error| error.to_string())
}

/// A path that [`parse_path`] reads back.
fn wire_path(path: &DataPath) -> String {
    path.to_pointer().replace('%', "%25")
}

fn check_depth(target: &DataPath, path: &DataPath, json: &str) -> Result<(), String> {
    match target.segments().len() + path.segments().len() + depth(json) > DEEPEST {
        true => Err("the value would be nested too deep".to_owned()),
        false => Ok(()),
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

fn failed(target: &DataPath, at: usize, operation: &str, problem: &str) -> PatchError {
    PatchError {
        path: target.clone(),
        problem: format!("operation {} ({operation}): {problem}", at + 1),
    }
}

#[cfg(test)]
mod tests;
