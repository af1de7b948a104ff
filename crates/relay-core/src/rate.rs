//! "At most so many a minute", as one number: the generic cell rate algorithm (ITU-T I.371), a token bucket without a
//! bucket.

use std::collections::{BTreeMap, VecDeque};

use sealwire_wire::limits::APPENDS_IN_FLIGHT_MAX;
use sealwire_wire::{EnvelopeId, LogId, Time};

const MINUTE_US: u64 = 60_000_000;
/// What a [`Gate`] tells a client to wait at the least: a second's worth passes then, so that a client that repeats all
/// that waits is not refused most of it again.
const WAIT_MS: u64 = 1_000;
/// For how long a [`Gate`] waits for what it has refused, beyond that: a client that has no answer connects anew after
/// this time.
const OWED_MS: u64 = 30_000;
/// Refused envelopes whose place a [`Gate`] keeps: a few times what a client has on its way.
const OWED_MAX: usize = 4 * APPENDS_IN_FLIGHT_MAX as usize;

/// Lets a burst pass at once, then one per interval.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    interval_us: u64,
    burst_us: u64,
    /// When everything that was taken would have been earned, in microseconds.
    earned_at: u64,
}

/// A [`Rate`] that keeps the order of each log: what was refused has its place, and nothing that comes later goes into
/// that log before it. What follows it in the pipe, or is written before the refusal is heard, would overtake it
/// otherwise.
pub(crate) struct Gate {
    rate: Rate,
    /// By log, in the order in which they came first.
    owed: BTreeMap<LogId, VecDeque<Owed>>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Owed {
    envelope: EnvelopeId,
    /// When it was refused last.
    at: Time,
    /// When it has lost its place: its client has given it up.
    until: Time,
}

impl Rate {
    /// A minute's worth may come at once.
    pub(crate) fn per_minute(count: u32) -> Rate {
        Rate::with_burst(count, count)
    }

    /// So many may come at once, which may be more than a minute's worth.
    pub(crate) fn with_burst(per_minute: u32, burst: u32) -> Rate {
        let interval_us = MINUTE_US / u64::from(per_minute.max(1));
        let burst_us = interval_us * u64::from(burst.max(1) - 1);
        Rate { interval_us, burst_us, earned_at: 0 }
    }

    /// Takes one; else says after how many milliseconds there will be one.
    pub(crate) fn take(&mut self, now: Time) -> Result<(), u64> {
        match self.wait(now) {
            0 => {
                self.earned_at = self.earned_at.saturating_add(self.interval_us);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// After how many milliseconds there will be one.
    fn wait(&mut self, now: Time) -> u64 {
        let now = microseconds(now);
        // Nobody owes more than was lent: what says so was written before the clock was set back.
        let most = now.saturating_add(self.burst_us + self.interval_us);
        self.earned_at = self.earned_at.clamp(now, most);
        (self.earned_at - now).saturating_sub(self.burst_us).div_ceil(1_000)
    }

    /// What was taken last was not used.
    pub(crate) fn give_back(&mut self) {
        self.earned_at = self.earned_at.saturating_sub(self.interval_us);
    }

    /// Whether nothing is owed: a fresh one would answer alike.
    pub(crate) fn is_fresh(&self, now: Time) -> bool {
        self.earned_at <= microseconds(now)
    }
}

impl Gate {
    pub(crate) fn new(rate: Rate) -> Gate {
        Gate { rate, owed: BTreeMap::new(), count: 0 }
    }

    /// Takes one; else says after how many milliseconds to repeat it.
    pub(crate) fn take(&mut self, log: LogId, envelope: EnvelopeId, now: Time) -> Result<(), u64> {
        while self.first_of(log).is_some_and(|first| first.is_given_up(now)) {
            self.pop(log);
        }
        let first = self.first_of(log).map(|first| first.envelope);
        let taken = match first.is_none_or(|first| first == envelope) {
            true => self.rate.take(now).map_err(|wait| wait.max(WAIT_MS)),
            false => Err(self.rate.wait(now).max(WAIT_MS)),
        };
        match taken {
            Ok(()) if first.is_some() => self.pop(log),
            Ok(()) => {}
            Err(wait) => self.owe(log, Owed { envelope, at: now, until: now.plus(wait + OWED_MS) }),
        }
        taken
    }

    fn first_of(&self, log: LogId) -> Option<&Owed> {
        self.owed.get(&log)?.front()
    }

    fn pop(&mut self, log: LogId) {
        let Some(owed) = self.owed.get_mut(&log) else { return };
        self.count -= usize::from(owed.pop_front().is_some());
        if owed.is_empty() {
            self.owed.remove(&log);
        }
    }

    fn owe(&mut self, log: LogId, owed: Owed) {
        let known = self.owed.get_mut(&log).and_then(|all| all.iter_mut().find(|o| o.envelope == owed.envelope));
        if let Some(known) = known {
            *known = owed;
        } else if self.count < OWED_MAX {
            self.owed.entry(log).or_default().push_back(owed);
            self.count += 1;
        }
    }
}

impl Owed {
    /// A clock that was set back gives up, too.
    fn is_given_up(&self, now: Time) -> bool {
        now < self.at || self.until <= now
    }
}

fn microseconds(time: Time) -> u64 {
    time.0.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use sealwire_wire::InboxAddress;

    use super::*;

    const START: Time = Time(1_000_000);
    const A: EnvelopeId = EnvelopeId([1; 16]);
    const B: EnvelopeId = EnvelopeId([2; 16]);
    const C: EnvelopeId = EnvelopeId([3; 16]);
    const D: EnvelopeId = EnvelopeId([4; 16]);

    #[test]
    fn a_minutes_worth_passes_at_once_then_one_per_interval() {
        let mut rate = Rate::per_minute(4);
        for _ in 0..4 {
            assert_eq!(rate.take(START), Ok(()));
        }
        assert_eq!(rate.take(START), Err(15_000));
        assert_eq!(rate.take(START.plus(14_999)), Err(1));
        assert_eq!(rate.take(START.plus(15_000)), Ok(()));
        assert!(!rate.is_fresh(START.plus(15_000)));
        assert!(rate.is_fresh(START.plus(90_000)));
    }

    /// Counts that do not divide a minute are kept, too.
    #[test]
    fn a_burst_may_be_less_or_more_than_a_minutes_worth() {
        let taken = |mut rate: Rate, now| (0..200_000).take_while(|_| rate.take(now).is_ok()).count();
        assert_eq!(taken(Rate::with_burst(70_000, 1_000), START), 1_000);
        assert_eq!(taken(Rate::with_burst(7, 1_000), START), 1_000);
        assert_eq!(taken(Rate::with_burst(7, 0), START), 1);
        let mut rate = Rate::with_burst(70_000, 1_000);
        let minute = (0..60_000).map(|ms| taken_now(&mut rate, START.plus(ms))).sum::<usize>();
        assert!((70_900..=71_100).contains(&minute), "{minute}");
    }

    fn taken_now(rate: &mut Rate, now: Time) -> usize {
        (0..2_000).take_while(|_| rate.take(now).is_ok()).count()
    }

    /// A clock that is set back costs nobody more than an interval.
    #[test]
    fn a_clock_that_is_set_back_is_no_debt() {
        let mut rate = Rate::per_minute(4);
        for _ in 0..4 {
            assert_eq!(rate.take(START), Ok(()));
        }
        assert_eq!(rate.take(Time(1_000)), Err(15_000));
        let mut gate = Gate::new(Rate::with_burst(60, 1));
        assert_eq!((gate.take(LOG, A, START), gate.take(LOG, B, START)), (Ok(()), Err(1_000)));
        assert_eq!((gate.take(LOG, C, Time(1_000)), gate.take(LOG, C, Time(2_000))), (Err(1_000), Ok(())));
    }

    const LOG: LogId = LogId::Inbox(InboxAddress([1; 16]));
    const OTHER: LogId = LogId::Inbox(InboxAddress([2; 16]));

    /// With `A` taken and `B` refused.
    fn gate() -> Gate {
        let mut gate = Gate::new(Rate::with_burst(6_000, 1));
        assert_eq!((gate.take(LOG, A, START), gate.take(LOG, B, START)), (Ok(()), Err(WAIT_MS)));
        gate
    }

    #[test]
    fn who_is_refused_is_told_when_to_come_again() {
        let mut gate = gate();
        assert_eq!(gate.take(LOG, B, START.plus(9)), Err(WAIT_MS));
        assert_eq!(gate.take(LOG, B, START.plus(10)), Ok(()));
        assert_eq!(gate.take(LOG, C, START.plus(20)), Ok(()), "nothing is owed");
        let mut slow = Gate::new(Rate::with_burst(6, 1));
        assert_eq!((slow.take(LOG, A, START), slow.take(LOG, B, START)), (Ok(()), Err(10_000)));
        assert_eq!(slow.take(LOG, C, START), Err(10_000));
    }

    /// O: in a log, what was refused comes before what came after it, in whichever order the client repeats.
    #[test]
    fn nothing_overtakes_what_was_refused() {
        let (mut gate, later) = (gate(), START.plus(5_000));
        assert_eq!(gate.take(LOG, C, later), Err(WAIT_MS), "written before the refusal was heard");
        assert_eq!(gate.take(LOG, D, later), Err(WAIT_MS));
        assert_eq!(gate.take(LOG, D, later), Err(WAIT_MS), "repeated out of order");
        assert_eq!(gate.take(OTHER, C, later), Ok(()), "another log");
        assert_eq!(gate.take(LOG, B, later.plus(10)), Ok(()));
        assert_eq!(gate.take(LOG, D, later.plus(20)), Err(WAIT_MS));
        assert_eq!(gate.take(LOG, C, later.plus(20)), Ok(()));
        assert_eq!(gate.take(LOG, D, later.plus(30)), Ok(()));
        assert_eq!((gate.owed.len(), gate.count), (0, 0));
    }

    /// What its client has given up holds its log for half a minute, whatever comes meanwhile; at the limit and past it.
    #[test]
    fn what_does_not_come_again_loses_its_place() {
        let (mut gate, end) = (gate(), START.plus(WAIT_MS + OWED_MS));
        assert_eq!(gate.take(LOG, C, Time(end.0 - 1)), Err(WAIT_MS));
        assert_eq!(gate.take(LOG, C, end), Ok(()));
    }

    /// HP-08: at the limit and one past it.
    #[test]
    fn places_are_bounded() {
        let mut gate = gate();
        for number in 1..=OWED_MAX as u32 {
            let mut envelope = [0xff; 16];
            envelope[..4].copy_from_slice(&number.to_be_bytes());
            assert_eq!(gate.count, number as usize);
            assert!(gate.take(LOG, EnvelopeId(envelope), START).is_err());
        }
        assert_eq!((gate.count, gate.owed[&LOG].len()), (OWED_MAX, OWED_MAX));
    }
}
