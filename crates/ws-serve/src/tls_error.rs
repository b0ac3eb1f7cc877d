//! [`TlsError`]: why a certificate, a key or their files are not taken.
//!
//! Not its business: handshakes that fail, which are the clients' and end nothing but themselves.

use std::{error, fmt, io};

use tokio_rustls::rustls::{self, InconsistentKeys, pki_types::pem, server::VerifierBuilderError};

/// What is wrong with a certificate or a key. It names the file, if it came from one.
#[derive(Debug)]
pub struct TlsError {
    origin: String,
    cause: Cause,
}

#[derive(Debug)]
pub(crate) enum Cause {
    Unreadable(io::Error),
    Malformed(pem::Error),
    NoCertificate,
    NoKey,
    Refused(rustls::Error),
    Roots(VerifierBuilderError),
    /// Nothing to reload.
    NoFiles,
    /// Nothing to change, as the configuration is the user's.
    NotOurs,
}

impl TlsError {
    pub(crate) fn new(origin: impl fmt::Display, cause: Cause) -> Self {
        Self { origin: origin.to_string(), cause }
    }
}

impl Cause {
    /// What keeps us from reading a key.
    pub(crate) fn of_key(error: pem::Error) -> Self {
        match error {
            pem::Error::NoItemsFound => Self::NoKey,
            error => Self::Malformed(error),
        }
    }
}

impl error::Error for TlsError {}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            // As rustls-pki-types has it, these would be lists of numbers.
            Self::Malformed(pem::Error::MissingSectionEnd { end_marker }) => {
                write!(f, "is cut off: there is no {}", text(end_marker).trim_end())
            }
            Self::Malformed(pem::Error::IllegalSectionStart { line }) => {
                write!(f, "has a malformed line: {}", text(line).trim_end())
            }
            Self::Malformed(error) => write!(f, "is not PEM: {error}"),
            Self::NoCertificate => f.write_str("has no certificate (BEGIN CERTIFICATE)"),
            Self::NoKey => f.write_str(
                "has no private key (BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE \
                 KEY); an encrypted one must be decrypted first",
            ),
            Self::Refused(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                f.write_str("the key is not that of the first certificate")
            }
            Self::Refused(error) => error.fmt(f),
            Self::Roots(error) => error.fmt(f),
            Self::NoFiles => f.write_str("made without files, so there is nothing to reload"),
            Self::NotOurs => f.write_str(
                "made from a rustls configuration, which can only be replaced as a whole \
                 (replace_config)",
            ),
        }
    }
}

impl From<TlsError> for io::Error {
    /// So that it passes through a `main` that returns [`io::Result`].
    fn from(error: TlsError) -> Self {
        let kind = match &error.cause {
            Cause::Unreadable(error) => error.kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
