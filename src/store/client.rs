//! A client of a store, and its errors in words that hold no secret.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::{BackoffConfig, Error, RetryConfig};

use super::address::Address;
use crate::fetch;

/// Times that a request is tried again after a failure of the network or of the store.
const AGAIN: usize = 3;
/// After so long nothing is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(60);
/// Before a second try, and the most before any.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// A store with what must never be told of it.
pub struct Client {
    /// The store.
    pub store: AmazonS3,
    secrets: Vec<String>,
    keyless: bool,
}

/// The program's one constructor of HTTP clients.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = fetch::of_stores().map_err(|e| Error::Generic { store: "S3", source: Box::new(e) })?;
        Ok(HttpClient::new(client))
    }
}

impl Client {
    /// Of the store that an address is in.
    ///
    /// # Errors
    /// The environment does not say what is needed.
    pub fn of(address: &Address) -> Result<Self, String> {
        let retry = RetryConfig {
            max_retries: AGAIN,
            retry_timeout: RETRY_WAIT,
            backoff: BackoffConfig { init_backoff: PAUSES[0], max_backoff: PAUSES[1], base: 2.0 },
        };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.bucket).with_retry(retry);
        let value = |builder: &AmazonS3Builder, key: Key| builder.get_config_value(&key).filter(|v| !v.is_empty());
        let keyless = value(&builder, Key::AccessKeyId).is_none();
        let secrets = [Key::AccessKeyId, Key::SecretAccessKey, Key::Token]
            .into_iter()
            .filter_map(|k| value(&builder, k))
            .collect();
        let role = [Key::WebIdentityTokenFile, Key::ContainerCredentialsRelativeUri, Key::ContainerCredentialsFullUri];
        if let Some(endpoint) = &address.endpoint {
            // A store that is named by its own address is as open as it says, unless there are keys.
            let open = keyless && role.into_iter().all(|key| value(&builder, key).is_none());
            builder = builder
                .with_endpoint(endpoint)
                .with_config(Key::S3Endpoint, endpoint)
                .with_virtual_hosted_style_request(false);
            builder = if open { builder.with_skip_signature(true) } else { builder };
        } else {
            let plain = [Key::S3Endpoint, Key::Endpoint].into_iter().find_map(|key| value(&builder, key));
            let allowed =
                value(&builder, Key::Client(object_store::ClientConfigKey::AllowHttp)).is_some_and(|v| v == "true");
            if plain.is_some_and(|endpoint| endpoint.starts_with("http://")) && !allowed {
                return Err(format!(
                    "{}: the endpoint in the environment is without TLS; AWS_ALLOW_HTTP=true allows that",
                    address.name
                ));
            }
        }
        let store = builder.with_http_connector(Connector).build();
        let made = |store| Self { store, secrets, keyless };
        store.map(made).map_err(|e| format!("{}: the store cannot be asked: {}", address.name, root(&e)))
    }

    /// An error in words: what happened, and nothing of what was sent.
    pub fn told(&self, name: &str, e: &Error) -> String {
        let keys = if self.keyless { " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set)" } else { "" };
        let why = match e {
            Error::NotFound { .. } => "is not there".to_owned(),
            Error::Unauthenticated { .. } => format!("the store does not accept these keys{keys}"),
            Error::PermissionDenied { .. } => format!("the store does not give it to these keys{keys}"),
            Error::Precondition { .. } => "changed while it was read".to_owned(),
            other => format!("the store cannot be read: {}{keys}", root(other)),
        };
        let hidden = self.secrets.iter().fold(why, |why, secret| why.replace(secret, "***"));
        format!("{name}: {hidden}")
    }
}

/// The last cause, on one line, without the store's own document, which may repeat what was signed.
fn root(e: &Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    let line = text.split(['\n', '<']).next().unwrap_or_default();
    line.trim_end_matches([':', ' ']).to_owned()
}
