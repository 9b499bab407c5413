//! Whole-system tests of OPAL, also against the released Python peers.
