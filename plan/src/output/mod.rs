//! A plan in the words of those who need it.

mod config;
mod page;
mod qemu;
mod xml;
