//! "At most so many a minute", as one number: the generic cell rate algorithm (ITU-T I.371), a token bucket without a
//! bucket.

use sealwire_wire::Time;

const MINUTE_MS: u64 = 60_000;

/// Lets a minute's worth pass at once, then one per interval.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    interval_ms: u64,
    burst_ms: u64,
    /// When everything that was taken would have been earned.
    earned_at: Time,
}

impl Rate {
    pub(crate) fn per_minute(count: u32) -> Rate {
        let interval_ms = MINUTE_MS / u64::from(count.max(1));
        Rate { interval_ms, burst_ms: MINUTE_MS - interval_ms, earned_at: Time(0) }
    }

    /// Takes one; else says after how many milliseconds there will be one.
    pub(crate) fn take(&mut self, now: Time) -> Result<(), u64> {
        let earned_at = self.earned_at.max(now);
        match earned_at.since(now).saturating_sub(self.burst_ms) {
            0 => {
                self.earned_at = earned_at.plus(self.interval_ms);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Whether nothing is owed: a fresh one would answer alike.
    pub(crate) fn is_fresh(&self, now: Time) -> bool {
        self.earned_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_passes_at_once_then_one_per_interval() {
        let mut rate = Rate::per_minute(4);
        let start = Time(1_000_000);
        for _ in 0..4 {
            assert_eq!(rate.take(start), Ok(()));
        }
        assert_eq!(rate.take(start), Err(15_000));
        assert_eq!(rate.take(start.plus(14_999)), Err(1));
        assert_eq!(rate.take(start.plus(15_000)), Ok(()));
        assert!(!rate.is_fresh(start.plus(15_000)));
        assert!(rate.is_fresh(start.plus(90_000)));
    }
}
