//! [`Tls`]: a server's certificate, and the TLS handshake.
//!
//! Not its business: how long a handshake may take (`accept.rs` has one deadline for all of the
//! opening), and the bytes after it (`transport.rs`).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{
            ClientCertVerifierBuilder, ResolvesServerCert, VerifierBuilderError,
            WebPkiClientVerifier, danger::ClientCertVerifier,
        },
        sign::{CertifiedKey, SingleCertAndKey},
    },
    server::TlsStream,
};

use crate::{TlsError, tls_error::Cause};

/// A server's certificate and settings for TLS; a handle, whose clones share what is replaced.
///
/// TLS 1.2 and 1.3 with the algorithms that rustls holds safe, computed by `ring`, whatever provider
/// the process has installed or not. Of the protocols that may follow (ALPN) only `http/1.1` is
/// spoken, so that a client that wants nothing but HTTP/2 is refused. For other wishes there is
/// [`from_config`](Self::from_config).
///
/// # Renewing the certificate
///
/// [`reload`](Self::reload) and [`replace_pem`](Self::replace_pem) are for the handshakes to come;
/// open connections keep going, and sessions from before are not resumed. If what they are given is
/// no good, the certificate that was there stays.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    config: RwLock<Arc<ServerConfig>>,
}

/// What a new configuration is made from.
enum Source {
    Pem {
        files: Option<Files>,
        clients: Arc<dyn ClientCertVerifier>,
    },
    /// The user makes it.
    Config,
}

#[derive(Clone)]
struct Files {
    certificates: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// A certificate with those that vouch for it, the server's own first, and its private key.
    ///
    /// # Errors
    /// If one of them is not PEM, or if the key is not the certificate's.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::new(None, certificates, key)
    }

    /// As [`from_pem`](Self::from_pem), from two files, which can be [reloaded](Self::reload).
    ///
    /// # Errors
    /// As there, and if a file cannot be read.
    pub fn from_files(
        certificates: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let files = Files { certificates: certificates.into(), key: key.into() };
        let (certificates, key) = files.read()?;
        Self::new(Some(files), &certificates, &key)
    }

    /// A configuration of rustls as it is: its certificates, its provider, and its ALPN, which should
    /// have nothing but `http/1.1`.
    #[must_use]
    pub fn from_config(config: Arc<ServerConfig>) -> Self {
        Self::with(Source::Config, config)
    }

    /// Lets in only clients with a certificate that one of these vouches for. The result shares
    /// nothing with handles that were cloned before.
    ///
    /// # Errors
    /// If it is not PEM, or without a certificate, or if this is a configuration of rustls.
    pub fn client_certificates(self, roots: &[u8]) -> Result<Self, TlsError> {
        self.with_clients(verifier(roots)?.build())
    }

    /// As [`client_certificates`](Self::client_certificates), but a client without any is let in,
    /// too.
    ///
    /// # Errors
    /// As there.
    pub fn optional_client_certificates(self, roots: &[u8]) -> Result<Self, TlsError> {
        self.with_clients(verifier(roots)?.allow_unauthenticated().build())
    }

    /// Reads the files again, for the handshakes to come. Blocks while it reads.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files), or if this was not made from files; what was there stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Source::Pem { files: Some(files), .. } = &self.shared.source else {
            return Err(TlsError::new(SETTINGS, Cause::NoFiles));
        };
        let (certificates, key) = files.read()?;
        self.replace(Some(files), &certificates, &key)
    }

    /// Takes another certificate and key, for the handshakes to come.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), or if this is a configuration of rustls; what was there stays.
    pub fn replace_pem(&self, certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.replace(None, certificates, key)
    }

    /// Takes another configuration of rustls, for the handshakes to come.
    ///
    /// On a handle that was made from PEM it lasts until the next [`reload`](Self::reload) or
    /// [`replace_pem`](Self::replace_pem).
    pub fn replace_config(&self, config: Arc<ServerConfig>) {
        // A thread that panicked while it held this lock has at worst not replaced it.
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Shakes hands, for as long as the client takes.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.config()).accept(stream).await
    }

    fn new(files: Option<Files>, certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let clients = WebPkiClientVerifier::no_client_auth();
        let resolver = resolver(files.as_ref(), certificates, key)?;
        let config = configure(Arc::clone(&clients), resolver)?;
        Ok(Self::with(Source::Pem { files, clients }, config))
    }

    fn with(source: Source, config: Arc<ServerConfig>) -> Self {
        Self { shared: Arc::new(Shared { source, config: RwLock::new(config) }) }
    }

    fn with_clients(
        self,
        clients: Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError>,
    ) -> Result<Self, TlsError> {
        let clients = clients.map_err(|error| TlsError::new(ROOTS, Cause::Roots(error)))?;
        let Source::Pem { files, .. } = &self.shared.source else {
            return Err(TlsError::new(SETTINGS, Cause::NotOurs));
        };
        let source = Source::Pem { files: files.clone(), clients: Arc::clone(&clients) };
        let resolver = Arc::clone(&self.config().cert_resolver);
        Ok(Self::with(source, configure(clients, resolver)?))
    }

    fn replace(
        &self,
        files: Option<&Files>,
        certificates: &[u8],
        key: &[u8],
    ) -> Result<(), TlsError> {
        let Source::Pem { clients, .. } = &self.shared.source else {
            return Err(TlsError::new(SETTINGS, Cause::NotOurs));
        };
        let resolver = resolver(files, certificates, key)?;
        self.replace_config(configure(Arc::clone(clients), resolver)?);
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Tls");
        if let Source::Pem { files: Some(files), .. } = &self.shared.source {
            debug.field("certificates", &files.certificates).field("key", &files.key);
        }
        debug.finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| TlsError::new(path.display(), Cause::Unreadable(error)))
        };
        Ok((read(&self.certificates)?, read(&self.key)?))
    }
}

fn configure(
    clients: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(SETTINGS, Cause::Refused(error)))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate and the key, if they belong together.
fn resolver(
    files: Option<&Files>,
    certificates: &[u8],
    key: &[u8],
) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    let (chain_origin, key_origin) = match files {
        Some(Files { certificates, key }) => {
            (certificates.display().to_string(), key.display().to_string())
        }
        None => ("certificate".to_owned(), "private key".to_owned()),
    };
    let chain = read_certificates(&chain_origin, certificates)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| TlsError::new(&key_origin, Cause::of_key(error)))?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
        TlsError::new(format_args!("{chain_origin} with {key_origin}"), Cause::Refused(error))
    })?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn verifier(roots: &[u8]) -> Result<ClientCertVerifierBuilder, TlsError> {
    let mut store = RootCertStore::empty();
    for root in read_certificates(ROOTS, roots)? {
        store.add(root).map_err(|error| TlsError::new(ROOTS, Cause::Refused(error)))?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider()))
}

fn read_certificates(origin: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::new(origin, Cause::Malformed(error)))?;
    if chain.is_empty() {
        return Err(TlsError::new(origin, Cause::NoCertificate));
    }
    Ok(chain)
}

/// Named, because what rustls would do without is to panic if the process has installed none, or
/// if other crates have made it ambiguous.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

const ROOTS: &str = "certificates for clients";
const SETTINGS: &str = "TLS settings";

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::{TlsConnector, client};

    use super::*;
    use crate::{
        directory::Directory,
        pki::{Identity, connector},
    };

    type Client = client::TlsStream<TcpStream>;
    type Server = TlsStream<TcpStream>;

    fn tls_of(identity: &Identity) -> Tls {
        Tls::from_pem(identity.certificate.as_bytes(), identity.key.as_bytes()).unwrap()
    }

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    async fn handshake(
        tls: &Tls,
        connector: &TlsConnector,
    ) -> (io::Result<Client>, io::Result<Server>) {
        let (client, server) = tcp_pair().await;
        let name = "localhost".try_into().unwrap();
        tokio::join!(connector.connect(name, client), tls.accept(server))
    }

    /// Shakes hands and answers what certificate the server showed.
    async fn connect(
        tls: &Tls,
        connector: &TlsConnector,
    ) -> (Client, Server, CertificateDer<'static>) {
        let (client, server) = handshake(tls, connector).await;
        let client = client.unwrap();
        let shown = client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        (client, server.unwrap(), shown)
    }

    async fn check_alive(client: &mut Client, server: &mut Server) {
        client.write_all(b"still").await.unwrap();
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).await.unwrap();
        server.write_all(&bytes).await.unwrap();
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"still");
    }

    #[tokio::test]
    async fn http_1_1_is_what_is_agreed_on() {
        let identity = Identity::new();
        let connector = connector(&[&identity], None, &["h2", "http/1.1"]);
        let (client, server, _) = connect(&tls_of(&identity), &connector).await;
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(server.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    }

    #[tokio::test]
    async fn a_client_without_alpn_is_let_in() {
        let identity = Identity::new();
        connect(&tls_of(&identity), &connector(&[&identity], None, &[])).await;
    }

    #[tokio::test]
    async fn a_client_that_wants_only_http_2_is_refused() {
        let identity = Identity::new();
        let connector = connector(&[&identity], None, &["h2"]);
        let (client, server) = handshake(&tls_of(&identity), &connector).await;
        client.unwrap_err();
        server.unwrap_err();
    }

    #[tokio::test]
    async fn a_plain_client_is_refused() {
        let (mut client, server) = tcp_pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = tls_of(&Identity::new()).accept(server).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_keeps_nobody_waiting() {
        let identity = Identity::new();
        let tls = tls_of(&identity);
        let (_silent, server) = tcp_pair().await;
        let waiting = tokio::spawn({
            let tls = tls.clone();
            async move { tls.accept(server).await }
        });
        connect(&tls, &connector(&[&identity], None, &[])).await;
        assert!(!waiting.is_finished());
        waiting.abort();
    }

    #[tokio::test]
    async fn a_reload_is_for_new_connections() {
        let (old, new) = (Identity::new(), Identity::new());
        let directory = Directory::new();
        let (certificates, key) = (directory.path("cert.pem"), directory.path("key.pem"));
        let write = |certificate: &str, private: &str| {
            fs::write(&certificates, certificate).unwrap();
            fs::write(&key, private).unwrap();
        };
        write(&old.certificate, &old.key);
        let tls = Tls::from_files(&certificates, &key).unwrap();
        // The same client, so that it would resume its session if it could.
        let connector = connector(&[&old, &new], None, &[]);
        let (mut client, mut server, shown) = connect(&tls, &connector).await;
        assert_eq!(shown, old.der());
        check_alive(&mut client, &mut server).await;

        // Half renewed, broken, gone: what was there stays.
        for (certificate, private, complaint) in [
            (&*new.certificate, &*old.key, "the key is not that of the first certificate"),
            (&new.certificate[..99], &*new.key, "cert.pem: is cut off"),
            ("", &*new.key, "cert.pem: has no certificate"),
            (&*new.certificate, "", "key.pem: has no private key"),
        ] {
            write(certificate, private);
            let error = tls.reload().unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        fs::remove_file(&key).unwrap();
        let error = tls.reload().unwrap_err();
        assert!(error.to_string().contains("key.pem: cannot be read"), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
        assert_eq!(connect(&tls, &connector).await.2, old.der());

        write(&new.certificate, &new.key);
        tls.clone().reload().unwrap();
        assert_eq!(connect(&tls, &connector).await.2, new.der());
        check_alive(&mut client, &mut server).await;
    }

    #[tokio::test]
    async fn a_certificate_can_be_replaced_from_memory() {
        let (old, new) = (Identity::new(), Identity::new());
        let tls = tls_of(&old);
        let connector = connector(&[&old, &new], None, &[]);
        tls.replace_pem(b"", new.key.as_bytes()).unwrap_err();
        tls.replace_pem(old.certificate.as_bytes(), new.key.as_bytes()).unwrap_err();
        assert_eq!(connect(&tls, &connector).await.2, old.der());
        tls.replace_pem(new.certificate.as_bytes(), new.key.as_bytes()).unwrap();
        assert_eq!(connect(&tls, &connector).await.2, new.der());
        assert!(tls.reload().is_err(), "there are no files");
    }

    #[test]
    fn a_key_of_another_certificate_is_noticed_at_once() {
        let (one, other) = (Identity::new(), Identity::new());
        let error = Tls::from_pem(one.certificate.as_bytes(), other.key.as_bytes()).unwrap_err();
        assert!(error.to_string().ends_with("the key is not that of the first certificate"));
    }

    #[test]
    fn a_certificate_that_is_none_is_noticed_at_once() {
        let identity = Identity::new();
        let noise = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        Tls::from_pem(noise, identity.key.as_bytes()).unwrap_err();
        Tls::from_pem(b"-----BEGIN CERT", identity.key.as_bytes()).unwrap_err();
        Tls::from_pem(identity.key.as_bytes(), identity.certificate.as_bytes()).unwrap_err();
    }

    #[tokio::test]
    async fn a_certificate_is_demanded_of_clients() {
        let (server, friend, stranger) = (Identity::new(), Identity::new(), Identity::new());
        let tls = tls_of(&server).client_certificates(friend.certificate.as_bytes()).unwrap();
        let accept = async |identity: Option<&Identity>| {
            handshake(&tls, &connector(&[&server], identity, &[])).await.1
        };
        accept(None).await.unwrap_err();
        accept(Some(&stranger)).await.unwrap_err();
        let stream = accept(Some(&friend)).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), [friend.der()]);

        // It still is with a new certificate of ours.
        tls.replace_pem(server.certificate.as_bytes(), server.key.as_bytes()).unwrap();
        accept(None).await.unwrap_err();
        accept(Some(&friend)).await.unwrap();
    }

    #[tokio::test]
    async fn a_certificate_may_be_optional() {
        let (server, friend, stranger) = (Identity::new(), Identity::new(), Identity::new());
        let roots = friend.certificate.as_bytes();
        let tls = tls_of(&server).optional_client_certificates(roots).unwrap();
        let accept = async |identity: Option<&Identity>| {
            handshake(&tls, &connector(&[&server], identity, &[])).await.1
        };
        accept(None).await.unwrap();
        accept(Some(&friend)).await.unwrap();
        accept(Some(&stranger)).await.unwrap_err();
    }

    #[test]
    fn roots_without_a_certificate_are_an_error() {
        let error = tls_of(&Identity::new()).client_certificates(b"").unwrap_err();
        assert!(error.to_string().starts_with("certificates for clients: has no certificate"));
    }

    #[tokio::test]
    async fn a_configuration_of_rustls_is_only_replaced_as_a_whole() {
        let (old, new) = (Identity::new(), Identity::new());
        let tls = Tls::from_config(tls_of(&old).config());
        let connector = connector(&[&old, &new], None, &[]);
        tls.replace_pem(new.certificate.as_bytes(), new.key.as_bytes()).unwrap_err();
        tls.reload().unwrap_err();
        tls.clone().client_certificates(new.certificate.as_bytes()).unwrap_err();
        assert_eq!(connect(&tls, &connector).await.2, old.der());
        tls.replace_config(tls_of(&new).config());
        assert_eq!(connect(&tls, &connector).await.2, new.der());
    }
}
