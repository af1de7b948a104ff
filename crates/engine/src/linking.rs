//! Linking (I5): how a new device becomes one of an account. The existing one, its sponsor, shows a code; the new one reads it;
//! both show six digits; a person compares them, and the sponsor hands over what the new device needs. Then the sponsor lists
//! the new device in the account's log. `spec/linking.md` has the messages.
//!
//! Until the new device says that it has kept what it was handed, nothing is listed: whatever ends in between leaves no
//! device behind that nobody has.

use sealwire_keys::{Change as AccountChange, DeviceCard, DeviceConsent, DeviceKey, LogInToBeSigned, Mode};
use sealwire_session::DeviceSecrets;
use sealwire_session::linking::{Channel, CodeSecret, Handshake, SAID_MAX};
use sealwire_wire::frame::{FromRelay, LoggedIn, ToRelay};
use sealwire_wire::limits::{DEVICES_MAX, LINK_CODE_MS, MEETING_FRAMES_MAX, MEETING_MS};
use sealwire_wire::{AccountId, Code, DeviceId, InboxAddress, Incarnation, MeetingId, Position, Time};
use tls_codec::{DeserializeBytes, Serialize, TlsByteVecU8, TlsByteVecU24, TlsDeserializeBytes, TlsSerialize, TlsSize};
use zeroize::Zeroizing;

use crate::command::{Refusal, Reply};
use crate::connection::Asked;
use crate::engine::Engine;
use crate::event::{Event, LinkEnd};
use crate::record::{self, Change, IncarnationRecord, ProgressRecord, Table};
use crate::step::{Input, Output, Step, Turn};

/// The version of what two devices say to each other.
const VERSION: u8 = 1;
/// Said by the sponsor where the person says that the digits differ.
const DECLINED: &[u8] = &[0];
/// Said by the new device once it has kept what it was handed, and by its sponsor once it is listed.
const KEPT: &[u8] = &[1];
const LISTED: &[u8] = &[2];
/// What is handed over at the most: what a connection may send in meetings.
const HAND_OVER_MAX: usize = (MEETING_FRAMES_MAX as usize - 8) * SAID_MAX;

/// The new device's last word of the handshake.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct Introduction {
    version: u8,
    key: [u8; 32],
    inbox: InboxAddress,
    consent: [u8; 64],
}

/// What the sponsor hands over: its own record with the new device's inbox in it, its contacts, and what handles mean.
#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct HandOver {
    version: u8,
    own: TlsByteVecU24,
    contacts: Vec<(AccountId, TlsByteVecU24)>,
    handles: Vec<(TlsByteVecU8, AccountId)>,
}

/// Linking another device, on the side of its sponsor. Nothing of it outlives the connection.
pub(crate) struct Linking {
    meeting: MeetingId,
    until: Time,
    stage: Stage,
}

enum Stage {
    /// The code is shown.
    Waits(Handshake),
    /// The new device has read it.
    Greeted(Handshake),
    /// The digits are shown.
    Asks(Channel, NewDevice),
    /// The person has agreed, and everything was handed over.
    HandedOver(Channel, NewDevice),
    /// The new device has it, and is being listed.
    Lists(Channel, NewDevice),
}

/// What a new device has said of itself.
#[derive(Clone)]
struct NewDevice {
    card: DeviceCard,
    inbox: InboxAddress,
    consent: [u8; 64],
}

impl NewDevice {
    fn read(bytes: &[u8]) -> Option<NewDevice> {
        let said: Introduction = decode(bytes)?;
        let card = DeviceCard { key: DeviceKey::parse(&said.key).ok()?, modes: vec![Mode::Mls], direct: Vec::new() };
        Some(NewDevice { card, inbox: said.inbox, consent: said.consent })
    }

    fn change(&self) -> AccountChange {
        AccountChange::AddDevice { device: self.card.clone(), consent: self.consent }
    }
}

impl Engine {
    pub(crate) fn is_linking(&self) -> bool {
        self.linking.is_some()
    }

    /// When the code, or the meeting, is over.
    pub(crate) fn linking_wake(&self) -> Option<Time> {
        self.linking.as_ref().map(|linking| linking.until)
    }

    /// Shows a code. One that was shown before is void.
    pub(crate) fn start_link(&mut self, turn: &mut Turn<'_>) -> Result<Reply, Refusal> {
        if !self.is_mls() {
            return Err(Refusal::DirectOnly);
        }
        if self.log.is_retired() {
            return Err(Refusal::Retired);
        }
        if self.log.devices().count() >= DEVICES_MAX {
            return Err(Refusal::TooManyDevices);
        }
        if !self.link.is_active() || self.own.publishing.is_some() {
            return Err(Refusal::Offline);
        }
        let secret = CodeSecret(turn.random());
        let (meeting, handshake) = (secret.meeting(), Handshake::of_sponsor(&secret, turn.rng));
        let until = turn.now.plus(LINK_CODE_MS);
        self.linking = Some(Linking { meeting, until, stage: Stage::Waits(handshake) });
        self.say_in_meeting(turn, meeting, Vec::new());
        Ok(Reply::LinkCode(secret))
    }

    /// The person has compared the digits.
    pub(crate) fn confirm_link(&mut self, turn: &mut Turn<'_>, is_the_same: bool) -> Result<Reply, Refusal> {
        let Some(Linking { meeting, until, stage: Stage::Asks(mut channel, new) }) = self.linking.take() else {
            return Err(Refusal::NothingToDecide);
        };
        if !is_the_same {
            let said = channel.say(DECLINED).unwrap_or_default();
            self.say_in_meeting(turn, meeting, said);
            turn.event(Event::LinkEnded { reason: LinkEnd::Declined });
            return Ok(Reply::Done);
        }
        let bytes = self.hand_over(new.inbox);
        if bytes.len() > HAND_OVER_MAX {
            turn.event(Event::LinkEnded { reason: LinkEnd::TooMuch });
            return Ok(Reply::Done);
        }
        let length = (bytes.len() as u32).to_be_bytes();
        let whole: Vec<u8> = length.into_iter().chain(bytes.iter().copied()).collect();
        for piece in whole.chunks(SAID_MAX) {
            // Nothing fails: a piece is as long as it may be.
            let said = channel.say(piece).unwrap_or_default();
            self.say_in_meeting(turn, meeting, said);
        }
        self.linking = Some(Linking { meeting, until, stage: Stage::HandedOver(channel, new) });
        Ok(Reply::Done)
    }

    /// What a new device needs. What is of this device alone stays here: its keys, its cursors, its queue.
    fn hand_over(&self, inbox: InboxAddress) -> Zeroizing<Vec<u8>> {
        let mut own = self.own_record();
        (own.inbox, own.registered, own.behind, own.lists_due) = (inbox, 1, 0, 0);
        (own.publishing, own.publishing_inbox) = (None, None);
        let contacts = self.contacts.iter().map(|(id, contact)| (*id, record::encode(&contact.to_record()).into()));
        let handles = self.handles.iter().map(|(handle, id)| (handle.to_string().into_bytes().into(), *id));
        let all = HandOver {
            version: VERSION,
            own: record::encode(&own).into(),
            contacts: contacts.collect(),
            handles: handles.collect(),
        };
        Zeroizing::new(all.tls_serialize_detached().unwrap_or_default())
    }

    /// The other device has said something.
    pub(crate) fn met(&mut self, turn: &mut Turn<'_>, meeting: MeetingId, bytes: &[u8]) {
        let Some(linking) = self.linking.take_if(|linking| linking.meeting == meeting) else { return };
        match self.answer(turn, linking, bytes) {
            Some(next) => self.linking = Some(next),
            None => turn.event(Event::LinkEnded { reason: LinkEnd::Garbled }),
        }
    }

    /// What comes next; `None` where what came is not of the device that has read the code.
    fn answer(&mut self, turn: &mut Turn<'_>, linking: Linking, bytes: &[u8]) -> Option<Linking> {
        let Linking { meeting, until, stage } = linking;
        match stage {
            Stage::Waits(mut handshake) => {
                handshake.hear(bytes).ok()?;
                let said = handshake.say(&self.log.id().0).ok()?;
                self.say_in_meeting(turn, meeting, said);
                // The code is used. Comparing digits takes a person a while.
                let until = turn.now.plus(MEETING_MS);
                Some(Linking { meeting, until, stage: Stage::Greeted(handshake) })
            }
            Stage::Greeted(mut handshake) => {
                let new = NewDevice::read(&handshake.hear(bytes).ok()?)?;
                let channel = handshake.finish().ok()?;
                turn.event(Event::LinkAsks { digits: channel.digits() });
                Some(Linking { meeting, until, stage: Stage::Asks(channel, new) })
            }
            Stage::Asks(..) => None,
            Stage::HandedOver(mut channel, new) => {
                if channel.hear(bytes).ok()? != KEPT {
                    return None;
                }
                self.linking = Some(Linking { meeting, until, stage: Stage::Lists(channel, new) });
                self.list_device(turn);
                self.linking.take()
            }
            lists @ Stage::Lists(..) => Some(Linking { meeting, until, stage: lists }),
        }
    }

    /// Lists the device that is linked, unless that is under way. After another device was quicker, again.
    pub(crate) fn list_device(&mut self, turn: &mut Turn<'_>) {
        let Some(Linking { stage: Stage::Lists(_, new), .. }) = &self.linking else { return };
        if self.own.publishing.is_none() && self.link.is_active() && self.log.device(new.card.key.device_id()).is_none()
        {
            let (change, inbox) = (new.change(), new.inbox);
            self.own.publishing_inbox = Some(inbox);
            self.publish_change(turn, change, None);
        }
    }

    /// Something of the own log is published: where it is the new device, it hears of it.
    pub(crate) fn device_was_listed(&mut self, turn: &mut Turn<'_>) {
        let is_listed = |linking: &mut Linking| match &linking.stage {
            Stage::Lists(_, new) => self.log.device(new.card.key.device_id()).is_some(),
            _ => false,
        };
        if let Some(Linking { meeting, stage: Stage::Lists(mut channel, _), .. }) = self.linking.take_if(is_listed) {
            let said = channel.say(LISTED).unwrap_or_default();
            self.say_in_meeting(turn, meeting, said);
        }
    }

    fn say_in_meeting(&mut self, turn: &mut Turn<'_>, meeting: MeetingId, bytes: Vec<u8>) {
        self.ask(turn, Asked::Meet, |request| ToRelay::Meet { request, meeting, bytes });
    }

    pub(crate) fn tick_linking(&mut self, turn: &mut Turn<'_>) {
        let is_over = |linking: &mut Linking| turn.now >= linking.until || linking.until.since(turn.now) > MEETING_MS;
        if self.linking.take_if(is_over).is_some() {
            turn.event(Event::LinkEnded { reason: LinkEnd::TimedOut });
        }
    }

    /// The relay takes no meetings.
    pub(crate) fn link_refused(&mut self, turn: &mut Turn<'_>) {
        if self.linking.take().is_some() {
            turn.event(Event::LinkEnded { reason: LinkEnd::Refused });
        }
    }

    /// The connection is gone. A device that is being listed goes on by itself: its entry is sent again.
    pub(crate) fn link_is_cut(&mut self, turn: &mut Turn<'_>) {
        if let Some(linking) = self.linking.take()
            && !matches!(linking.stage, Stage::Lists(..))
        {
            turn.event(Event::LinkEnded { reason: LinkEnd::Cut });
        }
    }
}

/// A device that has read a code, until it is linked. Nothing of it is persisted before it has everything.
pub struct Newcomer {
    secrets: DeviceSecrets,
    inbox: InboxAddress,
    relay_name: String,
    meeting: MeetingId,
    incarnation: IncarnationRecord,
    binding: Option<[u8; 32]>,
    next_request: u32,
    until: Option<Time>,
    stage: NewcomerStage,
    /// Whether it has stored what it was handed.
    has_kept: bool,
    has_ended: bool,
}

enum NewcomerStage {
    /// Not logged in yet.
    Comes(Handshake),
    /// The code's meeting was asked for.
    Greets(Handshake),
    /// The digits are shown; what was handed over so far.
    Compares {
        channel: Channel,
        account: AccountId,
        heard: Zeroizing<Vec<u8>>,
    },
    /// It has everything, and has kept it.
    Kept {
        channel: Channel,
    },
    Over,
}

/// What a new device wants done.
pub enum NewcomerOutput {
    /// Send a frame.
    Send(ToRelay),
    /// Show these digits: the other device shows the same.
    Digits(String),
    /// Here is the engine of the new device. Its step is committed and carried out like any other; the connection goes on
    /// until [`NewcomerOutput::Listed`], or until it ends.
    Linked(Box<Engine>, Step),
    /// It is in the account's log: the engine can connect.
    Listed,
    /// It is not linked, and nothing was kept.
    Failed(LinkEnd),
}

impl Newcomer {
    /// A device that has read a code of a relay of that name.
    pub fn new(secret: &CodeSecret, relay_name: String, rng: &mut dyn rand_core::CryptoRng) -> Newcomer {
        let mut turn = Turn { now: Time(0), rng, step: Step::default() };
        Newcomer {
            secrets: DeviceSecrets::generate(turn.rng),
            inbox: InboxAddress(turn.random()),
            relay_name,
            meeting: secret.meeting(),
            incarnation: IncarnationRecord {
                committed: Incarnation(turn.random()),
                pending: Incarnation(turn.random()),
            },
            binding: None,
            next_request: 0,
            until: None,
            stage: NewcomerStage::Comes(Handshake::of_new_device(secret, turn.rng)),
            has_kept: false,
            has_ended: false,
        }
    }

    /// Handles one input; commands are none of its. The shell opens the connection.
    pub fn handle(&mut self, input: Input, now: Time) -> Vec<NewcomerOutput> {
        let until = *self.until.get_or_insert(now.plus(MEETING_MS));
        let answered = match input {
            Input::Connected { binding } => {
                self.binding = binding;
                Ok(Vec::new())
            }
            Input::Frame(bytes) => match FromRelay::decode(&bytes) {
                Ok(frame) => self.frame(frame, now),
                Err(_) => Ok(Vec::new()),
            },
            Input::Disconnected => Err(LinkEnd::Cut),
            Input::Tick if now >= until => Err(LinkEnd::TimedOut),
            Input::Tick | Input::Command(..) => Ok(Vec::new()),
        };
        match answered {
            Ok(outputs) => outputs,
            Err(_) if std::mem::replace(&mut self.has_ended, true) => Vec::new(),
            // It has everything: its sponsor lists it, also without it.
            Err(_) if self.has_kept => vec![NewcomerOutput::Listed],
            Err(reason) => vec![NewcomerOutput::Failed(reason)],
        }
    }

    fn frame(&mut self, frame: FromRelay, now: Time) -> Result<Vec<NewcomerOutput>, LinkEnd> {
        match frame {
            FromRelay::Hello(hello) if hello.relay_name != self.relay_name => Err(LinkEnd::Refused),
            FromRelay::Hello(hello) => {
                let binding = self.binding.map_or(Vec::new(), |binding| binding.to_vec());
                let IncarnationRecord { committed: incarnation, pending } = self.incarnation;
                let device = self.secrets.device_id();
                let signed = LogInToBeSigned::new(
                    &self.relay_name,
                    hello.relay_key,
                    hello.challenge,
                    device,
                    incarnation,
                    pending,
                    "",
                    &binding,
                );
                let (device_key, signature) = (self.secrets.key().to_bytes(), self.secrets.sign(&signed.encode()));
                let log_in = ToRelay::LogIn { device_key, incarnation, pending, binding, signature };
                Ok(vec![NewcomerOutput::Send(log_in)])
            }
            FromRelay::LoggedIn(LoggedIn::Unregistered) => {
                match std::mem::replace(&mut self.stage, NewcomerStage::Over) {
                    NewcomerStage::Comes(mut handshake) => {
                        let said = handshake.say(&[]).map_err(|_| LinkEnd::Garbled)?;
                        self.stage = NewcomerStage::Greets(handshake);
                        Ok(vec![self.say(said)])
                    }
                    stage => {
                        self.stage = stage;
                        Ok(Vec::new())
                    }
                }
            }
            FromRelay::Met { meeting, bytes } if meeting == self.meeting => self.met(&bytes, now),
            FromRelay::Failed(failed) if failed.code == Code::NotFound => Err(LinkEnd::CodeUsed),
            FromRelay::Failed(_) => Err(LinkEnd::Refused),
            _ => Ok(Vec::new()),
        }
    }

    fn met(&mut self, bytes: &[u8], now: Time) -> Result<Vec<NewcomerOutput>, LinkEnd> {
        let garbled = |_| LinkEnd::Garbled;
        match std::mem::replace(&mut self.stage, NewcomerStage::Over) {
            NewcomerStage::Greets(mut handshake) => {
                let account = handshake.hear(bytes).map_err(garbled)?;
                let account = AccountId::try_from(&account[..]).map_err(|_| LinkEnd::Garbled)?;
                let consent = DeviceConsent { account, device: self.secrets.device_id() };
                let introduction = Introduction {
                    version: VERSION,
                    key: self.secrets.key().to_bytes(),
                    inbox: self.inbox,
                    consent: self.secrets.sign(&consent.encode()),
                };
                let introduction = introduction.tls_serialize_detached().map_err(|_| LinkEnd::Garbled)?;
                let said = handshake.say(&introduction).map_err(garbled)?;
                let channel = handshake.finish().map_err(garbled)?;
                let digits = channel.digits();
                self.stage = NewcomerStage::Compares { channel, account, heard: Zeroizing::default() };
                Ok(vec![self.say(said), NewcomerOutput::Digits(digits)])
            }
            NewcomerStage::Compares { mut channel, account, mut heard } => {
                let said = channel.hear(bytes).map_err(garbled)?;
                if said == DECLINED {
                    return Err(LinkEnd::Declined);
                }
                heard.extend(said);
                let Some(whole) = whole(&heard)? else {
                    self.stage = NewcomerStage::Compares { channel, account, heard };
                    return Ok(Vec::new());
                };
                let (engine, mut step) = self.settle(account, whole).ok_or(LinkEnd::Garbled)?;
                let said = channel.say(KEPT).map_err(garbled)?;
                let NewcomerOutput::Send(kept) = self.say(said) else { return Ok(Vec::new()) };
                // Behind the commit.
                step.outputs.push(Output::Send(kept));
                self.until = Some(now.plus(LINK_CODE_MS));
                self.stage = NewcomerStage::Kept { channel };
                self.has_kept = true;
                Ok(vec![NewcomerOutput::Linked(Box::new(engine), step)])
            }
            NewcomerStage::Kept { mut channel } => {
                let is_listed = channel.hear(bytes).is_ok_and(|said| said == LISTED);
                if !is_listed {
                    self.stage = NewcomerStage::Kept { channel };
                    return Ok(Vec::new());
                }
                self.has_ended = true;
                Ok(vec![NewcomerOutput::Listed])
            }
            stage => {
                self.stage = stage;
                Ok(Vec::new())
            }
        }
    }

    /// The engine of what was handed over. `None` where that is not of the account that was named, or damaged.
    fn settle(&self, account: AccountId, bytes: &[u8]) -> Option<(Engine, Step)> {
        let handed: HandOver = decode(bytes)?;
        let incarnation = record::encode(&self.incarnation);
        let progress = ProgressRecord { cursor: Position::START, next: 1, rejected: 0 };
        let mut records: Vec<(Table, Vec<u8>, Zeroizing<Vec<u8>>)> = vec![
            (Table::Own, record::SECRETS.to_vec(), self.secrets.to_record()),
            (Table::Own, record::INCARNATION.to_vec(), incarnation.into()),
            (Table::Own, record::PROGRESS.to_vec(), record::encode(&progress).into()),
            (Table::Own, record::PROFILE.to_vec(), handed.own.into_vec().into()),
        ];
        let contacts = handed.contacts.into_iter().map(|(id, contact)| (Table::Contact, id.0.to_vec(), contact));
        records.extend(contacts.map(|(table, key, contact)| (table, key, contact.into_vec().into())));
        let handles = handed.handles.into_iter();
        records.extend(handles.map(|(handle, id)| (Table::Handle, handle.into_vec(), record::encode(&id).into())));
        let engine = Engine::load(records.iter().cloned()).ok()?;
        let is_it = engine.log.id() == account && engine.own.inbox == self.inbox && engine.own.registered;
        let changes = records.into_iter().map(|(table, key, value)| Change::Put { table, key, value }).collect();
        is_it.then_some((engine, Step { changes, outputs: Vec::new() }))
    }

    fn say(&mut self, bytes: Vec<u8>) -> NewcomerOutput {
        self.next_request += 1;
        NewcomerOutput::Send(ToRelay::Meet { request: self.next_request, meeting: self.meeting, bytes })
    }

    /// Its id.
    pub fn device(&self) -> DeviceId {
        self.secrets.device_id()
    }
}

/// What was handed over, once all of it is there.
fn whole(heard: &[u8]) -> Result<Option<&[u8]>, LinkEnd> {
    let Some((length, rest)) = heard.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > HAND_OVER_MAX || rest.len() > length {
        return Err(LinkEnd::Garbled);
    }
    Ok((rest.len() == length).then_some(rest))
}

/// A structure of [`VERSION`], and nothing behind it.
fn decode<T: DeserializeBytes>(bytes: &[u8]) -> Option<T> {
    if bytes.first() != Some(&VERSION) {
        return None;
    }
    T::tls_deserialize_exact_bytes(bytes).ok()
}
