//! TLS for a listener: what we show, and whom we let in.
//!
//! As VDSM had it, a client must show a certificate of our authority; whoever has none gets no further than the
//! handshake. The three files are read as one: either all are good and every new handshake uses them, or the ones before
//! stay in use and the trouble is told. It never falls back to plain text, never lets in a client without a
//! certificate, and looks at the files only when it is told to.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::files;

use super::identity::{Identity, NotACertificate, Term};

/// Bytes of one of the files: a bundle of some hundred authorities.
const FILE_BYTES: u64 = 1 << 20;

/// The first byte of every TLS connection: a handshake record.
const HANDSHAKE_RECORD: u8 = 22;

/// Where the certificates are. All in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate first, then the ones between it and the authority, if any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose certificates clients may show.
    pub ca: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is far too long.
    #[error("{}: longer than {FILE_BYTES} bytes", path.display())]
    Long {
        /// Which.
        path: PathBuf,
    },
    /// A file is not PEM, or has nothing of the kind in it.
    #[error("{}: no {wanted} can be read: {source}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// Something between the lines of PEM is no certificate.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: NotACertificate,
    },
    /// The certificate and the key are no pair, or of a kind that is not served.
    #[error("{} with {}: {source}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// An authority cannot be trusted.
    #[error("{}: {source}", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authorities together cannot be used.
    #[error("{}: {source}", path.display())]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("it does not speak TLS")]
    NotTls,
    #[error("it left before the handshake was done")]
    Gone,
    #[error("it left before the handshake was done: {0}")]
    Broken(std::io::Error),
    #[error("no usable certificate of our own is loaded")]
    NotLoaded,
    #[error("the handshake failed: {0}")]
    Failed(std::io::Error),
    #[error("its certificate: {0}")]
    Certificate(#[from] NotACertificate),
    #[error("its certificate is not valid at this time")]
    OutOfTerm,
}

/// The files and what was made of them. Shared by all listeners with TLS.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    loaded: Option<Loaded>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    term: Term,
}

impl Tls {
    /// Nothing is read yet: until [`Tls::load`] succeeds once, every connection is closed.
    pub fn new(files: TlsFiles) -> Self {
        Self { files, state: RwLock::default() }
    }

    /// Reads the files, for all handshakes that begin from now on. Connections go on as they are. Blocks on the disk.
    /// Gives back our own certificate's names and term, for the log.
    ///
    /// # Errors
    /// [`TlsError`] names the file; what was loaded before stays in use.
    pub fn load(&self) -> Result<String, TlsError> {
        let read = read(&self.files);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok((loaded, names)) => {
                let told = format!("{names}, {}", loaded.term);
                *state = State { loaded: Some(loaded), trouble: None };
                Ok(told)
            }
            Err(error) => {
                state.trouble = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// What is wrong, for whoever asks after our health: files that could not be read the last time, or a certificate of
    /// ours that is not valid now.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let out_of_term = || {
            let term = state.loaded.as_ref().map(|loaded| &loaded.term).filter(|term| !term.is_now())?;
            Some(format!("{}: not valid at this time, but {term}", self.files.certificate.display()))
        };
        state.trouble.clone().or_else(out_of_term)
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.loaded.as_ref().map(|loaded| Arc::clone(&loaded.config))
    }

    /// The handshake. It has no time limit of its own.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Identity), HandshakeError> {
        // rustls would wait for five bytes before it judges; one is enough.
        let mut first = [0];
        match stream.peek(&mut first).await.map_err(HandshakeError::Broken)? {
            0 => return Err(HandshakeError::Gone),
            _ if first[0] != HANDSHAKE_RECORD => return Err(HandshakeError::NotTls),
            _ => {}
        }
        let config = self.config().ok_or(HandshakeError::NotLoaded)?;
        let stream = TlsAcceptor::from(config).accept(stream).await.map_err(|error| match error.kind() {
            // What TLS itself objects to comes as this kind; the rest is the network's or the client's leaving.
            std::io::ErrorKind::InvalidData => HandshakeError::Failed(error),
            _ => HandshakeError::Broken(error),
        })?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let (identity, term) = Identity::of(shown.ok_or(NotACertificate::Missing)?)?;
        // A session that is taken up again brings its certificate along unchecked, and that may have ended since.
        if !term.is_now() {
            return Err(HandshakeError::OutOfTerm);
        }
        Ok((stream, identity))
    }
}

fn read(files: &TlsFiles) -> Result<(Loaded, Identity), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let (names, term) = Identity::of(&chain[0])
        .map_err(|source| TlsError::Certificate { path: files.certificate.clone(), source })?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?).map_err(|source| TlsError::Pem {
        path: files.key.clone(),
        wanted: "private key",
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots.add(authority).map_err(|source| TlsError::Authority { path: files.ca.clone(), source })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Authorities { path: files.ca.clone(), source })?;
    let pair =
        |source| TlsError::Pair { certificate: files.certificate.clone(), key: files.key.clone(), source };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(pair)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(pair)?;
    Ok((Loaded { config: Arc::new(config), term }, names))
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { path: path.into(), wanted: "certificate", source };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes(path)?).collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = files::open_plain(path).map_err(failed)?;
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES { Err(TlsError::Long { path: path.into() }) } else { Ok(bytes) }
}
