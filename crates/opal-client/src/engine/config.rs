//! How our own `opa` is run.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;

use super::EngineLogFormat;

/// `OPAL_INLINE_OPA_CONFIG`: options of `opa run --server`, under upstream's names or OPA's own
/// (`tls_cert_file` or `--tls-cert-file`). Unknown members are ignored, as upstream does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct InlineOpaConfig {
    /// Where OPA listens.
    #[serde(alias = "--addr")]
    pub addr: String,
    /// How OPA knows who asks.
    #[serde(alias = "--authentication")]
    pub authentication: Authentication,
    /// Whether a policy decides who may ask.
    #[serde(alias = "--authorization")]
    pub authorization: Authorization,
    /// OPA's own configuration file.
    #[serde(alias = "--config-file")]
    pub config_file: Option<String>,
    /// Authorities for client certificates (PEM file).
    #[serde(alias = "--tls-ca-cert-file")]
    pub tls_ca_cert_file: Option<String>,
    /// OPA's certificate (PEM file).
    #[serde(alias = "--tls-cert-file")]
    pub tls_cert_file: Option<String>,
    /// How often OPA reads its certificate again, such as `5m`.
    #[serde(alias = "--tls-cert-refresh-period")]
    pub tls_cert_refresh_period: Option<String>,
    /// The certificate's key (PEM file).
    #[serde(alias = "--tls-private-key-file")]
    pub tls_private_key_file: Option<String>,
    /// What OPA logs.
    #[serde(alias = "--log-level")]
    pub log_level: OpaLogLevel,
    /// Files and directories that OPA loads at its start.
    pub files: Option<Vec<String>>,
    /// Whether modules are Rego v0 unless they say otherwise. Here, or with `OPAL_OPA_V0_COMPAT`.
    #[serde(alias = "--v0-compatible")]
    pub v0_compatible: bool,
    /// The program (`OPAL_INLINE_OPA_EXEC_PATH`).
    #[serde(skip)]
    pub exec_path: Option<PathBuf>,
    /// What of OPA's log is shown in ours (`OPAL_INLINE_OPA_LOG_FORMAT`).
    #[serde(skip)]
    pub log_format: EngineLogFormat,
}

impl Default for InlineOpaConfig {
    fn default() -> Self {
        Self {
            addr: "0.0.0.0:8181".to_owned(),
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            config_file: None,
            tls_ca_cert_file: None,
            tls_cert_file: None,
            tls_cert_refresh_period: None,
            tls_private_key_file: None,
            log_level: OpaLogLevel::default(),
            files: None,
            v0_compatible: false,
            exec_path: None,
            log_format: EngineLogFormat::default(),
        }
    }
}

/// How OPA knows who asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    /// Not at all.
    #[default]
    Off,
    /// By a bearer token.
    Token,
    /// By a client certificate.
    Tls,
}

/// Whether a policy decides who may ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authorization {
    /// Everyone may.
    #[default]
    Off,
    /// `data.system.authz.allow` decides.
    Basic,
}

/// What OPA logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpaLogLevel {
    /// Requests too.
    #[default]
    Info,
    /// Bodies too.
    Debug,
    /// Failures only.
    Error,
}

impl InlineOpaConfig {
    /// The arguments of the program.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["run".into(), "--server".into()];
        if self.v0_compatible {
            arguments.push("--v0-compatible".into());
        }
        let options = [
            ("addr", Some(self.addr.as_str())),
            ("authentication", Some(self.authentication.as_str())),
            ("authorization", Some(self.authorization.as_str())),
            ("config-file", self.config_file.as_deref()),
            ("tls-ca-cert-file", self.tls_ca_cert_file.as_deref()),
            ("tls-cert-file", self.tls_cert_file.as_deref()),
            (
                "tls-cert-refresh-period",
                self.tls_cert_refresh_period.as_deref(),
            ),
            ("tls-private-key-file", self.tls_private_key_file.as_deref()),
            ("log-level", Some(self.log_level.as_str())),
        ];
        for (name, value) in options {
            arguments.extend(value.map(|value| OsString::from(format!("--{name}={value}"))));
        }
        arguments.extend(self.files.iter().flatten().map(OsString::from));
        arguments
    }

    /// The first option that the embedded engine could not honour in OPA's place; `None` if it can
    /// honour all.
    pub fn unsupported_by_embedded(&self) -> Option<String> {
        let options = [
            ("authentication", self.authentication != Authentication::Off),
            ("authorization", self.authorization != Authorization::Off),
            ("config_file", self.config_file.is_some()),
            ("tls_ca_cert_file", self.tls_ca_cert_file.is_some()),
            ("tls_cert_file", self.tls_cert_file.is_some()),
            ("tls_private_key_file", self.tls_private_key_file.is_some()),
            (
                "files",
                self.files.as_ref().is_some_and(|files| !files.is_empty()),
            ),
        ];
        let mut asked = options.into_iter().filter(|(_, asked)| *asked);
        asked.next().map(|(name, _)| name.to_owned())
    }
}

impl Authentication {
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Token => "token",
            Self::Tls => "tls",
        }
    }
}

impl Authorization {
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Basic => "basic",
        }
    }
}

impl OpaLogLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(config: &str) -> String {
        let config: InlineOpaConfig = serde_json::from_str(config).unwrap();
        let arguments = config.arguments();
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|each| each.to_str().unwrap())
            .collect();
        arguments.join(" ")
    }

    #[test]
    fn arguments_are_those_of_released_opal() {
        assert_eq!(
            arguments("{}"),
            "run --server --addr=0.0.0.0:8181 --authentication=off --authorization=off --log-level=info"
        );
        assert_eq!(
            arguments(
                r#"{"addr":":1","authentication":"tls","--authorization":"basic","config_file":"c",
                    "tls_cert_file":"t","log_level":"debug","files":["a","b"],"v0_compatible":true,"x":1}"#
            ),
            "run --server --v0-compatible --addr=:1 --authentication=tls --authorization=basic \
             --config-file=c --tls-cert-file=t --log-level=debug a b"
        );
    }

    #[test]
    fn what_the_embedded_engine_cannot_honour_is_named() {
        let config = |text: &str| serde_json::from_str::<InlineOpaConfig>(text).unwrap();
        assert_eq!(config(r#"{"addr":":1"}"#).unsupported_by_embedded(), None);
        let asked = config(r#"{"config_file":"x"}"#).unsupported_by_embedded();
        assert_eq!(asked.as_deref(), Some("config_file"));
    }
}
