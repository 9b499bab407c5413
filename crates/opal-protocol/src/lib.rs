//! Everything that crosses a process boundary in OPAL: messages, bundles, topics, paths, claims.
