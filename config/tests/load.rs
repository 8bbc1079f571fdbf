//! Files on disk: what `load` adds to `parse`.

use std::path::{Path, PathBuf};

use ringway_config::load;
use tempfile::TempDir;

fn scratch() -> std::io::Result<(TempDir, PathBuf)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("switch.toml");
    Ok((directory, file))
}

/// How `file` is refused, after the file's name.
#[track_caller]
fn refused(file: &Path) -> String {
    match load(file) {
        Ok(plan) => panic!("accepted: {plan:?}"),
        Err(error) => {
            assert_eq!(error.file(), file);
            error.to_string().replacen(&file.display().to_string(), "FILE", 1)
        }
    }
}

fn one_port_with_its_socket_in(directory: &Path) -> String {
    let socket = directory.join("p.sock");
    format!(
        "[[bridge]]\nname = \"b\"\n[[port]]\nname = \"p\"\nkind = \"vhost-user\"\nbridge = \"b\"\n\
         socket = {socket:?}\n"
    )
}

#[test]
fn the_file_system_is_asked_for_the_directory_of_a_socket() {
    let (directory, file) = scratch().unwrap();
    std::fs::write(&file, one_port_with_its_socket_in(directory.path())).unwrap();
    assert_eq!(load(&file).unwrap().ports.len(), 1);

    let missing = directory.path().join("missing");
    std::fs::write(&file, one_port_with_its_socket_in(&missing)).unwrap();
    let missing = missing.display();
    assert_eq!(refused(&file), format!("FILE:7: directory `{missing}` does not exist; create it: mkdir -p {missing}"));

    // A file where a directory should be is no directory.
    std::fs::write(&file, one_port_with_its_socket_in(&file)).unwrap();
    assert_eq!(load(&file).unwrap_err().line(), Some(7));
}

#[test]
fn a_file_that_cannot_be_read_has_no_line() {
    let (directory, file) = scratch().unwrap();
    for file in [file.as_path(), directory.path()] {
        let shown = refused(file);
        assert!(shown.starts_with("FILE: cannot be read: "), "{shown}");
        assert!(shown.contains("; name a file that exists"), "{shown}");
        assert_eq!(load(file).unwrap_err().line(), None);
    }
}

#[test]
fn text_that_is_not_utf_8_has_a_line() {
    let (_directory, file) = scratch().unwrap();
    std::fs::write(&file, b"# caf\xc3\xa9\n# caf\xe9\n").unwrap();
    assert_eq!(refused(&file), "FILE:2: not UTF-8; save the file as UTF-8");
}

#[test]
fn a_mebibyte_is_read_and_no_more() {
    let (_directory, file) = scratch().unwrap();
    std::fs::write(&file, "#".repeat(1024 * 1024)).unwrap();
    assert!(load(&file).is_ok());
    std::fs::write(&file, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert_eq!(refused(&file), "FILE: is larger than 1048576 bytes; name a configuration file");
}
