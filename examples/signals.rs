//! What the examples share: waiting to be told to stop.

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
///
/// # Panics
/// If the system lets us install no signal handlers.
pub async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate =
            signal(SignalKind::terminate()).expect("signal handlers can be installed");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.expect("signal handlers can be installed");
}
