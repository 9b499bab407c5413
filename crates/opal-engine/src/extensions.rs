//! Builtins of OPA that `regorus` lacks and that are small enough to give here.
//!
//! These are the deprecated ones that policies of Rego v0 still use.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use regorus::{Engine, Value};

type Builtin = fn(&[Value]) -> Result<Value>;

/// Name, number of arguments, implementation.
const BUILTINS: &[(&str, u8, Builtin)] = &[
    ("all", 1, all),
    ("any", 1, any),
    ("re_match", 2, re_match),
    ("set_diff", 2, set_diff),
];

/// Makes the builtins known to `engine`.
pub(crate) fn register(engine: &mut Engine) {
    for &(name, arguments, builtin) in BUILTINS {
        let call = move |arguments: Vec<Value>| Ok(builtin(&arguments).unwrap_or(Value::Undefined));
        if let Err(error) = engine.add_extension(name.to_owned(), arguments, Box::new(call)) {
            tracing::error!(%error, "Builtin `{name}` could not be added");
        }
    }
}

/// The number of arguments of the builtin `name`, if it is one of these.
pub(crate) fn arguments(name: &str) -> Option<usize> {
    let found = BUILTINS.iter().find(|(known, ..)| *known == name)?;
    Some(usize::from(found.1))
}

fn elements(value: &Value) -> Result<Vec<&Value>> {
    match value {
        Value::Array(elements) => Ok(elements.iter().collect()),
        Value::Set(elements) => Ok(elements.iter().collect()),
        _ => bail!("not an array or set"),
    }
}

fn all(arguments: &[Value]) -> Result<Value> {
    let [collection] = arguments else {
        bail!("one argument")
    };
    Ok(Value::from(
        elements(collection)?
            .iter()
            .all(|v| **v == Value::Bool(true)),
    ))
}

fn any(arguments: &[Value]) -> Result<Value> {
    let [collection] = arguments else {
        bail!("one argument")
    };
    Ok(Value::from(
        elements(collection)?
            .iter()
            .any(|v| **v == Value::Bool(true)),
    ))
}

fn re_match(arguments: &[Value]) -> Result<Value> {
    let [pattern, text] = arguments else {
        bail!("two arguments")
    };
    let pattern = regex::Regex::new(pattern.as_string()?)?;
    Ok(Value::from(pattern.is_match(text.as_string()?)))
}

fn set_diff(arguments: &[Value]) -> Result<Value> {
    let [left, right] = arguments else {
        bail!("two arguments")
    };
    let right = right.as_set()?;
    let kept = left.as_set()?.iter().filter(|value| !right.contains(value));
    Ok(Value::from(kept.cloned().collect::<BTreeSet<_>>()))
}
