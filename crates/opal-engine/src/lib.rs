//! The embedded policy engine, behind the part of OPA's REST API that applications use.
