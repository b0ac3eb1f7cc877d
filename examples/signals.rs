//! What the examples share: being told to stop.

use std::io;

use ws_serve::Shutdown;

/// Ends a server when the process is told to: the first SIGTERM or Ctrl-C starts the shutdown, the
/// second one is for those who will not wait, and ends all connections at once.
///
/// # Errors
/// If the system lets us install no signal handlers.
pub fn stop_on_signals(shutdown: Shutdown) -> io::Result<()> {
    let mut signals = StopSignals::install()?;
    tokio::spawn(async move {
        signals.next().await;
        shutdown.start();
        signals.next().await;
        shutdown.hurry();
    });
    Ok(())
}

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
///
/// # Panics
/// If the system lets us install no signal handlers.
pub async fn stop_signal() {
    StopSignals::install().expect("signal handlers can be installed").next().await;
}

/// Installed once and kept, so that no signal falls between two of them.
struct StopSignals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl StopSignals {
    fn install() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let interrupt = signal(SignalKind::interrupt())?;
            Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(windows)]
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(windows)]
        self.interrupt.recv().await;
    }
}
