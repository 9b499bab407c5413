//! Edits of the base data, in place, with the meaning and the messages of OPA's store.
//!
//! A value is shared level by level with the snapshots that queries read; an edit copies the levels
//! it passes through and nothing else.

use regorus::Value;
use regorus::value::Object;

use crate::EngineError;
use crate::path::{self, MAX_DEPTH};

/// What happens at the end of a path.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Add(Value),
    Replace(Value),
    Remove,
}

/// The document at `path`, if there is one.
pub(crate) fn read<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Object(members) => members.get(&Value::from(segment.as_str())),
        Value::Array(elements) => elements.get(index_of(segment)?),
        _ => None,
    })
}

/// As OPA's `PUT /v1/data`: makes the objects that lead to `path`, then adds.
pub(crate) fn put(root: &mut Value, path: &[String], document: Value) -> Result<(), EngineError> {
    if let Some((_, parents)) = path.split_last()
        && read(root, path).is_none()
    {
        make_objects(root, parents)?;
    }
    apply(root, path, Operation::Add(document))
}

/// Removes the document at `path`.
pub(crate) fn delete(root: &mut Value, path: &[String]) -> Result<(), EngineError> {
    if path.is_empty() {
        *root = Value::new_object();
        return Ok(());
    }
    apply(root, path, Operation::Remove)
}

/// Applies one operation of a patch.
pub(crate) fn apply(
    root: &mut Value,
    path: &[String],
    operation: Operation,
) -> Result<(), EngineError> {
    let Some((last, parents)) = path.split_last() else {
        return replace_root(root, operation);
    };
    if path.len() > MAX_DEPTH {
        return Err(EngineError::InvalidPatch(format!(
            "path has more than {MAX_DEPTH} segments"
        )));
    }
    let mut parent = root;
    for segment in parents {
        parent = child(parent, segment, path)?;
    }
    if parent.as_object().is_ok() {
        edit_object(parent, last, operation)
    } else if parent.as_array().is_ok() {
        edit_array(parent, last, operation, path)
    } else {
        Err(not_found())
    }
}

fn replace_root(root: &mut Value, operation: Operation) -> Result<(), EngineError> {
    match operation {
        Operation::Add(value @ Value::Object(_)) | Operation::Replace(value @ Value::Object(_)) => {
            *root = value;
            Ok(())
        }
        Operation::Remove => Err(EngineError::InvalidPatch("root cannot be removed".into())),
        _ => Err(EngineError::InvalidPatch("root must be object".into())),
    }
}

fn make_objects(root: &mut Value, path: &[String]) -> Result<(), EngineError> {
    if path.len() >= MAX_DEPTH {
        return Err(EngineError::InvalidPatch(format!(
            "path has more than {MAX_DEPTH} segments"
        )));
    }
    if let Some(existing) = (0..=path.len())
        .rev()
        .find(|&n| read(root, &path[..n]).is_some())
        && !matches!(read(root, &path[..existing]), Some(Value::Object(_)))
    {
        return Err(EngineError::WriteConflict(path::display(&path[..existing])));
    }
    let mut parent = root;
    for segment in path {
        let members = object_mut(parent)?;
        parent = members.get_or_insert_with(Value::from(segment.as_str()), Value::new_object);
    }
    Ok(())
}

fn child<'a>(
    parent: &'a mut Value,
    segment: &str,
    path: &[String],
) -> Result<&'a mut Value, EngineError> {
    match parent {
        Value::Object(_) => object_mut(parent)?
            .get_mut(&Value::from(segment))
            .ok_or_else(not_found),
        Value::Array(elements) => {
            let index = existing_index(elements.len(), segment, path)?;
            let elements = parent.as_array_mut().map_err(|_| not_found())?;
            elements.get_mut(index).ok_or_else(not_found)
        }
        _ => Err(not_found()),
    }
}

fn edit_object(parent: &mut Value, segment: &str, operation: Operation) -> Result<(), EngineError> {
    let key = Value::from(segment);
    if !matches!(operation, Operation::Add(_))
        && !parent
            .as_object()
            .is_ok_and(|members| members.contains_key(&key))
    {
        return Err(not_found());
    }
    let members = object_mut(parent)?;
    match operation {
        Operation::Add(value) | Operation::Replace(value) => {
            members.insert(key, value);
        }
        Operation::Remove => {
            members.remove(&key);
        }
    }
    Ok(())
}

fn edit_array(
    parent: &mut Value,
    segment: &str,
    operation: Operation,
    path: &[String],
) -> Result<(), EngineError> {
    let length = parent.as_array().map_or(0, |elements| elements.len());
    if segment == "-" || segment == length.to_string() {
        let Operation::Add(value) = operation else {
            let path = path::display(path);
            return Err(EngineError::InvalidPatch(format!(
                "{path}: invalid patch path"
            )));
        };
        parent.as_array_mut().map_err(|_| not_found())?.push(value);
        return Ok(());
    }
    let index = existing_index(length, segment, path)?;
    let elements = parent.as_array_mut().map_err(|_| not_found())?;
    match operation {
        Operation::Replace(value) => {
            if let Some(element) = elements.get_mut(index) {
                *element = value;
            }
        }
        Operation::Add(value) => {
            let mut all = std::mem::take(elements).into_vec();
            all.insert(index, value);
            *elements = all.into();
        }
        Operation::Remove => {
            let mut all = std::mem::take(elements).into_vec();
            all.remove(index);
            *elements = all.into();
        }
    }
    Ok(())
}

fn object_mut(value: &mut Value) -> Result<&mut Object, EngineError> {
    value.as_object_mut().map_err(|_| not_found())
}

/// As OPA, which reads `01` and `+1` too.
fn index_of(segment: &str) -> Option<usize> {
    segment.parse().ok()
}

fn existing_index(length: usize, segment: &str, path: &[String]) -> Result<usize, EngineError> {
    let complaint = match index_of(segment) {
        Some(index) if index < length => return Ok(index),
        Some(_) => "array index out of range",
        None => "array index must be integer",
    };
    Err(EngineError::DocumentNotFound {
        hint: Some(format!("{}: {complaint}", path::display(path))),
    })
}

fn not_found() -> EngineError {
    EngineError::DocumentNotFound { hint: None }
}

#[cfg(test)]
mod tests;
