//! Who is connected: the readers of logs, the connection of each device (N2), presence (A2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealwire_relay_core::{Growth, Meetings};
use sealwire_wire::frame::RequestId;
use sealwire_wire::{DeviceId, LogId, MeetingId, PresenceToken, Time};

use crate::mailbox::Mailbox;

/// Shared by all connections. One mutex, held for look-ups and insertions only, never across an await.
#[derive(Default)]
pub(crate) struct Hub {
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    readers: BTreeMap<LogId, BTreeMap<SeatId, Arc<Mailbox>>>,
    devices: BTreeMap<DeviceId, (SeatId, Arc<Mailbox>)>,
    online: BTreeMap<PresenceToken, BTreeSet<SeatId>>,
    watchers: BTreeMap<PresenceToken, BTreeMap<SeatId, Arc<Mailbox>>>,
    meetings: Meetings<SeatId>,
    /// Whoever has come to a meeting.
    meeting: BTreeMap<SeatId, Arc<Mailbox>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SeatId(u64);

/// One connection's entries in the hub; leaves with it, however it ends.
pub(crate) struct Seat {
    hub: Arc<Hub>,
    id: SeatId,
    mailbox: Arc<Mailbox>,
    logs: BTreeSet<LogId>,
    device: Option<DeviceId>,
    online: Option<PresenceToken>,
    watched: Vec<PresenceToken>,
}

impl Hub {
    pub(crate) fn enter(self: &Arc<Hub>) -> Seat {
        let mut seats = self.seats();
        seats.next += 1;
        Seat {
            hub: Arc::clone(self),
            id: SeatId(seats.next),
            mailbox: Arc::default(),
            logs: BTreeSet::new(),
            device: None,
            online: None,
            watched: Vec::new(),
        }
    }

    /// To ask who reads. Whoever comes when this is dropped finds in the store what was committed before.
    pub(crate) fn readers(&self) -> Readers<'_> {
        Readers(self.seats())
    }

    /// Puts what logs grew by into the mailbox of each of their readers, and adds the mailboxes to those to be woken.
    pub(crate) fn put_grown(&self, grown: Vec<Growth>, to_wake: &mut Vec<Arc<Mailbox>>) {
        let seats = self.seats();
        for Growth { log, entries } in grown {
            let mut readers = seats.readers.get(&log).into_iter().flat_map(BTreeMap::values);
            // An inbox has one reader, or for a moment two.
            let Some(first) = readers.next() else { continue };
            for other in readers {
                other.put_grown(log, entries.clone());
                to_wake.push(Arc::clone(other));
            }
            first.put_grown(log, entries);
            to_wake.push(Arc::clone(first));
        }
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // Nothing in here panics half-way but for want of memory.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody comes or goes meanwhile.
pub(crate) struct Readers<'a>(MutexGuard<'a, Seats>);

impl Readers<'_> {
    pub(crate) fn read(&self, log: LogId) -> bool {
        self.0.readers.contains_key(&log)
    }
}

impl Seat {
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    pub(crate) fn attach(&mut self, log: LogId) {
        let mailbox = Arc::clone(&self.mailbox);
        self.hub.seats().readers.entry(log).or_default().insert(self.id, mailbox);
        self.logs.insert(log);
    }

    pub(crate) fn detach(&mut self, log: LogId) {
        self.hub.seats().leave_log(log, self.id);
        self.logs.remove(&log);
    }

    /// The newest connection of a device wins; the older one is told (N2).
    pub(crate) fn take_device(&mut self, device: DeviceId) {
        let taken = (self.id, Arc::clone(&self.mailbox));
        if let Some((_, older)) = self.hub.seats().devices.insert(device, taken) {
            older.tell_replaced();
        }
        self.device = Some(device);
    }

    /// Comes to a meeting, and hands bytes to the other one, where there are any. What became of it is in the own mailbox.
    pub(crate) fn meet(&mut self, now: Time, request: RequestId, meeting: MeetingId, bytes: Vec<u8>, opens: bool) {
        let mut seats = self.hub.seats();
        let met = seats.meetings.meet(now, meeting, self.id, opens);
        if met.is_ok() {
            seats.meeting.insert(self.id, Arc::clone(&self.mailbox));
        }
        if let Ok(Some(other)) = met
            && let Some(mailbox) = seats.meeting.get(&other).filter(|_| !bytes.is_empty())
        {
            mailbox.tell_met(meeting, bytes);
        }
        self.mailbox.tell_meeting_answered(request, met.map(|_other| ()));
    }

    /// A device was taken from its account.
    pub(crate) fn expel(&self, device: DeviceId) {
        if let Some((_, mailbox)) = self.hub.seats().devices.get(&device) {
            mailbox.tell_revoked();
        }
    }

    pub(crate) fn set_online(&mut self, token: Option<PresenceToken>) {
        let before = std::mem::replace(&mut self.online, token);
        if before == token {
            return;
        }
        let mut seats = self.hub.seats();
        if let Some(token) = token {
            seats.come(token, self.id);
        }
        if let Some(token) = before {
            seats.go(token, self.id);
        }
    }

    pub(crate) fn watch(&mut self, tokens: Vec<PresenceToken>) {
        let mut seats = self.hub.seats();
        for token in std::mem::replace(&mut self.watched, tokens) {
            seats.leave_token(token, self.id);
        }
        for token in &self.watched {
            seats.watchers.entry(*token).or_default().insert(self.id, Arc::clone(&self.mailbox));
            self.mailbox.tell_presence(*token, seats.online.contains_key(token));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set_online(None);
        let mut seats = self.hub.seats();
        if seats.meeting.remove(&self.id).is_some() {
            seats.meetings.leave(self.id);
        }
        for log in &self.logs {
            seats.leave_log(*log, self.id);
        }
        for token in &self.watched {
            seats.leave_token(*token, self.id);
        }
        if let Some(device) = self.device
            && seats.devices.get(&device).is_some_and(|(id, _)| *id == self.id)
        {
            seats.devices.remove(&device);
        }
    }
}

impl Seats {
    fn come(&mut self, token: PresenceToken, id: SeatId) {
        let connections = self.online.entry(token).or_default();
        let is_first = connections.is_empty();
        connections.insert(id);
        if is_first {
            self.tell(token, true);
        }
    }

    fn go(&mut self, token: PresenceToken, id: SeatId) {
        let Some(connections) = self.online.get_mut(&token) else { return };
        connections.remove(&id);
        if connections.is_empty() {
            self.online.remove(&token);
            self.tell(token, false);
        }
    }

    fn tell(&self, token: PresenceToken, online: bool) {
        for mailbox in self.watchers.get(&token).into_iter().flat_map(BTreeMap::values) {
            mailbox.tell_presence(token, online);
        }
    }

    fn leave_log(&mut self, log: LogId, id: SeatId) {
        if let Some(readers) = self.readers.get_mut(&log) {
            readers.remove(&id);
            if readers.is_empty() {
                self.readers.remove(&log);
            }
        }
    }

    fn leave_token(&mut self, token: PresenceToken, id: SeatId) {
        if let Some(watchers) = self.watchers.get_mut(&token) {
            watchers.remove(&id);
            if watchers.is_empty() {
                self.watchers.remove(&token);
            }
        }
    }
}
