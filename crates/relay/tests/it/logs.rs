use std::io::Write;
use std::sync::{Arc, Mutex};

use sealwire_relay::{Registration, start_local};
use sealwire_wire::frame::{LookupBy, ToRelay};
use tempfile::tempdir;
use tracing_subscriber::fmt::MakeWriter;

use crate::client::Client;
use crate::device::Device;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Captured;

    fn make_writer(&'a self) -> Captured {
        self.clone()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nothing that names or shows anybody is in a log, at the most talkative level, from all crates.
#[tokio::test(flavor = "multi_thread")]
async fn logs_name_nobody() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(captured.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .finish();
    // Of the whole test program: the relay's tasks run on other threads. Other tests may log, too.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let data = tempdir().unwrap();
    let server = start_local(data.path(), 0, Some("relay.example"), Registration::Open).await.unwrap();
    let mut device = Device::new(0xd7);
    let mut client = Client::register(server.address(), &mut device, "quetzalcoatl").await;
    let by = LookupBy::Handle("quetzalcoatl".to_owned());
    client.ask(&ToRelay::Lookup { request: 1, by }).await;
    client.ask(&device.append(device.inbox_log(), 0xb9, 64)).await;
    client.ask(&device.append(device.inbox_log(), 0xb9, 65)).await;
    client.send_raw(tokio_websockets::Message::text("quetzalcoatl")).await;
    client.until_closed().await;
    server.stop().await;

    let text = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    assert!(text.contains("logged in"), "the log was captured");
    let account = hex(&device.log.id().0[..5]);
    let id = hex(&device.id().0[..5]);
    let secrets = ["quetzalcoatl", "d7d7d7d7", "b9b9b9b9", "215, 215, 215", "185, 185, 185", &account, &id];
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret}: {line:?}");
    }
}
