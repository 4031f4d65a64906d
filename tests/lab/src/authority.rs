//! A certificate authority of one's own: real keys and certificates, good, ended or not begun.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::{Error, Result};

/// An authority. Two of the same name are still two.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Now.
    Now,
    /// Not any more.
    Over,
    /// Not yet.
    ToCome,
}

/// A certificate with its key, both in PEM.
#[derive(Clone, Debug)]
pub struct Papers {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

fn failed(source: rcgen::Error) -> Error {
    Error::io("make a certificate", std::io::Error::other(source))
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no randomness.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = params(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, key).map_err(failed)? })
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a holder: its common name (none if empty), and its alternative names: an IP address, a URI (with
    /// `://`), else a DNS name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a name cannot stand in a certificate.
    pub fn issue(&self, common_name: &str, others: &[&str], term: Term) -> Result<Papers> {
        let mut params = params(common_name);
        if common_name.is_empty() {
            params.distinguished_name = DistinguishedName::new();
        }
        for other in others {
            params.subject_alt_names.push(match other.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if other.contains("://") => SanType::URI((*other).try_into().map_err(failed)?),
                Err(_) => SanType::DnsName((*other).try_into().map_err(failed)?),
            });
        }
        (params.not_before, params.not_after) = match term {
            Term::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2090, 1, 1)),
            Term::Over => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Term::ToCome => (date_time_ymd(2089, 1, 1), date_time_ymd(2090, 1, 1)),
        };
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Papers { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Papers {
    /// Writes `NAME-cert.pem` and `NAME-key.pem`, over those that are there, and says where.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the directory is not writable.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let put = |path: PathBuf, text: &str| {
            fs::write(&path, text).map_err(Error::file("write", &path))?;
            Ok(path)
        };
        let certificate = put(directory.join(format!("{name}-cert.pem")), &self.certificate)?;
        Ok((certificate, put(directory.join(format!("{name}-key.pem")), &self.key)?))
    }
}
