//! [`Listener`]: a socket that clients can reach, bound here or handed in, and its like for workers.
//!
//! It is on no runtime yet. Not its business: accepting (`acceptor.rs`), and the file of a Unix socket
//! (`socket_file.rs`).

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};
#[cfg(unix)]
use std::{os::unix::net::UnixListener, path::Path, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};

#[cfg(unix)]
use crate::socket_file::SocketFile;

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    /// Bound here, with the address for itself.
    Tcp(TcpListener),
    /// Handed in, with options that we cannot know.
    Given(TcpListener),
    /// With its file, if that is ours to remove.
    #[cfg(unix)]
    Unix(Option<Arc<SocketFile>>, UnixListener),
}

impl Listener {
    /// Listens on every one of the addresses, of which a host name may have several: `localhost` is
    /// commonly `127.0.0.1` and `::1`. Port 0 picks one that is free for all of them.
    pub(crate) fn bind(addresses: impl ToSocketAddrs) -> io::Result<Vec<Self>> {
        let mut distinct = Vec::new();
        // A hosts file may give the same address twice.
        for address in addresses.to_socket_addrs()? {
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        let is_picked = distinct.iter().any(|address| address.port() == 0);
        for _ in 1..PORT_ATTEMPTS {
            match bind_all(&distinct) {
                // What is free at one address need not be free at another.
                Err(error) if is_picked && error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        bind_all(&distinct)
    }

    /// Listens on a Unix socket; see [`SocketFile::listen`].
    #[cfg(unix)]
    pub(crate) fn bind_unix(path: impl AsRef<Path>, mode: Option<u32>) -> io::Result<Self> {
        let (file, listener) = SocketFile::listen(path.as_ref(), mode)?;
        Ok(Self::Unix(Some(Arc::new(file)), listener))
    }

    /// The listeners that whoever started this process has opened for it, in their order, as systemd
    /// does (`LISTEN_FDS`, `LISTEN_PID`); none if there are none. They can be had once.
    #[cfg(all(unix, feature = "socket-activation"))]
    pub(crate) fn inherited() -> io::Result<Vec<Self>> {
        let mut inherited = listenfd::ListenFd::from_env();
        let mut listeners = Vec::new();
        for number in 0..inherited.len() {
            // What is no TCP socket stays there, and is tried as the other kind.
            let listener = match inherited.take_tcp_listener(number) {
                Ok(listener) => listener.map(Self::from),
                Err(_) => inherited.take_unix_listener(number)?.map(Self::from),
            };
            // Accepting would fail for ever, as if descriptors had run out.
            if listener.as_ref().is_some_and(Self::is_connection) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("inherited socket {number} is a connection; set Accept=no in its unit"),
                ));
            }
            listeners.extend(listener);
        }
        Ok(listeners)
    }

    #[cfg(all(unix, feature = "socket-activation"))]
    fn is_connection(&self) -> bool {
        let socket = match self {
            Self::Tcp(listener) | Self::Given(listener) => socket2::SockRef::from(listener),
            Self::Unix(_, listener) => socket2::SockRef::from(listener),
        };
        socket.peer_addr().is_ok()
    }

    /// The address, unless it is a path.
    pub(crate) fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) | Self::Given(listener) => listener.local_addr().map(Some),
            #[cfg(unix)]
            Self::Unix(..) => Ok(None),
        }
    }

    /// So many lists of listeners, one for each worker, of which each reaches all the addresses.
    pub(crate) fn spread(listeners: Vec<Self>, workers: usize) -> io::Result<Vec<Vec<Self>>> {
        let mut lists: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
        for listener in listeners {
            for (list, share) in lists.iter_mut().zip(listener.share(workers)?) {
                list.push(share);
            }
        }
        Ok(lists)
    }

    fn share(self, count: usize) -> io::Result<Vec<Self>> {
        #[cfg(unix)]
        if let Self::Tcp(listener) = self {
            return share_port(listener, count);
        }
        let mut shares = Vec::with_capacity(count);
        for _ in 1..count {
            shares.push(self.try_clone()?);
        }
        shares.push(self);
        Ok(shares)
    }

    /// Another handle of the same socket, where the system cannot spread connections over several
    /// sockets, or where another would not have the options of the one that was handed in.
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Given(listener) => Self::Given(listener.try_clone()?),
            #[cfg(unix)]
            Self::Unix(file, listener) => Self::Unix(file.clone(), listener.try_clone()?),
        })
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Given(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listener {
    /// Its file stays when it is dropped: it belongs to whoever made it.
    fn from(listener: UnixListener) -> Self {
        Self::Unix(None, listener)
    }
}

fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut picked = 0;
    let mut unbound = io::Error::new(io::ErrorKind::InvalidInput, "no address to bind");
    for mut address in addresses.iter().copied() {
        let picks = address.port() == 0;
        if picks {
            address.set_port(picked);
        }
        match listen(address) {
            Ok(listener) => {
                if picks {
                    picked = listener.local_addr()?.port();
                }
                listeners.push(Listener::Tcp(listener));
            }
            Err(error) => {
                let fails = !is_without_ipv6(address, &error);
                unbound = io::Error::new(error.kind(), format!("cannot bind {address}: {error}"));
                if fails {
                    return Err(unbound);
                }
                tracing::debug!(error = %unbound, "no IPv6 here");
            }
        }
    }
    if listeners.is_empty() { Err(unbound) } else { Ok(listeners) }
}

/// Whether this machine, or its container, has IPv6 switched off, while `localhost` may still have
/// its IPv6 address: what else there is to bind will do. Systems have different errors for it.
fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let is_everywhere = address.ip().is_loopback() || address.ip().is_unspecified();
    let is_other =
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    address.is_ipv6() && is_everywhere && !is_other
}

/// A listener that has its address for itself.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// So many listeners on the address of one. Only now is it shared (`SO_REUSEPORT`), so that another
/// server which was there before would have been noticed.
#[cfg(unix)]
fn share_port(listener: TcpListener, count: usize) -> io::Result<Vec<Listener>> {
    let address = listener.local_addr()?;
    if count > 1 {
        socket2::SockRef::from(&listener).set_reuse_port(true)?;
    }
    let mut listeners = vec![Listener::Tcp(listener)];
    for _ in 1..count {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        listeners.push(Listener::Tcp(socket.into()));
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Systems differ in whether `[::]` takes the IPv4 clients along, and if it does, `0.0.0.0` cannot
    // be bound beside it.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a former server that linger in TIME_WAIT must not keep a new one from starting.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connections that may wait to be accepted; the system cuts it to its own limit (4096 on Linux).
pub(crate) const BACKLOG: i32 = 4096;

/// Chosen: a port that was free for one address is hardly ever taken for the other.
const PORT_ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
        listeners.iter().map(|listener| listener.local_addr().unwrap().unwrap()).collect()
    }

    #[test]
    fn all_addresses_are_bound_to_one_port() {
        let wanted: [SocketAddr; 3] =
            ["[::]:0", "0.0.0.0:0", "0.0.0.0:0"].map(|address| address.parse().unwrap());
        let bound = addresses(&Listener::bind(&wanted[..]).unwrap());
        assert_eq!(bound.len(), 2);
        assert!(bound[0].is_ipv6() && bound[1].is_ipv4());
        assert_eq!(bound[0].port(), bound[1].port());
    }

    #[test]
    fn a_host_name_is_bound_at_all_its_addresses() {
        let listeners = Listener::bind("localhost:0").unwrap();
        for address in addresses(&listeners) {
            TcpStream::connect(address).unwrap();
        }
        assert!(addresses(&listeners).iter().any(SocketAddr::is_ipv4));
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let address = addresses(&Listener::bind("127.0.0.1:0").unwrap())[0];
        let _taken = Listener::bind(address).unwrap();
        let error = Listener::bind(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[test]
    fn no_address_at_all_is_an_error() {
        let error = Listener::bind(&[][..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn only_a_missing_ipv6_is_forgiven() {
        let check = |address: &str, kind: io::ErrorKind| {
            is_without_ipv6(address.parse().unwrap(), &kind.into())
        };
        assert!(check("[::1]:80", io::ErrorKind::AddrNotAvailable));
        assert!(check("[::]:80", io::ErrorKind::Other));
        assert!(!check("[::1]:80", io::ErrorKind::AddrInUse));
        assert!(!check("[::1]:80", io::ErrorKind::PermissionDenied));
        assert!(!check("[2001:db8::1]:80", io::ErrorKind::AddrNotAvailable));
        assert!(!check("127.0.0.1:80", io::ErrorKind::AddrNotAvailable));
    }

    #[test]
    fn each_worker_listens_at_all_addresses() {
        let mut listeners = Listener::bind("127.0.0.1:0").unwrap();
        listeners.push(TcpListener::bind("127.0.0.1:0").unwrap().into());
        let bound = addresses(&listeners);
        let lists = Listener::spread(listeners, 3).unwrap();
        assert_eq!(lists.len(), 3);
        for list in &lists {
            assert_eq!(addresses(list), bound);
        }
    }

    #[cfg(all(unix, feature = "socket-activation"))]
    #[test]
    fn a_connection_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = TcpListener::from(std::os::fd::OwnedFd::from(stream));
        assert!(Listener::from(stream).is_connection());
        assert!(!Listener::from(listener).is_connection());
    }

    /// This test starts itself as another process, with the sockets where systemd puts them.
    #[cfg(all(unix, feature = "socket-activation"))]
    #[test]
    fn inherited_sockets_are_served() {
        use std::{
            io::{Read, Write},
            os::{fd::OwnedFd, unix::net::UnixStream},
            process::{Command, Stdio},
        };

        const IS_CHILD: &str = "WS_SERVE_TEST_IS_ACTIVATED";
        if std::env::var_os(IS_CHILD).is_some() {
            let listeners = Listener::inherited().unwrap();
            assert_eq!(listeners.len(), 2);
            for listener in listeners {
                match listener {
                    Listener::Given(tcp) => tcp.accept().unwrap().0.write_all(b"tcp").unwrap(),
                    Listener::Unix(None, unix) => {
                        unix.accept().unwrap().0.write_all(b"unix").unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(Listener::inherited().unwrap().is_empty(), "they can be had once");
            return;
        }

        let directory = crate::directory::Directory::new();
        let path = directory.path("socket");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let mut clients: [Box<dyn Read>; 2] = [
            Box::new(TcpStream::connect(tcp.local_addr().unwrap()).unwrap()),
            Box::new(UnixStream::connect(&path).unwrap()),
        ];
        let mut child = Command::new("sh")
            .args(["-c", "LISTEN_PID=$$ exec \"$@\" 3<&0 4<&1 1>&2", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "listener::tests::inherited_sockets_are_served"])
            .env("LISTEN_FDS", "2")
            .env(IS_CHILD, "")
            .stdin(Stdio::from(OwnedFd::from(tcp)))
            .stdout(Stdio::from(OwnedFd::from(unix)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for (client, greeting) in clients.iter_mut().zip(["tcp", "unix"]) {
            let mut read = String::new();
            client.read_to_string(&mut read).unwrap();
            assert_eq!(read, greeting);
        }
        assert!(child.wait().unwrap().success());
    }
}
