//! Fixtures and stand-ins for the processes around OPAL, for its tests.
