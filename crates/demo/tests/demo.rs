//! The demo is a test of the whole: relay, clients, sockets, stores. It has to hold.

use sealwire_demo::{Options, explain, run};

/// M1, M3, M7: what people said, and their key files, are nowhere in what the relay saw, stored and logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_holds() {
    assert!(run(Options { json: true, ..Options::default() }).await.unwrap());
}

#[test]
fn the_explanation_is_true() {
    assert!(explain());
}

/// A folder with something in it is left alone.
#[tokio::test]
async fn kept_files_go_into_an_empty_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "precious").unwrap();
    let keep = Some(folder.path().to_owned());
    assert!(run(Options { json: true, keep, ..Options::default() }).await.is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
