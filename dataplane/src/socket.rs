//! Listening at a path: sockets that are ours alone while we live, and gone when we end.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

/// Readable and writable by owner and group: to connect is to write.
const MODE: u32 = 0o660;
/// Connections that may wait to be taken.
const BACKLOG: i32 = 16;

/// Why nobody can listen at a path.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody does already.
    #[error("somebody else listens at {0}")]
    InUse(PathBuf),
    /// What is there is not a socket, and hence not ours to remove.
    #[error("{0} is there and is no socket")]
    NotASocket(PathBuf),
    /// The kernel refuses.
    #[error("cannot listen at {path}: {source}")]
    System {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// The file of a socket that we listen at. Removed when dropped, if it still is the one that we made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode; no other file has them while somebody listens at this one.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`, for owner and group. A socket there that nobody listens at, left behind by somebody who was
    /// killed, is replaced.
    ///
    /// # Errors
    /// If the path is not free, or the kernel says no.
    pub fn listen(path: &Path) -> Result<(Self, UnixListener), ListenError> {
        let system = |source: io::Error| ListenError::System { path: path.to_owned(), source };
        let socket = match bound(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                    return Err(ListenError::NotASocket(path.to_owned()));
                }
                match UnixStream::connect(path) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    _ => return Err(ListenError::InUse(path.to_owned())),
                }
                fs::remove_file(path).and_then(|()| bound(path))
            }
            socket => socket,
        };
        let socket = socket.map_err(system)?;
        let file = fs::symlink_metadata(path).map_err(system)?;
        let file = Self { path: path.to_owned(), identity: identity(&file) };
        // Nobody can connect before `listen`, so there is no moment at which the mode is another.
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(system)?;
        listen(&socket, BACKLOG).map_err(|error| system(error.into()))?;
        Ok((file, UnixListener::from(socket)))
    }
}

fn bound(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_ours_alone_and_gone_with_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let (file, listener) = SocketFile::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert!(matches!(SocketFile::listen(&path), Err(ListenError::InUse(_))));
        UnixStream::connect(&path).unwrap();
        drop((file, listener));
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_left_behind_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (first, _listens) = SocketFile::listen(&path).unwrap();
        // Replaced by somebody in turn: then it is not ours to remove.
        fs::remove_file(&path).unwrap();
        let (_second, _listens_too) = SocketFile::listen(&path).unwrap();
        drop(first);
        assert!(path.exists());
        let file = directory.path().join("b.sock");
        fs::write(&file, "text").unwrap();
        assert!(matches!(SocketFile::listen(&file), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&file).unwrap(), b"text");
        let nowhere = directory.path().join("none/c.sock");
        assert!(matches!(SocketFile::listen(&nowhere), Err(ListenError::System { .. })));
    }
}
