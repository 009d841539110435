//! One suite, every backend. PostgreSQL comes from `BELLWETHER_TEST_POSTGRES_URL` (an admin's URL; see
//! `tests/postgres-up`); without it those runs say that they were skipped, and in CI they fail.

#[macro_use]
mod harness;
mod backends;
mod model;
mod queue;
mod queue_endings;
mod rows;
mod sealing;
mod walls;
mod world;
