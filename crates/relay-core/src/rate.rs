//! "At most so many a minute", as one number: the generic cell rate algorithm (ITU-T I.371), a token bucket without a
//! bucket.

use sealwire_wire::{EnvelopeId, Time};

const MINUTE_US: u64 = 60_000_000;
/// For how long a [`Gate`] stays shut at the least: a second's worth passes after it, so that a client that repeats all
/// that waits is not refused most of it again.
const SHUT_MS: u64 = 1_000;
/// For how long a [`Gate`] waits for what it has refused: a client that has no answer connects anew after this time.
const OWED_MS: u64 = 30_000;

/// Lets a burst pass at once, then one per interval.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    interval_us: u64,
    burst_us: u64,
    /// When everything that was taken would have been earned, in microseconds.
    earned_at: u64,
}

/// A [`Rate`] that keeps the order: once it has refused an envelope it refuses all, until that one comes again after the
/// time it was told to wait. Whatever follows it in the pipe, or is written before the refusal is heard, would overtake
/// it otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Gate {
    rate: Rate,
    shut: Option<Shut>,
}

#[derive(Clone, Copy)]
struct Shut {
    /// From when and until when everything is refused. A clock that was set back opens it.
    from: Time,
    until: Time,
    /// What comes first then.
    first: EnvelopeId,
    /// When anything may come first: whoever was refused has given it up.
    given_up: Time,
}

impl Rate {
    /// A minute's worth may come at once.
    pub(crate) fn per_minute(count: u32) -> Rate {
        Rate::with_burst(count, count)
    }

    pub(crate) fn with_burst(per_minute: u32, burst: u32) -> Rate {
        let interval_us = MINUTE_US / u64::from(per_minute.max(1));
        let burst_us = interval_us * u64::from(burst.clamp(1, per_minute.max(1)) - 1);
        Rate { interval_us, burst_us, earned_at: 0 }
    }

    /// Takes one; else says after how many milliseconds there will be one.
    pub(crate) fn take(&mut self, now: Time) -> Result<(), u64> {
        let now = microseconds(now);
        // Nobody owes more than was lent: what says so was written before the clock was set back.
        let most = now.saturating_add(self.burst_us + self.interval_us);
        self.earned_at = self.earned_at.clamp(now, most);
        match (self.earned_at - now).saturating_sub(self.burst_us) {
            0 => {
                self.earned_at = self.earned_at.saturating_add(self.interval_us);
                Ok(())
            }
            wait => Err(wait.div_ceil(1_000)),
        }
    }

    /// Whether nothing is owed: a fresh one would answer alike.
    pub(crate) fn is_fresh(&self, now: Time) -> bool {
        self.earned_at <= microseconds(now)
    }
}

impl Gate {
    pub(crate) fn new(rate: Rate) -> Gate {
        Gate { rate, shut: None }
    }

    /// Takes one; else says after how many milliseconds to repeat it.
    pub(crate) fn take(&mut self, envelope: EnvelopeId, now: Time) -> Result<(), u64> {
        if let Some(shut) = self.shut.filter(|shut| shut.from <= now && now < shut.given_up) {
            if now < shut.until {
                return Err(shut.until.since(now));
            }
            if envelope != shut.first {
                // Who repeats in another order begins with this one next time.
                self.shut = Some(Shut { from: now, until: now.plus(SHUT_MS), first: envelope, ..shut });
                return Err(SHUT_MS);
            }
        }
        let taken = self.rate.take(now).map_err(|wait| wait.max(SHUT_MS));
        self.shut = taken.err().map(|wait| {
            let until = now.plus(wait);
            Shut { from: now, until, first: envelope, given_up: until.plus(OWED_MS) }
        });
        taken
    }
}

fn microseconds(time: Time) -> u64 {
    time.0.saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);
    const A: EnvelopeId = EnvelopeId([1; 16]);
    const B: EnvelopeId = EnvelopeId([2; 16]);
    const C: EnvelopeId = EnvelopeId([3; 16]);

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

    /// Counts that do not divide a minute are kept, too, and a burst is never more than a minute's worth.
    #[test]
    fn a_burst_may_be_less_than_a_minutes_worth() {
        let taken = |mut rate: Rate, now| (0..200_000).take_while(|_| rate.take(now).is_ok()).count();
        assert_eq!(taken(Rate::with_burst(70_000, 1_000), START), 1_000);
        assert_eq!(taken(Rate::with_burst(7, 1_000), START), 7);
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
        assert_eq!((gate.take(A, START), gate.take(B, START)), (Ok(()), Err(1_000)));
        assert_eq!((gate.take(C, Time(1_000)), gate.take(C, Time(2_000))), (Err(1_000), Ok(())));
    }

    /// Once it has refused one it refuses all, whatever was earned meanwhile.
    #[test]
    fn a_gate_stays_shut_for_a_while() {
        let mut gate = Gate::new(Rate::with_burst(6_000, 10));
        for _ in 0..10 {
            assert_eq!(gate.take(A, START), Ok(()));
        }
        assert_eq!(gate.take(B, START), Err(1_000));
        assert_eq!(gate.take(B, START.plus(999)), Err(1), "though a hundred were earned");
        for envelope in [B, C, A, B, C, A, B, C, A, B] {
            assert_eq!(gate.take(envelope, START.plus(1_000)), Ok(()));
        }
        assert_eq!(gate.take(A, START.plus(1_000)), Err(1_000));
        let mut slow = Gate::new(Rate::with_burst(6, 1));
        assert_eq!((slow.take(A, START), slow.take(B, START)), (Ok(()), Err(10_000)));
    }

    /// O: what was refused comes first, or nothing for half a minute; in whichever order the client repeats.
    #[test]
    fn nothing_overtakes_what_was_refused() {
        let shut = || {
            let mut gate = Gate::new(Rate::with_burst(6_000, 1));
            assert_eq!((gate.take(A, START), gate.take(B, START)), (Ok(()), Err(1_000)));
            gate
        };
        // Written before the refusal was heard; then the client repeats.
        let (mut gate, late) = (shut(), START.plus(5_000));
        assert_eq!(gate.take(C, late), Err(1_000));
        assert_eq!(gate.take(B, late.plus(1_000)), Err(1_000));
        assert_eq!(gate.take(C, late.plus(1_001)), Err(999));
        assert_eq!((gate.take(B, late.plus(2_000)), gate.take(C, late.plus(2_010))), (Ok(()), Ok(())));
        // Given up.
        let (mut gate, end) = (shut(), START.plus(1_000 + OWED_MS));
        assert_eq!(gate.take(C, Time(end.0 - 1)), Err(1_000));
        assert_eq!(gate.take(A, end), Ok(()));
    }
}
