//! One log.

use std::collections::{BTreeMap, BTreeSet};

use sealwire_keys::{blob_hash, chain_step, roster_hash};
use sealwire_wire::entry::{Entry, EntryKind};
use sealwire_wire::limits::{COMMIT_RETENTION_MS, ENVELOPE_MEMORY_MS, MESSAGE_RETENTION_MS, ROSTER_RESTORE_MS};
use sealwire_wire::{Chain, EnvelopeId, InboxAddress, LogId, Position, RosterHash, Time};

use super::by_position::ByPosition;
use super::rows::{Digest, Dropped, EntryRow, LogRow, ReaderRow, Write};
use super::shares::{Shares, Writer};
use super::{Limits, PagePlan, welcomes_only};
use crate::{Append, Head, Reader, Refusal, RosterChange};

/// A log's index. Every entry is in `live`, or its bytes are gone and its envelope id is remembered in `gone`, or it is
/// forgotten; `envelopes` says for the ids of both where the entry stands.
#[derive(Clone, Debug)]
pub(super) struct Log {
    id: LogId,
    length: Position,
    newest_commit: Position,
    chain: Option<Chain>,
    readers: BTreeMap<InboxAddress, ReaderRow>,
    live: ByPosition<Live>,
    /// The chain before each live entry of a conversation log: what a reader needs who finds the entry before it gone.
    chains: ByPosition<Chain>,
    gone: BTreeMap<Position, Gone>,
    envelopes: BTreeMap<EnvelopeKey, Position>,
    /// Of all live entries.
    bytes: u64,
    /// Of the live entries of an inbox; a conversation log has none.
    shares: Shares,
    /// No live entry at or before it may be dropped by a quota.
    kept_upto: Position,
    /// Entries at or before it were swept when all cursors had passed it.
    swept_upto: Position,
    /// Whether a cursor has moved since.
    is_passed: bool,
    /// Nothing becomes too old before this time.
    next_due: Time,
}

/// An entry with its bytes, and their digest.
pub(super) struct Sealed<'a> {
    entry: &'a Entry,
    bytes: Vec<u8>,
    digest: Digest,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    row: u64,
    envelope: EnvelopeId,
    digest: Digest,
    at: Time,
    kind: EntryKind,
    size: u32,
    writer: Writer,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    row: u64,
    envelope: EnvelopeId,
    digest: Digest,
    at: Time,
}

/// An envelope id as a number. There are as many as entries, in no order, so that finding one is most of what an append
/// costs here: numbers are compared at once, and small nodes miss the processor's caches less often. No hash map, because
/// clients choose the ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct EnvelopeKey(u128);

impl From<EnvelopeId> for EnvelopeKey {
    fn from(envelope: EnvelopeId) -> EnvelopeKey {
        EnvelopeKey(u128::from_be_bytes(envelope.0))
    }
}

impl<'a> Sealed<'a> {
    pub(super) fn new(entry: &'a Entry) -> Sealed<'a> {
        let bytes = entry.encode();
        let mut digest = Digest::default();
        digest.copy_from_slice(&blob_hash(&bytes).0[..16]);
        Sealed { entry, bytes, digest }
    }
}

impl Log {
    /// An inbox, which is read by its own address.
    pub(super) fn inbox(inbox: InboxAddress) -> Log {
        let mut log = Log::without_readers(LogId::Inbox(inbox));
        log.readers.insert(inbox, ReaderRow { cursor: Position::START, dropped: None });
        log
    }

    pub(super) fn without_readers(id: LogId) -> Log {
        Log {
            id,
            length: Position::START,
            newest_commit: Position::START,
            chain: None,
            readers: BTreeMap::new(),
            live: ByPosition::default(),
            chains: ByPosition::default(),
            gone: BTreeMap::new(),
            envelopes: BTreeMap::new(),
            bytes: 0,
            shares: Shares::default(),
            kept_upto: Position::START,
            swept_upto: Position::START,
            is_passed: true,
            next_due: Time(0),
        }
    }

    /// Begins a conversation log: its chain and its readers.
    pub(super) fn start(&mut self, chain: Chain, roster: &[InboxAddress], writes: &mut Vec<Write>) {
        self.chain = Some(chain);
        writes.push(Write::PutLog(self.row()));
        for inbox in roster.iter().copied().collect::<BTreeSet<_>>() {
            self.put_reader(inbox, ReaderRow { cursor: Position::START, dropped: None }, writes);
        }
    }

    /// Where an entry stands that was appended before.
    pub(super) fn find(&self, sealed: &Sealed<'_>) -> Result<Option<Position>, Refusal> {
        match self.envelopes.get(&sealed.entry.envelope.into()) {
            Some(position) if self.digest(*position) == Some(sealed.digest) => Ok(Some(*position)),
            Some(_) => Err(Refusal::EnvelopeReused),
            None => Ok(None),
        }
    }

    fn digest(&self, position: Position) -> Option<Digest> {
        let gone = || self.gone.get(&position).map(|gone| gone.digest);
        self.live.get(position).map(|live| live.digest).or_else(gone)
    }

    /// Whether an entry may be appended now: kind, writer, newest commit, roster.
    pub(super) fn admit(&self, now: Time, append: &Append) -> Result<(), Refusal> {
        let LogId::Conversation(_) = self.id else {
            let fits = append.entry.kind.is_for_inbox() && append.roster.is_none();
            return if fits { Ok(()) } else { Err(Refusal::WrongKind) };
        };
        let kind = append.entry.kind;
        let may_change_roster = matches!(kind, EntryKind::Commit | EntryKind::RestoreRoster);
        if kind.is_for_inbox() || append.roster.is_some() && !may_change_roster {
            return Err(Refusal::WrongKind);
        }
        let owed = self.restoration_owed(now, append)?;
        self.is_fresh(&append.entry)?;
        match &append.roster {
            Some(change) => self.admit_change(change, owed),
            None => Ok(()),
        }
    }

    /// Whether an entry may be among the first of a conversation.
    pub(super) fn admit_first(&self, entry: &Entry) -> Result<(), Refusal> {
        if entry.kind.is_for_inbox() {
            return Err(Refusal::WrongKind);
        }
        if self.envelopes.contains_key(&entry.envelope.into()) {
            return Err(Refusal::EnvelopeReused);
        }
        self.is_fresh(entry)
    }

    /// Puts an entry behind the last one.
    pub(super) fn append(
        &mut self,
        now: Time,
        row: u64,
        writer: Writer,
        sealed: Sealed<'_>,
        writes: &mut Vec<Write>,
    ) -> Position {
        let position = self.length.next();
        let chain = self.chain.map(|before| (before, chain_step(before, position, &sealed.bytes)));
        let entry = EntryRow {
            row,
            log: self.id,
            position,
            envelope: sealed.entry.envelope,
            at: now,
            kind: sealed.entry.kind,
            digest: sealed.digest,
            size: u32::try_from(sealed.bytes.len()).unwrap_or(u32::MAX),
            writer,
            chain,
        };
        self.load_entry(&entry, false);
        writes.push(Write::PutEntry { entry, bytes: sealed.bytes });
        position
    }

    /// Notes that a dropped reader has used its restoration.
    pub(super) fn use_restoration(&mut self, writer: InboxAddress, writes: &mut Vec<Write>) {
        if let Some(ReaderRow { cursor, dropped: Some(dropped) }) = self.readers.get(&writer).copied() {
            let dropped = Some(Dropped { restored: true, ..dropped });
            self.put_reader(writer, ReaderRow { cursor, dropped }, writes);
        }
    }

    /// Makes the roster another one, by the entry at `position`. Who comes in reads from there; who comes back by a
    /// restoration never left, and reads on where it was.
    pub(super) fn change_roster(
        &mut self,
        now: Time,
        position: Position,
        kind: EntryKind,
        change: &RosterChange,
        writes: &mut Vec<Write>,
    ) {
        let new: BTreeSet<InboxAddress> = change.inboxes.iter().copied().collect();
        let old = self.roster();
        let dropped = Dropped { by: position, at: now, roster: roster_hash(&old), restored: false };
        for inbox in old.iter().filter(|inbox| !new.contains(inbox)) {
            let cursor = self.readers.get(inbox).map_or(position, |reader| reader.cursor);
            self.put_reader(*inbox, ReaderRow { cursor, dropped: Some(dropped) }, writes);
        }
        for inbox in new {
            let before = self.readers.get(&inbox).copied();
            let cursor = match before {
                Some(ReaderRow { dropped: None, .. }) => continue,
                Some(reader) if kind == EntryKind::RestoreRoster => reader.cursor,
                _ => position,
            };
            self.put_reader(inbox, ReaderRow { cursor, dropped: None }, writes);
        }
    }

    /// Lets messages go where the log holds too much: of an inbox the oldest of the writer who has most there, by entries
    /// or by bytes, whichever there is too much of; of a conversation log the oldest. Never the entry that came last, so
    /// that a slow reader costs no writer anything (L9).
    pub(super) fn keep_within(&mut self, now: Time, limits: &Limits, writes: &mut Vec<Write>) {
        let mut has_dropped = false;
        while let Some(position) = self.too_much(limits) {
            self.remove(now, position, limits, writes);
            has_dropped = true;
        }
        if has_dropped {
            writes.push(Write::PutLog(self.row()));
        }
    }

    fn too_much(&mut self, limits: &Limits) -> Option<Position> {
        let entries = self.live.len() as u64;
        match self.id {
            LogId::Inbox(_) if entries > u64::from(limits.inbox_entries) => {
                self.shares.oldest_of_most_entries(self.length)
            }
            LogId::Inbox(_) if self.bytes > limits.inbox_bytes => self.shares.oldest_of_most_bytes(self.length),
            LogId::Conversation(_) if entries > u64::from(limits.conversation_entries) => self.oldest_message(),
            _ => None,
        }
    }

    /// Moves a cursor forward, as far as its reader may read.
    pub(super) fn move_cursor(
        &mut self,
        inbox: InboxAddress,
        upto: Position,
        writes: &mut Vec<Write>,
    ) -> Result<(), Refusal> {
        let reader = self.readers.get(&inbox).copied().ok_or(Refusal::NotInRoster)?;
        let end = reader.dropped.map_or(self.length, |dropped| dropped.by);
        let cursor = upto.min(end);
        if cursor > reader.cursor {
            self.put_reader(inbox, ReaderRow { cursor, ..reader }, writes);
        }
        Ok(())
    }

    /// Whether [`Log::sweep`] may find something.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.is_passed || self.next_due <= now
    }

    /// Removes what all cursors have passed and what is too old, forgets what was remembered long enough, and counts
    /// each against `left`.
    pub(super) fn sweep(&mut self, now: Time, limits: &Limits, left: &mut usize, writes: &mut Vec<Write>) {
        self.forget_readers(now, writes);
        let mut removed = self.sweep_passed(now, limits, left, writes);
        removed |= self.sweep_old(now, limits, left, writes);
        if removed {
            writes.push(Write::PutLog(self.row()));
        }
        self.forget_envelopes(now, left, writes);
        self.next_due = if *left == 0 { Time(0) } else { self.due(now) };
    }

    pub(super) fn page(&self, after: Position, entries: usize, bytes: usize) -> PagePlan {
        let mut plan = PagePlan { entries: Vec::new(), trimmed: None };
        let mut next = after.next();
        let mut sum = 0;
        if after >= self.length {
            return plan;
        }
        for (position, live) in self.live.behind(after) {
            if plan.entries.is_empty() && position > next {
                plan.trimmed = Some((Position(position.0 - 1), self.chains.get(position).copied()));
                next = position;
            }
            sum += live.size as usize;
            let is_full = plan.entries.len() >= entries || sum > bytes;
            if position > next || is_full && !plan.entries.is_empty() {
                return plan;
            }
            plan.entries.push((position, live.at, live.row));
            next = position.next();
        }
        if plan.entries.is_empty() {
            plan.trimmed = Some((self.length, self.chain));
        }
        plan
    }

    pub(super) fn head(&self) -> Head {
        Head { length: self.length, newest_commit: self.newest_commit, chain: self.chain, readers: self.roster() }
    }

    pub(super) fn reader(&self, inbox: InboxAddress) -> Option<Reader> {
        let reader = self.readers.get(&inbox)?;
        let chain = match reader.cursor == self.length {
            true => self.chain,
            false => self.chains.get(reader.cursor.next()).copied(),
        };
        Some(Reader { cursor: reader.cursor, until: reader.dropped.map(|dropped| dropped.by), chain })
    }

    pub(super) fn load_head(&mut self, row: &LogRow) {
        (self.length, self.newest_commit, self.chain) = (row.length, row.newest_commit, row.chain);
    }

    pub(super) fn load_reader(&mut self, inbox: InboxAddress, reader: ReaderRow) {
        self.readers.insert(inbox, reader);
    }

    /// Takes an entry in; one behind the last carries the head forward.
    pub(super) fn load_entry(&mut self, entry: &EntryRow, is_gone: bool) {
        let EntryRow { row, position, envelope, at, kind, digest, size, writer, chain, .. } = *entry;
        self.envelopes.insert(envelope.into(), position);
        if is_gone {
            self.gone.insert(position, Gone { row, envelope, digest, at });
        } else {
            self.live.insert(position, Live { row, envelope, digest, at, kind, size, writer });
            if let Some((before, _)) = chain {
                self.chains.insert(position, before);
            }
            self.bytes += u64::from(size);
            if let LogId::Inbox(_) = self.id {
                self.shares.add(writer, position, size);
            }
        }
        if position > self.length {
            self.length = position;
            self.chain = chain.map(|(_, after)| after);
            if kind == EntryKind::Commit {
                self.newest_commit = position;
            }
        }
        self.next_due = self.next_due.min(at.plus(MESSAGE_RETENTION_MS + 1));
    }

    /// Whether the writer may append this: the roster may, and a dropped inbox may restore the roster that it was in,
    /// which is returned then (C6).
    fn restoration_owed(&self, now: Time, append: &Append) -> Result<Option<RosterHash>, Refusal> {
        let reader = self.readers.get(&append.writer).ok_or(Refusal::NotInRoster)?;
        let Some(dropped) = reader.dropped else { return Ok(None) };
        let is_owed = !dropped.restored && now.since(dropped.at) <= ROSTER_RESTORE_MS;
        let is_asked = append.entry.kind == EntryKind::RestoreRoster;
        if is_owed && is_asked { Ok(Some(dropped.roster)) } else { Err(Refusal::NotInRoster) }
    }

    fn is_fresh(&self, entry: &Entry) -> Result<(), Refusal> {
        let is_fresh = !entry.kind.names_after() || entry.after == Some(self.newest_commit);
        if is_fresh { Ok(()) } else { Err(Refusal::Stale { newest_commit: self.newest_commit }) }
    }

    fn admit_change(&self, change: &RosterChange, owed: Option<RosterHash>) -> Result<(), Refusal> {
        let is_owed_one = owed.is_none_or(|owed| owed == roster_hash(&change.inboxes));
        if change.before != roster_hash(&self.roster()) || !is_owed_one {
            return Err(Refusal::RosterMoved);
        }
        welcomes_only(&change.welcomes)
    }

    fn roster(&self) -> Vec<InboxAddress> {
        self.readers.iter().filter(|(_, reader)| reader.dropped.is_none()).map(|(inbox, _)| *inbox).collect()
    }

    fn put_reader(&mut self, inbox: InboxAddress, reader: ReaderRow, writes: &mut Vec<Write>) {
        self.readers.insert(inbox, reader);
        self.is_passed = true;
        if let Some(dropped) = reader.dropped {
            self.next_due = self.next_due.min(dropped.at.plus(ROSTER_RESTORE_MS + 1));
        }
        writes.push(Write::PutReader { log: self.id, inbox, reader });
    }

    fn row(&self) -> LogRow {
        LogRow { log: self.id, length: self.length, newest_commit: self.newest_commit, chain: self.chain }
    }

    /// The oldest live entry of a conversation log, but for the last one, that a quota may drop.
    fn oldest_message(&mut self) -> Option<Position> {
        let last = self.length;
        let mut behind = self.live.behind(self.kept_upto).take_while(|(position, _)| *position < last);
        let found = behind.find(|(_, live)| !live.kind.is_kept_long()).map(|(position, _)| position);
        self.kept_upto = found.unwrap_or(Position(last.0 - 1));
        found
    }

    /// Lets an entry's bytes go; its envelope id too, if that was remembered long enough, or the oldest id where too many
    /// are remembered (E4).
    fn remove(&mut self, now: Time, position: Position, limits: &Limits, writes: &mut Vec<Write>) {
        let Some(Live { row, envelope, digest, at, size, writer, .. }) = self.live.remove(position) else { return };
        self.chains.remove(position);
        self.bytes -= u64::from(size);
        if let LogId::Inbox(_) = self.id {
            self.shares.remove(writer, position, size);
        }
        if now.since(at) > ENVELOPE_MEMORY_MS {
            self.envelopes.remove(&envelope.into());
            writes.push(Write::RemoveEntry { row });
            return;
        }
        self.gone.insert(position, Gone { row, envelope, digest, at });
        writes.push(Write::EmptyEntry { row });
        while self.gone.len() > limits.remembered as usize {
            self.forget_oldest(writes);
        }
    }

    fn forget_oldest(&mut self, writes: &mut Vec<Write>) {
        let Some((_, gone)) = self.gone.pop_first() else { return };
        self.envelopes.remove(&gone.envelope.into());
        writes.push(Write::RemoveEntry { row: gone.row });
    }

    /// A dropped reader is forgotten when it may neither restore nor read anything more.
    fn forget_readers(&mut self, now: Time, writes: &mut Vec<Write>) {
        let is_over = |reader: &ReaderRow| {
            reader.dropped.is_some_and(|dropped| {
                let age = now.since(dropped.at);
                age > COMMIT_RETENTION_MS || age > ROSTER_RESTORE_MS && reader.cursor >= dropped.by
            })
        };
        let over: Vec<_> = self.readers.iter().filter(|(_, reader)| is_over(reader)).map(|(inbox, _)| *inbox).collect();
        for inbox in over {
            self.readers.remove(&inbox);
            self.is_passed = true;
            writes.push(Write::RemoveReader { log: self.id, inbox });
        }
    }

    fn sweep_passed(&mut self, now: Time, limits: &Limits, left: &mut usize, writes: &mut Vec<Write>) -> bool {
        if !std::mem::take(&mut self.is_passed) {
            return false;
        }
        let edge = self.passed_by_all();
        let behind = self.live.behind(self.swept_upto).map(|(position, _)| position);
        let passed: Vec<_> = behind.take_while(|position| *position <= edge).take(*left).collect();
        self.remove_all(now, &passed, limits, left, writes);
        if *left > 0 {
            self.swept_upto = edge.max(self.swept_upto);
        } else {
            self.is_passed = true;
        }
        !passed.is_empty()
    }

    /// Stops at the first entry that is young enough for every kind, so that a sweep costs what it removes. A clock that
    /// was set back makes entries live longer, never shorter.
    fn sweep_old(&mut self, now: Time, limits: &Limits, left: &mut usize, writes: &mut Vec<Write>) -> bool {
        let old: Vec<_> = self
            .live
            .iter()
            .take_while(|(_, live)| now.since(live.at) > MESSAGE_RETENTION_MS)
            .filter(|(_, live)| now.since(live.at) > retention(live.kind))
            .map(|(position, _)| position)
            .take(*left)
            .collect();
        self.remove_all(now, &old, limits, left, writes);
        !old.is_empty()
    }

    fn remove_all(
        &mut self,
        now: Time,
        positions: &[Position],
        limits: &Limits,
        left: &mut usize,
        writes: &mut Vec<Write>,
    ) {
        for position in positions {
            self.remove(now, *position, limits, writes);
        }
        *left -= positions.len();
    }

    fn forget_envelopes(&mut self, now: Time, left: &mut usize, writes: &mut Vec<Write>) {
        let is_over = |gone: &Gone| now.since(gone.at) > ENVELOPE_MEMORY_MS;
        while *left > 0 && self.gone.first_key_value().is_some_and(|(_, gone)| is_over(gone)) {
            self.forget_oldest(writes);
            *left -= 1;
        }
    }

    fn passed_by_all(&self) -> Position {
        let reading =
            self.readers.values().filter(|reader| reader.dropped.is_none_or(|dropped| reader.cursor < dropped.by));
        reading.map(|reader| reader.cursor).min().unwrap_or(self.length)
    }

    /// When the next sweep for age may find something, everything of now being swept.
    fn due(&self, now: Time) -> Time {
        let is_old = |live: &Live| now.since(live.at) > MESSAGE_RETENTION_MS;
        let live = || self.live.iter().map(|(_, live)| live);
        let old = live().take_while(|live| is_old(live)).map(|live| live.at.plus(retention(live.kind)));
        let young = live().find(|live| !is_old(live)).map(|live| live.at.plus(MESSAGE_RETENTION_MS));
        let gone = self.gone.values().next().map(|gone| gone.at.plus(ENVELOPE_MEMORY_MS));
        let readers = self.readers.values().filter_map(|reader| reader.dropped).map(|dropped| {
            let may_restore = now.since(dropped.at) <= ROSTER_RESTORE_MS;
            dropped.at.plus(if may_restore { ROSTER_RESTORE_MS } else { COMMIT_RETENTION_MS })
        });
        old.chain(young).chain(gone).chain(readers).min().map_or(Time(u64::MAX), |last| last.plus(1))
    }
}

fn retention(kind: EntryKind) -> u64 {
    if kind.is_kept_long() { COMMIT_RETENTION_MS } else { MESSAGE_RETENTION_MS }
}
