//! Sockets to one configured upstream: resolve, check the address, TCP, TLS, all within one deadline.
//!
//! Invariant: it connects to the host it was made for and to no other, whatever address a request carries; it knows no
//! proxy. A host name that turns out to be somewhere surprising is refused (see [`address`](super::address)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::{Reach, near};
use super::socket::Socket;
use super::tls;
use crate::clock;
use crate::config::checked::{Endpoint, Waits};
use crate::policy::types::Place;

/// A peer that vanished without a word is noticed after this and a few probes, even on an idle connection.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why there is no connection. `Display` has words for the caller: never a host.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Within the connect limit.
    #[error("no connection in time")]
    Timeout,
    /// The resolver said no.
    #[error("its name could not be resolved")]
    Resolve(#[source] io::Error),
    /// The resolver said something surprising.
    #[error("its name leads to an address that is not allowed for it")]
    Surprise,
    /// No address took the connection.
    #[error("the connection was refused or lost")]
    Tcp(#[source] io::Error),
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
}

/// Makes connections to one upstream.
#[derive(Clone)]
pub struct Connector(Arc<Target>);

struct Target {
    host: Host,
    port: u16,
    reach: Reach,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    wait: Duration,
}

/// A configured host.
enum Host {
    /// An address in the configuration is what the operator meant.
    Literal(IpAddr),
    /// `localhost` asks no resolver.
    Loopback,
    /// Resolved for each connection.
    Name(String),
}

impl Connector {
    /// Checks an endpoint from the configuration; the error is a sentence for the operator.
    pub fn new(endpoint: &Endpoint, place: Place, waits: &Waits) -> Result<Self, String> {
        let authority = endpoint.base.authority().ok_or("base_url has no host")?;
        if authority.as_str().contains('@') {
            return Err("base_url must not hold a user or password".to_owned());
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = match name.parse::<IpAddr>() {
            Ok(address) => Host::Literal(address),
            Err(_) if name.eq_ignore_ascii_case("localhost") => Host::Loopback,
            Err(_) => Host::Name(name.to_owned()),
        };
        let https = match endpoint.base.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("base_url must begin with https:// or http://".to_owned()),
        };
        if !https && !plain_is_fine(&host, place) {
            return Err("plain http is only for this machine and private networks: use https".to_owned());
        }
        let tls = if https { Some(tls::connector(endpoint.ca.as_deref(), name)?) } else { None };
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let reach = if place == Place::Local { Reach::Near } else { Reach::Public };
        Ok(Self(Arc::new(Target { host, port, reach, tls, wait: waits.connect })))
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Socket, ConnectError> {
        tokio::time::timeout(self.0.wait, self.0.connect()).await.map_err(|_| ConnectError::Timeout)?
    }

    /// The configured host as text, to be kept out of what clients see.
    pub fn host(endpoint: &Endpoint) -> String {
        endpoint.base.host().unwrap_or_default().to_owned()
    }
}

fn plain_is_fine(host: &Host, place: Place) -> bool {
    match host {
        Host::Literal(address) => near(*address),
        Host::Loopback => true,
        Host::Name(_) => place == Place::Local,
    }
}

impl Target {
    async fn connect(&self) -> Result<Socket, ConnectError> {
        let tcp = self.tcp(&self.addresses().await?).await?;
        let Some((connector, name)) = &self.tls else { return Ok(Socket::plain(tcp)) };
        let tls = connector.connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        Ok(Socket::tls(tls))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let at = |ip: IpAddr| SocketAddr::new(ip, self.port);
        let name = match &self.host {
            Host::Literal(ip) => return Ok(vec![at(*ip)]),
            Host::Loopback => return Ok(vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())]),
            Host::Name(name) => name.as_str(),
        };
        let found = tokio::net::lookup_host((name, self.port)).await.map_err(ConnectError::Resolve)?;
        let expected: Vec<SocketAddr> = found.filter(|found| self.reach.allows(found.ip())).collect();
        if expected.is_empty() { Err(ConnectError::Surprise) } else { Ok(expected) }
    }

    /// Tries the addresses in order, each with a fair share of the time that is left.
    async fn tcp(&self, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let deadline = clock::now() + self.wait;
        let mut last = ConnectError::Timeout;
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(clock::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
                    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                    SockRef::from(&tcp).set_tcp_keepalive(&keepalive).map_err(ConnectError::Tcp)?;
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = ConnectError::Tcp(error),
                Err(_) => {}
            }
        }
        Err(last)
    }
}
