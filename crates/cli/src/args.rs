//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// End-to-end encrypted messages. The relay routes them and cannot read them.
///
/// Begin with `sealwire demo`, or with `sealwire init NAME@HOST`.
#[derive(Parser, Debug)]
#[command(name = "sealwire", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the store, the disk, or it took too long
  2  usage: the command line is wrong
  3  refused: by the relay, by the account's state, or until a person decides
  4  offline: the relay is out of reach; what was to be sent is saved

Environment:
  SEALWIRE_HOME             where the account is, as --home
  SEALWIRE_PASSPHRASE_FILE  a file whose first line is the passphrase
  NO_COLOR                  no colours

No secret is taken from the command line, where others could see it.";

#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where the account is [default: sealwire in the user's data directory].
    #[arg(long, value_name = "DIR", env = "SEALWIRE_HOME", global = true, hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// Print data as JSON: one object a line on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say on standard error what happens on the connection.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make keys and an account. Repeat it with another handle if the relay refused the first.
    Init(Init),
    /// Link a new device to the account: run it on both. Where there is an account, it shows a code; where there is none, it
    /// asks for one.
    Link(Link),
    /// List the devices of the account.
    Devices,
    /// Take a device from the account, for good: one that is lost, say. It is taken out of every conversation.
    Revoke {
        /// Which one: the beginning of its id, as `sealwire devices` shows it.
        device: String,
        /// "I know that it is the one that I am using."
        #[arg(long)]
        yes: bool,
    },
    /// Show who this is.
    Whoami,
    /// Send a message.
    Send(Send),
    /// Print messages as they come.
    Listen(Listen),
    /// Talk with somebody, or in a group, line by line. Ctrl-D ends.
    Chat {
        /// With whom: name@host, or the name alone at your own relay, or an account id.
        #[arg(value_name = "WHO")]
        who: String,
        /// WHO is a group: its name, or the beginning of its id.
        #[arg(short, long)]
        group: bool,
        /// How many earlier messages to show.
        #[arg(long, value_name = "N", default_value_t = 10)]
        last: u32,
    },
    /// Show earlier messages with somebody, or of a group.
    History {
        /// With whom.
        #[arg(value_name = "WHO")]
        who: String,
        /// WHO is a group: its name, or the beginning of its id.
        #[arg(short, long)]
        group: bool,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        last: u32,
    },
    /// Make groups, look at them, and change them.
    Group {
        /// What to do.
        #[command(subcommand)]
        what: Group,
    },
    /// List, add and accept contacts.
    Contacts {
        /// What to do [default: list].
        #[command(subcommand)]
        what: Option<Contacts>,
    },
    /// Compare safety numbers with somebody, and mark that they match.
    Verify(Verify),
    /// Drop what somebody sends from now on. They learn nothing of it.
    Block {
        /// Whom: a handle or an account id.
        who: String,
    },
    /// Take a block back.
    Unblock {
        /// Whom: a handle or an account id.
        who: String,
    },
    /// Let contacts see when this device is connected, or not.
    Presence {
        /// Whether they may.
        state: OnOff,
    },
    /// End the account, for good.
    Retire {
        /// "I know that nothing can be sent by it or to it afterwards."
        #[arg(long, required = true)]
        yes: bool,
    },
    /// "This device is the real one": after a store was copied or restored more than once a day.
    Reclaim,
    /// "I know that the relay's key changed": pin the new one.
    TrustRelay {
        /// How long to wait for the relay.
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u64,
    },
    /// Check the account, its files and its connection.
    Doctor {
        /// How long to wait for the relay.
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        timeout: u64,
    },
    /// Why something could not be opened, and what was done about it.
    Explain {
        /// The beginning of an envelope's id [default: all that was rejected].
        envelope: Option<String>,
    },
    /// Watch it happen: a relay, conversations, a group, and what the relay could see. Needs no account.
    Demo {
        /// Leave the relay's files here.
        #[arg(long, value_name = "DIR", conflicts_with = "explain")]
        keep: Option<PathBuf>,
        /// Walk through one message of direct mode step by step instead.
        #[arg(long)]
        explain: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The handle to ask for: name@host, where host is what the relay calls itself.
    pub(crate) handle: String,
    /// The relay's address [default: wss:// and the handle's host].
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// A PEM file with the certificate of a relay that made its own; copied into the home.
    #[arg(long, value_name = "FILE")]
    pub(crate) relay_cert: Option<PathBuf>,
    /// A proxy in front of the relay ends TLS, so that log-ins cannot be bound to the connection. Only where the operator
    /// says so.
    #[arg(long)]
    pub(crate) behind_proxy: bool,
    /// The relay's key, where the operator said it; else the first one seen is pinned.
    #[arg(long, value_name = "HEX", value_parser = key)]
    pub(crate) relay_key: Option<[u8; 32]>,
    /// A file with the invite code.
    #[arg(long, value_name = "FILE", conflicts_with = "invite_stdin")]
    pub(crate) invite_file: Option<PathBuf>,
    /// Read the invite code from standard input.
    #[arg(long)]
    pub(crate) invite_stdin: bool,
    /// Lock the account with a passphrase instead of a key file.
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// Make the account for direct mode: no forward secrecy, no groups; only for peers that know nothing else. It is for
    /// good, and such an account and one for conversations do not reach each other.
    #[arg(long)]
    pub(crate) direct: bool,
    /// How long to wait for the relay.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
    /// How long receipts are gathered, in milliseconds. Shorter tells the relay more of when somebody reads.
    #[arg(long, value_name = "MS", hide = true, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub(crate) receipt_delay: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Link {
    /// On the new device: the relay's address [default: wss:// and the relay's name in the code].
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// On the new device: a PEM file with the certificate of a relay that made its own; copied into the home.
    #[arg(long, value_name = "FILE")]
    pub(crate) relay_cert: Option<PathBuf>,
    /// On the new device: a proxy in front of the relay ends TLS. Only where the operator says so.
    #[arg(long)]
    pub(crate) behind_proxy: bool,
    /// On the new device: lock it with a passphrase instead of a key file.
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// How long to wait for the other device, and for the person.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub(crate) timeout: u64,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    /// To whom: name@host, or the name alone at your own relay, or an account id.
    #[arg(value_name = "WHO")]
    pub(crate) to: String,
    /// WHO is a group: its name, or the beginning of its id.
    #[arg(short, long)]
    pub(crate) group: bool,
    /// The text; `-` reads standard input to its end, up to one message (16 KiB).
    #[arg(required = true, num_args = 1..)]
    pub(crate) text: Vec<String>,
    /// Send standard input as bytes, also where it is text.
    #[arg(long)]
    pub(crate) bytes: bool,
    /// What the bytes are, such as image/png.
    #[arg(long, value_name = "TYPE", requires = "bytes")]
    pub(crate) media_type: Option<String>,
    /// How far the message has to get before this command ends.
    #[arg(long, value_name = "STATE", default_value = "accepted")]
    pub(crate) wait: Wait,
    /// How long to wait for that.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum Wait {
    /// Durable at the relay.
    Accepted,
    /// Durable on a device of its receiver.
    Delivered,
    /// Seen by its receiver.
    Read,
}

#[derive(Args, Debug)]
pub(crate) struct Listen {
    /// Accept everybody who writes.
    #[arg(long)]
    pub(crate) accept: bool,
    /// End after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) once: Option<u64>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Group {
    /// Begin a group. You own it.
    Create {
        /// Its name.
        name: String,
        /// Who is in it beside you: handles or account ids.
        #[arg(value_name = "MEMBER")]
        members: Vec<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// List the groups that you are in.
    List,
    /// Show a group and who is in it.
    Show {
        /// Which one: its name, or the beginning of its id.
        group: String,
    },
    /// Add members. They read what is said from then on.
    Add {
        /// To which group: its name, or the beginning of its id.
        group: String,
        /// Whom: handles or account ids.
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<String>,
        #[command(flatten)]
        patience: Patience,
    },
    /// Remove somebody, who reads nothing that is said afterwards.
    Remove {
        /// From which group: its name, or the beginning of its id.
        group: String,
        /// Whom: a handle or an account id.
        member: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Leave a group. Whichever member is connected next takes you out.
    Leave {
        /// Which one: its name, or the beginning of its id.
        group: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Name a group.
    Rename {
        /// Which one: its name, or the beginning of its id.
        group: String,
        /// Its new name.
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Say what somebody may do in a group.
    Role {
        /// In which one: its name, or the beginning of its id.
        group: String,
        /// Who: a handle or an account id.
        member: String,
        /// What.
        role: MemberRole,
        #[command(flatten)]
        patience: Patience,
    },
}

/// How long a change may take.
#[derive(Args, Debug)]
pub(crate) struct Patience {
    /// How long to wait until it is so.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum MemberRole {
    /// Adds, removes, names; and says who is what.
    Owner,
    /// Adds, removes and names.
    Admin,
    /// Writes and reads.
    Member,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Contacts {
    /// List them.
    List,
    /// Find somebody and pin who that is, without writing to them.
    Add {
        /// Whom: name@host.
        handle: String,
    },
    /// Accept somebody who wrote; they get receipts from now on.
    Accept {
        /// Whom: a handle or an account id.
        who: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// With whom: a handle or an account id.
    pub(crate) who: String,
    #[command(flatten)]
    pub(crate) answer: Answer,
}

#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct Answer {
    /// "I compared the numbers, and they match."
    #[arg(long)]
    pub(crate) matches: bool,
    /// The 60 digits that the other side reads; marked only if they match.
    #[arg(long, value_name = "DIGITS")]
    pub(crate) number: Option<String>,
    /// Take the mark back.
    #[arg(long)]
    pub(crate) undo: bool,
    /// The handle moved to another account: write to that one from now on.
    #[arg(long)]
    pub(crate) adopt: bool,
    /// The handle moved to another account: stay with the old one.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(crate) enum OnOff {
    /// They may.
    On,
    /// They may not.
    Off,
}

fn key(text: &str) -> Result<[u8; 32], String> {
    // A relay's key has the form of every 32-byte id.
    sealwire_client::AccountId::from_hex(text)
        .map(|id| id.0)
        .ok_or_else(|| "write the 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_help_lists_the_exit_codes() {
        let help = Arguments::command().render_long_help().to_string();
        for words in ["0  done", "1  failed", "2  usage", "3  refused", "4  offline", "SEALWIRE_PASSPHRASE_FILE"] {
            assert!(help.contains(words), "{words}");
        }
    }

    #[test]
    fn answers_to_verify_exclude_each_other() {
        assert!(Arguments::try_parse_from(["sealwire", "verify", "bob@h", "--matches", "--undo"]).is_err());
        assert!(Arguments::try_parse_from(["sealwire", "send", "bob@h"]).is_err());
        assert!(Arguments::try_parse_from(["sealwire", "retire"]).is_err());
    }
}
