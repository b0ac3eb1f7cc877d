//! The manual: pages about what one wants to do, where the rest of the documentation is about what there is.
//!
//! - [`routing`]: paths and their handlers, plain HTTP, and which request gets which answer.
//! - [`broadcasting`]: one message to many, in which order, and what happens to slow clients.
//! - [`limits`]: every limit with its default, and how large a server can be.
//! - [`deployment`]: proxies, TLS, systemd, Kubernetes, restarts, monitoring.
//! - [`coming_from_python`]: websockets, flask-sock, simple-websocket and wsproto, side by side with this.
//!
//! The code on these pages is compiled with the tests. There is nothing to use in this module.

pub mod routing {
    #![doc = include_str!("../guide/routing.md")]
}

pub mod broadcasting {
    #![doc = include_str!("../guide/broadcasting.md")]
}

pub mod limits {
    #![doc = include_str!("../guide/limits.md")]
}

pub mod deployment {
    #![doc = include_str!("../guide/deployment.md")]
}

pub mod coming_from_python {
    #![doc = include_str!("../guide/coming_from_python.md")]
}

/// Asks a server for everything that the page on routing has in its table of answers.
#[cfg(doctest)]
#[doc = include_str!("../guide/answers.md")]
pub struct Answers;
