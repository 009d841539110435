//! SCEP (RFC 8894): message and transaction state machines, server and client side. Sans-IO.
