//! One host: calls over HTTP or HTTPS, each within its time.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use dxr::{MethodCall, MethodResponse, Value};

use crate::read::{BadReply, Reading, Vm, read_all_vm_stats};

/// Bytes of an answer at most. 5,000 VMs with everything that a host can tell take some 35 MB.
const MOST: usize = 64 << 20;

/// Where a host is, and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http://HOST:PORT/` or `https://HOST:PORT/`.
    pub url: String,
    /// For HTTPS.
    pub tls: Option<TlsFiles>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that hosts' certificates come from.
    pub ca: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Bounds of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the connection. Engines give 2 s, later ones 20.
    pub connect: Duration,
    /// For the whole answer. Engines give 180 s.
    pub reply: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), reply: Duration::from_secs(60) }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// Not a URL that we can call.
    #[error("{url}: {why}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// A PEM file.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Why a call says nothing about VMs.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection, or the time.
    #[error("{0}")]
    Network(String),
    /// An HTTP status other than 200.
    #[error("HTTP status {0}")]
    Http(u16),
    /// Longer than anything sensible.
    #[error("the answer is longer than {MOST} bytes")]
    TooLong,
    /// The reply itself.
    #[error(transparent)]
    Reply(#[from] BadReply),
}

/// A host's client. It keeps its connections.
#[derive(Debug, Clone)]
pub struct HostClient {
    url: reqwest::Url,
    http: reqwest::Client,
}

impl HostClient {
    /// A client for this host.
    ///
    /// # Errors
    /// [`BadTarget`] names the URL or the file.
    pub fn new(target: &Target, patience: Patience) -> Result<Self, BadTarget> {
        let bad = |why: String| BadTarget::Url { url: target.url.clone(), why };
        let url: reqwest::Url = target.url.parse().map_err(|error| bad(format!("{error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad("it must be http://HOST:PORT/ or https://HOST:PORT/".into()));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(patience.connect)
            .timeout(patience.reply)
            .tcp_nodelay(true)
            .no_proxy()
            .pool_max_idle_per_host(2)
            .user_agent(concat!("whydown/", env!("CARGO_PKG_VERSION")));
        let tls = match (&target.tls, url.scheme()) {
            (Some(files), _) => crate::tls::config(files)?,
            (None, "https") => {
                return Err(bad("https needs the files of TLS: ca, certificate and key".into()));
            }
            (None, _) => crate::tls::nobody(),
        };
        builder = builder.tls_backend_preconfigured(tls);
        let http = builder.build().map_err(|error| bad(error.to_string()))?;
        Ok(Self { url, http })
    }

    /// All VMs. Asks for the full range of exit reasons: an older host ignores that.
    ///
    /// # Errors
    /// [`CallError`]: then nothing is known about any VM.
    pub async fn all_vm_stats(&self) -> Result<Reading, CallError> {
        let body = self.call("getAllVmStats", Vec::new()).await?;
        Ok(read_all_vm_stats(&body)?)
    }

    /// One VM; `None` if the host does not know it, or if what it says of it makes no sense.
    ///
    /// # Errors
    /// [`CallError`]: then nothing is known about it.
    pub async fn vm_stats(&self, vm: &str) -> Result<Option<Vm>, CallError> {
        let body = self.call("getVmStats", vec![Value::String(vm.to_owned())]).await?;
        match read_all_vm_stats(&body) {
            Ok(reading) => Ok(reading.vms.into_iter().next()),
            Err(BadReply::Status { code: 1, .. }) => Ok(None),
            Err(bad) => Err(bad.into()),
        }
    }

    /// Takes note of a Down VM. That the host does not know it is as good.
    ///
    /// # Errors
    /// [`CallError`]: it has to be tried again.
    pub async fn acknowledge(&self, vm: &str) -> Result<(), CallError> {
        let body = self.call("destroy", vec![Value::String(vm.to_owned())]).await?;
        match status_code(&body) {
            Some(0 | 1) => Ok(()),
            Some(code) => Err(BadReply::Status { code, message: "destroy".into() }.into()),
            None => Err(BadReply::Lacks("status.code").into()),
        }
    }

    async fn call(&self, method: &'static str, params: Vec<Value>) -> Result<String, CallError> {
        let network = |error: reqwest::Error| CallError::Network(chain(&error));
        let call = MethodCall { name: Cow::Borrowed(method), params }
            .to_xml()
            .expect("a name and texts can be written");
        let request = self
            .http
            .post(self.url.clone())
            .header("Content-Type", "text/xml")
            .header("X-Whydown-Exit-Reasons", "full")
            .body(call);
        let mut response = request.send().await.map_err(network)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(CallError::Http(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(network)? {
            if body.len() + piece.len() > MOST {
                return Err(CallError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body).map_err(|_| BadReply::NotXmlRpc("not UTF-8".into()).into())
    }
}

fn status_code(body: &str) -> Option<i64> {
    let Value::Struct(reply) = MethodResponse::from_xml(body).ok()?.value else { return None };
    let Value::Struct(status) = reply.get("status")? else { return None };
    match status.get("code")? {
        Value::Integer(code) => Some(i64::from(*code)),
        Value::Long(code) => Some(*code),
        _ => None,
    }
}

/// An error with its causes: reqwest's own first line says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
