//! Both ends of OPAL's websocket protocol, and the feed of changes behind it.
