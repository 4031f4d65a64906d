//! TLS with real certificates and a real client: who is let in, who is named, and what a reload changes.

use super::*;
use std::path::Path;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion, crypto::ring, version,
};
use whydown_lab::{Authority, Papers, Term};

const SHORT: Duration = Duration::from_millis(200);

/// An authority, a host with its certificate, and a server.
struct Host {
    folder: TempDir,
    authority: Authority,
    tls: Arc<Tls>,
    server: Server,
}

fn issue_host(authority: &Authority, name: &str, folder: &Path) {
    authority.issue(name, &["127.0.0.1"], Term::Now).unwrap().write(folder, "host").unwrap();
}

impl Host {
    async fn start(limits: Limits) -> Self {
        Self::serve(Echo::default(), limits).await
    }

    async fn serve(service: Echo, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("the authority").unwrap();
        issue_host(&authority, "host.example", folder.path());
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let tls = Arc::new(Tls::new(TlsFiles {
            certificate: folder.path().join("host-cert.pem"),
            key: folder.path().join("host-key.pem"),
            ca: folder.path().join("ca.pem"),
        }));
        tls.load().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let listener = Listener::Tls(listener, Arc::clone(&tls));
        let task = tokio::spawn(serve(listener, service.service(), limits, shutdown));
        Self { folder, authority, tls, server: Server { address, stop: Some(stop), task } }
    }

    fn engine(&self) -> Papers {
        self.authority.issue("engine.example", &[], Term::Now).unwrap()
    }

    fn client(
        &self,
        papers: Option<&Papers>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        TlsConnector::from(Arc::new(match papers {
            None => builder.with_no_client_auth(),
            Some(papers) => {
                let chain = vec![CertificateDer::from_pem_slice(papers.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }))
    }

    async fn try_connect(&self, client: &TlsConnector) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(self.server.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        patiently(client.connect(name, stream)).await.map(Client::new)
    }

    async fn connect(&self, papers: &Papers) -> Client<TlsStream<TcpStream>> {
        self.try_connect(&self.client(Some(papers), &[&version::TLS13])).await.unwrap()
    }

    /// Who the server says one is, or `None` if it lets nobody in. In TLS 1.3 the client may speak before it is judged.
    async fn peer(&self, client: &TlsConnector) -> Option<String> {
        let mut client = self.try_connect(client).await.ok()?;
        let _ = client.stream.write_all(get("/v1/peer").as_bytes()).await;
        client.more().await.then_some(())?;
        Some(client.response().await.text().to_owned())
    }
}

/// The common name that the server shows.
fn shown(client: &Client<TlsStream<TcpStream>>) -> String {
    let chain = client.stream.get_ref().1.peer_certificates().unwrap();
    identity::Identity::of(&chain[0]).unwrap().0.to_string()
}

async fn echoes(client: &mut Client<TlsStream<TcpStream>>, word: &str) {
    client.send(post(word)).await;
    assert_eq!(client.response().await.text(), word);
}

#[tokio::test]
async fn a_client_with_a_certificate_of_the_authority_comes_in_and_is_named() {
    let host = Host::start(Limits::default()).await;
    for versions in [&version::TLS12, &version::TLS13] {
        let peer = host.peer(&host.client(Some(&host.engine()), &[versions])).await.unwrap();
        assert!(peer.starts_with("engine.example at 127.0.0.1:"), "{peer}");
    }
    let names = [
        (host.authority.issue("", &["spiffe://a/b", "dns.example"], Term::Now).unwrap(), "spiffe://a/b at "),
        (host.authority.issue("bad\u{1b}[1m", &["good.example"], Term::Now).unwrap(), "good.example at "),
        (host.authority.issue("", &[], Term::Now).unwrap(), "a certificate without a name at "),
    ];
    for (papers, name) in names {
        let peer = host.peer(&host.client(Some(&papers), &[&version::TLS13])).await.unwrap();
        assert!(peer.starts_with(name), "{peer}");
    }
    host.server.stop().await;
}

#[tokio::test]
async fn nobody_else_comes_in() {
    let host = Host::start(Limits::default()).await;
    let other = Authority::new("the authority").unwrap();
    let foreign = other.issue("engine.example", &[], Term::Now).unwrap();
    let over = host.authority.issue("engine.example", &[], Term::Over).unwrap();
    let to_come = host.authority.issue("engine.example", &[], Term::ToCome).unwrap();
    for versions in [&version::TLS12, &version::TLS13] {
        for papers in [None, Some(&foreign), Some(&over), Some(&to_come)] {
            assert_eq!(host.peer(&host.client(papers, &[versions])).await, None, "{papers:?}");
        }
    }
    // The server is there all the same.
    assert!(host.peer(&host.client(Some(&host.engine()), &[&version::TLS13])).await.is_some());
    host.server.stop().await;
}

#[tokio::test]
async fn plain_text_is_closed_at_once_and_a_slow_handshake_in_the_end() {
    // No time limit of this one can close anything while the test lasts.
    let hours = Duration::from_secs(36_000);
    let limits = Limits { handshake_timeout: hours, header_timeout: hours, ..Limits::default() };
    let host = Host::start(limits).await;
    for start in
        ["P", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "CONNECT\n\n\0", "\x15\x03\x01"]
    {
        let mut client = host.server.connect().await;
        client.send(start).await;
        assert!(client.is_closed().await, "{start:?}");
    }
    host.server.stop().await;

    let limits = Limits { handshake_timeout: SHORT, header_timeout: hours, ..Limits::default() };
    let host = Host::start(limits).await;
    // Nothing; a byte; the head of a hello of 508 bytes and no more.
    for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut client = host.server.connect().await;
        client.send(start).await;
        assert!(client.is_closed().await, "{start:?}");
    }
    host.server.stop().await;
}

#[tokio::test]
async fn a_handshake_counts_as_a_connection_and_holds_up_nobody() {
    let limits = Limits { max_connections: 3, ..Limits::default() };
    let host = Host::start(limits).await;
    let mut slow = [host.server.connect().await, host.server.connect().await];
    for client in &mut slow {
        client.send(b"\x16").await;
    }
    let mut engine = host.connect(&host.engine()).await;
    echoes(&mut engine, "while others are slow").await;
    assert!(host.server.connect().await.is_closed().await, "a fourth");
    echoes(&mut engine, "still").await;
    drop((slow, engine));
    host.server.stop().await;
}

#[tokio::test]
async fn a_reload_is_for_new_connections_and_broken_files_change_nothing() {
    let host = Host::start(Limits::default()).await;
    let engine = host.engine();
    let mut old = host.connect(&engine).await;
    assert_eq!(shown(&old), "host.example");
    echoes(&mut old, "before").await;

    issue_host(&host.authority, "renewed.example", host.folder.path());
    // Nothing is looked at before it is told.
    assert_eq!(shown(&host.connect(&engine).await), "host.example");
    assert!(host.tls.load().unwrap().starts_with("renewed.example, good from "));
    assert_eq!(shown(&host.connect(&engine).await), "renewed.example");
    echoes(&mut old, "after").await;

    let key = std::fs::read(host.folder.path().join("host-key.pem")).unwrap();
    let stranger = host.authority.issue("x", &[], Term::Now).unwrap().key;
    let cut = String::from_utf8(key.clone()).unwrap().replace("END", "EN");
    let breakages: [(&str, &[u8]); 8] = [
        ("host-key.pem", stranger.as_bytes()),
        ("host-key.pem", cut.as_bytes()),
        ("host-key.pem", b""),
        ("host-cert.pem", b"not PEM"),
        ("host-cert.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("host-cert.pem", &[b'\n'; 2 << 20]),
        ("ca.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("ca.pem", &key),
    ];
    for (name, bytes) in breakages {
        let path = host.folder.path().join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let trouble = host.tls.load().unwrap_err().to_string();
        assert!(trouble.contains(name), "{trouble}");
        assert_eq!(host.tls.trouble(), Some(trouble));
        assert_eq!(shown(&host.connect(&engine).await), "renewed.example");
        std::fs::write(&path, good).unwrap();
    }
    std::fs::remove_file(host.folder.path().join("ca.pem")).unwrap();
    assert!(host.tls.load().unwrap_err().to_string().contains("ca.pem: No such file"));

    // Another authority from now on: who came in before stays, who comes now is judged by it.
    let next = Authority::new("the next").unwrap();
    std::fs::write(host.folder.path().join("ca.pem"), next.pem()).unwrap();
    host.tls.load().unwrap();
    assert_eq!(host.tls.trouble(), None);
    assert_eq!(host.peer(&host.client(Some(&engine), &[&version::TLS13])).await, None);
    let engine = next.issue("engine.example", &[], Term::Now).unwrap();
    assert!(host.peer(&host.client(Some(&engine), &[&version::TLS13])).await.is_some());
    echoes(&mut old, "at last").await;
    drop(old);
    host.server.stop().await;
}

#[tokio::test]
async fn a_certificate_of_ours_that_is_over_is_told() {
    let host = Host::start(Limits::default()).await;
    host.authority.issue("host.example", &[], Term::Over).unwrap().write(host.folder.path(), "host").unwrap();
    host.tls.load().unwrap();
    let trouble = host.tls.trouble().unwrap();
    assert!(trouble.contains("host-cert.pem: not valid at this time, but good from "), "{trouble}");
    host.server.stop().await;
}

#[tokio::test]
async fn a_session_taken_up_again_is_still_the_same_client_until_a_reload() {
    let host = Host::start(Limits::default()).await;
    for versions in [&version::TLS12, &version::TLS13] {
        let client = host.client(Some(&host.engine()), &[versions]);
        let mut kinds = Vec::new();
        for turn in 0..3 {
            if turn == 2 {
                host.tls.load().unwrap();
            }
            let mut connection = host.try_connect(&client).await.unwrap();
            connection.send(get("/v1/peer")).await;
            assert!(connection.response().await.text().starts_with("engine.example at "));
            kinds.push(connection.stream.get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Full], "{versions:?}");
    }
    host.server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_given_up_with_tls_too() {
    let (send, mut senders) = mpsc::channel(1);
    let limits = Limits { write_timeout: SHORT, ..Limits::default() };
    let host = Host::serve(Echo { stream: Some(send), ..Echo::default() }, limits).await;
    let mut client = host.connect(&host.engine()).await;
    client.send(get("/v1/stream")).await;
    let pieces = patiently(senders.recv()).await.unwrap();
    let flood = Bytes::from(vec![b'x'; 64 << 10]);
    patiently(async { while pieces.send(flood.clone()).await.is_ok() {} }).await;
    host.server.stop().await;
}

#[tokio::test]
async fn the_unspecified_ipv6_address_takes_both_families_unless_another_has_ipv4() {
    let both = TcpListener::from_std(bind("[::]:0".parse().unwrap(), false).unwrap()).unwrap();
    let port = both.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let task = tokio::spawn(serve(
        Listener::Tcp(both, AllowedHosts::Any),
        Echo::default().service(),
        Limits::default(),
        shutdown,
    ));
    for (host, address) in [("127.0.0.1", " at 127.0.0.1:"), ("::1", " at [::1]:")] {
        let mut client = Client::new(TcpStream::connect((host, port)).await.unwrap());
        client.send(get("/v1/peer")).await;
        let peer = client.response().await.text().to_owned();
        assert!(peer.contains(address), "{peer}");
    }
    drop(stop);
    patiently(task).await.unwrap();

    let alone = bind("[::]:0".parse().unwrap(), true).unwrap();
    let port = alone.local_addr().unwrap().port();
    let four = bind(SocketAddr::from(([0, 0, 0, 0], port)), false).unwrap();
    assert_eq!(four.local_addr().unwrap().port(), port);
}
