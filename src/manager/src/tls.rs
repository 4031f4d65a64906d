//! Mutual TLS with a site's own authority.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::{BadTarget, TlsFiles};

/// The configuration that these files make.
///
/// # Errors
/// [`BadTarget::File`] names the file.
pub(crate) fn config(files: &TlsFiles) -> Result<rustls::ClientConfig, BadTarget> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| bad(&files.ca, &error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, &error))?;
    begin()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .map_err(|error| bad(&files.certificate, &error))
}

/// A configuration that trusts nobody: the client wants one even where it never speaks TLS.
pub(crate) fn nobody() -> rustls::ClientConfig {
    begin().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

fn begin() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadTarget> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| bad(path, &error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| bad(path, &error))?;
    match found.is_empty() {
        true => Err(BadTarget::File { path: path.into(), why: "no certificate is in it".into() }),
        false => Ok(found),
    }
}

fn bad(path: &Path, error: &dyn std::fmt::Display) -> BadTarget {
    BadTarget::File { path: path.into(), why: error.to_string() }
}
