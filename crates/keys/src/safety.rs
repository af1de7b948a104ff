//! Safety numbers (I2): 60 digits from two account ids, the same on both sides, and the same after a new device.

use std::fmt;

use sealwire_wire::AccountId;
use sealwire_wire::label::Label;

use crate::hash::hash;

/// Sixty decimal digits. Thirty from each account: six groups of five, each 5 bytes of a hash modulo 100,000, so that
/// to match one account's half takes about 2^99 tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SafetyNumber([u32; 12]);

impl SafetyNumber {
    /// The number of two accounts, in whichever order.
    pub fn of(a: AccountId, b: AccountId) -> SafetyNumber {
        let mut groups = [0; 12];
        let halves = [half(a.min(b)), half(a.max(b))];
        for (group, value) in groups.iter_mut().zip(halves.iter().flatten()) {
            *group = *value;
        }
        SafetyNumber(groups)
    }

    /// Whether some text holds these digits, however they are spaced.
    pub fn matches(&self, text: &str) -> bool {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits == self.digits() && text.chars().all(|c| c.is_ascii_digit() || c.is_whitespace() || c == '-')
    }

    /// The sixty digits without spaces.
    pub fn digits(&self) -> String {
        self.0.iter().map(|group| format!("{group:05}")).collect()
    }
}

fn half(account: AccountId) -> [u32; 6] {
    let digest = hash(Label::SAFETY_NUMBER, &account);
    let mut groups = [0; 6];
    for (group, bytes) in groups.iter_mut().zip(digest.chunks_exact(5)) {
        let value = bytes.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        *group = (value % 100_000) as u32;
    }
    groups
}

impl fmt::Display for SafetyNumber {
    /// Groups of five, four in a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, group) in self.0.iter().enumerate() {
            let space = match i {
                0 => "",
                _ if i % 4 == 0 => "\n",
                _ => " ",
            };
            write!(f, "{space}{group:05}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_sixty_digits() {
        let (a, b) = (AccountId([1; 32]), AccountId([2; 32]));
        let number = SafetyNumber::of(a, b);
        assert_eq!(number, SafetyNumber::of(b, a));
        assert_eq!(number.digits().len(), 60);
        assert!(number.matches(&number.to_string()) && number.matches(&number.digits()));
        assert!(!number.matches(&SafetyNumber::of(a, AccountId([3; 32])).digits()));
        assert!(!number.matches(&format!("{}x", number.digits())));
    }

    /// In fives, four to a line: what people read to each other.
    #[test]
    fn it_is_read_in_fives() {
        let number = SafetyNumber::of(AccountId([1; 32]), AccountId([2; 32]));
        let digits = number.digits();
        let line = |from: usize| {
            let fives = (0..4).map(|group| &digits[from + 5 * group..from + 5 * group + 5]);
            fives.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(number.to_string(), [line(0), line(20), line(40)].join("\n"));
    }
}
