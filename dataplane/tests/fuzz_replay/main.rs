//! The fuzz targets once more, with the corpus that fuzzing has left: whatever was found stays mended.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a module of several programs")]

use std::path::Path;

#[path = "../../../fuzz/targets/mod.rs"]
mod targets;

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut count = 0;
    for file in std::fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        // Shown if it panics.
        println!("{}", path.display());
        target(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= 20, "{count} files in {} are no corpus", corpus.display());
}

#[test]
fn packed() {
    replay("packed", targets::packed);
}

#[test]
fn split() {
    replay("split", targets::split);
}

#[test]
fn session() {
    replay("session", targets::session);
}

#[test]
fn headers() {
    replay("headers", targets::headers);
}
