//! The words of the house: ids, platforms, devices, enrollments, intents and their life cycle.
