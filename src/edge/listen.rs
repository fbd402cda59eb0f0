//! Opening the listener: one socket per worker on the same port, and a clear word when the port is taken.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that the kernel keeps for us while we are at our own limit.
const BACKLOG: i32 = 1024;
/// The kernel's buffer for what a client has not read (it doubles the figure): enough for a stream, and a bound on what
/// one that stops reading costs.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// A peer that vanished without a word is noticed after this.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Listening sockets, one per worker, all on one address.
#[derive(Debug)]
pub struct Bound {
    addr: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error(
        "{0} is already in use: stop the program that listens there, or choose another address with server.listen or server.admin (port 0 takes any free one)"
    )]
    InUse(SocketAddr),
    /// A port below 1024, usually.
    #[error(
        "{0} may not be listened on by this user: choose a port from 1024 up, or grant the right to bind low ports"
    )]
    Denied(SocketAddr),
    /// The address is not this machine's.
    #[error("{0} is not an address of this machine: use 127.0.0.1, 0.0.0.0 or an address of one of its interfaces")]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, io::Error),
}

/// Listens on `listen` with one socket for each of `workers`. Nothing is accepted yet.
pub fn bind(listen: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    bind_all(listen, workers.max(1)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(listen),
        io::ErrorKind::PermissionDenied => BindError::Denied(listen),
        io::ErrorKind::AddrNotAvailable => BindError::NotHere(listen),
        _ => BindError::Other(listen, error),
    })
}

fn bind_all(listen: SocketAddr, workers: usize) -> io::Result<Bound> {
    if workers == 1 {
        let socket = open(listen, false)?;
        return Ok(Bound { addr: socket.local_addr()?, sockets: vec![socket] });
    }
    // Sockets that share a port also share it with another instance of this program, which would then take half of our
    // connections. A socket that does not share finds out whether anybody is there.
    if listen.port() != 0 {
        drop(open(listen, false)?);
    }
    let first = open(listen, true)?;
    let addr = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(open(addr, true)?);
    }
    Ok(Bound { addr, sockets })
}

fn open(listen: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an instance that has just ended do not keep the port; a listening one does.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if listen.is_ipv6() {
        socket.set_only_v6(false).or_else(|_| socket.set_only_v6(true))?;
    }
    // Accepted sockets inherit these.
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Bound {
    /// The address, with the port that was given for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: &str = "127.0.0.1:0";

    #[test]
    fn workers_share_one_port() {
        let bound = bind(ANY.parse().unwrap(), 3).unwrap();
        assert_ne!(bound.addr().port(), 0);
        assert_eq!(bound.sockets.len(), 3);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.addr());
        }
    }

    #[test]
    fn a_taken_port_is_found_out_whoever_shares_it() {
        for (theirs, ours) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let there = bind(ANY.parse().unwrap(), theirs).unwrap();
            let error = bind(there.addr(), ours).unwrap_err();
            assert!(matches!(error, BindError::InUse(_)), "{theirs} then {ours}: {error}");
            assert!(error.to_string().contains(&there.addr().to_string()), "{error}");
        }
    }

    #[test]
    fn a_foreign_address_is_named() {
        let error = bind("192.0.2.1:0".parse().unwrap(), 2).unwrap_err();
        assert!(matches!(error, BindError::NotHere(_)), "{error}");
    }
}
