//! End-to-end tests: the real server over real TLS, simulated devices, independent judges.
