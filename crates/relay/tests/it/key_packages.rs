use sealwire_relay::{Registration, start_local};
use sealwire_wire::frame::{FromRelay, LoggedIn, ToRelay};
use tempfile::tempdir;

use crate::client::Client;
use crate::device::Device;

const CLAIMERS: u8 = 8;

/// Whether it is the last-resort one, and its bytes.
fn claimed(answer: FromRelay, of: &Device) -> (bool, Vec<u8>) {
    let FromRelay::KeyPackages { request: 5, mut packages } = answer else { panic!("{answer:?}") };
    let package = packages.pop().expect("there is a last-resort one");
    assert_eq!((packages.len(), package.device, package.inbox), (0, of.id(), of.inbox));
    (package.is_last_resort, package.bytes)
}

/// K1: eight who ask at once are handed another one each as long as there is one, then the flagged last-resort one; a crash
/// brings none back.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_package_is_claimed_once_by_many_at_once() {
    let data = tempdir().unwrap();
    let server = start_local(data.path(), 0, Some("relay.example"), Registration::Open).await.unwrap();
    let address = server.address();
    let mut bob = Device::new(99);
    let mut bobs = Client::register(address, &mut bob, "bob").await;
    let one_time: Vec<Vec<u8>> = (1..=5).map(|number| vec![number; 2_700]).collect();
    let publish = ToRelay::PublishKeyPackages {
        request: 4,
        replace: false,
        one_time: one_time.clone(),
        last_resort: Some(vec![9; 2_700]),
    };
    assert_eq!(bobs.ask(&publish).await, FromRelay::Done { request: 4 });

    let claim = ToRelay::ClaimKeyPackages { request: 5, account: bob.log.id(), device: None };
    let mut claimers = Vec::new();
    for number in 0..CLAIMERS {
        let mut device = Device::new(number + 1);
        claimers.push((Client::register(address, &mut device, &format!("name{number}")).await, device));
    }
    let claiming: Vec<_> = claimers
        .into_iter()
        .map(|(mut client, device)| {
            let claim = claim.clone();
            tokio::spawn(async move {
                let answers = [client.ask(&claim).await, client.ask(&claim).await, client.ask(&claim).await];
                (answers, device)
            })
        })
        .collect();
    let (mut all, mut claimer) = (Vec::new(), None);
    for claiming in claiming {
        let (answers, device) = claiming.await.unwrap();
        all.extend(answers.map(|answer| claimed(answer, &bob)));
        claimer = Some(device);
    }
    all.sort();
    let (once, again) = all.split_at(one_time.len());
    assert_eq!(once, one_time.into_iter().map(|bytes| (false, bytes)).collect::<Vec<_>>());
    assert_eq!(again, vec![(true, vec![9; 2_700]); 3 * usize::from(CLAIMERS) - once.len()]);
    server.abort().await;

    let server = start_local(data.path(), 0, Some("relay.example"), Registration::Open).await.unwrap();
    let (_bobs, answer) = Client::log_in(server.address(), &mut bob).await;
    assert!(matches!(answer, LoggedIn::Registered { key_packages: 0, restored: false, .. }));
    let (mut client, _) = Client::log_in(server.address(), &mut claimer.unwrap()).await;
    assert_eq!(claimed(client.ask(&claim).await, &bob), (true, vec![9; 2_700]));
    server.stop().await;
}
