//! What every handler can reach.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::tls::Peer;
use actix_web::HttpRequest;
use bellwether_engine::Engine;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most bytes of request bodies that are held in memory at one time, all connections together.
const BODY_BUDGET: usize = 512 * 1024 * 1024;

/// Most bytes of devices' uploads that are held in memory at one time: 128 uploads, with two pieces each.
const PIECE_BUDGET: usize = 256 * 1024 * 1024;

/// The server as its handlers see it.
pub struct Edge {
    /// The use cases.
    pub engine: Arc<Engine>,
    /// The configuration.
    pub config: Config,
    /// `https://…` without a slash at the end.
    pub public_url: String,
    /// The same for the device listener.
    pub device_url: String,
    /// Our own TLS CA, when the server's certificate stands under it.
    pub tls_ca: Option<Vec<u8>>,
    /// Counters.
    pub metrics: Metrics,
    budget: Arc<AtomicUsize>,
    uploads: Arc<AtomicUsize>,
    pieces: Arc<AtomicUsize>,
    farewell: AtomicBool,
}

/// Part of the memory for bodies, given back when dropped.
pub struct Reservation {
    budget: Arc<AtomicUsize>,
    most: usize,
    bytes: usize,
}

impl Edge {
    /// A server around an engine.
    pub fn new(
        engine: Arc<Engine>,
        config: Config,
        public_url: String,
        device_url: String,
        tls_ca: Option<Vec<u8>>,
    ) -> Self {
        Self {
            engine,
            config,
            public_url,
            device_url,
            tls_ca,
            metrics: Metrics::default(),
            budget: Arc::new(AtomicUsize::new(0)),
            uploads: Arc::new(AtomicUsize::new(0)),
            pieces: Arc::new(AtomicUsize::new(0)),
            farewell: AtomicBool::new(false),
        }
    }

    /// The server is about to stop: from now on each answer ends its connection.
    pub fn say_farewell(&self) {
        self.farewell.store(true, Ordering::Release);
    }

    /// Whether an answer ends its connection.
    pub fn says_farewell(&self) -> bool {
        self.farewell.load(Ordering::Acquire)
    }

    /// Who is on the other end, as an address. Forwarded headers count only behind a trusted proxy, and from the
    /// right: the first address that no trusted proxy vouches for is the client.
    pub fn source(&self, req: &HttpRequest) -> Option<String> {
        let peer = req.conn_data::<Peer>().and_then(|p| p.addr).or_else(|| req.peer_addr())?.ip();
        let forwarded = req.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        Some(self.client_behind(peer, &hops).to_canonical().to_string())
    }

    /// Whether the connection itself comes from a trusted proxy. Only its headers may speak for a client.
    pub fn is_behind_proxy(&self, req: &HttpRequest) -> bool {
        let peer = req.conn_data::<Peer>().and_then(|peer| peer.addr).or_else(|| req.peer_addr());
        peer.is_some_and(|peer| self.trusts(peer.ip()))
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.config.trusted_proxies.iter().any(|network| network.contains(ip))
    }

    fn client_behind(&self, peer: IpAddr, hops: &[&str]) -> IpAddr {
        let mut client = peer;
        for hop in hops.iter().rev() {
            if !self.trusts(client) {
                break;
            }
            match hop.parse() {
                Ok(ip) => client = ip,
                Err(_) => break,
            }
        }
        client
    }

    /// Memory for a body; grows with it.
    pub fn reserve(&self) -> Reservation {
        Reservation { budget: Arc::clone(&self.budget), most: BODY_BUDGET, bytes: 0 }
    }

    /// Memory for a package that is uploaded. Its own: an upload takes nothing from devices.
    pub fn reserve_upload(&self) -> Reservation {
        Reservation { budget: Arc::clone(&self.uploads), most: self.config.limits.package_body, bytes: 0 }
    }

    /// Memory for a piece of what a device uploads.
    pub fn reserve_piece(&self) -> Reservation {
        Reservation { budget: Arc::clone(&self.pieces), most: PIECE_BUDGET, bytes: 0 }
    }
}

impl Reservation {
    /// Of a memory of its own.
    #[cfg(test)]
    pub fn of(most: usize) -> Self {
        Self { budget: Arc::default(), most, bytes: 0 }
    }

    /// Takes more; false when the memory for bodies is used up.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.most {
            self.budget.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_51_memory_for_bodies_is_shared_and_given_back() {
        let mut one = Reservation::of(10);
        let mut two = Reservation { budget: Arc::clone(&one.budget), most: 10, bytes: 0 };
        assert!(one.grow(6) && !two.grow(5) && two.grow(4) && !one.grow(1));
        drop(one);
        assert!(two.grow(6) && !two.grow(1));
    }
}
