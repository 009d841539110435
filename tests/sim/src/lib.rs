//! Simulated devices with real keys, as a library and as the bellwether-sim binary.
