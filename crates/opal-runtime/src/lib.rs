//! What OPAL's daemons need to be good processes: tasks, settings, tokens, HTTP, logs.
