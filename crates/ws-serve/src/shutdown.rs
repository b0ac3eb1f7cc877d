//! [`Shutdown`]: the handle that ends a server gracefully.
//!
//! Not its business: what ending means, which is `accept.rs`.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::{CloseCode, CloseFrame, Text};

/// Ends a server: it stops accepting, answers handshakes in flight with 503, closes connections with
/// 1001, and waits for them, at most for [`Server::drain_timeout`](crate::Server::drain_timeout).
/// Cloning is cheap.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// # async fn handler(_: ws_serve::Socket) {}
/// let server = ws_serve::Server::bind("127.0.0.1:9001")?;
/// let shutdown = server.shutdown_handle();
/// tokio::spawn(async move {
///     let _ = tokio::signal::ctrl_c().await;
///     shutdown.start();
/// });
/// server.serve(handler).await // returns when everybody is gone
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    /// For those who will not wait.
    now: CancellationToken,
    frame: Arc<OnceLock<CloseFrame>>,
}

impl Shutdown {
    /// Starts the shutdown; connections are closed with 1001, "server is shutting down".
    pub fn start(&self) {
        self.start_with(CloseCode::GOING_AWAY, "server is shutting down");
    }

    /// Starts the shutdown with another close code, such as 1012 when the server will be back soon.
    /// The first call counts.
    pub fn start_with(&self, code: CloseCode, reason: impl Into<Text>) {
        let _ = self.frame.set(CloseFrame::new(code, reason));
        self.token.cancel();
    }

    /// Ends all connections at once, whether a shutdown has been started or not: what one does at the
    /// second signal.
    pub fn hurry(&self) {
        self.start();
        self.now.cancel();
    }

    /// Waits until there is a hurry.
    pub(crate) async fn hurried(&self) {
        self.now.cancelled().await;
    }

    /// Whether the shutdown has been started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the shutdown is started.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// The Close frame for connections that are open.
    pub(crate) fn frame(&self) -> CloseFrame {
        self.frame.get().cloned().unwrap_or_else(|| CloseCode::GOING_AWAY.into())
    }
}
