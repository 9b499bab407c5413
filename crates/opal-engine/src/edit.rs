//! What a caller may change: [`Edit`].

use std::sync::Arc;

use bytes::Bytes;

/// One change of policy or base data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Adds the module `id`, or replaces it.
    PutPolicy {
        /// The module's name, by which OPA's API knows it (usually its file's path).
        id: String,
        /// The Rego text.
        source: Arc<str>,
    },
    /// Removes the module `id`; fails if there is none.
    DeletePolicy {
        /// The module's name.
        id: String,
    },
    /// Replaces the document at `path`, making the objects that lead to it.
    ///
    /// As OPA: on an existing element of an array it inserts before that element.
    PutData {
        /// Unescaped segments; empty is the root, which must stay an object.
        path: Vec<String>,
        /// JSON text.
        document: Bytes,
    },
    /// As [`PutData`](Self::PutData); fails if there is a document at `path`.
    CreateData {
        /// Unescaped segments.
        path: Vec<String>,
        /// JSON text.
        document: Bytes,
    },
    /// Applies `operations` in order, all or none.
    PatchData {
        /// Where the operations' paths begin.
        path: Vec<String>,
        /// The operations.
        operations: Vec<PatchOperation>,
    },
    /// Removes the document at `path`; fails if there is none.
    DeleteData {
        /// Unescaped segments; the root (an empty path) becomes an empty object.
        path: Vec<String>,
    },
}

impl Edit {
    /// Whether this edit changes policy rather than data.
    #[must_use]
    pub fn is_policy(&self) -> bool {
        matches!(self, Self::PutPolicy { .. } | Self::DeletePolicy { .. })
    }
}

/// One operation of a patch. OPA's API knows these three of RFC 6902.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchOperation {
    /// Adds a member, inserts an element (`-` appends) or replaces what is there.
    Add {
        /// Unescaped segments below the patch's path.
        path: Vec<String>,
        /// JSON text.
        document: Bytes,
    },
    /// Replaces what is there; fails if nothing is.
    Replace {
        /// Unescaped segments below the patch's path.
        path: Vec<String>,
        /// JSON text.
        document: Bytes,
    },
    /// Removes what is there; fails if nothing is.
    Remove {
        /// Unescaped segments below the patch's path.
        path: Vec<String>,
    },
}
