//! The one HTTP client builder: TLS, proxies, timeouts and redirects in one place.
//!
//! Clients honour the proxy variables of the environment (`HTTPS_PROXY`, `NO_PROXY`, …) except for
//! this machine itself, which no proxy can reach as we do; they trust the system's certificate authorities or only those of a given file, and follow redirects; the
//! `Authorization` and cookie headers are dropped as soon as a redirect leads to another origin.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, NoProxy, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tracing::warn;

/// How we name ourselves to servers.
pub const USER_AGENT: &str = concat!("opal/", env!("CARGO_PKG_VERSION"));

/// This machine, in the form of `NO_PROXY`.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What clients differ in. The default trusts the system and has no limit on a whole request.
#[derive(Debug, Clone, Default)]
pub struct HttpOptions {
    /// Trust these authorities and no others (PEM).
    pub ca_file: Option<PathBuf>,
    /// Who we are to servers that ask for a certificate.
    pub identity: Option<IdentityFiles>,
    /// The longest a whole request may take, its body included.
    pub timeout: Option<Duration>,
    /// The longest pause between two parts of an answer.
    pub read_timeout: Option<Duration>,
    /// Hand redirects to the caller instead of following them.
    pub keep_redirects: bool,
    /// Whether TLS will not be needed: no authorities are loaded, and none is trusted.
    pub plain: bool,
}

/// A client certificate and its key (PEM).
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The certificate, followed by those that signed it.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientError {
    /// A certificate or key file could not be read.
    #[error("could not read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no certificate or key that can be used.
    #[error("`{}` holds no usable PEM certificate or key", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: reqwest::Error,
    },
    /// A file of authorities holds none.
    #[error("`{}` holds no certificate of an authority", path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The TLS library refused its settings.
    #[error("could not set up TLS")]
    Tls(#[source] reqwest::Error),
}

/// Makes aws-lc-rs this process's cryptography. The first thing that `main` does: some of our
/// dependencies bring another provider along and panic if none was chosen.
pub fn install_crypto_provider() {
    // Fails only if one is installed already, which is what we want.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Builds a client. Keep it: it holds the connection pool.
///
/// # Errors
///
/// If a certificate file cannot be used.
pub fn client(options: &HttpOptions) -> Result<Client, HttpClientError> {
    #[expect(clippy::disallowed_methods, reason = "no settings of ours")]
    let environment = |name: &str| std::env::var(name).ok();
    client_behind(proxies(environment), options)
}

fn client_behind(proxies: Vec<Proxy>, options: &HttpOptions) -> Result<Client, HttpClientError> {
    install_crypto_provider();
    #[expect(clippy::disallowed_methods, reason = "this is the shared builder")]
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // Instead of these, which the library would use for this machine too.
        .no_proxy();
    for proxy in proxies {
        builder = builder.proxy(proxy);
    }
    if options.plain {
        builder = builder.tls_certs_only([]);
    }
    if let Some(path) = &options.ca_file {
        let pem = read(path)?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|e| not_pem(path, e))?;
        builder = builder.tls_certs_only(authorities);
    }
    if let Some(files) = &options.identity {
        builder = builder.identity(identity(files)?);
    }
    if let Some(timeout) = options.timeout {
        builder = builder.timeout(timeout);
    }
    if let Some(timeout) = options.read_timeout {
        builder = builder.read_timeout(timeout);
    }
    if options.keep_redirects {
        builder = builder.redirect(reqwest::redirect::Policy::none());
    }
    builder.build().map_err(HttpClientError::Tls)
}

/// The proxies that the environment names, for all but this machine and what `NO_PROXY` lists.
fn proxies(variable: impl Fn(&str) -> Option<String>) -> Vec<Proxy> {
    let first = |names: [&str; 2]| names.into_iter().find_map(&variable);
    let all = first(["ALL_PROXY", "all_proxy"]);
    let named = |names| first(names).or_else(|| all.clone());
    let listed = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let exempt = NoProxy::from_string(&format!("{LOOPBACK},{listed}"));
    let http = named(["HTTP_PROXY", "http_proxy"]).map(|url| ("http", Proxy::http(url)));
    let https = named(["HTTPS_PROXY", "https_proxy"]).map(|url| ("https", Proxy::https(url)));
    let mut proxies = Vec::new();
    for (scheme, proxy) in [http, https].into_iter().flatten() {
        match proxy {
            Ok(proxy) => proxies.push(proxy.no_proxy(exempt.clone())),
            // Its text may hold a password.
            Err(_) => warn!("The environment's proxy for {scheme}:// is no URL, and is not used"),
        }
    }
    proxies
}

/// How a websocket client trusts its server: only the authorities of `ca_file`, or, with `None`,
/// the system's, which need no configuration.
///
/// # Errors
///
/// If the file cannot be used.
pub fn tls_config(ca_file: Option<&Path>) -> Result<Option<Arc<ClientConfig>>, HttpClientError> {
    let Some(path) = ca_file else {
        return Ok(None);
    };
    install_crypto_provider();
    let pem = read(path)?;
    let mut roots = RootCertStore::empty();
    let bad = || HttpClientError::NoAuthority {
        path: path.to_owned(),
    };
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.map_err(|_| bad())?)
            .map_err(|_| bad())?;
    }
    if roots.is_empty() {
        return Err(bad());
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

fn identity(files: &IdentityFiles) -> Result<Identity, HttpClientError> {
    let mut pem = read(&files.certificate)?;
    pem.push(b'\n');
    pem.extend(read(&files.key)?);
    Identity::from_pem(&pem).map_err(|e| not_pem(&files.certificate, e))
}

fn read(path: &Path) -> Result<Vec<u8>, HttpClientError> {
    std::fs::read(path).map_err(|source| HttpClientError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn not_pem(path: &Path, source: reqwest::Error) -> HttpClientError {
    HttpClientError::NotPem {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Tasks, serve};

    #[test]
    fn a_plain_client_can_be_made() {
        client(&HttpOptions::default()).unwrap();
    }

    /// A server that answers every request with `name`.
    async fn answering(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(CancellationToken::new());
        let router = Router::new().fallback(move || async move { name });
        let grace = Duration::from_secs(1);
        tasks.spawn("http", serve(listener, router, tasks.spawner(), grace));
        address
    }

    #[tokio::test]
    async fn a_proxy_is_for_other_machines_only() {
        let (proxy, ours) = (answering("proxy").await, answering("ours").await);
        let environment = |name: &str| match name {
            "HTTP_PROXY" => Some(format!("http://{proxy}")),
            "no_proxy" => Some("direct.invalid".to_owned()),
            _ => None,
        };
        let client = client_behind(proxies(environment), &HttpOptions::default()).unwrap();
        let ask = async |url: String| client.get(url).send().await?.text().await;
        let port = ours.port();
        for host in ["127.0.0.1", "localhost"] {
            let answer = ask(format!("http://{host}:{port}/")).await.unwrap();
            assert_eq!(answer, "ours", "{host}");
        }
        // Nobody listens there; the proxy would answer.
        for elsewhere in [
            "http://[::1]:1/",
            "http://127.9.9.9:1/",
            "http://direct.invalid/",
        ] {
            assert!(ask(elsewhere.to_owned()).await.is_err(), "{elsewhere}");
        }
        let answer = ask("http://far.invalid/".to_owned()).await.unwrap();
        assert_eq!(answer, "proxy");
    }

    #[test]
    fn a_proxy_for_all_is_for_both_schemes_and_nonsense_is_left_out() {
        let set = |variable: &'static str, value: &'static str| {
            proxies(move |name| (name == variable).then(|| value.to_owned())).len()
        };
        assert_eq!(set("all_proxy", "proxy.example:3128"), 2);
        assert_eq!(set("https_proxy", "http://u:p@proxy.example"), 1);
        assert_eq!(set("HTTP_PROXY", ""), 0);
        assert_eq!(set("NO_PROXY", "*"), 0);
    }

    #[test]
    fn a_missing_or_broken_ca_file_is_named() {
        let missing = HttpOptions {
            ca_file: Some("/no/such/ca.pem".into()),
            ..HttpOptions::default()
        };
        let error = client(&missing).unwrap_err();
        assert_eq!(error.to_string(), "could not read `/no/such/ca.pem`");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let broken = HttpOptions {
            ca_file: Some(file.path().to_owned()),
            ..HttpOptions::default()
        };
        assert!(client(&broken).is_err());
    }
}
