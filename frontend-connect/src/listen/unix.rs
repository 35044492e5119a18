//! Listening on a Unix socket, and what becomes of its file.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// The most connections that wait to be accepted; the kernel's `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// Where and for whom a Unix socket is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnixEndpoint {
    /// The path of the socket. A socket that nobody listens on is replaced; anything else that is there is left alone
    /// and is an error.
    pub path: PathBuf,
    /// The permission bits of the file. Who may write to it may connect. Default: `0o600`.
    pub mode: u32,
    /// The user id that owns the file. Default: that of the process.
    pub owner: Option<u32>,
    /// The group id of the file. Default: that of the process, or of the directory.
    pub group: Option<u32>,
}

impl UnixEndpoint {
    /// A socket for this process's user alone.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: 0o600,
            owner: None,
            group: None,
        }
    }
}

/// Why a Unix socket could not be made. The path is in [`BindError`](crate::BindError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnixBindError {
    /// There is a socket, and somebody listens on it.
    #[error("another process listens on the socket")]
    Live,
    /// There is something that is no socket; it is never removed.
    #[error("a file that is not a socket is in the way")]
    NotASocket,
    /// There is a socket of which it cannot be told whether somebody listens on it.
    #[error("cannot tell whether another process listens on the socket")]
    Unclear(#[source] io::Error),
    /// The directory cannot be opened to guard the change.
    #[error("cannot lock the directory of the socket")]
    Directory(#[source] io::Error),
    /// Owner and mode could not be set.
    #[error("cannot set owner and mode of the socket")]
    Permissions(#[source] io::Error),
    /// The socket could not be made.
    #[error("cannot make the socket")]
    Io(#[from] io::Error),
}

/// A listener on a Unix socket. Dropping it removes the file if it is still the one that it made.
#[derive(Debug)]
pub(crate) struct Listener {
    // Dropped before the socket: as long as that is open, the inode number of its file cannot be another's.
    _file: SocketFile,
    inner: UnixListener,
}

impl Listener {
    /// Makes the socket. It accepts connections only once owner and mode are set.
    pub(crate) fn bind(endpoint: &UnixEndpoint) -> Result<Self, UnixBindError> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let path = &endpoint.path;
        let lock = lock_directory(path).map_err(UnixBindError::Directory)?;
        remove_stale(path)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::new(path)?;
        // Nobody can connect before the call of listen, whatever the umask was.
        chown(path, endpoint.owner, endpoint.group)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(endpoint.mode)))
            .map_err(UnixBindError::Permissions)?;
        socket.listen(BACKLOG)?;
        drop(lock);
        Ok(Self {
            _file: file,
            inner: UnixListener::from_std(socket.into())?,
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.inner.accept().await.map(|(stream, _)| stream)
    }
}

/// Keeps other processes like this one from changing sockets in the same directory at the same time: between finding
/// a socket stale and removing it, another could have put a live one there. Closing the file releases the lock.
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory)?;
    directory.lock()?;
    Ok(directory)
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), UnixBindError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(UnixBindError::NotASocket),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose backlog is full would block the call.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Err(UnixBindError::Live),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Err(UnixBindError::Live),
            io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(UnixBindError::Unclear(error)),
        },
    }
}

/// The file of a socket; dropping it removes the file.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            // The working directory may change before the file is removed.
            path: std::path::absolute(path)?,
            id: id_of(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id) {
            // There is nobody to tell; the next start finds a stale socket and removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use super::*;

    fn endpoint() -> (tempfile::TempDir, UnixEndpoint) {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = UnixEndpoint::new(directory.path().join("connect.sock"));
        (directory, endpoint)
    }

    fn connect(endpoint: &UnixEndpoint) -> io::Result<net::UnixStream> {
        net::UnixStream::connect(&endpoint.path)
    }

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_the_listener() {
        let (_directory, mut endpoint) = endpoint();
        for mode in [0o600, 0o660, 0o777] {
            endpoint.mode = mode;
            let listener = Listener::bind(&endpoint).unwrap();
            let metadata = fs::symlink_metadata(&endpoint.path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, mode);
            connect(&endpoint).unwrap();
            listener.accept().await.unwrap();
            drop(listener);
            assert!(!endpoint.path.exists());
        }
    }

    #[tokio::test]
    async fn owner_and_group_are_set_or_nothing_is_left_behind() {
        let (directory, mut endpoint) = endpoint();
        let me = fs::metadata(directory.path()).unwrap();
        endpoint.owner = Some(me.uid());
        endpoint.group = Some(me.gid());
        let listener = Listener::bind(&endpoint).unwrap();
        let metadata = fs::symlink_metadata(&endpoint.path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (me.uid(), me.gid()));
        drop(listener);

        if me.uid() == 0 {
            endpoint.owner = Some(4242);
            let _listener = Listener::bind(&endpoint).unwrap();
            assert_eq!(fs::symlink_metadata(&endpoint.path).unwrap().uid(), 4242);
        } else {
            endpoint.owner = Some(0);
            let error = Listener::bind(&endpoint).unwrap_err();
            assert!(matches!(error, UnixBindError::Permissions(_)), "{error:?}");
            assert!(!endpoint.path.exists());
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let (_directory, endpoint) = endpoint();
        drop(net::UnixListener::bind(&endpoint.path).unwrap());
        assert!(endpoint.path.exists());
        let _listener = Listener::bind(&endpoint).unwrap();
        connect(&endpoint).unwrap();
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_also_when_its_backlog_is_full() {
        let (_directory, endpoint) = endpoint();
        let live = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        live.bind(&SockAddr::unix(&endpoint.path).unwrap()).unwrap();
        live.listen(0).unwrap();
        // The first probe connects and fills the backlog.
        for _ in 0..2 {
            let error = Listener::bind(&endpoint).unwrap_err();
            assert!(matches!(error, UnixBindError::Live), "{error:?}");
        }
        assert!(endpoint.path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_never_removed() {
        let (directory, endpoint) = endpoint();
        fs::write(&endpoint.path, "precious").unwrap();
        assert!(matches!(Listener::bind(&endpoint), Err(UnixBindError::NotASocket)));
        assert_eq!(fs::read(&endpoint.path).unwrap(), b"precious");

        fs::remove_file(&endpoint.path).unwrap();
        let elsewhere = directory.path().join("elsewhere.sock");
        drop(net::UnixListener::bind(&elsewhere).unwrap());
        std::os::unix::fs::symlink(&elsewhere, &endpoint.path).unwrap();
        assert!(matches!(Listener::bind(&endpoint), Err(UnixBindError::NotASocket)));
        assert!(fs::symlink_metadata(&elsewhere).is_ok());

        fs::remove_file(&endpoint.path).unwrap();
        fs::create_dir(&endpoint.path).unwrap();
        assert!(matches!(Listener::bind(&endpoint), Err(UnixBindError::NotASocket)));
    }

    #[tokio::test]
    async fn a_datagram_socket_is_not_taken_for_a_stale_one() {
        let (_directory, endpoint) = endpoint();
        let _socket = net::UnixDatagram::bind(&endpoint.path).unwrap();
        assert!(matches!(Listener::bind(&endpoint), Err(UnixBindError::Unclear(_))));
        assert!(endpoint.path.exists());
    }

    #[tokio::test]
    async fn a_file_that_somebody_else_put_there_stays() {
        let (_directory, endpoint) = endpoint();
        let listener = Listener::bind(&endpoint).unwrap();
        fs::remove_file(&endpoint.path).unwrap();
        let _other = net::UnixListener::bind(&endpoint.path).unwrap();
        drop(listener);
        connect(&endpoint).unwrap();
    }

    #[tokio::test]
    async fn of_many_that_start_at_once_over_a_stale_socket_one_wins() {
        let (_directory, endpoint) = endpoint();
        drop(net::UnixListener::bind(&endpoint.path).unwrap());
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let endpoint = endpoint.clone();
                tokio::task::spawn_blocking(move || Listener::bind(&endpoint))
            })
            .collect();
        let mut listeners = Vec::new();
        for start in starts {
            match start.await.unwrap() {
                Ok(listener) => listeners.push(listener),
                Err(error) => assert!(matches!(error, UnixBindError::Live), "{error:?}"),
            }
        }
        assert_eq!(listeners.len(), 1);
        connect(&endpoint).unwrap();
    }

    #[tokio::test]
    async fn an_overlong_path_is_an_error() {
        let (directory, _) = endpoint();
        let endpoint = UnixEndpoint::new(directory.path().join("x".repeat(120)));
        assert!(matches!(Listener::bind(&endpoint), Err(UnixBindError::Io(_))));
    }
}
