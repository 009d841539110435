//! OMA-DM 1.2 sessions.
