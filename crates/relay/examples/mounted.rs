//! A relay inside another axum program: its own routes, and `/v1` beside them.
//!
//! ```text
//! cargo run --example mounted -p sealwire-relay
//! ```
//!
//! Whoever ends TLS in front of such a program has no exporter to give, so log-ins are not bound to the connection (N1):
//! clients say `sealwire init --behind-proxy`, or `Account::relay_behind_proxy` in the SDK.
#![forbid(unsafe_code)]

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use sealwire_relay::{Registration, Service, open_store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::temp_dir().join("sealwire-mounted");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    let relay = Service::start("localhost:8080", Registration::Open, Arc::new(open_store(&data)?))?;

    let program = Router::new().route("/", get(async || "a program with a relay in it\n")).merge(relay.router());

    println!("open http://localhost:8080, or give ws://localhost:8080 to a client");
    let serving = axum::serve(listener, program).with_graceful_shutdown(until_interrupted());
    tokio::select! {
        served = serving.into_future() => served?,
        () = relay.failed() => return Err("the relay can write nothing more: start again".into()),
    }
    relay.stop().await;
    Ok(())
}

async fn until_interrupted() {
    // Without a signal handler the program ends like any other: by the signal.
    let _interrupted = tokio::signal::ctrl_c().await;
}
