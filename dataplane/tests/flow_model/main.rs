//! The flow table under loom: every order in which a writer's and a reader's steps can happen, and every value that a load may
//! then see, for a few steps of each. What is compiled here is the table's own source; only its atomics are loom's, and the arrays
//! that they lie in.
//!
//! Without the usual harness, since that would also compile the unit tests in that source, which know nothing of loom. What it
//! answers to `cargo nextest` and `cargo test` is what they ask of any test program.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]
#![allow(dead_code, unreachable_pub, unused_imports, reason = "the model does not use all of the table")]

#[path = "../../src/cpu.rs"]
mod cpu;
mod flow;
mod models;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has("--list") {
        if !has("--ignored") {
            models::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    for (name, model) in models::ALL {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            model();
            println!("{name}: ok");
        }
    }
}
