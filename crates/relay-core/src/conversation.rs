//! Conversation logs: creation (C8), reading (C6), signed heads (L6).

use sealwire_keys::{HeadToBeSigned, group_id, one_to_one, roster_hash};
use sealwire_store as store;
use sealwire_store::{Head, Operation, Outcome, Reader};
use sealwire_wire::entry::Entry;
use sealwire_wire::frame::{FromRelay, IdProof, RequestId, Welcome};
use sealwire_wire::limits::ATTACHED_LOGS_MAX;
use sealwire_wire::{AccountId, Code, ConversationId, InboxAddress, LogId};

use crate::append::{code_of, explain, read_welcomes};
use crate::connection::{BUSY_RETRY_MS, Connection, Session, State, Waiting};
use crate::decision::Question;

/// One signature per conversation and connection in this time (L6).
const HEAD_EVERY_MS: u64 = 1_000;

/// Whether this account may take that id: else anybody could sit where a conversation of two others will be (C8).
pub(crate) fn is_proven(account: AccountId, id: ConversationId, proof: IdProof) -> bool {
    match proof {
        IdProof::Peer(peer) => one_to_one(account, peer) == id,
        IdProof::Nonce(nonce) => group_id(account, nonce) == id,
    }
}

impl Connection {
    pub(crate) fn create_conversation(
        &mut self,
        session: Session,
        request: RequestId,
        id: ConversationId,
        entries: &[Vec<u8>],
        roster: Vec<InboxAddress>,
        welcomes: Vec<Welcome>,
    ) {
        if roster.binary_search(&session.inbox).is_err() {
            return self.refuse_request(Code::NotAllowed, request, "who creates a conversation is in its roster");
        }
        let entries = match entries.iter().map(|entry| Entry::decode(entry)).collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return self.refuse_request(code_of(error), request, &error.to_string()),
        };
        if entries.is_empty() || entries.iter().any(|entry| entry.kind.is_for_inbox()) {
            return self.refuse_request(Code::Malformed, request, "a conversation begins with entries of its own");
        }
        let welcomes = match read_welcomes(welcomes, &roster) {
            Ok(welcomes) => welcomes,
            Err((code, text)) => return self.refuse_request(code, request, text),
        };
        let conversation = store::Conversation { id, writer: session.inbox, entries, roster, welcomes };
        self.store(Operation::CreateConversation(conversation), Waiting::Create { request });
    }

    pub(crate) fn create_stored(&mut self, request: RequestId, outcome: Outcome) {
        match outcome {
            Outcome::Created => self.send(FromRelay::Done { request }),
            Outcome::Refused(store::Refusal::Stale { .. }) => {
                self.refuse_request(Code::Malformed, request, "the first entries do not follow each other");
            }
            Outcome::Refused(refusal) => {
                let (code, text) = explain(refusal);
                self.refuse_request(code, request, text);
            }
            _ => self.damaged(),
        }
    }

    pub(crate) fn attach(&mut self, session: Session, request: RequestId, conversation: ConversationId) {
        let log = LogId::Conversation(conversation);
        if !self.readers.reads(log) && self.readers.len() >= ATTACHED_LOGS_MAX {
            return self.fail(Code::Busy, request, None, BUSY_RETRY_MS, "too many logs are attached");
        }
        let question = Question::Place { log, reader: session.inbox };
        self.load(question, Waiting::Attach { request, conversation });
    }

    /// Who never read the log is answered like where there is none: who talks to whom is nobody's business.
    pub(crate) fn attach_loaded(
        &mut self,
        request: RequestId,
        conversation: ConversationId,
        place: Option<(Reader, Head)>,
    ) {
        let Some((Reader { cursor, until, chain }, Head { newest_commit, length, readers, .. })) = place else {
            return self.refuse_request(Code::NotAllowed, request, "this device does not read that log");
        };
        // For who was dropped the log ends with the commit that did it: what came after is not told (C6).
        let end = until.unwrap_or(length);
        let (newest_commit, length) = (newest_commit.min(end), length.min(end));
        let roster = until.is_none().then(|| roster_hash(&readers));
        self.send(FromRelay::Attached { request, read_upto: cursor, chain, newest_commit, length, roster });
        self.read_log(LogId::Conversation(conversation), cursor);
    }

    pub(crate) fn get_head(&mut self, request: RequestId, conversation: ConversationId) {
        let log = LogId::Conversation(conversation);
        match self.readers.take_head(log, self.now, HEAD_EVERY_MS) {
            None => self.refuse_request(Code::NotAllowed, request, "attach that log first"),
            Some(Err(wait)) => self.fail(Code::RateLimited, request, None, wait, "one signed head a second"),
            Some(Ok(())) => self.load(Question::Head(log), Waiting::Head { request, conversation }),
        }
    }

    pub(crate) fn head_loaded(&mut self, request: RequestId, conversation: ConversationId, head: Option<Head>) {
        let Some(Head { length, chain: Some(chain), readers, .. }) = head else {
            return self.refuse_request(Code::UnknownLog, request, "there is no such log");
        };
        let State::Registered(session) = &self.state else { return };
        if readers.binary_search(&session.inbox).is_err() {
            return self.refuse_request(Code::NotAllowed, request, "this device was dropped from that log");
        }
        let signature = self.relay.sign_head(&HeadToBeSigned { conversation, length, chain });
        self.send(FromRelay::Head { request, conversation, length, chain, signature });
    }
}
