//! Paths of Unix sockets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Problem};
use crate::raw::Text;
use crate::source::Source;

/// `sun_path` of a Unix socket address holds 108 bytes, the last of them NUL.
pub(crate) const PATH_BYTES_MAX: usize = 107;

/// A path that fits a socket address and cannot change its meaning with the working directory.
pub(crate) fn path(source: &Source<'_>, written: &Text) -> Result<PathBuf, Error> {
    let text = written.as_ref();
    let path = PathBuf::from(text);
    let problem = if !path.is_absolute() {
        Problem::RelativeSocket(path)
    } else if text.len() > PATH_BYTES_MAX {
        Problem::LongSocket { bytes: text.len() }
    } else if text.ends_with('/') || path.file_name().is_none() || text.contains(char::is_control) {
        Problem::BadSocket(path)
    } else {
        return Ok(path);
    };
    Err(source.refuse(written.span(), problem))
}

/// The sockets given out so far, each with what a later claimant is told of its owner.
///
/// Paths are compared as written, but for doubled slashes and `.`: links are a matter of the file system.
pub(crate) struct Sockets<F> {
    owners: HashMap<PathBuf, String>,
    directory_exists: F,
}

impl<F: Fn(&Path) -> bool> Sockets<F> {
    pub(crate) fn new(control_socket: &Path, directory_exists: F) -> Self {
        Self { owners: HashMap::from([(control_socket.to_owned(), "control socket".to_owned())]), directory_exists }
    }

    /// The path of a port's socket: one nobody else has, in a directory that exists.
    pub(crate) fn claim(&mut self, source: &Source<'_>, written: &Text) -> Result<PathBuf, Error> {
        let path = path(source, written)?;
        let refuse = |problem| Err(source.refuse(written.span(), problem));
        if let Some(owner) = self.owners.get(&path) {
            let owner = owner.clone();
            return refuse(Problem::DuplicateSocket { path, owner });
        }
        if let Some(directory) = path.parent()
            && !(self.directory_exists)(directory)
        {
            return refuse(Problem::NoDirectory(directory.to_owned()));
        }
        let line = source.line(&written.span());
        self.owners.insert(path.clone(), format!("socket of the port on line {line}"));
        Ok(path)
    }
}
