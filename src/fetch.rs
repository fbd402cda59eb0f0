//! The one constructor of HTTP clients for everything off the hot path: model fetch, health probes, the command line.
//!
//! Invariant: no client reads proxy variables from the environment, sends a referer or waits without a limit; none follows
//! a redirect except a model fetch, a bounded number of times and never away from TLS.

use std::sync::Once;
use std::time::Duration;

use reqwest::redirect::Policy;

/// What to do about redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// Hand the 3xx to the caller.
    Never,
    /// A model hub sends readers to its storage: at most this many hops, each over https.
    Https(usize),
}

/// TCP and TLS; a healthy peer needs well under a second.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// The same where a store is asked, or the machine's own role: both are near or not there.
const STORE_CONNECT_WAIT: Duration = Duration::from_secs(3);
/// Between two reads of a body.
const READ_WAIT: Duration = Duration::from_secs(30);

/// A client with limits. Callers that know how long an answer may take set a total timeout on their request.
pub fn client(redirects: Redirects) -> Result<reqwest::Client, reqwest::Error> {
    built(redirects, CONNECT_WAIT)
}

/// A client for object stores.
pub fn of_stores() -> Result<reqwest::Client, reqwest::Error> {
    built(Redirects::Never, STORE_CONNECT_WAIT)
}

fn built(redirects: Redirects, connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error means that a provider is installed already, which is all that is needed.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let policy = match redirects {
        Redirects::Never => Policy::none(),
        Redirects::Https(hops) => Policy::custom(move |attempt| {
            if attempt.previous().len() > hops {
                return attempt.error("too many redirects");
            }
            if attempt.url().scheme() == "https" {
                attempt.follow()
            } else {
                attempt.error("a redirect away from https")
            }
        }),
    };
    reqwest::Client::builder()
        .redirect(policy)
        .no_proxy()
        .referer(false)
        .connect_timeout(connect)
        .read_timeout(READ_WAIT)
        .user_agent(concat!("wattroute/", env!("CARGO_PKG_VERSION")))
        .build()
}
