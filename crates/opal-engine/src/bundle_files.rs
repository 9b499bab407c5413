//! Reads policies and data from files, as `opa run` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use bytes::Bytes;
use regorus::Value;

use crate::{Edit, document, json, path};

/// Why files could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A data file is not what its name says.
    #[error("{}: {message}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Two data files set the same document.
    #[error("{}: merge error: conflicting values at {at}", path.display())]
    Conflict {
        /// The later file.
        path: PathBuf,
        /// The document.
        at: String,
    },
}

/// Reads `paths` (files, and directories with all below them) into one transaction.
///
/// Policies (`.rego`) are named by their path. Data (`.json`, `.yaml`, `.yml`) stands at the
/// directory it lies in, counted from the path given: `d/a/b/data.json`, loaded as `d`, is
/// `data.a.b`. Files that must be merged may not set the same value twice.
///
/// # Errors
///
/// If something cannot be read, is not a document, or contradicts another file.
pub fn load_paths(paths: &[PathBuf]) -> Result<Vec<Edit>, LoadError> {
    let mut found = Found::default();
    for path in paths {
        found.add(path, &[])?;
    }
    Ok(found.into_edits())
}

#[derive(Debug, Default)]
struct Found {
    policies: Vec<Edit>,
    data: Option<Value>,
}

impl Found {
    /// Adds a path that was asked for: it must be something that can be loaded.
    fn add(&mut self, path: &Path, place: &[String]) -> Result<(), LoadError> {
        if is_directory(path)? {
            return self.add_directory(path, place);
        }
        if !self.add_file(path, place)? {
            return Err(LoadError::Document {
                path: path.to_owned(),
                message: "neither Rego, JSON nor YAML by its name".to_owned(),
            });
        }
        Ok(())
    }

    fn add_directory(&mut self, directory: &Path, place: &[String]) -> Result<(), LoadError> {
        let failed = |source| LoadError::Read {
            path: directory.to_owned(),
            source,
        };
        let entries = fs::read_dir(directory).map_err(failed)?;
        let mut entries = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        entries.sort();
        for path in entries {
            if is_directory(&path)? {
                let mut below = place.to_vec();
                below.extend(
                    path.file_name()
                        .map(|name| name.to_string_lossy().into_owned()),
                );
                self.add_directory(&path, &below)?;
            } else {
                self.add_file(&path, place)?;
            }
        }
        Ok(())
    }

    /// Adds a file; `false` if it is of no kind that is loaded.
    fn add_file(&mut self, path: &Path, place: &[String]) -> Result<bool, LoadError> {
        let document = match path.extension().and_then(|end| end.to_str()) {
            Some("rego") => {
                let id = path.to_string_lossy();
                let id = id
                    .trim_start_matches("./")
                    .trim_start_matches('/')
                    .to_owned();
                let source = Arc::from(read(path)?);
                self.policies.push(Edit::PutPolicy { id, source });
                return Ok(true);
            }
            Some("json") => json::parse_str(&read(path)?).map_err(|error| error.to_string()),
            Some("yaml" | "yml") => {
                Value::from_yaml_str(&read(path)?).map_err(|error| error.to_string())
            }
            _ => return Ok(false),
        };
        let document = document.map_err(|message| LoadError::Document {
            path: path.to_owned(),
            message,
        })?;
        self.merge(path, place, document)?;
        Ok(true)
    }

    fn merge(&mut self, file: &Path, place: &[String], document: Value) -> Result<(), LoadError> {
        if !matches!(document, Value::Object(_)) {
            return Err(LoadError::Document {
                path: file.to_owned(),
                message: "document must be of type object".to_owned(),
            });
        }
        let data = self.data.get_or_insert_with(Value::new_object);
        merge_at(data, &mut place.to_vec(), document).map_err(|at| LoadError::Conflict {
            path: file.to_owned(),
            at: format!("data{}", path::display(&at).replace('/', ".")),
        })
    }

    fn into_edits(self) -> Vec<Edit> {
        let mut edits = Vec::new();
        if let Some(data) = self.data {
            let text = json::write(&data);
            let (path, document) = (Vec::new(), Bytes::from(text));
            edits.push(Edit::PutData { path, document });
        }
        edits.extend(self.policies);
        edits
    }
}

/// Merges `document` into what stands at `place`; fails with the path both set.
fn merge_at(data: &mut Value, place: &mut Vec<String>, document: Value) -> Result<(), Vec<String>> {
    let existing = document::read(data, place);
    if existing.is_none() {
        return document::put(data, place, document).map_err(|_| place.clone());
    }
    let both = (existing.cloned(), &document);
    let (Some(Value::Object(_)), Value::Object(members)) = both else {
        return Err(place.clone());
    };
    for (name, member) in members.iter_sorted() {
        place.push(
            name.as_string()
                .map_or_else(|_| name.to_string(), |name| name.to_string()),
        );
        merge_at(data, place, member.clone())?;
        place.pop();
    }
    Ok(())
}

fn is_directory(path: &Path) -> Result<bool, LoadError> {
    let failed = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    Ok(fs::metadata(path).map_err(failed)?.is_dir())
}

fn read(path: &Path) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}
