//! End-to-end tests: the real server over real TLS, simulated devices, other people's programs as judges.
//!
//! On PostgreSQL when `BELLWETHER_TEST_POSTGRES_URL` is set (`tests/postgres-up`), on SQLite otherwise.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod backups;
#[cfg(test)]
mod fuzzing;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod judges;
#[cfg(test)]
mod needles;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod road;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod walls;
#[cfg(test)]
mod windows;
#[cfg(test)]
#[expect(dead_code, reason = "the crash tests use the rest")]
mod wire;
