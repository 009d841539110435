//! MS-MDE2 enrollment.
