//! The Bellwether server: listeners, device endpoints, REST API, CLI, wakers.
