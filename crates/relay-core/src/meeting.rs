//! Meetings: two devices that share a code hand bytes to each other, to link one of them to the other's account (I5). Who is
//! there is the shell's knowledge, and is stored nowhere; what they say is sealed, and forgotten at once.

use std::collections::BTreeMap;

use sealwire_wire::frame::{FromRelay, RequestId};
use sealwire_wire::limits::{MEETING_FRAMES_MAX, MEETING_MS, MEETINGS_MAX};
use sealwire_wire::{Code, MeetingId, Time};

use crate::connection::Connection;
use crate::decision::Decision;

/// All meetings of a relay, by whatever its shell knows its connections by.
pub struct Meetings<Seat>(BTreeMap<MeetingId, Meeting<Seat>>);

struct Meeting<Seat> {
    first: Seat,
    second: Option<Seat>,
    until: Time,
}

/// There is no such meeting, or two others have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotMet;

impl<Seat> Default for Meetings<Seat> {
    fn default() -> Self {
        Meetings(BTreeMap::new())
    }
}

impl<Seat: Copy + PartialEq> Meetings<Seat> {
    /// Somebody comes, or is there already; the other one, if there is one. The first of a meeting `opens` it.
    ///
    /// # Errors
    /// [`NotMet`].
    pub fn meet(&mut self, now: Time, id: MeetingId, who: Seat, opens: bool) -> Result<Option<Seat>, NotMet> {
        self.0.retain(|_, meeting| now < meeting.until);
        let has_room = self.0.len() < MEETINGS_MAX;
        match self.0.get_mut(&id) {
            Some(meeting) if meeting.first == who => Ok(meeting.second),
            Some(meeting) if meeting.second.is_none_or(|second| second == who) => {
                // Whoever comes second has it for good: a code is good once.
                meeting.second = Some(who);
                Ok(Some(meeting.first))
            }
            None if opens && has_room => {
                self.0.insert(id, Meeting { first: who, second: None, until: now.plus(MEETING_MS) });
                Ok(None)
            }
            _ => Err(NotMet),
        }
    }

    /// A connection is gone, and its meetings with it.
    pub fn leave(&mut self, who: Seat) {
        self.0.retain(|_, meeting| meeting.first != who && meeting.second != Some(who));
    }
}

impl Connection {
    /// A device of an account opens a meeting; one without an account comes to it.
    pub(crate) fn meet(&mut self, request: RequestId, meeting: MeetingId, bytes: Vec<u8>, opens: bool) {
        self.meeting_frames += 1;
        if self.meeting_frames > MEETING_FRAMES_MAX {
            return self.refuse_request(Code::RateLimited, request, "too much for one meeting");
        }
        self.decide(Decision::Meet { request, meeting, bytes, opens });
    }

    pub(crate) fn meeting_answered(&mut self, request: RequestId, met: Result<(), NotMet>) {
        match met {
            Ok(()) => self.send(FromRelay::Done { request }),
            Err(NotMet) => self.refuse_request(Code::NotFound, request, "nobody waits there: the code is used, or old"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I5: a code is good once, for two, and for two minutes.
    #[test]
    fn two_meet_and_nobody_else() {
        let (now, id) = (Time(1_000), MeetingId([1; 16]));
        let mut meetings = Meetings::default();
        assert_eq!(meetings.meet(now, id, 2, false), Err(NotMet), "nobody has opened it");
        assert_eq!(meetings.meet(now, id, 1, true), Ok(None));
        assert_eq!(meetings.meet(now, id, 2, false), Ok(Some(1)));
        assert_eq!(meetings.meet(now, id, 1, true), Ok(Some(2)));
        assert_eq!(meetings.meet(now, id, 2, false), Ok(Some(1)));
        for opens in [true, false] {
            assert_eq!(meetings.meet(now, id, 3, opens), Err(NotMet), "they are two");
        }
        let end = now.plus(MEETING_MS);
        assert_eq!(meetings.meet(Time(end.0 - 1), id, 2, false), Ok(Some(1)));
        assert_eq!(meetings.meet(end, id, 2, false), Err(NotMet), "it is over");
    }

    #[test]
    fn a_meeting_ends_with_either() {
        let (now, id) = (Time(0), MeetingId([1; 16]));
        for gone in [1, 2] {
            let mut meetings = Meetings::default();
            let _opened = (meetings.meet(now, id, 1, true), meetings.meet(now, id, 2, false));
            meetings.leave(gone);
            assert_eq!(meetings.meet(now, id, 3 - gone, false), Err(NotMet));
        }
    }

    /// HP-08: their number is bounded.
    #[test]
    fn meetings_have_a_limit() {
        let mut meetings = Meetings::default();
        let id = |number: usize| MeetingId((number as u128).to_be_bytes());
        assert!((0..MEETINGS_MAX).all(|number| meetings.meet(Time(0), id(number), number, true).is_ok()));
        assert_eq!(meetings.meet(Time(0), id(MEETINGS_MAX), MEETINGS_MAX, true), Err(NotMet));
        assert_eq!(meetings.meet(Time(0), id(0), MEETINGS_MAX, false), Ok(Some(0)));
    }
}
