//! Apple MDM on the wire: plist guard, check-in, command channel, enrollment profile. Sans-IO.
