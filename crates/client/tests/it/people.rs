//! People with the SDK, and a relay in this process.

use std::path::Path;
use std::time::Duration;

use sealwire_client::{Account, Client, Event, Events, Mode, Unlock};
use sealwire_relay::{Registration, Server, start_local};

/// Everything takes milliseconds; a machine under load takes more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn relay(home: &Path) -> Server {
    start_local(&home.join("relay"), 0, Some("here"), Registration::Open).await.unwrap()
}

pub(crate) fn key(home: &Path, name: &str) -> Unlock {
    Unlock::KeyFile(home.join(format!("{name}.key")))
}

/// Somebody who is registered and connected.
pub(crate) async fn join(home: &Path, relay: &Server, name: &str, mode: Mode) -> (Client, Events) {
    let account = Account::new(&format!("{name}@here"), &format!("ws://{}", relay.address())).unwrap();
    let account = if mode == Mode::Direct { account.direct() } else { account.key_packages(10) };
    let joined = Client::create(&home.join(name), key(home, name), account.receipt_delay_ms(20)).await.unwrap();
    joined.0.connected().await.unwrap();
    joined
}

/// The next event that is wanted.
pub(crate) async fn next(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let look = async {
        loop {
            let event = events.next().await.expect("the client is open");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("in time")
}
