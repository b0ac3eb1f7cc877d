//! [`SocketFile`]: the name of a Unix socket in the file system, from binding it to removing it.
//!
//! Not its business: accepting (`acceptor.rs`).

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{self, Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::listener::BACKLOG;

/// The file of a socket that listens. It is removed when this is dropped, if it is still the same: a
/// newer server may have put its own in this place.
///
/// To be dropped before the socket, because while that is open the system does not give its inode's
/// number to another file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Listens on a path. A file that a former server left there is replaced; a server that listens
    /// there, or a file that is no socket, is an error. Whoever may write the file may connect; `mode`
    /// are its permissions, and without it they are what the process's umask leaves of all.
    ///
    /// Two servers that start in the same instant over the same left file may replace each other.
    pub(crate) fn listen(path: &Path, mode: Option<u32>) -> io::Result<(Self, UnixListener)> {
        try_listen(path, mode).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display()))
        })
    }

    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        // The working directory may change until we are dropped.
        let path = path::absolute(path)?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

fn try_listen(path: &Path, mode: Option<u32>) -> io::Result<(SocketFile, UnixListener)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    let file = SocketFile::of(path)?;
    // Before `listen` nobody can connect, and so nobody does with permissions that are too wide.
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    Ok((file, OwnedFd::from(socket).into()))
}

/// Removes the file of a socket that nobody listens on.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let kind = io::ErrorKind::AlreadyExists;
        return Err(io::Error::new(kind, "there is a file that is not a socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server whose backlog is full would keep us waiting.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::directory::Directory;

    #[test]
    fn the_file_is_removed_with_the_listener() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let (file, listener) = SocketFile::listen(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
        drop((file, listener));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_ours_any_more_stays() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let (file, _listener) = SocketFile::listen(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let (_newer, _listener) = SocketFile::listen(&path, None).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_stale_file_is_replaced() {
        let directory = Directory::new();
        let path = directory.path("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _served = SocketFile::listen(&path, None).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_live_server_is_not_replaced() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let _live = UnixListener::bind(&path).unwrap();
        let error = SocketFile::listen(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    /// Where nobody accepts, a connection waits; the system says so instead of refusing it.
    #[test]
    fn a_server_with_a_full_backlog_is_alive() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let address = SockAddr::unix(&path).unwrap();
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&address).unwrap();
        busy.listen(0).unwrap();
        let _waits = UnixStream::connect(&path).unwrap();
        let error = SocketFile::listen(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = Directory::new();
        let path = directory.path("notes");
        fs::write(&path, "dear diary").unwrap();
        let error = SocketFile::listen(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"dear diary");
    }

    #[test]
    fn the_permissions_are_those_asked_for() {
        let directory = Directory::new();
        let path = directory.path("socket");
        let _served = SocketFile::listen(&path, Some(0o620)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error() {
        let error = SocketFile::listen(Path::new(&"x".repeat(200)), None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
