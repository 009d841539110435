//! One suite, every backend. PostgreSQL comes from `BELLWETHER_TEST_POSTGRES_URL` (an admin's URL; see
//! `tests/postgres-up`); without it those runs say that they were skipped, and in CI they fail.

#[macro_use]
#[cfg(test)]
mod harness;
#[cfg(test)]
mod backends;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod fair;
#[cfg(test)]
mod model;
#[cfg(test)]
mod packages;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod queue_endings;
#[cfg(test)]
mod row_level;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod sealing;
mod uploads;
#[cfg(test)]
mod walls;
#[cfg(test)]
mod world;
