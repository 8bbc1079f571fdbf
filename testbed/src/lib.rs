//! To be written.

pub mod driver;
