//! Linking: a code on one device makes another one of the same account (`spec/linking.md`).

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealwire_engine::{CodeSecret, Command, Input, LinkEnd, Mode, Newcomer, NewcomerOutput, Output, Reply};
use sealwire_wire::handle::Handle;
use tokio::sync::mpsc;

use crate::client::{Client, Error, Events, blocking, store_address};
use crate::driver::now;
use crate::socket::{RelayAddress, Socket, SocketEvent};
use crate::store::{ClientStore, Unlock};

/// What a code begins with.
const PREFIX: &str = "sealwire:link:";
/// How often a device that is being linked looks at the clock.
const TICK: Duration = Duration::from_millis(500);
/// For so long, a code that nobody waits for may be one that was read before the relay had heard of it.
const EARLY: Duration = Duration::from_secs(2);
/// How long it waits then, before it comes again.
const EARLY_AGAIN: Duration = Duration::from_millis(250);
/// Frames that may wait.
const FRAMES: usize = 64;

/// A code to link a device: good once, for a minute. Whoever reads it can come forward as the new device, and is seen by the
/// digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkCode {
    secret: CodeSecret,
    relay: String,
}

/// Not a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("that is not a code: it begins with {PREFIX} and ends with @ and the relay's name")]
pub struct NoCode;

impl LinkCode {
    /// What the relay of the account calls itself.
    pub fn relay(&self) -> &str {
        &self.relay
    }
}

impl std::fmt::Display for LinkCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}@{}", BASE32_NOPAD.encode(&self.secret.0), self.relay)
    }
}

impl FromStr for LinkCode {
    type Err = NoCode;

    /// Case, spaces and hyphens in the secret do not count, nor does the beginning: people type it.
    fn from_str(text: &str) -> Result<LinkCode, NoCode> {
        let text: String = text.chars().filter(|char| !char.is_whitespace()).collect();
        let (code, relay) = text.rsplit_once('@').ok_or(NoCode)?;
        let code = match code.get(..PREFIX.len()) {
            Some(begins) if begins.eq_ignore_ascii_case(PREFIX) => &code[PREFIX.len()..],
            _ => code,
        };
        let code: String = code.chars().filter(|char| *char != '-').map(|char| char.to_ascii_uppercase()).collect();
        let secret = BASE32_NOPAD.decode(code.as_bytes()).map_err(|_| NoCode)?;
        // The host of some handle.
        let relay = Handle::parse(&format!("x@{relay}")).map_err(|_| NoCode)?.host;
        Ok(LinkCode { secret: CodeSecret(secret.try_into().map_err(|_| NoCode)?), relay })
    }
}

impl Client {
    /// A code that links another device to this account. Needs the relay. What comes next are events:
    /// [`crate::Event::LinkAsks`] once a device has read it, to be answered by [`Client::confirm_link`]; then
    /// [`crate::Event::DeviceAdded`], or [`crate::Event::LinkEnded`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn link_code(&self) -> Result<LinkCode, Error> {
        let relay = self.profile().await?.handle.host;
        match self.command(Command::Link).await? {
            Reply::LinkCode(secret) => Ok(LinkCode { secret, relay }),
            _ => Err(Error::Closed),
        }
    }

    /// Whether the person has seen the same digits on the other device. Nothing is handed over before.
    ///
    /// # Errors
    /// [`Error`]; [`crate::Refusal::NothingToDecide`] where it took too long.
    pub async fn confirm_link(&self, is_the_same: bool) -> Result<(), Error> {
        self.command(Command::ConfirmLink(is_the_same)).await.map(drop)
    }

    /// Makes this folder a new device of the account whose other device shows this code. `show` gets the six digits: the
    /// person compares them with those on the other device, and says there that they are the same. `relay`: where the relay
    /// is; the code has its name only.
    ///
    /// # Errors
    /// [`Error::Link`] says why it was not linked, and [`Error::Store`]; nothing is kept then.
    pub async fn link(
        folder: &Path,
        unlock: Unlock,
        code: &LinkCode,
        relay: RelayAddress,
        show: impl FnOnce(&str),
    ) -> Result<(Client, Events), Error> {
        let new = || Newcomer::new(&code.secret, code.relay.clone(), &mut UnwrapErr(SysRng));
        let connect = || {
            let (events_in, events) = mpsc::channel(FRAMES);
            (Socket::connect(relay.clone(), 0, events_in), events)
        };
        let began = tokio::time::Instant::now();
        let (mut newcomer, (mut socket, mut events)) = (new(), connect());
        let (mut show, mut linked, mut unlock) = (Some(show), None, Some(unlock));
        loop {
            let input = match tokio::time::timeout(TICK, events.recv()).await {
                Err(_) => Input::Tick,
                Ok(Some((_, SocketEvent::Opened { binding }))) => Input::Connected { binding },
                Ok(Some((_, SocketEvent::Frame(bytes)))) => Input::Frame(bytes),
                Ok(Some((_, SocketEvent::Closed)) | None) => Input::Disconnected,
            };
            for output in newcomer.handle(input, now()) {
                match output {
                    NewcomerOutput::Send(frame) => drop(socket.send(frame.encode())),
                    NewcomerOutput::Digits(digits) => show.take().into_iter().for_each(|show| show(&digits)),
                    NewcomerOutput::Failed(LinkEnd::CodeUsed) if began.elapsed() < EARLY => {
                        tokio::time::sleep(EARLY_AGAIN).await;
                        newcomer = new();
                        (socket, events) = connect();
                        break;
                    }
                    NewcomerOutput::Failed(reason) => return Err(Error::Link(reason)),
                    NewcomerOutput::Linked(engine, step) => {
                        // It is linked once.
                        let Some(unlock) = unlock.take() else { continue };
                        let (folder, relay) = (folder.to_owned(), relay.clone());
                        let (store, outputs) = blocking(move || {
                            let mut store = ClientStore::create(&folder, &unlock)?;
                            store_address(&store, &relay)?;
                            let mut outputs = Vec::new();
                            let done = step.carry_out(|changes| store.commit(changes), |output| outputs.push(output));
                            done.map_err(|(error, _)| error)?;
                            Ok((store, outputs))
                        })
                        .await?;
                        linked = Some((*engine, store));
                        for output in outputs {
                            if let Output::Send(frame) = output {
                                socket.send(frame.encode());
                            }
                        }
                    }
                    NewcomerOutput::Listed => {
                        let (engine, store) = linked.ok_or(Error::Link(LinkEnd::Cut))?;
                        drop(socket);
                        return Ok(Client::start(engine, store, relay, Mode::Mls));
                    }
                }
            }
        }
    }

    /// The devices of this account.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn devices(&self) -> Result<Vec<sealwire_engine::DeviceView>, Error> {
        match self.command(Command::Devices).await? {
            Reply::Devices(devices) => Ok(devices),
            _ => Err(Error::Closed),
        }
    }

    /// Takes a device from this account, for good. Needs the relay.
    ///
    /// # Errors
    /// [`Error`]; [`crate::Refusal::UnknownDevice`] and [`crate::Refusal::LastDevice`] among them.
    pub async fn revoke(&self, device: sealwire_wire::DeviceId) -> Result<(), Error> {
        self.command(Command::Revoke(device)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I5: what is shown is read again, also as a person types it; anything else is told from it.
    #[test]
    fn a_code_is_read_as_it_is_typed() {
        let code = LinkCode { secret: CodeSecret(*b"sixteen  bytes!!"), relay: "relay.example".into() };
        let shown = code.to_string();
        assert_eq!(shown, "sealwire:link:ONUXQ5DFMVXCAIDCPF2GK4ZBEE@relay.example");
        assert_eq!(shown.parse(), Ok(code.clone()));
        for typed in ["onux-q5df-mvxc-aidc-pf2g-k4zb-ee@relay.example", " ONUXQ5 DFMVXCAIDCPF2GK4ZBEE @relay.example\n"]
        {
            assert_eq!(typed.parse(), Ok(code.clone()), "{typed}");
        }
        for wrong in [
            "",
            "@",
            "ONUXQ5DFMVXCAIDCPF2GK4ZBEE",
            "ONUXQ5@relay.example",
            "0NUXQ5DFMVXCAIDCPF2GK4ZBEE@relay.example",
            "ONUXQ5DFMVXCAIDCPF2GK4ZBEE@",
        ] {
            assert_eq!(wrong.parse::<LinkCode>(), Err(NoCode), "{wrong}");
        }
    }
}
