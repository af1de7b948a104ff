//! What one application has to do, as its process is told it: in an environment variable, so that nothing of it lies where
//! the application keeps its own.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sealwire_client::{AccountId, ConversationId, Talk, To, Unlock};

/// The environment variable.
pub(super) const VARIABLE: &str = "SEALWIRE_KILLS_PLAN";

/// One application: whose it is, and what it has to write and to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) home: PathBuf,
    pub(super) name: String,
    /// How many messages it writes: `name 1` to `name n`.
    pub(super) messages: u64,
    /// The group that all of it goes on in; `None`: with the other one alone.
    pub(super) group: Option<ConversationId>,
    /// Whoever else writes.
    pub(super) others: Vec<Author>,
}

/// Somebody who writes, and how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Author {
    pub(super) name: String,
    pub(super) account: AccountId,
    pub(super) messages: u64,
}

impl Plan {
    pub(super) fn store(&self) -> PathBuf {
        store(&self.home, &self.name)
    }

    pub(super) fn unlock(&self) -> Unlock {
        unlock(&self.home, &self.name)
    }

    /// What the application has shown, as it remembers it.
    pub(super) fn ledger(&self) -> PathBuf {
        self.home.join(format!("{}.shown", self.name))
    }

    pub(super) fn talk(&self) -> anyhow::Result<Talk> {
        match self.group {
            Some(group) => Ok(Talk::Group(group)),
            None => Ok(Talk::Person(self.others.first().context("nobody to talk with")?.account)),
        }
    }

    pub(super) fn to(&self) -> anyhow::Result<To> {
        Ok(match self.talk()? {
            Talk::Group(group) => To::Group(group),
            Talk::Person(account) => To::Account(account),
        })
    }

    /// A line for each thing, and one for each other.
    pub(super) fn to_text(&self) -> String {
        let group = self.group.map_or_else(|| "-".to_owned(), |group| group.to_string());
        let head = format!("{}\n{}\n{}\n{group}", self.home.display(), self.name, self.messages);
        self.others
            .iter()
            .fold(head, |text, Author { name, account, messages }| format!("{text}\n{name} {account} {messages}"))
    }

    pub(super) fn from_text(text: &str) -> anyhow::Result<Plan> {
        let mut lines = text.lines();
        let mut next = || lines.next().context("a plan ends too early");
        let (home, name, messages, group) = (next()?.into(), next()?.to_owned(), next()?.parse()?, next()?);
        let group = match group {
            "-" => None,
            id => Some(ConversationId::from_hex(id).context("not a group")?),
        };
        let author = |line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().context("an author has a name, an account and a count");
            let (name, account, messages) = (word()?.to_owned(), word()?, word()?.parse()?);
            Ok(Author { name, account: AccountId::from_hex(account).context("not an account")?, messages })
        };
        let others = lines.map(author).collect::<anyhow::Result<_>>()?;
        Ok(Plan { home, name, messages, group, others })
    }
}

pub(super) fn store(home: &Path, name: &str) -> PathBuf {
    home.join(name)
}

pub(super) fn unlock(home: &Path, name: &str) -> Unlock {
    Unlock::KeyFile(home.join(format!("{name}.key")))
}

/// The number of a text, and whose it says it is.
pub(super) fn numbered(text: &str) -> Option<(&str, u64)> {
    let (name, number) = text.split_once(' ')?;
    Some((name, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_as_it_went() {
        let author = |name: &str| Author { name: name.into(), account: AccountId([7; 32]), messages: 3 };
        let (home, others) = ("/somewhere/else".into(), vec![author("bob"), author("carol")]);
        let plan = Plan { home, name: "alice".into(), messages: 5, group: Some(ConversationId([1; 32])), others };
        assert_eq!(Plan::from_text(&plan.to_text()).unwrap(), plan);
        let pair = Plan { group: None, others: vec![author("bob")], ..plan };
        assert_eq!(Plan::from_text(&pair.to_text()).unwrap(), pair);
        assert!(Plan::from_text("/somewhere\nalice").is_err());
    }
}
