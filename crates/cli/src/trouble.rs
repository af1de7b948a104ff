//! Why the relay is out of reach. The SDK logs it and does not tell it, so it is taken from the log.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The latest reason. Written by whichever thread logs one; held for the copy of a string.
static LATEST: Mutex<Option<String>> = Mutex::new(None);

/// Begins to log: to standard error if asked for, and to [`why`] in any case.
pub(crate) fn begin(verbose: bool) {
    let filter = EnvFilter::new("off,sealwire_client=debug,sealwire_engine=debug");
    let printed = verbose.then(|| fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_filter(filter));
    tracing_subscriber::registry().with(Latest).with(printed).init();
}

/// Why the last connection ended or did not begin, as words behind a sentence.
pub(crate) fn why() -> String {
    let latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(error) = latest else { return String::new() };
    let try_this = if error.contains("CaUsedAsEndEntity") {
        "; the relay's certificate calls itself a certificate authority: its operator makes another with `openssl req -x509 -addext basicConstraints=critical,CA:FALSE …`"
    } else if error.contains("NotValidForName") || error.contains("not valid for name") {
        "; the certificate is for another host name than the address"
    } else if error.contains("invalid peer certificate") {
        "; if the relay made its own certificate, give it to `sealwire init --relay-cert FILE`"
    } else if error.contains("invalid HTTP version") {
        "; this relay may want TLS: then its address begins with wss://"
    } else if error.contains("corrupt message") || error.contains("InvalidContentType") {
        "; this relay may speak without TLS: then its address begins with ws://"
    } else {
        ""
    };
    format!(" ({error}{try_this})")
}

struct Latest;

impl<S: tracing::Subscriber> Layer<S> for Latest {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("sealwire_")
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sealwire_client::socket" {
            event.record(&mut Error);
        }
    }
}

struct Error;

impl Visit for Error {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "error" {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = write!(text, "{value:?}");
            *LATEST.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
    }
}
