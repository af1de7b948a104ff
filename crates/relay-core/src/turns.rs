//! Turns at a conversation log (L10): who was told `Stale` three times in a row has two seconds in which no commit of
//! anybody else comes in between. The shell that commits for all connections asks and tells; nothing of it is durable.

use std::collections::BTreeMap;

use sealwire_store::{Append, Operation, Outcome, Refusal};
use sealwire_wire::entry::EntryKind;
use sealwire_wire::limits::{STALE_MAX, TURN_EVERY_MS, TURN_MS};
use sealwire_wire::{ConversationId, InboxAddress, LogId, Position, Time};

/// Devices that are remembered at once: beyond that nobody gets a new turn until some are forgotten.
const WAITING_MAX: usize = 16_384;

/// Who waits for a turn, and who has one.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: BTreeMap<(ConversationId, InboxAddress), Waiting>,
    /// Whose turn it is, and since when.
    turns: BTreeMap<ConversationId, (InboxAddress, Time)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// How often in a row it was told `Stale`, each time because of another commit.
    stale: u32,
    /// The commit of the last time: what was sent before that could be heard counts once.
    newest_commit: Position,
    at: Time,
    /// When it last had a turn.
    turn_at: Option<Time>,
}

impl Turns {
    /// Whether it is anybody's turn anywhere: nothing waits otherwise.
    pub fn are_any(&mut self, now: Time) -> bool {
        self.turns.retain(|_, (_, since)| is_within(*since, TURN_MS, now));
        !self.turns.is_empty()
    }

    /// Until when an operation waits, as a commit does in another device's turn; `None`: it does not.
    pub fn waits_until(&self, now: Time, operation: &Operation) -> Option<Time> {
        let Operation::Append(Append { log: LogId::Conversation(conversation), writer, entry, .. }) = operation else {
            return None;
        };
        let (whose, since) = self.turns.get(conversation).filter(|_| entry.kind == EntryKind::Commit)?;
        (whose != writer && is_within(*since, TURN_MS, now)).then(|| since.plus(TURN_MS))
    }

    /// What became of an operation.
    pub fn note(&mut self, now: Time, operation: &Operation, outcome: &Outcome) {
        let Operation::Append(Append { log: LogId::Conversation(conversation), writer, entry, .. }) = operation else {
            return;
        };
        let key = (*conversation, *writer);
        match outcome {
            Outcome::Appended { repeated: false, .. } => {
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.stale = 0;
                }
                // What its turn was for is done.
                if entry.kind == EntryKind::Commit
                    && self.turns.get(conversation).is_some_and(|(whose, _)| whose == writer)
                {
                    self.turns.remove(conversation);
                }
            }
            Outcome::Refused(Refusal::Stale { newest_commit }) => self.note_stale(now, key, *newest_commit),
            _ => {}
        }
    }

    fn note_stale(&mut self, now: Time, key: (ConversationId, InboxAddress), newest_commit: Position) {
        self.are_any(now);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.retain(|_, waiting| is_within(waiting.at, TURN_EVERY_MS, now));
        }
        let known = self.waiting.get(&key).copied();
        if known.is_none() && self.waiting.len() >= WAITING_MAX {
            return;
        }
        let mut waiting = known.unwrap_or(Waiting { stale: 0, newest_commit: Position(0), at: now, turn_at: None });
        if newest_commit != waiting.newest_commit {
            waiting.stale = waiting.stale.saturating_add(1);
        }
        (waiting.newest_commit, waiting.at) = (newest_commit, now);
        let had_one = waiting.turn_at.is_some_and(|at| is_within(at, TURN_EVERY_MS, now));
        if waiting.stale >= STALE_MAX && !had_one && !self.turns.contains_key(&key.0) {
            self.turns.insert(key.0, (key.1, now));
            (waiting.stale, waiting.turn_at) = (0, Some(now));
        }
        self.waiting.insert(key, waiting);
    }
}

/// Whether less than that has passed. Of a clock that was set back, all of it has.
fn is_within(since: Time, milliseconds: u64, now: Time) -> bool {
    since <= now && now.since(since) < milliseconds
}

#[cfg(test)]
mod tests {
    use sealwire_wire::EnvelopeId;
    use sealwire_wire::entry::{Body, Entry};

    use super::*;

    const START: Time = Time(1_000_000);
    const TALK: ConversationId = ConversationId([1; 32]);
    const ALICE: InboxAddress = InboxAddress([1; 16]);
    const BOB: InboxAddress = InboxAddress([2; 16]);

    fn append(conversation: ConversationId, writer: InboxAddress, kind: EntryKind) -> Operation {
        let (envelope, body) = (EnvelopeId([1; 16]), Body::Inline(Vec::new()));
        let entry = Entry { kind, after: Some(Position(0)), envelope, body };
        Operation::Append(Append { log: LogId::Conversation(conversation), writer, entry, roster: None })
    }

    fn commit(writer: InboxAddress) -> Operation {
        append(TALK, writer, EntryKind::Commit)
    }

    /// Bob's message meets these newest commits.
    fn stale(turns: &mut Turns, now: Time, newest_commits: impl IntoIterator<Item = u64>) {
        for newest in newest_commits {
            let stale = Outcome::Refused(Refusal::Stale { newest_commit: Position(newest) });
            turns.note(now, &append(TALK, BOB, EntryKind::Message), &stale);
        }
    }

    fn appended(turns: &mut Turns) {
        let appended = Outcome::Appended { position: Position(9), repeated: false };
        turns.note(START, &append(TALK, BOB, EntryKind::Message), &appended);
    }

    /// At the limit and one before it: two seconds from the third on, for others' commits in that conversation.
    #[test]
    fn after_three_stale_others_commits_wait() {
        let mut turns = Turns::default();
        stale(&mut turns, START, 1..3);
        assert_eq!(turns.waits_until(START, &commit(ALICE)), None);
        stale(&mut turns, START, [3]);
        let end = START.plus(TURN_MS);
        assert_eq!(turns.waits_until(START, &commit(ALICE)), Some(end));
        assert_eq!(turns.waits_until(Time(end.0 - 1), &commit(ALICE)), Some(end));
        assert_eq!(turns.waits_until(end, &commit(ALICE)), None);
        assert!(turns.are_any(Time(end.0 - 1)));
        assert_eq!(turns.waits_until(START, &commit(BOB)), None, "it is Bob's turn");
        assert_eq!(turns.waits_until(START, &append(TALK, ALICE, EntryKind::Message)), None, "messages hinder nobody");
        let other = append(ConversationId([2; 32]), ALICE, EntryKind::Commit);
        assert_eq!(turns.waits_until(START, &other), None);
        assert_eq!(turns.waits_until(Time(1), &commit(ALICE)), None, "a clock that was set back");
        assert!(!turns.are_any(end));
    }

    /// What was sent before the first answer could be heard is one try; what is appended ends the row.
    #[test]
    fn three_in_a_row_are_three_commits() {
        let mut turns = Turns::default();
        stale(&mut turns, START, [1, 1, 1, 1, 2]);
        assert_eq!(turns.waits_until(START, &commit(ALICE)), None);
        appended(&mut turns);
        stale(&mut turns, START, [3, 4]);
        assert_eq!(turns.waits_until(START, &commit(ALICE)), None);
        stale(&mut turns, START, [5]);
        assert!(turns.waits_until(START, &commit(ALICE)).is_some());
    }

    /// A turn is for one commit: others wait no longer than for that. What does not end it: a message, another's commit, the
    /// same one again.
    #[test]
    fn a_turn_ends_with_its_commit() {
        let mut turns = Turns::default();
        stale(&mut turns, START, 1..4);
        let appended = |repeated| Outcome::Appended { position: Position(9), repeated };
        turns.note(START, &append(TALK, BOB, EntryKind::Message), &appended(false));
        turns.note(START, &commit(ALICE), &appended(false));
        turns.note(START, &commit(BOB), &appended(true));
        assert!(turns.waits_until(START, &commit(ALICE)).is_some());
        turns.note(START, &commit(BOB), &appended(false));
        assert_eq!(turns.waits_until(START, &commit(ALICE)), None);
    }

    /// Once in thirty seconds and device, at the limit and one before it.
    #[test]
    fn a_turn_comes_once_in_thirty_seconds() {
        let mut turns = Turns::default();
        stale(&mut turns, START, 1..4);
        let again = START.plus(TURN_EVERY_MS);
        stale(&mut turns, Time(again.0 - 1), 4..10);
        assert_eq!(turns.waits_until(Time(again.0 - 1), &commit(ALICE)), None);
        stale(&mut turns, again, [10]);
        assert!(turns.waits_until(again, &commit(ALICE)).is_some());
    }

    /// HP-08: so many are remembered, and those that try no more are forgotten.
    #[test]
    fn who_waits_for_a_turn_is_bounded() {
        let mut turns = Turns::default();
        for number in 0..=WAITING_MAX as u64 {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let message = append(ConversationId(id), BOB, EntryKind::Message);
            turns.note(START, &message, &Outcome::Refused(Refusal::Stale { newest_commit: Position(1) }));
        }
        assert_eq!(turns.waiting.len(), WAITING_MAX);
        stale(&mut turns, START.plus(TURN_EVERY_MS), 1..4);
        assert_eq!(turns.waiting.len(), 1);
        assert_eq!(turns.turns.len(), 1);
    }
}
