//! CSP nodes.
