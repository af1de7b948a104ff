//! What a device has missed is said again (C10): whoever is back in a conversation, or finds entries gone that it had not
//! read, asks in the conversation for these positions, and the devices that had said something there say it again. Content
//! ids recognise it where it was read before.

use sealwire_wire::content::{Content, Part};
use sealwire_wire::limits::{DAY_MS, SAID_AGAIN_MAX};
use sealwire_wire::{ConversationId, Position};

use super::Conversation;
use crate::contacts::Contact;
use crate::engine::Engine;
use crate::step::Turn;

/// Gaps that are asked for again when a device is back that may not have heard of it.
const GAPS_KEPT_MAX: usize = 4;

impl Engine {
    /// Reading goes on behind a gap: what stood in it is asked for.
    pub(super) fn ask_for_missed(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let is_stranger = |account| !self.contacts.get(&account).is_some_and(Contact::is_accepted);
        let Some(conversation) = self.conversations.get_mut(&id).filter(|c| c.is_active() && !c.seeks) else { return };
        let Some(behind) = conversation.missed_behind.take() else { return };
        let (first, last) = (behind.next(), conversation.cursor);
        // Whoever is not accepted learns nothing (C9).
        let waits = conversation.peer.is_some_and(is_stranger);
        if first <= last && !waits {
            let surplus = (conversation.asked_for.len() + 1).saturating_sub(GAPS_KEPT_MAX);
            conversation.asked_for.drain(..surplus);
            conversation.asked_for.push((first, last));
            self.ask_for(turn, id, first, last);
        }
        self.save_conversation(turn, id);
    }

    fn ask_for(&mut self, turn: &mut Turn<'_>, id: ConversationId, first: Position, last: Position) {
        let content = Content::of(turn.random(), Part::Missed { first, last }).encode();
        self.enqueue_in_group(turn, id, false, content);
    }

    /// Asks for the same as before: whoever is back may not have heard of it.
    pub(super) fn ask_once_more(&mut self, turn: &mut Turn<'_>, id: ConversationId) {
        let Some(conversation) = self.conversations.get(&id).filter(|c| c.is_active() && !c.seeks) else { return };
        for (first, last) in conversation.asked_for.clone() {
            self.ask_for(turn, id, first, last);
        }
    }

    /// A member's device has not read what stands there: what this device has said there is said again, the newest of it
    /// where it is too much. All members read it; so nothing of before the last account was added.
    pub(super) fn say_again(&mut self, turn: &mut Turn<'_>, id: ConversationId, first: Position, last: Position) {
        let Some(conversation) = self.conversations.get_mut(&id) else { return };
        let first = first.max(conversation.grown_at.next());
        let budget = conversation.may_say_again(turn.now.0 / DAY_MS);
        let mut numbers = self.outgoing_at(id, first, last);
        let numbers = numbers.split_off(numbers.len().saturating_sub(budget));
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.said_again.1 += numbers.len();
        }
        for number in numbers {
            self.queue_again(turn, number);
        }
    }
}

impl Conversation {
    /// Whether an account was added behind that position.
    pub(crate) fn is_for_less(&self, said_at: Position) -> bool {
        said_at <= self.grown_at
    }

    /// How much may still be said again on that day.
    fn may_say_again(&mut self, day: u64) -> usize {
        if self.said_again.0 != day {
            self.said_again = (day, 0);
        }
        SAID_AGAIN_MAX.saturating_sub(self.said_again.1)
    }
}

#[cfg(test)]
mod tests {
    use sealwire_wire::Time;
    use sealwire_wire::conversation::ConversationKind;

    use super::*;

    /// C10: whoever asks again and again makes nobody say more than so much; on the next day it may be said again.
    #[test]
    fn so_much_is_said_again_in_a_day() {
        let id = ConversationId([1; 32]);
        let mut conversation = Conversation::new(id, ConversationKind::Group, None, Time(0));
        for said in [0, 1, SAID_AGAIN_MAX - 1, SAID_AGAIN_MAX] {
            conversation.said_again = (7, said);
            assert_eq!(conversation.may_say_again(7), SAID_AGAIN_MAX - said);
        }
        assert_eq!(conversation.may_say_again(8), SAID_AGAIN_MAX);
    }
}
