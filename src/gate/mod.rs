//! The gate: who is asking, may they, and is there room. First stage of the request path, before the body is read.
//!
//! Invariant: a [`Seat`] is one request in flight, counted until it is dropped with the last byte of its answer, and
//! there are never more seats than `limits.in_flight`, nor of one tenant more than `limits.tenant_in_flight`. Who finds
//! no room is refused at once; nothing waits here, so that nobody can wait for ever behind another tenant's queue.
//! Nothing a client writes can name a host: this module reads a key, `Host` and `Origin`, and no routing header.

mod conn;
mod key;
mod origin;
mod room;

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::config::Config;
use crate::config::checked::{ClientKey, Limits, Server};
use crate::fault::Fault;

use room::{Place, Room};

pub use conn::Conn;
pub use key::{KEY_BYTES, OPEN_TENANT};
pub use origin::check_local;

/// Who may ask, and how many at once.
pub struct Gate {
    keys: key::Keys,
    /// The listener is reachable from this machine only.
    loopback: bool,
    room: Arc<Room>,
}

/// A request that was let in. Dropping it makes room for another.
#[derive(Debug)]
pub struct Seat {
    /// Whose key it was; journal, cache and metrics label.
    pub tenant: Arc<str>,
    /// This caller's queries never leave the machine.
    pub private: bool,
    _places: [Place; 2],
}

/// Why a gate cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Anybody could use it.
    #[error(
        "server.listen = {0} can be reached from other machines, but server.keys is empty: add a client key, or listen on 127.0.0.1"
    )]
    OpenToAll(SocketAddr),
}

impl Gate {
    /// A gate for the data plane.
    pub fn new(config: &Config) -> Result<Self, GateError> {
        Self::of(&config.server, &config.limits)
    }

    /// A gate for one listener.
    pub fn of(server: &Server, limits: &Limits) -> Result<Self, GateError> {
        Self::with(server.listen, &server.keys, limits.in_flight, limits.tenant_in_flight)
    }

    fn with(listen: SocketAddr, keys: &[ClientKey], seats: usize, of_tenant: usize) -> Result<Self, GateError> {
        let keys = key::Keys::new(keys, of_tenant);
        let loopback = listen.ip().is_loopback();
        if keys.is_open() && !loopback {
            return Err(GateError::OpenToAll(listen));
        }
        Ok(Self { keys, loopback, room: Room::new(seats) })
    }

    /// Lets a request in, or says why not. Looks at the head only.
    pub fn admit(&self, head: &Parts, _conn: &Conn) -> Result<Seat, Fault> {
        self.check(head)?;
        let tenant = self.keys.tenant(&head.headers)?;
        let own = tenant.room.take("too many requests of this tenant in flight")?;
        let place = self.room.take("too many requests in flight")?;
        Ok(Seat { tenant: tenant.name.clone(), private: tenant.private, _places: [own, place] })
    }

    /// The part of [`Gate::admit`] that also holds for requests that need no key and no room, such as `/healthz`.
    pub fn check(&self, head: &Parts) -> Result<(), Fault> {
        if self.loopback { check_local(&head.uri, &head.headers) } else { Ok(()) }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.room.taken()
    }

    /// Whether the next request would be shed.
    pub fn is_full(&self) -> bool {
        self.room.is_full()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Request;

    use super::room::RETRY_AFTER;
    use super::*;
    use crate::fault::Kind;

    const CONN: Conn =
        Conn { peer: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1), tls: false };

    fn head(host: &str, key: Option<&str>) -> Parts {
        let mut request = Request::get("/v1/models").header("host", host);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.body(()).unwrap().into_parts().0
    }

    fn key(tenant: &str, text: &str) -> ClientKey {
        ClientKey { tenant: tenant.into(), hash: *blake3::hash(text.as_bytes()).as_bytes(), private: true }
    }

    fn keyed(listen: &str, seats: usize) -> Gate {
        Gate::with(listen.parse().unwrap(), &[key("alice", "secret")], seats, seats).unwrap()
    }

    #[test]
    fn without_keys_only_a_loopback_listener_opens() {
        for open in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:8080"] {
            assert!(Gate::with(open.parse().unwrap(), &[], 1, 1).is_ok(), "{open}");
        }
        for public in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80", "[::ffff:127.0.0.1]:80"] {
            let error = Gate::with(public.parse().unwrap(), &[], 1, 1).err().unwrap();
            assert!(error.to_string().contains("server.keys"), "{error}");
        }
    }

    #[test]
    fn an_open_gate_admits_local_callers_whatever_key_they_send() {
        let gate = Gate::with("127.0.0.1:0".parse().unwrap(), &[], 4, 4).unwrap();
        let seat = gate.admit(&head("localhost:1", Some("unused")), &CONN).unwrap();
        assert_eq!((&*seat.tenant, seat.private), (OPEN_TENANT, false));
        assert_eq!(gate.admit(&head("evil.example", None), &CONN).unwrap_err().kind, Kind::Forbidden);
    }

    #[test]
    fn a_keyed_gate_asks_for_a_key_and_a_public_one_takes_any_host() {
        let gate = keyed("0.0.0.0:80", 4);
        let seat = gate.admit(&head("gateway.example", Some("secret")), &CONN).unwrap();
        assert_eq!((&*seat.tenant, seat.private), ("alice", true));
        assert_eq!(gate.admit(&head("gateway.example", None), &CONN).unwrap_err().kind, Kind::Unauthorized);
        // Host is looked at before the key, so a rebinding page learns nothing about keys.
        let local = keyed("127.0.0.1:80", 4);
        assert_eq!(local.admit(&head("evil.example", Some("secret")), &CONN).unwrap_err().kind, Kind::Forbidden);
    }

    #[test]
    fn the_last_seat_plus_one_is_shed_and_a_dropped_seat_makes_room() {
        let gate = keyed("127.0.0.1:80", 2);
        let admit = || gate.admit(&head("localhost", Some("secret")), &CONN);
        let (first, _second) = (admit().unwrap(), admit().unwrap());
        assert!(gate.is_full());
        let shed = admit().unwrap_err();
        assert_eq!((shed.kind, shed.retry_after), (Kind::Overloaded, Some(RETRY_AFTER)));
        assert_eq!(gate.in_flight(), 2);
        drop(first);
        assert!(admit().is_ok());
    }

    #[test]
    fn one_tenant_cannot_take_the_seats_of_another() {
        let keys = [key("alice", "first"), key("alice", "second"), key("bob", "other")];
        let gate = Gate::with("127.0.0.1:80".parse().unwrap(), &keys, 3, 2).unwrap();
        let admit = |key| gate.admit(&head("localhost", Some(key)), &CONN);
        let (one, _two) = (admit("first").unwrap(), admit("second").unwrap());
        for key in ["first", "second"] {
            let shed = admit(key).unwrap_err();
            assert_eq!((shed.kind, shed.retry_after), (Kind::Overloaded, Some(RETRY_AFTER)));
        }
        let other = admit("other").unwrap();
        assert!(gate.is_full() && admit("other").is_err(), "the house is full");
        drop(other);
        assert_eq!(gate.in_flight(), 2, "whoever was refused holds nothing");
        drop(one);
        assert!(admit("first").is_ok());
    }

    #[test]
    fn refused_callers_take_no_seat() {
        let gate = keyed("127.0.0.1:80", 1);
        for _ in 0..10 {
            assert!(gate.admit(&head("localhost", Some("wrong")), &CONN).is_err());
        }
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn seats_are_never_oversold_across_threads() {
        let gate = keyed("127.0.0.1:80", 3);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Ok(_seat) = gate.admit(&head("localhost", Some("secret")), &CONN) {
                            most.fetch_max(gate.in_flight(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(most.load(Ordering::Relaxed) <= 3);
        assert_eq!(gate.in_flight(), 0);
    }
}
