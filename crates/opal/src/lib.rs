//! One tool for people: demo, up, engine.
