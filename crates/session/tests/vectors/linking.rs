//! `linking.json`: an account that gets a second device and loses its first one (I5), and the channel by which the second
//! one came. The Noise messages follow from the static and ephemeral secrets that are listed.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sealwire_keys::{
    AccountEntry, AccountKind, AccountLog, Change, DeviceCard, DeviceConsent, Mode, SignedEntry, sign_entry,
};
use sealwire_session::DeviceSecrets;
use sealwire_session::linking::{CodeSecret, Handshake};
use sealwire_wire::{AccountId, Time};
use serde_json::{Value, json};

use super::{check, device, device_json, hex, rng};

fn card(device: &DeviceSecrets) -> DeviceCard {
    DeviceCard { key: device.key(), modes: vec![Mode::Mls], direct: Vec::new() }
}

fn consent(account: AccountId, new: &DeviceSecrets) -> [u8; 64] {
    new.sign(&DeviceConsent { account, device: new.device_id() }.encode())
}

fn next(log: &AccountLog, at: u64, change: Change, signer: &DeviceSecrets) -> SignedEntry {
    sign_entry(&log.next(Time(at), change, signer.device_id()), |bytes| signer.sign(bytes))
}

/// What a handshake draws from this generator: its static secret, then the seed of the one that its ephemeral secret is of.
fn drawn(seed: u64) -> Value {
    let mut rng = rng(seed);
    let (mut own, mut seed, mut ephemeral) = ([0; 32], [0; 32], [0; 32]);
    rng.fill_bytes(&mut own);
    rng.fill_bytes(&mut seed);
    ChaCha20Rng::from_seed(seed).fill_bytes(&mut ephemeral);
    json!({ "static_secret": hex(own), "ephemeral_secret": hex(ephemeral) })
}

#[test]
fn vectors_of_linking() {
    let (phone, laptop) = (device(0x11), device(0x22));
    let genesis = AccountEntry {
        account: AccountId([0; 32]),
        number: 0,
        previous: [0; 32],
        at: Time(1_790_000_000_000),
        change: Change::Genesis { kind: AccountKind::Person, device: card(&phone) },
        signer: phone.device_id(),
    };
    let genesis = sign_entry(&genesis, |bytes| phone.sign(bytes));
    let mut log = AccountLog::begin(genesis.clone()).unwrap();
    let account = log.id();
    let adding = |consent| next(&log, 1_790_000_100_000, Change::AddDevice { device: card(&laptop), consent }, &phone);
    let added = adding(consent(account, &laptop));
    let not_agreed = adding(consent(AccountId([7; 32]), &laptop));
    let last = next(&log, 1_790_000_100_000, Change::RevokeDevice { device: phone.device_id() }, &phone);
    log.append(added.clone()).unwrap();
    let again = Change::AddDevice { device: card(&laptop), consent: consent(account, &laptop) };
    let again = next(&log, 1_790_000_200_000, again, &phone);
    let revoked = next(&log, 1_790_000_200_000, Change::RevokeDevice { device: phone.device_id() }, &laptop);
    log.append(revoked.clone()).unwrap();
    let back = Change::AddDevice { device: card(&phone), consent: consent(account, &phone) };
    let back = next(&log, 1_790_000_300_000, back, &laptop);
    let by_revoked = next(&log, 1_790_000_300_000, Change::Retire, &phone);
    let wrong = |what: &str, entries: &[&SignedEntry]| {
        let error = AccountLog::verify(entries.iter().copied().cloned()).unwrap_err();
        let entries: Vec<_> = entries.iter().map(|entry| hex(&entry.0)).collect();
        json!({ "what": what, "entries": entries, "error": format!("{error:?}") })
    };
    let entry =
        |what: &str, entry: &SignedEntry| json!({ "what": what, "entry": hex(&entry.0), "hash": hex(entry.hash()) });
    check(
        "linking.json",
        &json!({
            "phone": device_json(0x11),
            "laptop": device_json(0x22),
            "account_id": account.to_string(),
            "account_log": [
                entry("genesis", &genesis),
                entry("AddDevice", &added),
                entry("RevokeDevice", &revoked),
            ],
            "consent": hex(consent(account, &laptop)),
            "refused": [
                wrong("agreed to another account", &[&genesis, &not_agreed]),
                wrong("the last device", &[&genesis, &last]),
                wrong("a device that is there", &[&genesis, &added, &again]),
                wrong("a device that was revoked", &[&genesis, &added, &revoked, &back]),
                wrong("by a device that was revoked", &[&genesis, &added, &revoked, &by_revoked]),
            ],
            "channel": channel(account, &laptop),
        }),
    );
}

fn channel(account: AccountId, laptop: &DeviceSecrets) -> Value {
    let secret = CodeSecret([0x55; 16]);
    let mut new = Handshake::of_new_device(&secret, &mut rng(5));
    let mut sponsor = Handshake::of_sponsor(&secret, &mut rng(6));
    let introduction = [&[1][..], &laptop.key().to_bytes(), &[0x44; 16], &consent(account, laptop)].concat();
    let mut messages = Vec::new();
    for (is_new, payload) in [(true, &[][..]), (false, &account.0), (true, &introduction)] {
        let (from, to) = if is_new { (&mut new, &mut sponsor) } else { (&mut sponsor, &mut new) };
        let message = from.say(payload).unwrap();
        assert_eq!(to.hear(&message).unwrap(), payload);
        messages.push(json!({ "payload": hex(payload), "message": hex(message) }));
    }
    let (mut new, mut sponsor) = (new.finish().unwrap(), sponsor.finish().unwrap());
    assert_eq!(new.digits(), sponsor.digits());
    for (is_new, payload) in [(false, &b"\0\0\0\x04abcd"[..]), (true, &[1])] {
        let (from, to) = if is_new { (&mut new, &mut sponsor) } else { (&mut sponsor, &mut new) };
        let message = from.say(payload).unwrap();
        assert_eq!(to.hear(&message).unwrap(), payload);
        messages.push(json!({ "payload": hex(payload), "message": hex(message) }));
    }
    json!({
        "secret": hex(secret.0),
        "meeting": secret.meeting().to_string(),
        "new_device": drawn(5),
        "sponsor": drawn(6),
        "messages": messages,
        "digits": new.digits(),
    })
}
