//! The use cases: enroll, check in, dispatch, command, audit, wake.
