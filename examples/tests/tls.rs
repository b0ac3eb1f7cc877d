//! The `tls` example, with a certificate of its own and with files that change.
#![cfg(all(unix, feature = "tls"))]

mod support;

use std::{env::temp_dir, fs, path::PathBuf, process, sync::Arc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use support::{Example, http_over, within};

/// A file that is gone in the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(temp_dir().join(format!("ws-examples-{}-{name}", process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn secure(example: &Example, certificate: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate).expect("PEM")).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(example.address).await?;
    let name = "localhost".try_into().expect("a name");
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Asks over TLS, by HTTP and by WebSocket.
async fn check(example: &Example, certificate: &[u8]) {
    let connect = async || secure(example, certificate).await.expect("it is trusted");
    let answer = http_over(connect().await, "GET /health", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let opened = example.client("/ws").connect_over(connect().await).await;
    let (mut web, _) = opened.expect("it lets us in");
    web.send("hello").await.expect("it is open");
    assert_eq!(within(web.receive()).await.expect("no error"), Some("hello".into()));
}

#[tokio::test]
async fn made_up_certificate_can_be_trusted_by_its_file() {
    let file = Temporary::new("made-up.pem");
    let example = Example::start("tls", &["--save-cert", file.path()]);
    check(&example, &fs::read(&file.0).unwrap()).await;
    example.stop([]).await;
}

#[tokio::test]
async fn hangup_reads_the_files_again() {
    let (cert, key) = (Temporary::new("cert.pem"), Temporary::new("key.pem"));
    let renew = || {
        let CertifiedKey { cert: made, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&cert.0, made.pem()).unwrap();
        fs::write(&key.0, signing_key.serialize_pem()).unwrap();
        made.pem().into_bytes()
    };
    let old = renew();
    let mut example = Example::start("tls", &["--cert", cert.path(), "--key", key.path()]);
    check(&example, &old).await;
    let new = renew();
    example.signal("HUP");
    while !example.line().contains("new one") {}
    check(&example, &new).await;
    assert!(secure(&example, &old).await.is_err());
    example.stop([]).await;
}
