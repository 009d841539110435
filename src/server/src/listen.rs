//! The two listeners: who may connect how often, how long, and in what form.

use crate::edge::Edge;
use crate::tls::{Contexts, Material, Side, TlsError, on_connect};
use crate::{guard, metrics, routes};
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// Waiting connections that the kernel keeps: a push makes thousands of devices call at once.
const BACKLOG: u32 = 2048;

/// Binds an address. Port 0 lets the system choose; ask the listener for it.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        if addr.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)?.into_std()
}

/// One of the two listeners, ready to be awaited.
pub fn server(
    edge: &web::Data<Edge>,
    side: Side,
    listener: TcpListener,
    contexts: &Arc<Contexts>,
    material: &Material,
) -> Result<Server, ListenError> {
    let limits = edge.config.limits;
    let workers = match limits.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        some => some,
    };
    let acceptor = contexts.acceptor(side, material)?;
    let edge = edge.clone();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(edge.clone())
            .configure(routes::defaults)
            .configure(|config| routes::configure(side, config))
            .wrap(from_fn(guard::watch))
    })
    .workers(workers)
    .max_connections(limits.connections.div_ceil(workers))
    .tls_handshake_timeout(Duration::from_secs(10))
    // For the request's head; bodies have their own time in `body::read`.
    .client_request_timeout(Duration::from_secs(15))
    .client_disconnect_timeout(Duration::from_secs(5))
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(limits.drain_seconds)
    .disable_signals()
    .on_connect(on_connect)
    .listen_openssl(listener, acceptor)?
    .run();
    Ok(server)
}

/// The metrics listener: plain HTTP, one page.
pub fn metrics_server(edge: &web::Data<Edge>, listener: TcpListener) -> io::Result<Server> {
    let drain_seconds = edge.config.limits.drain_seconds;
    let edge = edge.clone();
    let server = HttpServer::new(move || {
        App::new().app_data(edge.clone()).route("/metrics", web::get().to(metrics::page))
    })
    .workers(1)
    .max_connections(64)
    .shutdown_timeout(drain_seconds)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

/// A listener that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
}
